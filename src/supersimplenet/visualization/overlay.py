"""Draw the overlay of an image: its anomaly map, defects, verdict and score."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from supersimplenet.postprocessing.defects import counted_map
from supersimplenet.preprocessing.images import AnyImage, read_any
from supersimplenet.types import Prediction
from supersimplenet.visualization.fonts import font

# Colours of a calibrated model follow the distance from the pixel threshold, so that pictures can be compared. Above it
# they rise to three quarters of the scale over this many logits and ever slower then, so that a strong defect shows its
# shape; `Prediction.anomaly_map` would be 1 all over it.
_RISE_LOGITS = 4.0
# Those of a model without thresholds run from logit 0 (normal and defective are equally likely: no colour) to the map's
# maximum, but at least to this logit, so that a part without a defect gets little colour and a strong one its shape.
_HOT_LOGIT = 3.0
CALIBRATED_SCALE = "anomaly map: red at the pixel threshold, yellow far above it, no colour far below"
UNCALIBRATED_SCALE = "anomaly map: no colour where the network takes a pixel for normal, yellow at the map's maximum"
_OPACITY = 0.75
INK, PAPER, GREEN, AMBER, RED = (32, 33, 36), (255, 255, 255), (24, 128, 56), (176, 96, 0), (197, 34, 31)
_VERDICT_COLOURS = {"good": GREEN, "unsure": AMBER, "bad": RED}
_COLOURS = (mpl.colormaps["inferno"](np.arange(256))[:, :3] * 255).astype(np.float32)  # (256, 3)
_RING = 1 / 16  # radius of the ring around a peak below the pixel threshold, as a share of the image's shorter side
_ROWS = 256  # rows blended at the same time: a large image as floats would need too much memory


def draw_overlay(image: AnyImage, prediction: Prediction) -> Image.Image:
    """Draw the image with its anomaly map and a box around each defect; verdict and score are in a strip below.

    The map's peak, which stands for the defects of a part where no region reaches the pixel threshold, gets a ring.

    Args:
        image: the image, in any form that `read_any` accepts.
        prediction: the prediction of this image.
    """
    pixels = read_any(image, reading=prediction.reading)[0]
    picture = Image.fromarray(blend_map(pixels, prediction))
    line_px = max(1, round(picture.height / 250))
    for defect in prediction.defects or ():
        if defect.below_threshold:
            around = (defect.centroid_x, defect.centroid_y, ring_radius(picture.size))
            ImageDraw.Draw(picture).circle(around[:2], around[2], outline=RED, width=line_px)
        else:
            box = (defect.left, defect.top, defect.left + defect.width - 1, defect.top + defect.height - 1)
            ImageDraw.Draw(picture).rectangle(box, outline=RED, width=line_px)
    below = any(defect.below_threshold for defect in prediction.defects or ())
    lettering = font(max(12, round(picture.height / 24)))
    calibrated = "" if prediction.p_value is not None else "  (not calibrated)"
    limit = "" if prediction.score is None else ", bad from 0.5"
    ring = "; ring: peak of the map, below its threshold" if below else ""
    text = f"{prediction.verdict}  score {prediction.shown_score()}{limit}{calibrated}{ring}"
    height = round(lettering.size * 1.8)
    # A small picture is centred above the strip, which must be wide enough for the text.
    width = max(picture.width, round(lettering.getlength(text)) + 16)
    sheet = Image.new("RGB", (width, picture.height + height), PAPER)
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    colour = _VERDICT_COLOURS[prediction.verdict]
    ImageDraw.Draw(sheet).text((8, picture.height + height / 2), text, fill=colour, font=lettering, anchor="lm")
    return sheet


def ring_radius(size_px: tuple[int, int]) -> float:
    """Return the radius of the ring around a peak below the pixel threshold, in px of a picture of this size."""
    return max(4.0, _RING * min(size_px))


def map_layer(prediction: Prediction, size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the anomaly map as in an overlay, but without the image: (H, W, 4), colour and opacity.

    Args:
        prediction: the prediction with the anomaly map.
        size_px: height and width of the layer.
    """
    step = _map_steps(prediction, size_px)
    opacity = np.round(_OPACITY * step.astype(np.float32))
    return np.concatenate([_COLOURS[step].round(), opacity[..., None]], axis=-1).astype(np.uint8)


def blend_map(pixels: NDArray[np.uint8], prediction: Prediction) -> NDArray[np.uint8]:
    """Return the image (H, W, 3) with the anomaly map blended in; higher values are more opaque."""
    steps = _map_steps(prediction, pixels.shape[:2])
    blended = np.empty_like(pixels)
    for top in range(0, len(pixels), _ROWS):
        below, step = pixels[top : top + _ROWS], steps[top : top + _ROWS]
        opacity = (_OPACITY / 255) * step[..., None].astype(np.float32)
        blended[top : top + _ROWS] = (below + opacity * (_COLOURS[step] - below)).round().astype(np.uint8)
    return blended


def _map_steps(prediction: Prediction, size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the anomaly map as colour steps, 0 to 255, resized to (height, width)."""
    scaled = prediction.anomaly_map
    if scaled is not None:
        above = np.maximum(prediction.map_logit - np.float32(prediction.pixel_logit), 0)
        scaled = np.where(above > 0, 0.5 + 0.5 * above / (above + np.float32(_RISE_LOGITS)), scaled)
    else:
        scaled = prediction.map_logit / np.float32(
            max(float(counted_map(prediction.map_logit, prediction.ignored).max()), _HOT_LOGIT)
        )
    if prediction.ignored is not None:
        scaled = np.where(prediction.ignored, np.float32(0), scaled)  # ignored pixels have no colour
    resized = prediction.placement.plane_on_image(scaled, size_px=size_px, outside=0.0)
    steps = np.empty(size_px, dtype=np.uint8)
    for top in range(0, len(resized), _ROWS):
        steps[top : top + _ROWS] = np.round(np.clip(resized[top : top + _ROWS], 0, 1) * 255)
    return steps
