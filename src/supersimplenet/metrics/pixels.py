"""Pixel metrics of any number of anomaly maps in one pass and fixed memory, from mergeable histograms of scores.

The bin of a float32 is given by its sign, its exponent and the leading bits of its mantissa. Bins are ordered by value,
so nothing needs to be known about the scores beforehand. Two scores are confused only if they agree in all of these;
how far this may change a metric is computed from the histograms and given in the result as its error bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from supersimplenet.errors import MetricError
from supersimplenet.metrics.anomalib_overlap import RegionCounts, anomalib_overlap
from supersimplenet.metrics.part_tallies import PartTally
from supersimplenet.metrics.ranking import (
    Metric,
    Ranking,
    measure,
    ranked_auroc,
    ranked_average_precision,
    ranked_f1_max,
    ranked_overlap,
    require_both,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

BIN_BITS = 20  # of the 32 bits of a float: sign, exponent and 11 bits of the mantissa, 1/2048 of a score
_FEWEST_BITS, _MOST_BITS = 18, 24
# Edges of the size classes: a region's share of its image, so that classes do not depend on the resolution.
SIZE_EDGES = (0.001, 0.01, 0.05)
PIXEL_METRICS: dict[str, Callable[[Ranking], Metric]] = {
    "P-AUROC": ranked_auroc,
    "AUPRO": ranked_overlap,
    "AUPRO@0.05": partial(ranked_overlap, max_false_positive_rate=0.05),
    "AUPRO@0.01": partial(ranked_overlap, max_false_positive_rate=0.01),
    "AP-loc": ranked_average_precision,
    "P-F1-max": ranked_f1_max,
}


@dataclass(kw_only=True)
class _Defective:
    """Histograms of defective pixels; only occupied bins are stored, because few are.

    Attributes:
        bins: (K,) int64, ascending.
        count: (K,) int64, pixels in each bin.
        weight: (K,) float64, pixels in each bin, each counted as 1 / (pixels of its region).
        regions: number of regions that the pixels belong to.
        found: number of these regions that a listed region touches.
    """

    bins: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    count: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    weight: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    regions: int = 0
    found: int = 0

    def add(self, other: _Defective) -> None:
        """Add the pixels of another histogram."""
        place = np.searchsorted(self.bins, other.bins)
        known = np.zeros(place.shape, dtype=bool)
        inside = place < self.bins.size
        known[inside] = self.bins[place[inside]] == other.bins[inside]
        self.count[place[known]] += other.count[known]
        self.weight[place[known]] += other.weight[known]
        if not known.all():
            place = place[~known]
            self.bins = np.insert(self.bins, place, other.bins[~known])
            self.count = np.insert(self.count, place, other.count[~known])
            self.weight = np.insert(self.weight, place, other.weight[~known])
        self.regions += other.regions
        self.found += other.found


class PixelTally:
    """Histograms of normal and of defective pixels, by type and size of the defect; maps are added one by one.

    Args:
        bin_bits: leading bits of a float32 that tell bins apart, 18 to 24; each bin takes 8 bytes.
        keep_regions: also keep the bins of each region, at most 16 bytes a defective pixel, for `anomalib_overlap`.

    Raises:
        MetricError: ``bin_bits`` outside these bounds.
    """

    def __init__(self, *, bin_bits: int = BIN_BITS, keep_regions: bool = False) -> None:
        if not _FEWEST_BITS <= bin_bits <= _MOST_BITS:
            raise MetricError(f"bin_bits: {bin_bits}; wanted {_FEWEST_BITS} to {_MOST_BITS}")
        self.bin_bits = bin_bits
        self.normal = np.zeros(1 << bin_bits, dtype=np.int64)
        self.defective: dict[tuple[str, int], _Defective] = {}
        self.regions_kept: list[RegionCounts] | None = [] if keep_regions else None

    def add(
        self,
        map_logit: NDArray[np.float32],
        mask: NDArray[np.bool_],
        *,
        defect: str = "bad",
        ignored: NDArray[np.bool_] | None = None,
        listed: NDArray[np.bool_] | None = None,
    ) -> PartTally:
        """Count the pixels of an image; return a small tally of it alone, for intervals over parts.

        Args:
            map_logit: (H, W) float32, any monotone scale, higher is worse.
            mask: (H, W) bool, True on defective pixels; its 8-connected regions have equal weight, whatever their size.
            defect: the type of its regions.
            ignored: (H, W) bool, pixels that are left out, of regions too; None for none.
            listed: (H, W) bool, pixels of the defects that are listed: a region of the mask that they touch counts as
                found. None for none.

        Raises:
            MetricError: shapes that differ, types other than float32 and bool, or a score that is not a number.
        """
        _check(map_logit, mask, ignored)
        if listed is not None:
            _check(map_logit, mask, listed)
        bins = _bins(map_logit, self.bin_bits)
        if ignored is not None:
            mask = mask & ~ignored
        special = mask if ignored is None else mask | ignored
        first = int(bins.min())
        counts = np.bincount((bins - first).ravel())
        if special.any():
            counts -= np.bincount(bins[special] - first, minlength=counts.size)
        self.normal[first : first + counts.size] += counts
        occupied = np.flatnonzero(counts)
        bin_at, weight, regions = np.zeros(0, np.int64), np.zeros(0), 0
        if mask.any():
            bin_at, weight, regions = self._add_regions(bins, mask, defect, listed)
        normal = (occupied + first, counts[occupied])
        return PartTally.of(normal, (bin_at, weight), bits=self.bin_bits, regions=regions)

    def _add_regions(
        self, bins: NDArray[np.int64], mask: NDArray[np.bool_], defect: str, listed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], int]:
        """Count the defective pixels; return the bin and the weight of each, and the number of regions."""
        region, regions = ndimage.label(mask, structure=ndimage.generate_binary_structure(2, 2))
        region_at, bin_at = region[mask], bins[mask]
        area = np.bincount(region_at, minlength=regions + 1)
        if self.regions_kept is not None:
            in_turn = np.split(bin_at[np.argsort(region_at, kind="stable")], area[1:-1].cumsum())
            self.regions_kept += [np.unique(of_region, return_counts=True) for of_region in in_turn]
        size_class = np.searchsorted(SIZE_EDGES, area / mask.size, side="right")
        touched = region_at[:0] if listed is None else region_at[listed[mask]]
        is_found = np.bincount(touched, minlength=regions + 1) > 0
        for size in np.unique(size_class[1:]):
            of_size = size_class == size
            of_size[0] = False  # label 0 is no region
            chosen = of_size[region_at]
            found, place, count = np.unique(bin_at[chosen], return_inverse=True, return_counts=True)
            self.defective.setdefault((defect, int(size)), _Defective()).add(
                _Defective(
                    bins=found,
                    count=count,
                    weight=np.bincount(place.ravel(), weights=1.0 / area[region_at[chosen]]).astype(np.float64),
                    regions=int(of_size.sum()),
                    found=int(is_found[of_size].sum()),
                )
            )
        return bin_at, 1.0 / area[region_at], regions

    def merge(self, other: PixelTally) -> None:
        """Add the pixels of another tally, for example from another process or machine; the order does not matter.

        Raises:
            MetricError: the other's bins differ.
        """
        if other.bin_bits != self.bin_bits:
            raise MetricError(f"bin_bits: {other.bin_bits} cannot be merged into {self.bin_bits}; use the same")
        self.normal += other.normal
        for key, defective in other.defective.items():
            self.defective.setdefault(key, _Defective()).add(defective)
        if self.regions_kept is not None and other.regions_kept is not None:
            self.regions_kept += other.regions_kept

    def ranking(self, *, defect: str | None = None, size: int | None = None) -> Ranking:
        """Rank the defective pixels, of all regions or of those of a type or size class, against all normal pixels.

        Raises:
            MetricError: there is no such defective pixel, or no normal one.
        """
        chosen = _Defective()
        for (type_, size_class), defective in self.defective.items():
            if defect in (None, type_) and size in (None, size_class):
                chosen.add(defective)
        from_bin = self.normal[::-1].cumsum()[::-1]  # normal pixels in this bin or a higher one
        require_both(int(chosen.count.sum()), int(from_bin[0]))
        good_from = from_bin[chosen.bins][::-1]
        return Ranking(
            bad_at=chosen.count[::-1],
            weight_at=chosen.weight[::-1] / chosen.regions,
            good_above=good_from - self.normal[chosen.bins][::-1],
            good_from=good_from,
            good_total=int(from_bin[0]),
            binned=True,
        )

    def metrics(self, *, defect: str | None = None, size: int | None = None) -> dict[str, Metric]:
        """Compute `PIXEL_METRICS` by name; a metric that is not defined gives the reason."""
        return measure(PIXEL_METRICS, partial(self.ranking, defect=defect, size=size))

    def anomalib_aupro(self) -> Metric:
        """Compute `anomalib_overlap` of the regions kept; where it is not defined, give the reason."""
        try:
            return Metric(value=anomalib_overlap(self.normal, self.regions_kept or []))
        except MetricError as error:
            return Metric(value=None, reason=str(error))

    def regions(self, *, defect: str | None = None, size: int | None = None) -> tuple[int, int]:
        """Return the number of defective regions, of a type or size class, and how many of them were found."""
        chosen = [
            defective
            for (type_, size_class), defective in self.defective.items()
            if defect in (None, type_) and size in (None, size_class)
        ]
        return sum(defective.regions for defective in chosen), sum(defective.found for defective in chosen)


def region_overlap(maps: ArrayLike, masks: ArrayLike, *, max_false_positive_rate: float = 0.3) -> Metric:
    """Compute the area under the per-region overlap curve (AUPRO) of maps in memory; see `ranked_overlap`.

    Args:
        maps: (N, H, W) float32, any monotone scale, higher is worse.
        masks: (N, H, W) bool, True on defective pixels.
        max_false_positive_rate: share of the normal pixels of all images, in (0, 1].

    Raises:
        MetricError: no defective region, no normal pixel, a score that is not a number, shapes that differ, or a limit
            outside (0, 1].
    """
    tally = PixelTally()
    scores, defective = np.asarray(maps), np.asarray(masks)
    if scores.ndim != 3 or scores.shape != defective.shape:
        raise MetricError(f"maps {scores.shape}, masks {defective.shape}; wanted (N, H, W) of both")
    for map_logit, mask in zip(scores, defective, strict=True):
        tally.add(map_logit, mask)
    return ranked_overlap(tally.ranking(), max_false_positive_rate=max_false_positive_rate)


def _bins(scores: NDArray[np.float32], bin_bits: int) -> NDArray[np.int64]:
    """Return the bin of each score, in [0, 2^bin_bits), in the order of their values; 0 and -0 share one."""
    bits = (scores + np.float32(0)).view(np.int32)  # adding 0 turns -0 into 0
    # The bits of negative floats, read as a number, rise as the value falls: all bits but the sign are inverted.
    ordered = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    bins: NDArray[np.int64] = (ordered >> np.int32(32 - bin_bits)).astype(np.int64) + (1 << (bin_bits - 1))
    return bins


def _check(map_logit: NDArray[Any], mask: NDArray[Any], ignored: NDArray[Any] | None) -> None:
    if map_logit.ndim != 2 or map_logit.shape != mask.shape or (ignored is not None and ignored.shape != mask.shape):
        raise MetricError(
            f"map {map_logit.shape}, mask {mask.shape}, ignored {None if ignored is None else ignored.shape}; "
            "wanted (H, W) of each"
        )
    if map_logit.dtype != np.float32 or mask.dtype != np.bool_:
        raise MetricError(f"map of {map_logit.dtype}, mask of {mask.dtype}; wanted float32 and bool")
    if np.isnan(map_logit).any():
        raise MetricError(f"{int(np.isnan(map_logit).sum()):,} of {map_logit.size:,} scores are not a number (NaN)")
