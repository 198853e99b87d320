"""Operations that both heads share: BatchNorm in training, over rows that are held by groups of images.

Several processes may share a batch. Its statistics then cover the rows of all processes, forward and backward: every
sum over rows is also a sum over processes (`AllReduce`).

The caller computes mean and variance, which need not take a pass over the rows, and passes in centred rows chunk by
chunk. No tensor of the size of the rows is stored here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supersimplenet.utils.system import is_cpu

# A chunk of float32 rows that stays in the second-level cache of two cores between element-wise passes.
_CHUNK_BYTES_CPU = 1 << 21
_CHUNK_BYTES_GPU = 1 << 28
# Sums a tensor over the processes that share a batch, possibly in place; all processes call it in the same order.
AllReduce = Callable[[Tensor], Tensor]
_CONVOLVED = (torch.float32, torch.bfloat16)


def identity(values: Tensor) -> Tensor:
    """Return the values as they are: the sum over one process."""
    return values


class Normalisation:
    """Forward and backward of a BatchNorm whose batch statistics are known.

    Args:
        gamma: (K,) scale.
        beta: (K,) offset.
        variance: (K,) biased variance of the batch.
        eps: added to the variance.
        total: number of rows of the batch, over all processes.
        weight: (K,) factor of each channel after the activation, which must be piecewise linear through 0; the
            gradients that `add` and `through` receive do not include this factor. None for 1.
        all_reduce: sums over the processes that share the batch.
    """

    def __init__(
        self,
        gamma: Tensor,
        beta: Tensor,
        variance: Tensor,
        *,
        eps: float,
        total: int,
        weight: Tensor | None = None,
        all_reduce: AllReduce = identity,
    ) -> None:
        self.beta = beta
        self.inverse_std = (variance + eps).rsqrt()
        self.scale = gamma * self.inverse_std
        self.total = total
        self.weight = torch.ones_like(beta) if weight is None else weight
        self._sum = torch.zeros_like(beta)  # sum of the gradient over rows
        self._deviation_sum = torch.zeros_like(beta)  # likewise, each row times its deviation from the mean
        self._all_reduce = all_reduce
        self._everywhere: tuple[Tensor, Tensor] | None = None  # both sums, over all processes

    def __call__(self, centred: Tensor) -> Tensor:
        """Normalise centred rows (rows, K), whose mean over the batch is 0."""
        return torch.addcmul(self.beta, centred, self.scale)

    def add(self, gradient: Tensor, centred: Tensor) -> None:
        """Add the gradient of some normalised rows (rows, K) to the sums; ``gradient`` is overwritten."""
        self._sum += gradient.sum(0)
        self._deviation_sum += gradient.mul_(centred).sum(0)

    @property
    def d_beta(self) -> Tensor:
        """(K,) gradient of ``beta`` from this process's rows; complete once all of them were given to `add`."""
        return self.weight * self._sum

    @property
    def d_gamma(self) -> Tensor:
        """(K,) gradient of ``gamma``, likewise."""
        return self.weight * self._deviation_sum * self.inverse_std

    @property
    def d_weight(self) -> Tensor:
        """(K,) gradient of ``weight``, likewise: an activation through 0 is its slope times its argument."""
        return self.scale * self._deviation_sum + self.beta * self._sum

    def through(self, gradient: Tensor, centred: Tensor, *, out: Tensor, count: Tensor | None = None) -> None:
        """Compute the gradient of some rows before the normalisation, once all rows were given to `add`.

        Args:
            gradient: (rows, K) of the normalised rows, summed over the pixels that a row stands for; it is overwritten.
            centred: (rows, K).
            out: (rows, K) to write to.
            count: (rows,) how many pixels of the batch each row stands for; None for one.
        """
        if self._everywhere is None:
            total, deviation = self._all_reduce(torch.stack([self._sum, self._deviation_sum])).unbind()
            self._everywhere = (total, deviation)
        total, deviation = self._everywhere
        through_mean = self.scale * (self.weight * total) / self.total
        through_variance = self.scale * (self.weight * deviation * self.inverse_std) * self.inverse_std / self.total
        statistics = torch.addcmul(through_mean, centred, through_variance)
        if count is not None:
            statistics *= count[:, None]
        torch.sub(gradient.mul_(self.scale * self.weight), statistics, out=out)


def mean_everywhere(row_sum: Tensor, rows: int, all_reduce: AllReduce) -> tuple[Tensor, int]:
    """Return the mean over the rows of all processes, from this process's sum (K,), and the number of those rows."""
    if all_reduce is identity:
        return row_sum / rows, rows
    both = all_reduce(torch.cat([row_sum, row_sum.new_tensor([rows])]).double())
    everywhere = round(both[-1].item())
    return (both[:-1] / everywhere).to(row_sum.dtype), everywhere


def groups(images: int, device: torch.device) -> Iterator[slice]:
    """Yield slices of images that go through a pass together: one by one in a CPU's cache, all at once on a GPU."""
    length = 1 if is_cpu(device) else max(images, 1)
    for start in range(0, images, length):
        yield slice(start, start + length)


def chunks(rows: Tensor) -> Iterator[slice]:
    """Yield slices of rows that are small enough to stay in cache between element-wise passes."""
    row_bytes = rows.shape[1] * rows.element_size()
    length = max(1, (_CHUNK_BYTES_CPU if is_cpu(rows.device) else _CHUNK_BYTES_GPU) // row_bytes)
    for start in range(0, len(rows), length):
        yield slice(start, start + length)


@torch.no_grad()
def update_running_statistics(norm: nn.BatchNorm1d | nn.BatchNorm2d, mean: Tensor, variance: Tensor, rows: int) -> None:
    """Update the running statistics as BatchNorm does in training: exponential averages, with the unbiased variance."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        raise RuntimeError("a BatchNorm of the heads must track running statistics")
    momentum = 0.1 if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(variance * (rows / max(rows - 1, 1)), momentum)
    norm.num_batches_tracked += 1


def pointwise(values: Tensor, weight: Tensor) -> Tensor:
    """Compute ``values @ weight.T`` in the type of ``values`` and return it in float32 or float64.

    On a CPU this runs as the 1x1 convolution of oneDNN, which uses the full width of the vector units on every CPU; the
    matrix product of torch's MKL leaves half of it unused on AMD's (docs/performance.md).

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
    # Dilation has no effect on a 1x1 kernel, but without it torch does not use oneDNN on a single thread.
    product = F.conv2d(rows, matrix[:, :, None, None], dilation=2)  # (1, K, 1, rows)
    return product.permute(0, 2, 3, 1).reshape(*values.shape[:-1], weight.shape[0]).to(result_type)
