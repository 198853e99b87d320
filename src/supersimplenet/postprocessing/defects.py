"""Defects from the anomaly map, which of them are listed, and the level that a map reaches over an area. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from supersimplenet.postprocessing.regions import Runs, find_runs
from supersimplenet.postprocessing.zones import level_of_zones, zones_of_regions
from supersimplenet.preprocessing.geometry import Placement
from supersimplenet.types import Defect, Verdict, ZonesOnMap

_HALVINGS = 16  # of the range of a map's values: a logit is found to 1/65 536 of this range


def find_defects(
    map_logit: NDArray[np.float32],
    *,
    pixel_logit: float,
    min_area_px: int,
    placement: Placement,
    zones: ZonesOnMap | None = None,
) -> tuple[Defect, ...]:
    """Find the regions of the map at or above a level, 8-connected, by falling peak.

    Args:
        map_logit: (H, W).
        pixel_logit: the level.
        min_area_px: regions of fewer pixels of the map are left out.
        placement: where the map lies on the image; boxes, areas and centroids are in the image's pixels.
        zones: the zones on the map; the level then applies to the map less their margins, and regions that count in no
            zone are left out instead of those below ``min_area_px``.
    """
    levelled = map_logit if zones is None else zones.levelled(map_logit)
    if levelled.max() < pixel_logit:
        return ()
    above = levelled >= pixel_logit
    runs = find_runs(above)
    peaks = _peaks(levelled[above], runs)
    levels = _outline_levels(peaks, pixel_logit)
    inside = find_runs(_at_least(levelled, above, runs, levels))
    # A part of an outline lies in one region: that of the run which holds its first pixel.
    width = map_logit.shape[1]
    holder = np.searchsorted(runs.row * width + runs.start, inside.row * width + inside.start, side="right") - 1
    outlines = replace(inside, region=runs.region[holder], regions=runs.regions)
    if zones is None:
        return _measured(runs, peaks, outlines, levels, kept=runs.areas() >= min_area_px, placement=placement)
    numbers = zones_of_regions(runs, above, zones)
    return _measured(
        runs,
        _peaks(map_logit[above], runs),
        outlines,
        levels,
        kept=numbers >= 0,
        placement=placement,
        zones=[zones.names[number] for number in numbers],
    )


def outline_mask(
    map_logit: NDArray[np.float32], *, pixel_logit: float, min_area_px: int, zones: ZonesOnMap | None = None
) -> NDArray[np.bool_]:
    """Return the pixels (H, W) within the drawn outlines of the regions that `find_defects` finds.

    The outline of a region lies halfway between the pixel threshold and the region's peak, in logits: the map falls
    steeply there, while the threshold may lie far out on its slope. docs/decisions/0032-what-is-drawn.md has figures.
    """
    above = region_mask(map_logit, pixel_logit=pixel_logit, min_area_px=min_area_px, zones=zones)
    if not above.any():
        return above
    levelled, runs = map_logit if zones is None else zones.levelled(map_logit), find_runs(above)
    return _at_least(levelled, above, runs, _outline_levels(_peaks(levelled[above], runs), pixel_logit))


def _peaks(values: NDArray[np.float32], runs: Runs) -> NDArray[np.float32]:
    """Return the largest value in each region; ``values`` are those of its mask's pixels, in reading order."""
    peaks = np.full(runs.regions, -np.inf, dtype=values.dtype)
    np.maximum.at(peaks, runs.region, np.maximum.reduceat(values, np.cumsum(runs.length) - runs.length))
    return peaks


def _outline_levels(peaks: NDArray[np.float32], pixel_logit: float) -> NDArray[np.float32]:
    levels: NDArray[np.float32] = peaks - (peaks - np.float32(pixel_logit)) / 2  # never above the peak by rounding
    return levels


def _at_least(
    map_logit: NDArray[np.float32], mask: NDArray[np.bool_], runs: Runs, levels: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Return the pixels of a mask's regions that reach the level of their region."""
    reached = np.zeros_like(mask)
    reached[mask] = map_logit[mask] >= np.repeat(levels[runs.region], runs.length)
    return reached


def _measured(
    runs: Runs,
    peaks: NDArray[np.float32],
    outlines: Runs,
    levels: NDArray[np.float32],
    *,
    kept: NDArray[np.bool_],
    placement: Placement,
    zones: Sequence[str | None] | None = None,
) -> tuple[Defect, ...]:
    """Measure the regions that are kept on the image, and their outlines; they come by falling peak."""
    region, length = runs.region, runs.length
    areas, outlined = runs.areas(), outlines.areas()
    ys = np.bincount(region, runs.row * length) / areas
    xs = np.bincount(region, (runs.start + runs.stop - 1) / 2 * length) / areas
    # The centre of a pixel lies half a pixel from its edge.
    centre_x, centre_y = placement.points_on_image(xs + 0.5, ys + 0.5)
    left, top, right, bottom = _boxes(runs, placement)
    inner_left, inner_top, inner_right, inner_bottom = _boxes(outlines, placement)
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
            outline_logit=float(levels[place]),
            outline_left=int(inner_left[place]),
            outline_top=int(inner_top[place]),
            outline_width=int(inner_right[place] - inner_left[place]),
            outline_height=int(inner_bottom[place] - inner_top[place]),
            outline_area_px=round(float(outlined[place] * down * across), 1),
            zone=None if zones is None else zones[place],
        )
        for place in np.flatnonzero(kept).tolist()
    ]
    return tuple(sorted(defects, key=lambda defect: -defect.peak_logit))


def counted_map(map_logit: NDArray[np.float32], ignored: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """Return a map (H, W) in which pixels that count in no score and no defect are minus infinity."""
    return map_logit if ignored is None else np.where(ignored, np.float32(-np.inf), map_logit)


def find_peak(map_logit: NDArray[np.float32], *, placement: Placement, zones: ZonesOnMap | None = None) -> Defect:
    """Return where the map is highest: one pixel of the map, the first of equals, marked ``below_threshold``.

    With zones it is the highest pixel, less the margins, of the region that gives the score: a higher one that is too
    small to count in its zone is no reason for a verdict.

    Args:
        map_logit: (H, W); ignored pixels come as minus infinity.
        placement: where the map lies on the image.
        zones: the zones on the map.
    """
    zone = None
    if zones is None:
        at = int(map_logit.argmax())
    else:
        levelled, level = zones.levelled(map_logit), level_of_zones(map_logit, zones)
        mask = levelled >= level
        runs = find_runs(mask)
        numbers = zones_of_regions(runs, mask, zones)
        pixels = np.flatnonzero(mask)
        of_pixels = numbers[np.repeat(runs.region, runs.length)]
        counts = of_pixels >= 0 if (of_pixels >= 0).any() else np.ones(pixels.size, dtype=bool)
        first = int(levelled.reshape(-1)[pixels[counts]].argmax())
        at, number = int(pixels[counts][first]), int(of_pixels[counts][first])
        zone = zones.names[number] if number >= 0 else None
    row, column = np.divmod(np.array([at]), map_logit.shape[1])
    pixel = Runs(row=row, start=column, stop=column + 1, region=np.zeros(1, np.int64), regions=1)
    value = map_logit.reshape(-1)[[at]]
    own = value if zones is None else zones.levelled(map_logit).reshape(-1)[[at]]
    (peak,) = _measured(pixel, value, pixel, own, kept=np.ones(1, dtype=bool), placement=placement, zones=[zone])
    return replace(peak, below_threshold=True)


def listed_defects(
    verdict: Verdict, regions: tuple[Defect, ...], peak: Callable[[], Defect], *, list_all: bool = False
) -> tuple[Defect, ...]:
    """Return which defects are listed for an image, so that list and verdict never contradict each other.

    For a good image none; for a bad or unsure one all regions, and where there is none, the map's peak. The rule stands
    here alone, and once more in the report's page, which follows it at the slider's threshold.
    docs/decisions/0025-one-verdict.md gives the reasons.

    Args:
        verdict: the image's verdict.
        regions: the regions that `find_defects` finds at the pixel threshold.
        peak: returns where the map is highest; see `find_peak`.
        list_all: also list the regions of a good image.
    """
    if verdict == "good":
        return regions if list_all else ()
    return regions or (peak(),)


def region_mask(
    map_logit: NDArray[np.float32], *, pixel_logit: float, min_area_px: int, zones: ZonesOnMap | None = None
) -> NDArray[np.bool_]:
    """Return the pixels (H, W) of the regions that `find_defects` finds."""
    above = (map_logit if zones is None else zones.levelled(map_logit)) >= pixel_logit
    runs = find_runs(above)
    kept = runs.areas() >= min_area_px if zones is None else zones_of_regions(runs, above, zones) >= 0
    above[above] = np.repeat(kept[runs.region], runs.length)  # runs and pixels are in reading order
    return above


def _boxes(runs: Runs, placement: Placement) -> list[NDArray[np.int64]]:
    """Return left, top, right and bottom of each region on the image, in whole pixels that enclose all of it."""
    starts = np.full((runs.regions, 2), np.inf)
    stops = np.full((runs.regions, 2), -np.inf)
    # Where the map is rotated on the image, any corner of any run may be the outermost one.
    for x, y in ((runs.start, runs.row), (runs.stop, runs.row), (runs.start, runs.row + 1), (runs.stop, runs.row + 1)):
        corner = np.stack(placement.points_on_image(x.astype(np.float64), y.astype(np.float64)), axis=1)
        np.minimum.at(starts, runs.region, corner)
        np.maximum.at(stops, runs.region, corner)
    height, width = placement.image_size_px
    left, top = np.floor(starts).clip(0, (width, height)).astype(np.int64).T
    right, bottom = np.ceil(stops).clip(0, (width, height)).astype(np.int64).T
    return [left, top, right, bottom]


def level_of_area(map_logit: NDArray[np.float32], min_area_px: int) -> float:
    """Return the highest ``pixel_logit`` at which `find_defects` finds a region of at least that many pixels.

    Args:
        map_logit: (H, W).
        min_area_px: at least 1; a number above that of the map's pixels means all of them.

    Returns:
        A logit, rounded up by less than 1/65 536 of the map's range; the map's maximum for one pixel.
    """
    values = map_logit.ravel()
    if min_area_px <= 1:
        return float(values.max())
    area = min(min_area_px, values.size)
    # No region is larger than all pixels at or above its level, and at the map's minimum there is one region.
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
