"""Results of an evaluation: of each test image, of all, and of each type and size of defect. Needs no torch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supersimplenet.inference.config import METRICS_FILE
from supersimplenet.metrics.ranking import Metric
from supersimplenet.postprocessing.calibration import UNCALIBRATED, Calibration
from supersimplenet.types import BAD, GOOD, Defect, Resolution, Sample, ScoreName, Verdict, score_in
from supersimplenet.utils.files import write_text
from supersimplenet.utils.formatting import counted, few

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from supersimplenet.preprocessing.loading import Failure

# Prefix of each score's metric names. The head's score has none: published results rank by it.
PREFIXES: dict[ScoreName, str] = {
    "head": "",
    "map": "seg-",
    "fused": "fused-",
    "subspace": "subspace-",
    "joint": "joint-",
    "zones": "zones-",
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One test image: its labels and its prediction, without the anomaly map, so that many outcomes fit in memory.

    Attributes:
        sample: the image and its labels.
        head_logit: see `supersimplenet.types.Prediction`.
        map_max_logit: see `supersimplenet.types.Prediction`.
        fused_logit: see `supersimplenet.types.Prediction`.
        subspace_logit: see `supersimplenet.types.Prediction`.
        joint_logit: see `supersimplenet.types.Prediction`.
        zones_logit: see `supersimplenet.types.Prediction`.
        score_logit: the score that the verdict comes from.
        threshold_logit: the verdict is ``bad`` from this score on.
        verdict: see `supersimplenet.types.Prediction`.
        p_value: see `supersimplenet.types.Prediction`.
        defects: see `supersimplenet.types.Prediction`.
        regions: see `supersimplenet.types.Prediction`.
        peak: where the map is highest; None where the model is not calibrated.
        has_pixel_labels: whether the image counts in the pixel metrics.
        lost_regions: number of regions of its mask that are too small to be seen at the resolution of the pixel
            metrics. If no region is seen, the image does not count in them.
        sha256: hash of the image's file; empty where it was not read from a file.
        pixels: hash of the image's pixels, see `pixel_digest`; likewise.
        merged: name of the image's part, where other images are copies of one of its photographs; else None.
    """

    sample: Sample
    head_logit: float | None
    map_max_logit: float | None
    fused_logit: float | None
    subspace_logit: float | None = None
    joint_logit: float | None = None
    zones_logit: float | None = None
    score_logit: float
    threshold_logit: float
    verdict: Verdict
    p_value: float | None
    defects: tuple[Defect, ...] | None
    has_pixel_labels: bool
    regions: tuple[Defect, ...] | None = None
    peak: Defect | None = None
    lost_regions: int = 0
    sha256: str = ""
    pixels: str = ""
    merged: str | None = None

    @property
    def part(self) -> str | None:
        """Name of the physical part; None for an image that is a part of its own."""
        return self.merged or self.sample.group

    @property
    def mask_vanishes(self) -> bool:
        """Whether the image has no pixel labels because its mask vanishes at the resolution of the pixel metrics."""
        return self.lost_regions > 0 and not self.has_pixel_labels

    def score_of(self, name: ScoreName) -> float:
        """Return one of the scores, in logits; see `supersimplenet.types.score_in`."""
        return score_in(self, name)

    @property
    def margin(self) -> float:
        """How far the score lies on the right side of the threshold, in logits; negative for a wrong verdict."""
        return (self.score_logit - self.threshold_logit) * (1 if self.sample.label == BAD else -1)


@dataclass(frozen=True, kw_only=True)
class TypeResult:
    """The results for one type of defect.

    Attributes:
        defect: name of the type.
        images: number of test images with this type.
        verdicts: number of these images by verdict: good, unsure, bad.
        regions: number of defective regions in their masks.
        found: number of these regions that a listed defect touches, so none of an image that is called good; None where
            the model is not calibrated.
        metrics: ``I-AUROC`` of the deciding score for these images against all good images, and pixel metrics of
            these regions against all normal pixels.
    """

    defect: str
    images: int
    verdicts: dict[Verdict, int]
    regions: int
    found: int | None
    metrics: dict[str, Metric]


@dataclass(frozen=True, kw_only=True)
class SizeResult:
    """The results for the defective regions of one size class.

    Attributes:
        at_least: lower limit of the class: smallest share of the image's pixels that a region has.
        below: upper limit of the class, from which on a region belongs to the next class; None for the last class.
        regions: number of regions.
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
        metrics: metrics by the names that the papers use, in the order in which they are shown.
        outcomes: outcomes of every readable test image, in the dataset's order.
        types: results for each type of defect, in the order of the types' names.
        sizes: results for each size class of regions that occurs, from small to large.
        overlap_curve: false-positive rate and mean overlap of regions, ascending; None where it is not defined.
        failures: test images that could not be read, or whose masks could not be read.
        calibration: calibration of the model; None where the model is not calibrated.
        threshold_logit: an image is ``bad`` from this score on.
        image_score: the score that the verdicts come from.
        resolution: size of the pixel metrics: ``model`` or ``native``; see `evaluate`.
        size_px: height and width of the network's input.
        fit: how images are fitted to the network's input; see `ViewConfig`.
        copies: images with equal pixels, group by group; each group counts as one part.
        trained_on: images that the model was trained on, by content; their results flatter it.
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
    copies: Sequence[Sequence[Path]] = ()
    trained_on: Sequence[Path] = ()

    def __repr__(self) -> str:
        defined = {name: metric.value for name, metric in self.metrics.items() if metric.value is not None}
        shown = ", ".join(f"{name} {value:.3f}" for name, value in defined.items())
        return f"Evaluation({len(self.outcomes):,} images; {shown})"

    def counts(self, label: int) -> dict[Verdict, int]:
        """Return the number of images with a label (0 good, 1 bad) by verdict: good, unsure and bad."""
        return count_verdicts([outcome for outcome in self.outcomes if outcome.sample.label == label])

    def shown_size(self, times: str) -> str:
        """Return the network's input size in words, such as ``256x256`` or ``tiles of 256x256``.

        Args:
            times: the sign between height and width.
        """
        size = times.join(map(str, self.size_px))
        return {"stretch": size, "pad": f"{size}, padded", "tiles": f"tiles of {size}"}[self.fit]

    @property
    def vanishing(self) -> list[Outcome]:
        """The outcomes of bad images that the pixel metrics leave out, because their masks vanish when resized."""
        return [outcome for outcome in self.outcomes if outcome.mask_vanishes]

    @property
    def lost_regions(self) -> int:
        """Number of regions that vanish when the masks are resized; in no pixel metric is any of them a region."""
        return sum(outcome.lost_regions for outcome in self.outcomes)

    def lost_words(self) -> str | None:
        """Return a line about masks and regions that vanish when the masks are resized; None where none does."""
        if not self.lost_regions:
            return None
        images = [outcome.sample.image.name for outcome in self.outcomes if outcome.lost_regions]
        text = (
            f"{counted(self.lost_regions, 'defective region')} too small for pixel metrics at {self.shown_size('x')}, "
            f"in {counted(len(images), 'image')}: {few(images)}; "
        )
        if self.vanishing:
            whole = counted(len(self.vanishing), "image")
            text += f"of {whole} the whole mask vanishes, and pixel metrics leave the image out; "
        return text + "--resolution native measures all"

    def summary(self) -> dict[str, Any]:
        """Return the content of metrics.json: metrics (null where undefined), reasons, bounds, intervals, counts."""
        good, bad = self.counts(GOOD), self.counts(BAD)
        return {
            **{name: metric.value for name, metric in self.metrics.items()},
            "undefined": {name: metric.reason for name, metric in self.metrics.items() if metric.value is None},
            "error_bounds": {name: metric.error_bound for name, metric in self.metrics.items() if metric.error_bound},
            "intervals_95": {
                name: None if metric.interval is None else [metric.interval.low, metric.interval.high]
                for name, metric in self.metrics.items()
                if metric.interval is not None or metric.no_interval is not None
            },
            "undefined_intervals": {
                name: metric.no_interval for name, metric in self.metrics.items() if metric.no_interval is not None
            },
            "images": {
                "good": sum(good.values()),
                "bad": sum(bad.values()),
                "bad_without_pixel_labels": sum(not outcome.has_pixel_labels for outcome in self.outcomes),
            },
            "vanishing": {
                "regions": self.lost_regions,
                "images_left_out": [str(outcome.sample.image) for outcome in self.vanishing],
                "images_counted": [
                    str(outcome.sample.image)
                    for outcome in self.outcomes
                    if outcome.lost_regions and outcome.has_pixel_labels
                ],
            },
            "image_score": self.image_score,
            "calibration": UNCALIBRATED if self.calibration is None else self.calibration.guarantee(),
            "calibration_on_average": None if self.calibration is None else self.calibration.on_average(),
            "threshold_logit": self.threshold_logit,
            "false_alarms": good["bad"],
            "escapes": bad["good"],
            "unsure": {"good": good["unsure"], "bad": bad["unsure"]},
            "types": {result.defect: _plain_row(result) for result in self.types},
            "sizes": {shown_size_class(result): _plain_row(result) for result in self.sizes},
            "resolution": "native" if self.resolution == "native" else self.shown_size("x"),
            "copies": [[str(image) for image in group] for group in self.copies],
            "trained_on": [str(image) for image in self.trained_on],
            "skipped": [{"path": str(failure.path), "reason": failure.reason} for failure in self.failures],
        }


def write_metrics(evaluation: Evaluation, folder: Path, *, data: Mapping[str, Any]) -> Path:
    """Write metrics.json into a folder, whole or not at all.

    Args:
        evaluation: the evaluation to write.
        folder: folder for the file.
        data: description of the dataset, in plain values.

    Returns:
        The path written.
    """
    path = folder / METRICS_FILE
    write_text(path, json.dumps({**evaluation.summary(), "data": data}, indent=2) + "\n")
    return path


def count_verdicts(outcomes: Sequence[Outcome]) -> dict[Verdict, int]:
    """Return the number of outcomes by verdict: good, unsure and bad."""
    found = Counter(outcome.verdict for outcome in outcomes)
    return {"good": found["good"], "unsure": found["unsure"], "bad": found["bad"]}


def shown_size_class(result: SizeResult) -> str:
    """Return a size class as text, such as ``0.1-1 %``, in shares of the image."""
    if result.below is None:
        return f"{result.at_least * 100:g} % and more"
    return f"{result.at_least * 100:g}-{result.below * 100:g} %"


def _plain_row(result: TypeResult | SizeResult) -> dict[str, Any]:
    row: dict[str, Any] = {name: metric.value for name, metric in result.metrics.items()}
    if isinstance(result, TypeResult):
        row |= {"images": result.images, "escapes": result.verdicts["good"], "unsure": result.verdicts["unsure"]}
    return row | {"regions": result.regions, "found": result.found}
