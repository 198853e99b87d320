"""Colours of pictures: those of the anomaly map, relative to the pixel threshold, and those of lines and words.

People with deuteranopia or protanopia tell them apart: `tests/test_colours.py` simulates both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from supersimplenet.postprocessing.defects import counted_map
from supersimplenet.types import Prediction
from supersimplenet.utils.formatting import MINUS
from supersimplenet.visualization.fonts import font

Colour = tuple[int, int, int]
INK: Colour = (32, 33, 36)
FAINT_INK: Colour = (95, 99, 104)
PAPER: Colour = (255, 255, 255)
MARGIN: Colour = (232, 234, 237)
BLUE: Colour = (31, 111, 178)  # good, right
GREY: Colour = (75, 78, 83)  # unsure
VERMILION: Colour = (194, 72, 10)  # bad, wrong
FOUND: Colour = (77, 210, 255)  # outlines and boxes of listed defects
TRUTH: Colour = (255, 255, 255)  # outlines of masks
VERDICT_COLOURS: dict[str, Colour] = {"good": BLUE, "unsure": GREY, "bad": VERMILION}

# Colours of a calibrated model follow the distance from the pixel threshold, so that pictures can be compared. Above it
# they rise to three quarters of the scale over this many logits and ever slower then, so that a strong defect shows its
# shape; `Prediction.anomaly_map` would be 1 all over it.
_RISE_LOGITS = 4.0
# Those of a model without thresholds run from logit 0 (normal and defective are equally likely: no colour) to the map's
# maximum, but at least to this logit, so that a part without a defect gets little colour and a strong one its shape.
_HOT_LOGIT = 3.0
_BELOW_OPACITY, _AT_OPACITY, _TOP_OPACITY = 0.2, 0.6, 0.8  # just below the threshold, at it, far above it
_UNCALIBRATED_OPACITY = 0.75
_AT = 128  # the first colour step of the threshold: 0.5 of 255, rounded
_ROWS = 256  # of a plane that are rounded at the same time: a whole large one may need too much memory


@dataclass(frozen=True, kw_only=True)
class MapColours:
    """Colour and opacity of each of the 256 steps of an anomaly map.

    Attributes:
        colours: (256, 3) float32, RGB from 0 to 255.
        opacities: (256,) float32, 0 to 1, never falling.
    """

    colours: NDArray[np.float32]
    opacities: NDArray[np.float32]


def _inferno(places: NDArray[np.float64]) -> NDArray[np.float32]:
    return (mpl.colormaps["inferno"](places)[:, :3] * 255).astype(np.float32)


def _calibrated() -> MapColours:
    """Below the threshold a faint violet, from it on orange to yellow, of at least 0.6 opacity."""
    above = np.linspace(0, 1, 256 - _AT)
    faint = np.linspace(0, _BELOW_OPACITY, _AT, endpoint=False)
    opacities = np.append(faint, _AT_OPACITY + (_TOP_OPACITY - _AT_OPACITY) * above)
    colours = np.concatenate([_inferno(np.linspace(0.2, 0.4, _AT)), _inferno(0.7 + 0.3 * above)])
    return MapColours(colours=colours, opacities=opacities.astype(np.float32))


CALIBRATED = _calibrated()
# The same without the violet. The pixel threshold lies just above what good parts reach (in `make demo` half the map of
# a good part is within 0.8 logits below it), so that a colour below it would tint each good part as a whole.
CLEAR_BELOW = replace(
    CALIBRATED, opacities=np.where(np.arange(256) < _AT, np.float32(0), CALIBRATED.opacities).astype(np.float32)
)
UNCALIBRATED = MapColours(
    colours=_inferno(np.linspace(0, 1, 256)), opacities=np.linspace(0, _UNCALIBRATED_OPACITY, 256, dtype=np.float32)
)
# (place from 0 to 1, text) of each mark on the bar of a calibrated model, in logits from the threshold.
CALIBRATED_MARKS = [
    (1 / (1 + float(np.exp(2))), f"{MINUS}2"),
    (0.5, "threshold"),
    *((0.5 + 0.5 * logits / (logits + _RISE_LOGITS), f"+{logits}") for logits in (2, 4, 12)),
]


def colours_of(prediction: Prediction, calibrated: MapColours = CALIBRATED) -> MapColours:
    """Return the colours of a prediction's anomaly map: of a calibrated model, or of one without thresholds."""
    return UNCALIBRATED if prediction.pixel_logit is None else calibrated


def map_steps(prediction: Prediction, size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the anomaly map as colour steps, 0 to 255, resized to (height, width).

    Where the map has that size, a step is 128 or more exactly where the pixel reaches the pixel threshold, in its zone.
    """
    scaled = prediction.anomaly_map
    if scaled is not None:
        above = np.maximum(prediction.levelled_logit - np.float32(prediction.pixel_logit), 0)
        scaled = np.where(above > 0, 0.5 + 0.5 * above / (above + np.float32(_RISE_LOGITS)), scaled)
    else:
        scaled = prediction.map_logit / np.float32(_top_logit(prediction))
    if prediction.ignored is not None:
        scaled = np.where(prediction.ignored, np.float32(0), scaled)  # ignored pixels have no colour
    resized = prediction.placement.plane_on_image(scaled, size_px=size_px, outside=0.0)
    steps = np.empty(size_px, dtype=np.uint8)
    for top in range(0, len(resized), _ROWS):
        steps[top : top + _ROWS] = np.round(np.clip(resized[top : top + _ROWS], 0, 1) * 255)
    return steps


def _top_logit(prediction: Prediction) -> float:
    return max(float(counted_map(prediction.map_logit, prediction.ignored).max()), _HOT_LOGIT)


def scale_of(prediction: Prediction) -> tuple[str, list[tuple[float, str]]]:
    """Return what the colours of a prediction's map say: a title, and (place from 0 to 1, text) of each mark."""
    if prediction.pixel_logit is None:
        return (
            "Anomaly map, to its maximum (not calibrated)",
            [(0.0, "logit 0"), (1.0, f"{_top_logit(prediction):.1f}")],
        )
    return "Anomaly map, logits from its pixel threshold", CALIBRATED_MARKS


def draw_bar(prediction: Prediction, width_px: int, letters_px: int) -> Image.Image:
    """Draw the colour bar of a prediction's map, on the grey of a photograph: title, colours, marks.

    Args:
        prediction: gives the scale.
        width_px: width of the picture.
        letters_px: size of its letters.
    """
    table, (title, marks) = colours_of(prediction), scale_of(prediction)
    lettering = font(letters_px)
    line_px, bar_px = round(letters_px * 1.5), letters_px
    picture = Image.new("RGB", (width_px, 2 * line_px + bar_px), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((0, line_px / 2), title, fill=INK, font=lettering, anchor="lm")
    steps = np.linspace(0, 255, width_px).round().astype(np.uint8)
    grey = np.full((bar_px, width_px, 3), 128, dtype=np.uint8)
    picture.paste(Image.fromarray(blended(grey, np.tile(steps, (bar_px, 1)), table)), (0, line_px))
    for place, text in marks:
        x = place * (width_px - 1)
        draw.line([(x, line_px), (x, line_px + bar_px + 2)], fill=INK, width=max(1, letters_px // 12))
        half = lettering.getlength(text) / 2
        x = min(max(x, half), width_px - half)
        draw.text((x, line_px + bar_px + line_px / 2 + 1), text, fill=INK, font=lettering, anchor="mm")
    return picture


def blended(pixels: NDArray[np.uint8], steps: NDArray[np.uint8], table: MapColours) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) under the colours of steps (H, W)."""
    out = np.empty_like(pixels)
    for top in range(0, len(pixels), _ROWS):
        below, step = pixels[top : top + _ROWS], steps[top : top + _ROWS]
        opacity = table.opacities[step][..., None]
        out[top : top + _ROWS] = (below + opacity * (table.colours[step] - below)).round().astype(np.uint8)
    return out
