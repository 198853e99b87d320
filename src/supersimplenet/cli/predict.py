"""`supersimplenet predict`: predict images and write the results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

from supersimplenet.cli.common import (
    ON_ERROR_HELP,
    Command,
    OptionParser,
    add_engine,
    compute_config,
    parse_share,
    print_guarantee,
)
from supersimplenet.cli.last_model import named_or_last
from supersimplenet.errors import ConfigError
from supersimplenet.postprocessing.parts import GROUP_PATTERN_HELP, given_pattern
from supersimplenet.prediction.inputs import STANDARD_INPUT
from supersimplenet.prediction.tables import DEFAULT_FORMATS, parse_formats, table_files
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.training.config import parse_duration
from supersimplenet.types import OverlayStyle
from supersimplenet.utils.console import console, results
from supersimplenet.utils.formatting import counted

if TYPE_CHECKING:
    from supersimplenet.postprocessing.calibration import Calibration
    from supersimplenet.prediction.finish import PartCounts
    from supersimplenet.prediction.job import PredictionSummary
    from supersimplenet.prediction.tables import Row

_BASIC = (
    *("paths", "--help", "--model", "--output", "--overlays", "--overlay-style", "--watch", "--group-pattern"),
    *("--engine", "--device", "--on-error"),
)
_MORE_PHOTOGRAPHS = 1.1  # of a part than in the calibration, from which the guarantee is in doubt


def command() -> Command:
    """Return the command ``predict``."""
    return Command(
        "predict",
        "write a table of scores and verdicts of images",
        _parser(),
        _run,
        {"model": "model", "paths": "input", "list": "file", "watch": "folder"},
        {"output": "folder"},
    )


def _parser() -> OptionParser:
    parser = OptionParser(description="Predict images: write a table of anomaly scores and verdicts.", basic=_BASIC)
    parser.add_argument(
        "--model",
        type=Path | None,
        help="the model folder, or a file that `supersimplenet export` wrote; by default the last model that was "
        "trained below runs/",
    )
    parser.add_argument(
        "paths",
        nargs="*",
        help="image files, folders (searched at any depth), glob patterns, tar archives and Parquet tables of images, "
        "URLs of these, or - for a list on standard input",
    )
    parser.add_argument(
        "--list", type=Path | None, help="a text file that names an image, or any of these, in each line"
    )
    parser.add_argument(
        "--watch",
        type=Path | None,
        help="predict what is in this folder and what is put there later, until stopped; print a line for each",
    )
    parser.add_argument("--watch-for", type=str | None, help="such as 10m: watch no longer than that")
    parser.add_argument("--output", type=Path | None, help="folder of the results; by default MODEL/predictions")
    parser.add_argument(
        "--format", type=str, default=",".join(DEFAULT_FORMATS), help="of the results: csv, jsonl, parquet, with commas"
    )
    parser.add_argument("--overlays", action="store_true", help="also write each image with its anomaly map over it")
    parser.add_argument(
        "--overlay-style",
        type=OverlayStyle | None,
        help="of the overlays: heat, the anomaly map with boxes (the default), or outline, the photograph with the "
        "outlines of defects alone",
    )
    parser.add_argument(
        "--list-all",
        action="store_true",
        help="also list regions of the anomaly map in images that are good; by default these list no defect",
    )
    parser.add_argument(
        "--group-pattern",
        type=str | None,
        help=f"{GROUP_PATTERN_HELP}: a table of parts, each with one verdict, that of its worst photograph",
    )
    parser.add_argument(
        "--false-discovery-rate",
        type=str | None,
        help="such as 5%: count the parts, or images without --group-pattern, that can be told from good ones with at "
        "most that share of mistakes, however many there are (column q_value)",
    )
    parser.add_argument(
        "--batch-size",
        type=PositiveInt | None,
        help="images that go through the network together; by default what suits it",
    )
    add_engine(parser, cluster=True)
    parser.add_argument("--on-error", type=OnError, default="stop", help=ON_ERROR_HELP)
    parser.add_argument(
        "--trust",
        action="store_true",
        help="open an exported torch program, which may run code of whoever made it; ONNX and OpenVINO files hold none",
    )
    return parser


def _run(options: Namespace) -> int:
    if not options.paths and options.list is None and options.watch is None:
        raise ConfigError("PATHS: name images to predict: files, folders, patterns, or a --list of them")
    if STANDARD_INPUT in options.paths and (sys.stdin is None or sys.stdin.isatty()):
        raise ConfigError("-: standard input is a terminal; pipe a list of images into the command, or name them")
    formats, compute = parse_formats(options.format), compute_config(options)
    watch_for_s = None if options.watch_for is None else parse_duration(options.watch_for, "watch-for")
    if options.overlay_style is not None and not options.overlays:
        raise ConfigError("overlay-style: says how overlays are drawn, and none are; give --overlays, too")
    given_pattern(options.group_pattern)
    rate = options.false_discovery_rate
    rate = None if rate is None else parse_share(rate, "false-discovery-rate")
    model = named_or_last(options.model)
    output = _output_of(model) if options.output is None else options.output
    from supersimplenet.prediction.job import OVERLAYS
    from supersimplenet.prediction.predict import predict_files

    summary = predict_files(
        model,
        options.paths,
        output,
        list_file=options.list,
        watch=options.watch,
        watch_for_s=watch_for_s,
        formats=formats,
        overlays=options.overlays,
        overlay_style=options.overlay_style or "heat",
        list_all=options.list_all,
        group_pattern=options.group_pattern,
        false_discovery_rate=rate,
        batch_size=options.batch_size,
        compute=compute,
        on_error=options.on_error,
        trust=options.trust,
        each=(lambda row: None) if options.watch is None else _print_row,
    )
    _print_summary(summary, rate)
    tables = table_files(formats, parts=summary.parts is not None)
    written = [*tables[1:], *([f"{OVERLAYS}/"] if (output / OVERLAYS).is_dir() else [])]
    beside = f", {', '.join(written)}" if written else ""
    replaced = " (an earlier run was replaced)" if summary.replaced else ""
    results().print(f"results: {summary.table}{beside}{replaced}")
    return 0


def _output_of(model: Path) -> Path:
    """Return the folder of the results where none is named.

    Raises:
        ConfigError: the model is an exported file, in which there is no room for them.
    """
    if model.is_file():
        raise ConfigError(f"--output: not given; wanted with {model.name}, an exported file: a folder of the results")
    return model / "predictions"


def _print_row(row: Row) -> None:
    """Print a line about a part as it comes: name, verdict and score (a logit), with tabs between them."""
    encoding = sys.stdout.encoding or "utf-8"
    name = row["path"].encode(encoding, "backslashreplace").decode(encoding)
    verdict, score = ("error", "") if row["error"] else (row["verdict"], f"{row['score_logit']:.3f}")
    print(name, verdict, score, sep="\t", flush=True)
    if row["error"]:
        console().print(row["error"])


def _print_summary(summary: PredictionSummary, false_discovery_rate: float | None) -> None:
    continued = f", {summary.continued} of them done before" if summary.continued else ""
    failed = f", {summary.failed} could not be read (see the error column)" if summary.failed else ""
    unsure = f", {summary.verdicts['unsure']} unsure" if summary.verdicts["unsure"] else ""
    results().print(
        f"{counted(summary.images, 'image')}{continued}: {summary.verdicts['bad']} bad{unsure} at threshold "
        f"{summary.threshold_logit:.3f} (a logit){failed}"
    )
    if summary.parts is not None:
        _print_parts(summary.parts, summary.calibration)
    if summary.flagged is not None and false_discovery_rate is not None:
        what = "" if summary.parts is None else " parts"
        results().print(
            f"{summary.flagged}{what} are told from good parts at a false-discovery rate of "
            f"{false_discovery_rate * 100:g} %"
        )
    print_guarantee(summary.calibration)


def _print_parts(found: PartCounts, calibration: Calibration | None) -> None:
    say = results().print
    unsure = f", {found.verdicts['unsure']} unsure" if found.verdicts["unsure"] else ""
    unknown = f", {found.unknown} without a verdict (a photograph could not be read)" if found.unknown else ""
    photographs = counted(found.photographs, "photograph")
    say(f"{counted(found.parts, 'part')} in {photographs}: {found.verdicts['bad']} bad{unsure}{unknown}")
    if found.unnamed:
        say(f"{counted(found.unnamed, 'photograph')} of no known part: each counts as a part of its own")
    if calibration is None:
        return
    here, there = found.photographs / max(1, found.parts), calibration.images / calibration.parts
    if here > _MORE_PHOTOGRAPHS * there:
        say(
            f"{here:.3g} photographs a part here, {there:.3g} in the calibration: more good parts may be called bad "
            "than is guaranteed; calibrate with as many"
        )
