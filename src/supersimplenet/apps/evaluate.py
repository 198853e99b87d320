"""What `test` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table as RichTable

from supersimplenet.apps.models import cluster_of, load_detector, print_promise, trained_on
from supersimplenet.data.loading import OnError
from supersimplenet.data.sources.base import DataSource
from supersimplenet.data.sources.registry import describe_source
from supersimplenet.detector import Detector
from supersimplenet.drawing import choose_outcomes, draw_contact_sheet
from supersimplenet.errors import DataError
from supersimplenet.evaluation.evaluate import PREFIXES, Part, evaluate, look_again, sum_up, write_metrics
from supersimplenet.evaluation.results import Evaluation
from supersimplenet.records import BAD, GOOD, Sample, probability
from supersimplenet.settings import HERE, ComputeConfig, Resolution
from supersimplenet.terminal import progress_bar, results

if TYPE_CHECKING:
    from supersimplenet.prediction.cluster import Cluster

CONTACT_SHEET = "findings.png"
_SCORES = {"head": "classification head's score", "map": "map's maximum", "fused": "fused score"}


def evaluate_model(
    model: Path,
    *,
    data: DataSource | None = None,
    output: Path | None = None,
    resolution: Resolution = "model",
    compute: ComputeConfig = HERE,
    on_error: OnError = "stop",
) -> Evaluation:
    """Evaluate a model folder; writes metrics.json and a contact sheet of the best and worst findings.

    Args:
        model: the model folder.
        data: whose test images; by default the data set it was trained on.
        output: where to write; by default the model folder.
        resolution: of the pixel metrics; see `evaluate`.
        compute: where and by what.
        on_error: what an unreadable image does.

    Raises:
        SuperSimpleNetError: of the kind that names the cause.
    """
    on_cluster = cluster_of(model, compute)
    detector = load_detector(model, compute)
    source = data or trained_on(detector, model)
    samples = source.samples()
    if on_cluster is None:
        evaluation = evaluate_samples(detector, samples, resolution=resolution, on_error=on_error)
    else:
        evaluation = _evaluate_on(on_cluster, detector, samples, resolution=resolution, on_error=on_error)
    folder = output or model
    folder.mkdir(parents=True, exist_ok=True)
    metrics = write_metrics(evaluation, folder, data=describe_source(source))
    sheet = folder / CONTACT_SHEET
    best, worst = choose_outcomes(evaluation.outcomes)
    shown = list(look_again(detector, [*best, *worst]))
    title = f"{source.name}: {len(evaluation.outcomes)} test images"
    draw_contact_sheet(shown[: len(best)], shown[len(best) :], title).save(sheet)
    _print_metrics(evaluation)
    _print_verdicts(evaluation)
    print_promise(detector)
    if evaluation.failures:
        results().print(f"{len(evaluation.failures)} images could not be read; {metrics.name} lists them")
    results().print(f"metrics:  {metrics}\nfindings: {sheet}")
    return evaluation


def evaluate_samples(
    detector: Detector, samples: Sequence[Sample], *, resolution: Resolution = "model", on_error: OnError = "stop"
) -> Evaluation:
    """`evaluate` with a progress bar."""
    with progress_bar() as bar:
        task = bar.add_task("testing", total=sum(sample.split == "test" for sample in samples), detail="")
        return evaluate(
            detector,
            samples,
            resolution=resolution,
            on_error=on_error,
            progress=lambda images: bar.advance(task, images),
        )


def _evaluate_on(
    cluster: Cluster, detector: Detector, samples: Sequence[Sample], *, resolution: Resolution, on_error: OnError
) -> Evaluation:
    """`evaluate` on many machines, whose tallies of pixels add up."""
    tested = [sample for sample in samples if sample.split == "test"]
    with progress_bar() as bar:
        task = bar.add_task("testing", total=len(tested), detail="")
        whole: Part | None = None
        for part in cluster.test_parts(tested, resolution=resolution, on_error=on_error):
            bar.advance(task, len(part.outcomes) + len(part.failures))
            if whole is None:
                whole = part
            else:
                whole.add(part)
    if whole is None:
        raise DataError("the data set has no test image; name a data set with a test split")
    return sum_up(whole, detector, resolution=resolution)


def _print_metrics(evaluation: Evaluation) -> None:
    table = RichTable("metric", "value", "95 % interval", "", box=None, pad_edge=False)
    decides = PREFIXES[evaluation.image_score]
    deciding = [f"{decides}{name}" for name in ("I-AUROC", "AP-det", "I-F1-max")]
    for name, metric in evaluation.metrics.items():
        if metric.value is None:
            table.add_row(name, f"undefined: {metric.reason}")
            continue
        interval = "" if metric.interval is None else f"{metric.interval.low:.3f} to {metric.interval.high:.3f}"
        if metric.interval is not None and metric.interval.degenerate:
            interval = "no resample differs: says nothing"
        if metric.error_bound:
            interval = f"exact to {metric.error_bound:.1e}"
        table.add_row(name, f"{metric.value:.4f}", interval, "of the score that decides" if name in deciding else "")
    results().print(table)


def _print_verdicts(evaluation: Evaluation) -> None:
    good, bad = evaluation.counts(GOOD), evaluation.counts(BAD)
    pixels = [outcome.sample.label for outcome in evaluation.outcomes if outcome.has_pixel_labels]
    unsure = f", {bad['unsure']} unsure" if bad["unsure"] else ""
    also_unsure = f", {good['unsure']} unsure" if good["unsure"] else ""
    size = "each mask's own size" if evaluation.resolution == "native" else evaluation.shown_size("x")
    results().print(
        f"at threshold {probability(evaluation.threshold_logit):.3f} of the {_SCORES[evaluation.image_score]}: "
        f"{bad['good']} of {sum(bad.values())} bad images missed{unsure}, "
        f"{good['bad']} of {sum(good.values())} good images rejected{also_unsure}; pixel metrics at {size} from "
        f"{pixels.count(BAD)} bad and {pixels.count(GOOD)} good images"
    )
