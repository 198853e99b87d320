"""Where a map lies on its image: everything that moves between both goes through a `Placement`. No torch.

Places are continuous, x to the right and y down, in pixels from the upper left corner: the middle of the first pixel is
(0.5, 0.5). A map covers a *frame*: the whole image or, where images are aligned, what the reference image shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from supersimplenet.errors import ConfigError

# (a, b, c, d, e, f): x' = a x + b y + c, y' = d x + e y + f. Pillow's order, and its convention of places.
Affine = tuple[float, float, float, float, float, float]
Places = NDArray[np.float64]
TOUCHED = 1e-3  # share of a pixel above which a resized mask is said to touch it


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a map lies on its image.

    Attributes:
        map_size_px: (height, width) of the map.
        image_size_px: (height, width) of the image.
        frame_size_px: (height, width) of the frame that the map covers from edge to edge.
        turn: places in the frame to places in the image; None where the frame is the image.
    """

    map_size_px: tuple[int, int]
    image_size_px: tuple[int, int]
    frame_size_px: tuple[int, int]
    turn: Affine | None = None

    @classmethod
    def whole(cls, map_size_px: tuple[int, int], image_size_px: tuple[int, int]) -> Placement:
        """Of a map that covers all of its image."""
        return cls(map_size_px=map_size_px, image_size_px=image_size_px, frame_size_px=image_size_px)

    @property
    def scale(self) -> tuple[float, float]:
        """Height and width, in the image, of a pixel of the map."""
        return self.frame_size_px[0] / self.map_size_px[0], self.frame_size_px[1] / self.map_size_px[1]

    def points_on_image(self, x: Places, y: Places) -> tuple[Places, Places]:
        """Places on the map as places in the image."""
        down, across = self.scale
        x, y = x * across, y * down
        if self.turn is None:
            return x, y
        a, b, c, d, e, f = self.turn
        return a * x + b * y + c, d * x + e * y + f

    def plane_on_frame(self, plane: NDArray[np.float32]) -> NDArray[np.float32]:
        """A plane of the image's size as the frame sees it; 0 where the frame reaches beyond the image."""
        return plane if self.turn is None else warp_plane(plane, self.turn, self.frame_size_px)

    def plane_on_map(self, plane: NDArray[np.float32]) -> NDArray[np.float32]:
        """A plane of the image's size at the map's; 0 where the frame reaches beyond the image."""
        return resize_plane(self.plane_on_frame(plane), self.map_size_px)

    def mask_on_map(self, mask: NDArray[np.bool_], *, at_least: float = 0.5) -> NDArray[np.bool_]:
        """A mask of the image's size at the map's; False where the frame reaches beyond the image.

        Args:
            mask: (H, W) of the image.
            at_least: see `resize_mask`.
        """
        if self.turn is None:
            return mask if mask.shape == self.map_size_px else resize_mask(mask, self.map_size_px, at_least=at_least)
        return self.plane_on_map(mask.astype(np.float32)) >= at_least

    def plane_on_image(
        self, plane: NDArray[np.float32], *, size_px: tuple[int, int] | None = None, outside: float
    ) -> NDArray[np.float32]:
        """A plane of the map's size on the image.

        Args:
            plane: (H, W) of the map.
            size_px: (height, width) to which the image was resized; None for its own.
            outside: the value where the frame does not reach.
        """
        size_px = self.image_size_px if size_px is None else size_px
        if self.turn is None:
            return plane if plane.shape == size_px else resize_plane(plane, size_px)
        # As far as the picture is smaller than the map, the map is made smaller first: a warp reads four neighbours.
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
        """A mask of the map's size on the image: every pixel that it touches.

        Args:
            mask: (H, W) of the map.
            outside: whether the mask counts as True where the frame does not reach.
        """
        return self.plane_on_image(mask.astype(np.float32), outside=float(outside)) >= TOUCHED


def warp_plane(
    plane: NDArray[np.float32], places: Affine, size_px: tuple[int, int], *, outside: float = 0.0
) -> NDArray[np.float32]:
    """A plane read at other places, bilinear.

    Args:
        plane: (H, W).
        places: where in it each place of the result is read.
        size_px: (height, width) of the result.
        outside: the value of places beyond it.
    """
    return np.array(
        Image.fromarray(plane).transform(
            size_px[::-1], Image.Transform.AFFINE, places, Image.Resampling.BILINEAR, fillcolor=outside
        )
    )


def warp_pixels(pixels: NDArray[np.uint8], places: Affine, size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """`warp_plane` of an image (H, W, 3); black beyond it."""
    image = Image.fromarray(pixels)
    return np.array(image.transform(size_px[::-1], Image.Transform.AFFINE, places, Image.Resampling.BILINEAR))


def chained(first: Affine, then: Affine) -> Affine:
    """The map that does one after the other."""
    a, b, c, d, e, f = first
    p, q, r, s, t, u = then
    return (p * a + q * d, p * b + q * e, p * c + q * f + r, s * a + t * d, s * b + t * e, s * c + t * f + u)


def inverse(affine: Affine) -> Affine:
    """The map back."""
    a, b, c, d, e, f = affine
    area = a * e - b * d
    p, q, s, t = e / area, -b / area, -d / area, a / area
    return (p, q, -(p * c + q * f), s, t, -(s * c + t * f))


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
