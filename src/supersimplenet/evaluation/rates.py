"""Compute the numbers of the report page: scores of images and parts, slider positions, bounds for every count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from supersimplenet.datasets.base import relative_names
from supersimplenet.evaluation.results import Evaluation, Outcome
from supersimplenet.metrics.thresholds import (
    CostCurve,
    Costs,
    cost_curve,
    part_numbers,
    part_scores,
    rate_upper_bound,
    rate_upper_bounds,
    uniform_upper_bound,
)
from supersimplenet.types import BAD, GOOD, Defect

Floats = NDArray[np.float64]
_CONFIDENCE = 0.95  # confidence of the bounds, where no calibration gives another
# As assets/viewer.js reads them.
_DEFECT_FIELDS = ("left", "top", "width", "height", "area_px", "peak_logit", "centroid_x", "centroid_y")
_MARGIN = 0.02  # added to the range of scores on each side, as a share of it


@dataclass(frozen=True, kw_only=True)
class PartRates:
    """How often parts of one kind, good or bad, get a wrong verdict at the model's thresholds.

    Attributes:
        parts: number of parts.
        wrong: number of false alarms among good parts, or of escapes among bad parts.
        bound: upper bound of the rate; valid because the thresholds were fixed before these parts were predicted. 1.0
            where there is no part.
    """

    parts: int
    wrong: int
    bound: float

    @property
    def rate(self) -> float:
        """Share of the parts with a wrong verdict; 0 where there is no part."""
        return self.wrong / self.parts if self.parts else 0.0


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """The scores and thresholds of an evaluation.

    Attributes:
        good_images: (n,) scores of the good images, ascending like the next three.
        bad_images: (n,) scores of the bad images.
        good_parts: (n,) highest score of each good part.
        bad_parts: (n,) lowest score of each bad part.
        threshold_logit: threshold of the model: an image is ``bad`` from this score on.
        accept_logit: lower threshold of the model: an image is ``unsure`` from this score on. Equal to
            ``threshold_logit`` where the model has no grey zone.
        confidence: confidence level of all bounds.
        costs: expected cost of a part at each threshold; None where no costs are given or one kind of part is missing.
    """

    good_images: Floats
    bad_images: Floats
    good_parts: Floats
    bad_parts: Floats
    threshold_logit: float
    accept_logit: float
    confidence: float
    costs: CostCurve | None

    @property
    def false_alarms(self) -> PartRates:
        """Rate of false alarms among good parts."""
        wrong = int((self.good_parts >= self.threshold_logit).sum())
        return self._rates(self.good_parts.size, wrong)

    @property
    def escapes(self) -> PartRates:
        """Rate of escapes among bad parts."""
        return self._rates(self.bad_parts.size, int((self.bad_parts < self.accept_logit).sum()))

    def _rates(self, parts: int, wrong: int) -> PartRates:
        return PartRates(parts=parts, wrong=wrong, bound=rate_upper_bound(wrong, parts, self.confidence))

    def positions(self) -> Floats:
        """Return the slider's positions, ascending: one threshold for each way of separating the images.

        They lie below all scores, midway between neighbouring scores, and above all scores. Where a threshold of the
        model lies in such a gap, it takes the place of the midpoint.
        """
        distinct = np.unique(np.concatenate([self.good_images, self.bad_images]))
        margin = _MARGIN * (distinct[-1] - distinct[0]) or 1.0
        # Scores are halved before they are added, to avoid overflow. Between adjacent floats the upper one is taken.
        between = np.maximum(distinct[:-1] / 2 + distinct[1:] / 2, np.nextafter(distinct[:-1], distinct[1:]))
        positions = np.concatenate([[distinct[0] - margin], between, [distinct[-1] + margin]])
        for own in (self.accept_logit, self.threshold_logit):
            positions[np.searchsorted(distinct, own, side="left")] = own
        return positions

    def plain(self) -> dict[str, Any]:
        """Return all numbers as JSON values. Written as text and read again, each float is the same."""
        return {
            "goodImages": self.good_images.tolist(),
            "badImages": self.bad_images.tolist(),
            "goodParts": self.good_parts.tolist(),
            "badParts": self.bad_parts.tolist(),
            "threshold": self.threshold_logit,
            "accept": self.accept_logit,
            "confidence": self.confidence,
            "greyZone": self.accept_logit < self.threshold_logit,
            "positions": self.positions().tolist(),
            "goodBounds": rate_upper_bounds(self.good_parts.size, self.confidence).tolist(),
            "badBounds": rate_upper_bounds(self.bad_parts.size, self.confidence).tolist(),
            "goodMargin": _uniform_margin(self.good_parts.size, self.confidence),
            "badMargin": _uniform_margin(self.bad_parts.size, self.confidence),
            "cheapest": None if self.costs is None else float(self.costs.threshold_logit[self.costs.cheapest]),
        }


def numbers_of(evaluation: Evaluation, *, costs: Costs | None = None, bad_share: float | None = None) -> Numbers:
    """Return the scores and thresholds of an evaluation.

    Args:
        evaluation: the evaluation.
        costs: costs of a false alarm and of an escape.
        bad_share: share of bad parts in production; by default their share among the test parts.
    """
    calibration = evaluation.calibration
    accept = None if calibration is None else calibration.accept_logit
    good, bad = _of_parts(evaluation.outcomes, GOOD, "max"), _of_parts(evaluation.outcomes, BAD, "min")
    both = good.size > 0 and bad.size > 0
    share = bad.size / max(good.size + bad.size, 1) if bad_share is None else bad_share
    return Numbers(
        good_images=_of_images(evaluation.outcomes, GOOD),
        bad_images=_of_images(evaluation.outcomes, BAD),
        good_parts=good,
        bad_parts=bad,
        threshold_logit=evaluation.threshold_logit,
        accept_logit=evaluation.threshold_logit if accept is None else accept,
        confidence=_CONFIDENCE if calibration is None else max(calibration.confidence, 0.5),
        costs=None if costs is None or not both else cost_curve(good, bad, costs, bad_share=share),
    )


def plain_images(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return the data of each image for the page, in plain values. Paths start at the folder common to all images.

    All regions and the peak are there: which of them are listed follows from the verdict at the slider's threshold.
    """
    names = relative_names(outcome.sample for outcome in outcomes)
    parts: dict[int, NDArray[np.int64]] = {}
    for label in (GOOD, BAD):
        parts[label] = part_numbers([outcome.part for outcome in outcomes if outcome.sample.label == label])
    place = {GOOD: 0, BAD: 0}
    plain = []
    for number, outcome in enumerate(outcomes):
        sample = outcome.sample
        plain.append(
            {
                "id": number,
                "path": names[sample.image],
                "bad": sample.label == BAD,
                "type": sample.defect,
                "group": outcome.part,
                "part": int(parts[sample.label][place[sample.label]]),
                "score": outcome.score_logit,
                "p": outcome.p_value,
                "regions": None if outcome.regions is None else [_plain_defect(region) for region in outcome.regions],
                "peak": None if outcome.peak is None else _plain_defect(outcome.peak),
            }
        )
        place[sample.label] += 1
    return plain


def _plain_defect(defect: Defect) -> list[float]:
    return [getattr(defect, name) for name in _DEFECT_FIELDS]


def nearest_to_wrong(numbers: Numbers, outcomes: Sequence[Outcome]) -> list[int]:
    """Return the positions of the outcomes: most wrong first, then the right outcomes, those nearest to wrong first."""
    margins = [
        outcome.score_logit - numbers.accept_logit
        if outcome.sample.label == BAD
        else numbers.threshold_logit - outcome.score_logit
        for outcome in outcomes
    ]
    return sorted(range(len(outcomes)), key=lambda place: (margins[place], place))


def _of_images(outcomes: Sequence[Outcome], label: int) -> Floats:
    return np.sort([outcome.score_logit for outcome in outcomes if outcome.sample.label == label]).astype(np.float64)


def _of_parts(outcomes: Sequence[Outcome], label: int, worst: Literal["max", "min"]) -> Floats:
    chosen = [outcome for outcome in outcomes if outcome.sample.label == label]
    if not chosen:
        return np.zeros(0)
    groups = [outcome.part for outcome in chosen]
    return np.sort(part_scores([outcome.score_logit for outcome in chosen], groups, worst=worst))


def _uniform_margin(parts: int, confidence: float) -> float:
    return uniform_upper_bound(0.0, parts, confidence) if parts else 1.0
