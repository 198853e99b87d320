"""`supersimplenet test`: evaluate a model on test images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from supersimplenet.cli.common import (
    DATA_HELP,
    ON_ERROR_HELP,
    RESOLUTION_HELP,
    Command,
    OptionParser,
    add_engine,
    compute_config,
    print_guarantee,
)
from supersimplenet.cli.last_model import MODEL_HELP, named_or_last
from supersimplenet.datasets.base import DataSource
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.types import BAD, GOOD, Resolution
from supersimplenet.utils.console import results
from supersimplenet.utils.formatting import counted

if TYPE_CHECKING:
    from supersimplenet.evaluation.results import Evaluation

_SCORES = {
    "head": "classification head's score",
    "map": "anomaly map's maximum",
    "fused": "fused score",
    "subspace": "subspace score",
    "joint": "joint score",
    "zones": "score of zones",
}


def command() -> Command:
    """Return the command ``test``."""
    return Command(
        "test",
        "evaluate a model on a dataset's test images",
        _parser(),
        _run,
        {"model": "model folder"},
        {"output": "folder"},
    )


def _parser() -> OptionParser:
    parser = OptionParser(description="Evaluate a model on a dataset's test images; writes metrics.json.")
    parser.add_argument("--model", type=Path | None, help=MODEL_HELP)
    parser.add_argument("--data", type=DataSource, help=f"{DATA_HELP}; by default the one it was trained on")
    parser.add_argument("--output", type=Path, help="where to write; by default the model folder")
    parser.add_argument("--resolution", type=Resolution, default="model", help=RESOLUTION_HELP)
    parser.add_argument(
        "--anomalib-aupro", action="store_true", help="also AUPRO as anomalib computes it, which published tables have"
    )
    add_engine(parser, cluster=True)
    parser.add_argument("--on-error", type=OnError, default="stop", help=ON_ERROR_HELP)
    return parser


def _run(options: Namespace) -> int:
    data, compute = _parser().instantiate(options).data, compute_config(options)
    model = named_or_last(options.model)
    from supersimplenet.report.findings import evaluate_model

    evaluation = evaluate_model(
        model,
        data=data,
        output=options.output,
        resolution=options.resolution,
        compute=compute,
        on_error=options.on_error,
        anomalib_aupro=options.anomalib_aupro,
    )
    print_evaluation(evaluation, options.output or model)
    return 0


def print_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Print metrics, verdicts, guarantee, and the paths of the files that `evaluate_model` wrote."""
    from supersimplenet.inference.config import METRICS_FILE
    from supersimplenet.report.findings import CONTACT_SHEET

    _print_metrics(evaluation)
    _print_verdicts(evaluation)
    print_guarantee(evaluation.calibration)
    if evaluation.failures:
        results().print(f"{counted(len(evaluation.failures), 'image')} could not be read; {METRICS_FILE} lists them")
    results().print(f"metrics:  {folder / METRICS_FILE}", f"findings: {folder / CONTACT_SHEET}", sep="\n")


def _print_metrics(evaluation: Evaluation) -> None:
    """Print a table of the scores, one of the pixel metrics, and why a metric or an interval is missing."""
    from rich.table import Table

    from supersimplenet.evaluation.results import PREFIXES

    metrics = dict(evaluation.metrics)
    missing: dict[str, list[str]] = {}

    def cells(name: str) -> tuple[str, str]:
        metric = metrics.pop(name)
        if metric.value is None:
            missing.setdefault(f"undefined, {metric.reason}", []).append(name)
            return "", ""
        if metric.no_interval is not None:
            missing.setdefault(f"no 95 % interval, {metric.no_interval}", []).append(name)
            return f"{metric.value:.4f}", ""
        return f"{metric.value:.4f}", metric.certainty()

    heads = ("I-AUROC", "95 %", "AP-det", "95 %", "I-F1-max")
    scores = Table("score", *heads, "", box=None, pad_edge=False)
    for score, prefix in PREFIXES.items():
        if f"{prefix}I-AUROC" in metrics:
            row = [cell for name in ("I-AUROC", "AP-det", "I-F1-max") for cell in cells(f"{prefix}{name}")]
            scores.add_row(score, *row[: len(heads)], "decides" if score == evaluation.image_score else "")
    pixels = Table("pixels", "", "95 %", box=None, pad_edge=False)
    for name in list(metrics):
        pixels.add_row(name, *cells(name))
    say = results().print
    say(scores, pixels, sep="\n")
    for reason, names in missing.items():
        say(f"{reason}: {', '.join(names)}" if len(names) < 4 else f"{reason}: {', '.join(names[:3])} and others")


def _print_verdicts(evaluation: Evaluation) -> None:
    good, bad = evaluation.counts(GOOD), evaluation.counts(BAD)
    pixels = [outcome.sample.label for outcome in evaluation.outcomes if outcome.has_pixel_labels]
    unsure = f", {bad['unsure']} unsure" if bad["unsure"] else ""
    also_unsure = f", {good['unsure']} unsure" if good["unsure"] else ""
    size = "each mask's own size" if evaluation.resolution == "native" else evaluation.shown_size("x")
    results().print(
        f"at threshold {evaluation.threshold_logit:.3f} (a logit) of the {_SCORES[evaluation.image_score]}: "
        f"{bad['good']} of {sum(bad.values())} bad images missed{unsure}, "
        f"{good['bad']} of {sum(good.values())} good images rejected{also_unsure}; pixel metrics at {size} from "
        f"{pixels.count(BAD)} bad and {pixels.count(GOOD)} good images"
    )
    if lost := evaluation.lost_words():
        results().print(lost)
