"""The segmentation head's hidden layer in training: BatchNorm, LeakyReLU and the projection to one channel.

The doubled batch differs from the single one only where noise was added, so each clean row stands for as many pixels of
the doubled batch as were left alone (0, 1 or 2), and only the noised rows are computed beside it. The batch statistics
of the doubled batch are weighted sums over both sets: nothing is approximated. The element-wise passes run over chunks
of rows that stay in cache, and backward recomputes them, so that one (rows, hidden) tensor is kept and not four.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

# One chunk of 1024-channel float32 rows is 1 MiB here: it stays in a core's second-level cache on common processors.
_CHUNK_BYTES_CPU = 1 << 20
_CHUNK_BYTES_GPU = 1 << 28


class HiddenOutput(NamedTuple):
    """What the hidden layer gives.

    Attributes:
        clean: (P,) projection of each clean row.
        noised: (M,) projection of each noised row.
        mean: (H,) mean of the doubled batch, without gradient.
        variance: (H,) biased variance of the doubled batch, without gradient.
    """

    clean: Tensor
    noised: Tensor
    mean: Tensor
    variance: Tensor


def normalise_activate_project(
    clean: Tensor,
    count: Tensor,
    shift: Tensor,
    source: Tensor,
    *,
    gamma: Tensor,
    beta: Tensor,
    weight: Tensor,
    eps: float,
    negative_slope: float,
) -> HiddenOutput:
    """``leaky_relu(batch_norm(rows)) @ weight`` over clean rows and noised rows, with the statistics of both.

    Args:
        clean: (P, H) rows without noise.
        count: (P,) how many pixels of the batch each clean row stands for, at least 0.
        shift: (M, H) what the noise adds to the row it belongs to.
        source: (M,) int64, the clean row each noised row starts from.
        gamma: (H,) scale of the normalisation.
        beta: (H,) offset of the normalisation.
        weight: (H,) projection.
        eps: added to the variance.
        negative_slope: slope of the activation below zero.

    Returns:
        Projections of clean and noised rows, and the statistics for the running averages.
    """
    return HiddenOutput(
        *_NormaliseActivateProject.apply(clean, count, shift, source, gamma, beta, weight, eps, negative_slope)
    )


class _NormaliseActivateProject(torch.autograd.Function):
    """Forward and backward written out; the test compares both with autograd through the plain operations."""

    @staticmethod
    def forward(
        ctx: Any,
        clean: Tensor,
        count: Tensor,
        shift: Tensor,
        source: Tensor,
        gamma: Tensor,
        beta: Tensor,
        weight: Tensor,
        eps: float,
        negative_slope: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        noised = shift + clean[source]  # (M, H)
        total = count.sum() + len(source)
        mean = (count @ clean + noised.sum(0)) / total
        variance = torch.zeros_like(mean)
        for rows in _chunks(clean):
            variance += count[rows] @ (clean[rows] - mean).square_()
        for rows in _chunks(noised):
            variance += (noised[rows] - mean).square_().sum(0)
        variance /= total
        inverse_std = (variance + eps).rsqrt()
        scale = gamma * inverse_std

        def project(values: Tensor) -> Tensor:
            projected = values.new_empty(len(values))
            for rows in _chunks(values):
                activation = torch.addcmul(beta, values[rows] - mean, scale)
                torch.mv(torch.nn.functional.leaky_relu_(activation, negative_slope), weight, out=projected[rows])
            return projected

        ctx.save_for_backward(clean, count, noised, source, gamma, beta, weight, mean, inverse_std, total)
        ctx.negative_slope = negative_slope
        ctx.mark_non_differentiable(mean, variance)
        return project(clean), project(noised), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        clean, count, noised, source, gamma, beta, weight, mean, inverse_std, total = ctx.saved_tensors
        scale = gamma * inverse_std
        one, negative_slope = mean.new_tensor(1.0), mean.new_tensor(ctx.negative_slope)
        slope_sum = torch.zeros_like(mean)  # sum over rows of d(out) * activation slope
        slope_deviation_sum = torch.zeros_like(mean)  # the same, times the row's deviation from the mean

        def slopes(deviation: Tensor) -> Tensor:
            activation = torch.addcmul(beta, deviation, scale)
            return torch.where(activation > 0, one, negative_slope)

        for values, gradient in ((clean, gradients[0]), (noised, gradients[1])):
            for rows in _chunks(values):
                deviation = values[rows] - mean
                slope = slopes(deviation)
                slope_sum += gradient[rows] @ slope
                slope_deviation_sum += gradient[rows] @ slope.mul_(deviation)

        d_beta = weight * slope_sum
        d_gamma = weight * slope_deviation_sum * inverse_std
        d_weight = scale * slope_deviation_sum + beta * slope_sum
        # d(row) = scale * (weight * slope * d(out) - count / total * (d_beta + normalised * d_gamma))
        through_mean = d_beta / total
        through_variance = d_gamma * inverse_std / total

        def rows_gradient(values: Tensor, gradient: Tensor, multiplicity: Tensor | None) -> Tensor:
            result = torch.empty_like(values)
            for rows in _chunks(values):
                deviation = values[rows] - mean
                direct = slopes(deviation).mul_(gradient[rows, None]).mul_(weight)
                statistics = torch.addcmul(through_mean, deviation, through_variance)
                if multiplicity is not None:
                    statistics *= multiplicity[rows, None]
                torch.mul(direct.sub_(statistics), scale, out=result[rows])
            return result

        d_clean = rows_gradient(clean, gradients[0], count)
        d_noised = rows_gradient(noised, gradients[1], None)
        d_clean.index_add_(0, source, d_noised)
        return d_clean, None, d_noised, None, d_gamma, d_beta, d_weight, None, None


def _chunks(rows: Tensor) -> Iterator[slice]:
    """Slices of rows that are small enough to stay in cache between element-wise passes."""
    row_bytes = rows.shape[1] * rows.element_size()
    length = max(1, (_CHUNK_BYTES_CPU if rows.device.type == "cpu" else _CHUNK_BYTES_GPU) // row_bytes)
    for start in range(0, len(rows), length):
        yield slice(start, start + length)
