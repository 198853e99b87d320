"""Metrics of detection and localisation over all thresholds, in plain numpy.

Scores may be on any monotone scale (logits here), higher is worse; equal scores share one threshold. Every metric is
computed from a `Ranking`. From a ranking of the scores themselves it is exact; from a ranking of their bins
(`supersimplenet.metrics.pixels`) it comes with a bound on what the bins may have changed. A metric that is not defined
for its input raises MetricError with the reason instead of returning a number that means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import digamma

from supersimplenet.errors import MetricError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike, NDArray

    from supersimplenet.metrics.bootstrap import Interval

    Floats = NDArray[np.float64]

# As in published results: the share of normal pixels up to which the per-region overlap is integrated.
MAX_FALSE_POSITIVE_RATE = 0.3


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric's value, or the reason why it has none.

    Attributes:
        value: in [0, 1], None where the metric is not defined.
        reason: why there is no value, None where there is one.
        error_bound: how far the value may be from the exact one; 0 where it is exact up to rounding.
        interval: in which the metric of all parts of this kind is expected; None where it was not estimated, or says
            nothing.
        no_interval: why an interval says nothing; None where it says something or was not estimated.
    """

    value: float | None
    reason: str | None = None
    error_bound: float = 0.0
    interval: Interval | None = None
    no_interval: str | None = None

    def with_interval(self, interval: Interval | None, reason: str = "") -> Metric:
        """Return the metric with an interval, or with the reason why there is none."""
        if self.value is None:
            return self
        if interval is not None and interval.degenerate:
            interval, reason = None, "every bootstrap sample gives the same value"
        return replace(self, interval=interval, no_interval=reason if interval is None else None)

    def certainty(self) -> str:
        """Return the interval, the reason why there is none, or what is exact, in words; empty where it has neither."""
        if self.interval is not None:
            return f"{self.interval.low:.3f} to {self.interval.high:.3f}"
        if self.no_interval is not None:
            return f"not defined: {self.no_interval}"
        return f"exact to {self.error_bound:.1e}" if self.error_bound else ""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The input of every curve here: the K levels at which there is a bad item, falling, and the counts around them.

    An item is an image or a pixel. Thresholds between two of these levels change only the false positives, so nothing
    is lost, and only the scores of good items (nearly all pixels) need sorting, without their indices.

    Attributes:
        bad_at: (K,) int64, bad items at exactly this level.
        weight_at: (K,) float64, the sum of their weights; all weights together sum to 1.
        good_above: (K,) int64, good items at higher levels.
        good_from: (K,) int64, good items at this level or a higher one.
        good_total: number of good items.
        binned: whether a level is a bin, in which the order of scores is not known, and not a single score.
    """

    bad_at: NDArray[np.int64]
    weight_at: Floats
    good_above: NDArray[np.int64]
    good_from: NDArray[np.int64]
    good_total: int
    binned: bool = False


def auroc(score: ArrayLike, label: ArrayLike) -> float:
    """Compute the area under the receiver operating characteristic: how often bad scores above good, ties count half.

    Args:
        score: floats of any shape, any monotone scale, higher is worse.
        label: same shape, bool or 0 and 1, 1 is bad.

    Returns:
        float64 in [0, 1].

    Raises:
        MetricError: empty, one class only, a score that is not a number, or shapes that differ.
    """
    return _of_scores(ranked_auroc, score, label)


def average_precision(score: ArrayLike, label: ArrayLike) -> float:
    """Compute precision averaged over recall, in steps and not interpolated.

    This is the sum of (R_n - R_(n-1)) P_n over the thresholds.

    Args:
        score: floats of any shape, any monotone scale, higher is worse.
        label: same shape, bool or 0 and 1, 1 is bad.

    Returns:
        float64 in (0, 1].

    Raises:
        MetricError: empty, one class only, a score that is not a number, or shapes that differ.

    Source: the definition of scikit-learn's ``average_precision_score``. Differs: not defined, instead of 0 or 1, where
    there is one class only.
    """
    return _of_scores(ranked_average_precision, score, label)


def f1_max(score: ArrayLike, label: ArrayLike) -> float:
    """Compute the largest harmonic mean of precision and recall that any threshold gives.

    Args:
        score: floats of any shape, any monotone scale, higher is worse.
        label: same shape, bool or 0 and 1, 1 is bad.

    Returns:
        float64 in (0, 1].

    Raises:
        MetricError: empty, one class only, a score that is not a number, or shapes that differ.
    """
    return _of_scores(ranked_f1_max, score, label)


def rank(score: ArrayLike, label: ArrayLike) -> Ranking:
    """Rank scores of any shape with their labels, exactly; each bad item has the same weight.

    Raises:
        MetricError: empty, one class only, a score that is not a number, or shapes that differ.
    """
    scores, is_bad = _checked(score, label)
    bad, good = scores[is_bad], np.sort(scores[~is_bad])
    require_both(bad.size, good.size)
    value, count = np.unique(bad, return_counts=True)
    return Ranking(
        bad_at=count[::-1].astype(np.int64),
        weight_at=count[::-1] / bad.size,
        good_above=(good.size - np.searchsorted(good, value, side="right"))[::-1].astype(np.int64),
        good_from=(good.size - np.searchsorted(good, value, side="left"))[::-1].astype(np.int64),
        good_total=good.size,
    )


def require_both(bad: int, good: int) -> None:
    """Check that there is at least one bad and one good item to rank.

    Raises:
        MetricError: nothing, or one class only.
    """
    if bad == 0 and good == 0:
        raise MetricError("nothing to rank: no image, or none with pixel labels")
    if bad == 0 or good == 0:
        raise MetricError(f"one class only: {bad:,} bad and {good:,} good; wanted at least one of each")


def measure(
    metrics: Mapping[str, Callable[[Ranking], Metric]], make_ranking: Callable[[], Ranking]
) -> dict[str, Metric]:
    """Compute metrics that share one ranking; without a ranking no metric is defined, and each gives the reason."""
    try:
        ranking = make_ranking()
    except MetricError as error:
        return {name: Metric(value=None, reason=str(error)) for name in metrics}
    return {name: metric(ranking) for name, metric in metrics.items()}


def ranked_auroc(ranking: Ranking) -> Metric:
    """Compute `auroc` of a ranking. The order within a bin is unknown: this affects at most half of the bin's pairs."""
    # Twice the pairs in which the bad item scores higher, in whole numbers, so exact up to the one division.
    twice_below = 2 * ranking.good_total - ranking.good_above - ranking.good_from
    pairs = int(ranking.bad_at.sum()) * ranking.good_total
    value = _whole_product(ranking.bad_at, twice_below) / (2 * pairs)
    together = _whole_product(ranking.bad_at, ranking.good_from - ranking.good_above)
    return Metric(value=value, error_bound=together / (2 * pairs) if ranking.binned else 0.0)


def ranked_average_precision(ranking: Ranking) -> Metric:
    """Compute `average_precision` of a ranking.

    Within a bin, the precision of a bad item is highest where all bad ones tie above all good ones, and lowest where
    they come one by one below them.
    """
    positives = ranking.bad_at.cumsum()
    precision = positives / (positives + ranking.good_from)
    value = float((ranking.bad_at * precision).sum() / positives[-1])
    if not ranking.binned:
        return Metric(value=value)
    highest = (ranking.bad_at * (positives / (positives + ranking.good_above))).sum() / positives[-1]
    # The sum of (a + k) / (a + k + g) over k = 1..n is n - g (H(a + n + g) - H(a + g)), H the harmonic numbers.
    before, good = positives - ranking.bad_at, ranking.good_from.astype(np.float64)
    missed = good * (digamma(positives + good + 1) - digamma(before + good + 1))
    lowest = (ranking.bad_at - missed).sum() / positives[-1]
    return Metric(value=value, error_bound=float(max(highest - value, value - lowest)))


def ranked_f1_max(ranking: Ranking) -> Metric:
    """Compute `f1_max` of a ranking. A bin's edge is a real threshold, so bins can only make the value too low."""
    positives = ranking.bad_at.cumsum()
    value = float((2 * positives / (positives + ranking.good_from + positives[-1])).max())
    highest = float((2 * positives / (positives + ranking.good_above + positives[-1])).max())
    return Metric(value=value, error_bound=highest - value if ranking.binned else 0.0)


def ranked_overlap(ranking: Ranking, *, max_false_positive_rate: float = MAX_FALSE_POSITIVE_RATE) -> Metric:
    """Compute the area under the per-region overlap curve (AUPRO) up to a false-positive rate, divided by that rate.

    The overlap is the share of a defective region's pixels at or above the threshold, averaged over all regions of all
    images, as given by the ranking's weights. The curve is linear between thresholds, also at the limit. Within a bin
    it may run anywhere in the rectangle between the bin's corners.

    Args:
        ranking: of pixels; the weight of each bad pixel is 1 / (pixels of its region x number of regions).
        max_false_positive_rate: share of the normal pixels of all images, in (0, 1].

    Raises:
        MetricError: a limit outside (0, 1].

    Source: Bergmann et al., IJCV 2021, section 5. Differs: none.
    """
    limit = max_false_positive_rate
    if not 0 < limit <= 1:
        raise MetricError(f"max_false_positive_rate: {limit}; wanted above 0 and at most 1")
    rate, overlap = overlap_curve(ranking)
    value = _area(rate, overlap, limit)
    if not ranking.binned:
        return Metric(value=value)
    # Upper and lower edge of each bin's rectangle; between the bins the curve is level, and both follow it.
    upper = _area(rate, np.append(overlap[1:], 1.0), limit, step=True)
    lower = _area(rate, overlap, limit, step=True)
    return Metric(value=value, error_bound=max(upper - value, value - lower))


def overlap_curve(ranking: Ranking) -> tuple[Floats, Floats]:
    """Return the corners of the per-region overlap curve: false-positive rate and overlap, both rising from 0 to 1.

    Each level gives two corners: for the items above it, and for the items at or above it. Between them (ties) the
    curve is oblique.
    """
    covered = np.append(0.0, ranking.weight_at.cumsum())  # (K + 1,), from 0 to 1
    corners = np.stack([ranking.good_above, ranking.good_from], axis=1).ravel()  # (2K,)
    rate = np.concatenate([[0.0], corners / ranking.good_total, [1.0]])
    return rate, np.repeat(covered, 2)  # (2K + 2,), both


def _area(rate: Floats, height: Floats, limit: float, *, step: bool = False) -> float:
    """Compute the area below a curve up to a limit, divided by the limit.

    With ``step``, each height holds until the next rate.
    """
    end = int(np.searchsorted(rate, limit, side="right"))  # at least 1: the first rate is 0
    if end < rate.size:
        ahead = (limit - rate[end - 1]) / (rate[end] - rate[end - 1])
        cut = height[end - 1] + ahead * (height[end] - height[end - 1])
        rate, height = np.append(rate[:end], limit), np.append(height[:end], cut)
    heights = height[:-1] if step else (height[1:] + height[:-1]) / 2
    return float((np.diff(rate) * heights).sum() / limit)


def _whole_product(first: NDArray[np.int64], second: NDArray[np.int64]) -> int:
    """Compute the sum of products of whole numbers, exact beyond 64 bits: there may be 10^11 pixels of either kind."""
    high, low = first >> 20, first & 0xFFFFF
    return (
        (int((high * (second >> 20)).sum()) << 40)
        + ((int((high * (second & 0xFFFFF)).sum()) + int((low * (second >> 20)).sum())) << 20)
        + int((low * (second & 0xFFFFF)).sum())
    )


def _of_scores(metric: Callable[[Ranking], Metric], score: ArrayLike, label: ArrayLike) -> float:
    value = metric(rank(score, label)).value
    assert value is not None
    return value


def _checked(score: ArrayLike, label: ArrayLike) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    scores, labels = np.asarray(score), np.asarray(label)
    if scores.shape != labels.shape:
        raise MetricError(f"shapes differ: scores {scores.shape}, labels {labels.shape}")
    if scores.dtype.kind == "f" and np.isnan(scores).any():
        raise MetricError(f"{int(np.isnan(scores).sum()):,} of {scores.size:,} scores are not a number (NaN)")
    if labels.dtype != np.bool_ and not np.isin(labels, (0, 1)).all():
        raise MetricError("labels other than 0 and 1; wanted 0 for good and 1 for bad")
    return scores, labels.astype(bool, copy=False)
