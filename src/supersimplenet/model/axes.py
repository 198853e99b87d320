"""Upscaling, pooling and taps of one axis, each as a small matrix: all are linear, and the same for every channel.

The matrices come from `torch.nn.functional.interpolate` itself, applied to an identity matrix, so that both conventions
of ``align_corners`` are right to the last bit of the formula. For symbolic sizes they are computed by the formula.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from supersimplenet.errors import ConfigError

TAPS = 5  # side of the classification head's convolution
_POOL = 3  # side of the average pooling


def pooled_upscale(
    size_in: int, size_out: int, align_corners: bool, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return the matrix of bilinear upscaling followed by 3-wide average pooling, for one axis.

    Args:
        size_in: length of the feature map's axis.
        size_out: length of the upscaled axis.
        align_corners: the convention of `torch.nn.functional.interpolate`.
        device: device of the matrix.
        dtype: type of the matrix.

    Returns:
        (size_out, size_in). A row at the border sums to 2/3: padded zeros count, as in the published network.

    Source: JIMS section 3.1 (upscaling, neighbourhood aggregation). Differs: none.
    """
    if _is_open(size_in, size_out):
        upscaled = hat_upscale(size_in, size_out, align_corners, device, dtype)
        before, after = F.pad(upscaled, (0, 0, 1, 0))[:-1], F.pad(upscaled, (0, 0, 0, 1))[1:]
        return (before + upscaled + after) / _POOL
    return _pooled_upscale(size_in, size_out, align_corners, device, dtype)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # a cached matrix must serve training too
def _pooled_upscale(
    size_in: int, size_out: int, align_corners: bool, device: torch.device, dtype: torch.dtype
) -> Tensor:
    identity = torch.eye(size_in, dtype=torch.float64)[None]  # (1, size_in as channels, size_in)
    upscaled = F.interpolate(identity, size=size_out, mode="linear", align_corners=align_corners)
    pooled = F.avg_pool1d(upscaled, _POOL, stride=1, padding=_POOL // 2, count_include_pad=True)
    return pooled[0].T.contiguous().to(device=device, dtype=dtype)


def _is_open(*sizes: int) -> bool:
    """Check whether any size is symbolic, as in a graph that is exported for images of any size."""
    return any(isinstance(size, torch.SymInt) for size in sizes)


def hat_upscale(size_in: int, size_out: int, align_corners: bool, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the matrix (size_out, size_in) of bilinear upscaling by its formula, for graphs with symbolic sizes.

    Output ``i`` reads input ``j`` with the weight ``max(0, 1 - |p(i) - j|)``, where ``p(i)`` is its coordinate among
    the inputs. Integers split ``p(i)`` into a whole number and a fraction, because float32 would leave few digits to
    the fraction.
    """
    step = torch.arange(size_out, device=device)
    if align_corners:
        part, whole = step * (size_in - 1), size_out - 1
    else:
        whole = 2 * size_out
        part = torch.clamp((2 * step + 1) * size_in - size_out, min=0)
        part = torch.minimum(part, torch.full_like(part, (size_in - 1) * whole))
    return _hat(part, whole, size_in, dtype)


def _hat(part: Tensor, whole: int, size_in: int, dtype: torch.dtype) -> Tensor:
    """Return the matrix (len(part), size_in) of linear interpolation at the coordinates ``part / whole``."""
    below = torch.div(part, whole, rounding_mode="floor")
    fraction = (part - below * whole).to(dtype) / whole
    distance = (below[:, None] - torch.arange(size_in, device=part.device)).to(dtype) + fraction[:, None]
    return F.relu(1 - distance.abs())


def tap_coverage(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return where each tap of a 5-wide 'same' convolution falls inside the axis.

    Returns:
        (size, 5) of ones and zeros: what a constant contributes under the zero padding.
    """
    if _is_open(size):
        read = torch.arange(size, device=device)[:, None] + torch.arange(TAPS, device=device) - TAPS // 2
        return ((read >= 0) & (read < size)).to(dtype)
    return _tap_coverage(size, device, dtype)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # a cached matrix must serve training too
def _tap_coverage(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    radius = TAPS // 2
    inside = F.pad(torch.ones(size, device=device, dtype=dtype), (radius, radius))
    return inside.unfold(0, size, 1).T.contiguous()


def smoothed_upscale(
    size_in: int, size_out: int, sigma: float, device: torch.device, dtype: torch.dtype, shift_px: int = 0
) -> Tensor:
    """Return the matrix of bilinear upscaling followed by Gaussian smoothing with reflected borders, for one axis.

    Args:
        size_in: length of the map's axis.
        size_out: length of the image's axis; longer than the kernel's radius, ``ceil(3 * sigma)``.
        sigma: standard deviation of the Gaussian, in image pixels.
        device: device of the matrix.
        dtype: type of the matrix.
        shift_px: how far the smoothed map is moved towards the first pixel; its last value fills up the other end.

    Returns:
        (size_out, size_in); every row sums to 1.

    Raises:
        ConfigError: the axis is too short for its border to be reflected.

    Source: ICPR section 3.3 (kernel of 2 ceil(3 sigma) + 1). Differs: none.
    """
    if _is_open(size_in, size_out):
        smoothed = _smoothed(hat_upscale(size_in, size_out, False, device, dtype).T, sigma).contiguous()
        return _moved(smoothed, size_out, shift_px)
    return _smoothed_upscale(size_in, size_out, sigma, device, dtype, shift_px)


def _moved(rows: Tensor, size: int, shift_px: int) -> Tensor:
    """Return row ``i + shift_px`` in the place of row ``i``; the first or last row, where there is none."""
    if shift_px == 0:
        return rows
    return rows[(torch.arange(size, device=rows.device) + shift_px).clamp(0, size - 1)]


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def _smoothed_upscale(
    size_in: int, size_out: int, sigma: float, device: torch.device, dtype: torch.dtype, shift_px: int
) -> Tensor:
    radius = math.ceil(3 * sigma)
    if size_out <= radius:
        raise ConfigError(f"image_size: {size_out} px is too small for the smoothing; use more than {radius} px a side")
    identity = torch.eye(size_in, dtype=torch.float64)[:, None]  # (size_in, 1, size_in)
    upscaled = F.interpolate(identity, size=size_out, mode="linear", align_corners=False)
    smoothed = _smoothed(upscaled[:, 0], sigma).contiguous()
    return _moved(smoothed, size_out, shift_px).to(device=device, dtype=dtype)


def _smoothed(rows: Tensor, sigma: float) -> Tensor:
    """Smooth rows (R, size) along themselves and return them transposed: (size, R)."""
    radius = math.ceil(3 * sigma)
    offset = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(rows)
    padded = F.pad(rows[:, None], (radius, radius), mode="reflect")
    return F.conv1d(padded, kernel[None, None])[:, 0].T


def tap_matrix(
    length_in: int, length_out: int, align_corners: bool, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return `pooled_upscale` for each tap of a 5-wide 'same' convolution.

    Returns:
        (out, in, 5); ``[i, :, t]`` reads ``i + t - 2``.
    """
    make = _shifted if _is_open(length_in, length_out) else _kept_tap_matrix
    return make(length_in, length_out, align_corners, device, dtype)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _kept_tap_matrix(
    length_in: int, length_out: int, align_corners: bool, device: torch.device, dtype: torch.dtype
) -> Tensor:
    return _shifted(length_in, length_out, align_corners, device, dtype)


def _shifted(length_in: int, length_out: int, align_corners: bool, device: torch.device, dtype: torch.dtype) -> Tensor:
    matrix = pooled_upscale(length_in, length_out, align_corners, device, dtype)
    radius = TAPS // 2
    padded = F.pad(matrix, (0, 0, radius, radius))  # zeros are shifted in: a tap outside the map reads nothing
    return torch.stack([padded[tap : tap + length_out] for tap in range(TAPS)], dim=2)


def pooled_placed(
    size_in: int, size_out: int, step_in: int, step_out: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return the matrix of 3-wide average pooling followed by interpolation at true positions, for one axis.

    Position ``j`` of a map of stride ``s`` lies at pixel ``s * j``. Outputs beyond the last input are equal to it.

    Args:
        size_in: length of the feature map's axis.
        size_out: length of the axis that it is brought onto.
        step_in: stride of the feature map.
        step_out: stride of the axis that it is brought onto, at most ``step_in``.
        device: device of the matrix.
        dtype: type of the matrix.

    Returns:
        (size_out, size_in). Pooling counts padded zeros, as in `pooled_upscale`.
    """
    make = _placed if _is_open(size_in, size_out) else _kept_placed
    return make(size_in, size_out, step_in, step_out, device, dtype)


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def _kept_placed(
    size_in: int, size_out: int, step_in: int, step_out: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    exact = _placed(size_in, size_out, step_in, step_out, torch.device("cpu"), torch.float64)
    return exact.to(device=device, dtype=dtype)


def _placed(
    size_in: int, size_out: int, step_in: int, step_out: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    part = torch.arange(size_out, device=device) * step_out
    part = torch.minimum(part, torch.full_like(part, (size_in - 1) * step_in))
    placed = _hat(part, step_in, size_in, dtype)
    before, after = F.pad(placed, (1, 0))[:, :-1], F.pad(placed, (0, 1))[:, 1:]
    return (before + placed + after) / _POOL
