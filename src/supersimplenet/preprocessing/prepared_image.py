"""An image as the network sees it: its pixels, how they are laid out, and its tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supersimplenet.preprocessing.alignment import Alignment
from supersimplenet.preprocessing.geometry import Placement
from supersimplenet.preprocessing.tiling import TileGrid


@dataclass(frozen=True, kw_only=True)
class Tile:
    """An input of the network.

    Attributes:
        number: of the tile in its grid.
        pixels: (H, W, 3) uint8.
        ignored: (H, W) bool, None where every pixel counts.
        scores: whether so much of it counts that the classification head's score says something.
    """

    number: int
    pixels: NDArray[np.uint8]
    ignored: NDArray[np.bool_] | None
    scores: bool


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How an image is laid out before the network.

    Attributes:
        placement: where the map lies on the image.
        grid: the tiles of the map.
        ignored: (h, w) bool of the map, pixels that count nowhere; None for none.
        least_px: a tile scores where a square of this side counts in it.
        alignment: None where images are not aligned.
    """

    placement: Placement
    grid: TileGrid
    ignored: NDArray[np.bool_] | None
    least_px: int
    alignment: Alignment | None = None

    def ignored_in(self, tile: int) -> NDArray[np.bool_] | None:
        """(H, W) of a tile, pixels that count nowhere; None for none."""
        if self.ignored is None and not self.grid.reaches_beyond(tile):
            return None
        ignored = self.grid.plane(self.ignored, tile, beyond=True)
        return ignored if ignored.any() else None

    def scores(self, ignored: NDArray[np.bool_] | None) -> bool:
        """Whether enough of a tile counts that the classification head's score says something."""
        return ignored is None or holds_square(~ignored, self.least_px)

    @property
    def holds_anything(self) -> bool:
        """Whether any tile scores."""
        return any(self.scores(self.ignored_in(tile)) for tile in range(len(self.grid)))


@dataclass(frozen=True, kw_only=True)
class PreparedImage:
    """An image, ready for the network.

    Attributes:
        pixels: (h, w, 3) uint8, what the map covers.
        layout: how it is laid out.
    """

    pixels: NDArray[np.uint8]
    layout: Layout

    def tile_pixels(self, tile: int) -> NDArray[np.uint8]:
        """(H, W, 3) of a tile."""
        return self.layout.grid.pixels(self.pixels, tile)

    def tiles(self) -> Iterator[Tile]:
        """The tiles in which something counts."""
        for number in range(len(self.layout.grid)):
            ignored = self.layout.ignored_in(number)
            if ignored is not None and ignored.all():
                continue
            scores = self.layout.scores(ignored)
            yield Tile(
                number=number,
                pixels=self.tile_pixels(number),
                ignored=ignored if scores else None,  # so little would leave the network nothing to go by
                scores=scores,
            )


def holds_square(counted: NDArray[np.bool_], side_px: int) -> bool:
    """Whether a mask holds a square of that side, or all of an axis that is shorter."""
    for axis, size in enumerate(counted.shape):
        side = min(side_px, size)
        sums = np.cumsum(counted, axis=axis, dtype=np.int32)
        ends = np.take(sums, range(side - 1, size), axis=axis)
        before = np.take(sums, range(size - side), axis=axis)
        ends[(slice(None),) * axis + (slice(1, None),)] -= before
        counted = ends == side
    return bool(counted.any())
