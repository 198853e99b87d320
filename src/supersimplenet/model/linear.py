"""A matrix over channels at every position: the wide multiplications of both heads."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_CONVOLVED = (torch.float32, torch.bfloat16)


def pointwise(values: Tensor, weight: Tensor) -> Tensor:
    """``values @ weight.T``, computed in the type of ``values`` and returned in float32 or float64.

    On a CPU it goes through the 1x1 convolution of oneDNN, which uses the whole width of the vector units on every
    processor; the matrix product of torch's MKL leaves half of it unused on AMD's (docs/performance.md).

    Args:
        values: (..., C) float32, bfloat16 or float64.
        weight: (K, C).

    Returns:
        (..., K) in the type of ``weight``, but at least in float32.
    """
    matrix, result_type = weight.to(values.dtype), torch.promote_types(weight.dtype, torch.float32)
    if values.device.type != "cpu" or values.dtype not in _CONVOLVED or values.shape[0] == 0:
        return F.linear(values, matrix).to(result_type)
    rows = values.reshape(1, 1, -1, values.shape[-1]).permute(0, 3, 1, 2)  # (1, C, 1, rows), channels last in memory
    # Dilation means nothing to a 1x1 kernel, but without it torch leaves oneDNN out where it has a single thread.
    product = F.conv2d(rows, matrix[:, :, None, None], dilation=2)  # (1, K, 1, rows)
    return product.permute(0, 2, 3, 1).reshape(*values.shape[:-1], weight.shape[0]).to(result_type)
