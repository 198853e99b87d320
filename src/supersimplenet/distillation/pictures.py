"""What a distillation shows both backbones: crops of photographs, and textures that photographs hardly hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from supersimplenet.datasets.textures import noise
from supersimplenet.preprocessing.images import read_image

Pixels = NDArray[np.uint8]
_KEPT_BYTES = 1 << 30  # of decoded pictures
_LONGEST = 2.5  # a picture is kept at most this many times as large as the largest crop, by its shorter side
_LEAST_SHARE = 0.6  # of the picture's shorter side, in a crop
_PERIODS_PX = (3.0, 28.0)


class Crops:
    """Square crops, the same for the same seed, step and place in the batch, in any order and on any machine.

    Args:
        pictures: image files; labels do not matter.
        largest_px: largest side of a crop.
        generated: share of the crops that are drawn.
        seed: of all choices.
    """

    def __init__(self, pictures: Sequence[Path], *, largest_px: int, generated: float, seed: int) -> None:
        self._pictures, self._largest_px = list(pictures), largest_px
        self._generated, self._seed = generated, seed
        self._kept: OrderedDict[int, Pixels] = OrderedDict()
        self._bytes, self._lock = 0, Lock()

    def crop(self, step: int, place: int, side_px: int) -> Pixels:
        """Return a crop (side_px, side_px, 3) uint8, RGB.

        Raises:
            ImageError: its file cannot be read.
        """
        rng = np.random.default_rng([self._seed, step, place])
        if not self._pictures or rng.random() < self._generated:
            pixels = drawn_texture(side_px, rng)
        else:
            picture = self._picture(int(rng.integers(len(self._pictures))))
            pixels = _resized_part(picture, side_px, rng)
        return _with_other_light(pixels, rng)

    def side_px(self, step: int, smallest_px: int) -> int:
        """Return the side of a step's crops: a multiple of 16."""
        rng = np.random.default_rng([self._seed, step])
        return 16 * int(rng.integers(smallest_px // 16, self._largest_px // 16 + 1))

    def _picture(self, number: int) -> Pixels:
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
                return self._kept[number]
        pixels = read_image(self._pictures[number])
        shorter, most = min(pixels.shape[:2]), _LONGEST * self._largest_px
        if shorter > most:
            size = tuple(round(side * most / shorter) for side in (pixels.shape[1], pixels.shape[0]))
            pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
        with self._lock:
            if number not in self._kept:
                self._kept[number] = pixels
                self._bytes += pixels.nbytes
            while self._bytes > _KEPT_BYTES:
                _, oldest = self._kept.popitem(last=False)
                self._bytes -= oldest.nbytes
        return pixels


def drawn_texture(side_px: int, rng: np.random.Generator) -> Pixels:
    """Draw a grating, a weave or a grain in random colours, (side_px, side_px, 3) uint8."""
    shape = (side_px, side_px)
    kind = rng.integers(3)
    if kind < 2:  # one grating, or two across each other
        plane = sum(_grating(shape, rng) for _ in range(kind + 1)) / (kind + 1)
        plane = plane + rng.uniform(0, 0.3) * noise(shape, rng, along_px=float(rng.uniform(0.5, 3)))
    else:
        along, across = rng.uniform(0.5, 12), rng.uniform(0.5, 4)
        plane = noise(
            shape, rng, along_px=float(along), across_px=float(across), angle_rad=float(rng.uniform(0, np.pi))
        )
    share = np.clip(0.5 + plane * rng.uniform(0.1, 0.5), 0, 1)[..., None]
    dark, light = rng.uniform(0, 255, 3), rng.uniform(0, 255, 3)
    drawn: Pixels = np.asarray(dark + (light - dark) * share).round().astype(np.uint8)
    return drawn


def _grating(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Waves from -1 to 1 of a random period, direction and sharpness, slightly bent."""
    y, x = np.indices(shape, dtype=np.float64)
    angle, period = rng.uniform(0, np.pi), np.exp(rng.uniform(*np.log(_PERIODS_PX)))
    bent = rng.uniform(0, 2) * noise(shape, rng, along_px=float(rng.uniform(8, 40)))
    wave: NDArray[np.float64] = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle) + bent) / period)
    sharpness = rng.uniform(0.5, 6)
    sharp: NDArray[np.float64] = np.tanh(sharpness * wave) / np.tanh(sharpness)
    return sharp


def _resized_part(picture: Pixels, side_px: int, rng: np.random.Generator) -> Pixels:
    """Return a random square of a picture, resized and turned by quarters and mirrored by chance."""
    height, width = picture.shape[:2]
    shorter = min(height, width)
    part = max(1, round(shorter * rng.uniform(_LEAST_SHARE, 1)))
    if rng.random() < 0.5 and shorter >= side_px:
        part = side_px  # at the picture's own resolution
    top, left = int(rng.integers(height - part + 1)), int(rng.integers(width - part + 1))
    square = picture[top : top + part, left : left + part]
    if part != side_px:
        square = np.asarray(Image.fromarray(square).resize((side_px, side_px), Image.Resampling.BILINEAR))
    square = np.rot90(square, int(rng.integers(4)))
    return square[:, ::-1] if rng.random() < 0.5 else square


def _with_other_light(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Change brightness and contrast, and take the colours away from a third."""
    values = pixels.astype(np.float32)
    if rng.random() < 1 / 3:
        values[...] = values.mean(axis=-1, keepdims=True)
    middle = values.mean()
    values = middle + (values - middle) * rng.uniform(0.6, 1.3) + rng.uniform(-30, 30)
    lit: Pixels = np.clip(values, 0, 255).round().astype(np.uint8)
    return lit
