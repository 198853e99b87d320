"""Draw the overlay of an image: its anomaly map, defects, ignored areas, file name, verdict, score and threshold."""

from __future__ import annotations

from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from supersimplenet.errors import ConfigError
from supersimplenet.postprocessing.defects import counted_map, outline_mask
from supersimplenet.preprocessing.geometry import HALF
from supersimplenet.preprocessing.images import AnyImage, read_any
from supersimplenet.types import OVERLAY_STYLES, OverlayStyle, Prediction
from supersimplenet.utils.formatting import printable
from supersimplenet.visualization.colours import (
    FAINT_INK,
    FOUND,
    INK,
    MARGIN,
    PAPER,
    VERDICT_COLOURS,
    Colour,
    blended,
    colours_of,
    draw_bar,
    map_steps,
)
from supersimplenet.visualization.contours import loops
from supersimplenet.visualization.fonts import font, shortened, wrapped

_RING = 1 / 16  # radius of the ring around a peak below the pixel threshold, as a share of the image's shorter side
_ROWS = 256  # rows changed at the same time: a large image as floats would need too much memory
_WIDTH_PX = 360  # a picture less wide is enlarged by a whole factor, so that the words below it find room
_HEIGHT_PX = 1200  # but not beyond this height
_LETTERS_PX = 13
_BLACK: Colour = (0, 0, 0)
_ZONE: Colour = (235, 235, 235)
_HATCH = np.array([150, 150, 150], dtype=np.float32)


def draw_overlay(image: AnyImage, prediction: Prediction, *, style: OverlayStyle = "heat") -> Image.Image:
    """Draw the image with its anomaly map and listed defects; file name, verdict, score and threshold stand below.

    Outline and box of a defect are those of its ``outline_logit``. The map's peak, which stands for the defects of a
    part where no region reaches the pixel threshold, gets a ring. Ignored areas and what lies beyond the region of
    interest are hatched. Zones have a thin outline and their name. A small image is enlarged by a whole factor.

    Args:
        image: the image, in any form that `read_any` accepts.
        prediction: the prediction of this image.
        style: ``heat`` for the anomaly map with its colour bar, ``outline`` for the photograph with outlines alone.

    Raises:
        ConfigError: there is no such style.
    """
    if style not in OVERLAY_STYLES:
        raise ConfigError(f"style: '{style}'; wanted one of {', '.join(OVERLAY_STYLES)}")
    pixels = read_any(image, reading=prediction.reading)[0]
    height, width = pixels.shape[:2]
    factor = max(1, min(-(-_WIDTH_PX // width), _HEIGHT_PX // height))
    if factor > 1:
        pixels = np.asarray(Image.fromarray(pixels).resize((width * factor, height * factor), Image.Resampling.BICUBIC))
    if style == "heat":
        pixels = blend_map(pixels, prediction)
    picture = Image.fromarray(hatch_ignored(pixels, prediction))
    draw_zones(picture, prediction)
    draw_listed(picture, prediction, outlines=True, boxes=style == "heat")
    strip = _strip(prediction, max(picture.width, _WIDTH_PX), picture.height, style)
    sheet = Image.new("RGB", (strip.width, picture.height + strip.height), MARGIN)
    sheet.paste(picture, ((strip.width - picture.width) // 2, 0))
    sheet.paste(strip, (0, picture.height))
    return sheet


def draw_zones(picture: Image.Image, prediction: Prediction) -> None:
    """Draw the zones of a prediction into a picture of its image, at any size: thin outlines, and the name of each."""
    zones, placement = prediction.zones, prediction.placement
    if zones is None:
        return
    down, across = (drawn / own for drawn, own in zip(picture.size[::-1], placement.image_size_px, strict=True))
    draw, lettering = ImageDraw.Draw(picture), font(_LETTERS_PX)
    for number, name in enumerate(zones.names):
        for loop in [] if name is None else loops(zones.number == number):
            x, y = placement.points_on_image(*loop.T)
            places = [(float(left), float(top)) for left, top in zip(x * across - 0.5, y * down - 0.5, strict=True)]
            for colour, wide in ((_BLACK, 3), (_ZONE, 1)):
                draw.line([*places, places[0]], fill=colour, width=wide)
        if name is not None and (zones.number == number).any():
            rows, columns = np.nonzero(zones.number == number)
            first = placement.points_on_image(np.array([columns[0] + 0.5]), np.array([rows[0] + 0.5]))
            place = (float(first[0][0] * across) + 4, float(first[1][0] * down) + 2)
            draw.text(place, name, fill=_ZONE, font=lettering, stroke_width=1, stroke_fill=_BLACK)


def draw_listed(picture: Image.Image, prediction: Prediction, *, outlines: bool, boxes: bool) -> None:
    """Draw what a prediction lists into a picture of its image, at any size: outlines, boxes, the ring of a peak."""
    defects = prediction.defects or ()
    height, width = prediction.placement.image_size_px
    down, across = picture.height / height, picture.width / width
    line_px = max(1, round(min(picture.size) / 200))
    draw = ImageDraw.Draw(picture)
    if outlines and any(not defect.below_threshold for defect in defects):
        for points in _outlines(prediction):
            places = [(x * across - 0.5, y * down - 0.5) for x, y in points.tolist()]
            for colour, wide in ((_BLACK, line_px + 2), (FOUND, line_px)):
                draw.line([*places, places[0]], fill=colour, width=wide, joint="curve")
    for defect in defects:
        if defect.below_threshold:
            x, y = (defect.centroid_x + 0.5) * across - 0.5, (defect.centroid_y + 0.5) * down - 0.5
            radius = ring_radius(picture.size)
            draw.circle((x, y), radius + 1, outline=_BLACK, width=line_px + 2)
            draw.circle((x, y), radius, outline=FOUND, width=line_px)
        elif boxes:
            right, bottom = defect.outline_left + defect.outline_width, defect.outline_top + defect.outline_height
            box = (
                max(round(defect.outline_left * across) - 2 * line_px, 0),
                max(round(defect.outline_top * down) - 2 * line_px, 0),
                min(round(right * across) - 1 + 2 * line_px, picture.width - 1),
                min(round(bottom * down) - 1 + 2 * line_px, picture.height - 1),
            )
            draw.rectangle((box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1), outline=_BLACK, width=line_px + 2)
            draw.rectangle(box, outline=FOUND, width=line_px)


def _outlines(prediction: Prediction) -> list[NDArray[np.float64]]:
    """Return the outlines of a prediction's regions as lines of points (N, 2) in px of the image."""
    if prediction.pixel_logit is None or prediction.min_area_px is None:
        return []
    mask = outline_mask(
        counted_map(prediction.map_logit, prediction.ignored),
        pixel_logit=prediction.pixel_logit,
        min_area_px=prediction.min_area_px,
        zones=prediction.zones,
    )
    return [np.stack(prediction.placement.points_on_image(*loop.T), axis=1) for loop in loops(mask)]


def ring_radius(size_px: tuple[int, int]) -> float:
    """Return the radius of the ring around a peak below the pixel threshold, in px of a picture of this size."""
    return max(4.0, _RING * min(size_px))


def _strip(prediction: Prediction, width_px: int, height_px: int, style: OverlayStyle) -> Image.Image:
    """Draw what stands below the picture: file name, verdict, score, threshold, and the colour bar of the map."""
    letters_px = max(_LETTERS_PX, round(min(width_px / 40, height_px / 15)))
    lettering, gap_px, line_px = font(letters_px), round(letters_px * 0.6), round(letters_px * 1.5)
    room_px = width_px - 2 * gap_px
    lines: list[tuple[str, Colour]] = []
    if prediction.path is not None:
        file = PurePath(prediction.path)
        name = printable("/".join((file.parent.name, file.name)) if file.parent.name else file.name)
        lines.append((shortened(name, lettering, room_px, keep="end"), INK))
    verdict = VERDICT_COLOURS[prediction.verdict]
    lines += [(line, verdict) for line in wrapped(score_words(prediction), lettering, room_px)]
    if remark := remark_on_map(prediction):
        lines += [(line, FAINT_INK) for line in wrapped(remark, lettering, room_px)]
    bar = draw_bar(prediction, min(room_px, 30 * letters_px), letters_px) if style == "heat" else None
    height = 2 * gap_px + len(lines) * line_px + (0 if bar is None else bar.height)
    strip = Image.new("RGB", (width_px, height), PAPER)
    draw = ImageDraw.Draw(strip)
    for number, (text, colour) in enumerate(lines):
        place = (gap_px, gap_px + (number + 0.5) * line_px)
        draw.text(place, text, fill=colour, font=lettering, anchor="lm")
    if bar is not None:
        strip.paste(bar, (gap_px, gap_px + len(lines) * line_px))
    return strip


def score_words(prediction: Prediction) -> str:
    """Return verdict, score and threshold as a line of text."""
    if prediction.score is None:
        return f"{prediction.verdict}: score {prediction.score_logit:.3f}, threshold 0, in logits (not calibrated)"
    unsure = "" if prediction.unsure_from is None else f", unsure from {prediction.unsure_from:.3f}"
    return f"{prediction.verdict}: score {prediction.shown_score()}, threshold 0.5{unsure}"


def remark_on_map(prediction: Prediction) -> str:
    """Return a line of text where verdict and map differ, or nothing: the score decides, not the map."""
    if any(defect.below_threshold for defect in prediction.defects or ()):
        return "Ring: peak of the map, below its threshold"
    if prediction.verdict == "good" and prediction.regions and not prediction.defects:
        return "The map reaches its threshold, the score does not: the score decides"
    return ""


def map_layer(prediction: Prediction, size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the anomaly map as in an overlay, but without the image: (H, W, 4), colour and opacity.

    Args:
        prediction: the prediction with the anomaly map.
        size_px: height and width of the layer.
    """
    steps, table = map_steps(prediction, size_px), colours_of(prediction)
    layer: NDArray[np.uint8] = (
        np.concatenate([table.colours, 255 * table.opacities[:, None]], axis=1).round().astype(np.uint8)
    )
    return layer[steps]


def blend_map(pixels: NDArray[np.uint8], prediction: Prediction) -> NDArray[np.uint8]:
    """Return the image (H, W, 3) with the anomaly map blended in; higher values are more opaque."""
    return blended(pixels, map_steps(prediction, pixels.shape[:2]), colours_of(prediction))


def hatch_ignored(pixels: NDArray[np.uint8], prediction: Prediction) -> NDArray[np.uint8]:
    """Return the image (H, W, 3) with stripes where nothing counts: ignored pixels, and what the map does not cover."""
    placement = prediction.placement
    if prediction.ignored is None and placement.turn is None:
        return pixels
    height, width = pixels.shape[:2]
    ignored = np.zeros(placement.map_size_px, bool) if prediction.ignored is None else prediction.ignored
    share = placement.plane_on_image(ignored.astype(np.float32), size_px=(height, width), outside=1.0)
    stripe_px = max(3, min(height, width) // 60)
    hatched: NDArray[np.uint8] = pixels.copy()
    for top in range(0, height, _ROWS):
        rows = hatched[top : top + _ROWS]
        y, x = np.ogrid[top : top + len(rows), :width]
        striped = (share[top : top + _ROWS] >= HALF) & ((x + y) // stripe_px % 2 == 0)
        rows[striped] = (rows[striped] * np.float32(0.4) + np.float32(0.6) * _HATCH).astype(np.uint8)
    return hatched
