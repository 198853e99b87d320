"""Tiles: where they lie on an image, their pixels, and how their maps are blended into one. No torch.

A tile begins at a multiple of the network's largest stride, so that a position of its feature maps covers the same
pixels as in a neighbouring tile. Near those edges of a tile that lie inside the image, the tile's map depends on the
zero padding of the convolutions: there the neighbour's map is used, from the middle of their overlap on. See
docs/decisions/0017-views.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)
# Length over which one tile's weight passes to the next: share of the overlap or of the tile step, and maximum.
_HAND_OVER, _MOST_HAND_OVER_PX = 0.5, 16.0


@dataclass(frozen=True, kw_only=True)
class TileGrid:
    """The tiles of a map.

    Attributes:
        map_size_px: (height, width) of the map that is covered.
        tile_size_px: (height, width) of a tile, the network's input; a tile may reach beyond the map.
        tops: first row of each row of tiles, ascending.
        lefts: first column of each column of tiles.
    """

    map_size_px: tuple[int, int]
    tile_size_px: tuple[int, int]
    tops: tuple[int, ...] = (0,)
    lefts: tuple[int, ...] = (0,)

    @classmethod
    def of(
        cls, map_size_px: tuple[int, int], tile_size_px: tuple[int, int], *, overlap: float, step_px: int
    ) -> TileGrid:
        """Return tiles that cover a map, spread evenly.

        Args:
            map_size_px: (height, width).
            tile_size_px: (height, width).
            overlap: smallest share of a tile that it has in common with the next tile; tiles that only touch have none.
            step_px: tiles begin at multiples of this number.
        """
        tops, lefts = (
            _starts(size, tile, overlap, step_px) for size, tile in zip(map_size_px, tile_size_px, strict=True)
        )
        return cls(map_size_px=map_size_px, tile_size_px=tile_size_px, tops=tops, lefts=lefts)

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def corner(self, tile: int) -> tuple[int, int]:
        """Return the first row and column of a tile; tiles are numbered row by row."""
        row, column = divmod(tile, len(self.lefts))
        return self.tops[row], self.lefts[column]

    def crop(self, plane: NDArray[T], tile: int) -> NDArray[T]:
        """Return a tile's region of a plane (H, W) or an image (H, W, 3) of the map's size, without a copy."""
        top, left = self.corner(tile)
        return plane[top : top + self.tile_size_px[0], left : left + self.tile_size_px[1]]

    def pixels(self, image: NDArray[np.uint8], tile: int) -> NDArray[np.uint8]:
        """Return a tile's pixels (height, width, 3) of an image (H, W, 3), mirrored beyond the image."""
        cropped = self.crop(image, tile)
        missing = [(0, want - have) for want, have in zip(self.tile_size_px, cropped.shape, strict=False)]
        return np.pad(cropped, [*missing, (0, 0)], mode="symmetric") if any(after for _, after in missing) else cropped

    def plane(self, plane: NDArray[T] | None, tile: int, *, beyond: Any) -> NDArray[T]:
        """Return a tile's values of a plane (H, W) of the map's size.

        Args:
            plane: the plane; None for a plane of False.
            tile: number of the tile.
            beyond: the value beyond the map.
        """
        result = np.full(self.tile_size_px, beyond, dtype=bool if plane is None else plane.dtype)
        top, left = self.corner(tile)
        inside = result[: self.map_size_px[0] - top, : self.map_size_px[1] - left]
        inside[:] = False if plane is None else self.crop(plane, tile)
        return result

    def reaches_beyond(self, tile: int) -> bool:
        """Check whether a tile reaches beyond the map."""
        top, left = self.corner(tile)
        return top + self.tile_size_px[0] > self.map_size_px[0] or left + self.tile_size_px[1] > self.map_size_px[1]

    def add(self, blended: NDArray[np.float32], map_logit: NDArray[np.float32], tile: int) -> None:
        """Add the map of a tile, times its weights, to the map of the whole image, which starts from zeros."""
        row, column = divmod(tile, len(self.lefts))
        rows, columns = self._weights
        target = self.crop(blended, tile)
        height, width = target.shape
        top, left = self.corner(tile)
        weight = rows[row, top : top + height, None] * columns[column, None, left : left + width]
        target += map_logit[:height, :width] * weight

    def own(self, tile: int) -> tuple[slice, slice]:
        """Return the rows and columns in which a tile has the largest weight of all; each pixel belongs to one tile."""
        row, column = divmod(tile, len(self.lefts))
        own = []
        for weights, number, start in zip(self._weights, (row, column), self.corner(tile), strict=True):
            places = np.flatnonzero(weights.argmax(axis=0) == number) - start
            own.append(slice(int(places[0]), int(places[-1]) + 1))
        return own[0], own[1]

    @cached_property
    def _weights(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rows, columns = (
            _axis_weights(starts, tile, size)
            for starts, tile, size in zip((self.tops, self.lefts), self.tile_size_px, self.map_size_px, strict=True)
        )
        return rows, columns


def _starts(size: int, tile: int, overlap: float, step_px: int) -> tuple[int, ...]:
    if size <= tile:
        return (0,)
    stride = max(step_px, int(tile * (1 - overlap)) // step_px * step_px)
    last = -(-(size - tile) // step_px) * step_px
    count = -(-last // stride) + 1
    return tuple(last * place // (count - 1) // step_px * step_px for place in range(count))


def _axis_weights(starts: tuple[int, ...], tile: int, size: int) -> NDArray[np.float32]:
    """Return the weight of each tile along an axis, (tiles, size); each column sums to 1.

    The weight passes from one tile to the next in the middle of their overlap, over a short distance.
    """
    place = np.arange(size, dtype=np.float64) + 0.5
    weights = np.ones((len(starts), size))
    for number, (before, start) in enumerate(pairwise(starts), start=1):
        overlap = before + tile - start
        way = max(1.0, min(_HAND_OVER * min(overlap, start - before), _MOST_HAND_OVER_PX))
        risen = np.clip((place - (start + overlap / 2)) / way + 0.5, 0, 1)
        weights[number] *= risen
        weights[number - 1] *= 1 - risen
    shares: NDArray[np.float32] = (weights / weights.sum(axis=0)).astype(np.float32)
    return shares
