"""Rates of a line from the parts that people inspected again, where these were drawn with known shares. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from supersimplenet.errors import MetricError


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """Parts among which some were drawn by chance and inspected by people.

    Attributes:
        parts: number of all of them.
        drawn: number of those that were drawn and inspected.
        events: number of drawn parts that are what is counted, such as bad parts that were called good.
    """

    parts: int
    drawn: int
    events: int

    def __post_init__(self) -> None:
        if not 0 <= self.events <= self.drawn <= self.parts:
            raise MetricError(
                f"stratum: {self.events} events, {self.drawn} drawn, {self.parts} parts; wanted events at most drawn, "
                "drawn at most parts"
            )

    @property
    def weight(self) -> float:
        """Number of parts for which each drawn one stands."""
        return self.parts / self.drawn


@dataclass(frozen=True, kw_only=True)
class SampledRate:
    """An estimated rate.

    Attributes:
        rate: the estimate, 0 to 1.
        low: lower end of its interval.
        high: its upper end; parts of a stratum of which none was drawn count as events there: nothing is known of them.
        parts: number of all parts.
        drawn: number of those that were drawn and inspected.
        events: number of drawn parts that are what is counted.
    """

    rate: float
    low: float
    high: float
    parts: int
    drawn: int
    events: int


def sampled_rate(strata: Sequence[Stratum], *, confidence: float = 0.95) -> SampledRate | None:
    """Estimate which share of parts is what is counted, from strata that were drawn with different shares.

    Each event counts with its stratum's weight (the inverse of the share that was drawn: Horvitz, Thompson 1952). The
    interval is that of a weighted sum of Poisson counts; its upper end adds one event of the largest weight, so that it
    also holds where few or no events were seen. The rate is that of the process, of which the parts are a sample.

    Args:
        strata: parts with the same share drawn; which parts are in one was not chosen by what they are.
        confidence: of the interval, two-sided, in (0, 1).

    Returns:
        None where there is no part.

    Raises:
        MetricError: the confidence is out of its range.

    Source: Fay, Feuer: Confidence intervals for directly standardized rates, Statistics in Medicine 16, 1997.
    """
    if not 0 < confidence < 1:
        raise MetricError(f"confidence: {confidence}; wanted above 0, below 1")
    strata = [stratum for stratum in strata if stratum.parts]
    parts = sum(stratum.parts for stratum in strata)
    if not parts:
        return None
    known = [stratum for stratum in strata if stratum.drawn]
    total = sum(stratum.weight * stratum.events for stratum in known)
    variance = sum(stratum.weight**2 * stratum.events for stratum in known)
    largest = max((stratum.weight for stratum in known), default=0.0)
    tail = (1 - confidence) / 2
    low = _gamma_quantile(total, variance, tail) if total else 0.0
    high = _gamma_quantile(total + largest, variance + largest**2, 1 - tail) if largest else 0.0
    unknown = parts - sum(stratum.parts for stratum in known)
    seen = parts - unknown
    return SampledRate(
        rate=total / seen if seen else 0.0,
        low=low / parts,
        high=min(1.0, (high + unknown) / parts),
        parts=parts,
        drawn=sum(stratum.drawn for stratum in known),
        events=sum(stratum.events for stratum in known),
    )


def _gamma_quantile(mean: float, variance: float, probability: float) -> float:
    """Return a quantile of the gamma distribution with this mean and variance."""
    return float(stats.gamma.ppf(probability, mean**2 / variance, scale=variance / mean))
