"""Draw the surfaces of the synthetic dataset, four products, and simulate the camera above the production line.

Each surface is one fixed product: its colours, its pitch and its motif stay the same. Images differ like the parts of
one batch: in grain, phase, a slight rotation, thread thickness, ink density. The camera adds the differences between
exposures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

Plane = NDArray[np.float64]
Picture = NDArray[np.uint8]
READ_NOISE_LEVELS = 1.0
SHOT_VARIANCE_PER_LEVEL = 0.012
_STEEL = np.array([0.97, 0.99, 1.0])
_IRON = np.array([1.0, 0.97, 0.93])
_WARP_YARN = np.array([0.36, 0.43, 0.52])
_WEFT_YARN = np.array([0.62, 0.58, 0.49])
_CARD = np.array([0.78, 0.75, 0.68])
_TEAL_INK = np.array([0.10, 0.27, 0.34])
_ORANGE_INK = np.array([0.86, 0.34, 0.12])


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The size of the camera's image, the direction of the light, and where and how large defects are drawn.

    Attributes:
        shape: (height, width) in pixels.
        light_rad: direction towards the light in the image plane; 0 is right, positive turns towards the bottom.
        size: size of all that is drawn, 1 for a part that fills the image.
        counted: (H, W) bool, where a defect may be placed; None for anywhere but near the border.
    """

    shape: tuple[int, int]
    light_rad: float
    size: float = 1.0
    counted: NDArray[np.bool_] | None = None

    @property
    def unit_px(self) -> float:
        """Pixels in one length unit: 1/256 of the shorter side, so that a part appears the same at any resolution."""
        return self.size * min(self.shape) / 256

    def turned(self, angle_rad: float, centre: Plane | None = None) -> tuple[Plane, Plane]:
        """Return coordinates (H, W) in pixels along and across ``angle_rad``, from a point (y, x) or the middle."""
        middle_y, middle_x = (np.array(self.shape) - 1) / 2 if centre is None else centre
        y, x = np.indices(self.shape, dtype=np.float64)
        y -= middle_y
        x -= middle_x
        cos, sin = np.cos(angle_rad), np.sin(angle_rad)
        return x * cos + y * sin, y * cos - x * sin

    def place(self, rng: Generator) -> Plane:
        """Return a random point (y, x): a counted pixel, else at least an eighth of the image away from its border."""
        if self.counted is not None:
            places = np.flatnonzero(self.counted)
            return np.array(np.unravel_index(places[rng.integers(places.size)], self.shape), dtype=np.float64)
        point: Plane = rng.uniform(0.125, 0.875, size=2) * (np.array(self.shape) - 1)
        return point

    def frames(self, path: Plane) -> NDArray[np.bool_]:
        """Return which of the points (N, 2), each (y, x), lie in the image: (N,) bool."""
        cell = np.rint(path)
        inside: NDArray[np.bool_] = np.all((cell >= 0) & (cell < self.shape), axis=1)
        return inside

    def nearest(self, path: Plane) -> Nearest:
        """Return the point of a path that is nearest to each pixel.

        Args:
            path: (N, 2) of (y, x), in steps of half a pixel.
        """
        inside = self.frames(path)
        if not inside.any():
            inside[0] = True  # what begins at the border may leave the image at once
        cells = np.rint(path[inside]).astype(int).clip(0, np.array(self.shape) - 1)
        on_path = np.full(self.shape, -1)
        on_path[tuple(cells.T)] = np.flatnonzero(inside)
        cell = ndimage.distance_transform_edt(on_path < 0, return_distances=False, return_indices=True)
        index = on_path[tuple(cell)]
        step = np.gradient(path, axis=0)
        normal_rad = (np.arctan2(step[:, 0], step[:, 1]) - np.pi / 2)[index]
        y, x = np.indices(self.shape)
        dy, dx = y - path[index, 0], x - path[index, 1]
        away_px = np.hypot(dy, dx)
        signed_px = np.copysign(away_px, dy * np.sin(normal_rad) + dx * np.cos(normal_rad))
        return Nearest(index=index, normal_rad=normal_rad, away_px=away_px, signed_px=signed_px)


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """The nearest point of a path, for every pixel (H, W).

    Attributes:
        index: index of the nearest point.
        normal_rad: direction of the path's left normal at that point.
        away_px: distance from that point.
        signed_px: ``away_px``, but negative on the right of the path.
    """

    index: NDArray[np.int64]
    normal_rad: Plane
    away_px: Plane
    signed_px: Plane


@dataclass(frozen=True, kw_only=True)
class Surface:
    """The surface of a part, before light and camera.

    Attributes:
        reflectance: (H, W, 3) float64 in linear light, positive, mostly below 1.
        bare: like ``reflectance``, but without the pattern; None for a surface that has no pattern.
        threads: (along, index) of the crosswise threads, each (H, W): position in pitches, and integer thread number.
            None for a surface that is not woven.
        texture_contrast: how strong a relief must be to be visible on this texture; 1 on an even surface.
        sheen: brightness of an edge that faces the light; 1 on metal, less on soft and matt material.
    """

    reflectance: Plane
    bare: Plane | None = None
    threads: tuple[Plane, NDArray[np.int64]] | None = None
    texture_contrast: float = 1.0
    sheen: float = 1.0


def noise(
    shape: tuple[int, int], rng: Generator, along_px: float, across_px: float | None = None, angle_rad: float = 0.0
) -> Plane:
    """Return a Gaussian random field (H, W) of mean 0 and standard deviation 1, without visible borders when tiled.

    Args:
        shape: (height, width).
        rng: source of randomness.
        along_px: correlation length (a Gaussian's sigma) along ``angle_rad``.
        across_px: correlation length across ``angle_rad``; None for the value of ``along_px``.
        angle_rad: direction in the image; 0 is along the rows.
    """
    across_px = along_px if across_px is None else across_px
    fy = np.fft.fftfreq(shape[0])[:, None]
    fx = np.fft.rfftfreq(shape[1])[None, :]
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    exponent = (along_px * (fx * cos + fy * sin)) ** 2 + (across_px * (fy * cos - fx * sin)) ** 2
    spectrum = np.fft.rfft2(rng.standard_normal(shape)) * np.exp(-2 * np.pi**2 * exponent)
    spectrum[0, 0] = 0
    field: Plane = np.fft.irfft2(spectrum, s=shape)
    field /= field.std()
    return field


def brushed_metal(scene: Scene, rng: Generator) -> Surface:
    """Draw steel brushed along the rows: streaks of three widths, a few deeper hairlines, a soft band of reflection."""
    unit = scene.unit_px
    angle = rng.normal(0, np.deg2rad(2.5))
    fine = noise(scene.shape, rng, 34 * unit, 0.45 * unit, angle)
    medium = noise(scene.shape, rng, 80 * unit, 1.3 * unit, angle)
    broad = noise(scene.shape, rng, 250 * unit, 7 * unit, angle)
    hair = noise(scene.shape, rng, 22 * unit, 0.55 * unit, angle)
    hairlines = np.maximum(hair - 2.2, 0) - 0.8 * np.maximum(-hair - 2.2, 0)
    _, across = scene.turned(angle)
    offset = (across / scene.shape[0] - rng.uniform(-0.5, 0.5)) / rng.uniform(0.3, 0.5)
    gloss = 1 + rng.uniform(0.15, 0.4) * np.exp(-(offset**2))
    level = 0.36 * gloss * np.exp(0.085 * fine + 0.075 * medium + 0.04 * broad + 0.25 * hairlines)
    return Surface(reflectance=level[..., None] * _STEEL)


def cast_grain(scene: Scene, rng: Generator) -> Surface:
    """Draw sand-cast iron: a rough relief lit from the side, small pores, mottled oxide, a few glinting grains."""
    unit = scene.unit_px
    relief = noise(scene.shape, rng, 5.5 * unit) + 0.55 * noise(scene.shape, rng, 2.2 * unit)
    relief += 0.22 * noise(scene.shape, rng, 0.9 * unit)
    grain = noise(scene.shape, rng, 0.9 * unit)
    mottle = noise(scene.shape, rng, 22 * unit)
    slope = _slope_towards_light(relief, scene) * unit
    pores = np.maximum(grain - 2.1, 0)
    glints = np.maximum(-grain - 2.7, 0)
    level = 0.2 * np.exp(0.62 * slope + 0.05 * relief + 0.07 * mottle - 0.9 * pores + 0.9 * glints)
    tint = 1 + 0.013 * mottle[..., None] * np.array([1.0, 0.0, -1.0])
    return Surface(reflectance=level[..., None] * _IRON * tint, texture_contrast=1.5)


def woven_cloth(scene: Scene, rng: Generator) -> Surface:
    """Draw a plain weave of blue warp and straw-coloured weft: round, twisted yarns of uneven thickness, dark gaps."""
    pitch_px = max(10 * scene.unit_px, 5)
    along, across = scene.turned(rng.normal(0, np.deg2rad(2)))
    sway = 0.12 * noise(scene.shape, rng, 3 * pitch_px), 0.12 * noise(scene.shape, rng, 3 * pitch_px)
    u = along / pitch_px + sway[0] + rng.uniform(0, 1)
    v = across / pitch_px + sway[1] + rng.uniform(0, 1)
    column, row = np.floor(u), np.floor(v)
    warp = _Yarn.spin(column, u - column - 0.5, v, rng)
    weft = _Yarn.spin(row, v - row - 0.5, u, rng)
    warp_height = warp.profile + 0.55 * np.cos(np.pi * (v - 0.5 + column))
    weft_height = weft.profile - 0.55 * np.cos(np.pi * (u - 0.5 + row))
    top = np.maximum(warp_height, weft_height)
    fuzz = 1 + 0.05 * noise(scene.shape, rng, 0.7 * scene.unit_px)

    def lit(height: Plane, colour: Plane) -> Plane:
        """Return the lit colour: hollows are in shadow, flanks that face the light are brighter."""
        shadow = np.clip(0.3 + 0.5 * height, 0.1, 1.1)
        flank = 1 + 0.09 * pitch_px * _slope_towards_light(height, scene)
        return colour * (shadow * np.clip(flank, 0.5, 1.5) * fuzz)[..., None]

    warp_colour = warp.shade[..., None] * _WARP_YARN
    weft_colour = weft.shade[..., None] * _WEFT_YARN
    colour = np.where((warp_height > weft_height)[..., None], warp_colour, weft_colour)
    return Surface(
        reflectance=lit(top, colour),
        bare=lit(1.25 * warp.profile - 0.4, 0.85 * warp_colour),
        threads=(u, row.astype(np.int64)),
        texture_contrast=1.7,
        sheen=0.5,
    )


def printed_pattern(scene: Scene, rng: Generator) -> Surface:
    """Draw card printed in two inks: teal rings around flowers, orange diamonds between them, slightly off register."""
    unit = scene.unit_px
    pitch_px = max(46 * unit, 16)
    along, across = scene.turned(rng.normal(0, np.deg2rad(1.5)))
    along += pitch_px * rng.uniform()
    across += pitch_px * rng.uniform()
    spread_px = rng.normal(0.1, 0.25) * unit  # the ink prints a little wider or narrower than its plate

    def cover(inside: Plane) -> Plane:
        """Return the coverage in [0, 1] at a depth inside the outline, in pitches; the edge is about a pixel wide."""
        return np.clip((inside * pitch_px + spread_px) / max(1.2 * unit, 1) + 0.5, 0, 1)

    x, y = _centred(along / pitch_px), _centred(across / pitch_px)
    radius = np.hypot(x, y)
    leaves = 0.21 * (0.62 + 0.38 * np.cos(4 * np.arctan2(y, x))) - radius
    teal = np.maximum(cover(0.028 - np.abs(radius - 0.33)), cover(leaves))
    off_register = rng.normal(0, 0.015, size=2)
    diamond = 0.09 - np.abs(_centred(along / pitch_px + 0.5 + off_register[0]))
    diamond -= np.abs(_centred(across / pitch_px + 0.5 + off_register[1]))
    orange = cover(diamond)

    fibre = noise(scene.shape, rng, 2.6 * unit, 0.7 * unit, 0.6) + noise(scene.shape, rng, 2.6 * unit, 0.7 * unit, -0.7)
    card = _CARD * np.exp(0.014 * fibre + 0.008 * noise(scene.shape, rng, 14 * unit))[..., None]
    density = 0.96 + 0.03 * noise(scene.shape, rng, 18 * unit) + 0.03 * noise(scene.shape, rng, 1.0 * unit)
    density = np.clip(density + rng.normal(0, 0.02), 0, 1)[..., None]
    printed = card * (1 - teal[..., None] * density * (1 - _TEAL_INK))
    printed *= 1 - orange[..., None] * density * (1 - _ORANGE_INK)
    return Surface(reflectance=printed, bare=card, sheen=0.5)


class Camera:
    """Light, lens and sensor of one exposure, fixed when the object is made.

    Args:
        scene: the scene in front of the camera.
        rng: source of this exposure's illumination, colour temperature, focus and sensor noise.
    """

    def __init__(self, scene: Scene, rng: Generator) -> None:
        self.scene = scene
        along, across = scene.turned(rng.uniform(0, 2 * np.pi))
        span_px = max(scene.shape)
        falloff = rng.uniform(0.05, 0.15) * (along**2 + across**2) / (0.5 * span_px**2)
        self._light: Plane = (rng.normal(1, 0.04) + rng.uniform(0.05, 0.25) * along / span_px - falloff)[..., None]
        warmth = rng.normal(0, 0.018)
        self._light = self._light * np.array([1 + warmth, 1, 1 - warmth])
        self._blur_px = rng.uniform(0.45, 0.7) * max(scene.unit_px, 0.8)
        self._grain = rng.standard_normal((*scene.shape, 3))

    def expose(self, reflectance: Plane) -> Plane:
        """Return grey levels (H, W, 3) in [0, 255] of a linear reflectance, gamma-encoded, not yet rounded."""
        light = ndimage.gaussian_filter(reflectance * self._light, (self._blur_px, self._blur_px, 0))
        levels: Plane = 255 * np.clip(light, 0, 1) ** (1 / 2.2)
        return levels

    def read_out(self, levels: Plane) -> Picture:
        """Add read and shot noise, round to 8 bits, and return the picture (H, W, 3)."""
        noise_std = np.sqrt(READ_NOISE_LEVELS**2 + SHOT_VARIANCE_PER_LEVEL * levels)
        return np.clip(np.rint(levels + noise_std * self._grain), 0, 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class _Yarn:
    """One set of parallel yarns: height of the round cross-section and relative brightness, each (H, W)."""

    profile: Plane
    shade: Plane

    @staticmethod
    def spin(index: Plane, across: Plane, along: Plane, rng: Generator) -> _Yarn:
        """Return the yarns numbered ``index``; ``across``, in [-0.5, 0.5), and ``along`` are in pitches."""
        number = (index - index.min()).astype(np.int64)
        count = int(number.max()) + 1
        thickness = np.clip(rng.normal(0.94, 0.05, size=count), 0.8, 1.05)[number]
        brightness = np.exp(rng.normal(0, 0.06, size=count))[number]
        slub_phase = rng.uniform(0, 2 * np.pi, size=count)[number]
        twist = np.sin(2 * np.pi * (2.2 * along + 1.1 * across) + slub_phase)
        slub = np.sin(0.7 * along + slub_phase)
        profile = np.sqrt(np.clip(1 - (2 * across / thickness) ** 2, 0, 1))
        return _Yarn(profile=profile, shade=brightness * (1 + 0.09 * twist + 0.04 * slub))


def _centred(position: Plane) -> Plane:
    """Return the position within its cell, in [-0.5, 0.5]."""
    return position - np.rint(position)


def _slope_towards_light(height: Plane, scene: Scene) -> Plane:
    """Return the slope of a relief towards the light: the loss of height per pixel in the direction of the light."""
    smooth = ndimage.gaussian_filter(height, 0.5)
    dy, dx = np.gradient(smooth)
    slope: Plane = -dx * np.cos(scene.light_rad) - dy * np.sin(scene.light_rad)
    return slope


SURFACES: dict[str, Callable[[Scene, Generator], Surface]] = {
    "brushed_metal": brushed_metal,
    "cast_grain": cast_grain,
    "woven_cloth": woven_cloth,
    "printed_pattern": printed_pattern,
}
