"""`supersimplenet report`: evaluate a model and write a report."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt

from supersimplenet.cli.common import (
    BAD_SHARE_HELP,
    COSTS_HELP,
    DATA_HELP,
    ON_ERROR_HELP,
    RESOLUTION_HELP,
    Command,
    OptionParser,
    add_engine,
    compute_config,
    parse_costs,
    parse_share,
)
from supersimplenet.cli.last_model import MODEL_HELP, named_or_last
from supersimplenet.datasets.base import DataSource
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.types import Resolution
from supersimplenet.utils.console import results


def command() -> Command:
    """Return the command ``report``."""
    return Command(
        "report",
        "evaluate a model and write a report, one HTML file",
        _parser(),
        _run,
        {"model": "model folder", "compare": "model folder"},
        {"output": "folder"},
    )


def _parser() -> OptionParser:
    parser = OptionParser(
        description="Evaluate a model on a dataset's test images and write a report: one HTML file that opens from "
        "disk, needs no network and prints."
    )
    parser.add_argument("--model", type=Path | None, help=MODEL_HELP)
    parser.add_argument("--compare", type=Path, help="another model folder, evaluated on the same images")
    parser.add_argument("--data", type=DataSource, help=f"{DATA_HELP}; by default the one it was trained on")
    parser.add_argument("--output", type=Path | None, help="folder of the report; by default MODEL/report")
    parser.add_argument("--resolution", type=Resolution, default="model", help=RESOLUTION_HELP)
    parser.add_argument(
        "--pictures",
        type=NonNegativeInt,
        default=400,
        help="at most so many images are shown, those nearest to a mistake first",
    )
    parser.add_argument("--costs", type=str | None, help=f"also show what each threshold costs: {COSTS_HELP}")
    parser.add_argument("--bad-share", type=str | None, help=BAD_SHARE_HELP)
    add_engine(parser)
    parser.add_argument("--on-error", type=OnError, default="stop", help=ON_ERROR_HELP)
    return parser


def _run(options: Namespace) -> int:
    data = _parser().instantiate(options).data
    costs = None if options.costs is None else parse_costs(options.costs)
    bad_share = None if options.bad_share is None else parse_share(options.bad_share, "bad-share")
    compute, model = compute_config(options), named_or_last(options.model)
    from supersimplenet.report.report import write_report

    path = write_report(
        model,
        options.output or model / "report",
        data=data,
        other=options.compare,
        resolution=options.resolution,
        pictures=options.pictures,
        costs=costs,
        bad_share=bad_share,
        compute=compute,
        on_error=options.on_error,
    )
    results().print(f"report: {path}")
    return 0
