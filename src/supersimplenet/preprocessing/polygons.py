"""Areas of an image as polygons, as a region of interest and zones have them: read, checked and filled. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from supersimplenet.errors import DataError, ImageError
from supersimplenet.utils.formatting import shown_px

Polygon = tuple[tuple[float, float], ...]  # corners (x, y) in pixels, from the image's upper left
WANTED = "wanted a list of [x, y] in pixels, at least three of them, or a list of such lists"
_ASPECT_TOLERANCE = 0.01  # largest relative difference of an image's proportions from those of the image drawn on


def parse_polygons(content: Any, size_px: tuple[int, int], *, where: str) -> tuple[Polygon, ...]:
    """Return the polygons of a file's plain values: of one list of [x, y], or of a list of several such lists.

    Args:
        content: the values.
        size_px: (height, width) of the image on which they lie.
        where: file and place in it, for the error.

    Raises:
        DataError: they are no polygons on such an image.
    """
    try:
        several = isinstance(content[0][0], list)
        polygons = tuple(
            tuple((float(x), float(y)) for x, y in polygon) for polygon in (content if several else [content])
        )
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise DataError(f"{where}: not a polygon ({error}); {WANTED}") from error
    require_polygons(polygons, size_px, where=where)
    return polygons


def require_polygons(polygons: Sequence[Polygon], size_px: tuple[int, int], *, where: str) -> None:
    """Refuse polygons of fewer than three corners, and corners outside an image of (height, width).

    Raises:
        DataError: a polygon is refused.
    """
    if not polygons or any(len(polygon) < 3 for polygon in polygons):
        raise DataError(f"{where}: a polygon of fewer than three corners; {WANTED}")
    for x, y in (corner for polygon in polygons for corner in polygon):
        if not (0 <= x <= size_px[1] and 0 <= y <= size_px[0]):
            raise DataError(
                f"{where}: the corner [{x:g}, {y:g}] lies outside the image, which is {size_px[1]} px wide and "
                f"{size_px[0]} px high; corners are [x, y] from its upper left"
            )


def fill_polygons(polygons: Sequence[Polygon], size_px: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels (H, W) that any of the polygons covers, on an image of (height, width)."""
    image = Image.new("L", size_px[::-1])
    for polygon in polygons:
        ImageDraw.Draw(image).polygon(polygon, fill=255)
    return np.asarray(image) > 0


def require_proportions(frame_size_px: tuple[int, int], drawn_on_px: tuple[int, int], *, what: str, name: str) -> None:
    """Refuse an image that has other proportions than the image on which something was drawn.

    Args:
        frame_size_px: (height, width) of the image's frame.
        drawn_on_px: (height, width) of the other image.
        what: what was drawn, with its verb, such as ``the region of interest was``.
        name: name of the image.

    Raises:
        ImageError: the proportions differ by more than rounding.
    """
    (height, width), (drawn_height, drawn_width) = frame_size_px, drawn_on_px
    if abs(height * drawn_width / (width * drawn_height) - 1) > _ASPECT_TOLERANCE:
        raise ImageError(
            f"{name}: is {shown_px(frame_size_px)}, {what} drawn on {shown_px(drawn_on_px)} (height x width): the "
            "proportions differ; give images of that shape, or align them to a reference"
        )
