"""Tiles: where they lie on an image, what each shows, and how their maps become one. No torch.

A tile begins at a multiple of the network's largest stride, so that a position of its feature maps looks at the same
pixels as in a neighbouring tile. What a tile says near an edge of its own, inside the image, rests on the zeros by
which convolutions continue it: there the neighbour speaks, from the middle of what they share. See
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
# Over how much one tile hands over to the next: of an overlap, or of the way from tile to tile, and at most.
_HAND_OVER, _MOST_HAND_OVER_PX = 0.5, 16.0


@dataclass(frozen=True, kw_only=True)
class TileGrid:
    """The tiles of a map.

    Attributes:
        map_size_px: (height, width) of what is covered.
        tile_size_px: (height, width) of a tile, the network's input; a tile may reach beyond the map.
        tops: first row of each row of tiles, rising.
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
        """Tiles that cover a map, spread evenly.

        Args:
            map_size_px: (height, width).
            tile_size_px: (height, width).
            overlap: share of a tile that it has in common with the next one, at least; tiles that touch share nothing.
            step_px: tiles begin at its multiples.
        """
        tops, lefts = (
            _starts(size, tile, overlap, step_px) for size, tile in zip(map_size_px, tile_size_px, strict=True)
        )
        return cls(map_size_px=map_size_px, tile_size_px=tile_size_px, tops=tops, lefts=lefts)

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def corner(self, tile: int) -> tuple[int, int]:
        """First row and column of a tile; tiles are counted row by row."""
        row, column = divmod(tile, len(self.lefts))
        return self.tops[row], self.lefts[column]

    def part(self, plane: NDArray[T], tile: int) -> NDArray[T]:
        """What of a plane (H, W) or an image (H, W, 3) of the map's size lies in a tile; a view, no copy."""
        top, left = self.corner(tile)
        return plane[top : top + self.tile_size_px[0], left : left + self.tile_size_px[1]]

    def pixels(self, image: NDArray[np.uint8], tile: int) -> NDArray[np.uint8]:
        """What a tile shows of an image (H, W, 3): (height, width, 3) of a tile, mirrored beyond the image."""
        part = self.part(image, tile)
        missing = [(0, want - have) for want, have in zip(self.tile_size_px, part.shape, strict=False)]
        return np.pad(part, [*missing, (0, 0)], mode="symmetric") if any(after for _, after in missing) else part

    def plane(self, plane: NDArray[T] | None, tile: int, *, beyond: Any) -> NDArray[T]:
        """What lies in a tile of a plane (H, W) of the map's size.

        Args:
            plane: the plane; None for one of False.
            tile: which.
            beyond: the value beyond the map.
        """
        result = np.full(self.tile_size_px, beyond, dtype=bool if plane is None else plane.dtype)
        top, left = self.corner(tile)
        inside = result[: self.map_size_px[0] - top, : self.map_size_px[1] - left]
        inside[:] = False if plane is None else self.part(plane, tile)
        return result

    def reaches_beyond(self, tile: int) -> bool:
        """Whether some of a tile lies beyond the map."""
        top, left = self.corner(tile)
        return top + self.tile_size_px[0] > self.map_size_px[0] or left + self.tile_size_px[1] > self.map_size_px[1]

    def add(self, blended: NDArray[np.float32], map_logit: NDArray[np.float32], tile: int) -> None:
        """Add the map of a tile, by its weights, to the map of the whole, which starts from zeros."""
        row, column = divmod(tile, len(self.lefts))
        rows, columns = self._weights
        target = self.part(blended, tile)
        height, width = target.shape
        top, left = self.corner(tile)
        weight = rows[row, top : top + height, None] * columns[column, None, left : left + width]
        target += map_logit[:height, :width] * weight

    def own(self, tile: int) -> tuple[slice, slice]:
        """Rows and columns of a tile in which it has more to say than any other: each pixel is in one tile's."""
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
    """(tiles, size): what each tile's say is along an axis; each column sums to 1.

    One tile hands over to the next in the middle of what they share, over a short way.
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
