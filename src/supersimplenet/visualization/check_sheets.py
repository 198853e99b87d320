"""Draw the findings of a dataset check, one sheet for each kind of finding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from supersimplenet.datasets.checks.check import CheckReport
from supersimplenet.datasets.checks.findings import Evidence, Finding
from supersimplenet.errors import ImageError
from supersimplenet.preprocessing.images import read_image
from supersimplenet.preprocessing.reading import FULL_RANGE, ReadConfig
from supersimplenet.types import Sample
from supersimplenet.utils.formatting import printable
from supersimplenet.visualization.fonts import font, shortened, wrapped

_COLUMNS = 6
_ROWS = 6
_TILE_PX = 168
_GAP_PX = 12
_DETAIL_PX = 24  # height of the line above the tiles of one piece of evidence
_CAPTION_PX = 38  # two lines below each tile
_LINE_PX = 20
_INK, _FAINT_INK, _PAPER, _TILE = (32, 33, 36), (95, 99, 104), (255, 255, 255), (232, 234, 237)
_COLOURS = {"error": (197, 34, 31), "warning": (176, 96, 0), "note": (26, 95, 180)}


def draw_findings(report: CheckReport, samples: Sequence[Sample], folder: Path) -> list[Path]:
    """Write one PNG for each finding that names images; return the paths.

    The finding's code is the file's name. A sheet of a finding with many images shows the first ones.

    Args:
        report: the findings.
        samples: the samples that were checked.
        folder: folder for the files.
    """
    sample_of = {sample.image: sample for sample in samples}
    paths = []
    for finding in report.findings:
        if finding.evidence:
            path = folder / f"{finding.code}.png"
            draw_finding(finding, sample_of, reading=report.reading).save(path)
            paths.append(path)
    return paths


def draw_finding(finding: Finding, sample_of: dict[Path, Sample], *, reading: ReadConfig = FULL_RANGE) -> Image.Image:
    """Draw the first images of a finding, images of one piece of evidence side by side, masks beside their images."""
    width = _COLUMNS * (_TILE_PX + _GAP_PX) + _GAP_PX
    title = wrapped(printable(f"{finding.level}: {finding.message}"), font(14), width - 2 * _GAP_PX)
    rows, shown = _rows(finding.evidence, panels_each=2 if finding.code.startswith("mask-") else 1)
    if shown < len(finding.evidence):
        title.append(f"The first {shown:,} of {len(finding.evidence):,} are shown.")
    top = _GAP_PX + len(title) * _LINE_PX + _GAP_PX
    row_px = _DETAIL_PX + _TILE_PX + _CAPTION_PX + _GAP_PX
    sheet = Image.new("RGB", (width, top + len(rows) * row_px), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(title):
        draw.text((_GAP_PX, _GAP_PX + number * _LINE_PX), line, fill=_COLOURS[finding.level], font=font(14))
    for number, pieces in enumerate(rows):
        x, y = _GAP_PX, top + number * row_px
        for evidence in pieces:
            panels = _panels(evidence, sample_of, reading, with_masks=finding.code.startswith("mask-"))
            span_px = len(panels) * (_TILE_PX + _GAP_PX) - _GAP_PX
            detail = shortened(printable(_without_path(evidence, sample_of)), font(12), span_px, keep="start")
            draw.text((x, y + _DETAIL_PX / 2), detail, fill=_INK, font=font(12), anchor="lm")
            if len(panels) > 1:
                draw.line([(x, y + _DETAIL_PX - 3), (x + span_px, y + _DETAIL_PX - 3)], fill=_FAINT_INK)
            for panel, captions in panels:
                sheet.paste(panel, (x, y + _DETAIL_PX))
                for below, caption in enumerate(captions):
                    place = (x, y + _DETAIL_PX + _TILE_PX + 3 + below * 16)
                    draw.text(
                        place,
                        shortened(printable(caption), font(11), _TILE_PX, keep="end"),
                        fill=_FAINT_INK,
                        font=font(11),
                    )
                x += _TILE_PX + _GAP_PX
    return sheet


def _rows(evidence: Sequence[Evidence], *, panels_each: int) -> tuple[list[list[Evidence]], int]:
    """Return the evidence that fits on the sheet, in rows, and the number of pieces of evidence in them."""
    rows: list[list[Evidence]] = []
    used, shown = _COLUMNS, 0
    for piece in evidence:
        columns = min(_COLUMNS, len(piece.images) * panels_each)
        if used + columns > _COLUMNS:
            if len(rows) == _ROWS:
                break
            rows.append([])
            used = 0
        rows[-1].append(piece)
        used += columns
        shown += 1
    return rows, shown


def _panels(
    evidence: Evidence, sample_of: dict[Path, Sample], reading: ReadConfig, *, with_masks: bool
) -> list[tuple[Image.Image, tuple[str, str]]]:
    """Return the tiles of one piece of evidence with their captions."""
    panels = []
    for path in evidence.images[:_COLUMNS]:
        sample = sample_of.get(path)
        if sample is None:  # a mask without an image
            panels.append((_tile(path, stretch=True), ("mask", path.name)))
            continue
        panels.append((_tile(path, reading), (f"{sample.split} / {sample.defect}", path.name)))
        if with_masks and (sample.mask or sample.ignore):
            panels.append((_tile(sample.mask or sample.ignore, stretch=True), ("mask", (sample.mask or path).name)))
        elif with_masks:
            panels.append((_blank("no mask"), ("", "")))
    return panels


def _tile(path: Path | None, reading: ReadConfig = FULL_RANGE, *, stretch: bool = False) -> Image.Image:
    """Draw an image file into a tile; ``stretch`` makes the highest level white, so that a faint mask is visible."""
    try:
        pixels = read_image(path, reading=reading) if path is not None else None
    except ImageError:
        pixels = None
    if pixels is None:
        return _blank("cannot be read")
    if stretch:
        pixels = (pixels.astype(np.float32) * (255 / max(1, int(pixels.max())))).astype(np.uint8)
    picture = Image.fromarray(pixels)
    scale = _TILE_PX / max(picture.size)
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    tile = Image.new("RGB", (_TILE_PX, _TILE_PX), _TILE)
    tile.paste(picture, ((_TILE_PX - picture.width) // 2, (_TILE_PX - picture.height) // 2))
    return tile


def _blank(text: str) -> Image.Image:
    tile = Image.new("RGB", (_TILE_PX, _TILE_PX), _TILE)
    ImageDraw.Draw(tile).text((_TILE_PX / 2,) * 2, text, fill=_FAINT_INK, font=font(13), anchor="mm")
    return tile


def _without_path(evidence: Evidence, sample_of: dict[Path, Sample]) -> str:
    """Return the detail without the path of the file, whose name is shown below the tile."""
    detail = evidence.detail
    for image in evidence.images:
        sample = sample_of.get(image)
        for path in (image,) if sample is None else (image, sample.mask, sample.ignore):
            detail = detail.removeprefix(f"{path}: ")
    return detail
