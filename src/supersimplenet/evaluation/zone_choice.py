"""Which zones a calibration is for: new ones, those of the calibration before it, or none."""

from __future__ import annotations

from pathlib import Path

from supersimplenet.errors import ConfigError, DataError
from supersimplenet.inference.detector import Detector
from supersimplenet.postprocessing.zone_file import read_zones
from supersimplenet.postprocessing.zones import Zones, zones_on_map
from supersimplenet.preprocessing.geometry import Placement
from supersimplenet.preprocessing.preprocessor import Preprocessor
from supersimplenet.types import ScoreName
from supersimplenet.utils.console import console
from supersimplenet.utils.formatting import shown_px

CROSS_WITH_ZONES = (
    "cross: models of folds set the threshold of a score of the whole image, not of zones; leave out --cross, or name "
    "another --image-score, which drops the zones"
)


def choose_zones(detector: Detector, given: str | Path | Zones | None, image_score: ScoreName | None) -> Zones | None:
    """Return the zones that a calibration is for; None where another score decides. Say what becomes of earlier ones.

    Args:
        detector: the detector, with its earlier calibration.
        given: new zones, or their file; None for those of the earlier calibration, unless another score is named.
        image_score: the score that is to decide; None for zones where there are any.

    Raises:
        ConfigError: zones are given and another score is to decide, or zones are to decide and there are none.
        DataError: the file holds no zones, or the map shows nothing of one.
        ImageError: the reference has other proportions than the image on which the zones were drawn.
    """
    kept = detector.postprocessor.zones
    if given is not None:
        if image_score not in (None, "zones"):
            raise ConfigError(
                f"image_score: '{image_score}', but with zones their score decides; leave one of them out"
            )
        zones = given if isinstance(given, Zones) else read_zones(Path(given))
        require_on_map(zones, detector.preprocessor, where="zones" if isinstance(given, Zones) else str(given))
        return zones
    if image_score not in (None, "zones"):
        if kept is not None:
            console().print(f"zones dropped: {kept}; the {image_score} score decides from now on")
        return None
    if kept is not None:
        console().print(f"zones as before: {kept}; --zones names others, another --image-score drops them")
    elif image_score == "zones":
        raise ConfigError("image_score: 'zones', and there are no zones; name their file with --zones")
    return kept


def require_on_map(zones: Zones, preprocessor: Preprocessor, *, where: str) -> None:
    """Refuse zones of which the map shows nothing that counts, or not as much as their least area.

    Raises:
        DataError: a zone is refused.
        ImageError: the reference has other proportions than the image on which the zones were drawn.
    """
    aligner = preprocessor.aligner
    frame_px = zones.image_size_px if aligner is None else aligner.size_px
    placement = Placement.whole(preprocessor.map_size_px(frame_px), frame_px)
    name = f"{where}: the image of image_size_px" if aligner is None else "the reference"
    on_map = zones_on_map(zones, placement, name)
    counted = None if preprocessor.roi is None else ~preprocessor.outside_roi(placement, name)
    size = shown_px(placement.map_size_px)
    for number, zone in enumerate(zones.zones, start=1):
        covered = on_map.number == number
        if not covered.any():
            raise DataError(
                f"{where}: zone '{zone.name}': polygon: covers no pixel of the map, which is {size}; make it larger, "
                "or name it after the zones that lie on it"
            )
        if counted is not None and not (covered & counted).any():
            raise DataError(f"{where}: zone '{zone.name}': polygon: lies outside the region of interest")
    largest = int(on_map.min_areas_px.argmax())
    if on_map.min_areas_px[largest] > on_map.number.size:
        zone_name = on_map.names[largest]
        label = "elsewhere" if zone_name is None else f"zone '{zone_name}'"
        area = on_map.min_areas_px[largest]
        raise DataError(f"{where}: {label}: min_area_px: {area}; the map, which is {size}, has fewer pixels")
