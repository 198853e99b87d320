"""From the map to a list of defects, and the level a map reaches over an area. No torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from supersimplenet.records import Defect

EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)
_HALVINGS = 16  # of the range of a map's values: a logit of the 65 536th part of it


def find_defects(
    map_logit: NDArray[np.float32], *, pixel_logit: float, min_area_px: int, image_size_px: tuple[int, int]
) -> tuple[Defect, ...]:
    """Regions of the map at or above a level, 8-connected, by falling peak.

    Args:
        map_logit: (H, W).
        pixel_logit: the level.
        min_area_px: regions of fewer pixels of the map are left out.
        image_size_px: height and width of the image; boxes, areas and centroids are in its pixels.
    """
    if map_logit.max() < pixel_logit:
        return ()
    region, count = ndimage.label(map_logit >= pixel_logit, structure=EIGHT_CONNECTED)
    numbers = np.arange(1, count + 1)
    areas = np.bincount(region.ravel(), minlength=count + 1)[1:]
    peaks = ndimage.maximum(map_logit, region, numbers)
    centroids = np.array(ndimage.center_of_mass(region > 0, region, numbers))  # (count, 2), y and x
    down, across = image_size_px[0] / map_logit.shape[0], image_size_px[1] / map_logit.shape[1]
    defects = []
    for area, peak, (y, x), box in zip(areas, peaks, centroids, ndimage.find_objects(region), strict=True):
        if area < min_area_px:
            continue
        top, bottom = int(np.floor(box[0].start * down)), int(np.ceil(box[0].stop * down))
        left, right = int(np.floor(box[1].start * across)), int(np.ceil(box[1].stop * across))
        defects.append(
            Defect(
                left=left,
                top=top,
                width=right - left,
                height=bottom - top,
                area_px=round(float(area * down * across), 1),
                peak_logit=float(peak),
                # The middle of a pixel lies half a pixel from its edge.
                centroid_x=round(float((x + 0.5) * across - 0.5), 1),
                centroid_y=round(float((y + 0.5) * down - 0.5), 1),
            )
        )
    return tuple(sorted(defects, key=lambda defect: -defect.peak_logit))


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
    region, _ = ndimage.label(above, structure=EIGHT_CONNECTED)
    return int(np.bincount(region.ravel())[1:].max(initial=0))
