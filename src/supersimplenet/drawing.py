"""Pictures of what the detector says: an overlay for one image, a contact sheet for a test split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from supersimplenet.calibration import UNCALIBRATED
from supersimplenet.data.images import Encoded, read_image
from supersimplenet.evaluation.evaluate import Case
from supersimplenet.evaluation.results import Outcome
from supersimplenet.records import BAD, Prediction

# Colours run from logit 0 (as likely normal as defective: no colour) to the map's maximum, but at least to this logit,
# so that a part without a finding stays cold and a strong finding shows its shape.
_HOT_LOGIT = 3.0
_OPACITY = 0.75
_INK, _PAPER, _GREEN, _AMBER, _RED = (32, 33, 36), (255, 255, 255), (24, 128, 56), (176, 96, 0), (197, 34, 31)
_VERDICT_COLOURS = {"good": _GREEN, "unsure": _AMBER, "bad": _RED}
_COLOURS = (mpl.colormaps["inferno"](np.arange(256))[:, :3] * 255).astype(np.float32)  # (256, 3)
_CELL_PX = 176
_ROWS = 256  # that are blended at once: floats of all of a large image would not fit into a small memory
_GAP_PX = 8
_CASES = 5  # in each half of the contact sheet


def draw_overlay(path: Path | Encoded, prediction: Prediction) -> Image.Image:
    """The image at its own size under its heat map, a box around each defect, verdict and score in a strip below.

    Args:
        path: the image file, or its bytes.
        prediction: what the detector says of it.
    """
    pixels = read_image(path)
    picture = Image.fromarray(_heat(pixels, prediction))
    for defect in prediction.defects or ():
        box = (defect.left, defect.top, defect.left + defect.width - 1, defect.top + defect.height - 1)
        ImageDraw.Draw(picture).rectangle(box, outline=_RED, width=max(1, round(picture.height / 250)))
    font = _font(max(12, round(picture.height / 24)))
    calibrated = "" if prediction.p_value is not None else "  (not calibrated)"
    text = f"{prediction.verdict}  score {prediction.score:.3f}{calibrated}"
    height = round(font.size * 1.8)
    # A small picture is centred over a strip wide enough for its text.
    width = max(picture.width, round(font.getlength(text)) + 16)
    sheet = Image.new("RGB", (width, picture.height + height), _PAPER)
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    colour = _VERDICT_COLOURS[prediction.verdict]
    ImageDraw.Draw(sheet).text((8, picture.height + height / 2), text, fill=colour, font=font, anchor="lm")
    return sheet


def draw_contact_sheet(best: Sequence[Case], worst: Sequence[Case], title: str) -> Image.Image:
    """The best and the worst findings of a test split: image, ground truth, heat map, verdict.

    Args:
        best: see `choose_outcomes`.
        worst: likewise.
        title: a line above the pictures.
    """
    halves = [(name, cases) for name, cases in (("best findings", best), ("worst findings", worst)) if cases]
    columns = max(len(cases) for _, cases in halves)
    label_px, header_px, caption_px = 96, 76, 52
    half_px = 34 + 3 * (_CELL_PX + _GAP_PX) + caption_px
    width = label_px + columns * (_CELL_PX + _GAP_PX) + _GAP_PX
    sheet = Image.new("RGB", (width, header_px + len(halves) * half_px + _GAP_PX), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((16, header_px / 2 - 14), title, fill=_INK, font=_font(20), anchor="lm")
    scale = "heat map: no colour where the network takes a pixel for normal, yellow at the map's maximum"
    draw.text((16, header_px / 2 + 8), scale, fill=_INK, font=_font(12), anchor="lm")
    if any(case.prediction.p_value is None for _, cases in halves for case in cases):
        draw.text((16, header_px / 2 + 26), UNCALIBRATED, fill=_RED, font=_font(12), anchor="lm")
    for half, (name, cases) in enumerate(halves):
        top = header_px + half * half_px
        draw.text((16, top + 12), name, fill=_INK, font=_font(17), anchor="lm")
        for row, label in enumerate(("image", "truth", "heat map")):
            y = top + 34 + row * (_CELL_PX + _GAP_PX)
            draw.text((16, y + _CELL_PX / 2), label, fill=_INK, font=_font(14), anchor="lm")
        for column, case in enumerate(cases):
            x = label_px + column * (_CELL_PX + _GAP_PX)
            for row, picture in enumerate(_panels(case)):
                sheet.paste(picture, (x, top + 34 + row * (_CELL_PX + _GAP_PX)))
            y = top + 34 + 3 * (_CELL_PX + _GAP_PX)
            prediction = case.prediction
            right = "bad" if case.sample.label == BAD else "good"
            colour = {right: _GREEN, "unsure": _AMBER}.get(prediction.verdict, _RED)
            draw.text(
                (x, y + 8), f"{prediction.verdict} {prediction.score:.3f}", fill=colour, font=_font(15), anchor="lm"
            )
            draw.text((x, y + 28), f"truth: {case.sample.defect}", fill=_INK, font=_font(13), anchor="lm")
    return sheet


def heat_layer(prediction: Prediction, size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """The heat map that an overlay lays over the image, by itself: (H, W, 4), colour and opacity.

    Args:
        prediction: whose map.
        size_px: height and width of the layer.
    """
    step = _heat_steps(prediction, size_px)
    opacity = np.round(_OPACITY * step.astype(np.float32))
    return np.concatenate([_COLOURS[step].round(), opacity[..., None]], axis=-1).astype(np.uint8)


def choose_outcomes(outcomes: Sequence[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """What a contact sheet shows: the best findings and the worst.

    The best are the surest bad images of each defect type in turn; the worst are those of the others that lie furthest
    on the wrong side of the threshold, or nearest to it where none is wrong.
    """
    bad = sorted((outcome for outcome in outcomes if outcome.sample.label == BAD), key=lambda outcome: -outcome.margin)
    rank_in_type: dict[str, int] = {}
    order = []
    for outcome in bad:
        rank_in_type[outcome.sample.defect] = rank_in_type.get(outcome.sample.defect, -1) + 1
        order.append(rank_in_type[outcome.sample.defect])
    best = [bad[place] for place in sorted(range(len(bad)), key=lambda place: (order[place], place))][:_CASES]
    shown = {id(outcome) for outcome in best}
    rest = sorted((outcome for outcome in outcomes if id(outcome) not in shown), key=lambda outcome: outcome.margin)
    return best, rest[:_CASES]


def _panels(case: Case) -> tuple[Image.Image, Image.Image, Image.Image]:
    pixels = read_image(case.sample.image, size_px=(_CELL_PX, _CELL_PX))
    truth = Image.new("RGB", (_CELL_PX, _CELL_PX), (232, 234, 237))
    if case.mask is None:
        ImageDraw.Draw(truth).text((_CELL_PX / 2,) * 2, "not known", fill=_INK, font=_font(14), anchor="mm")
    else:
        mask = np.asarray(Image.fromarray(_mask_on_image(case)).resize((_CELL_PX, _CELL_PX), Image.Resampling.NEAREST))
        edge = mask ^ ndimage.binary_erosion(mask, iterations=2)
        marked = (pixels * 0.45 + 255 * 0.55 * 0.2).astype(np.uint8)
        marked[mask] = pixels[mask]
        marked[edge] = (255, 196, 0)
        truth = Image.fromarray(marked)
    return Image.fromarray(pixels), truth, Image.fromarray(_heat(pixels, case.prediction))


def _mask_on_image(case: Case) -> NDArray[np.bool_]:
    """The mask of a case, at the size of its map or of its image, as the image lies."""
    mask, placement = case.mask, case.prediction.placement
    assert mask is not None
    if placement.turn is None or mask.shape != placement.map_size_px:
        return mask
    return placement.mask_on_image(mask, outside=False)


def _heat(pixels: NDArray[np.uint8], prediction: Prediction) -> NDArray[np.uint8]:
    """The image (H, W, 3) with the heat map blended in, the more the hotter it is."""
    steps = _heat_steps(prediction, pixels.shape[:2])
    blended = np.empty_like(pixels)
    for top in range(0, len(pixels), _ROWS):
        below, step = pixels[top : top + _ROWS], steps[top : top + _ROWS]
        opacity = (_OPACITY / 255) * step[..., None].astype(np.float32)
        blended[top : top + _ROWS] = (below + opacity * (_COLOURS[step] - below)).round().astype(np.uint8)
    return blended


def _heat_steps(prediction: Prediction, size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """How hot the map is, 0 to 255, at another (height, width)."""
    counted = prediction.map_logit
    if prediction.ignored is not None:
        counted = np.where(prediction.ignored, np.minimum(counted, 0), counted)  # what counts nowhere has no colour
    resized = prediction.placement.plane_on_image(counted, size_px=size_px, outside=0.0)
    steps = np.empty(size_px, dtype=np.uint8)
    for top in range(0, len(resized), _ROWS):
        strength = np.clip(resized[top : top + _ROWS] / max(prediction.map_max_logit, _HOT_LOGIT), 0, 1)
        steps[top : top + _ROWS] = np.round(strength * 255)
    return steps


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib ships it: the same on every machine."""
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size_px)
