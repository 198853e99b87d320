"""An image prepared for the network: its pixels, its layout and its tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from supersimplenet.preprocessing.alignment import Alignment
from supersimplenet.preprocessing.geometry import Placement
from supersimplenet.preprocessing.images import ImageFacts
from supersimplenet.preprocessing.reading import FULL_RANGE, ReadConfig
from supersimplenet.preprocessing.tiling import TileGrid


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A tile of an image: one input of the network.

    Attributes:
        number: number of the tile in its grid.
        pixels: (H, W, 3) uint8.
        ignored: (H, W) bool, None where every pixel counts.
        scores: whether enough of the tile counts for the classification head's score to be meaningful.
    """

    number: int
    pixels: NDArray[np.uint8]
    ignored: NDArray[np.bool_] | None
    scores: bool


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How an image is laid out for the network.

    Attributes:
        placement: where the map lies on the image.
        grid: the tiles of the map.
        ignored: (h, w) bool of the map, pixels that count nowhere; None for none.
        least_px: a tile has a score if all pixels of a square of this side in the tile count.
        reading: how the image was read.
        alignment: how the image was aligned; None where images are not aligned.
    """

    placement: Placement
    grid: TileGrid
    ignored: NDArray[np.bool_] | None
    least_px: int
    reading: ReadConfig = FULL_RANGE
    alignment: Alignment | None = None

    def ignored_in(self, tile: int) -> NDArray[np.bool_] | None:
        """Return the pixels (H, W) of a tile that count nowhere; None for none."""
        if self.ignored is None and not self.grid.reaches_beyond(tile):
            return None
        ignored = self.grid.plane(self.ignored, tile, beyond=True)
        return ignored if ignored.any() else None

    def scores(self, ignored: NDArray[np.bool_] | None) -> bool:
        """Check whether enough of a tile counts for the classification head's score to be meaningful."""
        return ignored is None or holds_square(~ignored, self.least_px)

    @property
    def holds_anything(self) -> bool:
        """Whether any tile has a score."""
        return any(self.scores(self.ignored_in(tile)) for tile in range(len(self.grid)))


@dataclass(frozen=True, kw_only=True)
class PreparedImage:
    """An image, ready for the network.

    Attributes:
        pixels: (h, w, 3) uint8, the area that the map covers.
        layout: how the image is laid out.
        facts: facts about the image file, if they were requested.
    """

    pixels: NDArray[np.uint8]
    layout: Layout
    facts: ImageFacts | None = None

    def tile_pixels(self, tile: int) -> NDArray[np.uint8]:
        """Return the pixels (H, W, 3) of a tile."""
        return self.layout.grid.pixels(self.pixels, tile)

    def tiles(self) -> Iterator[Tile]:
        """Yield the tiles in which any pixel counts."""
        for number in range(len(self.layout.grid)):
            ignored = self.layout.ignored_in(number)
            if ignored is not None and ignored.all():
                continue
            scores = self.layout.scores(ignored)
            yield Tile(
                number=number,
                pixels=self.tile_pixels(number),
                ignored=ignored if scores else None,  # so few counted pixels would leave the network nothing to use
                scores=scores,
            )


def holds_square(counted: NDArray[np.bool_], side_px: int) -> bool:
    """Check whether a mask holds a square of this side, cut to the length of any axis that is shorter."""
    for axis, size in enumerate(counted.shape):
        side = min(side_px, size)
        sums = np.cumsum(counted, axis=axis, dtype=np.int32)
        ends = np.take(sums, range(side - 1, size), axis=axis)
        before = np.take(sums, range(size - side), axis=axis)
        ends[(slice(None),) * axis + (slice(1, None),)] -= before
        counted = ends == side
    return bool(counted.any())
