"""The regions of a mask on a coarser map, where one that covers no position by half disappears."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from supersimplenet.preprocessing.geometry import HALF, TOUCHED, Placement, resize_weights
from supersimplenet.preprocessing.resizing import nearest_plane

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROUNDING = 1e-5  # of the shares, which are computed in float32


@dataclass(frozen=True, kw_only=True)
class Cover:
    """What a region covers of a map.

    Attributes:
        corner: row and column of the map at which ``share`` begins.
        share: (r, c) float32, share of each position that the region covers; empty where it touches none.
    """

    corner: tuple[int, int]
    share: NDArray[np.float32]

    @property
    def touches(self) -> bool:
        """Whether the region touches any position."""
        return bool(self.share.max(initial=0.0) >= TOUCHED)

    @property
    def amount(self) -> float:
        """How much of the region the map shows, in positions."""
        return float(self.share.sum())

    @property
    def best(self) -> tuple[int, int]:
        """Row and column of the position that the region covers best; it must touch one."""
        row, column = np.unravel_index(int(self.share.argmax()), self.share.shape)
        return self.corner[0] + int(row), self.corner[1] + int(column)

    def touched(self, size: tuple[int, int]) -> NDArray[np.bool_]:
        """Return the positions (h, w) of a map of this size that the region touches."""
        plane = np.zeros(size, dtype=bool)
        (top, left), (height, width) = self.corner, self.share.shape
        plane[top : top + height, left : left + width] = self.share >= TOUCHED
        return plane

    def survives(self, defective: NDArray[np.bool_]) -> bool:
        """Check whether the region itself, without its neighbours, is half of a position that counts as defective."""
        (top, left), (height, width) = self.corner, self.share.shape
        of_region = defective[top : top + height, left : left + width]
        return bool((of_region & (self.share >= HALF - _ROUNDING)).any())


class Regions:
    """The 8-connected regions of a mask.

    Args:
        plane: (H, W) bool, or float32 in [0, 1] where the mask was warped.
    """

    def __init__(self, plane: NDArray[np.bool_] | NDArray[np.float32]) -> None:
        self._plane = plane
        self._region, _ = ndimage.label(plane >= TOUCHED, structure=ndimage.generate_binary_structure(2, 2))
        self._boxes = ndimage.find_objects(self._region)

    def __len__(self) -> int:
        return len(self._boxes)

    def missed(self, size_px: tuple[int, int]) -> int:
        """Count the regions that no pixel shows when each pixel of (height, width) is the nearest of the mask."""
        return len(self) - np.setdiff1d(nearest_plane(self._region, size_px), 0).size

    def covers(self, rows: NDArray[np.float32], columns: NDArray[np.float32]) -> list[Cover]:
        """Return what each region covers of a map.

        Args:
            rows: (h, H), the share of each row of the mask in each row of the map; see `resize_weights`.
            columns: (w, W), the same for the columns.
        """
        found = []
        for number, (down, across) in enumerate(self._boxes, start=1):
            of_rows, of_columns = _reached(rows[:, down]), _reached(columns[:, across])
            piece = (self._plane[down, across] * (self._region[down, across] == number)).astype(np.float32)
            share = rows[of_rows, down] @ piece @ columns[of_columns, across].T
            found.append(Cover(corner=(of_rows.start, of_columns.start), share=share))
        return found


def count_lost_regions(mask: NDArray[np.bool_], placement: Placement, on_map: NDArray[np.bool_]) -> int:
    """Count the regions of a mask that no pixel of the map shows.

    Args:
        mask: (H, W) of the image.
        placement: where the map lies on the image.
        on_map: (h, w), the mask as `Placement.defects_on_map` moves it to the map.
    """
    if placement.turn is None and mask.shape == on_map.shape:
        return 0
    on_frame = placement.plane_on_frame(mask.astype(np.float32))
    if placement.resize == "bilinear":
        return Regions(on_frame).missed(placement.map_size_px)
    covers = Regions(on_frame).covers(
        *(resize_weights(length, target) for length, target in zip(on_frame.shape, on_map.shape, strict=True))
    )
    return sum(cover.touches and not cover.survives(on_map) for cover in covers)


def _reached(weights: NDArray[np.float32]) -> slice:
    """Return the rows of a map from the first to the last that has any weight."""
    places = np.flatnonzero(weights.any(axis=1))
    return slice(int(places[0]), int(places[-1]) + 1) if places.size else slice(0, 0)
