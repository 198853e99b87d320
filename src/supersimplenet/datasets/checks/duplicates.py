"""Find photographs of the same part: equal pixel by pixel, or similar except for exposure and framing.

Two photographs of one part differ in brightness, contrast and shading, and a little in framing. The positions of the
fine structure stay the same. So each image is reduced to a small fingerprint: the difference of each cell from its
surroundings, divided by how much the surroundings vary. The likeness of two images is the correlation of their
fingerprints, at the best of all shifts by a few cells.

How much likeness is enough depends on the product: parts in a fixture are all similar. So a pair counts only if each of
the two images stands out among the other's neighbours: it is at least twice as close as the 20th nearest image. If
even the 20th nearest is nearly the same, duplicates cannot be distinguished from other images; such images are listed
in the result. The numbers below were measured: docs/decisions/0013-near-duplicates.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, sparse

MOST_IMAGES = 20_000  # largest number that is compared: a few minutes on one core; time grows with the square
_SIDE = 28  # cells of a fingerprint, in height and in width
_REACH = 3  # cells by which two photographs may be shifted, in each direction
_SURROUNDINGS = 1.5  # sigma, in cells
_FAINT_LEVELS = 1.0  # structure fainter than this, in grey levels, is not amplified: it may be noise
_NEIGHBOUR = 20  # more images than this of one part cannot be distinguished from a product with very similar parts
_STANDS_OUT = 0.5
_TOO_ALIKE = 0.8
_MOST_TOO_ALIKE = 0.5  # above this share of such images, the pairs of the other images are chance, too
_ROWS = 256  # images compared with all others at once; this limits memory


@dataclass(frozen=True, kw_only=True)
class NearDuplicates:
    """The images of a list that seem to show the same part.

    Attributes:
        pairs: (P, 2) positions in the list, the first below the second, sorted.
        likeness: (P,) correlation of each pair's fingerprints, at most 1.
        too_alike: (N,) True for images that are similar to so many others that their pairs cannot be found.
    """

    pairs: NDArray[np.int64]
    likeness: NDArray[np.float32]
    too_alike: NDArray[np.bool_]


def fingerprint(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the fine structure of an image (H, W) as (28, 28), whatever its size, exposure and smooth shading."""
    small = Image.fromarray(grey).resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    cells = np.asarray(small, dtype=np.float32)
    detail = cells - ndimage.gaussian_filter(cells, _SURROUNDINGS)
    variation = np.sqrt(ndimage.gaussian_filter(detail**2, 2 * _SURROUNDINGS))
    return (detail / (variation + _FAINT_LEVELS)).astype(np.float32)


def find_near_duplicates(
    fingerprints: NDArray[np.float32], *, progress: Callable[[int], None] | None = None
) -> NearDuplicates:
    """Return the pairs of images that show the same part, found by their fingerprints (N, 28, 28).

    Time grows with the square of N: half a minute for 10 000 on one core. Memory grows with N.

    Args:
        fingerprints: the fingerprint of each image.
        progress: called with the number of images compared since the last call.
    """
    count = len(fingerprints)
    neighbour = min(_NEIGHBOUR, (count - 1) // 2)
    too_alike = np.zeros(count, dtype=bool)
    if neighbour < 1:
        return NearDuplicates(pairs=np.empty((0, 2), np.int64), likeness=np.empty(0, np.float32), too_alike=too_alike)
    inner = _SIDE - 2 * _REACH
    middles = _unit(fingerprints[:, _REACH : _REACH + inner, _REACH : _REACH + inner])  # (N, 484)
    sources, targets, likenesses = [], [], []
    for start in range(0, count, _ROWS):
        rows = fingerprints[start : start + _ROWS]
        likeness = _best_likeness(rows, middles, inner)  # (rows, N)
        likeness[np.arange(len(rows)), start + np.arange(len(rows))] = -1  # no image is paired with itself
        reference = np.partition(likeness, count - neighbour, axis=1)[:, count - neighbour]
        too_alike[start : start + len(rows)] = reference >= _TOO_ALIKE
        stands_out = 1 - likeness <= _STANDS_OUT * (1 - reference[:, None])
        stands_out[reference >= _TOO_ALIKE] = False
        row, column = np.nonzero(stands_out)
        sources.append(row + start)
        targets.append(column)
        likenesses.append(likeness[row, column])
        if progress is not None:
            progress(len(rows))
    found = sparse.csr_array(
        (np.concatenate(likenesses), (np.concatenate(sources), np.concatenate(targets))), shape=(count, count)
    )
    # Both images of a pair must stand out: a pair found from one side only gets the likeness 0, and is dropped.
    mutual = sparse.triu(found.minimum(found.T), k=1).tocoo()
    order = np.lexsort((mutual.col, mutual.row))[: 0 if too_alike.mean() > _MOST_TOO_ALIKE else None]
    pairs = np.stack([mutual.row, mutual.col], axis=1).astype(np.int64)[order]
    return NearDuplicates(pairs=pairs, likeness=mutual.data.astype(np.float32)[order], too_alike=too_alike)


def _best_likeness(rows: NDArray[np.float32], middles: NDArray[np.float32], inner: int) -> NDArray[np.float32]:
    best = np.full((len(rows), len(middles)), -1, dtype=np.float32)
    likeness = np.empty_like(best)
    for y in range(2 * _REACH + 1):
        for x in range(2 * _REACH + 1):
            np.matmul(_unit(rows[:, y : y + inner, x : x + inner]), middles.T, out=likeness)
            np.maximum(best, likeness, out=best)
    return best


def _unit(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (N, h, w) as vectors (N, h w) of mean 0 and length 1; all zeros where an image has no structure."""
    flat = cells.reshape(len(cells), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    unit: NDArray[np.float32] = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return unit
