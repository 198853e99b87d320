"""Load the font that all pictures use."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from PIL import ImageFont


def font(size_px: int) -> ImageFont.FreeTypeFont:
    """Return the font DejaVu Sans of matplotlib, which is the same on every machine."""
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size_px)
