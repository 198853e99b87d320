"""Evaluate a model folder, and draw its findings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from supersimplenet.datasets.base import DataSource
from supersimplenet.datasets.registry import describe_source, plain_name
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.evaluation.evaluate import (
    PartialEvaluation,
    evaluate_again,
    evaluate_samples,
    finish_evaluation,
)
from supersimplenet.evaluation.results import Evaluation, write_metrics
from supersimplenet.inference.config import HERE, ComputeConfig
from supersimplenet.inference.detector import Detector, load_detector
from supersimplenet.inference.image_records import tested_on
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.types import Resolution, Sample
from supersimplenet.utils.console import progress_bar
from supersimplenet.utils.files import whole_file
from supersimplenet.utils.locks import WAIT_TO_WRITE_S, writing_into
from supersimplenet.visualization.contact_sheet import Findings, draw_contact_sheet, group_findings

if TYPE_CHECKING:
    from supersimplenet.prediction.ray_cluster import Cluster

CONTACT_SHEET = "findings.png"


def evaluate_model(
    model: str | Path,
    *,
    data: DataSource | None = None,
    output: str | Path | None = None,
    resolution: Resolution = "model",
    compute: ComputeConfig = HERE,
    on_error: OnError = "stop",
    anomalib_aupro: bool = False,
) -> Evaluation:
    """Evaluate a model folder; write metrics.json and a contact sheet of findings.

    Args:
        model: the model folder.
        data: dataset with the test images; by default the dataset that the model was trained on.
        output: folder for the files; by default the model folder.
        resolution: size at which the pixel metrics are computed; see `evaluate`.
        compute: the device, engine and precision to use, and the cluster if there is one.
        on_error: whether an unreadable image stops the evaluation or is skipped.
        anomalib_aupro: also compute AUPRO as anomalib does; see `evaluate`.

    Raises:
        SuperSimpleNetError: the subclass names the cause.
    """
    model = Path(model)
    detector = load_detector(model, compute)
    source = tested_on(data, detector.record, model)
    samples = source.samples()
    if compute.engine == "ray":
        if anomalib_aupro:
            raise ConfigError("anomalib_aupro: is computed on one machine; take another --engine than ray")
        from supersimplenet.prediction.ray_cluster import Cluster

        cluster = Cluster(model, compute)
        evaluation = _evaluate_on(cluster, detector, samples, resolution=resolution, on_error=on_error)
    else:
        evaluation = evaluate_samples(
            detector, samples, resolution=resolution, on_error=on_error, anomalib_aupro=anomalib_aupro
        )
    folder = Path(output or model)
    groups = group_findings(evaluation.outcomes)
    shown = evaluate_again(detector, [outcome for group in groups for outcome in group.cases])
    drawn = [
        Findings(title=group.title, cases=[next(shown) for _ in group.cases], total=group.total) for group in groups
    ]
    title = f"{plain_name(source)}: {len(evaluation.outcomes)} test images"
    sheet = draw_contact_sheet(drawn, title)
    with writing_into(folder, wait_s=WAIT_TO_WRITE_S):
        with whole_file(folder / CONTACT_SHEET) as temporary:
            sheet.save(temporary, format="PNG")
        write_metrics(evaluation, folder, data=describe_source(source))  # last: it says that all is there
    return evaluation


def _evaluate_on(
    cluster: Cluster, detector: Detector, samples: Sequence[Sample], *, resolution: Resolution, on_error: OnError
) -> Evaluation:
    """Evaluate on many machines and add up their results; see `evaluate`."""
    tested = [sample for sample in samples if sample.split == "test"]
    with progress_bar() as bar:
        task = bar.add_task("testing", total=len(tested), detail="")
        whole: PartialEvaluation | None = None
        for part in cluster.evaluate_shards(tested, resolution=resolution, on_error=on_error):
            bar.advance(task, len(part.outcomes) + len(part.failures))
            if whole is None:
                whole = part
            else:
                whole.add(part)
    if whole is None:
        raise DataError("the dataset has no test image; name a dataset with a test split")
    return finish_evaluation(whole, detector, resolution=resolution)
