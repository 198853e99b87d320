"""Evaluate a detector on a dataset's test images, in one pass that does not keep the anomaly maps in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from supersimplenet.errors import DataError, MetricError
from supersimplenet.evaluation.cases import EvaluatedImage, listed_beside, map_beside, read_cases
from supersimplenet.evaluation.known_images import find_trained_on, join_copies, warn_of_known_images
from supersimplenet.evaluation.results import PREFIXES, Evaluation, Outcome, SizeResult, TypeResult, count_verdicts
from supersimplenet.inference.detector import Detector
from supersimplenet.metrics.anomalib_overlap import ANOMALIB_AUPRO
from supersimplenet.metrics.bootstrap import bootstrap_intervals
from supersimplenet.metrics.part_tallies import INTERVAL_METRICS, PartTally, pixel_intervals
from supersimplenet.metrics.pixels import SIZE_EDGES, PixelTally
from supersimplenet.metrics.ranking import (
    Metric,
    measure,
    overlap_curve,
    rank,
    ranked_auroc,
    ranked_average_precision,
    ranked_f1_max,
)
from supersimplenet.postprocessing.defects import counted_map, find_peak
from supersimplenet.preprocessing.loading import Failure, OnError
from supersimplenet.types import BAD, GOOD, SCORE_FIELDS, Resolution, Sample
from supersimplenet.utils.console import progress_bar

_IMAGE_METRICS = {"I-AUROC": ranked_auroc, "AP-det": ranked_average_precision, "I-F1-max": ranked_f1_max}
_SEED = 0  # seed of the bootstrap samples, so that the intervals are the same each time


@dataclass(kw_only=True)
class PartialEvaluation:
    """The results of some of the test images. The results of consecutive blocks of images can be added up.

    Attributes:
        tally: counts of their pixels, from which the pixel metrics are computed.
        outcomes: outcomes of the images that could be read, in their order.
        failures: the images that could not be read.
        parts: small tally of each part's pixels, for intervals; an image without a group is a part of its own.
    """

    tally: PixelTally
    outcomes: list[Outcome]
    failures: list[Failure]
    parts: dict[tuple[bool, str], PartTally] = field(default_factory=dict)

    def count(self, sample: Sample, tally: PartTally) -> None:
        """Add the pixels of an image to those of its part."""
        group = sample.group
        self._add_part((group is not None, str(sample.image) if group is None else group), tally)

    def _add_part(self, part: tuple[bool, str], tally: PartTally) -> None:
        self.parts[part] = self.parts[part].merge(tally) if part in self.parts else tally

    def add(self, other: PartialEvaluation) -> None:
        """Add the results of the images that come next."""
        self.tally.merge(other.tally)
        self.outcomes += other.outcomes
        self.failures += other.failures
        for part, tally in other.parts.items():
            self._add_part(part, tally)


def evaluate(
    detector: Detector,
    samples: Sequence[Sample],
    *,
    resolution: Resolution = "model",
    batch_size: int | None = None,
    on_error: OnError = "stop",
    anomalib_aupro: bool = False,
    progress: Callable[[int], None] = lambda images: None,
) -> Evaluation:
    """Predict every test image of a dataset and compute the metrics.

    Args:
        detector: the detector to evaluate.
        samples: samples of the dataset; those of the training split are skipped.
        resolution: size at which the pixel metrics are computed. ``model``: the anomaly map's size, which is the
            network's input size, as in published results, unless the view has another. ``native``: the original size
            of each image and mask, to which the anomaly map is resized.
        batch_size: number of images that go through the network together; None for a default that suits the engine.
        on_error: whether an unreadable image or mask stops the evaluation or is skipped.
        anomalib_aupro: also compute AUPRO as anomalib does, for a comparison with published tables.
        progress: called with the number of images done since the last call.

    Raises:
        DataError: there is no test image, or none that can be read.
        ImageError: an image or mask cannot be read and ``on_error`` is ``stop``.
    """
    tested = [sample for sample in samples if sample.split == "test"]
    if not tested:
        raise DataError("the dataset has no test image; name a dataset with a test split")
    shard = evaluate_shard(
        detector,
        tested,
        resolution=resolution,
        batch_size=batch_size,
        on_error=on_error,
        anomalib_aupro=anomalib_aupro,
        progress=progress,
    )
    return finish_evaluation(shard, detector, resolution=resolution)


def evaluate_samples(
    detector: Detector,
    samples: Sequence[Sample],
    *,
    resolution: Resolution = "model",
    on_error: OnError = "stop",
    anomalib_aupro: bool = False,
) -> Evaluation:
    """Evaluate with a progress bar; see `evaluate` for the arguments."""
    with progress_bar() as bar:
        task = bar.add_task("testing", total=sum(sample.split == "test" for sample in samples), detail="")
        return evaluate(
            detector,
            samples,
            resolution=resolution,
            on_error=on_error,
            anomalib_aupro=anomalib_aupro,
            progress=lambda images: bar.advance(task, images),
        )


def evaluate_shard(
    detector: Detector,
    tested: Sequence[Sample],
    *,
    resolution: Resolution = "model",
    batch_size: int | None = None,
    on_error: OnError = "stop",
    anomalib_aupro: bool = False,
    progress: Callable[[int], None] = lambda images: None,
) -> PartialEvaluation:
    """Predict some of the test images; see `evaluate` for the arguments."""
    calibration = detector.calibration
    shard = PartialEvaluation(tally=PixelTally(keep_regions=anomalib_aupro), outcomes=[], failures=[])
    for item in read_cases(detector, tested, resolution=resolution, batch_size=batch_size, on_error=on_error):
        progress(1)
        if isinstance(item, Failure):
            shard.failures.append(item)
            continue
        shard.outcomes.append(_outcome(item, detector.threshold_logit))
        if item.mask is not None:
            tally = shard.tally.add(
                map_beside(item),
                item.mask,
                defect=item.sample.defect,
                ignored=item.ignored,
                listed=None if calibration is None else listed_beside(item, calibration),
            )
            shard.count(item.sample, tally)
    return shard


def finish_evaluation(shard: PartialEvaluation, detector: Detector, *, resolution: Resolution = "model") -> Evaluation:
    """Compute the metrics of all test images; copies of one image are one part. Print what makes them doubtful.

    Args:
        shard: the results of all test images.
        detector: the detector that predicted them.
        resolution: size at which the pixel metrics were counted; see `evaluate`.

    Raises:
        DataError: none of the images could be read.
    """
    tally, outcomes, failures = shard.tally, shard.outcomes, shard.failures
    if not outcomes:
        raise DataError(f"none of the {len(failures)} test images could be read; the first: {failures[0].reason}")
    outcomes, copies = join_copies(outcomes)
    evaluation = Evaluation(
        metrics={**_image_metrics(outcomes), **_pixel_metrics(shard)},
        outcomes=outcomes,
        types=_types(outcomes, tally, calibrated=detector.calibration is not None),
        sizes=_sizes(tally, calibrated=detector.calibration is not None),
        overlap_curve=_overlap_curve(tally),
        failures=failures,
        calibration=detector.calibration,
        threshold_logit=detector.threshold_logit,
        image_score=detector.image_score,
        resolution=resolution,
        size_px=detector.image_size,
        fit=detector.preprocessor.config.fit,
        copies=copies,
        trained_on=find_trained_on(outcomes, detector.folder),
    )
    warn_of_known_images(evaluation)
    return evaluation


def evaluate_again(detector: Detector, outcomes: Sequence[Outcome]) -> Iterator[EvaluatedImage]:
    """Predict the images of some outcomes again; yield them in the same order, with masks at the anomaly map's size."""
    for item in read_cases(detector, [outcome.sample for outcome in outcomes]):
        assert isinstance(item, EvaluatedImage)  # an unreadable image raises
        yield item


def _outcome(case: EvaluatedImage, threshold_logit: float) -> Outcome:
    prediction = case.prediction
    return Outcome(
        sample=case.sample,
        head_logit=prediction.head_logit,
        map_max_logit=prediction.map_max_logit,
        fused_logit=prediction.fused_logit,
        subspace_logit=prediction.subspace_logit,
        joint_logit=prediction.joint_logit,
        zones_logit=prediction.zones_logit,
        score_logit=prediction.score_logit,
        threshold_logit=threshold_logit,
        verdict=prediction.verdict,
        p_value=prediction.p_value,
        defects=prediction.defects,
        regions=prediction.regions,
        peak=None
        if prediction.regions is None
        else find_peak(
            counted_map(prediction.map_logit, prediction.ignored),
            placement=prediction.placement,
            zones=prediction.zones,
        ),
        has_pixel_labels=case.mask is not None,
        lost_regions=case.lost_regions,
        sha256="" if case.facts is None else case.facts.sha256,
        pixels="" if case.facts is None else case.facts.pixels,
    )


def _image_metrics(outcomes: Sequence[Outcome]) -> dict[str, Metric]:
    labels = [outcome.sample.label for outcome in outcomes]
    groups = [outcome.part for outcome in outcomes]
    metrics: dict[str, Metric] = {}
    for score, prefix in PREFIXES.items():
        if getattr(outcomes[0], SCORE_FIELDS[score]) is None:
            continue  # the model has no such score
        scores = np.array([outcome.score_of(score) for outcome in outcomes])
        found = measure(_IMAGE_METRICS, partial(rank, scores, labels))
        intervals, reason = {}, ""
        try:
            intervals = bootstrap_intervals(scores, labels, groups, generator=np.random.default_rng(_SEED))
        except MetricError as error:  # no metric is defined, or too few bootstrap samples have both classes
            reason = str(error)
        metrics |= {
            f"{prefix}{name}": metric.with_interval(intervals.get(name), reason) for name, metric in found.items()
        }
    return metrics


def _pixel_metrics(shard: PartialEvaluation) -> dict[str, Metric]:
    metrics = shard.tally.metrics()
    if shard.tally.regions_kept is not None:
        metrics[ANOMALIB_AUPRO] = shard.tally.anomalib_aupro()
    values = {name: metric.value for name, metric in metrics.items() if metric.value is not None}
    intervals, reason = {}, ""
    try:
        intervals = pixel_intervals(list(shard.parts.values()), values, generator=np.random.default_rng(_SEED))
    except MetricError as error:
        reason = str(error)
    return {
        name: metric.with_interval(intervals.get(name), reason) if name in INTERVAL_METRICS else metric
        for name, metric in metrics.items()
    }


def _types(outcomes: Sequence[Outcome], tally: PixelTally, *, calibrated: bool) -> list[TypeResult]:
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
                found=found if calibrated else None,
                metrics={**detection, **tally.metrics(defect=defect)},
            )
        )
    return types


def _sizes(tally: PixelTally, *, calibrated: bool) -> list[SizeResult]:
    sizes = []
    for size, (at_least, below) in enumerate(zip((0.0, *SIZE_EDGES), (*SIZE_EDGES, None), strict=True)):
        regions, found = tally.regions(size=size)
        if regions:
            sizes.append(
                SizeResult(
                    at_least=at_least,
                    below=below,
                    regions=regions,
                    found=found if calibrated else None,
                    metrics=tally.metrics(size=size),
                )
            )
    return sizes


def _overlap_curve(tally: PixelTally) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    try:
        return overlap_curve(tally.ranking())
    except MetricError:
        return None
