"""Zones of a part: where a defect counts earlier or later, and from which area on. No torch.

`Zones` are what a person draws, in pixels of an image; a calibration keeps them. `zones_on_map` brings them to a map,
and `level_of_zones` is the score that they give. docs/decisions/0040-zones.md has the reasons.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from supersimplenet.errors import CalibrationError, printable
from supersimplenet.postprocessing.regions import Runs, find_runs
from supersimplenet.preprocessing.geometry import Placement, resize_plane
from supersimplenet.preprocessing.polygons import (
    Polygon,
    fill_polygons,
    require_polygons,
    require_proportions,
)
from supersimplenet.types import ZonesOnMap, is_finite
from supersimplenet.utils.formatting import listed, shown_value

ELSEWHERE = "elsewhere"
_LARGEST_MARGIN = 100.0  # logits; a zone with this one is as good as ignored
_LARGEST_AREA_PX = 1_000_000_000
_LONGEST_NAME = 60
_MOST_ZONES = 50  # bounds what a map of many small regions costs
_LARGEST_SIDE_PX = 1 << 20
_FIRST = 4096  # highest values of a map that are sorted and searched before all others
_DRAWN_PER_PX = 4  # zones are drawn at up to so many times the sides of the map: its cost is not the image's


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """What a defect must reach outside all zones.

    Attributes:
        margin_logit: how much stronger than with margin 0 a defect must be, in logits; negative: it counts earlier.
        min_area_px: regions of fewer pixels of the map are no defects.

    Raises:
        CalibrationError: a value that no zone has.
    """

    margin_logit: float = 0.0
    min_area_px: int = 1

    def __post_init__(self) -> None:
        if not (is_finite(self.margin_logit) and abs(self.margin_logit) <= _LARGEST_MARGIN):
            wanted = f"a number of logits from {-_LARGEST_MARGIN:g} to {_LARGEST_MARGIN:g}"
            raise CalibrationError(f"margin_logit: {shown_value(self.margin_logit)}; wanted {wanted}")
        area = self.min_area_px
        if not isinstance(area, int) or isinstance(area, bool) or not 1 <= area <= _LARGEST_AREA_PX:
            wanted = f"a whole number from 1 to {_LARGEST_AREA_PX:,}"
            raise CalibrationError(f"min_area_px: {shown_value(area)}; wanted {wanted}")


@dataclass(frozen=True, kw_only=True)
class Zone(Elsewhere):
    """An area of the part, and what a defect must reach that touches it.

    Attributes:
        name: its name, one line.
        polygons: its polygons, in pixels of the image on which the zones were drawn.

    Raises:
        CalibrationError: see `Elsewhere`; or the name cannot be one.
    """

    name: str
    polygons: tuple[Polygon, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self.name
        if not name.strip() or len(name) > _LONGEST_NAME or printable(name) != name or name == ELSEWHERE:
            wanted = f"a line of 1 to {_LONGEST_NAME} characters, not '{ELSEWHERE}'"
            raise CalibrationError(f"name: {shown_value(name)}; wanted {wanted}")


@dataclass(frozen=True, kw_only=True)
class Zones:
    """All zones of a part. Where two overlap, the later one lies above the earlier.

    Attributes:
        image_size_px: (height, width) of the image on which they were drawn: of the reference where images are aligned.
        zones: the zones, at least one.
        elsewhere: what a defect must reach outside them.

    Raises:
        CalibrationError: there is no zone, too many, or two of one name.
        DataError: a polygon is none on such an image.
    """

    image_size_px: tuple[int, int]
    zones: tuple[Zone, ...]
    elsewhere: Elsewhere = field(default_factory=Elsewhere)

    def __post_init__(self) -> None:
        require_drawn_size(self.image_size_px)
        if not 1 <= len(self.zones) <= _MOST_ZONES:
            raise CalibrationError(f"zones: {len(self.zones)} of them; wanted 1 to {_MOST_ZONES}")
        names = self.names
        if twice := [name for place, name in enumerate(names) if name in names[:place]]:
            raise CalibrationError(f"zones: two are named '{twice[0]}'; give each a name of its own")
        for zone in self.zones:
            require_polygons(zone.polygons, self.image_size_px, where=f"zone '{zone.name}'")

    @property
    def names(self) -> list[str]:
        """The names of the zones, in their order."""
        return [zone.name for zone in self.zones]

    @property
    def least_area_px(self) -> int:
        """The smallest area that a defect has anywhere."""
        return min(zone.min_area_px for _, zone in self.each())

    def each(self) -> Iterator[tuple[str, Elsewhere]]:
        """Yield the name of each zone and what a defect must reach there; the last is ``elsewhere``."""
        yield from zip(self.names, self.zones, strict=True)
        yield ELSEWHERE, self.elsewhere

    def __str__(self) -> str:
        return listed([f"'{name}'" for name in self.names], "and")


def require_drawn_size(size_px: tuple[int, int]) -> None:
    """Refuse a (height, width) that no image has on which zones could be drawn.

    Raises:
        CalibrationError: it is refused.
    """
    if not all(1 <= side <= _LARGEST_SIDE_PX for side in size_px):
        wanted = f"[height, width], each 1 to {_LARGEST_SIDE_PX:,} px"
        raise CalibrationError(f"image_size_px: {shown_value(list(size_px))}; wanted {wanted}")


def zones_on_map(zones: Zones, placement: Placement, name: str) -> ZonesOnMap:
    """Return the zones on the map of an image.

    A pixel of the map belongs to the zone that covers the largest share of it.

    Args:
        zones: the zones.
        placement: where the map lies on the image.
        name: name of the image, for the error.

    Raises:
        ImageError: the image's proportions are not those of the image on which the zones were drawn.
    """
    require_proportions(placement.frame_size_px, zones.image_size_px, what="the zones were", name=name)
    return _at_size(zones, placement.map_size_px)


@lru_cache(maxsize=8)  # most images have one size
def _at_size(zones: Zones, map_size_px: tuple[int, int]) -> ZonesOnMap:
    height, width = (
        min(own, _DRAWN_PER_PX * on_map) for own, on_map in zip(zones.image_size_px, map_size_px, strict=True)
    )
    down, across = height / zones.image_size_px[0], width / zones.image_size_px[1]
    drawn = np.zeros((height, width), dtype=np.uint8)
    for place, zone in enumerate(zones.zones, start=1):
        polygons = [tuple((x * across, y * down) for x, y in polygon) for polygon in zone.polygons]
        drawn[fill_polygons(polygons, (height, width))] = place
    number = np.zeros(map_size_px, dtype=np.uint8)
    largest = np.full(map_size_px, -np.inf, dtype=np.float32)
    for place in range(len(zones.zones) + 1):
        share = resize_plane((drawn == place).astype(np.float32), map_size_px)
        covers = share >= largest
        number[covers], largest[covers] = place, share[covers]
    number.setflags(write=False)  # all images of this size share it
    each = (zones.elsewhere, *zones.zones)
    return ZonesOnMap(
        number=number,
        names=(None, *zones.names),
        margins_logit=np.array([zone.margin_logit for zone in each], dtype=np.float32),
        min_areas_px=np.array([zone.min_area_px for zone in each], dtype=np.int64),
    )


def zones_of_regions(runs: Runs, mask: NDArray[np.bool_], zones: ZonesOnMap) -> NDArray[np.int64]:
    """Return the number of the zone in which each region of a mask counts, -1 for none: (regions,).

    A region counts in a zone that it touches, by at least one pixel, if it has the zone's least area in all, inside and
    outside the zone. Of several such zones it is the strictest: that of the lowest margin, of equal ones that of the
    least area, then a zone before what lies elsewhere, then the first.

    Args:
        runs: the runs of the mask.
        mask: (H, W).
        zones: the zones on that map.
    """
    numbers = np.arange(len(zones.names))
    touched = np.zeros((runs.regions, numbers.size), dtype=bool)
    touched[np.repeat(runs.region, runs.length), zones.number[mask]] = True  # both in reading order
    strictest_first = np.lexsort((numbers == 0, zones.min_areas_px, zones.margins_logit))
    counts = (touched & (runs.areas()[:, None] >= zones.min_areas_px))[:, strictest_first]
    return np.where(counts.any(axis=1), strictest_first[counts.argmax(axis=1)], -1)


def level_of_zones(map_logit: NDArray[np.float32], zones: ZonesOnMap) -> float:
    """Return the highest level at which a region of the map counts in a zone; see `zones_of_regions`.

    A region, 8-connected, has the pixels whose value less the margin of their zone is at or above the level. It grows
    where the level falls, so what counts once counts at every lower level.

    Args:
        map_logit: (H, W) the anomaly map; pixels that count nowhere are minus infinity.
        zones: the zones on it.

    Returns:
        One of the map's values less its margin; the lowest where no region ever has the area that is wanted. With
        margin 0 and an area of 1 everywhere, the map's maximum.
    """
    levelled = zones.levelled(map_logit)
    highest = float(levelled.max())
    if not math.isfinite(highest) or zones.min_areas_px.max() == 1:
        return highest
    single = levelled[zones.min_areas_px[zones.number] == 1]  # in these zones each pixel counts
    reached = -np.inf if single.size == 0 else float(single.max())
    above = levelled[levelled > reached]
    for most in (_FIRST, above.size):  # most maps rise to few peaks, so the answer is near the top
        highest_first = np.sort(above if most >= above.size else np.partition(above, -most)[-most:])[::-1]
        place = _first_that_counts(levelled, highest_first, zones)
        if place is not None:
            return float(highest_first[place])
        if most >= above.size:
            break
    return reached if math.isfinite(reached) else float(levelled[np.isfinite(levelled)].min())


def _first_that_counts(levelled: NDArray[np.float32], falling: NDArray[np.float32], zones: ZonesOnMap) -> int | None:
    """Return the place of the highest of some values of a map at which a region counts; None where none of them is."""
    # Fewer pixels than the least area of more than one count nowhere.
    missed, place = -1, int(zones.min_areas_px[zones.min_areas_px > 1].min()) - 1
    while place < falling.size and not _counts(levelled, falling[place], zones):
        missed, place = place, 2 * place + 1
    if place >= falling.size:
        if falling.size - 1 <= missed or not _counts(levelled, falling[-1], zones):
            return None
        place = falling.size - 1
    while place - missed > 1:
        middle = (missed + place) // 2
        if _counts(levelled, falling[middle], zones):
            place = middle
        else:
            missed = middle
    return place


def _counts(levelled: NDArray[np.float32], level: float, zones: ZonesOnMap) -> bool:
    mask = levelled >= level
    return bool((zones_of_regions(find_runs(mask), mask, zones) >= 0).any())
