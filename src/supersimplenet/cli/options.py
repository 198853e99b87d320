"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from jsonargparse import ArgumentParser, Namespace

from supersimplenet.data.sources.registry import SOURCES
from supersimplenet.settings import EngineName, Precision

ON_ERROR_HELP = "what an unreadable image does: stop the command, or be left out, counted and listed"
DATA_HELP = (
    f"the data set: one of {', '.join(SOURCES)}, with its own options behind the dot, such as "
    "--data.category bottle; --data.help MVTecAD explains them"
)


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


def add_engine(parser: ArgumentParser) -> None:
    """What computes, where and how."""
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--engine",
        type=EngineName,
        default="torch",
        help="what computes; openvino is the faster on a processor (pip install 'supersimplenet[openvino]')",
    )
    parser.add_argument(
        "--precision",
        type=Precision,
        default="float32",
        help="bfloat16 is faster where the processor or GPU computes in it; scores change in the third digit",
    )
