"""`supersimplenet gate`: decide whether a new model may replace the model in use."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt

from supersimplenet.cli.common import Command, OptionParser, add_engine, compute_config
from supersimplenet.postprocessing.calibration import UNCALIBRATED
from supersimplenet.utils.console import results


def command() -> Command:
    """Return the command ``gate``."""
    return Command(
        "gate",
        "whether a model may take another's place, by a golden set",
        _parser(),
        _run,
        {"candidate": "model folder", "current": "model folder", "golden": "file"},
        {"output": "folder"},
    )


def _parser() -> OptionParser:
    parser = OptionParser(
        description="Whether a model may take another's place: both are evaluated on the test images of a golden set. "
        "Exit status 0 where it may, 1 where it may not; the reasons name the images."
    )
    parser.add_argument("--candidate", type=Path, required=True, help="folder of the model that is to be used")
    parser.add_argument("--current", type=Path, required=True, help="folder of the model in use")
    parser.add_argument("--golden", type=Path, required=True, help="table of images, as --data Table --data.path reads")
    parser.add_argument("--output", type=Path, help="folder for gate.json")
    parser.add_argument(
        "--max-new-escapes", type=NonNegativeInt, default=0, help="bad images that only the candidate may call good"
    )
    parser.add_argument(
        "--max-new-false-alarms",
        type=NonNegativeInt,
        default=0,
        help="good images that only the candidate may call bad",
    )
    parser.add_argument(
        "--margin",
        type=float | None,
        help="share of parts on which the candidate may make a new mistake, such as 0.1; refuses also where too few "
        "parts were compared to show it with 95 % confidence",
    )
    add_engine(parser)
    return parser


def _run(options: Namespace) -> int:
    compute = compute_config(options)
    from supersimplenet.evaluation.gate import GATE_FILE, gate_models

    result, evaluations = gate_models(
        options.candidate,
        options.current,
        options.golden,
        output=options.output,
        max_new_escapes=options.max_new_escapes,
        max_new_false_alarms=options.max_new_false_alarms,
        margin=options.margin,
        compute=compute,
    )
    say = results().print
    passed, style = ("passed", "green") if result.passed else ("failed", "bold red")
    say(f"{passed}: {options.candidate} in place of {options.current}", style=style)
    for reason in result.reasons:
        say(f"- {reason}")
    say(f"shown: {result.evidence.describe()}")
    for name, evaluation in zip(("candidate", "current"), evaluations, strict=True):
        say(f"{name}: {UNCALIBRATED if evaluation.calibration is None else evaluation.calibration.guarantee()}")
    if options.output is not None:
        say(f"details: {options.output / GATE_FILE}")
    return 0 if result.passed else 1
