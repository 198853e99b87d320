"""Options that several commands have."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from jsonargparse import ArgumentParser, Namespace

from supersimplenet.data.sources.registry import SOURCES
from supersimplenet.settings import ClusterEngineName, ComputeConfig, EngineName, Precision

ON_ERROR_HELP = "what an unreadable image does: stop the command, or be left out, counted and listed"
RESOLUTION_HELP = (
    "of the pixel metrics: at the network's input size, as published figures are, or at each mask's own (native)"
)
DATA_HELP = (
    f"the data set: one of {', '.join(SOURCES)}, with its own options behind the dot, such as "
    "--data.category bottle; --data.help MVTecAD explains them"
)


class OptionParser(ArgumentParser):
    """A parser that says what is wrong, and not every option before it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and end with status 2."""
        del ex
        print(f"{self.prog.replace(' [options]', '')}: {_in_plain_words(message)}; --help explains", file=sys.stderr)
        sys.exit(2)


def _in_plain_words(message: str) -> str:
    """The parser's message without Python's names of types."""
    name = re.search(r'Parser key "(.*?)"', message)
    option = f"--{name[1]}: " if name else ""
    if choices := re.search(r"Expected a typing\.Literal\[(.*)\]\. Got value: (.*)", message):
        return f"{option}'{choices[2]}'; choose among {choices[1]}"
    if kind := re.search(r"Expected a dot import path string: (.*)", message):
        return f"{option}'{kind[1]}' is none of {', '.join(SOURCES)}"
    if pair := re.search(r"Subtypes: \[tuple\[int, int\].*Given value: (.*)", message, re.DOTALL):
        return f"{option}'{pair[1]}'; wanted two whole numbers, such as '[256,256]'"
    return message


class Command(NamedTuple):
    """A command of the program.

    Attributes:
        name: what is typed.
        help: one line for the list of commands.
        parser: of its options.
        run: what it does with them; gives the exit status.
    """

    name: str
    help: str
    parser: ArgumentParser
    run: Callable[[Namespace], int]


def add_engine(parser: ArgumentParser, *, cluster: bool = False) -> None:
    """What computes, where and how; with ``cluster`` on many machines too."""
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--engine",
        type=ClusterEngineName if cluster else EngineName,
        default="torch",
        help="what computes; openvino is the faster on a processor (pip install 'supersimplenet[openvino]')"
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
        help="bfloat16 is faster where the processor or GPU computes in it; scores change in the third digit",
    )


def compute_config(options: Namespace) -> ComputeConfig:
    """What `add_engine`'s options say."""
    return ComputeConfig(
        device=options.device,
        engine=options.engine,
        precision=options.precision,
        address=options.get("address"),
        workers=options.get("workers"),
    )
