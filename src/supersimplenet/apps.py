"""What the commands do: a few calls on the rooms below, and words for the person who waits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table as RichTable

from supersimplenet.calibration import UNCALIBRATED
from supersimplenet.data.loading import OnError
from supersimplenet.data.sources.base import DataSource
from supersimplenet.data.sources.registry import describe_source, source_from
from supersimplenet.detector import Detector
from supersimplenet.drawing import choose_outcomes, draw_contact_sheet
from supersimplenet.errors import ConfigError
from supersimplenet.evaluation.evaluate import PREFIXES, evaluate, look_again, write_metrics
from supersimplenet.evaluation.results import Evaluation
from supersimplenet.predict import CSV_FILE, PredictionSummary, find_images, predict_to_folder
from supersimplenet.records import BAD, GOOD, Sample, probability
from supersimplenet.settings import Resolution
from supersimplenet.terminal import progress_bar, results

CONTACT_SHEET = "findings.png"
_SCORES = {"head": "classification head's score", "map": "map's maximum", "fused": "fused score"}


def evaluate_model(
    model: Path,
    *,
    data: DataSource | None = None,
    output: Path | None = None,
    resolution: Resolution = "model",
    device: str = "auto",
    engine: str = "torch",
    precision: str = "float32",
    on_error: OnError = "stop",
) -> Evaluation:
    """Evaluate a model folder; writes metrics.json and a contact sheet of the best and worst findings.

    Args:
        model: the model folder.
        data: whose test images; by default the data set it was trained on.
        output: where to write; by default the model folder.
        resolution: of the pixel metrics; see `evaluate`.
        device: see `Detector`.
        engine: likewise.
        precision: likewise.
        on_error: what an unreadable image does.

    Raises:
        SuperSimpleNetError: of the kind that names the cause.
    """
    detector = Detector.load(model, device=device, engine=engine, precision=precision)
    source = data or trained_on(detector, model)
    samples = source.samples()
    evaluation = evaluate_samples(detector, samples, resolution=resolution, on_error=on_error)
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


def predict_files(
    model: Path,
    inputs: Sequence[str],
    output: Path,
    *,
    overlays: bool = False,
    false_discovery_rate: float | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    engine: str = "torch",
    precision: str = "float32",
    on_error: OnError = "stop",
) -> PredictionSummary:
    """Predict images into a folder and say what came of it; see `predict_to_folder`."""
    paths = find_images(inputs, leave_out=output)
    replaces = (output / CSV_FILE).is_file()
    detector = Detector.load(model, device=device, engine=engine, precision=precision)
    with progress_bar() as bar:
        task = bar.add_task("predicting", total=len(paths), detail="")
        summary = predict_to_folder(
            detector,
            paths,
            output,
            model_folder=model,
            overlays=overlays,
            false_discovery_rate=false_discovery_rate,
            batch_size=batch_size,
            on_error=on_error,
            progress=lambda images: bar.advance(task, images),
        )
    continued = f", {summary.continued} of them done before" if summary.continued else ""
    failed = f", {summary.failed} could not be read (see the error column)" if summary.failed else ""
    unsure = f", {summary.verdicts['unsure']} unsure" if summary.verdicts["unsure"] else ""
    results().print(
        f"{summary.images} images{continued}: {summary.verdicts['bad']} bad{unsure} at threshold "
        f"{probability(detector.threshold_logit):.3f}{failed}"
    )
    if summary.flagged is not None:
        results().print(
            f"{summary.flagged} are told from good parts at a false-discovery rate of {false_discovery_rate}"
        )
    print_promise(detector)
    results().print(f"results: {summary.csv}{' (an earlier run was replaced)' if replaces else ''}")
    return summary


def trained_on(detector: Detector, model: Path) -> DataSource:
    """The data set that a model was trained on.

    Raises:
        ConfigError: it is not known.
    """
    if "data" not in detector.record:
        raise ConfigError(f"data: {model} was not trained here, so its data set is not known; name one with --data")
    return source_from(detector.record["data"])


def print_promise(detector: Detector) -> None:
    """What the threshold promises, or that it promises nothing."""
    calibration = detector.calibration
    if calibration is None:
        results().print(f"[bold red]{UNCALIBRATED}[/]")
    else:
        results().print(f"calibrated: {calibration.promise()}")


def _print_metrics(evaluation: Evaluation) -> None:
    table = RichTable("metric", "value", "95 % interval", "", box=None, pad_edge=False)
    decides = PREFIXES[evaluation.image_score]
    deciding = [f"{decides}{name}" for name in ("I-AUROC", "AP-det", "I-F1-max")]
    for name, metric in evaluation.metrics.items():
        if metric.value is None:
            table.add_row(name, f"undefined: {metric.reason}")
            continue
        interval = "" if metric.interval is None else f"{metric.interval.low:.3f} to {metric.interval.high:.3f}"
        if metric.error_bound:
            interval = f"exact to {metric.error_bound:.1e}"
        table.add_row(name, f"{metric.value:.4f}", interval, "of the score that decides" if name in deciding else "")
    results().print(table)


def _print_verdicts(evaluation: Evaluation) -> None:
    good, bad = evaluation.counts(GOOD), evaluation.counts(BAD)
    pixels = [outcome.sample.label for outcome in evaluation.outcomes if outcome.has_pixel_labels]
    unsure = f", {bad['unsure']} unsure" if bad["unsure"] else ""
    also_unsure = f", {good['unsure']} unsure" if good["unsure"] else ""
    size = "each mask's own size" if evaluation.resolution == "native" else "x".join(map(str, evaluation.size_px))
    results().print(
        f"at threshold {probability(evaluation.threshold_logit):.3f} of the {_SCORES[evaluation.image_score]}: "
        f"{bad['good']} of {sum(bad.values())} bad images missed{unsure}, "
        f"{good['bad']} of {sum(good.values())} good images rejected{also_unsure}; pixel metrics at {size} from "
        f"{pixels.count(BAD)} bad and {pixels.count(GOOD)} good images"
    )
