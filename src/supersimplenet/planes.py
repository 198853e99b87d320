"""Planes of numbers and masks at another size. No torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from supersimplenet.errors import ConfigError

TOUCHED = 1e-3  # share of a pixel above which a resized mask is said to touch it


def resize_mask(mask: NDArray[np.bool_], size_px: tuple[int, int], *, at_least: float = 0.5) -> NDArray[np.bool_]:
    """A mask (H, W) at another (height, width): antialiased bilinear on floats 0 and 1.

    Args:
        mask: (H, W).
        size_px: (height, width).
        at_least: True where the resized mask reaches this; `TOUCHED` for every pixel that the mask touches.

    Raises:
        ConfigError: ``size_px`` is not two positive integers.
    """
    return resize_plane(mask.astype(np.float32), size_px) >= at_least


def resize_plane(plane: NDArray[np.float32], size_px: tuple[int, int]) -> NDArray[np.float32]:
    """A plane of numbers (H, W) at another (height, width): antialiased bilinear.

    Raises:
        ConfigError: ``size_px`` is not two positive integers.
    """
    height, width = checked_size(size_px)
    return np.array(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))


def checked_size(size_px: tuple[int, int]) -> tuple[int, int]:
    """(height, width) as whole numbers.

    Raises:
        ConfigError: they are not two positive integers.
    """
    if len(size_px) != 2 or any(not isinstance(side, (int, np.integer)) or side < 1 for side in size_px):
        raise ConfigError(f"size_px: {size_px}; wanted (height, width), whole numbers of at least 1")
    return int(size_px[0]), int(size_px[1])
