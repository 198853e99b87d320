"""The classification head's BatchNorm, ReLU and pooling over space, in training.

A response is the sum of three: of the clean features, which both copies of an image share, of the map, and of the
noise. It is added up, centred and kept once; the passes run image by image, in cache, and backward recomputes them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from supersimplenet.model.normalise import AddUp, Normalisation, alone, mean_everywhere


class PooledOutput(NamedTuple):
    """What is left of the responses of N images.

    Attributes:
        maximum: (N, K) over space.
        average: (N, K) over space.
        mean: (K,) of the batch, without gradient.
        variance: (K,) biased variance of the batch, without gradient.
        total: rows of the batch, over all processes that share it.
    """

    maximum: Tensor
    average: Tensor
    mean: Tensor
    variance: Tensor
    total: int


def normalise_activate_pool(
    clean: Tensor,
    seen: Tensor,
    noise: Tensor | None,
    kept: Tensor | None = None,
    *,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    add_up: AddUp = alone,
) -> PooledOutput:
    """``relu(batch_norm(clean + seen + noise))``, its maximum and mean over space.

    Args:
        clean: (B, P, K) response to the clean features, P pixels.
        seen: (N, P, K) response to the map; N is B, or 2B: one copy of the batch, then the other.
        noise: (N, P, K) response to the noise, None where there is none.
        kept: (N, P) bool, the pixels that maximum and mean are taken over, at least one an image; None for all. The
            batch's statistics are those of all pixels.
        gamma: (K,) scale of the normalisation.
        beta: (K,) offset of the normalisation.
        eps: added to the variance.
        add_up: over the processes that share the batch.
    """
    return PooledOutput(*_NormaliseActivatePool.apply(clean, seen, noise, kept, gamma, beta, eps, add_up))


class _NormaliseActivatePool(torch.autograd.Function):
    """Forward and backward written out; the tests compare both with autograd through the plain operations."""

    @staticmethod
    def forward(
        ctx: Any,
        clean: Tensor,
        seen: Tensor,
        noise: Tensor | None,
        kept: Tensor | None,
        gamma: Tensor,
        beta: Tensor,
        eps: float,
        add_up: AddUp,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
        images, pixels, _ = seen.shape
        centred = torch.empty_like(seen)  # (N, P, K)
        row_sum = torch.zeros_like(gamma)
        for image, response in enumerate(centred):
            torch.add(clean[image % len(clean)], seen[image], out=response)
            if noise is not None:
                response += noise[image]
            row_sum += response.sum(0)
        mean, total = mean_everywhere(row_sum, images * pixels, add_up)
        variance = torch.zeros_like(mean)
        for response in centred:
            response -= mean
            variance += response.square().sum(0)
        variance = add_up(variance) / total
        norm = Normalisation(gamma, beta, variance, eps=eps, total=total, add_up=add_up)
        maximum, average = seen.new_empty(images, len(gamma)), seen.new_empty(images, len(gamma))
        counts = seen.new_full((images, 1), pixels) if kept is None else kept.sum(1, keepdim=True)
        place = torch.empty(images, len(gamma), dtype=torch.int64, device=seen.device)
        for image, response in enumerate(centred):
            active = norm(response).relu_()
            if kept is not None:
                active *= kept[image][:, None]
            torch.argmax(active, dim=0, out=place[image])
            maximum[image] = active.gather(0, place[image][None])[0]
            average[image] = active.sum(0) / counts[image]
        ctx.norm, ctx.centred, ctx.place, ctx.images = norm, centred, place, len(clean)
        ctx.has_noise, ctx.kept, ctx.counts = noise is not None, kept, counts
        ctx.mark_non_differentiable(mean, variance)
        return maximum, average, mean, variance, total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        norm, centred, place, kept = ctx.norm, ctx.centred, ctx.place, ctx.kept
        through_maximum, through_average = gradients[0], gradients[1] / ctx.counts

        def through_pooling(image: int) -> Tensor:
            """Gradient of an image's normalised response (P, K)."""
            normalised = norm(centred[image])
            received: Tensor = torch.ops.aten.leaky_relu_backward(through_average[image], normalised, 0.0, False)
            at_maximum = normalised.gather(0, place[image][None]) > 0
            received.scatter_add_(0, place[image][None], through_maximum[image] * at_maximum)
            return received if kept is None else received.mul_(kept[image][:, None])

        for image, response in enumerate(centred):
            norm.add(through_pooling(image), response)
        d_response = torch.empty_like(centred)
        for image, response in enumerate(centred):
            norm.through(through_pooling(image), response, out=d_response[image])
        d_clean = d_response.view(-1, ctx.images, *d_response.shape[1:]).sum(0)
        return d_clean, d_response, d_response if ctx.has_noise else None, None, norm.d_gamma, norm.d_beta, None, None
