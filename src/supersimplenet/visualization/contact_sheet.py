"""Draw the best and the worst findings of a test split on one sheet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from supersimplenet.evaluation.cases import EvaluatedImage
from supersimplenet.evaluation.results import Outcome
from supersimplenet.postprocessing.calibration import UNCALIBRATED
from supersimplenet.preprocessing.images import read_image
from supersimplenet.types import BAD
from supersimplenet.utils.formatting import printable
from supersimplenet.visualization.fonts import font
from supersimplenet.visualization.overlay import (
    AMBER,
    CALIBRATED_SCALE,
    GREEN,
    INK,
    PAPER,
    RED,
    UNCALIBRATED_SCALE,
    blend_map,
)

_CELL_PX = 176
_GAP_PX = 8
_CASES = 5  # images in each half of the contact sheet


def draw_contact_sheet(best: Sequence[EvaluatedImage], worst: Sequence[EvaluatedImage], title: str) -> Image.Image:
    """Draw the best and the worst findings of a test split: image, ground truth, anomaly map, verdict.

    Args:
        best: the best findings; see `choose_outcomes`.
        worst: the worst findings; see `choose_outcomes`.
        title: text of the line above the pictures.
    """
    wrong = any(case.prediction.verdict != ("bad" if case.sample.label == BAD else "good") for case in worst)
    others = "worst findings" if wrong else "nearest to the threshold: every verdict is right"
    halves = [(name, cases) for name, cases in (("best findings", best), (others, worst)) if cases]
    columns = max(len(cases) for _, cases in halves)
    label_px, header_px, caption_px = 120, 76, 52
    half_px = 34 + 3 * (_CELL_PX + _GAP_PX) + caption_px
    width = label_px + columns * (_CELL_PX + _GAP_PX) + _GAP_PX
    sheet = Image.new("RGB", (width, header_px + len(halves) * half_px + _GAP_PX), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((16, header_px / 2 - 14), printable(title), fill=INK, font=font(20), anchor="lm")
    calibrated = all(case.prediction.p_value is not None for _, cases in halves for case in cases)
    scale = CALIBRATED_SCALE if calibrated else UNCALIBRATED_SCALE
    draw.text((16, header_px / 2 + 8), scale, fill=INK, font=font(12), anchor="lm")
    if not calibrated:
        draw.text((16, header_px / 2 + 26), UNCALIBRATED, fill=RED, font=font(12), anchor="lm")
    for half, (name, cases) in enumerate(halves):
        top = header_px + half * half_px
        draw.text((16, top + 12), name, fill=INK, font=font(17), anchor="lm")
        for row, label in enumerate(("image", "truth", "anomaly map")):
            y = top + 34 + row * (_CELL_PX + _GAP_PX)
            draw.text((16, y + _CELL_PX / 2), label, fill=INK, font=font(14), anchor="lm")
        for column, case in enumerate(cases):
            x = label_px + column * (_CELL_PX + _GAP_PX)
            for row, picture in enumerate(_panels(case)):
                sheet.paste(picture, (x, top + 34 + row * (_CELL_PX + _GAP_PX)))
            y = top + 34 + 3 * (_CELL_PX + _GAP_PX)
            prediction = case.prediction
            right = "bad" if case.sample.label == BAD else "good"
            colour = {right: GREEN, "unsure": AMBER}.get(prediction.verdict, RED)
            draw.text(
                (x, y + 8), f"{prediction.verdict} {prediction.shown_score()}", fill=colour, font=font(15), anchor="lm"
            )
            draw.text((x, y + 28), printable(f"truth: {case.sample.defect}"), fill=INK, font=font(13), anchor="lm")
    return sheet


def choose_outcomes(outcomes: Sequence[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """Return the best and the worst findings for a contact sheet.

    The best are the bad images that are found with the largest margin, taken from each defect type in turn. The worst
    are the images furthest on the wrong side of the threshold, or nearest to the threshold if no verdict is wrong; the
    best images are left out here.
    """
    found = (outcome for outcome in outcomes if outcome.sample.label == BAD and outcome.margin >= 0)
    bad = sorted(found, key=lambda outcome: -outcome.margin)
    rank_in_type: dict[str, int] = {}
    order = []
    for outcome in bad:
        rank_in_type[outcome.sample.defect] = rank_in_type.get(outcome.sample.defect, -1) + 1
        order.append(rank_in_type[outcome.sample.defect])
    best = [bad[place] for place in sorted(range(len(bad)), key=lambda place: (order[place], place))][:_CASES]
    shown = {id(outcome) for outcome in best}
    rest = sorted((outcome for outcome in outcomes if id(outcome) not in shown), key=lambda outcome: outcome.margin)
    return best, rest[:_CASES]


def _panels(case: EvaluatedImage) -> tuple[Image.Image, Image.Image, Image.Image]:
    pixels = read_image(case.sample.image, size_px=(_CELL_PX, _CELL_PX), reading=case.prediction.reading)
    truth = Image.new("RGB", (_CELL_PX, _CELL_PX), (232, 234, 237))
    if case.mask is None:
        ImageDraw.Draw(truth).text((_CELL_PX / 2,) * 2, "not known", fill=INK, font=font(14), anchor="mm")
    else:
        mask = np.asarray(Image.fromarray(_mask_on_image(case)).resize((_CELL_PX, _CELL_PX), Image.Resampling.NEAREST))
        edge = mask ^ ndimage.binary_erosion(mask, iterations=2)
        marked = (pixels * 0.45 + 255 * 0.55 * 0.2).astype(np.uint8)
        marked[mask] = pixels[mask]
        marked[edge] = (255, 196, 0)
        truth = Image.fromarray(marked)
    return Image.fromarray(pixels), truth, Image.fromarray(blend_map(pixels, case.prediction))


def _mask_on_image(case: EvaluatedImage) -> NDArray[np.bool_]:
    """Return the mask of a test image in the image's orientation, at the size of the image or of the anomaly map."""
    mask, placement = case.mask, case.prediction.placement
    assert mask is not None
    if placement.turn is None or mask.shape != placement.map_size_px:
        return mask
    return placement.mask_on_image(mask, outside=False)
