"""BatchNorm, ReLU and pooling over space of the classification head, in training.

A response is the sum of three: to the clean features (which both copies of an image share), to the map and to the
noise. The sum is computed, centred and stored once. The passes over it run by groups of images, in cache, and backward
recomputes them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from supersimplenet.model.ops import AllReduce, Normalisation, groups, identity, mean_everywhere


class PooledOutput(NamedTuple):
    """Pooled responses of N images and the batch statistics.

    Attributes:
        maximum: (N, K) maximum over space.
        average: (N, K) mean over space.
        mean: (K,) mean of the batch, without gradient.
        variance: (K,) biased variance of the batch, without gradient.
        total: number of rows of the batch, over all processes that share it.
    """

    maximum: Tensor
    average: Tensor
    mean: Tensor
    variance: Tensor
    total: int


def normalise_activate_pool(
    clean: Tensor,
    map_response: Tensor,
    noise: Tensor | None,
    kept: Tensor | None = None,
    *,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    all_reduce: AllReduce = identity,
) -> PooledOutput:
    """Compute ``relu(batch_norm(clean + map_response + noise))`` and return its maximum and mean over space.

    Args:
        clean: (B, P, K) response to the clean features, P pixels.
        map_response: (N, P, K) response to the map; N is B, or 2B: one copy of the batch, then the other.
        noise: (N, P, K) response to the noise, None where there is none.
        kept: (N, P) bool, the pixels over which maximum and mean are taken, at least one per image; None for all. The
            batch statistics always cover all pixels.
        gamma: (K,) scale of the normalisation.
        beta: (K,) offset of the normalisation.
        eps: added to the variance.
        all_reduce: sums over the processes that share the batch.
    """
    return PooledOutput(*_NormaliseActivatePool.apply(clean, map_response, noise, kept, gamma, beta, eps, all_reduce))


class _NormaliseActivatePool(torch.autograd.Function):
    """Hand-written forward and backward; the tests compare both with autograd through the plain operations."""

    @staticmethod
    def forward(
        ctx: Any,
        clean: Tensor,
        map_response: Tensor,
        noise: Tensor | None,
        kept: Tensor | None,
        gamma: Tensor,
        beta: Tensor,
        eps: float,
        all_reduce: AllReduce,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        images, pixels, channels = map_response.shape
        centred = torch.empty_like(map_response)  # (N, P, K)
        row_sum = torch.zeros_like(gamma)
        copies = map_response.view(-1, *clean.shape)
        for copy, of_copy in enumerate(centred.view_as(copies)):
            for group in groups(len(clean), map_response.device):
                response = of_copy[group]
                torch.add(clean[group], copies[copy, group], out=response)
                if noise is not None:
                    response += noise.view_as(copies)[copy, group]
                row_sum += response.sum((0, 1))
        mean, total = mean_everywhere(row_sum, images * pixels, all_reduce)
        variance = torch.zeros_like(mean)
        of_group = list(groups(images, map_response.device))
        for group in of_group:
            response = centred[group].sub_(mean)
            variance += response.square().sum((0, 1))
        variance = all_reduce(variance) / total
        norm = Normalisation(gamma, beta, variance, eps=eps, total=total, all_reduce=all_reduce)
        maximum, average = map_response.new_empty(images, channels), map_response.new_empty(images, channels)
        counts = map_response.new_full((images, 1), pixels) if kept is None else kept.sum(1, keepdim=True)
        place = torch.empty(images, channels, dtype=torch.int64, device=map_response.device)
        for group in of_group:
            active = norm(centred[group]).relu_()
            if kept is not None:
                active *= kept[group][:, :, None]
            torch.argmax(active, dim=1, out=place[group])
            maximum[group] = active.gather(1, place[group][:, None])[:, 0]
            average[group] = active.sum(1) / counts[group]
        ctx.norm, ctx.centred, ctx.place, ctx.images = norm, centred, place, len(clean)
        ctx.has_noise, ctx.kept, ctx.counts, ctx.groups = noise is not None, kept, counts, of_group
        ctx.mark_non_differentiable(mean, variance)
        return maximum, average, mean, variance, total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        norm, centred, place, kept = ctx.norm, ctx.centred, ctx.place, ctx.kept
        through_maximum, through_average = gradients[0], gradients[1] / ctx.counts

        def through_pooling(group: slice) -> Tensor:
            """Compute the gradient of a group's normalised responses (rows, K)."""
            normalised, at = norm(centred[group]), place[group][:, None]  # (n, P, K), (n, 1, K)
            received: Tensor = torch.ops.aten.leaky_relu_backward(
                through_average[group][:, None], normalised, 0.0, False
            )
            at_maximum = normalised.gather(1, at) > 0
            received.scatter_add_(1, at, through_maximum[group][:, None] * at_maximum)
            return (received if kept is None else received.mul_(kept[group][:, :, None])).flatten(0, 1)

        for group in ctx.groups:
            norm.add(through_pooling(group), centred[group].flatten(0, 1))
        d_response = torch.empty_like(centred)
        for group in ctx.groups:
            norm.through(through_pooling(group), centred[group].flatten(0, 1), out=d_response[group].flatten(0, 1))
        d_clean = d_response.view(-1, ctx.images, *d_response.shape[1:]).sum(0)
        return d_clean, d_response, d_response if ctx.has_noise else None, None, norm.d_gamma, norm.d_beta, None, None
