"""Evaluate a model folder and write its report."""

from __future__ import annotations

from pathlib import Path

from supersimplenet.datasets.base import DataSource
from supersimplenet.datasets.checks.check import check
from supersimplenet.datasets.registry import plain_name
from supersimplenet.evaluation.comparison import compare
from supersimplenet.evaluation.evaluate import evaluate_samples
from supersimplenet.inference.config import HERE, ComputeConfig
from supersimplenet.inference.detector import load_detector
from supersimplenet.inference.image_records import tested_on
from supersimplenet.metrics.thresholds import Costs
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.report.page import write_page
from supersimplenet.types import Resolution
from supersimplenet.utils.console import progress_bar
from supersimplenet.utils.locks import writing_into

REPORT = "report.html"


def write_report(
    model: str | Path,
    output: str | Path,
    *,
    data: DataSource | None = None,
    other: str | Path | None = None,
    resolution: Resolution = "model",
    pictures: int = 400,
    costs: Costs | None = None,
    bad_share: float | None = None,
    compute: ComputeConfig = HERE,
    on_error: OnError = "stop",
) -> Path:
    """Evaluate a model folder and write the report, one HTML file.

    Args:
        model: the model folder.
        output: folder for the report; created if it does not exist.
        data: dataset with the test images; by default the dataset that the model was trained on.
        other: folder of another model, to compare with on the same images.
        resolution: size at which the pixel metrics are computed; see `evaluate`.
        pictures: largest number of images that are shown; those nearest to a wrong verdict come first.
        costs: costs of a false alarm and of an escape, for the cost curve.
        bad_share: share of bad parts in production, for the cost curve; by default their share among the test parts.
        compute: the device, engine and precision to use.
        on_error: whether an unreadable image stops the evaluation or is skipped.

    Returns:
        The file written.

    Raises:
        SuperSimpleNetError: the subclass names the cause.
    """
    model, output = Path(model), Path(output)
    with writing_into(output):
        models = [load_detector(Path(path), compute) for path in (model, other) if path]
        detector = models[0]
        source = tested_on(data, detector.record, model)
        samples = source.samples()
        evaluations = [evaluate_samples(one, samples, resolution=resolution, on_error=on_error) for one in models]
        with progress_bar() as bar:
            task = bar.add_task("checking the data", total=len(samples), detail="")
            checked = check(
                samples,
                reading=detector.preprocessor.reading,
                progress=lambda stage, images: bar.advance(task, images * (stage == "reading")),
            )
        return write_page(
            output / REPORT,
            evaluation=evaluations[0],
            detector=detector,
            title=plain_name(source),
            data_name=plain_name(source),
            model_name=str(model),
            findings=checked.findings,
            light=checked.light,
            comparison=None if other is None else compare(*evaluations, names=(str(model), str(other))),
            pictures=pictures,
            costs=costs,
            bad_share=bad_share,
        )
