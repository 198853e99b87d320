"""Paint defects onto photographs of good parts, with exact masks: to choose by where nobody has marked a defect.

A defect is a gain on the reflected light, as in the synthetic dataset. How strong it is follows from the photograph's
own texture, so that it is as visible on a faint and even surface as on a coarse one. No torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from supersimplenet.datasets.drawn_defects import DEFECTS, VISIBLE_LEVELS, Mask, fade, is_clear, visible_mask
from supersimplenet.datasets.textures import Picture, Plane, Scene, Surface
from supersimplenet.errors import DataError
from supersimplenet.preprocessing.prepared_image import PreparedImage
from supersimplenet.preprocessing.preprocessor import Preprocessor

KINDS = ("scratch", "pit", "stain", "crack")
_GAMMA = 2.2
_BLACK_LEVELS = 8.0  # light that even black parts of a photograph reflect, so that a scratch shows there
_FAINTEST_LEVELS, _STRONGEST_LEVELS = 4.0, 20.0  # bounds of the change that counts as visible
_SIZES = 0.4, 1.5  # of a defect, where 1 suits a part that fills the image
_SMALLEST_UNIT_PX = 0.15  # below it, what is drawn is smaller than a pixel
_LARGEST_LOG_GAIN = 6.0
_ATTEMPTS = 24  # at a factor of 1.2 each, the last one is 66 times as strong as the first


@dataclass(frozen=True, kw_only=True)
class Painted:
    """A prepared image of a good part with a painted defect.

    Attributes:
        prepared: the image with the defect.
        mask: (h, w) bool of the map, True where the defect visibly changed the image; never empty.
        kind: one of `KINDS`.
        tile: number of the tile on which it was painted.
    """

    prepared: PreparedImage
    mask: Mask
    kind: str
    tile: int


def paint(
    pixels: Picture, rng: Generator, *, kind: str | None = None, counted: Mask | None = None
) -> tuple[Picture, Mask, str] | None:
    """Paint one defect onto a photograph.

    Args:
        pixels: (H, W, 3) uint8; where all channels are equal, the defect is grey too.
        rng: source of randomness.
        kind: one of `KINDS`; None for any.
        counted: (H, W) bool, the only pixels that may change; None for all.

    Returns:
        The picture, the mask (H, W) bool of the visibly changed pixels, and the kind. Outside the mask a pixel changes
        less than visibly, and at a distance of 4 or more from it not at all. None if nothing visible can be painted,
        because too few pixels count.
    """
    counted = np.ones(pixels.shape[:2], dtype=bool) if counted is None else counted
    if not counted.any():
        return None
    levels = pixels.astype(np.float64)
    is_grey = bool((pixels == pixels[..., :1]).all())
    unit_px = min(counted.shape) / 256
    size = max(np.exp(rng.uniform(*np.log(_SIZES))), _SMALLEST_UNIT_PX / unit_px)
    scene = Scene(shape=counted.shape, light_rad=rng.normal(-0.75 * np.pi, 0.3), size=size, counted=counted)
    visible_levels = _visible_levels(levels, counted)
    part = Surface(reflectance=levels, texture_contrast=visible_levels / VISIBLE_LEVELS)
    for attempt in range(_ATTEMPTS):
        drawn = KINDS[rng.integers(len(KINDS))] if kind is None else kind
        log_gain = DEFECTS[drawn](part, scene, rng, 1.2**attempt)
        change = _change(levels, log_gain.mean(axis=-1, keepdims=True) if is_grey else log_gain, scene)
        change *= counted[..., None]
        mask = visible_mask(change, scene, levels=visible_levels) & counted
        if is_clear(change, mask, scene, levels=1.5 * visible_levels):
            unseen = np.ceil(visible_levels) - 1  # rounded to whole levels, it is still below the visible change
            faded = np.clip(change, -unseen, unseen) * fade(mask)[..., None]
            painted = levels + np.where(mask[..., None], change, faded)
            return np.rint(painted).astype(np.uint8), mask, drawn
    return None


def paint_prepared(prepared: PreparedImage, rng: Generator, *, kind: str | None = None) -> Painted | None:
    """Paint one defect onto a prepared image, on counted pixels of one of its tiles.

    A defect is as large on a tile as on an image that is one tile: both are what the network sees at once.

    Args:
        prepared: the image; it is not changed.
        rng: source of randomness.
        kind: see `paint`.

    Returns:
        None if nothing visible can be painted; see `paint`.
    """
    layout = prepared.layout
    tiles = [tile.number for tile in prepared.tiles() if tile.scores]
    tile = tiles[rng.integers(len(tiles))]
    ignored = None if layout.ignored is None else layout.grid.crop(layout.ignored, tile)
    found = paint(
        layout.grid.crop(prepared.pixels, tile), rng, kind=kind, counted=None if ignored is None else ~ignored
    )
    if found is None:
        return None
    painted, of_tile, drawn = found
    pixels, mask = prepared.pixels.copy(), np.zeros(prepared.pixels.shape[:2], dtype=bool)
    layout.grid.crop(pixels, tile)[:] = painted
    layout.grid.crop(mask, tile)[:] = of_tile
    return Painted(prepared=replace(prepared, pixels=pixels), mask=mask, kind=drawn, tile=tile)


def painted_images(
    paths: Sequence[Path],
    count: int,
    *,
    preprocessor: Preprocessor,
    seed: int,
    ignored: Callable[[int], NDArray[np.bool_] | None] = lambda index: None,
) -> Iterator[Painted]:
    """Paint a defect onto each of some photographs of good parts; each kind comes up equally often.

    Args:
        paths: photographs of good parts, never held-out ones, which do nothing but calibrate. ``count`` of them are
            used, evenly spaced; each several times, with other defects, where there are fewer.
        count: number of painted images; one less for each on which nothing visible can be painted.
        preprocessor: prepares the images.
        seed: the same seed paints the same defects.
        ignored: returns the pixels (H, W) of an image that count nowhere, by its index in ``paths``.

    Raises:
        DataError: there is no photograph.
        ImageError: a photograph cannot be read.
    """
    if not paths:
        raise DataError("no good image to paint defects on")
    for number in range(count):
        index = number * len(paths) // count if count <= len(paths) else number % len(paths)
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
        prepared = preprocessor.prepare(paths[index], ignored(index))
        painted = paint_prepared(prepared, rng, kind=KINDS[number % len(KINDS)])
        painted = painted or paint_prepared(prepared, rng)  # another kind, such as a scratch where a stain cannot show
        if painted is not None:
            yield painted


def _visible_levels(levels: Plane, counted: Mask) -> float:
    """Return the change in grey levels that is visible on a photograph: twice the deviation of its fine texture."""
    grey = levels.mean(axis=-1)
    fine = (grey - ndimage.gaussian_filter(grey, 2.0 * max(min(grey.shape) / 256, 0.5)))[counted]
    deviation = 1.4826 * float(np.median(np.abs(fine - np.median(fine))))
    return float(np.clip(2 * deviation, _FAINTEST_LEVELS, _STRONGEST_LEVELS))


def _change(levels: Plane, log_gain: Plane, scene: Scene) -> Plane:
    """Return the change of grey levels (H, W, 3) by a gain on the light, as blurred as a lens would."""
    blur_px = 0.5 * max(scene.unit_px, 0.8)
    gain = ndimage.gaussian_filter(np.clip(log_gain, -_LARGEST_LOG_GAIN, _LARGEST_LOG_GAIN), (blur_px, blur_px, 0))
    changed = (levels + _BLACK_LEVELS) * np.exp(gain / _GAMMA) - _BLACK_LEVELS
    change: Plane = np.clip(changed, 0, 255) - levels
    return change
