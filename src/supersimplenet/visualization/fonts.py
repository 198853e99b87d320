"""Load the font that all pictures use, and fit text into a width."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import matplotlib as mpl
from PIL import ImageFont


def font(size_px: int) -> ImageFont.FreeTypeFont:
    """Return the font DejaVu Sans of matplotlib, which is the same on every machine."""
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size_px)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width_px: float) -> list[str]:
    """Return the text in lines no wider than ``width_px``, broken between words; one longer word has its own line."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def shortened(text: str, font: ImageFont.FreeTypeFont, width_px: float, *, keep: Literal["start", "end"]) -> str:
    """Return the text, or as much of its start or end as fits into the width."""
    if font.getlength(text) <= width_px:
        return text
    while text:
        text = text[:-1] if keep == "start" else text[1:]
        shown = f"{text}…" if keep == "start" else f"…{text}"
        if font.getlength(shown) <= width_px:
            return shown
    return ""
