"""Training-time anomalies: where they are (Perlin masks) and what they are (Gaussian noise in feature space)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_FREQUENCY_EXPONENTS = 6  # frequencies 2^0 .. 2^5 cells per axis


@dataclass(frozen=True, kw_only=True)
class Anomalies:
    """Noise for the doubled batch, held only where it is added.

    Attributes:
        position: (M,) int64, indices into the flattened (2B, h, w) grid, ascending.
        noise: (M', C) noise vector of each position; any rows beyond the M positions are 0.
        mask: (2B, h, w) bool, True on the M positions.
    """

    position: Tensor
    noise: Tensor
    mask: Tensor

    @classmethod
    def from_dense(cls, mask: Tensor, noise: Tensor) -> Anomalies:
        """Anomalies from a mask and a noise tensor given whole, as tests and injections have them.

        Args:
            mask: (2B, h, w) bool.
            noise: (2B, C, h, w); values outside the mask are ignored.
        """
        position = mask.flatten().nonzero()[:, 0]
        return cls(position=position, noise=noise.movedim(1, -1).flatten(0, 2)[position], mask=mask)


def draw_anomalies(
    defective: Tensor,
    *,
    channels: int,
    perlin_threshold: float,
    noise_std: float,
    generator: torch.Generator | Sequence[torch.Generator],
    dtype: torch.dtype = torch.float32,
) -> Anomalies:
    """Draw masks and noise for the doubled batch.

    Args:
        defective: (B, h, w) bool, pixels defective in the ground truth; they receive no noise.
        channels: C, length of a noise vector.
        perlin_threshold: a pixel is anomalous where the field exceeds it.
        noise_std: standard deviation of the noise, in feature units.
        generator: source of all randomness, on the CPU so that every device draws the same; or one for each of the B
            images, whose draws then do not depend on the images it is drawn with.
        dtype: type of the noise; it is drawn in float32.

    Returns:
        Anomalies of 2B images, on the device of ``defective``. Each image's mask is empty with probability one half.

    Source: JIMS section 3.2, ICPR section 3.2. Differs: noise is drawn only where the mask is, which leaves its
    distribution unchanged; no rescaling of fields that stay below the threshold (that is anomalib's).
    """
    batch, height, width = defective.shape
    sources = [generator] if isinstance(generator, torch.Generator) else list(generator)
    of_source = 2 * batch // len(sources)  # maps that one draws: all, or both copies of an image
    fields = [perlin_fields(of_source, height, width, generator=source) for source in sources]
    chances = [torch.rand(of_source, 1, 1, generator=source) for source in sources]
    field, chance = (torch.stack(drawn, dim=1).flatten(0, 1) for drawn in (fields, chances))  # one copy, then the other
    kept = chance < 0.5
    mask = (field > perlin_threshold) & kept & ~defective.repeat(2, 1, 1).cpu()
    position = mask.flatten().nonzero()[:, 0]
    # The number of rows differs from step to step, and oneDNN prepares and keeps a kernel for each that it meets.
    noise = torch.zeros(_rounded_up(len(position)), channels)
    if isinstance(generator, torch.Generator):
        noise[: len(position)].normal_(0, noise_std, generator=generator)
    else:
        rows = torch.split(noise[: len(position)], mask.flatten(1).sum(1).tolist())
        for place, of_map in enumerate(rows):
            of_map.normal_(0, noise_std, generator=sources[place % batch])
    device = defective.device
    return Anomalies(position=position.to(device), noise=noise.to(device, dtype), mask=mask.to(device))


def _rounded_up(count: int) -> int:
    """The next of sixteen sizes an octave: at most a sixteenth more, and few different ones."""
    step = 1 << max(count.bit_length() - 5, 6)
    return -(-count // step) * step


def perlin_fields(count: int, height: int, width: int, *, generator: torch.Generator) -> Tensor:
    """Perlin noise fields, each with its own random frequency per axis.

    Args:
        count: number of fields.
        height: rows of a field.
        width: columns of a field.
        generator: source of randomness (CPU).

    Returns:
        (count, height, width) float32, within about [-1, 1].

    Source: JIMS section 3.2; Perlin 1985 with the fade curve of 2002. Differs: the frequency is at most one cell a
    pixel, which only matters for feature maps smaller than 32 pixels.
    """
    grid_height, grid_width = _next_power_of_two(height), _next_power_of_two(width)
    exponents = torch.randint(_FREQUENCY_EXPONENTS, (count, 2), generator=generator)
    fields = torch.stack(
        [
            _perlin_field(
                (grid_height, grid_width), (min(1 << y, grid_height), min(1 << x, grid_width)), generator=generator
            )
            for y, x in exponents.tolist()
        ]
    )
    if (grid_height, grid_width) != (height, width):
        fields = F.interpolate(fields[:, None], size=(height, width), mode="bilinear", align_corners=False)[:, 0]
    return fields


def _next_power_of_two(length: int) -> int:
    return 1 << (length - 1).bit_length()


def _perlin_field(size: tuple[int, int], cells: tuple[int, int], *, generator: torch.Generator) -> Tensor:
    """One field of ``size`` pixels over ``cells`` lattice cells; each length is a multiple of its cells."""
    angle = 2 * math.pi * torch.rand(cells[0] + 1, cells[1] + 1, generator=generator)
    slope_y, slope_x = angle.cos(), angle.sin()  # unit gradients at the lattice points
    cell_y, offset_y = _cell_and_offset(size[0], cells[0])
    cell_x, offset_x = _cell_and_offset(size[1], cells[1])

    def ramp(corner_y: int, corner_x: int) -> Tensor:
        """The plane through a corner of each pixel's cell, along that corner's gradient."""
        corner = (cell_y[:, None] + corner_y, cell_x[None, :] + corner_x)
        along_y = slope_y[corner] * (offset_y - corner_y)[:, None]
        return along_y + slope_x[corner] * (offset_x - corner_x)[None, :]

    fade_y, fade_x = _fade(offset_y)[:, None], _fade(offset_x)[None, :]
    left = torch.lerp(ramp(0, 0), ramp(1, 0), fade_y)
    right = torch.lerp(ramp(0, 1), ramp(1, 1), fade_y)
    return math.sqrt(2) * torch.lerp(left, right, fade_x)


def _cell_and_offset(length: int, cells: int) -> tuple[Tensor, Tensor]:
    """The lattice cell of each pixel (length,) and its offset inside it in [0, 1)."""
    pixels_per_cell = length // cells
    pixel = torch.arange(length)
    return pixel // pixels_per_cell, (pixel % pixels_per_cell) / pixels_per_cell


def _fade(t: Tensor) -> Tensor:
    """Quintic step whose first and second derivatives vanish at both ends."""
    return t * t * t * (t * (t * 6 - 15) + 10)
