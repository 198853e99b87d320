"""Set a detector's thresholds from the scores of parts that it was not trained on. See docs/thresholds.md."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from supersimplenet.datasets.parts import describe_copies, require_one_label
from supersimplenet.errors import CalibrationError, ConfigError, DataError
from supersimplenet.evaluation.config import ThresholdConfig
from supersimplenet.evaluation.scored_parts import PartScores, ScoredImages, score_images
from supersimplenet.metrics.thresholds import (
    CostCurve,
    cost_curve,
    escape_threshold,
    false_alarm_threshold,
    guaranteed_rate,
    rate_upper_bound,
    uniform_upper_bound,
)
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.postprocessing.zones import Zones
from supersimplenet.preprocessing.loading import Failure, OnError
from supersimplenet.runtime.predictor import Predictor
from supersimplenet.types import BAD, GOOD, Sample, ScoreName
from supersimplenet.utils.console import console
from supersimplenet.utils.files import file_sha256
from supersimplenet.utils.formatting import listed

if TYPE_CHECKING:
    from supersimplenet.evaluation.score_comparison import ScoreComparison


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A calibration and the scores that it was computed from.

    Attributes:
        calibration: the calibration, as the model folder keeps it.
        scores: all scores of the parts, by name; the calibration's own, `image_score`, is one of them.
        curve: expected cost at each threshold; None where no costs were given.
        failures: images that could not be read.
        earlier: the earlier calibration that this one replaces; None for none.
        pixels: pixel digest of each image that was predicted.
        comparison: what each score would give; None where it was not asked for.
        images: the images and their scores.
        split: what the parts at hand alone would have set, where models of folds set the thresholds; else None.
        repeated_parts: a warning that images that calibrate seem to show a part more than once; None for no reason to
            warn.
    """

    calibration: Calibration
    scores: Mapping[ScoreName, PartScores]
    curve: CostCurve | None
    failures: list[Failure]
    earlier: Calibration | None = None
    pixels: Mapping[Path, str] = field(default_factory=dict)
    comparison: ScoreComparison | None = None
    images: ScoredImages | None = None
    split: Calibration | None = None
    repeated_parts: str | None = None

    @property
    def good_logits(self) -> NDArray[np.float64]:
        """(parts,) score of each good part."""
        return self.scores[self.calibration.image_score].good

    @property
    def bad_logits(self) -> NDArray[np.float64]:
        """(parts,) score of each bad part; may be empty."""
        return self.scores[self.calibration.image_score].bad

    def __repr__(self) -> str:
        return f"Calibrated({self.calibration.guarantee()})"


def set_thresholds(
    detector: Predictor,
    samples: Sequence[Sample],
    config: ThresholdConfig | None = None,
    *,
    image_score: ScoreName | None = None,
    zones: Zones | None = None,
    basis: str,
    weights_sha256: str,
    on_error: OnError = "stop",
    progress: Callable[[int], None] = lambda images: None,
) -> Calibrated:
    """Predict parts that were not trained on, and set the thresholds from their scores.

    Args:
        detector: the predictor to calibrate; an earlier calibration of it has no influence.
        samples: good parts and, if there are any, bad parts, from any split. All images of one group are one part, and
            so are copies of one image.
        config: the guarantees that the thresholds must give.
        image_score: the score that the thresholds are for, and that decides with them; by default the one that decides
            now.
        zones: the zones whose score decides; None where another does.
        basis: where the good parts came from, in words.
        weights_sha256: hash of the model folder's weights; see `hash_weights`.
        on_error: whether an unreadable image stops the calibration or is skipped.
        progress: called with the number of images done since the last call.

    Raises:
        ConfigError: the model does not give this score, or smallest defects are named beside those of zones.
        DataError: there is no good image, or none that can be read, or an image is labelled good and its copy bad.
        CalibrationError: there are too few parts for the guarantees.
        ImageError: an image cannot be read and ``on_error`` is ``stop``.
    """
    config = config or ThresholdConfig()
    if not any(sample.label == GOOD for sample in samples):
        raise DataError("no good image to calibrate with; name good parts that were not trained on, with --good")
    if zones is not None and config.min_area_px is not None:
        raise ConfigError("min_area_px: with zones each has its own; leave it out, or name it in the zones")
    image_score = "zones" if zones is not None else image_score or detector.image_score
    min_area_px = config.listed_area_px if zones is None else zones.least_area_px
    scored = score_images(
        detector if detector.postprocessor.zones == zones else detector.without_thresholds(image_score, zones),
        samples,
        on_error=on_error,
        progress=progress,
        min_area_px=min_area_px,
    )
    good = scored.places(GOOD)
    if not good:
        raise DataError(f"none of the good images could be read; the first: {scored.failures[0].reason}")
    require_one_label(samples, scored.pixels)
    copies = describe_copies(samples, scored.pixels)
    if copies is not None:
        console().print(copies)
    scores = scored.of_parts()
    if image_score not in scores:
        raise ConfigError(f"image_score: '{image_score}'; this model gives {listed([*scores], 'and')}; choose one")
    own = scores[image_score]
    thresholds, curve = choose_thresholds(own, config)
    shared = {*scored.groups(GOOD)} & {*scored.groups(BAD)} - {None}
    if config.max_escapes is None and config.costs is None and shared:
        # The threshold follows from good photographs of the same parts, so no bound on escapes holds, only their count.
        thresholds = replace(thresholds, max_escapes=None)
    calibration = Calibration(
        image_score=image_score,
        threshold_logit=thresholds.reject,
        accept_logit=thresholds.accept,
        pixel_logit=_pixel_threshold(scored.part_levels(), config),
        min_area_px=min_area_px,
        chosen_by="false-alarms" if config.costs is None else "costs",
        max_false_alarms=thresholds.max_false_alarms,
        max_escapes=thresholds.max_escapes,
        confidence=config.confidence,
        part_logits=tuple(sorted(own.good.tolist())),
        images=len(good),
        bad_parts=own.bad.size,
        escapes=thresholds.escapes,
        basis=basis,
        list_sha256=_list_hash(samples[place] for place in good),
        weights_sha256=weights_sha256,
        date=date.today().isoformat(),
        computation=detector.computation,
        zones=zones,
    )
    return Calibrated(
        calibration=calibration,
        scores=scores,
        curve=curve,
        failures=scored.failures,
        earlier=detector.calibration,
        pixels=scored.pixels,
        images=scored,
    )


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Thresholds and their guarantees; see `Calibration`."""

    reject: float
    accept: float | None
    max_false_alarms: float
    max_escapes: float | None
    escapes: int


def choose_thresholds(scores: PartScores, config: ThresholdConfig) -> tuple[Thresholds, CostCurve | None]:
    """Return the thresholds that a configuration wants for a score of parts, and its costs where they are given.

    Raises:
        CalibrationError: there are too few parts for the guarantees.
    """
    good, bad = scores.good, scores.bad
    if bad.size == 0 and (config.costs is not None or config.max_escapes is not None):
        option = "costs" if config.costs is not None else "max_escapes"
        raise CalibrationError(f"{option}: needs bad parts, and none were given; name some with --bad")
    if config.costs is not None:
        share = bad.size / (bad.size + good.size) if config.bad_share is None else config.bad_share
        curve = cost_curve(good, bad, config.costs, bad_share=share)
        at = curve.cheapest
        # The threshold was chosen by the same scores, so the bounds must hold at all thresholds simultaneously.
        return Thresholds(
            reject=float(curve.threshold_logit[at]),
            accept=None,
            max_false_alarms=uniform_upper_bound(float(curve.false_alarm_rate[at]), good.size, config.confidence),
            max_escapes=uniform_upper_bound(float(curve.escape_rate[at]), bad.size, config.confidence),
            escapes=round(float(curve.escape_rate[at]) * bad.size),
        ), curve
    rate = _rate(good.size, config)
    reject = false_alarm_threshold(good, max_false_alarms=rate, confidence=config.confidence)
    if config.max_escapes is None:
        escapes = int((bad < reject).sum())
        bound = rate_upper_bound(escapes, bad.size, config.confidence) if bad.size else None
        return Thresholds(reject=reject, accept=None, max_false_alarms=rate, max_escapes=bound, escapes=escapes), None
    accept = escape_threshold(bad, max_escapes=config.max_escapes, confidence=config.confidence)
    below = min(accept, reject)
    return Thresholds(
        reject=reject,
        accept=accept if accept < reject else None,  # else one threshold gives both guarantees
        max_false_alarms=rate,
        max_escapes=config.max_escapes,
        escapes=int((bad < below).sum()),
    ), None


def _rate(parts: int, config: ThresholdConfig) -> float:
    """Return the rate of false alarms to guarantee: ``max_false_alarms``, or more if lenient and the parts are few."""
    return max(config.max_false_alarms, guaranteed_rate(parts, config.confidence) if config.lenient else 0.0)


def _pixel_threshold(part_levels: NDArray[np.float64], config: ThresholdConfig) -> float:
    """Return the pixel threshold: good parts have a listed defect at most as often as they may be called bad.

    Where costs choose the image threshold, the user asked for no false-alarm rate; then the rate may be higher if the
    parts are too few.
    """
    rate = _rate(part_levels.size, config if config.costs is None else replace(config, lenient=True))
    level = false_alarm_threshold(part_levels, max_false_alarms=rate, confidence=config.confidence)
    return above_level(level)


def above_level(level: float) -> float:
    """Return the next float32 above a level.

    Anomaly maps are float32, and the float64 number just above a threshold is rounded to that threshold there.
    """
    return float(np.nextafter(np.float32(level), np.float32(np.inf)))


def _list_hash(samples: Iterable[Sample]) -> str:
    """Return the hash of the images' contents and groups; order and paths have no influence."""
    lines = sorted(f"{file_sha256(sample.image)}\0{sample.group or '-'}\n" for sample in samples)
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()
