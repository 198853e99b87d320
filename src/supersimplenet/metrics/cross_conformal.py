"""The threshold of a cross-calibration, and what it guarantees: pure functions of scores, no torch.

K models are trained, each without one fold of the good parts, and each gives the scores of its own fold; so every good
part calibrates, and none by a model that knows it. docs/decisions/0026-few-parts.md derives the bound.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from supersimplenet.errors import CalibrationError, ConfigError
from supersimplenet.metrics.thresholds import checked_scores

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

# Relative margin, so that a rounding error does not refuse a number of parts that just suffices.
_MARGIN = 1e-12


def cross_threshold(scores: ArrayLike, *, false_alarms: float) -> float:
    """Compute the lowest threshold at which a part scored like these is called bad with at most this probability.

    It lies just above the r-th lowest of the n scores, r = ceil((1 - false_alarms) (n + 1)): a part is bad where its
    p-value, (1 + number of scores at or above its own) / (n + 1), is at most ``false_alarms``.

    Args:
        scores: (n,) floats, one for each good part, by a model that was trained without it.
        false_alarms: the probability, in (0, 1); `cross_bound` says what is proven.

    Returns:
        A logit.

    Raises:
        CalibrationError: too few parts, or a score that is not finite.
        ConfigError: a rate outside (0, 1).

    Source: Barber, Candes, Ramdas, Tibshirani, Annals of Statistics 49, 2021, section 2.2 (the quantile of CV+).
    Differs: one side, and a finished model's score in place of the models of the folds.
    """
    values = np.sort(checked_scores(scores))
    if not 0 < false_alarms < 1:
        raise ConfigError(f"max_false_alarms: {false_alarms:g}; wanted above 0 and below 1")
    rank = math.ceil((1 - false_alarms) * (values.size + 1) * (1 - _MARGIN))
    if rank > values.size:
        needed = math.ceil(1 / false_alarms * (1 - _MARGIN)) - 1
        raise CalibrationError(
            f"max_false_alarms: {values.size:,} good parts in all folds cannot hold {false_alarms * 100:.4g} % even on "
            f"average; wanted at least {needed:,}; add parts, or ask for {100 / (values.size + 1):.3g} % or more"
        )
    return float(np.nextafter(values[rank - 1], np.inf))


def cross_bound(parts: int, folds: int, *, false_alarms: float) -> float:
    """Return what is proven of a cross-calibration, whatever the training does, on average over calibrations.

    A good part that is scored by the models of all folds, and is bad where its scores exceed those of too many parts
    (each compared by the model of that part's fold), is called bad with at most this probability. Nothing like it is
    proven for one model that was trained on all folds.

    Args:
        parts: number of good parts in all folds together.
        folds: number of folds, 2 to ``parts``.
        false_alarms: the probability for which `cross_threshold` was computed.

    Returns:
        A probability in (0, 1]: twice ``false_alarms`` for folds of one part (jackknife+), more for larger ones.

    Source: Vovk and Wang, Biometrika 107, 2020 (means of p-values), for folds of any size; Barber et al. 2021,
    theorem 4, where all folds are equally large. Differs: none.
    """
    if not 2 <= folds <= parts:
        raise ConfigError(f"folds: {folds}; wanted 2 to {parts}, the number of good parts")
    bounds = [2 * (false_alarms * (parts + 1) + folds - 1) / (parts + folds)]
    if parts % folds == 0:
        bounds.append(2 * false_alarms + (1 - folds / parts) / (folds + 1))
    return min(1.0, *bounds)
