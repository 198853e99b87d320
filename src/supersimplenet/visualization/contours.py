"""Compute outlines of regions as SVG paths, and simplify lines without a visible difference."""

from __future__ import annotations

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (N, 2), x and y
_TOLERANCE_PX = 0.3  # smooths the pixel steps of a slanting edge, and keeps regions one pixel wide


def outline(mask: NDArray[np.bool_]) -> str:
    """Return the outline of a mask's regions as the ``d`` of an SVG path in pixels of the mask; empty for none.

    The outline runs through the middles of the pixel edges between inside and outside, with the inside on its right;
    each hole is a closed line of its own.
    """
    return "".join(f"M{' '.join(f'{x:g} {y:g}' for x, y in loop.tolist())}Z" for loop in loops(mask))


def loops(mask: NDArray[np.bool_]) -> list[Points]:
    """Return the closed lines of `outline`, simplified, as points (N, 2) without the last one, which is the first."""
    padded = np.pad(mask, 1).astype(np.float64)
    lines = contour_generator(z=padded).lines(0.5)  # coordinates of pixel centres; each loop is closed
    return [_simplified(np.asarray(line) - 0.5) for line in lines]


def simplify(points: Points, tolerance: float) -> Points:
    """Return the line without the points that are within a tolerance of the simpler line; first and last point stay.

    Source: Douglas and Peucker, Cartographica 10, 1973. Differs: none.
    """
    kept = np.zeros(len(points), dtype=bool)
    kept[[0, -1]] = True
    stretches = [(0, len(points) - 1)]
    while stretches:
        first, last = stretches.pop()
        if last - first < 2:
            continue
        between = points[first + 1 : last] - points[first]
        along = points[last] - points[first]
        length = float(np.hypot(*along))
        # The distance from the segment itself, not from the infinite line through it.
        share = np.clip(between @ along / max(length**2, 1e-300), 0, 1)
        away = np.hypot(*(between - share[:, None] * along).T)
        farthest = int(away.argmax())
        if away[farthest] > tolerance:
            middle = first + 1 + farthest
            kept[middle] = True
            stretches += [(first, middle), (middle, last)]
    return points[kept]


def _simplified(loop: Points) -> Points:
    opposite = int(np.hypot(*(loop - loop[0]).T).argmax())
    halves = simplify(loop[: opposite + 1], _TOLERANCE_PX)[:-1], simplify(loop[opposite:], _TOLERANCE_PX)[:-1]
    return np.concatenate(halves)
