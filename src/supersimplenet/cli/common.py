"""Helpers of several commands: the parser, shared options, and texts about a model."""

from __future__ import annotations

import argparse
import math
import re
import shlex
import sys
from argparse import SUPPRESS, Action
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import yaml
from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader

from supersimplenet.cli.checks import Reads, Writes
from supersimplenet.cli.messages import HelpFormatter, in_plain_words
from supersimplenet.datasets.discover import Discovery, discover
from supersimplenet.datasets.registry import SOURCES
from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import ClusterEngineName, ComputeConfig, EngineName, Precision
from supersimplenet.postprocessing.calibration import UNCALIBRATED, Calibration
from supersimplenet.utils.console import console, results
from supersimplenet.utils.formatting import listed, nearest

if TYPE_CHECKING:
    from supersimplenet.metrics.thresholds import Costs

# A value that YAML cannot read is text; so is a path with bytes that are not UTF-8.
set_loader("yaml", get_loader("yaml"), exceptions=(yaml.YAMLError, UnicodeEncodeError))

_MOST_HELD_OUT = 0.6  # share of the good parts of a training beyond which too few are left to learn from
_RATES = (0.1, 0.05, 0.01)  # of false alarms, of which the next lower ones are offered
WRONG_CALL = 2  # exit status: an option or a path that was typed is wrong
ON_ERROR_HELP = "what an unreadable image does: stop the command, or be left out, counted and listed"
RESOLUTION_HELP = (
    "of the pixel metrics: at the network's input size, as published figures are, or at each mask's own (native)"
)
DATA_HELP = (
    f"the dataset: one of {', '.join(SOURCES)}, with its own options behind the dot, such as "
    "--data.category bottle; --data.help MVTecAD explains them"
)
NO_DATASET = "data: not given; name a folder of photographs, such as parts/ with good/ in it, or a dataset with --data"
PATH_HELP = (
    "a folder of photographs whose subfolders are named good, bad (or one for each type of defect) and masks, or a "
    "dataset in a known layout; instead of --data"
)
COSTS_HELP = "what a wrong verdict costs, in any one unit, such as false-alarm=1,escape=50"
BAD_SHARE_HELP = "with --costs: share of bad parts in production, such as 2%; by default that of the parts given"


class OptionParser(ArgumentParser):
    """A parser whose error is one line, and whose help names no Python types.

    Args:
        basic: names of the arguments that ``--help`` shows; ``--help all`` shows the others too. None: all.
        short: names in full of options that may be typed shorter, by the short name; see `with_known_spelling`.
    """

    def __init__(
        self,
        *arguments: Any,
        basic: Sequence[str] | None = None,
        short: Mapping[str, str] = MappingProxyType({}),
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **{"formatter_class": HelpFormatter, **named})
        self.basic = basic
        self.short = short

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        """Return the help, of the basic arguments where there are such."""
        if self.basic is None:
            return str(super().format_help(formatter))
        advanced = [a for a in self._actions if a.help != SUPPRESS and not {a.dest, *a.option_strings} & {*self.basic}]
        texts, groups = [action.help for action in advanced], self._action_groups
        for action in advanced:
            action.help = SUPPRESS
        self._action_groups = [group for group in groups if any(a.help != SUPPRESS for a in group._group_actions)]
        command = self.prog.replace(" [options]", "")
        paths = " ".join(_positional(action) for action in self._actions if not action.option_strings)
        self.usage = f"{command} [options] {paths}"
        try:
            shown = str(super().format_help(formatter))
        finally:
            self.usage, self._action_groups = None, groups
            for action, text in zip(advanced, texts, strict=True):
                action.help = text
        return f"{shown}\n{len(advanced)} more options: {command} --help all\n"

    def format_whole_help(self) -> str:
        """Return the help of all arguments."""
        return str(super().format_help())

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and end the process with exit status 2."""
        if not self.exit_on_error:  # a parser of one value; the command's own parser reports what it raises
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        sys.exit(refused(parser.prog.replace(" [options]", ""), f"{_explained(message, parser)}; --help explains"))


def _positional(action: Action) -> str:
    name = str(action.metavar or action.dest).upper()
    return f"[{name} ...]" if action.nargs == "*" else f"[{name}]" if action.nargs == "?" else name


def refused(program: str, message: str, commands: Sequence[tuple[str, str]] = ()) -> int:
    """Print why a call is wrong, and the commands that may be right; return the exit status of a wrong call."""
    console().print(f"{program}: {message}")
    for case, line in commands:
        console().print(*([f"  {case}:"] if case else []), f"    {line}", sep="\n")
    return WRONG_CALL


def _explained(message: str, parser: ArgumentParser) -> str:
    unknown = re.match(r"unrecognized arguments: (--[\w.-]+)", message)
    advice = nearest(unknown[1], parser._option_string_actions) if unknown else ""
    return in_plain_words(message, parser) + advice


class Command(NamedTuple):
    """A command of the program.

    Attributes:
        name: name of the command on the command line.
        help: one line for the list of commands.
        parser: parser of the command's options.
        run: function that carries out the command and returns the exit status.
        reads: for each option that names paths to read: what they must be; see `check_paths`.
        writes: for each option that names a result: what it is.
        expand: for a command with an argument PATH: returns the arguments with the options that PATH stands for. What
            is parsed lacks options of the dataset (``--data.seed``), which may be typed beside PATH.
    """

    name: str
    help: str
    parser: OptionParser
    run: Callable[[Namespace], int]
    reads: Mapping[str, Reads] = MappingProxyType({})
    writes: Mapping[str, Writes] = MappingProxyType({})
    expand: Callable[[list[str], Namespace], list[str]] | None = None


def wants_all_help(arguments: Sequence[str]) -> bool:
    """Return whether ``--help all`` is among the arguments of a command."""
    return any(pair in {("--help", "all"), ("-h", "all")} for pair in pairwise(arguments))


def with_known_spelling(arguments: Sequence[str], parser: OptionParser) -> list[str]:
    """Return the arguments with each option in its parser's spelling: ``--batch_size`` is also ``--batch-size``.

    A short name becomes that in full.

    Args:
        arguments: the arguments after the command's name.
        parser: parser of that command.
    """
    known = set(parser._option_string_actions)
    spellings = {name.replace("_", "-"): name for name in known}
    spelled = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        name = parser.short.get(name, name)
        if name.startswith("--") and name not in known:
            head, dot, tail = name.partition(".")
            # After the dot follows the name of a class field, which Python spells with underscores.
            own = f"{head}.{tail.replace('-', '_')}" if dot else name
            name = spellings.get(name.replace("_", "-"), own)
        spelled.append(name + equals + value)
    return spelled


def without_dataset_options(arguments: Sequence[str]) -> list[str]:
    """Return the arguments without options of a dataset whose class is not typed, such as ``--data.seed 1``."""
    if any(argument.partition("=")[0] == "--data" for argument in arguments):
        return list(arguments)
    others: list[str] = []
    value_follows = False
    for argument in arguments:
        is_option = argument.startswith("--data.") and not argument.startswith("--data.help")
        if not (is_option or value_follows):
            others.append(argument)
        value_follows = is_option and "=" not in argument
    return others


def found_dataset(options: Namespace) -> Discovery:
    """Return the dataset in the folder PATH, and print what was found.

    Raises:
        ConfigError: a dataset is named as well, or it is not clear what PATH holds.
    """
    if options.data is not None:
        raise ConfigError(f"PATH: {options.path}: the dataset is named already; leave one out")
    found = discover(options.path)
    console().print(*found.lines, sep="\n")
    return found


def in_full(command: str, options: Namespace, chosen: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Return the arguments that PATH stands for, and print them as a command. What is typed wins.

    Args:
        command: the command's name.
        options: the options, with the argument PATH.
        chosen: what PATH stands for, each as ``--name=value``.
        arguments: what was typed.
    """
    typed = {argument.partition("=")[0] for argument in arguments}
    kept = [choice for choice in chosen if choice.partition("=")[0] not in typed]
    named = [part for choice in kept for part in choice.split("=", 1)]
    # PATH itself, not the same text as the value of an option, such as --output PATH
    values = {place for place, argument in enumerate(arguments, 1) if argument.startswith("--") and "=" not in argument}
    places = [place for place, argument in enumerate(arguments) if Path(argument) == options.path]
    places.sort(key=lambda place: place in values)
    rest = [argument for place, argument in enumerate(arguments) if place not in places[:1]]
    console().print(f"the same in full: supersimplenet {command} {shlex.join([*named, *rest])}")
    return [*kept, *arguments]


def dataset_in_full(command: str, arguments: list[str], options: Namespace) -> list[str]:
    """Return the arguments of a command with those of the dataset in the folder PATH; see `in_full`."""
    return in_full(command, options, found_dataset(options).arguments, arguments)


def add_engine(parser: ArgumentParser, *, cluster: bool = False) -> None:
    """Add the options for device, engine and precision; with ``cluster``, also those for many machines."""
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--engine",
        type=ClusterEngineName if cluster else EngineName,
        default="torch",
        help="what computes; openvino is the faster on a CPU (pip install 'supersimplenet[openvino]')"
        + ("; ray computes on a cluster (docs/scale.md)" if cluster else ""),
    )
    if cluster:
        parser.add_argument(
            "--address", type=str | None, help="with ray: of the cluster, such as auto; by default this machine alone"
        )
        parser.add_argument("--workers", type=int | None, help="with ray: how many; by default one a GPU or core")
    parser.add_argument(
        "--precision",
        type=Precision,
        default="float32",
        help="bfloat16 is faster where the CPU or GPU computes in it; scores change in the third digit",
    )


def compute_config(options: Namespace) -> ComputeConfig:
    """Return the options of `add_engine` as a config."""
    return ComputeConfig(
        device=options.device,
        engine=options.engine,
        precision=options.precision,
        address=options.get("address"),
        workers=options.get("workers"),
    )


def print_guarantee(calibration: Calibration | None, *, warning: str | None = None) -> None:
    """Print the guarantee of the threshold, or that it guarantees nothing, and a warning about it."""
    if calibration is None:
        results().print(UNCALIBRATED, style="bold red")
    else:
        kind, style = ("calibrated", None) if calibration.holds else ("guarantee", "bold red")
        results().print(f"{kind}: {calibration.guarantee()}", style=style)
        if (on_average := calibration.on_average()) is not None:
            results().print(f"not to be signed: {on_average}")
    if warning is not None:
        results().print(warning, style="bold red")


def print_better_guarantee(calibration: Calibration | None, model: Path, good_parts: int) -> None:
    """Print what would make a guarantee better, and the command; nothing where 1 % is guaranteed.

    Args:
        calibration: the model's thresholds.
        model: the model folder.
        good_parts: number of good parts in the training split, held out or trained on; 0 where it is not known.
    """
    from supersimplenet.metrics.thresholds import parts_needed

    if calibration is None or not calibration.holds:
        return
    lower = [rate for rate in _RATES if rate < 0.9 * calibration.max_false_alarms][:2]
    if lower:
        parts = listed([str(parts_needed(rate, calibration.confidence)) for rate in lower])
        rates = listed([f"{rate * 100:g} %" for rate in lower])
        results().print(
            f"to sign {rates}: {parts} good parts that the model has not seen, "
            f"supersimplenet calibrate --model {shlex.quote(str(model))} --good DIR"
        )
    for rate in reversed(lower):
        needed = parts_needed(rate, calibration.confidence)
        if needed <= _MOST_HELD_OUT * good_parts:
            share = math.ceil(100 * needed / good_parts) / 100
            results().print(
                f"or with the {good_parts} good parts of the training: --trainer.holdout_fraction {share:g} keeps "
                f"{needed} of them out of it, to sign {rate * 100:g} %"
            )
            break


def parse_share(text: str, option: str, *, ends: bool = False) -> float:
    """Return a share in (0, 1), or with ``ends`` in [0, 1], from a text such as ``1%``, ``1 %`` or ``0.01``.

    Raises:
        ConfigError: the text is no such share; the message names the option.
    """
    number = text.strip()
    try:
        share = float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError as error:
        raise ConfigError(f"{option}: {text!r} is no share; wanted one such as 1% or 0.01") from error
    if not (0 < share < 1 or (ends and share in (0, 1))):
        limits = "from 0 to 100 %" if ends else "above 0 and below 100 %"
        meant = share if 1 < share < 100 and not number.endswith("%") else 1
        raise ConfigError(f"{option}: {text}; wanted a share {limits}, such as {meant:g}% or {meant / 100:g}")
    return share


def parse_costs(text: str) -> Costs:
    """Return costs from a text such as ``false-alarm=1,escape=50``, in either order.

    Raises:
        ConfigError: the text has another form.
    """
    from supersimplenet.metrics.thresholds import Costs

    wanted = "wanted both once, such as false-alarm=1,escape=50"
    found: dict[str, float] = {}
    for item in text.split(","):
        name, _, value = (part.strip() for part in item.partition("="))
        if name not in ("false-alarm", "escape") or name in found:
            raise ConfigError(f"costs: {item.strip()!r} in {text!r}; {wanted}")
        try:
            found[name] = float(value)
        except ValueError as error:
            raise ConfigError(f"costs: {name} is {value!r}, no number; {wanted}") from error
    if len(found) < 2:
        raise ConfigError(f"costs: {text!r} names {', '.join(found)} alone; {wanted}")
    return Costs(false_alarm=found["false-alarm"], escape=found["escape"])
