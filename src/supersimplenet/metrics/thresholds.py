"""Thresholds with a guarantee, and the costs of a threshold: pure functions of scores, no torch.

A score is a logit, any real number, higher is worse. A part is called ``bad`` where its score reaches the threshold
(``>=``). A *false alarm* (overkill) is a good part called bad, an *escape* is a bad part called good. The guarantees
hold for any distribution of scores, also with ties, provided that the given parts and the future parts are drawn
independently from the same distribution. They are about parts: several photographs of one part count as one part.
docs/thresholds.md explains the guarantees in plain words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import stats

from supersimplenet.errors import CalibrationError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

# Relative margin on guaranteed rates, so that a rounding error does not refuse a number of parts that just suffices.
_MARGIN = 1e-12
# Costs that differ by less count as equal: they are sums of two products.
_SAME_COST = 1e-12


def part_scores(scores: ArrayLike, groups: Sequence[str | None], *, worst: Literal["max", "min"] = "max") -> Floats:
    """Return one score for each part, from all photographs of it.

    A good part counts by its highest score: it is a false alarm as soon as one of its photographs is called bad. A bad
    part counts by its lowest score: it escapes as soon as one photograph is called good. So a guarantee about parts
    holds for a production line that takes any one photograph of each part, and for a line that takes as many
    photographs as the calibration did and decides by the worst of them.

    Args:
        scores: (N,) floats, of photographs.
        groups: (N,) the part of each; a photograph with None is a part of its own.
        worst: ``max`` for good parts, ``min`` for bad ones.

    Returns:
        (parts,) float64, in the order in which parts first appear.

    Raises:
        CalibrationError: no score, one that is not finite, or a different number of groups.
    """
    values = checked_scores(scores)
    part = part_numbers(groups)
    if part.shape != values.shape:
        raise CalibrationError(f"{values.size:,} scores, {part.size:,} groups; wanted a group (or None) for each score")
    found = np.full(part.max() + 1, -np.inf if worst == "max" else np.inf)
    (np.maximum if worst == "max" else np.minimum).at(found, part, values)
    return found


def part_numbers(groups: Sequence[str | None]) -> NDArray[np.int64]:
    """Return the number (N,) of each photograph's part, from 0, by first appearance; each None is a part of its own."""
    number: dict[object, int] = {}
    # A name (str) never equals an index (int), so photographs without a name stay apart.
    keys: list[str | int] = [place if group is None else group for place, group in enumerate(groups)]
    return np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int64)


def false_alarm_threshold(scores: ArrayLike, *, max_false_alarms: float, confidence: float) -> float:
    """Compute the lowest threshold at which at most ``max_false_alarms`` of good parts are called bad.

    This holds with ``confidence``. The threshold lies just above the r-th lowest score X_(r), where r is the smallest
    number with P(Bin(n, 1 - max_false_alarms) < r) at least ``confidence``. It lies just above because a part that
    scores exactly the threshold is bad; parts that score X_(r) are then good. Compare the threshold with scores in
    float64: in float32 it is X_(r) again.

    Args:
        scores: (n,) floats, one for each good part, not trained on.
        max_false_alarms: the false-alarm rate not to be exceeded, in (0, 1).
        confidence: over the draw of the n parts, in (0, 1).

    Returns:
        A logit.

    Raises:
        CalibrationError: too few parts, or a score that is not finite.
        ConfigError: a rate or confidence outside (0, 1).

    Source: Wilks, Annals of Mathematical Statistics 12, 1941 (one-sided tolerance limit). Differs: none.
    """
    values = np.sort(checked_scores(scores))
    rank = _rank(values.size, "max_false_alarms", max_false_alarms, confidence, "good")
    return float(np.nextafter(values[rank - 1], np.inf))


def escape_threshold(bad_scores: ArrayLike, *, max_escapes: float, confidence: float) -> float:
    """Compute the highest threshold at which at most ``max_escapes`` of bad parts are called good.

    This holds with ``confidence``. It is the mirror image of `false_alarm_threshold`: the threshold is the k-th lowest
    score itself, where k is the largest number with P(Bin(n, max_escapes) >= k) at least ``confidence``. A bad part of
    exactly this score is called bad.

    Args:
        bad_scores: (n,) floats, one for each bad part, not trained on.
        max_escapes: the escape rate not to be exceeded, in (0, 1).
        confidence: over the draw of the n parts, in (0, 1).

    Returns:
        A logit.

    Raises:
        CalibrationError: too few parts, or a score that is not finite.
        ConfigError: a rate or confidence outside (0, 1).
    """
    values = np.sort(checked_scores(bad_scores))
    rank = _rank(values.size, "max_escapes", max_escapes, confidence, "bad")
    return float(values[values.size - rank])


def parts_needed(rate: float, confidence: float) -> int:
    """Return the fewest parts that can guarantee a rate: the lowest n with 1 - (1 - rate)^n >= confidence."""
    _check_open("rate", rate)
    _check_open("confidence", confidence)
    return math.ceil(math.log1p(-confidence) / math.log1p(-rate) * (1 - _MARGIN))


def guaranteed_rate(parts: int, confidence: float) -> float:
    """Return the lowest rate that this many parts can guarantee, with a threshold beyond them all; 1.0 for no part."""
    _check_open("confidence", confidence)
    return 1.0 if parts < 1 else -math.expm1(math.log1p(-confidence) / parts) * (1 + _MARGIN)


def rate_upper_bound(events: int, trials: int, confidence: float) -> float:
    """Return an upper bound of a rate, with this confidence, after ``events`` in ``trials``; 1.0 after no trial.

    It holds for a threshold that was fixed before these trials were seen.

    Raises:
        ConfigError: events outside 0 to ``trials``, or a confidence outside (0, 1).

    Source: Clopper and Pearson, Biometrika 26, 1934, one side.
    """
    if not 0 <= events <= trials:
        raise ConfigError(f"events: {events}; wanted 0 to {trials}, the number of trials")
    return float(rate_upper_bounds(trials, confidence)[events])


def rate_upper_bounds(trials: int, confidence: float) -> Floats:
    """Return `rate_upper_bound` after 0, 1, ... ``trials`` events: (trials + 1,), ascending, the last is 1.0."""
    _check_open("confidence", confidence)
    events = np.arange(trials)
    return np.append(stats.beta.ppf(confidence, events + 1, trials - events), 1.0)


def rate_interval(events: int, trials: int, confidence: float) -> tuple[float, float]:
    """Return an interval that holds a rate with at least this confidence, after ``events`` in ``trials``.

    Source: Clopper and Pearson, Biometrika 26, 1934, both sides.
    """
    one_side = (1 + confidence) / 2
    return 1 - rate_upper_bound(trials - events, trials, one_side), rate_upper_bound(events, trials, one_side)


def uniform_upper_bound(rate: float, trials: int, confidence: float) -> float:
    """Return an upper bound of the rate that holds at every threshold, also at one chosen from the very scores counted.

    Args:
        rate: share of the given parts, in [0, 1].
        trials: number of these parts, at least 1.
        confidence: that the bound holds at all thresholds at once, in [0.5, 1).

    Source: Massart, Annals of Probability 18, 1990: the Dvoretzky-Kiefer-Wolfowitz inequality, one side; it holds from
    confidence 0.5 on.
    """
    if not 0.5 <= confidence < 1:
        raise ConfigError(f"confidence: {confidence:g}; wanted at least 0.5 and below 1")
    if not 0 <= rate <= 1 or trials < 1:
        raise ConfigError(f"rate {rate:g} of {trials} trials; wanted a rate in [0, 1] of at least one trial")
    return min(1.0, rate + math.sqrt(-math.log1p(-confidence) / (2 * trials)))


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Costs of the two wrong verdicts, both in the same unit.

    Attributes:
        false_alarm: of a good part called bad; above 0.
        escape: of a bad part called good; above 0.
    """

    false_alarm: float
    escape: float

    def __post_init__(self) -> None:
        for name, value in (("false-alarm", self.false_alarm), ("escape", self.escape)):
            if not 0 < value < math.inf:
                raise ConfigError(f"costs: {name} is {value:g}; wanted a finite number above 0")


@dataclass(frozen=True, kw_only=True)
class CostCurve:
    """Expected cost per part at each of the K thresholds that separate the given parts differently.

    Attributes:
        threshold_logit: (K,) ascending: the lowest score (all parts are bad), midway between neighbouring scores, and
            just above the highest (all are good).
        false_alarm_rate: (K,) share of the given good parts that are called bad.
        escape_rate: (K,) share of the given bad parts that are called good.
        cost: (K,) per part, in the unit of the costs.
    """

    threshold_logit: Floats
    false_alarm_rate: Floats
    escape_rate: Floats
    cost: Floats

    @property
    def cheapest(self) -> int:
        """Index of the threshold with the lowest cost.

        Of equally cheap neighbours it is the middle one; of two in the middle, the lower. Of several such runs it is
        the longest; of equally long ones, the lowest, which has the fewest escapes.
        """
        cheap = np.append(self.cost <= self.cost.min() * (1 + _SAME_COST), False).astype(np.int8)
        change = np.diff(cheap, prepend=0)
        first, end = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
        longest = int(np.argmax(end - first))
        return int(first[longest] + end[longest] - 1) // 2


def cost_curve(good_scores: ArrayLike, bad_scores: ArrayLike, costs: Costs, *, bad_share: float) -> CostCurve:
    """Compute the expected cost per part at every threshold: (1 - bad_share) FA cost(FA) + bad_share Esc cost(Esc).

    The rates are those of the given parts and guarantee nothing; `uniform_upper_bound` bounds the false-alarm rate at a
    threshold that is chosen here.

    Args:
        good_scores: floats, one for each good part.
        bad_scores: floats, one for each bad part.
        costs: of both mistakes.
        bad_share: share of bad parts in production, in (0, 1); not their share among the given parts.

    Raises:
        CalibrationError: no good or no bad part, or a score that is not finite.
        ConfigError: a share outside (0, 1).
    """
    _check_open("bad_share", bad_share)
    good, bad = np.sort(checked_scores(good_scores, "good ")), np.sort(checked_scores(bad_scores, "bad "))
    distinct = np.unique(np.concatenate([good, bad]))
    below, above = distinct[:-1], distinct[1:]
    # Halved first, so that it cannot overflow. Between adjacent floats it may round down: then the upper one is used.
    between = np.maximum(below / 2 + above / 2, np.nextafter(below, above))
    threshold = np.concatenate([distinct[:1], between, [np.nextafter(distinct[-1], np.inf)]])
    false_alarm_rate = 1 - np.searchsorted(good, threshold) / good.size
    escape_rate = np.searchsorted(bad, threshold) / bad.size
    return CostCurve(
        threshold_logit=threshold,
        false_alarm_rate=false_alarm_rate,
        escape_rate=escape_rate,
        cost=(1 - bad_share) * costs.false_alarm * false_alarm_rate + bad_share * costs.escape * escape_rate,
    )


def false_discovery(p_values: ArrayLike) -> Floats:
    """Adjust p-values for their number: of the parts with values up to q, on average at most a share q is good.

    Use it with `p_values` of distinct parts from one calibration. Those are never below 1 / (n + 1), so among m parts k
    bad ones can be found only if q k / m is at least that.

    Args:
        p_values: (m,) in (0, 1], one for each part.

    Returns:
        (m,) float64 in (0, 1].

    Source: Benjamini and Hochberg, JRSS B 57, 1995; that it holds where all p-values share a calibration set: Bates et
    al., Annals of Statistics 51, 2023, theorem 2.
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.size == 0:
        return values
    return np.asarray(stats.false_discovery_control(values, method="bh"), dtype=np.float64)


def _rank(parts: int, option: str, rate: float, confidence: float, kind: str) -> int:
    """Return the smallest r with P(Bin(parts, 1 - rate) < r) >= confidence, at most ``parts``."""
    _check_open(option, rate)
    needed = parts_needed(rate, confidence)
    if parts < needed:
        raise CalibrationError(
            f"{option}: {parts:,} {kind} parts cannot guarantee at most {rate * 100:.4g} % with "
            f"{confidence * 100:.4g} % confidence; wanted at least {needed:,}; add parts, or ask for "
            f"{_shown(guaranteed_rate(parts, confidence))}, which {parts:,} can guarantee"
        )
    # The quantile is the smallest r - 1. With `needed` parts or more, r = parts suffices, whatever rounding gives.
    return min(int(stats.binom.ppf(confidence, parts, 1 - rate)) + 1, parts)


def _shown(rate: float) -> str:
    """Return a rate in per cent with two digits, rounded up, as a bound must be: 0.1391 is 14 %."""
    unit = 10.0 ** (math.floor(math.log10(rate)) - 1)
    # Reduced by a tiny amount, or the last binary digit of 0.05 would make it 5.1 %.
    return f"{math.ceil(rate / unit - 1e-9) * unit * 100:.4g} %"


def checked_scores(scores: ArrayLike, kind: str = "") -> Floats:
    """Return scores as float64.

    Args:
        scores: (N,) floats.
        kind: of parts, for the message, such as ``good `` with its space.

    Raises:
        CalibrationError: no score, or one that is not finite.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or values.size == 0:
        raise CalibrationError(f"{kind}scores of shape {values.shape}; wanted one for each part, of at least one part")
    if not np.isfinite(values).all():
        raise CalibrationError(f"{int((~np.isfinite(values)).sum()):,} of {values.size:,} {kind}scores are not finite")
    return values


def _check_open(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ConfigError(f"{name}: {value:g}; wanted above 0 and below 1")
