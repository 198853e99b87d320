"""Upscaling, average pooling and the taps of a 5x5 convolution, each as one small matrix per axis.

All three are linear, act alike on every channel and are separable, so ``out = Y @ x @ X.T`` with one matrix for each
axis. The matrices are read off `torch.nn.functional.interpolate` itself, applied to an identity, so that both
conventions of ``align_corners`` come out right to the last bit of the formula.
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


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # a cached matrix must serve training too
def pooled_upscale(
    size_in: int, size_out: int, align_corners: bool, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Matrix of bilinear upscaling followed by 3-wide average pooling, for one axis.

    Args:
        size_in: length of the feature map's axis.
        size_out: length of the upscaled axis.
        align_corners: the convention of `torch.nn.functional.interpolate`.
        device: where the matrix is to live.
        dtype: its type.

    Returns:
        (size_out, size_in). A row at the border sums to 2/3: padded zeros count, as in the published network.

    Source: JIMS section 3.1 (upscaling, neighbourhood aggregation). Differs: none.
    """
    identity = torch.eye(size_in, dtype=torch.float64)[None]  # (1, size_in as channels, size_in)
    upscaled = F.interpolate(identity, size=size_out, mode="linear", align_corners=align_corners)
    pooled = F.avg_pool1d(upscaled, _POOL, stride=1, padding=_POOL // 2, count_include_pad=True)
    return pooled[0].T.contiguous().to(device=device, dtype=dtype)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # a cached matrix must serve training too
def pooled_upscale_taps(
    size_in: int, size_out: int, align_corners: bool, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """The matrix of `pooled_upscale`, once for each tap of a 5-wide 'same' convolution, zeros shifted in.

    Returns:
        (size_out, size_in, 5). ``[:, :, t]`` reads the upscaled axis at ``position + t - 2``.
    """
    pooled = pooled_upscale(size_in, size_out, align_corners, device, dtype)
    radius = TAPS // 2
    padded = F.pad(pooled, (0, 0, radius, radius))  # (size_out + 4, size_in)
    return torch.stack([padded[tap : tap + size_out] for tap in range(TAPS)], dim=2)


@lru_cache(maxsize=256)
@torch.inference_mode(False)  # a cached matrix must serve training too
def tap_coverage(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Where each tap of a 5-wide 'same' convolution falls inside the axis.

    Returns:
        (size, 5) of ones and zeros. What a constant contributes through the zero padding.
    """
    radius = TAPS // 2
    inside = F.pad(torch.ones(size, device=device, dtype=dtype), (radius, radius))
    return inside.unfold(0, size, 1).T.contiguous()


@lru_cache(maxsize=256)
@torch.inference_mode(False)
def smoothed_upscale(size_in: int, size_out: int, sigma: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Matrix of bilinear upscaling followed by Gaussian smoothing with reflected borders, for one axis.

    Args:
        size_in: length of the map's axis.
        size_out: length of the image's axis; longer than the kernel's radius, ``ceil(3 * sigma)``.
        sigma: standard deviation of the Gaussian, in image pixels.
        device: where the matrix is to live.
        dtype: its type.

    Returns:
        (size_out, size_in); every row sums to 1.

    Raises:
        ConfigError: the axis is too short for its border to be reflected.

    Source: ICPR section 3.3 (kernel of 2 ceil(3 sigma) + 1). Differs: none.
    """
    radius = math.ceil(3 * sigma)
    if size_out <= radius:
        raise ConfigError(f"image_size: {size_out} px is too small for the smoothing; use more than {radius} px a side")
    offset = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    kernel /= kernel.sum()
    identity = torch.eye(size_in, dtype=torch.float64)[:, None]  # (size_in, 1, size_in)
    upscaled = F.interpolate(identity, size=size_out, mode="linear", align_corners=False)
    smoothed = F.conv1d(F.pad(upscaled, (radius, radius), mode="reflect"), kernel[None, None])
    return smoothed[:, 0].T.contiguous().to(device=device, dtype=dtype)
