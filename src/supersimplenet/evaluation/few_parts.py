"""Calibration with few parts: thresholds from models of folds, and the escapes that a threshold will cost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from supersimplenet.errors import CalibrationError
from supersimplenet.evaluation.config import ThresholdConfig
from supersimplenet.evaluation.scored_parts import ScoredImages, score_images
from supersimplenet.evaluation.set_thresholds import Calibrated, above_level
from supersimplenet.metrics.cross_conformal import cross_bound, cross_threshold
from supersimplenet.metrics.thresholds import (
    false_alarm_threshold,
    guaranteed_rate,
    part_numbers,
    rate_interval,
    rate_upper_bound,
)
from supersimplenet.postprocessing.calibration import BAD_PART, CrossCalibration, EscapeCount, ExpectedEscapes
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.runtime.predictor import Predictor
from supersimplenet.types import BAD, Sample, ScoreName
from supersimplenet.utils.formatting import counted

Floats = NDArray[np.float64]
_CONFIDENCE = 0.95  # of the interval of expected escapes


@dataclass(frozen=True, kw_only=True)
class BadScore:
    """A bad image and what a model made of it that was not trained on its part.

    Attributes:
        sample: the image.
        logit: its score.
        fold: the fold whose model gave the score; None for the model itself.
    """

    sample: Sample
    logit: float
    fold: int | None


@dataclass(frozen=True, kw_only=True)
class FoldScores:
    """Scores of the training images, each by the model of its fold, which was trained without that fold's parts.

    Attributes:
        folds: number of folds.
        steps: number of training steps of each model.
        good_logits: (parts,) highest score of each good part; empty where good parts were not scored.
        good_levels: (parts,) lowest pixel threshold at which no defect of it is listed; likewise.
        images: number of photographs of these parts.
        bad: the bad images.
        held_out_logits: for each fold what its model made of the held-out good parts: (parts,), highest score of each.
    """

    folds: int
    steps: int
    good_logits: Floats
    good_levels: Floats
    images: int
    bad: Sequence[BadScore]
    held_out_logits: Sequence[Floats]

    def split_thresholds(self, *, max_false_alarms: float, confidence: float) -> list[float]:
        """Return the threshold that the held-out parts set for the model of each fold, as for the model itself."""
        return [
            false_alarm_threshold(
                scores,
                max_false_alarms=max(max_false_alarms, guaranteed_rate(scores.size, confidence)),
                confidence=confidence,
            )
            for scores in self.held_out_logits
        ]


def folds_rate(parts: int, config: ThresholdConfig) -> float:
    """Return the rate of `cross_threshold`: ``max_false_alarms``, or more if lenient and the parts are few.

    Args:
        parts: number of good parts in all folds together.
        config: the rate that is asked for.
    """
    return max(config.max_false_alarms, 1 / (parts + 1) if config.lenient else 0.0)


def cross_calibrated(split: Calibrated, folds: FoldScores, config: ThresholdConfig) -> Calibrated:
    """Set the thresholds by the scores of all folds; the parts at hand, which no model was trained on, check them.

    The threshold is fixed before these parts are predicted, so the number of them that it calls bad bounds the rate of
    false alarms with the confidence asked: that is what is signed. What the folds guarantee is marginal, and is not.

    Args:
        split: the calibration by the parts at hand.
        folds: the scores of the folds.
        config: the rate, see `folds_rate`.

    Raises:
        CalibrationError: too few parts in all folds together, or costs or a limit of escapes are asked for.
    """
    if config.costs is not None or config.max_escapes is not None:
        option = "costs" if config.costs is not None else "max_escapes"
        raise CalibrationError(
            f"{option}: models of folds set one threshold, by false alarms; leave out one of the two"
        )
    rate = folds_rate(folds.good_logits.size, config)
    threshold = cross_threshold(folds.good_logits, false_alarms=rate)
    wrong = int((split.good_logits >= threshold).sum())
    escapes = int((split.bad_logits < threshold).sum())
    bad_parts = split.bad_logits.size
    calibration = replace(
        split.calibration,
        threshold_logit=threshold,
        accept_logit=None,
        pixel_logit=above_level(cross_threshold(folds.good_levels, false_alarms=rate)),
        max_false_alarms=rate_upper_bound(wrong, split.good_logits.size, config.confidence),
        max_escapes=rate_upper_bound(escapes, bad_parts, config.confidence) if bad_parts else None,
        part_logits=tuple(sorted(folds.good_logits.tolist())),
        images=folds.images,
        escapes=escapes,
        cross=CrossCalibration(
            folds=folds.folds,
            steps=folds.steps,
            false_alarms=rate,
            proven=cross_bound(folds.good_logits.size, folds.folds, false_alarms=rate),
            checked_parts=split.good_logits.size,
            checked_false_alarms=wrong,
        ),
    )
    return replace(
        with_expected_escapes(replace(split, calibration=calibration), folds=folds),
        split=with_expected_escapes(split, folds=folds).calibration,
    )


def with_expected_escapes(
    calibrated: Calibrated, *, folds: FoldScores | None = None, others: Sequence[BadScore] = ()
) -> Calibrated:
    """Return the calibration with the escapes that its threshold will cost.

    Each bad part counts once. It is scored by the model itself where that was not trained on it, else by the model of
    its fold. Where the threshold is that of the parts at hand, a fold's model has a threshold of its own, set by the
    same parts and the same rule; a threshold of all folds is the same for all.

    Args:
        calibrated: the calibration.
        folds: scores of bad parts that the model was trained on.
        others: further bad images that the model was not trained on, and their scores.
    """
    calibration = calibrated.calibration
    accept = calibration.threshold_logit if calibration.accept_logit is None else calibration.accept_logit
    images = calibrated.images
    own = [] if images is None else bad_scores(images, calibration.image_score, fold=None)
    own += others
    of_folds = [] if folds is None else [replace(bad, sample=_of_training(bad.sample)) for bad in folds.bad]
    thresholds: list[float] = []
    if folds is not None and calibration.cross is None and of_folds:
        thresholds = folds.split_thresholds(
            max_false_alarms=calibration.max_false_alarms, confidence=calibration.confidence
        )
    escaped = [
        bad.logit < (thresholds[bad.fold] if thresholds and bad.fold is not None else accept) for bad in of_folds
    ]
    if not own and not of_folds:
        return calibrated
    basis = []
    if own:
        basis.append(f"{counted(_parts(own), 'bad part')} that the model was not trained on")
    if folds is not None and of_folds:
        length = f" of {counted(folds.steps, 'step')}" if folds.steps else ""
        basis.append(
            f"{counted(_parts(of_folds), 'bad part')} of the training, each by one of {folds.folds} models{length} "
            "that was not trained on it"
        )
    expected = count_escapes(
        [bad.sample for bad in (*own, *of_folds)],
        [*(bad.logit < accept for bad in own), *escaped],
        basis="; ".join(basis),
    )
    return replace(calibrated, calibration=replace(calibration, expected_escapes=expected))


def score_unseen_bad(
    detector: Predictor,
    samples: Sequence[Sample],
    trained: Collection[Path],
    *,
    image_score: ScoreName,
    on_error: OnError,
) -> list[BadScore]:
    """Score the bad training images that a model was not trained on, nor on a part of theirs: they tell escapes.

    Args:
        detector: the model.
        samples: samples of the dataset of the training; those of the test split are passed over.
        trained: the images of them that the training used or held out.
        image_score: the score that decides.
        on_error: whether an unreadable image stops or is passed over.
    """
    known = {sample.group for sample in samples if sample.image in trained and sample.group is not None}
    unseen = [
        sample
        for sample in samples
        if sample.split == "train" and sample.label == BAD and sample.image not in trained and sample.group not in known
    ]
    scored = score_images(detector, unseen, on_error=on_error)
    return [replace(bad, sample=_of_training(bad.sample)) for bad in bad_scores(scored, image_score, fold=None)]


def bad_scores(scored: ScoredImages, image_score: ScoreName, *, fold: int | None) -> list[BadScore]:
    """Return the bad images among some that were scored, by the model of a fold or (None) by the model itself."""
    return [
        BadScore(sample=sample, logit=scored.scores[place][image_score], fold=fold)
        for place, sample in zip(scored.places(BAD), scored.merged(BAD), strict=True)
    ]


def count_escapes(
    samples: Sequence[Sample], escaped: Sequence[bool], *, basis: str, noun: str = BAD_PART
) -> ExpectedEscapes:
    """Count the bad parts that escape, of all types of defect and of each; a part escapes by any of its photographs.

    Args:
        samples: bad images; those of one group are one part.
        escaped: whether each is called good.
        basis: which bad parts these are, in words.
        noun: what one of them is called.
    """
    parts = part_numbers([sample.group for sample in samples]).tolist()
    types = sorted({sample.defect for sample in samples})

    def count(chosen: Iterable[int]) -> EscapeCount:
        worst: dict[int, bool] = {}
        for place in chosen:
            worst[parts[place]] = worst.get(parts[place], False) or bool(escaped[place])
        low, high = rate_interval(sum(worst.values()), len(worst), _CONFIDENCE)
        return EscapeCount(parts=len(worst), escapes=sum(worst.values()), low=low, high=high, noun=noun)

    every = range(len(samples))
    return ExpectedEscapes(
        every=count(every),
        types={name: count(place for place in every if samples[place].defect == name) for name in types},
        basis=basis,
    )


def _of_training(sample: Sample) -> Sample:
    """Return the sample with a name of its part that no part given by the user has."""
    return sample if sample.group is None else replace(sample, group=f"training: {sample.group}")


def _parts(bad: Sequence[BadScore]) -> int:
    return len(set(part_numbers([score.sample.group for score in bad]).tolist()))
