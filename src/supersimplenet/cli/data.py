"""`supersimplenet data`: make data sets."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from supersimplenet.cli.options import Command
from supersimplenet.data.synthetic import SyntheticConfig


def data_commands() -> list[Command]:
    """The commands below ``data``."""
    return [
        Command("synthesize", "write a synthetic data set, MVTec layout", _synthesize_parser(), _synthesize),
    ]


def _synthesize_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Write a synthetic data set of surfaces with defects, in MVTec layout.")
    parser.add_argument("--output", type=Path, required=True, help="the data set's root; one folder a surface is made")
    parser.add_class_arguments(SyntheticConfig)
    return parser


def _synthesize(options: Namespace) -> int:
    from supersimplenet.data.synthetic import synthesize

    values = options.as_dict()
    output = values.pop("output")
    for folder in synthesize(output, SyntheticConfig(**values)):
        print(folder)
    return 0
