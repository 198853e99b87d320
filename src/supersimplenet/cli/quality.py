"""`supersimplenet calibrate`, `report` and `gate`: what a quality engineer signs."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from supersimplenet.cli.options import (
    DATA_HELP,
    ON_ERROR_HELP,
    RESOLUTION_HELP,
    Command,
    OptionParser,
    add_engine,
    compute_config,
)
from supersimplenet.data.loading import OnError
from supersimplenet.data.sources.base import DataSource
from supersimplenet.errors import ConfigError
from supersimplenet.settings import Resolution

_COSTS_HELP = "what a wrong verdict costs, in any one unit, such as false-alarm=1,escape=50"
_BAD_SHARE_HELP = "with --costs: share of bad parts in production, such as 2%; by default that of the parts given"


def quality_commands() -> list[Command]:
    """The commands that set thresholds and show what they do."""
    return [
        Command("calibrate", "set thresholds that hold a promise, from good parts", _calibrate_parser(), _calibrate),
        Command("report", "evaluate a model and write a report, one HTML file", _report_parser(), _report),
        Command("gate", "whether a model may take another's place, by a golden set", _gate_parser(), _gate),
    ]


def _calibrate_parser() -> OptionParser:
    parser = OptionParser(
        description="Set a model's thresholds from parts that were neither trained on nor part of the test; "
        "docs/thresholds.md explains what is promised."
    )
    parser.add_argument("--model", type=Path, required=True, help="the model folder; calibration.yaml is written there")
    parser.add_argument(
        "--good", type=Path, nargs="+", help="folders of good parts; by default those that the training held out"
    )
    parser.add_argument("--bad", type=Path, nargs="+", help="folders of bad parts, where there are any")
    parser.add_argument(
        "--group-pattern",
        type=str | None,
        help=r"finds the part's name in a file's name, such as '(part\d+)_': photographs of one part count once",
    )
    parser.add_argument(
        "--max-false-alarms", type=str | None, help="share of good parts that may be called bad, by default 5%"
    )
    parser.add_argument("--confidence", type=str, default="95%", help="with which each promise holds")
    parser.add_argument(
        "--max-escapes",
        type=str | None,
        help="share of bad parts that may be called good; where one threshold cannot hold both promises there are two, "
        "and a part between them is unsure: a person looks",
    )
    parser.add_argument("--costs", type=str | None, help=f"choose the cheapest threshold instead: {_COSTS_HELP}")
    parser.add_argument("--bad-share", type=str | None, help=_BAD_SHARE_HELP)
    parser.add_argument(
        "--min-area", type=int, default=25, help="smallest defect that is listed, in pixels at the network's input size"
    )
    add_engine(parser)
    parser.add_argument("--on-error", type=OnError, default="stop", help=ON_ERROR_HELP)
    return parser


def _calibrate(options: Namespace) -> int:
    from supersimplenet.apps.quality import calibrate_model
    from supersimplenet.evaluation.calibrate import ThresholdConfig
    from supersimplenet.evaluation.thresholds import parse_costs, parse_share

    def share(name: str) -> float | None:
        text = options[name.replace("-", "_")]
        return None if text is None else parse_share(text, name)

    asked = share("max-false-alarms")
    if asked is not None and options.costs is not None:
        raise ConfigError("max-false-alarms and costs: costs choose the threshold themselves; give one of the two")
    calibrate_model(
        options.model,
        good=options.good or (),
        bad=options.bad or (),
        group_pattern=options.group_pattern,
        config=ThresholdConfig(
            max_false_alarms=ThresholdConfig.max_false_alarms if asked is None else asked,
            confidence=parse_share(options.confidence, "confidence"),
            max_escapes=share("max-escapes"),
            costs=None if options.costs is None else parse_costs(options.costs),
            bad_share=share("bad-share"),
            min_area_px=options.min_area,
        ),
        compute=compute_config(options),
        on_error=options.on_error,
    )
    return 0


def _report_parser() -> OptionParser:
    parser = OptionParser(
        description="Evaluate a model on a data set's test images and write a report: one HTML file that opens from "
        "disk, needs no network and prints."
    )
    parser.add_argument("--model", type=Path, required=True, help="the model folder")
    parser.add_argument("--compare", type=Path, help="another model folder, looked at with the same images")
    parser.add_argument("--data", type=DataSource, help=f"{DATA_HELP}; by default the one it was trained on")
    parser.add_argument("--output", type=Path, required=True, help="folder of the report")
    parser.add_argument("--resolution", type=Resolution, default="model", help=RESOLUTION_HELP)
    parser.add_argument(
        "--pictures", type=int, default=400, help="at most so many images are shown, those nearest to a mistake first"
    )
    parser.add_argument("--costs", type=str | None, help=f"also show what each threshold costs: {_COSTS_HELP}")
    parser.add_argument("--bad-share", type=str | None, help=_BAD_SHARE_HELP)
    add_engine(parser)
    parser.add_argument("--on-error", type=OnError, default="stop", help=ON_ERROR_HELP)
    return parser


def _report(options: Namespace) -> int:
    from supersimplenet.apps.quality import report_model
    from supersimplenet.evaluation.thresholds import parse_costs, parse_share

    report_model(
        options.model,
        options.output,
        data=_report_parser().instantiate(options).data,
        other=options.compare,
        resolution=options.resolution,
        pictures=options.pictures,
        costs=None if options.costs is None else parse_costs(options.costs),
        bad_share=None if options.bad_share is None else parse_share(options.bad_share, "bad-share"),
        compute=compute_config(options),
        on_error=options.on_error,
    )
    return 0


def _gate_parser() -> OptionParser:
    parser = OptionParser(
        description="Whether a model may take another's place: both look at the test images of a golden set. Exit "
        "status 0 where it may, 1 where it may not; the reasons name the images."
    )
    parser.add_argument("--candidate", type=Path, required=True, help="folder of the model that is to be used")
    parser.add_argument("--current", type=Path, required=True, help="folder of the model in use")
    parser.add_argument("--golden", type=Path, required=True, help="table of images, as --data Table --data.path reads")
    parser.add_argument("--output", type=Path, help="folder for gate.json")
    parser.add_argument(
        "--max-new-escapes", type=int, default=0, help="bad images that only the candidate may call good"
    )
    parser.add_argument(
        "--max-new-false-alarms", type=int, default=0, help="good images that only the candidate may call bad"
    )
    add_engine(parser)
    return parser


def _gate(options: Namespace) -> int:
    from supersimplenet.apps.quality import gate_models

    result = gate_models(
        options.candidate,
        options.current,
        options.golden,
        output=options.output,
        max_new_escapes=options.max_new_escapes,
        max_new_false_alarms=options.max_new_false_alarms,
        compute=compute_config(options),
    )
    return 0 if result.passed else 1
