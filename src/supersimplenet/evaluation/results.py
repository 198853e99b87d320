"""What an evaluation says: of each test image, of all, of each type and size of defect. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from supersimplenet.metrics.ranking import Metric
from supersimplenet.postprocessing.calibration import UNCALIBRATED, Calibration
from supersimplenet.types import BAD, GOOD, SCORE_FIELDS, Defect, Resolution, Sample, ScoreName, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from supersimplenet.preprocessing.loading import Failure


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One test image, what is known of it and what the detector says; without its map, so that many fit in memory.

    Attributes:
        sample: the image and its labels.
        head_logit: see `supersimplenet.types.Prediction`, as for the others.
        map_max_logit: likewise.
        fused_logit: likewise.
        score_logit: the one that decides.
        threshold_logit: from which the verdict is ``bad``.
        verdict: likewise.
        p_value: likewise.
        defects: likewise.
        has_pixel_labels: whether it counts in the metrics of pixels.
    """

    sample: Sample
    head_logit: float
    map_max_logit: float
    fused_logit: float
    score_logit: float
    threshold_logit: float
    verdict: Verdict
    p_value: float | None
    defects: tuple[Defect, ...] | None
    has_pixel_labels: bool

    def score_of(self, name: ScoreName) -> float:
        """Return one of the scores, in logits."""
        return float(getattr(self, SCORE_FIELDS[name]))

    @property
    def margin(self) -> float:
        """How far the score lies on the right side of the threshold, in logits; negative for a wrong verdict."""
        return (self.score_logit - self.threshold_logit) * (1 if self.sample.label == BAD else -1)


@dataclass(frozen=True, kw_only=True)
class TypeResult:
    """One type of defect.

    Attributes:
        defect: its name.
        images: test images of it.
        verdicts: how many of them are called good, unsure, bad.
        regions: defective regions in its masks.
        found: how many of these reach the pixel threshold; None where the model is not calibrated.
        metrics: ``I-AUROC`` of the score that decides, against all good images, and pixel metrics of its regions
            against all normal pixels.
    """

    defect: str
    images: int
    verdicts: dict[Verdict, int]
    regions: int
    found: int | None
    metrics: dict[str, Metric]


@dataclass(frozen=True, kw_only=True)
class SizeResult:
    """Regions of one size class.

    Attributes:
        at_least: smallest share of its image that a region of the class has.
        below: the share from which it belongs to the next class; None for the last.
        regions: how many there are.
        found: see `TypeResult`.
        metrics: pixel metrics of these regions against all normal pixels.
    """

    at_least: float
    below: float | None
    regions: int
    found: int | None
    metrics: dict[str, Metric]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics and outcomes of a test split.

    Attributes:
        metrics: by the names of the papers, in the order in which results are shown.
        outcomes: of every readable test image, in the data set's order.
        types: in the order of their names.
        sizes: of regions, from small to large, those classes that occur.
        overlap_curve: false-positive rate and mean overlap of regions, rising; None where it is not defined.
        failures: test images that could not be read, or whose masks could not.
        calibration: of the model; None where it is not calibrated.
        threshold_logit: from here on an image is ``bad``.
        image_score: which score the verdicts come from.
        resolution: of the metrics of pixels: the network's input size, or each mask's own.
        size_px: height and width of the network's input.
        fit: how images are brought to it; see `ViewConfig`.
    """

    metrics: dict[str, Metric]
    outcomes: list[Outcome]
    types: list[TypeResult]
    sizes: list[SizeResult]
    overlap_curve: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    failures: list[Failure]
    calibration: Calibration | None
    threshold_logit: float
    image_score: ScoreName
    resolution: Resolution
    size_px: tuple[int, int]
    fit: str = "stretch"

    def counts(self, label: int) -> dict[Verdict, int]:
        """How many images of a label (0 good, 1 bad) are called good, unsure and bad."""
        return count_verdicts([outcome for outcome in self.outcomes if outcome.sample.label == label])

    def shown_size(self, times: str) -> str:
        """At which size the network looks, such as ``256x256`` or ``tiles of 256x256``.

        Args:
            times: what stands between height and width.
        """
        size = times.join(map(str, self.size_px))
        return {"stretch": size, "pad": f"{size}, padded", "tiles": f"tiles of {size}"}[self.fit]

    def summary(self) -> dict[str, Any]:
        """What metrics.json holds: metrics by name (null where undefined), reasons, bounds, intervals, counts."""
        good, bad = self.counts(GOOD), self.counts(BAD)
        return {
            **{name: metric.value for name, metric in self.metrics.items()},
            "undefined": {name: metric.reason for name, metric in self.metrics.items() if metric.value is None},
            "error_bounds": {name: metric.error_bound for name, metric in self.metrics.items() if metric.error_bound},
            "intervals_95": {
                name: [metric.interval.low, metric.interval.high]
                for name, metric in self.metrics.items()
                if metric.interval is not None
            },
            "images": {
                "good": sum(good.values()),
                "bad": sum(bad.values()),
                "bad_without_pixel_labels": sum(not outcome.has_pixel_labels for outcome in self.outcomes),
            },
            "image_score": self.image_score,
            "calibration": UNCALIBRATED if self.calibration is None else self.calibration.guarantee(),
            "threshold_logit": self.threshold_logit,
            "false_alarms": good["bad"],
            "escapes": bad["good"],
            "unsure": {"good": good["unsure"], "bad": bad["unsure"]},
            "types": {result.defect: _plain_row(result) for result in self.types},
            "sizes": {shown_size_class(result): _plain_row(result) for result in self.sizes},
            "resolution": "native" if self.resolution == "native" else self.shown_size("x"),
            "skipped": [{"path": str(failure.path), "reason": failure.reason} for failure in self.failures],
        }


def count_verdicts(outcomes: Sequence[Outcome]) -> dict[Verdict, int]:
    """How many are called good, unsure and bad."""
    found = Counter(outcome.verdict for outcome in outcomes)
    return {"good": found["good"], "unsure": found["unsure"], "bad": found["bad"]}


def shown_size_class(result: SizeResult) -> str:
    """Such as ``0.1-1 %``: a region's share of its image."""
    if result.below is None:
        return f"{result.at_least * 100:g} % and more"
    return f"{result.at_least * 100:g}-{result.below * 100:g} %"


def _plain_row(result: TypeResult | SizeResult) -> dict[str, Any]:
    row: dict[str, Any] = {name: metric.value for name, metric in result.metrics.items()}
    if isinstance(result, TypeResult):
        row |= {"images": result.images, "escapes": result.verdicts["good"], "unsure": result.verdicts["unsure"]}
    return row | {"regions": result.regions, "found": result.found}
