"""A detector looked at with a data set's test images: metrics.json and the cases worth showing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supersimplenet.data.images import resize_mask
from supersimplenet.data.loading import Failure, OnError
from supersimplenet.data.masks import read_defects, read_ignored
from supersimplenet.deploy.folder import METRICS_FILE, write_text
from supersimplenet.detector import Detector
from supersimplenet.errors import DataError, ImageError
from supersimplenet.evaluation.metrics import Metric, evaluate_scores
from supersimplenet.records import BAD, GOOD, Prediction, Sample, ScoreName

Plane = NDArray[np.bool_] | None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One test image, what is known of it and what the detector says.

    Attributes:
        sample: the image and its labels.
        prediction: of the detector.
        mask: (H, W) bool at the network's input size; None where pixel labels are unknown, as they are where the mask
            of a bad image is empty.
        ignored: (H, W) bool, pixels that count in no score and no metric; None for none.
    """

    sample: Sample
    prediction: Prediction
    mask: NDArray[np.bool_] | None
    ignored: NDArray[np.bool_] | None = None

    @property
    def margin(self) -> float:
        """How far the score lies on the right side, in logits; negative for an escape or a false alarm."""
        return self.prediction.score_logit * (1 if self.sample.label == BAD else -1)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics and cases of a test split.

    Attributes:
        metrics: by the names of the papers; values at the network's input size, from float scores.
        cases: every readable test image, in the data set's order.
        failures: test images that could not be read, or whose masks could not.
        threshold: of the verdicts, as a probability.
        image_score: which score the verdicts come from.
    """

    metrics: dict[str, Metric]
    cases: list[Case]
    failures: list[Failure]
    threshold: float
    image_score: ScoreName

    def summary(self) -> dict[str, Any]:
        """What metrics.json holds: metrics by name (null where undefined), reasons, counts."""
        labels = [case.sample.label for case in self.cases]
        verdicts = [case.prediction.verdict for case in self.cases]
        height, width = self.cases[0].prediction.map_logit.shape
        return {
            **{name: metric.value for name, metric in self.metrics.items()},
            "undefined": {name: metric.reason for name, metric in self.metrics.items() if metric.value is None},
            "images": {
                "good": labels.count(GOOD),
                "bad": labels.count(BAD),
                "bad_without_pixel_labels": sum(case.mask is None for case in self.cases),
            },
            "image_score": self.image_score,
            "threshold": self.threshold,
            "false_alarms": sum(v == "bad" and y == GOOD for v, y in zip(verdicts, labels, strict=True)),
            "escapes": sum(v == "good" and y == BAD for v, y in zip(verdicts, labels, strict=True)),
            "resolution": f"{height}x{width}",
            "skipped": [{"path": str(failure.path), "reason": failure.reason} for failure in self.failures],
        }


def evaluate(
    detector: Detector,
    samples: Sequence[Sample],
    *,
    batch_size: int | None = None,
    on_error: OnError = "stop",
    progress: Callable[[int], None] = lambda images: None,
) -> Evaluation:
    """Look at every test image of a data set.

    Args:
        detector: what is evaluated.
        samples: of the data set; those of the training split are passed over.
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
    cases: list[Case] = []
    failures: list[Failure] = []

    def read(reader: Callable[[Sample, tuple[int, int]], Plane], sample: Sample, index: int) -> Plane:
        """A sample's plane at the network's input size; where it cannot be read, a failure, or the error."""
        try:
            return reader(sample, detector.image_size)
        except ImageError as error:
            if on_error == "stop":
                raise
            failures.append(Failure(index=index, path=sample.image, reason=str(error)))
            return None

    ignored = [read(read_ignored, sample, index) for index, sample in enumerate(tested)]
    for item in detector.predict_files(
        [sample.image for sample in tested], ignored=ignored.__getitem__, batch_size=batch_size, on_error=on_error
    ):
        progress(1)
        if isinstance(item, Failure):
            failures.append(item)
        else:
            sample = tested[item.index]
            mask = read(_pixel_labels, sample, item.index)
            if not any(failure.index == item.index for failure in failures):
                cases.append(Case(sample=sample, prediction=item.prediction, mask=mask, ignored=ignored[item.index]))
    if not cases:
        raise DataError(f"none of the {len(tested)} test images could be read; the first: {failures[0].reason}")
    empty = np.zeros(detector.image_size, dtype=bool)
    metrics = evaluate_scores(
        head_logit=[case.prediction.head_logit for case in cases],
        map_max_logit=[case.prediction.map_max_logit for case in cases],
        fused_logit=[case.prediction.fused_logit for case in cases],
        label=[case.sample.label for case in cases],
        maps=np.stack([case.prediction.map_logit for case in cases]),
        masks=np.stack([empty if case.mask is None else case.mask for case in cases]),
        has_pixel_labels=[case.mask is not None for case in cases],
        ignored=None
        if all(case.ignored is None for case in cases)
        else np.stack([empty if case.ignored is None else case.ignored for case in cases]),
    )
    return Evaluation(
        metrics=metrics,
        cases=cases,
        failures=failures,
        threshold=detector.threshold,
        image_score=detector.image_score,
    )


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


def _pixel_labels(sample: Sample, size_px: tuple[int, int]) -> NDArray[np.bool_] | None:
    if sample.label == GOOD:
        return np.zeros(size_px, dtype=bool)
    mask = read_defects(sample)
    if (
        mask is None or not mask.any()
    ):  # a defect somewhere, marked nowhere: counted as normal it would punish finding it
        return None
    return resize_mask(mask, size_px)
