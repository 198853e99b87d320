"""Draw the findings of a test split on one sheet: best, escapes, false alarms and worst apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from supersimplenet.evaluation.cases import EvaluatedImage
from supersimplenet.evaluation.results import Outcome
from supersimplenet.postprocessing.calibration import UNCALIBRATED
from supersimplenet.preprocessing.images import read_image
from supersimplenet.types import BAD, GOOD, Prediction
from supersimplenet.utils.formatting import printable
from supersimplenet.visualization.colours import (
    BLUE,
    FAINT_INK,
    GREY,
    INK,
    MARGIN,
    PAPER,
    TRUTH,
    VERMILION,
    Colour,
    draw_bar,
)
from supersimplenet.visualization.fonts import font, shortened, wrapped
from supersimplenet.visualization.overlay import blend_map, draw_listed, hatch_ignored

T = TypeVar("T", Outcome, EvaluatedImage)
_COLUMNS = 5  # images of each group at most
_CELL_PX = 176
_GAP_PX = 8
_LABEL_PX = 120
_TITLE_PX = 36
_CAPTION_PX = 80  # four lines
_GROUP_PX = _TITLE_PX + 3 * (_CELL_PX + _GAP_PX) + _CAPTION_PX
_WIDTH_PX = _LABEL_PX + _COLUMNS * (_CELL_PX + _GAP_PX) + _GAP_PX


@dataclass(frozen=True, kw_only=True)
class Findings(Generic[T]):
    """A group of findings.

    Attributes:
        title: what they have in common, in words.
        cases: those that are shown, in their order.
        total: how many there are.
    """

    title: str
    cases: Sequence[T]
    total: int


def draw_contact_sheet(groups: Sequence[Findings[EvaluatedImage]], title: str) -> Image.Image:
    """Draw findings of a test split: image, ground truth, anomaly map; file name, verdict, score, truth.

    Args:
        groups: see `group_findings`; one below the other, each with its title.
        title: text of the line above the pictures.
    """
    predictions = [case.prediction for group in groups for case in group.cases]
    head = _head(title, predictions)
    sheet = Image.new("RGB", (_WIDTH_PX, head.height + len(groups) * _GROUP_PX + _GAP_PX), PAPER)
    sheet.paste(head, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for number, group in enumerate(groups):
        top = head.height + number * _GROUP_PX
        shown = "" if len(group.cases) == group.total else f", {len(group.cases)} of {group.total:,} shown"
        draw.text((16, top + _TITLE_PX / 2), f"{group.title}{shown}", fill=INK, font=font(17), anchor="lm")
        for row, label in enumerate(("image", "truth", "anomaly map")):
            y = top + _TITLE_PX + row * (_CELL_PX + _GAP_PX)
            draw.text((16, y + _CELL_PX / 2), label, fill=INK, font=font(14), anchor="lm")
        for column, case in enumerate(group.cases):
            x = _LABEL_PX + column * (_CELL_PX + _GAP_PX)
            for row, picture in enumerate(_panels(case)):
                at = (x + (_CELL_PX - picture.width) // 2, (_CELL_PX - picture.height) // 2)
                y = top + _TITLE_PX + row * (_CELL_PX + _GAP_PX)
                draw.rectangle((x, y, x + _CELL_PX - 1, y + _CELL_PX - 1), fill=MARGIN)
                sheet.paste(picture, (at[0], y + at[1]))
            y = top + _TITLE_PX + 3 * (_CELL_PX + _GAP_PX)
            for line, (text, colour, size_px) in enumerate(_captions(case)):
                text = shortened(text, font(size_px), _CELL_PX, keep="start")
                draw.text((x, y + 6 + 18 * line), text, fill=colour, font=font(size_px), anchor="lm")
    return sheet


def _head(title: str, predictions: Sequence[Prediction]) -> Image.Image:
    """Draw what stands above the groups: title, threshold, and the colour bar of a calibrated model."""
    room_px = _WIDTH_PX - 32
    lines: list[tuple[str, Colour, int]] = [(line, INK, 20) for line in wrapped(printable(title), font(20), room_px)]
    calibrated = [prediction for prediction in predictions if prediction.pixel_logit is not None]
    if calibrated:
        lines.append(("Scores from 0 to 1; bad from 0.5 on. Boxes and rings: listed defects.", INK, 13))
        bar = draw_bar(calibrated[0], 420, 12)
    else:
        lines.append(("Scores are logits; bad from 0 on. The anomaly map is yellow at its own maximum.", INK, 13))
        lines += [(line, VERMILION, 13) for line in wrapped(UNCALIBRATED, font(13), room_px)]
        bar = Image.new("RGB", (1, 1), PAPER)
    head = Image.new("RGB", (_WIDTH_PX, 24 + sum(size_px + 9 for _, _, size_px in lines) + bar.height), PAPER)
    draw, y = ImageDraw.Draw(head), 14.0
    for text, colour, size_px in lines:
        draw.text((16, y + size_px / 2), text, fill=colour, font=font(size_px), anchor="lm")
        y += size_px + 9
    head.paste(bar, (16, round(y)))
    return head


def _captions(case: EvaluatedImage) -> list[tuple[str, Colour, int]]:
    prediction = case.prediction
    right = "bad" if case.sample.label == BAD else "good"
    colour = {right: BLUE, "unsure": GREY}.get(prediction.verdict, VERMILION)
    name = printable(f"{case.sample.image.parent.name}/{case.sample.image.name}")
    return [
        (f"{prediction.verdict}, score {prediction.shown_score()}", colour, 14),
        *((line, INK, 12) for line in _name_lines(name)),
        (printable(f"truth: {case.sample.defect}"), FAINT_INK, 12),
    ]


def _name_lines(name: str) -> list[str]:
    """Return a file's name in one line or two; of a longer one the start, and the end whole."""
    lettering = font(12)
    end = shortened(name, lettering, _CELL_PX, keep="end")
    if end == name:
        return [name]
    end = end.removeprefix("…")
    return [name.removesuffix(end), end]


def group_findings(outcomes: Sequence[Outcome]) -> list[Findings[Outcome]]:
    """Return the findings for a contact sheet, in groups that are not empty; no image stands in two of them.

    The best are the bad images that are found with the largest margin, taken from each defect type in turn. Escapes and
    false alarms come worst first. The last group are the other images, whose verdict is right or unsure: nearest to the
    threshold, or furthest on its wrong side, first.
    """
    found = (outcome for outcome in outcomes if outcome.sample.label == BAD and outcome.verdict == "bad")
    bad = sorted(found, key=lambda outcome: -outcome.margin)
    rank_in_type: dict[str, int] = {}
    order = []
    for outcome in bad:
        rank_in_type[outcome.sample.defect] = rank_in_type.get(outcome.sample.defect, -1) + 1
        order.append(rank_in_type[outcome.sample.defect])
    best = [bad[place] for place in sorted(range(len(bad)), key=lambda place: (order[place], place))][:_COLUMNS]
    shown = {id(outcome) for outcome in best}
    rest = sorted((outcome for outcome in outcomes if id(outcome) not in shown), key=lambda outcome: outcome.margin)
    escapes = [outcome for outcome in rest if outcome.sample.label == BAD and outcome.verdict == "good"]
    alarms = [outcome for outcome in rest if outcome.sample.label == GOOD and outcome.verdict == "bad"]
    mistakes = {id(outcome) for outcome in (*escapes, *alarms)}
    right = [outcome for outcome in rest if id(outcome) not in mistakes]
    groups = [
        Findings(title="Best: bad parts found, the largest margins", cases=best, total=len(bad)),
        Findings(title="Escapes: bad parts called good, the worst first", cases=escapes, total=len(escapes)),
        Findings(title="False alarms: good parts called bad, the worst first", cases=alarms, total=len(alarms)),
        Findings(title="Worst of the others: not wrong, nearest to the threshold", cases=right, total=len(right)),
    ]
    return [replace(group, cases=group.cases[:_COLUMNS]) for group in groups if group.cases]


def _panels(case: EvaluatedImage) -> tuple[Image.Image, Image.Image, Image.Image]:
    """Draw image, truth and anomaly map, in the image's proportions, within a cell."""
    height, width = case.prediction.placement.image_size_px
    scale = _CELL_PX / max(height, width)
    size_px = max(1, round(height * scale)), max(1, round(width * scale))
    pixels = read_image(case.sample.image, size_px=size_px, reading=case.prediction.reading)
    heat = Image.fromarray(hatch_ignored(blend_map(pixels, case.prediction), case.prediction))
    draw_listed(heat, case.prediction, outlines=False, boxes=True)
    return Image.fromarray(pixels), _truth(case, pixels), heat


def _truth(case: EvaluatedImage, pixels: NDArray[np.uint8]) -> Image.Image:
    height, width = pixels.shape[:2]
    if case.mask is None:
        truth = Image.new("RGB", (width, height), MARGIN)
        ImageDraw.Draw(truth).text((width / 2, height / 2), "not known", fill=INK, font=font(14), anchor="mm")
        return truth
    mask = np.asarray(Image.fromarray(_mask_on_image(case)).resize((width, height), Image.Resampling.NEAREST))
    marked = (pixels * 0.45 + 255 * 0.55 * 0.2).astype(np.uint8)
    marked[mask] = pixels[mask]
    marked[ndimage.binary_dilation(mask, iterations=3) & ~mask] = 0
    marked[ndimage.binary_dilation(mask, iterations=2) & ~mask] = TRUTH
    return Image.fromarray(hatch_ignored(marked, case.prediction))


def _mask_on_image(case: EvaluatedImage) -> NDArray[np.bool_]:
    """Return the mask of a test image in the image's orientation, at the size of the image or of the anomaly map."""
    mask, placement = case.mask, case.prediction.placement
    assert mask is not None
    if placement.turn is None or mask.shape != placement.map_size_px:
        return mask
    return placement.mask_on_image(mask, outside=False)
