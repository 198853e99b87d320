"""Bootstrap intervals of the pixel metrics over parts, from a small tally of each part.

A tally holds the histograms of `supersimplenet.metrics.pixels` in coarser bins (1/32 of a score), only occupied ones.
The metrics of a resample follow from the sum of the tallies of its parts, and the interval is moved by the difference
between the metric in coarse bins and the metric itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from supersimplenet.errors import MetricError
from supersimplenet.metrics.bootstrap import Interval, percentiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

PART_BITS = 14  # leading bits of a float32 that tell the bins of a tally apart: sign, exponent, 5 bits of the mantissa
MOST_BYTES = 32 << 10
# The metrics that get an interval, with the false-positive rate up to which each AUPRO is integrated.
_OVERLAP_LIMITS = {"AUPRO": 0.3, "AUPRO@0.05": 0.05, "AUPRO@0.01": 0.01}
INTERVAL_METRICS = ("P-AUROC", *_OVERLAP_LIMITS, "AP-loc")
_FEWEST_BAD = 2  # resamples of a single bad part do not show how bad parts differ
_MOST_LEVELS = 1024
_BLOCK = 100  # resamples that are computed at once


@dataclass(kw_only=True)
class PartTally:
    """Histograms of the pixels of one part, in at most 32 kB.

    Attributes:
        bits: leading bits of a float32 that tell bins apart.
        bins: (K,) uint16, ascending.
        normal: (K,) uint32, normal pixels in each bin.
        defective: (K,) uint32, defective pixels in each bin; empty where the part has none.
        overlap: (K,) float32, defective pixels, each counted as 1 / (pixels of its region); empty as well.
        regions: number of regions.
    """

    bits: int = PART_BITS
    bins: NDArray[np.uint16] = field(default_factory=lambda: np.zeros(0, np.uint16))
    normal: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    defective: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    overlap: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    regions: int = 0

    @classmethod
    def of(
        cls,
        normal: tuple[NDArray[np.int64], NDArray[np.int64]],
        defective: tuple[NDArray[np.int64], NDArray[np.float64]],
        *,
        bits: int,
        regions: int,
    ) -> PartTally:
        """Return the tally of an image.

        Args:
            normal: bins, and the number of normal pixels in each.
            defective: bins of the defective pixels one by one, and the weight of each pixel.
            bits: of both kinds of bins, at least `PART_BITS`.
            regions: number of defective regions.
        """
        shift = bits - PART_BITS
        (bins, count), (bin_at, weight) = normal, defective
        places, place = np.unique(np.concatenate([bins, bin_at]) >> shift, return_inverse=True)
        of_normal, of_defective = place[: bins.size], place[bins.size :]

        def summed(at: NDArray[np.intp], values: NDArray[np.float64] | NDArray[np.int64] | None) -> Floats:
            return np.bincount(at, weights=values, minlength=places.size).astype(np.float64)

        tally = cls(bins=places.astype(np.uint16), normal=summed(of_normal, count).astype(np.uint32), regions=regions)
        if regions:
            tally.defective = summed(of_defective, None).astype(np.uint32)
            tally.overlap = summed(of_defective, weight).astype(np.float32)
        return tally.small_enough()

    @property
    def nbytes(self) -> int:
        """Size of the arrays."""
        return self.bins.nbytes + self.normal.nbytes + self.defective.nbytes + self.overlap.nbytes

    def small_enough(self) -> PartTally:
        """Return the tally in bins so wide that it takes at most 32 kB."""
        tally = self
        while tally.nbytes > MOST_BYTES:
            tally = _sum([tally], tally.bits - 1)
        return tally

    def merge(self, other: PartTally) -> PartTally:
        """Return the tally of both images of a part."""
        return _sum([self, other], min(self.bits, other.bits)).small_enough()


def pixel_intervals(
    tallies: Sequence[PartTally],
    values: Mapping[str, float],
    *,
    confidence: float = 0.95,
    replicates: int = 2000,
    generator: np.random.Generator,
) -> dict[str, Interval]:
    """Compute percentile bootstrap intervals of pixel metrics over parts.

    Args:
        tallies: one for each part.
        values: the metrics themselves, by names of `INTERVAL_METRICS`; others get no interval.
        confidence: of each interval, in (0, 1).
        replicates: number of resamples of the parts.
        generator: random source of the resamples.

    Raises:
        MetricError: fewer than two parts have a defective region.

    Source: as `bootstrap_intervals`. Differs: histograms, and the correction for their bins.
    """
    bad = sum(tally.regions > 0 for tally in tallies)
    if bad < _FEWEST_BAD:
        raise MetricError(f"{bad} parts with a defective region; wanted at least {_FEWEST_BAD}")
    planes = _Planes(tallies)
    names = [name for name in INTERVAL_METRICS if name in values]
    whole = _metrics(*planes.sums(np.ones((1, len(tallies)), dtype=np.float32)))
    drawn: dict[str, list[Floats]] = {name: [] for name in names}
    for start in range(0, replicates, _BLOCK):
        size = min(_BLOCK, replicates - start)
        counts = generator.multinomial(len(tallies), np.full(len(tallies), 1 / len(tallies)), size=size)
        found = _metrics(*planes.sums(counts.astype(np.float32)))
        for name in names:
            drawn[name].append(found[name])
    intervals = {}
    for name in names:
        sampled = np.concatenate(drawn[name])
        kept = sampled[np.isfinite(sampled)]  # more than half: two bad parts and one with normal pixels are enough
        intervals[name] = percentiles(np.clip(kept + (values[name] - whole[name][0]), 0, 1), confidence)
    return intervals


class _Planes:
    """The tallies of all parts over common levels, falling."""

    def __init__(self, tallies: Sequence[PartTally]) -> None:
        bits = min(tally.bits for tally in tallies)
        normal, defective = np.zeros(1 << bits), np.zeros(1 << bits)
        for tally in tallies:
            np.add.at(normal, tally.bins >> (tally.bits - bits), tally.normal)
            if tally.regions:
                np.add.at(defective, tally.bins >> (tally.bits - bits), tally.defective)
        bins = np.flatnonzero(normal + defective)
        level_of = np.zeros(1 << bits, dtype=np.intp)
        level_of[bins] = _levels(normal[bins], defective[bins])
        self._bad = [place for place, tally in enumerate(tallies) if tally.regions]
        self._regions = np.array([tally.regions for tally in tallies], dtype=np.float32)
        levels = int(level_of.max()) + 1
        self._normal = np.zeros((len(tallies), levels), dtype=np.float32)
        self._defective = np.zeros((len(self._bad), levels), dtype=np.float32)
        self._overlap = np.zeros((len(self._bad), levels), dtype=np.float32)
        bad_row = {place: row for row, place in enumerate(self._bad)}
        for place, tally in enumerate(tallies):
            at = levels - 1 - level_of[tally.bins >> (tally.bits - bits)]
            np.add.at(self._normal[place], at, tally.normal)
            if tally.regions:
                np.add.at(self._defective[bad_row[place]], at, tally.defective)
                np.add.at(self._overlap[bad_row[place]], at, tally.overlap)

    def sums(self, counts: NDArray[np.float32]) -> Iterator[Floats]:
        """Yield normal, defective and overlap (R, levels), and regions (R, 1), of resamples (R, parts)."""
        of_bad = counts[:, self._bad]
        yield (counts @ self._normal).astype(np.float64)
        yield (of_bad @ self._defective).astype(np.float64)
        yield (of_bad @ self._overlap).astype(np.float64)
        yield (counts @ self._regions).astype(np.float64)[:, None]


def _sum(tallies: Sequence[PartTally], bits: int) -> PartTally:
    """Return the sum of tallies in bins of so many bits."""
    bins = np.concatenate([tally.bins >> (tally.bits - bits) for tally in tallies])
    places, place = np.unique(bins, return_inverse=True)

    def summed(values: Sequence[NDArray[np.uint32] | NDArray[np.float32]]) -> Floats:
        return np.bincount(place, weights=np.concatenate(values), minlength=places.size).astype(np.float64)

    total = PartTally(bits=bits, bins=places.astype(np.uint16), regions=sum(tally.regions for tally in tallies))
    total.normal = summed([tally.normal for tally in tallies]).astype(np.uint32)
    if total.regions:
        padded = [np.zeros(tally.bins.size, np.uint32) if not tally.regions else tally.defective for tally in tallies]
        total.defective = summed(padded).astype(np.uint32)
        weights = [np.zeros(tally.bins.size, np.float32) if not tally.regions else tally.overlap for tally in tallies]
        total.overlap = summed(weights).astype(np.float32)
    return total


def _levels(normal: Floats, defective: Floats) -> NDArray[np.intp]:
    """Return the level of each occupied bin, ascending: one a bin, or levels of about equal weight in every metric."""
    if normal.size <= _MOST_LEVELS:
        return np.arange(normal.size)
    from_bin = normal[::-1].cumsum()[::-1] + 1
    rarer = -np.diff(np.log(from_bin), append=0.0)  # the rarest normal pixels decide AUPRO@0.01 and AP-loc
    weight = sum(share / share.sum() for share in (normal, defective, rarer) if share.sum() > 0)
    levels = (np.cumsum(weight) / np.sum(weight) * (_MOST_LEVELS - 1)).astype(np.intp)
    return np.unique(levels, return_inverse=True)[1]


def _metrics(normal: Floats, defective: Floats, overlap: Floats, regions: Floats) -> dict[str, Floats]:
    """Compute the metrics of R resamples from (R, K) sums over falling levels; NaN where a kind of pixel is missing."""
    from_normal, from_defective, from_overlap = (np.cumsum(plane, axis=1) for plane in (normal, defective, overlap))
    all_normal, all_defective = from_normal[:, -1:], from_defective[:, -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        below = all_normal - from_normal + normal / 2
        middle = from_defective - defective / 2  # half of a level's pixels above, as if it were in random order
        precision = middle / (middle + from_normal - normal / 2)
        found = {
            "P-AUROC": (defective * below).sum(1) / (all_normal * all_defective)[:, 0],
            "AP-loc": np.where(defective > 0, defective * precision, 0).sum(1) / all_defective[:, 0],
        }
        rate = np.pad(from_normal / all_normal, ((0, 0), (1, 0)))
        height = np.pad(from_overlap / regions, ((0, 0), (1, 0)))
        for name, limit in _OVERLAP_LIMITS.items():
            cut = np.minimum(rate, limit)
            wide = np.diff(rate, axis=1)
            reached = np.where(wide > 0, np.diff(cut, axis=1) / wide, 0.0)  # share of each step below the limit
            middle_height = height[:, :-1] + reached * np.diff(height, axis=1) / 2
            found[name] = (np.diff(cut, axis=1) * middle_height).sum(1) / limit
    return found
