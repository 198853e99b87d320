"""`supersimplenet benchmark`: measure this machine."""

from __future__ import annotations

import json
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from supersimplenet.cli.options import Command
from supersimplenet.settings import SpeedConfig


def benchmark_commands() -> list[Command]:
    """The commands below ``benchmark``."""
    return [
        Command("speed", "time each stage from the file to the verdict", _speed_parser(), _speed),
    ]


def _speed_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Time each stage from the file to the verdict, alone and many at once.")
    parser.add_argument("--output", type=Path, help="also write the report as JSON")
    parser.add_class_arguments(SpeedConfig)
    return parser


def _speed(options: Namespace) -> int:
    from supersimplenet.benchmark import benchmark_speed, print_report

    values = _speed_parser().instantiate(options).as_dict()
    output = values.pop("output")
    report = benchmark_speed(SpeedConfig(**values))
    print_report(report)
    if output is not None:
        output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(output)
    return 0
