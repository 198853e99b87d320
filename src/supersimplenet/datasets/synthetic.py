"""Make a small synthetic dataset of surface defects in MVTec AD's layout, for demonstrations and tests.

An image is made in three steps: the surface without defect (``textures``), a defect as a gain on the reflected light,
and the camera. Each step has its own random stream. So an image with a defect is equal, byte by byte, to the same image
without the defect, except where the defect changes it. The mask marks the pixels that the defect visibly changes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from supersimplenet.datasets.drawn_defects import (
    DEFECTS,
    VISIBLE_LEVELS,
    DrawDefect,
    Mask,
    fade,
    is_clear,
    visible_mask,
)
from supersimplenet.datasets.synthetic_config import (
    DEFECT_KEY,
    SPLIT_KEY,
    SURFACE_KEY,
    SyntheticConfig,
    check_size,
    defects_on,
)
from supersimplenet.datasets.textures import SURFACES, Camera, Picture, Plane, Scene, Surface
from supersimplenet.errors import ConfigError, OutputError
from supersimplenet.utils.locks import is_unused, writing_into


def synthesize(root: Path, config: SyntheticConfig) -> list[Path]:
    """Write the dataset under ``root`` (created if missing); return the category folders, in the config's order.

    Layout: ``<surface>/train/good/000.png``, ``<surface>/test/<good or defect>/000.png`` and
    ``<surface>/ground_truth/<defect>/000_mask.png`` (8-bit grey, 255 on the defect). Each image depends only on seed,
    size, surface, split, defect and index, so a larger dataset has the same first images. A category folder gets its
    name only when it is complete.

    Raises:
        OutputError: a category folder is not empty, or a folder cannot be written.
    """
    root = Path(root)
    folders = [root / surface for surface in config.surfaces]
    try:
        with writing_into(root):
            for folder in folders:
                if not is_unused(folder):
                    raise OutputError(
                        f"{folder}: is there already, and not empty; choose another --output or remove it"
                    )
            for folder in folders:
                with tempfile.TemporaryDirectory(dir=root, prefix=f".{folder.name}-") as unfinished:
                    category = Path(unfinished) / folder.name
                    _write_category(category, config)
                    if folder.is_dir():
                        folder.rmdir()  # empty, as checked above; Windows cannot rename onto it
                    category.rename(folder)
    except OSError as error:
        raise OutputError(f"{root}: cannot be written ({error}); choose another --output") from error
    return folders


def render(surface: str, *, defect: str | None, size_px: tuple[int, int], rng: Generator) -> tuple[Picture, Mask]:
    """Return one image and the mask of its defect.

    The same state of ``rng`` gives the same part under the same light, whatever the defect: pixels at a distance of 4
    or more from the mask are equal to those of the good image.

    Args:
        surface: one of ``SURFACES``.
        defect: one of ``defects_on(surface)``; None for a good part.
        size_px: (height, width), each at least 64.
        rng: source of randomness; every image takes the same few draws from it.

    Returns:
        Picture (H, W, 3) uint8 RGB, and mask (H, W) bool, True where the defect visibly changed the picture. The mask
        is never empty with a defect, and always empty without a defect.

    Raises:
        ConfigError: the surface is unknown, cannot have the defect, or the size is too small.
    """
    check_size(size_px)
    possible = defects_on(surface)
    if defect is not None and defect not in possible:
        raise ConfigError(f"defect: found {defect!r}, wanted None or, on {surface}, one of {', '.join(possible)}")
    part_rng, defect_rng, camera_rng = (np.random.default_rng(int(seed)) for seed in rng.integers(2**63, size=3))
    scene = Scene(shape=size_px, light_rad=part_rng.normal(-0.75 * np.pi, 0.3))
    part = SURFACES[surface](scene, part_rng)
    camera = Camera(scene, camera_rng)
    levels = camera.expose(part.reflectance)
    mask = np.zeros(size_px, dtype=bool)
    if defect is not None:
        levels, mask = _with_defect(levels, part, DEFECTS[defect], camera, defect_rng)
    return camera.read_out(levels), mask


def _with_defect(levels: Plane, part: Surface, draw: DrawDefect, camera: Camera, rng: Generator) -> tuple[Plane, Mask]:
    """Return grey levels and mask of the part with a defect; draw the defect ever stronger until it is visible."""
    scene = camera.scene
    clear_levels = 1.5 * VISIBLE_LEVELS * part.texture_contrast
    strength = 1.0
    while True:
        log_gain = draw(part, scene, rng, strength)
        change = camera.expose(part.reflectance * np.exp(log_gain)) - levels
        mask = visible_mask(change, scene)
        if is_clear(change, mask, scene, levels=clear_levels):
            break
        strength *= 1.2
    return levels + change * fade(mask)[..., None], mask


def _write_category(folder: Path, config: SyntheticConfig) -> None:
    """Write every image and mask of one surface; the name of ``folder`` is the name of the surface."""
    surface = folder.name
    counts = [("train", "good", config.train_good), ("test", "good", config.test_good)]
    counts += [("test", defect, config.test_per_defect) for defect in defects_on(surface)]
    for split, defect, count in counts:
        (folder / split / defect).mkdir(parents=True)
        for index in range(count):
            key = (SURFACE_KEY[surface], SPLIT_KEY[split], DEFECT_KEY[defect], index)
            rng = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=key))
            drawn = None if defect == "good" else defect
            picture, mask = render(surface, defect=drawn, size_px=config.size_px, rng=rng)
            Image.fromarray(picture).save(folder / split / defect / f"{index:03d}.png")
            if drawn is not None:
                mask_folder = folder / "ground_truth" / defect
                mask_folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask.astype(np.uint8) * 255).save(mask_folder / f"{index:03d}_mask.png")
