"""Synthetic anomalies for training: their place (Perlin masks) and their content (Gaussian noise in feature space)."""

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
    """Noise for the doubled batch, stored only for the positions where it is added.

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
        """Build anomalies from a dense mask and a dense noise tensor, as tests and injected anomalies have them.

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
        perlin_threshold: a pixel is anomalous where the Perlin field exceeds it.
        noise_std: standard deviation of the noise, in feature units.
        generator: source of all randomness, on the CPU; or one for each of the B images, so that an image's draws do
            not depend on the other images of the batch. Masks are the same on every device. On a device other than the
            CPU the noise is drawn there, from a seed that the generator gives.
        dtype: type of the noise; it is drawn in float32.

    Returns:
        Anomalies of 2B images, on the device of ``defective``. Each image's mask is empty with probability one half.

    Source: JIMS section 3.2, ICPR section 3.2. Differs: noise is drawn only where the mask is, which leaves its
    distribution unchanged; fields that stay below the threshold are not rescaled (anomalib does that).
    """
    batch, height, width = defective.shape
    sources = [generator] if isinstance(generator, torch.Generator) else list(generator)
    of_source = 2 * batch // len(sources)  # maps that one generator draws: all, or both copies of an image
    device = defective.device
    fields = perlin_fields(2 * batch, height, width, generator=sources, device=device)
    chances = torch.cat([torch.rand(of_source, generator=source) for source in sources]).to(device)
    field, chance = (
        drawn.view(len(sources), of_source, *drawn.shape[1:]).transpose(0, 1).flatten(0, 1)  # one copy, then the other
        for drawn in (fields, chances)
    )
    mask = (field > perlin_threshold) & (chance < 0.5)[:, None, None] & ~defective.repeat(2, 1, 1)
    position = mask.flatten().nonzero()[:, 0]
    # The number of rows differs from step to step, and oneDNN prepares and keeps a kernel for each number.
    noise = torch.zeros(_rounded_up(len(position)), channels, device=device)
    counts = [len(position)] if isinstance(generator, torch.Generator) else mask.flatten(1).sum(1).tolist()
    for place, rows in enumerate(torch.split(noise[: len(position)], counts)):
        _fill_normal(rows, noise_std, sources[place % len(sources)])
    return Anomalies(position=position, noise=noise.to(dtype), mask=mask)


def _fill_normal(rows: Tensor, std: float, generator: torch.Generator) -> None:
    """Fill the rows with Gaussian noise on their own device.

    A GPU draws from a seed; otherwise some 100 MB per step would have to be copied to it.
    """
    if rows.device.type != "cpu":
        seed = int(torch.randint(1 << 62, (), generator=generator))
        generator = torch.Generator(rows.device).manual_seed(seed)
    rows.normal_(0, std, generator=generator)


def _rounded_up(count: int) -> int:
    """Round up to one of sixteen sizes per octave: at most a sixteenth more, and only few different sizes."""
    step = 1 << max(count.bit_length() - 5, 6)
    return -(-count // step) * step


def perlin_fields(
    count: int,
    height: int,
    width: int,
    *,
    generator: torch.Generator | Sequence[torch.Generator],
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw Perlin noise fields, each with its own random frequency on each axis.

    Args:
        count: number of fields.
        height: rows of a field.
        width: columns of a field.
        generator: source of randomness, on the CPU; or several, each of which draws an equal share of the fields, one
            generator after the other.
        device: where the fields are computed.

    Returns:
        (count, height, width) float32, within about [-1, 1].

    Source: JIMS section 3.2; Perlin 1985 with the fade curve of 2002. Differs: the frequency is at most one cell per
    pixel, which matters only for feature maps smaller than 32 pixels.
    """
    grid = _next_power_of_two(height), _next_power_of_two(width)
    most = min(1 << (_FREQUENCY_EXPONENTS - 1), max(grid))
    angle = torch.zeros(count, most + 1, most + 1)  # of the gradient at each lattice point
    cells: list[tuple[int, int]] = []
    sources = [generator] if isinstance(generator, torch.Generator) else list(generator)
    for source in sources:
        exponents = torch.randint(_FREQUENCY_EXPONENTS, (count // len(sources), 2), generator=source)
        for y, x in exponents.tolist():
            rows, columns = min(1 << y, grid[0]), min(1 << x, grid[1])
            angle[len(cells), : rows + 1, : columns + 1] = torch.rand(rows + 1, columns + 1, generator=source)
            cells.append((rows, columns))
    fields = _perlin(2 * math.pi * angle.to(device), torch.tensor(cells, device=device), grid)
    if grid != (height, width):
        fields = F.interpolate(fields[:, None], size=(height, width), mode="bilinear", align_corners=False)[:, 0]
    return fields


def _next_power_of_two(length: int) -> int:
    return 1 << (length - 1).bit_length()


def _perlin(angle: Tensor, cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Compute fields (N, *size) from gradient angles (N, n, n) and numbers of cells (N, 2), which divide the sides."""
    slope_y, slope_x = angle.cos(), angle.sin()  # unit gradients at the lattice points
    (cell_y, offset_y), (cell_x, offset_x) = (_cell_and_offset(size[axis], cells[:, axis]) for axis in (0, 1))
    lattice = torch.arange(len(angle), device=angle.device)[:, None, None]

    def ramp(corner_y: int, corner_x: int) -> Tensor:
        """Compute the plane through a corner of each pixel's cell, along that corner's gradient."""
        corner = (lattice, cell_y[:, :, None] + corner_y, cell_x[:, None, :] + corner_x)
        along_y = slope_y[corner] * (offset_y - corner_y)[:, :, None]
        return along_y + slope_x[corner] * (offset_x - corner_x)[:, None, :]

    fade_y, fade_x = _fade(offset_y)[:, :, None], _fade(offset_x)[:, None, :]
    left = torch.lerp(ramp(0, 0), ramp(1, 0), fade_y)
    right = torch.lerp(ramp(0, 1), ramp(1, 1), fade_y)
    return math.sqrt(2) * torch.lerp(left, right, fade_x)


def _cell_and_offset(length: int, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Return each pixel's lattice cell (N, length) and its offset in the cell in [0, 1), for N numbers of cells."""
    pixels_per_cell = (length // cells)[:, None]
    pixel = torch.arange(length, device=cells.device)
    return pixel // pixels_per_cell, (pixel % pixels_per_cell) / pixels_per_cell


def _fade(t: Tensor) -> Tensor:
    """Compute the quintic step whose first and second derivatives vanish at both ends."""
    return t * t * t * (t * (t * 6 - 15) + 10)
