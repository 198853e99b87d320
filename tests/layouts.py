"""Small replicas of datasets, for the tests of the data sources."""

from pathlib import Path

import numpy as np
from PIL import Image


def touch(root: Path, *names: str) -> Path:
    """Empty files: most data sources decode nothing."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write_mask(path: Path, *, marked: int) -> Path:
    """A mask of 4 x 4 pixels with one pixel of this value; 0 leaves it empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((4, 4), dtype=np.uint8)
    pixels[1, 2] = marked
    Image.fromarray(pixels).save(path)
    return path
