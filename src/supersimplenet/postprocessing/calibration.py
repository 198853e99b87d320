"""Calibration of a model and the verdict that follows from it. No torch: the production computer needs only this.

A calibration is made by `supersimplenet.evaluation.calibrate` from good parts that were not trained on, and is stored
in the model folder as calibration.yaml.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from supersimplenet.errors import CalibrationError
from supersimplenet.postprocessing.zones import Zones
from supersimplenet.types import ScoreName, Verdict, is_finite
from supersimplenet.utils.formatting import counted, listed, per_cent, shown_rate, shown_value

UNCALIBRATED_LOGIT = 0.0  # threshold of a model without calibration: as likely bad as good, by the model's own estimate
UNCALIBRATED = "not calibrated: no guarantee holds at this threshold; run `supersimplenet calibrate`"


@dataclass(frozen=True, kw_only=True)
class Computation:
    """How scores are computed.

    Attributes:
        engine: ``torch``, ``openvino`` or ``onnx``.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``. Engines of one precision differ by rounding errors alone.
        version: version of this package.
    """

    engine: str
    precision: str
    version: str


BAD_PART = "bad part"


@dataclass(frozen=True, kw_only=True)
class EscapeCount:
    """How many bad parts the threshold calls good, of parts that the model that scored them was not trained on.

    Attributes:
        parts: number of bad parts.
        escapes: number of those that are called good by at least one of their photographs.
        low: lower end of the 95 % interval of the rate.
        high: its upper end.
        noun: what one of them is called, where it is no bad part.
    """

    parts: int
    escapes: int
    low: float
    high: float
    noun: str = BAD_PART

    def __post_init__(self) -> None:
        if not (0 <= self.escapes <= self.parts and self.parts > 0 and 0 <= self.low <= self.high <= 1):
            raise CalibrationError(
                f"expected_escapes: {self.escapes} of {self.parts} parts, {shown_value(self.low)} to "
                f"{shown_value(self.high)}; wanted at most as many escapes, and a range within 0 to 1; calibrate again"
            )

    def __str__(self) -> str:
        rate = f"{per_cent(self.escapes / self.parts)}, 95 % interval {per_cent(self.low)} to {per_cent(self.high)}"
        return f"{self.escapes} of {counted(self.parts, self.noun)} ({rate})"


@dataclass(frozen=True, kw_only=True)
class ExpectedEscapes:
    """What the threshold will cost: the escapes that are to be expected. An estimate; no guarantee.

    Attributes:
        every: of all types of defect together.
        types: by type of defect.
        basis: which bad parts these are and which model scored them, in words.
    """

    every: EscapeCount
    types: dict[str, EscapeCount]
    basis: str

    def lines(self) -> Iterator[str]:
        """Yield the estimate in words: all types together, then each."""
        yield f"expected escapes: {self.every}: {self.basis}"
        if len(self.types) > 1:
            width = max(map(len, self.types))
            yield from (f"  {name:<{width}}  {count}" for name, count in self.types.items())


@dataclass(frozen=True, kw_only=True)
class CrossCalibration:
    """How models of folds set the thresholds; the held-out parts then only check them.

    Attributes:
        folds: number of models, each trained without one fold of the good parts.
        steps: number of training steps of each.
        false_alarms: share of good parts called bad that is to be expected, on average over calibrations.
        proven: what is proven of it for a part that the models of all folds score; see `cross_bound`.
        checked_parts: number of good parts that neither the model nor those of the folds was trained on.
        checked_false_alarms: number of these that are called bad.
    """

    folds: int
    steps: int
    false_alarms: float
    proven: float
    checked_parts: int
    checked_false_alarms: int

    def __post_init__(self) -> None:
        for name, holds in (
            ("folds", self.folds >= 2),
            ("steps", self.steps >= 0),
            ("false_alarms", 0 < self.false_alarms < 1),
            ("proven", 0 < self.proven <= 1),
            ("checked_parts", self.checked_parts >= 1),
            ("checked_false_alarms", 0 <= self.checked_false_alarms <= self.checked_parts),
        ):
            if not holds:
                raise CalibrationError(f"cross.{name}: {shown_value(getattr(self, name))}; calibrate again")


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Thresholds, what they guarantee, and the scores of the good parts on which they are based.

    Attributes:
        image_score: the score to which the thresholds apply. It decides the verdict, whatever the training chose.
        threshold_logit: from this score on an image is ``bad``.
        accept_logit: below this an image is ``good``, from here to the threshold ``unsure``; None for no grey zone.
        pixel_logit: from this value on a pixel of the map belongs to a defect.
        min_area_px: smaller regions, in pixels at the network's input size, are no defects.
        chosen_by: ``false-alarms`` where the bound on false alarms set the threshold, ``costs`` where costs did.
        max_false_alarms: the false-alarm rate that is not exceeded, with that confidence.
        max_escapes: the escape rate that is not exceeded, with that confidence; None where no bad part was given, or
            only photographs of the parts that set the threshold. An ``unsure`` bad part is no escape: a person inspects
            it.
        confidence: of either guarantee, over the draw of the parts on which it is based.
        part_logits: the score of each good part, ascending; a part with several photographs counts by its highest.
        images: number of photographs of those parts.
        bad_parts: number of bad parts that were evaluated.
        escapes: number of these bad parts that the thresholds call ``good``.
        basis: where the good parts came from, in words.
        list_sha256: hash of the good images' contents and groups.
        weights_sha256: hash of the model's weights that gave the scores.
        date: date of the calibration, such as 2026-11-25.
        computation: how the scores were computed that set the thresholds; None where it is unknown (version 0.1).
        applied_to: how the scores are computed to which the thresholds are applied; None for scores computed likewise.
        cross: how models of folds set the thresholds; None where the parts that sign the guarantee set them. With it,
            ``part_logits`` and ``images`` are those of the folds, and ``max_false_alarms`` follows from the parts that
            check the threshold.
        expected_escapes: what the thresholds will cost; None where no bad part could tell.
        zones: the zones whose score decides, with the margins and areas that it counts by; None where another does.

    Raises:
        CalibrationError: a value that no calibration has, such as a threshold that is not finite.
    """

    image_score: ScoreName
    threshold_logit: float
    accept_logit: float | None
    pixel_logit: float
    min_area_px: int
    chosen_by: str
    max_false_alarms: float
    max_escapes: float | None
    confidence: float
    part_logits: tuple[float, ...]
    images: int
    bad_parts: int
    escapes: int
    basis: str
    list_sha256: str
    weights_sha256: str
    date: str
    computation: Computation | None = None
    applied_to: Computation | None = field(default=None, compare=False)  # of the reader, not of the calibration
    cross: CrossCalibration | None = None
    expected_escapes: ExpectedEscapes | None = None
    zones: Zones | None = None

    def __post_init__(self) -> None:
        for name, wanted, holds in self._conditions():
            if not holds:
                raise CalibrationError(f"{name}: {shown_value(getattr(self, name))}; wanted {wanted}; calibrate again")

    def _conditions(self) -> Iterator[tuple[str, str, bool]]:
        """Yield each field's name, its condition in words, and whether the condition holds."""

        def is_rate(value: object) -> bool:
            return is_finite(value) and 0 < value <= 1  # type: ignore[operator]

        def is_count(name: str, least: int) -> bool:
            value = getattr(self, name)
            return isinstance(value, int) and not isinstance(value, bool) and value >= least

        yield "image_score", listed(get_args(ScoreName)), self.image_score in get_args(ScoreName)
        fits = (self.image_score == "zones") == (self.zones is not None)
        yield "zones", "zones where they decide, else null", fits
        for name in ("threshold_logit", "pixel_logit"):
            yield name, "a finite number", is_finite(getattr(self, name))
        accept = self.accept_logit
        below = accept is None or (is_finite(accept) and accept <= self.threshold_logit)
        yield "accept_logit", "a finite number, at most threshold_logit, or null", below
        yield "min_area_px", "a whole number of 1 or more", is_count("min_area_px", 1)
        yield "max_false_alarms", "a rate above 0, at most 1", is_rate(self.max_false_alarms)
        yield "max_escapes", "such a rate, or null", self.max_escapes is None or is_rate(self.max_escapes)
        yield "confidence", "above 0, below 1", is_rate(self.confidence) and self.confidence < 1
        finite = all(map(is_finite, self.part_logits))
        yield "part_logits", "one or more finite numbers", finite and len(self.part_logits) > 0
        yield "images", "at least the number of parts", is_count("images", len(self.part_logits))
        yield "bad_parts", "a whole number of 0 or more", is_count("bad_parts", 0)
        yield "escapes", "a whole number, at most bad_parts", is_count("escapes", 0) and self.escapes <= self.bad_parts
        for name in ("chosen_by", "basis", "list_sha256", "weights_sha256", "date"):
            yield name, "text", isinstance(getattr(self, name), str)

    @property
    def parts(self) -> int:
        """Number of good parts whose scores set the thresholds."""
        return len(self.part_logits)

    @property
    def method(self) -> str:
        """Return ``split``: the parts that sign the guarantee set the thresholds; or ``cross``: models of folds did."""
        return "split" if self.cross is None else "cross"

    def p_value(self, score_logit: float) -> float:
        """Return how rarely a good part scores this high; see `p_values`."""
        return float(p_values(score_logit, self._rising))

    @property
    def holds(self) -> bool:
        """Whether the guarantee holds: scores in another precision than that of the calibration are other scores."""
        own, other = self.computation, self.applied_to
        return own is None or other is None or own.precision == other.precision

    def guarantee(self) -> str:
        """Return the guarantee that may be signed, in a sentence; or why there is none."""
        if not self.holds:
            assert self.computation is not None  # else it would hold
            assert self.applied_to is not None
            return (
                f"not valid: the thresholds were set in {self.computation.precision}, and these scores are computed in "
                f"{self.applied_to.precision}; calibrate in that precision, or export where the held-out images are"
            )
        sure = f"with {self.confidence * 100:g} % confidence"
        if self.cross is None:
            of = counted(self.parts, "good part")
            if self.images != self.parts:
                of += f" in {self.images} photographs"
        else:
            of = f"{self.cross.checked_false_alarms} of {counted(self.cross.checked_parts, 'good part')} called bad"
        sentence = (
            f"at most {shown_rate(self.max_false_alarms)} of good parts are called bad, {sure} "
            f"({of}, {self.basis}, {self.date})"
        )
        if self.max_escapes is not None:
            sentence += (
                f"; at most {shown_rate(self.max_escapes)} of bad parts are called good, {sure} "
                f"({counted(self.bad_parts, 'bad part')})"
            )
        elif self.bad_parts:
            sentence += f"; {self.escapes} of {self.bad_parts} bad parts at hand were called good, which bounds nothing"
        return sentence

    def on_average(self) -> str | None:
        """Return what a cross-calibration guarantees on average over calibrations, not to be signed; None for none."""
        if self.cross is None or not self.holds:
            return None
        return (
            f"about {per_cent(self.cross.false_alarms)} of good parts are called bad, on average over calibrations and "
            f"as far as the model scores like the {self.cross.folds} models of folds that set the threshold "
            f"({self.parts} good parts, each scored by a model that was not trained on it); proven is at most "
            f"{shown_rate(self.cross.proven)}, and only for a part that all {self.cross.folds} of them score"
        )

    @cached_property
    def _rising(self) -> NDArray[np.float64]:
        return np.asarray(self.part_logits, dtype=np.float64)


def verdict(score_logit: float, calibration: Calibration | None) -> Verdict:
    """Return the verdict for a score: by the calibration or, without one, by the model's own estimate (logit 0)."""
    if score_logit >= (UNCALIBRATED_LOGIT if calibration is None else calibration.threshold_logit):
        return "bad"
    if calibration is not None and calibration.accept_logit is not None and score_logit >= calibration.accept_logit:
        return "unsure"
    return "good"


def p_values(score_logits: ArrayLike, part_logits: ArrayLike) -> NDArray[np.float64]:
    """Compute how rarely a good part scores this high: (1 + number of good parts at or above the score) / (n + 1).

    For a good part P(p <= a) <= a for every a, on average over calibrations. Ties count against the part.

    Args:
        score_logits: floats of any shape, of the parts in question.
        part_logits: (n,) floats, one for each good part, not trained on; in any order, fastest if ascending.

    Returns:
        float64 of the shape of ``score_logits``, in [1 / (n + 1), 1].

    Source: Vovk, Gammerman, Shafer: Algorithmic Learning in a Random World, 2005, section 2.2 (not smoothed).
    """
    parts = np.sort(np.asarray(part_logits, dtype=np.float64))
    below = np.searchsorted(parts, np.asarray(score_logits, dtype=np.float64), side="left")
    return np.asarray((1 + parts.size - below) / (parts.size + 1), dtype=np.float64)
