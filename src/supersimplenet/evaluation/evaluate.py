"""A detector looked at with a data set's test images, in one pass whose memory does not grow with the maps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supersimplenet.data.images import image_size, resize_mask, resize_plane
from supersimplenet.data.loading import Failure, OnError
from supersimplenet.data.masks import read_defects, read_ignored
from supersimplenet.deploy.folder import METRICS_FILE, write_text
from supersimplenet.detector import Detector
from supersimplenet.errors import DataError, ImageError, MetricError
from supersimplenet.evaluation.intervals import bootstrap_intervals
from supersimplenet.evaluation.metrics import (
    Metric,
    measure,
    overlap_curve,
    rank,
    ranked_auroc,
    ranked_average_precision,
    ranked_f1_max,
)
from supersimplenet.evaluation.pixels import SIZE_EDGES, PixelTally
from supersimplenet.evaluation.results import Evaluation, Outcome, SizeResult, TypeResult, count_verdicts
from supersimplenet.records import BAD, GOOD, Prediction, Sample
from supersimplenet.settings import Resolution

# By what each score's metrics are called: published results rank by the classification head's.
PREFIXES = {"head": "", "map": "seg-", "fused": "fused-"}
_IMAGE_METRICS = {"I-AUROC": ranked_auroc, "AP-det": ranked_average_precision, "I-F1-max": ranked_f1_max}
_SEED = 0  # of the resamples of the intervals: the same figures each time


@dataclass(frozen=True, kw_only=True)
class Case:
    """One test image with its planes, for as long as it is looked at.

    Attributes:
        sample: the image and its labels.
        prediction: of the detector.
        mask: (H, W) bool; None where pixel labels are unknown, as they are where the mask of a bad image is empty.
        ignored: (H, W) bool, pixels that count in no score and no metric; None for none.
    """

    sample: Sample
    prediction: Prediction
    mask: NDArray[np.bool_] | None
    ignored: NDArray[np.bool_] | None


def evaluate(
    detector: Detector,
    samples: Sequence[Sample],
    *,
    resolution: Resolution = "model",
    batch_size: int | None = None,
    on_error: OnError = "stop",
    progress: Callable[[int], None] = lambda images: None,
) -> Evaluation:
    """Look at every test image of a data set.

    Args:
        detector: what is evaluated.
        samples: of the data set; those of the training split are passed over.
        resolution: of the metrics of pixels: at the network's input size, as published results are, or at the size
            that each image and its mask have of their own, to which the map is resized.
        batch_size: images that go through the network together; None for what suits the engine.
        on_error: what an unreadable image does.
        progress: called with the number of images done since the last call.

    Raises:
        DataError: no test image, or none that can be read.
        ImageError: an image or mask cannot be read and ``on_error`` is ``stop``.
    """
    tested = [sample for sample in samples if sample.split == "test"]
    if not tested:
        raise DataError("the data set has no test image; name a data set with a test split")
    calibration = detector.calibration
    tally = PixelTally(pixel_logit=None if calibration is None else calibration.pixel_logit)
    outcomes: list[Outcome] = []
    failures: list[Failure] = []
    for item in _cases(detector, tested, resolution=resolution, batch_size=batch_size, on_error=on_error):
        progress(1)
        if isinstance(item, Failure):
            failures.append(item)
            continue
        outcomes.append(_outcome(item, detector.threshold_logit))
        if item.mask is not None:
            map_logit = item.prediction.map_logit
            if map_logit.shape != item.mask.shape:
                map_logit = resize_plane(map_logit, item.mask.shape)
            tally.add(map_logit, item.mask, defect=item.sample.defect, ignored=item.ignored)
    if not outcomes:
        raise DataError(f"none of the {len(tested)} test images could be read; the first: {failures[0].reason}")
    return Evaluation(
        metrics={**_image_metrics(outcomes), **tally.metrics()},
        outcomes=outcomes,
        types=_types(outcomes, tally),
        sizes=_sizes(tally),
        overlap_curve=_overlap_curve(tally),
        failures=failures,
        calibration=calibration,
        threshold_logit=detector.threshold_logit,
        image_score=detector.image_score,
        resolution=resolution,
        size_px=detector.image_size,
    )


def look_again(detector: Detector, outcomes: Sequence[Outcome]) -> Iterator[Case]:
    """The cases of some outcomes with their planes at the network's input size, in the same order."""
    for item in _cases(detector, [outcome.sample for outcome in outcomes]):
        assert isinstance(item, Case)  # an unreadable image raises
        yield item


def write_metrics(evaluation: Evaluation, folder: Path, *, data: Mapping[str, Any]) -> Path:
    """Write metrics.json into a folder, whole or not at all.

    Args:
        evaluation: what is written.
        folder: where to.
        data: says which data set it is of, in plain values.

    Returns:
        The path written.
    """
    path = folder / METRICS_FILE
    write_text(path, json.dumps({**evaluation.summary(), "data": data}, indent=2) + "\n")
    return path


def _cases(
    detector: Detector,
    samples: Sequence[Sample],
    *,
    resolution: Resolution = "model",
    batch_size: int | None = None,
    on_error: OnError = "stop",
) -> Iterator[Case | Failure]:
    """Each sample looked at, its planes beside it; in order, one result for each."""
    unusable: dict[int, Failure] = {}

    def ignored(index: int) -> NDArray[np.bool_] | None:
        try:
            return read_ignored(samples[index], detector.image_size)
        except ImageError as error:
            if on_error == "stop":
                raise
            unusable[index] = Failure(index=index, path=samples[index].image, reason=str(error))
            return None

    for item in detector.predict_files(
        [sample.image for sample in samples], ignored=ignored, batch_size=batch_size, on_error=on_error
    ):
        if isinstance(item, Failure) or item.index in unusable:
            yield item if isinstance(item, Failure) else unusable[item.index]
            continue
        sample = samples[item.index]
        try:
            size_px = detector.image_size if resolution == "model" else image_size(sample.image)
            yield Case(
                sample=sample,
                prediction=item.prediction,
                mask=_pixel_labels(sample, size_px),
                ignored=read_ignored(sample, size_px),
            )
        except ImageError as error:
            if on_error == "stop":
                raise
            yield Failure(index=item.index, path=sample.image, reason=str(error))


def _pixel_labels(sample: Sample, size_px: tuple[int, int]) -> NDArray[np.bool_] | None:
    if sample.label == GOOD:
        return np.zeros(size_px, dtype=bool)
    mask = read_defects(sample)
    # A defect somewhere, marked nowhere: counted as normal it would punish finding it.
    if mask is None or not mask.any():
        return None
    return mask if mask.shape == size_px else resize_mask(mask, size_px)


def _outcome(case: Case, threshold_logit: float) -> Outcome:
    prediction = case.prediction
    return Outcome(
        sample=case.sample,
        head_logit=prediction.head_logit,
        map_max_logit=prediction.map_max_logit,
        fused_logit=prediction.fused_logit,
        score_logit=prediction.score_logit,
        threshold_logit=threshold_logit,
        verdict=prediction.verdict,
        p_value=prediction.p_value,
        defects=prediction.defects,
        has_pixel_labels=case.mask is not None,
    )


def _image_metrics(outcomes: Sequence[Outcome]) -> dict[str, Metric]:
    labels = [outcome.sample.label for outcome in outcomes]
    groups = [outcome.sample.group for outcome in outcomes]
    metrics: dict[str, Metric] = {}
    for score, prefix in PREFIXES.items():
        attribute = {"head": "head_logit", "map": "map_max_logit", "fused": "fused_logit"}[score]
        scores = np.array([getattr(outcome, attribute) for outcome in outcomes])
        found = measure(_IMAGE_METRICS, partial(rank, scores, labels))
        try:
            intervals = bootstrap_intervals(scores, labels, groups, generator=np.random.default_rng(_SEED))
        except MetricError:  # the metrics themselves are not defined either, or too few resamples have both classes
            intervals = {}
        metrics |= {f"{prefix}{name}": replace(metric, interval=intervals.get(name)) for name, metric in found.items()}
    return metrics


def _types(outcomes: Sequence[Outcome], tally: PixelTally) -> list[TypeResult]:
    good = [outcome for outcome in outcomes if outcome.sample.label == GOOD]
    types = []
    for defect in sorted({outcome.sample.defect for outcome in outcomes if outcome.sample.label == BAD}):
        bad = [outcome for outcome in outcomes if outcome.sample.label == BAD and outcome.sample.defect == defect]
        scores = [outcome.score_logit for outcome in [*good, *bad]]
        labels = [GOOD] * len(good) + [BAD] * len(bad)
        detection = measure({"I-AUROC": ranked_auroc}, partial(rank, scores, labels))
        regions, found = tally.regions(defect=defect)
        types.append(
            TypeResult(
                defect=defect,
                images=len(bad),
                verdicts=count_verdicts(bad),
                regions=regions,
                found=None if tally.pixel_logit is None else found,
                metrics={**detection, **tally.metrics(defect=defect)},
            )
        )
    return types


def _sizes(tally: PixelTally) -> list[SizeResult]:
    sizes = []
    for size, (at_least, below) in enumerate(zip((0.0, *SIZE_EDGES), (*SIZE_EDGES, None), strict=True)):
        regions, found = tally.regions(size=size)
        if regions:
            sizes.append(
                SizeResult(
                    at_least=at_least,
                    below=below,
                    regions=regions,
                    found=None if tally.pixel_logit is None else found,
                    metrics=tally.metrics(size=size),
                )
            )
    return sizes


def _overlap_curve(tally: PixelTally) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    try:
        return overlap_curve(tally.ranking())
    except MetricError:
        return None
