"""Resizing without antialiasing, as the published method resizes: OpenCV's, written again in numpy.

The centre of pixel i of the result lies at ``(i + 0.5) * old / new - 0.5`` in the old image. Bilinear interpolation
reads the two pixels on either side of it along each axis, however much the image shrinks. The nearest pixel is the one
in which the upper left corner of the new pixel lies, at ``i * old / new``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Kind = TypeVar("Kind", bound=np.generic)
Resize = Literal["antialiased", "bilinear"]
_SHARE_BITS = 11  # OpenCV interpolates 8-bit pixels with shares of 1/2048
_WHOLE = 1 << _SHARE_BITS


class _Axis(NamedTuple):
    """Where each of T new pixels reads along one axis: the old pixels before and after it, and the latter's share."""

    before: NDArray[np.int64]
    after: NDArray[np.int64]
    share: NDArray[np.float64]


def bilinear_pixels(pixels: NDArray[np.uint8], size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize an image as ``cv2.resize(..., interpolation=cv2.INTER_LINEAR)`` does, within 1 of 255 grey levels.

    Args:
        pixels: (H, W, C).
        size_px: (height, width) of the result.

    Returns:
        (height, width, C).
    """
    rows, columns = (_axis(old, new) for old, new in zip(pixels.shape[:2], size_px, strict=True))
    across = np.rint(columns.share * _WHOLE).astype(np.int32)[:, None]  # (w, 1), the same for each channel
    down = np.rint(rows.share * _WHOLE).astype(np.int32)[:, None, None]
    upper, lower = (_between(pixels[place], columns, (_WHOLE - across, across)) for place in (rows.before, rows.after))
    # OpenCV's vector code drops bits in between; rounded once instead, every eighth pixel would differ by 1.
    quarters = ((upper >> 4) * (_WHOLE - down) >> 16) + ((lower >> 4) * down >> 16)
    result: NDArray[np.uint8] = ((quarters + 2) >> 2).astype(np.uint8)
    return result


def bilinear_plane(plane: NDArray[np.float32], size_px: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a plane (H, W) as ``torch.nn.functional.interpolate`` does: bilinear, ``align_corners`` false."""
    rows, columns = (_axis(old, new) for old, new in zip(plane.shape, size_px, strict=True))
    across, down = columns.share.astype(np.float32), rows.share.astype(np.float32)[:, None]
    upper, lower = (_between(plane[place], columns, (1 - across, across)) for place in (rows.before, rows.after))
    result: NDArray[np.float32] = upper * (1 - down) + lower * down
    return result


def nearest_plane(plane: NDArray[Kind], size_px: tuple[int, int]) -> NDArray[Kind]:
    """Resize a plane (H, W) of any type as ``cv2.resize(..., interpolation=cv2.INTER_NEAREST)`` does."""
    places = [
        np.minimum((np.arange(new) * (1 / (new / old))).astype(np.int64), old - 1)  # the rounding is OpenCV's
        for old, new in zip(plane.shape, size_px, strict=True)
    ]
    return plane[np.ix_(*places)]


def _between(rows: NDArray[Any], columns: _Axis, shares: tuple[Any, Any]) -> Any:
    """Interpolate rows (h, W) or (h, W, C) between the columns that each new pixel reads, with the share of either."""
    before, after = rows.take(columns.before, axis=1), rows.take(columns.after, axis=1)
    return before * shares[0] + after * shares[1]


@lru_cache(maxsize=32)
def _axis(old: int, new: int) -> _Axis:
    centre = (np.arange(new) + 0.5) * (old / new) - 0.5
    centre = centre.clip(0, old - 1)  # beyond the outermost centres the outermost pixel holds
    before = np.floor(centre).astype(np.int64)
    return _Axis(before, np.minimum(before + 1, old - 1), centre - before)
