"""Outlines of regions as SVG paths, and lines with fewer points that look the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (N, 2), x and y
_TOLERANCE_PX = 0.3  # smooths the steps of a slanting edge, and keeps what is a pixel wide


def outline(mask: NDArray[np.bool_]) -> str:
    """The outline of a mask's regions as the ``d`` of an SVG path in pixels of the mask; empty where it marks nothing.

    It runs through the middles of the pixels' edges between inside and outside, the inside on its right, and holes
    are lines of their own.
    """
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for start, end in _edges(mask):
        following.setdefault(start, []).append(end)
    pieces = []
    while following:
        start = next(iter(following))
        loop, here = [], start
        while here in following:  # as many edges leave each corner as reach it, so this ends where it began
            ends = following[here]
            there = ends.pop()
            if not ends:
                del following[here]
            loop.append(((here[0] + there[0]) / 2, (here[1] + there[1]) / 2))
            here = there
        pieces.append(_closed_path(np.array(loop)))
    return "".join(pieces)


def simplify(points: Points, tolerance: float) -> Points:
    """The line without points that lie within a tolerance of it; first and last stay.

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
        # The distance from the stretch itself, not from the endless line through it.
        share = np.clip(between @ along / max(length**2, 1e-300), 0, 1)
        away = np.hypot(*(between - share[:, None] * along).T)
        farthest = int(away.argmax())
        if away[farthest] > tolerance:
            middle = first + 1 + farthest
            kept[middle] = True
            stretches += [(first, middle), (middle, last)]
    return points[kept]


def _edges(mask: NDArray[np.bool_]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Edges of pixels between inside and outside, from corner to corner, the inside on the right."""
    padded = np.pad(mask, 1)
    edges = []
    above, below = padded[:-1, 1:-1], padded[1:, 1:-1]  # (H + 1, W), both sides of each level edge
    for y, x in np.argwhere(below & ~above).tolist():
        edges.append(((x, y), (x + 1, y)))
    for y, x in np.argwhere(above & ~below).tolist():
        edges.append(((x + 1, y), (x, y)))
    left, right = padded[1:-1, :-1], padded[1:-1, 1:]  # (H, W + 1), both sides of each upright edge
    for y, x in np.argwhere(right & ~left).tolist():
        edges.append(((x, y + 1), (x, y)))
    for y, x in np.argwhere(left & ~right).tolist():
        edges.append(((x, y), (x, y + 1)))
    return edges


def _closed_path(loop: Points) -> str:
    closed = np.concatenate([loop, loop[:1]])
    opposite = int(np.hypot(*(loop - loop[0]).T).argmax())
    halves = simplify(closed[: opposite + 1], _TOLERANCE_PX)[:-1], simplify(closed[opposite:], _TOLERANCE_PX)[:-1]
    corners = " ".join(f"{x:g} {y:g}" for x, y in np.concatenate(halves).tolist())
    return f"M{corners}Z"
