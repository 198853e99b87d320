"""AUPRO as anomalib computes it, which the published tables have, beside the definition in `ranked_overlap`.

anomalib draws a curve for each region alone, over the thresholds up to the limit, and averages the curves not at equal
false-positive rates but at equal shares of each curve's thresholds. A threshold is passed for each normal pixel and
for each pixel of the region, so large regions lag behind small ones, and the average differs a little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from supersimplenet.errors import MetricError
from supersimplenet.metrics.ranking import MAX_FALSE_POSITIVE_RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

ANOMALIB_AUPRO = "AUPRO-anomalib"
RegionCounts = tuple["NDArray[np.int64]", "NDArray[np.int64]"]  # (K,) bins, ascending, and (K,) pixels in each
# Shares of the thresholds at which curves are averaged: dense near 0, where they rise.
_SHARES = np.unique(np.concatenate([[0.0], np.geomspace(1e-8, 1.0, 4096), np.linspace(0.0, 1.0, 2049)]))


def anomalib_overlap(
    normal: NDArray[np.int64], regions: Sequence[RegionCounts], *, limit: float = MAX_FALSE_POSITIVE_RATE
) -> float:
    """Compute AUPRO as anomalib does.

    Args:
        normal: (N,) number of normal pixels in each bin of scores, ascending.
        regions: bins and counts of the pixels of each defective region.
        limit: false-positive rate up to which the curves go.

    Returns:
        float64 in [0, 1].

    Raises:
        MetricError: no defective region, or no normal pixel.

    Source: anomalib 0.7, ``AUPRO``. Differs: scores within a bin count as evenly spread, and equal scores as several
    thresholds.
    """
    reached = normal[::-1].cumsum()[::-1]  # normal pixels in this bin or a higher one
    if not regions or not reached[0]:
        raise MetricError(
            f"{len(regions)} defective regions, {reached[0]:,} normal pixels; wanted at least one of each"
        )
    rates, overlaps = np.zeros_like(_SHARES), np.zeros_like(_SHARES)
    for bins, count in regions:
        rate, overlap = _curve(bins[::-1], count[::-1], normal, reached, limit)
        passed = rate * reached[0] + overlap * count.sum()
        rates += np.interp(_SHARES * passed[-1], passed, rate)
        overlaps += np.interp(_SHARES * passed[-1], passed, overlap)
    area = (np.diff(rates) * (overlaps[1:] + overlaps[:-1]) / 2).sum() / len(regions) ** 2
    return float(area / limit)


def _curve(
    bins: NDArray[np.int64],
    count: NDArray[np.int64],
    normal: NDArray[np.int64],
    reached: NDArray[np.int64],
    limit: float,
) -> tuple[Floats, Floats]:
    """Return the corners of one region's curve up to the limit: false-positive rate and overlap."""
    corners = np.stack([reached[bins] - normal[bins], reached[bins]], axis=1).ravel()
    rate = np.concatenate([[0.0], corners / reached[0], [1.0]])
    overlap = np.repeat(np.append(0.0, count.cumsum() / count.sum()), 2)
    end = int(np.searchsorted(rate, limit, side="right"))
    cut = np.interp(limit, rate[end - 1 : end + 1], overlap[end - 1 : end + 1])
    return np.append(rate[:end], limit), np.append(overlap[:end], cut)
