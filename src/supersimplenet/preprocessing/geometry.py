"""Geometry of a map on its image: everything that moves between the two goes through a `Placement`. No torch.

Coordinates are continuous, x to the right and y down, in pixels from the upper left corner: the centre of the first
pixel is (0.5, 0.5). A map covers a *frame*: the whole image or, where images are aligned, the area of the reference
image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from supersimplenet.errors import ConfigError
from supersimplenet.preprocessing.resizing import Resize, nearest_plane

# (a, b, c, d, e, f): x' = a x + b y + c, y' = d x + e y + f. Pillow's order, and its convention of coordinates.
Affine = tuple[float, float, float, float, float, float]
Places = NDArray[np.float64]
HALF = 0.5  # share of a pixel of a map from which on a resized mask marks it
TOUCHED = 1e-3  # share of a pixel from which on a resized mask touches it


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a map lies on its image.

    Attributes:
        map_size_px: (height, width) of the map.
        image_size_px: (height, width) of the image.
        frame_size_px: (height, width) of the frame that the map covers from edge to edge.
        turn: transform from points in the frame to points in the image; None where the frame is the image.
        resize: how the image was resized to the map, and masks of defects are.
    """

    map_size_px: tuple[int, int]
    image_size_px: tuple[int, int]
    frame_size_px: tuple[int, int]
    turn: Affine | None = None
    resize: Resize = "antialiased"

    @classmethod
    def whole(cls, map_size_px: tuple[int, int], image_size_px: tuple[int, int]) -> Placement:
        """Return the placement of a map that covers its whole image."""
        return cls(map_size_px=map_size_px, image_size_px=image_size_px, frame_size_px=image_size_px)

    @property
    def scale(self) -> tuple[float, float]:
        """Height and width of a pixel of the map, in pixels of the image."""
        return self.frame_size_px[0] / self.map_size_px[0], self.frame_size_px[1] / self.map_size_px[1]

    def points_on_image(self, x: Places, y: Places) -> tuple[Places, Places]:
        """Convert points on the map to points in the image."""
        down, across = self.scale
        x, y = x * across, y * down
        if self.turn is None:
            return x, y
        a, b, c, d, e, f = self.turn
        return a * x + b * y + c, d * x + e * y + f

    def plane_on_frame(self, plane: NDArray[np.float32]) -> NDArray[np.float32]:
        """Move a plane of the image's size to the frame; 0 where the frame reaches beyond the image."""
        return plane if self.turn is None else warp_plane(plane, self.turn, self.frame_size_px)

    def plane_on_map(self, plane: NDArray[np.float32]) -> NDArray[np.float32]:
        """Move a plane of the image's size to the map's size; 0 where the frame reaches beyond the image."""
        return resize_plane(self.plane_on_frame(plane), self.map_size_px)

    def mask_on_map(self, mask: NDArray[np.bool_], *, at_least: float = HALF) -> NDArray[np.bool_]:
        """Move a mask of the image's size to the map's, antialiased; False where the frame reaches beyond the image.

        Args:
            mask: (H, W) of the image.
            at_least: see `resize_mask`.
        """
        if self.turn is None:
            return mask if mask.shape == self.map_size_px else resize_mask(mask, self.map_size_px, at_least=at_least)
        return self.plane_on_map(mask.astype(np.float32)) >= at_least

    def defects_on_map(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Move a mask of defects to the map's size, resized as the image is; see `mask_on_map`."""
        if self.resize == "antialiased":
            return self.mask_on_map(mask)
        on_frame = mask if self.turn is None else self.plane_on_frame(mask.astype(np.float32)) >= HALF
        return nearest_plane(on_frame, self.map_size_px)

    def plane_on_image(
        self, plane: NDArray[np.float32], *, size_px: tuple[int, int] | None = None, outside: float
    ) -> NDArray[np.float32]:
        """Move a plane of the map's size to the image.

        Args:
            plane: (H, W) of the map.
            size_px: (height, width) to which the image was resized; None for its own.
            outside: the value where the frame does not reach.
        """
        size_px = self.image_size_px if size_px is None else size_px
        if self.turn is None:
            return plane if plane.shape == size_px else resize_plane(plane, size_px)
        # If the result is smaller than the map, the map is shrunk first, because a warp reads only four neighbours.
        shrunk = tuple(
            max(1, min(side, round(frame * target / image)))
            for side, frame, target, image in zip(
                plane.shape, self.frame_size_px, size_px, self.image_size_px, strict=True
            )
        )
        plane = resize_plane(plane, (shrunk[0], shrunk[1]))
        down, across = self.image_size_px[0] / size_px[0], self.image_size_px[1] / size_px[1]
        to_image = (across, 0.0, 0.0, 0.0, down, 0.0)
        to_plane = (shrunk[1] / self.frame_size_px[1], 0.0, 0.0, 0.0, shrunk[0] / self.frame_size_px[0], 0.0)
        return warp_plane(plane, chained(chained(to_image, inverse(self.turn)), to_plane), size_px, outside=outside)

    def mask_on_image(self, mask: NDArray[np.bool_], *, outside: bool) -> NDArray[np.bool_]:
        """Move a mask of the map's size to the image: True on every pixel that it touches.

        Args:
            mask: (H, W) of the map.
            outside: whether the mask counts as True where the frame does not reach.
        """
        return self.plane_on_image(mask.astype(np.float32), outside=float(outside)) >= TOUCHED


def warp_plane(
    plane: NDArray[np.float32], places: Affine, size_px: tuple[int, int], *, outside: float = 0.0
) -> NDArray[np.float32]:
    """Read a plane at other points, with bilinear interpolation.

    Args:
        plane: (H, W).
        places: transform from each point of the result to the point of the plane that is read.
        size_px: (height, width) of the result.
        outside: the value of points beyond the plane.
    """
    return np.array(
        Image.fromarray(plane).transform(
            size_px[::-1], Image.Transform.AFFINE, places, Image.Resampling.BILINEAR, fillcolor=outside
        )
    )


def warp_pixels(pixels: NDArray[np.uint8], places: Affine, size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Warp an image (H, W, 3) as `warp_plane` does a plane; black beyond the image."""
    image = Image.fromarray(pixels)
    return np.array(image.transform(size_px[::-1], Image.Transform.AFFINE, places, Image.Resampling.BILINEAR))


def chained(first: Affine, then: Affine) -> Affine:
    """Return the transform that applies one after the other."""
    a, b, c, d, e, f = first
    p, q, r, s, t, u = then
    return (p * a + q * d, p * b + q * e, p * c + q * f + r, s * a + t * d, s * b + t * e, s * c + t * f + u)


def inverse(affine: Affine) -> Affine:
    """Return the inverse transform."""
    a, b, c, d, e, f = affine
    area = a * e - b * d
    p, q, s, t = e / area, -b / area, -d / area, a / area
    return (p, q, -(p * c + q * f), s, t, -(s * c + t * f))


def resize_mask(mask: NDArray[np.bool_], size_px: tuple[int, int], *, at_least: float = HALF) -> NDArray[np.bool_]:
    """Resize a mask (H, W) to another (height, width): antialiased bilinear on floats 0 and 1.

    Args:
        mask: (H, W).
        size_px: (height, width).
        at_least: True where the resized mask reaches this; `TOUCHED` for every pixel that the mask touches.

    Raises:
        ConfigError: ``size_px`` is not two positive integers.
    """
    return resize_plane(mask.astype(np.float32), size_px) >= at_least


def resize_plane(plane: NDArray[np.float32], size_px: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a plane of numbers (H, W) to another (height, width): antialiased bilinear.

    Raises:
        ConfigError: ``size_px`` is not two positive integers.
    """
    height, width = checked_size(size_px)
    return np.array(Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR))


def resize_weights(length: int, target: int, first: int = 0, count: int | None = None) -> NDArray[np.float32]:
    """Return the matrix by which `resize_plane` resizes one axis: the share of each old pixel in each new one.

    Args:
        length: number of pixels before.
        target: number of pixels after.
        first: the first new pixel of the result.
        count: number of new pixels in the result; beyond the last one their weights are 0. None for all.

    Returns:
        (count, length); each row sums to 1.
    """
    count = target - first if count is None else count
    scale = length / target
    centre = (np.arange(first, first + count)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(length)[None] + 0.5 - centre) / max(scale, 1.0)
    weights = np.clip(1 - distance, 0, None)
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    weights[max(target - first, 0) :] = 0
    return weights.astype(np.float32)


def checked_size(size_px: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) as whole numbers.

    Raises:
        ConfigError: they are not two positive integers.
    """
    if len(size_px) != 2 or any(not isinstance(side, (int, np.integer)) or side < 1 for side in size_px):
        raise ConfigError(f"size_px: {size_px}; wanted (height, width), whole numbers of at least 1")
    return int(size_px[0]), int(size_px[1])
