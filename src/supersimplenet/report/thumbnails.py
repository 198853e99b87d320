"""Draw an image for the page: small photograph, anomaly map, and outlines of true and found defects, all as text."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from supersimplenet.evaluation.cases import EvaluatedImage
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.postprocessing.defects import counted_map, find_peak, outline_mask
from supersimplenet.preprocessing.geometry import TOUCHED, Placement
from supersimplenet.preprocessing.images import read_image
from supersimplenet.visualization.colours import CALIBRATED, CALIBRATED_MARKS, UNCALIBRATED, blended
from supersimplenet.visualization.contours import outline
from supersimplenet.visualization.overlay import map_layer, ring_radius

_LONG_SIDE_PX = 320
_LARGE_LONG_SIDE_PX = 1024
_OUTLINE_LONG_SIDE_PX = 512
_HEAT_LONG_SIDE_PX = 256  # the browser enlarges it; coarser, the step at the threshold would be blurred
_PHOTOGRAPH_QUALITY, _HEAT_QUALITY = 76, 60


def draw_picture(case: EvaluatedImage, calibration: Calibration | None, *, large: bool = True) -> dict[str, Any]:
    """Draw one image for the page, as plain values.

    Args:
        case: the image with its prediction and its masks at the anomaly map's size.
        calibration: gives the pixel threshold, above which a region is a defect; with None, no defect is outlined.
            Outlines lie at the ``outline_logit`` of each.
        large: whether a larger photograph is wanted, too.

    Returns:
        ``photograph``, ``large`` (None where it would not be larger, or is not wanted) and ``heat`` (the anomaly map,
        with opacity) as data URLs; ``truth``, ``found``, ``peak`` and ``ignored`` as SVG paths, in pixels of a picture
        whose height and width are in ``drawn``; ``size``: height and width of the image. ``truth`` is None where the
        pixel labels are unknown, ``found`` and ``peak`` without a calibration. ``found`` holds all regions, ``peak`` a
        ring around the map's peak where there is no region: the page shows them where the image is not called good.
    """
    placement = case.prediction.placement
    own_size_px = placement.image_size_px
    drawn_px = _within(own_size_px, _LONG_SIDE_PX)
    regions = None
    if calibration is not None:
        counted = counted_map(case.prediction.map_logit, case.prediction.ignored)
        level, area = calibration.pixel_logit, calibration.min_area_px
        regions = outline_mask(counted, pixel_logit=level, min_area_px=area, zones=case.prediction.zones)
    photograph = Image.fromarray(read_image(case.sample.image, size_px=drawn_px, reading=case.prediction.reading))
    heat = Image.fromarray(map_layer(case.prediction, _within(own_size_px, _HEAT_LONG_SIDE_PX)))
    return {
        "photograph": _data_url(photograph, _PHOTOGRAPH_QUALITY),
        "large": _large(case) if large and max(own_size_px) > _LONG_SIDE_PX else None,
        "heat": _data_url(heat, _HEAT_QUALITY),
        "truth": None if case.mask is None else outline(_to_draw(case.mask, placement)),
        "found": None if regions is None else outline(_to_draw(regions, placement)),
        "peak": None if regions is None else "" if regions.any() else _ring(case),
        "ignored": "" if case.ignored is None else outline(_to_draw(case.ignored, placement)),
        "drawn": list(_drawn_size(placement)),
        "size": list(own_size_px),
    }


def _large(case: EvaluatedImage) -> str:
    size_px = _within(case.prediction.placement.image_size_px, _LARGE_LONG_SIDE_PX)
    photograph = read_image(case.sample.image, size_px=size_px, reading=case.prediction.reading)
    return _data_url(Image.fromarray(photograph), _PHOTOGRAPH_QUALITY)


def draw_scale(*, calibrated: bool) -> dict[str, Any]:
    """Draw the colour bar of the page's anomaly maps: a data URL, and (per cent of its width, text) of each mark."""
    table = CALIBRATED if calibrated else UNCALIBRATED
    grey = np.full((1, 256, 3), 128, dtype=np.uint8)
    marks = CALIBRATED_MARKS if calibrated else [(0.0, "logit 0"), (1.0, "maximum")]
    bar = blended(grey, np.arange(256, dtype=np.uint8)[None], table)
    return {"bar": _data_url(Image.fromarray(bar), 95), "marks": [(100 * place, text) for place, text in marks]}


def _drawn_size(placement: Placement) -> tuple[int, int]:
    """Return the height and width in which outlines are drawn: the anomaly map's, if it is small and not turned."""
    if placement.turn is None and max(placement.map_size_px) <= _OUTLINE_LONG_SIDE_PX:
        return placement.map_size_px
    return _within(placement.image_size_px, _OUTLINE_LONG_SIDE_PX)


def _to_draw(mask: NDArray[np.bool_], placement: Placement) -> NDArray[np.bool_]:
    """Return a mask of the anomaly map's size at the size of the drawing; small marked regions are kept."""
    size_px = _drawn_size(placement)
    if placement.turn is None and size_px == mask.shape:
        return mask
    return placement.plane_on_image(mask.astype(np.float32), size_px=size_px, outside=0.0) >= TOUCHED


def _ring(case: EvaluatedImage) -> str:
    """Return the SVG path of a ring around the map's peak; it is round on the image, whatever the drawing's shape."""
    prediction = case.prediction
    placement = prediction.placement
    counted = counted_map(prediction.map_logit, prediction.ignored)
    peak = find_peak(counted, placement=placement, zones=prediction.zones)
    down, across = (drawn / own for drawn, own in zip(_drawn_size(placement), placement.image_size_px, strict=True))
    x, y = (peak.centroid_x + 0.5) * across, (peak.centroid_y + 0.5) * down
    radius = ring_radius(placement.image_size_px)
    half = f"a{radius * across:.1f} {radius * down:.1f} 0 1 0"
    return f"M{x - radius * across:.1f} {y:.1f}{half} {2 * radius * across:.1f} 0{half} {-2 * radius * across:.1f} 0Z"


def _within(size_px: tuple[int, int], long_side_px: int) -> tuple[int, int]:
    """Return height and width reduced to a longest side, in the same proportions; never enlarged."""
    scale = min(1.0, long_side_px / max(size_px))
    return max(1, round(size_px[0] * scale)), max(1, round(size_px[1] * scale))


def _data_url(image: Image.Image, quality: int) -> str:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
