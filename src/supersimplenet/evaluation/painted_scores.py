"""Scores of defects painted on photographs of good parts: a rough guide where no bad part is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from supersimplenet.datasets.masks import read_ignored
from supersimplenet.datasets.painted import painted_images
from supersimplenet.evaluation.few_parts import count_escapes
from supersimplenet.evaluation.scored_parts import ScoredImages
from supersimplenet.evaluation.set_thresholds import Calibrated
from supersimplenet.runtime.predictor import Predictor
from supersimplenet.types import BAD, Prediction, Sample

PAINTED = "painted defect"
_PAINTED = 48  # at most; and at most two on each good image


def score_painted(detector: Predictor, good: Sequence[Sample], *, seed: int = 0) -> ScoredImages:
    """Paint defects on good images, and score them; each is a bad image of its own, of the type that was painted.

    Args:
        detector: the predictor.
        good: good images that were trained on, at least one; never held-out ones, which only calibrate.
        seed: seed of the painted defects.

    Raises:
        ImageError: an image cannot be read any more.
    """
    reading = detector.preprocessor.reading
    painted = painted_images(
        [sample.image for sample in good],
        min(_PAINTED, 2 * len(good)),
        preprocessor=detector.preprocessor,
        seed=seed,
        ignored=lambda index: read_ignored(good[index], reading=reading),
    )
    samples: list[Sample] = []
    found = ScoredImages(samples=samples)
    for place, item in enumerate(painted):
        (prediction,) = detector.predict_prepared([item.prepared], [None])
        assert isinstance(prediction, Prediction)  # a failure raises
        samples.append(Sample(image=Path(f"painted {place}"), label=BAD, split="train", defect=item.kind))
        found.scores[place] = prediction.scores
    return found


def with_painted_escapes(calibrated: Calibrated, painted: ScoredImages) -> Calibrated:
    """Return the calibration with the painted defects that its threshold calls good; the same where none is painted."""
    calibration = calibrated.calibration
    if not painted.samples:
        return calibrated
    accept = calibration.threshold_logit if calibration.accept_logit is None else calibration.accept_logit
    expected = count_escapes(
        painted.samples,
        [painted.scores[place][calibration.image_score] < accept for place in range(len(painted.samples))],
        basis="painted on good images that were trained on, for want of bad parts that were not: a rough guide; "
        "real ones may be easier or harder to see",
        noun=PAINTED,
    )
    return replace(calibrated, calibration=replace(calibration, expected_escapes=expected))
