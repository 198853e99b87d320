"""Regions of a mask: its horizontal runs, and which of them touch. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Runs:
    """The horizontal runs of a mask, in reading order, and the 8-connected region that each belongs to.

    Attributes:
        row: (R,) int64.
        start: (R,) first column.
        stop: (R,) the column after the last.
        region: (R,) int64, 0 to ``regions - 1``, in reading order of each region's first pixel.
        regions: number of regions.
    """

    row: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    region: NDArray[np.int64]
    regions: int

    @property
    def length(self) -> NDArray[np.int64]:
        """(R,) pixels of each run."""
        return self.stop - self.start

    def areas(self) -> NDArray[np.int64]:
        """Return the number of pixels of each region, (regions,)."""
        return np.bincount(self.region, self.length, minlength=self.regions).astype(np.int64)


def find_runs(mask: NDArray[np.bool_]) -> Runs:
    """Find the runs of a mask (H, W) and their regions."""
    height, width = mask.shape
    padded = np.zeros((height, width + 1), dtype=np.int8)  # a column of zeros ends the runs that reach the edge
    padded[:, :width] = mask
    # Read as one line, a run starts where 0 becomes 1 and stops where 1 becomes 0. An index in that line is
    # row * (width + 1) + column, which is also a key that sorts runs by row, then column.
    change = np.diff(padded.ravel(), prepend=np.int8(0))
    starts, stops = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    # A run touches those of the next row that stop at its start or later and start at its stop or earlier.
    first = np.searchsorted(stops, starts + (width + 1), side="left")
    last = np.searchsorted(starts, stops + (width + 1), side="right")
    touching = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(starts.size), touching)
    lower = np.arange(upper.size) + np.repeat(first - (np.cumsum(touching) - touching), touching)
    region, regions = _components(starts.size, upper, lower)
    row, start = np.divmod(starts, width + 1)
    return Runs(row=row, start=start, stop=start + stops - starts, region=region, regions=regions)


def _components(nodes: int, one: NDArray[np.int64], other: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Return the component of each node of a graph, numbered by its first node, and the number of components.

    Each root is attached to the smallest root with which it shares an edge, then every path is shortened to its root; a
    round at least halves the roots that have an edge.
    """
    root = np.arange(nodes)
    while one.size:
        np.minimum.at(root, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(shorter := root[root], root):
            root = shorter
        one, other = root[one], root[other]
        apart = one != other
        one, other = one[apart], other[apart]
    is_root = root == np.arange(nodes)
    return (np.cumsum(is_root) - 1)[root], int(is_root.sum())
