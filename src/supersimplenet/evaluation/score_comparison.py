"""Compare the image scores, so that a person can choose the one that decides; see docs/thresholds.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from supersimplenet.evaluation.config import ThresholdConfig
from supersimplenet.evaluation.scored_parts import PartScores
from supersimplenet.evaluation.set_thresholds import choose_thresholds
from supersimplenet.metrics.ranking import rank, ranked_auroc
from supersimplenet.postprocessing.calibration import BAD_PART
from supersimplenet.types import BAD, GOOD, ScoreName


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """What one score would give, if it decided.

    Attributes:
        score: name of the score.
        threshold_logit: the threshold that the parts that calibrate set.
        max_false_alarms: the false-alarm rate that this threshold guarantees.
        auroc: AUROC of the bad parts against the good parts compared, each part by its worst photograph; None where
            there is no bad part.
        escapes: bad parts that would be called good at the threshold that the good parts compared would set; likewise.
        unsure: bad parts that would be unsure there; likewise.
    """

    score: ScoreName
    threshold_logit: float
    max_false_alarms: float
    auroc: float | None = None
    escapes: int | None = None
    unsure: int | None = None


@dataclass(frozen=True, kw_only=True)
class ScoreComparison:
    """All scores side by side.

    Attributes:
        rows: one for each score that the model gives.
        good_parts: number of good parts compared; 0 where there is no bad part, and nothing is compared.
        bad_parts: number of bad parts compared.
        bad_noun: what one of them is called.
        why_calibrating: why the good parts compared are those that calibrate, so that a choice by these figures weakens
            the guarantee on good parts; None where they are others.
        confidence: of each guarantee, for a score that was chosen without these figures.
    """

    rows: tuple[ScoreRow, ...]
    good_parts: int
    bad_parts: int
    why_calibrating: str | None
    confidence: float
    bad_noun: str = BAD_PART

    @property
    def confidence_after_choice(self) -> float:
        """Confidence of a guarantee whose own parts were compared, after a choice among these scores in any way.

        Each score's guarantee fails with probability 1 - confidence at most, so one of k fails with at most k times
        that (the union bound), and the chosen one is one of them.
        """
        return max(0.0, 1 - len(self.rows) * (1 - self.confidence))

    @property
    def confidence_to_ask(self) -> float:
        """Confidence to calibrate with, so that the one of `confidence` is left after such a choice."""
        return 1 - (1 - self.confidence) / len(self.rows)


def compare_scores(
    scores: Mapping[ScoreName, PartScores],
    others: Mapping[ScoreName, PartScores] | None,
    config: ThresholdConfig,
    *,
    why_calibrating: str | None = None,
    bad_noun: str = BAD_PART,
) -> ScoreComparison:
    """Return what each score would give.

    Args:
        scores: scores of the parts that calibrate, and of bad parts.
        others: scores of other good parts, that the bad parts are compared with; None to compare those that calibrate.
        config: the guarantees that the thresholds must give.
        why_calibrating: see `ScoreComparison`.
        bad_noun: likewise.

    Raises:
        CalibrationError: there are too few parts for the guarantees.
    """
    rows = []
    good_parts = bad_parts = 0
    for name, own in scores.items():
        thresholds, _ = choose_thresholds(own, config)
        row = ScoreRow(score=name, threshold_logit=thresholds.reject, max_false_alarms=thresholds.max_false_alarms)
        if own.bad.size:
            compared = PartScores(good=own.good if others is None else others[name].good, bad=own.bad)
            good_parts, bad_parts = compared.good.size, compared.bad.size
            row = _compared(row, compared, config)
        rows.append(row)
    return ScoreComparison(
        rows=tuple(rows),
        good_parts=good_parts,
        bad_parts=bad_parts,
        bad_noun=bad_noun,
        why_calibrating=why_calibrating,
        confidence=config.confidence,
    )


def _compared(row: ScoreRow, parts: PartScores, config: ThresholdConfig) -> ScoreRow:
    there, _ = choose_thresholds(parts, replace(config, lenient=True))  # the others may be fewer, and guarantee nothing
    labels = [GOOD] * parts.good.size + [BAD] * parts.bad.size
    auroc = ranked_auroc(rank(np.concatenate([parts.good, parts.bad]), labels)).value
    rejected = int((parts.bad >= there.reject).sum())
    return replace(row, auroc=auroc, escapes=there.escapes, unsure=parts.bad.size - there.escapes - rejected)
