"""Draw defects as gains on the reflected light of a surface: scratches, pits, stains, cracks, missing patterns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from supersimplenet.datasets.textures import Plane, Scene, Surface, noise

Mask = NDArray[np.bool_]
VISIBLE_LEVELS = 9.0  # of 255; over four times the sensor noise, so that marked pixels are visibly changed
FADE_PX = 4  # at this distance from the mask, the defect has no effect any more
_LIQUIDS = np.log([[0.62, 0.40, 0.24], [0.45, 0.40, 0.32], [0.48, 0.60, 0.72], [0.40, 0.40, 0.41]])  # rust to grime


def visible_mask(change: Plane, scene: Scene, *, levels: float = VISIBLE_LEVELS) -> Mask:
    """Return the mask (H, W) of the visible change, with pinholes filled and specks removed.

    Args:
        change: (H, W, C), in grey levels of 255.
        scene: gives the size of pinholes and specks.
        levels: a pixel is visibly changed from this change of any channel on.
    """
    seen = np.abs(change).max(axis=-1) >= levels
    reach_px = math.ceil(scene.unit_px)
    inner = slice(reach_px, -reach_px)
    seen = ndimage.binary_closing(np.pad(seen, reach_px), iterations=reach_px)[inner, inner]
    pinholes = ~_larger_parts(~seen, 16 * scene.unit_px**2)
    return _larger_parts(seen | pinholes, 5 * scene.unit_px)


def is_clear(change: Plane, mask: Mask, scene: Scene, *, levels: float) -> bool:
    """Check whether enough pixels of the mask changed by so many grey levels that nobody overlooks the defect."""
    smallest_area_px = 20 * scene.unit_px**1.5
    return bool((np.abs(change[mask]).max(axis=-1) >= levels).sum() >= smallest_area_px)


def fade(mask: Mask) -> Plane:
    """Return the share (H, W) of a change that is kept: 1 on the mask, falling to 0 at `FADE_PX` from it."""
    share: Plane = np.clip(1 - ndimage.distance_transform_edt(~mask) / FADE_PX, 0, 1)
    return share


def _larger_parts(mask: Mask, smallest_area_px: float) -> Mask:
    """Return a mask with only the 8-connected regions of at least this area."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    area_px = np.bincount(labels.ravel(), minlength=count + 1)
    area_px[0] = 0
    kept: Mask = (area_px >= smallest_area_px)[labels]
    return kept


DrawDefect = Callable[[Surface, Scene, Generator, float], Plane]


"""A function that draws a defect on a part. It returns the logarithm (H, W, 3) or (H, W, 1) of the gain on the
reflected light, 0 where nothing changes. Its last argument is the strength, 1 at first."""


def _scratch(part: Surface, scene: Scene, rng: Generator, strength: float) -> Plane:
    """Draw a scratch of one to three strokes: a groove with a bright and a dark flank, made with uneven pressure."""
    unit = scene.unit_px
    strength *= _contrast(rng)
    centre = scene.place(rng)
    heading = rng.uniform(0, np.pi)
    length_px = unit * rng.uniform(55, 190)
    log_gain = np.zeros(scene.shape)
    for stroke in range(rng.choice([1, 1, 1, 2, 3])):
        start = centre + rng.normal(0, 5 * unit, size=2) * (stroke > 0)
        count = int(2 * length_px * rng.uniform(0.6, 1))
        bend = rng.normal(0, 0.25) * np.linspace(-1, 1, count)
        tremor = np.cumsum(rng.normal(0, 0.009 / np.sqrt(unit), size=count))
        near = scene.nearest(_walk(start, heading + rng.normal(0, 0.05) + bend + tremor))
        pressure = _pressure(count, rng)[near.index] * (1 if stroke == 0 else rng.uniform(0.3, 0.9))
        width_px = max(unit, 0.6) * rng.uniform(0.7, 1.5)
        facing = np.cos(near.normal_rad - scene.light_rad)
        contrast = np.where(np.abs(facing) < 0.45, np.copysign(0.45, facing), facing)
        flank = _bump((near.signed_px - width_px) / width_px) - _bump((near.signed_px + width_px) / width_px)
        log_gain += strength * pressure * (0.75 * contrast * flank + 0.12 * _bump(near.away_px / width_px))
    return _relief(part, log_gain)


def _pit(part: Surface, scene: Scene, rng: Generator, strength: float) -> Plane:
    """Draw one to four pits: the wall near the light is dark, the far wall bright; the raised rim is lit inversely."""
    strength *= _contrast(rng)
    centre = scene.place(rng)
    rough = 1 + 0.2 * noise(scene.shape, rng, 1.2 * scene.unit_px)
    log_gain = np.zeros(scene.shape)
    for pit in range(rng.choice([1, 1, 2, 3, 4])):
        size_px = scene.unit_px * float(np.clip(rng.lognormal(np.log(8), 0.5), 3.5, 22)) * (0.6 if pit else 1)
        dx, dy = scene.turned(0, centre)
        bearing = np.arctan2(dy, dx)
        outline = np.ones(scene.shape)
        for order in (1, 2, 3, 5):
            outline += rng.normal(0, 0.14 / order) * np.cos(order * bearing + rng.uniform(0, 2 * np.pi))
        radius = np.hypot(dy, dx) / (max(size_px, 2) * np.maximum(outline, 0.4))
        towards_light = np.cos(bearing - scene.light_rad)
        inside = np.clip((1 - radius) * 4, 0, 1)
        wall = inside * np.clip(radius, 0, 1) ** 1.5
        rim = _bump((radius - 1.12) / 0.16)
        bowl = -0.8 * inside * rough - 0.85 * wall * towards_light
        log_gain += strength * (bowl + rim * (0.12 + 0.45 * towards_light))
        centre = np.clip(centre + rng.normal(0, 20 * scene.unit_px, size=2), 0, np.array(scene.shape) - 1)
    return _relief(part, log_gain)


def _stain(part: Surface, scene: Scene, rng: Generator, strength: float) -> Plane:
    """Draw the stain of a dried liquid: a soft coloured spot with an uneven outline, darker towards its edge."""
    unit = scene.unit_px
    depth = _blot(scene, rng, rng.uniform(13, 38) * unit)
    body = _step(depth / rng.uniform(0.15, 0.5))
    ring = _bump((depth - 0.14) / 0.1) * body
    cloud = 1 + 0.18 * noise(scene.shape, rng, 7 * unit)
    amount = rng.uniform(0.35, 0.65) * body * cloud + rng.uniform(0, 0.45) * ring
    strength *= _contrast(rng) * part.texture_contrast
    log_gain: Plane = strength * amount[..., None] * _LIQUIDS[rng.integers(len(_LIQUIDS))]
    return log_gain


def _crack(part: Surface, scene: Scene, rng: Generator, strength: float) -> Plane:
    """Draw a crack: a jagged dark line of uneven width with branches; its edge away from the light is bright."""
    unit = scene.unit_px
    strength *= _contrast(rng)
    start, heading, length_px = scene.place(rng), rng.uniform(0, 2 * np.pi), unit * rng.uniform(60, 160)
    widest_px = max(unit * rng.uniform(0.7, 1.5), 0.6)
    branches = list(_fork(start, heading, length_px, widest_px, unit, rng))
    path, half_width_px = (np.concatenate(parts[::-1]) for parts in zip(*branches, strict=True))  # trunk on top
    near = scene.nearest(path)
    half_px = half_width_px[near.index]
    gap = np.clip(half_px + 0.5 - near.away_px, 0, 1) * np.clip(1.6 * half_px, 0, 1)
    facing = np.cos(near.normal_rad - scene.light_rad) * np.sign(near.signed_px)
    lip = _bump((near.away_px - half_px - 0.9 * unit) / (0.9 * unit)) * np.clip(-facing, 0, 1) * (half_px > 0.3)
    return _relief(part, strength * np.where(gap > 0, -1.3 * gap, 0.25 * lip))


def _missing_pattern(part: Surface, scene: Scene, rng: Generator, strength: float) -> Plane:
    """Draw a missing pattern: the ground is visible where some threads are pulled out, or where ink is missing."""
    assert part.bare is not None
    unit = scene.unit_px
    if part.threads is None:
        depth = _blot(scene, rng, strength * rng.uniform(17, 38) * unit)
        depth += 0.03 * noise(scene.shape, rng, 1.5 * unit)
        gone = _step(depth / 0.08) * rng.choice([1.0, 1.0, 0.8, 0.55])
    else:
        along, thread = part.threads
        y, x = np.rint(scene.place(rng)).astype(int)
        gone = np.zeros(scene.shape)
        reach = strength * rng.uniform(2, 8)
        for pulled in range(rng.choice([1, 1, 2, 2, 3, 4])):
            left, right = along[y, x] + reach * rng.uniform([-1.3, 0.4], [-0.4, 1.3])
            ends = np.minimum(along - left, right - along)
            frayed = 0.5 * noise(scene.shape, rng, unit)
            gone = np.where(thread == thread[y, x] + pulled, _step(4 * ends + frayed), gone)
    change: Plane = np.log1p(gone[..., None] * (part.bare / part.reflectance - 1))
    return change


DEFECTS: dict[str, DrawDefect] = {
    "scratch": _scratch,
    "pit": _pit,
    "stain": _stain,
    "crack": _crack,
    "missing_pattern": _missing_pattern,
}


def _fork(
    start: Plane, heading_rad: float, length_px: float, widest_px: float, unit_px: float, rng: Generator
) -> Iterator[tuple[Plane, Plane]]:
    """Yield a crack's branches, trunk first: path (N, 2) of (y, x) in steps of half a pixel, and half-width (N,)."""
    count = max(int(2 * length_px), 8)
    facet = np.cumsum(rng.random(count) < 0.1 / unit_px)  # straight for about five units, then a kink
    kinks = np.clip(rng.normal(0, 0.45, size=count), -1, 1)
    path = _walk(start, heading_rad + kinks[facet % count] + rng.normal(0, 0.2, size=count))
    uneven = np.exp(0.45 * np.sqrt(12 * unit_px) * ndimage.gaussian_filter1d(rng.normal(size=count), 6 * unit_px))
    t = np.linspace(0, 1, count)
    yield path, widest_px * uneven * (1 - 0.85 * t) * (0.4 + 0.6 * _step(t / 0.15))
    if length_px < 18 * unit_px:
        return
    for _ in range(rng.integers(1, 5) if length_px > 45 * unit_px else rng.integers(0, 2)):
        at = int(count * rng.uniform(0.15, 0.8))
        aside_rad = rng.choice([-1, 1]) * rng.uniform(0.5, 1.1)
        rest_px = length_px * (1 - at / count) * rng.uniform(0.35, 0.8)
        yield from _fork(path[at], heading_rad + aside_rad, rest_px, 0.65 * widest_px, unit_px, rng)


def _walk(start: Plane, heading_rad: Plane) -> Plane:
    """Return the path (N, 2) of (y, x) that goes half a pixel in the direction of each heading (N,)."""
    return start + np.cumsum(0.5 * np.stack([np.sin(heading_rad), np.cos(heading_rad)], axis=1), axis=0)


def _relief(part: Surface, log_gain: Plane) -> Plane:
    """Return the shading (H, W) of a relief as it appears on the part's material, as (H, W, 1)."""
    shown = part.texture_contrast * np.where(log_gain > 0, part.sheen * log_gain, log_gain)
    return shown[..., None]


def _blot(scene: Scene, rng: Generator, radius_px: float) -> Plane:
    """Return the depth (H, W) in an irregular spot, in radii: about 1 in the middle, 0 on the outline, < 0 outside."""
    along, across = scene.turned(rng.uniform(0, np.pi), scene.place(rng))
    stretch = rng.uniform(1, 1.5)
    depth = 1 - np.hypot(along / stretch, across * stretch) / radius_px
    ragged = 0.22 * noise(scene.shape, rng, 0.4 * radius_px) + 0.11 * noise(scene.shape, rng, 0.12 * radius_px)
    return depth + ragged * np.clip(1.5 + depth, 0, 1)  # no islands far away


def _contrast(rng: Generator) -> float:
    """Return the relative strength of a defect; one defect in six is faint."""
    return float(rng.uniform(0.4, 0.55) if rng.random() < 1 / 6 else rng.uniform(0.8, 1.3))


def _pressure(count: int, rng: Generator) -> Plane:
    """Return the pressure (N,) in [0, 1] along a stroke: it rises at the start, is uneven, and falls at the end."""
    t = np.linspace(0, 1, count)
    uneven = ndimage.gaussian_filter1d(rng.normal(size=count), count / 12) * np.sqrt(count / 3.5)
    pressure: Plane = np.clip(0.85 + 0.25 * uneven, 0, 1) * _step(t / 0.2) * _step((1 - t) / 0.35)
    return pressure


def _bump(x: Plane) -> Plane:
    """Return a Gaussian of height 1 and standard deviation 1."""
    gaussian: Plane = np.exp(-0.5 * x**2)
    return gaussian


def _step(x: Plane) -> Plane:
    """Return a smooth step: 0 below 0, 1 above 1."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)
