"""From the map to a list of defects, and the level a map reaches over an area. No torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from supersimplenet.placement import Placement
from supersimplenet.records import Defect
from supersimplenet.regions import Runs, find_runs

EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)
_HALVINGS = 16  # of the range of a map's values: a logit of the 65 536th part of it


def find_defects(
    map_logit: NDArray[np.float32], *, pixel_logit: float, min_area_px: int, placement: Placement
) -> tuple[Defect, ...]:
    """Regions of the map at or above a level, 8-connected, by falling peak.

    Args:
        map_logit: (H, W).
        pixel_logit: the level.
        min_area_px: regions of fewer pixels of the map are left out.
        placement: where the map lies on the image; boxes, areas and centroids are in the image's pixels.
    """
    if map_logit.max() < pixel_logit:
        return ()
    above = map_logit >= pixel_logit
    runs = find_runs(above)
    region, length = runs.region, runs.length
    areas = runs.areas()
    peaks = np.full(runs.regions, -np.inf, dtype=map_logit.dtype)
    np.maximum.at(peaks, region, np.maximum.reduceat(map_logit[above], np.cumsum(length) - length))
    ys = np.bincount(region, runs.row * length) / areas
    xs = np.bincount(region, (runs.start + runs.stop - 1) / 2 * length) / areas
    # The middle of a pixel lies half a pixel from its edge.
    centre_x, centre_y = placement.points_on_image(xs + 0.5, ys + 0.5)
    left, top, right, bottom = _boxes(runs, placement)
    down, across = placement.scale
    defects = [
        Defect(
            left=int(left[place]),
            top=int(top[place]),
            width=int(right[place] - left[place]),
            height=int(bottom[place] - top[place]),
            area_px=round(float(areas[place] * down * across), 1),
            peak_logit=float(peaks[place]),
            centroid_x=round(float(centre_x[place] - 0.5), 1),
            centroid_y=round(float(centre_y[place] - 0.5), 1),
        )
        for place in np.flatnonzero(areas >= min_area_px).tolist()
    ]
    return tuple(sorted(defects, key=lambda defect: -defect.peak_logit))


def _boxes(runs: Runs, placement: Placement) -> list[NDArray[np.int64]]:
    """Left, top, right and bottom of each region on the image, in whole pixels that hold all of it."""
    starts = np.full((runs.regions, 2), np.inf)
    stops = np.full((runs.regions, 2), -np.inf)
    # Where the map is turned on the image, any corner of any run may reach farthest.
    for x, y in ((runs.start, runs.row), (runs.stop, runs.row), (runs.start, runs.row + 1), (runs.stop, runs.row + 1)):
        corner = np.stack(placement.points_on_image(x.astype(np.float64), y.astype(np.float64)), axis=1)
        np.minimum.at(starts, runs.region, corner)
        np.maximum.at(stops, runs.region, corner)
    height, width = placement.image_size_px
    left, top = np.floor(starts).clip(0, (width, height)).astype(np.int64).T
    right, bottom = np.ceil(stops).clip(0, (width, height)).astype(np.int64).T
    return [left, top, right, bottom]


def level_of_area(map_logit: NDArray[np.float32], min_area_px: int) -> float:
    """The highest level at which the map has a region of at least that many pixels: what `find_defects` would need.

    Args:
        map_logit: (H, W).
        min_area_px: at least 1; more pixels than the map has are taken for all of them.

    Returns:
        A logit, rounded up by less than the 65 536th part of the map's range; the map's maximum for one pixel.
    """
    values = map_logit.ravel()
    if min_area_px <= 1:
        return float(values.max())
    area = min(min_area_px, values.size)
    # No region is larger than all pixels above its level, and at the map's minimum there is one region.
    reaches, misses = float(values.min()), float(np.partition(values, values.size - area)[values.size - area])
    if _largest_region(map_logit >= misses) >= area:
        return misses
    for _ in range(_HALVINGS):
        middle = (reaches + misses) / 2
        if _largest_region(map_logit >= middle) >= area:
            reaches = middle
        else:
            misses = middle
    return misses


def _largest_region(above: NDArray[np.bool_]) -> int:
    return int(find_runs(above).areas().max(initial=0))
