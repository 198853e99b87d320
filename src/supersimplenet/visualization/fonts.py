"""The one font of all pictures."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from PIL import ImageFont


def font(size_px: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans as matplotlib ships it: the same on every machine."""
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size_px)
