"""What the commands do: a few calls on the rooms below, and words for the person who waits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table as RichTable

from supersimplenet.data.loading import OnError
from supersimplenet.data.sources.base import DataSource
from supersimplenet.data.sources.registry import describe_source, source_from
from supersimplenet.detector import Detector
from supersimplenet.drawing import draw_contact_sheet
from supersimplenet.errors import ConfigError
from supersimplenet.evaluation.evaluate import Evaluation, evaluate, write_metrics
from supersimplenet.predict import CSV_FILE, PredictionSummary, find_images, predict_to_folder
from supersimplenet.terminal import progress_bar, results

CONTACT_SHEET = "findings.png"
_SCORES = {"head": "classification head's score", "map": "map's maximum", "fused": "fused score"}


def evaluate_model(
    model: Path,
    *,
    data: DataSource | None = None,
    output: Path | None = None,
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
        device: see `Detector`.
        engine: likewise.
        precision: likewise.
        on_error: what an unreadable image does.

    Raises:
        SuperSimpleNetError: of the kind that names the cause.
    """
    detector = Detector.load(model, device=device, engine=engine, precision=precision)
    source = data or _trained_on(detector, model)
    samples = source.samples()
    tested = sum(sample.split == "test" for sample in samples)
    with progress_bar() as bar:
        task = bar.add_task("testing", total=tested, detail="")
        evaluation = evaluate(detector, samples, on_error=on_error, progress=lambda images: bar.advance(task, images))
    folder = output or model
    folder.mkdir(parents=True, exist_ok=True)
    metrics = write_metrics(evaluation, folder, data=describe_source(source))
    sheet = folder / CONTACT_SHEET
    draw_contact_sheet(evaluation, f"{source.name}: {len(evaluation.cases)} test images").save(sheet)
    _print_metrics(evaluation)
    counts = evaluation.summary()
    images = counts["images"]
    results().print(
        f"at threshold {evaluation.threshold} of the {_SCORES[evaluation.image_score]}: "
        f"{counts['escapes']} of {images['bad']} bad images missed, "
        f"{counts['false_alarms']} of {images['good']} good images rejected; pixel metrics from "
        f"{images['bad'] - images['bad_without_pixel_labels']} bad and {images['good']} good images",
    )
    if evaluation.failures:
        results().print(f"{len(evaluation.failures)} images could not be read; {metrics.name} lists them")
    results().print(f"metrics:  {metrics}\nfindings: {sheet}")
    return evaluation


def predict_files(
    model: Path,
    inputs: Sequence[str],
    output: Path,
    *,
    overlays: bool = False,
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
            batch_size=batch_size,
            on_error=on_error,
            progress=lambda images: bar.advance(task, images),
        )
    continued = f", {summary.continued} of them done before" if summary.continued else ""
    failed = f", {summary.failed} could not be read (see the error column)" if summary.failed else ""
    results().print(
        f"{summary.images} images{continued}: {summary.bad} bad at threshold {detector.threshold}{failed}\n"
        f"results: {summary.csv}{' (an earlier run was replaced)' if replaces else ''}",
    )
    return summary


def _trained_on(detector: Detector, model: Path) -> DataSource:
    if "data" not in detector.record:
        raise ConfigError(f"data: {model} was not trained here, so its data set is not known; name one with --data")
    return source_from(detector.record["data"])


def _print_metrics(evaluation: Evaluation) -> None:
    table = RichTable("metric", "value", "", box=None, pad_edge=False)
    ranked_by = {"": "head", "seg-": "map", "fused-": "fused"}
    deciding = {f"{prefix}I-AUROC" for prefix, score in ranked_by.items() if score == evaluation.image_score}
    for name, metric in evaluation.metrics.items():
        value = f"undefined: {metric.reason}" if metric.value is None else f"{metric.value:.4f}"
        table.add_row(name, value, "of the score that decides" if name in deciding else "")
    results().print(table)
