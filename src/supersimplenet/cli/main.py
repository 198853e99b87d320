"""Run the program: choose the command, run it, and print its errors."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence

from jsonargparse import Namespace

from supersimplenet.benchmark.protocol import with_protocol
from supersimplenet.cli import (
    benchmark,
    calibrate,
    data,
    datasets,
    demo,
    distill,
    export,
    gate,
    import_weights,
    predict,
    registry,
    report,
    review,
    serve,
    station,
    test,
    train,
)
from supersimplenet.cli.checks import check_not_empty, check_paths, check_values
from supersimplenet.cli.common import (
    Command,
    OptionParser,
    refused,
    wants_all_help,
    with_known_spelling,
    without_dataset_options,
)
from supersimplenet.errors import ConfigError, ImageError, SuperSimpleNetError
from supersimplenet.preprocessing.listing import counting
from supersimplenet.utils.console import console, write_in_any_encoding
from supersimplenet.utils.system import let_waiting_threads_sleep
from supersimplenet.utils.version import __version__

_GROUPS = {
    "data": "make, fetch, check and split datasets",
    "datasets": "datasets with versions: import, gather answers, compare, export",
    "registry": "models of a station: train, compare, promote, roll back",
    "review": "what people are asked and answer, without a page",
    "station": "users, tokens, the audit trail and exports of a station",
    "benchmark": "measure this machine, and models on published datasets",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the arguments after the program's name; by default those of this process.

    Returns:
        The exit status (docs/cli.md): 0 for success, 1 for data or work that failed or a gate or check that refused, 2
        for a wrong call, 130 after Ctrl-C. Each but 0 comes with a message on standard error.
    """
    let_waiting_threads_sleep()
    write_in_any_encoding()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser, commands = _build_parser()
    name = next((" ".join(arguments[:n]) for n in (2, 1) if " ".join(arguments[:n]) in commands), "")
    program = f"{parser.prog} {name}".strip()
    options: Namespace | dict[str, object] = {}
    try:
        if not name:
            parser.parse_args(arguments)  # prints help or version, or refuses
            return 0
        command = commands[name]
        own = _own_arguments(name, command, arguments)
        if any(map(_prints_config, own)):
            parser.parse_args([*name.split(), *own])  # the program's parser alone prints it
        options = _checked(command, own)
        with counting(options.get("on_error", "stop")) as left_out:
            try:
                return command.run(options)
            finally:
                if text := left_out.unsaid():
                    console().print(text)
    except ConfigError as error:
        return refused(program, str(error), error.commands)
    except ImageError as error:
        advice = "; --on-error skip leaves out what cannot be read, and says so" if "on_error" in options else ""
        return _failed(error, advice)
    except (SuperSimpleNetError, OSError) as error:  # OSError: a full disk, ...; the system's message names the file
        return _failed(error)
    except KeyboardInterrupt:
        console().print("interrupted")
        return 130


def _own_arguments(name: str, command: Command, arguments: list[str]) -> list[str]:
    """Return the arguments after the command's name, in the command's spelling."""
    own = with_known_spelling(train.without_model_name(arguments)[len(name.split()) :], command.parser)
    check_not_empty(own)
    if wants_all_help(own):
        print(command.parser.format_whole_help(), end="")
        sys.exit(0)
    if name == "train":
        own = train.with_earlier_options(own)
    if command.expand is not None:
        plain = [argument for argument in own if not _prints_config(argument)]
        others = without_dataset_options(plain)
        if _parsed(command, others).path is not None:
            return command.expand(own, _checked(command, others))
        return own
    return with_protocol(own) if name == "benchmark accuracy" else own


def _prints_config(argument: str) -> bool:
    return argument.startswith("--print_config")


def _checked(command: Command, arguments: list[str]) -> Namespace:
    options = _parsed(command, arguments)
    check_values(options)
    check_paths(options, command.reads, command.writes)
    return options


def _parsed(command: Command, arguments: list[str]) -> Namespace:
    try:
        return command.parser.parse_args(arguments)
    except OverflowError as error:
        raise ConfigError("a number is too large; wanted one that fits into 64 bits") from error
    except (UnicodeDecodeError, RecursionError) as error:  # of a YAML file
        raise ConfigError(f"--config: not readable as YAML ({type(error).__name__}); wanted UTF-8 text") from error


def _failed(error: Exception, advice: str = "") -> int:
    console().print(f"{type(error).__name__}: {error}{advice}")
    return 1


def command_groups() -> dict[str, list[Command]]:
    """Return all commands by the word that comes before them, which is empty for most commands."""
    return {
        "": [
            train.command(),
            test.command(),
            calibrate.command(),
            report.command(),
            gate.command(),
            predict.command(),
            export.command(),
            serve.command(),
            distill.command(),
            import_weights.command(),
            demo.command(),
        ],
        "data": data.commands(),
        "datasets": datasets.commands(),
        "registry": registry.commands(),
        "review": review.commands(),
        "station": station.commands(),
        "benchmark": benchmark.commands(),
    }


@functools.cache
def _build_parser() -> tuple[OptionParser, dict[str, Command]]:
    parser = OptionParser(prog="supersimplenet", description="Find defects on surfaces in photographs.")
    parser.add_argument("--version", action="version", version=f"supersimplenet {__version__}")
    top = parser.add_subcommands()
    found: dict[str, Command] = {}
    for group, commands in command_groups().items():
        subcommands = top
        if group:
            group_parser = OptionParser(description=f"{_GROUPS[group][0].upper()}{_GROUPS[group][1:]}.")
            top.add_subcommand(group, group_parser, help=_GROUPS[group])
            subcommands = group_parser.add_subcommands()
        for command in commands:
            subcommands.add_subcommand(command.name, command.parser, help=command.help)
            found[f"{group} {command.name}".strip()] = command
    return parser, found
