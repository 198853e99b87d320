"""Uncertainty of measured metrics: bootstrap intervals over parts, exact intervals and tests of counts.

The bootstrap draws parts, not photographs: photographs of one part are alike, and drawing them one by one would make
the intervals too narrow. Plain numpy; no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from supersimplenet.errors import MetricError
from supersimplenet.metrics.thresholds import part_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Counts = NDArray[np.int64]

STATISTICS = ("I-AUROC", "AP-det", "I-F1-max")
_MEMORY_BYTES = 64 << 20
_ARRAYS = 12  # most arrays that a block of replicates holds at once, each of 8 bytes for each image and replicate
_FEWEST_LEFT = 0.5  # share of the replicates that must hold both classes


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Interval in which the metric of other parts like these is expected.

    Attributes:
        low: lower end.
        high: upper end.
        confidence: nominal; with few parts, a percentile interval covers somewhat less.
        replicates: number of resamples it is based on, without those that hold one class only.
        degenerate: whether all resamples give the same value, as they do where good and bad are separated without a
            mistake: the interval then has no width and does not show how certain the value is.
    """

    low: float
    high: float
    confidence: float
    replicates: int
    degenerate: bool


def detection_statistics(scores: ArrayLike, labels: ArrayLike, counts: ArrayLike) -> dict[str, Floats]:
    """Compute I-AUROC, AP-det and I-F1-max of R resamples of N images at once.

    ``I-F1-max`` is the largest F1 (harmonic mean of precision and recall) over all thresholds.

    Args:
        scores: (N,) floats, any monotone scale, higher is worse; equal scores share one threshold.
        labels: (N,) bool or 0 and 1, 1 is bad.
        counts: (R, N) whole numbers, how often each image is in each resample.

    Returns:
        (R,) float64 for each name of `STATISTICS`, NaN where a resample holds one class only.

    Raises:
        MetricError: shapes that differ, a score that is not a number, or labels other than 0 and 1.
    """
    values, is_bad = _checked(scores, labels)
    weights = np.asarray(counts, dtype=np.int64)
    if weights.ndim != 2 or weights.shape[1] != values.size:
        raise MetricError(f"shapes differ: counts {weights.shape}, scores {values.shape}; wanted (R, N) and (N,)")
    order, ends = _falling(values)
    return _statistics(weights[:, order], is_bad[order], ends)


def bootstrap_intervals(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[str | None],
    *,
    confidence: float = 0.95,
    replicates: int = 2000,
    generator: np.random.Generator,
) -> dict[str, Interval]:
    """Compute percentile bootstrap intervals of I-AUROC, AP-det and I-F1-max over parts.

    Args:
        scores: (N,) floats, any monotone scale, higher is worse.
        labels: (N,) bool or 0 and 1, 1 is bad.
        groups: (N,) the part that each image shows; an image with None is a part of its own.
        confidence: of each interval, in (0, 1).
        replicates: number of resamples of the parts.
        generator: random source of the resamples.

    Returns:
        An interval for each name of `STATISTICS`. Memory stays below about 64 MB, or what a single resample needs.

    Raises:
        MetricError: one class only, in the images or in more than half of the resamples; shapes that differ; a score
            that is not a number; a confidence outside (0, 1).

    Source: Efron and Tibshirani: An Introduction to the Bootstrap, 1993, section 13.3; parts as clusters: Davison and
    Hinkley: Bootstrap Methods and their Application, 1997, section 3.8.
    """
    values, is_bad = _checked(scores, labels)
    drawn = _resampled([values], is_bad, groups, replicates, generator)[0]
    return {name: percentiles(drawn[name], confidence) for name in STATISTICS}


def paired_differences(
    first_scores: ArrayLike,
    second_scores: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[str | None],
    *,
    confidence: float = 0.95,
    replicates: int = 2000,
    generator: np.random.Generator,
) -> dict[str, Interval]:
    """Compute intervals of the first model's metrics minus the second's, on the same images.

    Both models get the same resamples, so that the common difficulty of a resample cancels out. An interval that
    holds 0 leaves open which model is better.

    Args:
        first_scores: (N,) floats of one model.
        second_scores: (N,) floats of the other; its scale may differ.
        labels: as for `bootstrap_intervals`, like all arguments that follow.
        groups: the part that each image shows.
        confidence: of each interval.
        replicates: number of resamples of the parts.
        generator: random source of the resamples.

    Returns:
        An interval for each name of `STATISTICS`, in [-1, 1]; degenerate where every resample has the same difference.

    Raises:
        MetricError: as for `bootstrap_intervals`.
    """
    first, is_bad = _checked(first_scores, labels)
    second, _ = _checked(second_scores, labels)
    drawn, against = _resampled([first, second], is_bad, groups, replicates, generator)
    return {name: percentiles(drawn[name] - against[name], confidence) for name in STATISTICS}


def mcnemar(only_first: int, only_second: int) -> float:
    """Compute the two-sided p-value of the hypothesis that two verdicts on the same parts are right equally often.

    The test is exact: parts that both verdicts get right, or both get wrong, carry no information; each of the other
    parts favours either verdict with probability one half.

    Args:
        only_first: number of parts that only the first verdict gets right.
        only_second: number of parts that only the second gets right.

    Returns:
        In (0, 1]; 1.0 where there are no such parts.

    Source: McNemar, Psychometrika 12, 1947, in its exact form.
    """
    if min(only_first, only_second) < 0:
        raise MetricError(f"only_first {only_first}, only_second {only_second}; wanted counts, 0 or more")
    disagree = only_first + only_second
    return float(stats.binomtest(only_first, disagree, 0.5).pvalue) if disagree else 1.0


def proportion_interval(events: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return both ends of the interval of a rate after this many events in this many trials; (0, 1) after no trial.

    Source: Clopper and Pearson, Biometrika 26, 1934: exact, so it covers at least ``confidence``, often more.
    """
    _check_confidence(confidence)
    if not 0 <= events <= trials:
        raise MetricError(f"events: {events}; wanted 0 to {trials}, the number of trials")
    if trials == 0:
        return 0.0, 1.0
    interval = stats.binomtest(events, trials).proportion_ci(confidence, method="exact")
    return float(interval.low), float(interval.high)


def _resampled(
    models: Sequence[Floats],
    is_bad: NDArray[np.bool_],
    groups: Sequence[str | None],
    replicates: int,
    generator: np.random.Generator,
) -> list[dict[str, Floats]]:
    """Compute the statistics of each model's scores over the same resamples, without those that hold one class only."""
    if is_bad.all() or not is_bad.any():
        raise MetricError(f"one class only among {is_bad.size:,} images; wanted good and bad ones")
    part = part_numbers(groups)
    if part.shape != is_bad.shape:
        raise MetricError(f"{part.size:,} groups of {is_bad.size:,} images; wanted one (or None) for each")
    if replicates < 1:
        raise MetricError(f"replicates: {replicates}; wanted at least 1")
    sorted_once = [(part[order], is_bad[order], ends) for order, ends in map(_falling, models)]
    found: list[dict[str, list[Floats]]] = [{name: [] for name in STATISTICS} for _ in models]
    for counts in _draws(int(part.max()) + 1, part.size, replicates, generator):
        for (part_in_order, bad_in_order, ends), blocks in zip(sorted_once, found, strict=True):
            for name, block in _statistics(counts[:, part_in_order], bad_in_order, ends).items():
                blocks[name].append(block)
    drawn = [{name: np.concatenate(blocks[name]) for name in STATISTICS} for blocks in found]
    kept = np.isfinite(drawn[0]["I-AUROC"])  # whether both classes are there is the same for every model
    if kept.sum() < _FEWEST_LEFT * replicates:
        parts = [len(np.unique(part[of_class])) for of_class in (~is_bad, is_bad)]
        raise MetricError(
            f"{int((~kept).sum()):,} of {replicates:,} resamples hold one class only: the images show {parts[0]:,} "
            f"good and {parts[1]:,} bad parts; wanted more parts of either kind"
        )
    return [{name: values[kept] for name, values in of_model.items()} for of_model in drawn]


def _draws(parts: int, images: int, replicates: int, generator: np.random.Generator) -> Iterator[Counts]:
    """Yield how often each part is in each resample, (block, parts), as many resamples at once as memory allows."""
    block = max(1, _MEMORY_BYTES // (8 * _ARRAYS * images))
    for start in range(0, replicates, block):
        yield generator.multinomial(parts, np.full(parts, 1 / parts), size=min(block, replicates - start))


def _falling(scores: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the order of falling scores and, in that order, the index of the last of each run of equal ones."""
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    return order, ends


def _statistics(counts: Counts, is_bad: NDArray[np.bool_], ends: NDArray[np.intp]) -> dict[str, Floats]:
    """Compute the statistics of (R, N) counts and (N,) labels, both ordered by falling score.

    ``ends`` (K,) are the thresholds. Counts are whole numbers throughout.
    """
    from_bad = np.cumsum(counts * is_bad, axis=1)[:, ends]  # (R, K): bad ones at or above each threshold
    from_good = np.cumsum(counts, axis=1)[:, ends] - from_bad
    bad, good = from_bad[:, -1:], from_good[:, -1:]  # (R, 1)
    bad_at, good_at = np.diff(from_bad, axis=1, prepend=0), np.diff(from_good, axis=1, prepend=0)
    called_bad = np.maximum(from_bad + from_good, 1)  # where nothing is called bad yet, the numerators below are 0
    with np.errstate(invalid="ignore"):  # 0 / 0 where one class is missing: NaN, as documented
        # Twice the pairs in which the bad image scores higher, plus the pairs in which both scores are equal.
        area = (good_at * (2 * from_bad - bad_at)).sum(axis=1) / (2 * bad * good)[:, 0]
        precision = (bad_at * (from_bad / called_bad)).sum(axis=1) / bad[:, 0]
    one_class = (bad * good == 0)[:, 0]
    f1 = (2 * from_bad / np.maximum(from_bad + from_good + bad, 1)).max(axis=1)
    return {
        "I-AUROC": area,
        "AP-det": np.where(one_class, np.nan, precision),
        "I-F1-max": np.where(one_class, np.nan, f1),
    }


def percentiles(values: Floats, confidence: float) -> Interval:
    """Return the percentile interval of a metric's values in resamples."""
    _check_confidence(confidence)
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(
        low=float(low),
        high=float(high),
        confidence=confidence,
        replicates=values.size,
        degenerate=bool(values.min() == values.max()),
    )


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    values, is_bad = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if values.ndim != 1 or values.shape != is_bad.shape or values.size == 0:
        raise MetricError(f"scores {values.shape}, labels {is_bad.shape}; wanted one of each for each image")
    if np.isnan(values).any():
        raise MetricError(f"{int(np.isnan(values).sum()):,} of {values.size:,} scores are not a number (NaN)")
    if is_bad.dtype != np.bool_ and not np.isin(is_bad, (0, 1)).all():
        raise MetricError("labels other than 0 and 1; wanted 0 for good and 1 for bad")
    return values, is_bad.astype(np.bool_, copy=False)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise MetricError(f"confidence: {confidence:g}; wanted above 0 and below 1")
