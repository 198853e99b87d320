"""The segmentation head's hidden layer: upscaling, BatchNorm, LeakyReLU and the projection to one channel.

In training, the doubled batch differs from the single one only where noise was added. So each clean row stands for as
many pixels of the doubled batch as got no noise (0, 1 or 2), and only the noised rows are computed in addition. The
batch statistics of the doubled batch are weighted sums over both sets: nothing is approximated. The mean is linear, so
it is known before anything is upscaled; each group of images is upscaled once, centred and stored. The element-wise
passes run over chunks of rows that stay in cache, and backward recomputes them: one (pixels, hidden) tensor is stored,
not four.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from supersimplenet.model.anomalies import Anomalies
from supersimplenet.model.ops import AllReduce, Normalisation, chunks, groups, identity, mean_everywhere
from supersimplenet.model.resample import Resampling, resampling


class HiddenOutput(NamedTuple):
    """Output of the hidden layer and the batch statistics.

    Attributes:
        projected: (N, h, w) one value per pixel.
        mean: (H,) mean of the batch, without gradient.
        variance: (H,) biased variance of the batch, without gradient.
        total: number of rows of the batch, over all processes that share it.
    """

    projected: Tensor
    mean: Tensor
    variance: Tensor
    total: int


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """Settings that do not change within a step."""

    size: tuple[int, int]
    align_corners: bool
    eps: float
    negative_slope: float
    all_reduce: AllReduce


def normalise_activate_project(
    maps: Sequence[Tensor],
    shift: Tensor,
    anomalies: Anomalies | None,
    *,
    size: tuple[int, int],
    align_corners: bool,
    bias: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight: Tensor,
    eps: float,
    negative_slope: float,
    all_reduce: AllReduce = identity,
) -> HiddenOutput:
    """Compute ``leaky_relu(batch_norm(upscale(maps) + bias)) @ weight`` for each pixel.

    Args:
        maps: (B, h_l, w_l, H) product of each feature map with the first matrix; their upscaled sum is normalised.
        shift: (M', H) what the noise adds to the noised rows; rows beyond the M positions are 0. M' is 0 without noise.
        anomalies: positions of the noise; None for the batch as it is.
        size: (h, w) to upscale to.
        align_corners: how to upscale.
        bias: (H,), which the normalisation removes again: it changes only the mean, and its gradient is 0.
        gamma: (H,) scale of the normalisation.
        beta: (H,) offset of the normalisation.
        weight: (H,) projection.
        eps: added to the variance.
        negative_slope: slope of the activation below zero.
        all_reduce: sums over the processes that share the batch.

    Returns:
        The projection of B images, or of 2B with ``anomalies``, and the statistics for the running averages.
    """
    settings = _Settings(
        size=size, align_corners=align_corners, eps=eps, negative_slope=negative_slope, all_reduce=all_reduce
    )
    return HiddenOutput(*_NormaliseActivateProject.apply(shift, bias, gamma, beta, weight, anomalies, settings, *maps))


def activate_project(
    maps: Sequence[Tensor],
    *,
    size: tuple[int, int],
    align_corners: bool,
    bias: Tensor,
    weight: Tensor,
    negative_slope: float,
) -> Tensor:
    """Compute ``leaky_relu(upscale(maps) + bias) @ weight`` per pixel, in inference; the hidden layer is not stored.

    Args:
        maps: (B, h_l, w_l, H), see `normalise_activate_project`.
        size: (h, w) to upscale to.
        align_corners: how to upscale.
        bias: (H,), with the normalisation folded in.
        weight: (H,) projection.
        negative_slope: slope of the activation below zero.

    Returns:
        (B, h, w).
    """
    operators = [_operator(m, size, align_corners) for m in maps]
    projected = bias.new_empty(len(maps[0]), size[0] * size[1])
    for group in groups(len(projected), bias.device):
        out = projected[group].view(-1)
        for values, rows in _upscaled(operators, [m[group] for m in maps], bias):
            torch.mv(F.leaky_relu_(values[rows], negative_slope), weight, out=out[rows])
    return projected.view(-1, *size)


class _Batch:
    """Rows of the doubled batch: which pixels each clean row stands for, and where the noised rows belong.

    Args:
        anomalies: see `normalise_activate_project`.
        images: B.
        pixels: h * w.
        like: tensor whose device and type are used.
    """

    def __init__(self, anomalies: Anomalies | None, images: int, pixels: int, like: Tensor) -> None:
        self.copies = 1 if anomalies is None else 2
        self.total = self.copies * images * pixels
        if anomalies is None:
            alone = like.new_ones(1, images, pixels)
            self.position = torch.empty(0, dtype=torch.int64, device=like.device)
        else:
            alone = (~anomalies.mask).view(2, images, pixels).to(like.dtype)
            self.position = anomalies.position
        self.alone = alone  # (copies, B, h * w), 1 where no noise was added
        self.count = alone.sum(0)  # (B, h * w)
        self._pixels = pixels
        edges = torch.arange(self.copies * images + 1, device=like.device) * pixels
        self._bounds = torch.searchsorted(self.position, edges).tolist()

    def noised(self, group: slice) -> Iterator[tuple[slice, Tensor]]:
        """Yield, for each copy of a group of images, its noised rows and which of the group's rows each belongs to."""
        for first in range(0, len(self._bounds) - 1, len(self.count)):
            rows = slice(self._bounds[first + group.start], self._bounds[first + group.stop])
            yield rows, self.position[rows] - (first + group.start) * self._pixels


class _NormaliseActivateProject(torch.autograd.Function):
    """Hand-written forward and backward; the tests compare both with autograd through the plain operations."""

    @staticmethod
    def forward(
        ctx: Any,
        shift: Tensor,
        bias: Tensor,
        gamma: Tensor,
        beta: Tensor,
        weight: Tensor,
        anomalies: Anomalies | None,
        settings: _Settings,
        *maps: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        images, (height, width) = len(maps[0]), settings.size
        batch = _Batch(anomalies, images, height * width, gamma)
        operators = [_operator(m, settings.size, settings.align_corners) for m in maps]
        mean, total = mean_everywhere(_sum(maps, operators, shift, batch), batch.total, settings.all_reduce)
        variance = torch.zeros_like(mean)
        centred = []  # (rows, H) of each group
        noised = torch.empty_like(shift[: len(batch.position)])  # (M, H)
        for group in groups(images, mean.device):
            count = batch.count[group].flatten()
            for values, rows in _upscaled(operators, [m[group] for m in maps], -mean):
                variance += count[rows] @ values[rows].square()
            for rows, place in batch.noised(group):
                torch.add(shift[rows], values[place], out=noised[rows])
            centred.append(values)
        for rows in chunks(noised):
            variance += noised[rows].square().sum(0)
        variance = settings.all_reduce(variance) / total
        norm = Normalisation(
            gamma, beta, variance, eps=settings.eps, total=total, weight=weight, all_reduce=settings.all_reduce
        )

        def project(values: Tensor) -> Tensor:
            projected = values.new_empty(len(values))
            for rows in chunks(values):
                activation = F.leaky_relu_(norm(values[rows]), settings.negative_slope)
                torch.mv(activation, weight, out=projected[rows])
            return projected

        projected = torch.cat([project(values) for values in centred]).repeat(batch.copies)
        projected[batch.position] = project(noised)
        ctx.norm, ctx.batch, ctx.operators, ctx.negative_slope = norm, batch, operators, settings.negative_slope
        ctx.shift_rows = len(shift)
        ctx.centred, ctx.noised, ctx.shapes = centred, noised, [m.shape for m in maps]
        ctx.mark_non_differentiable(mean, variance)
        return projected.view(-1, height, width), mean.add_(bias), variance, total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        norm, batch, noised = ctx.norm, ctx.batch, ctx.noised
        gradient = gradients[0].flatten()
        clean_gradient = (gradient.view_as(batch.alone) * batch.alone).sum(0)  # (B, h * w)
        of_group = list(groups(len(clean_gradient), gradient.device))
        received_clean = [clean_gradient[group].flatten() for group in of_group]
        noised_gradient = gradient[batch.position]  # (M,)

        def through_activation(values: Tensor, received: Tensor) -> Tensor:
            """Compute d(normalised) from d(out), without the factor ``weight``: (rows, H)."""
            slopes: Tensor = torch.ops.aten.leaky_relu_backward(
                received[:, None], norm(values), ctx.negative_slope, False
            )
            return slopes

        def through_rows(values: Tensor, received: Tensor, *, out: Tensor, count: Tensor | None = None) -> Tensor:
            for rows in chunks(values):
                direct = through_activation(values[rows], received[rows])
                norm.through(direct, values[rows], out=out[rows], count=None if count is None else count[rows])
            return out

        for values, received in [(noised, noised_gradient), *zip(ctx.centred, received_clean, strict=True)]:
            for rows in chunks(values):
                norm.add(through_activation(values[rows], received[rows]), values[rows])
        d_shift = noised.new_zeros(ctx.shift_rows, noised.shape[1])
        d_noised = through_rows(noised, noised_gradient, out=d_shift[: len(noised)])
        d_maps = [noised.new_empty(shape) for shape in ctx.shapes]
        for group, values, received in zip(of_group, ctx.centred, received_clean, strict=True):
            count = batch.count[group].flatten()
            d_values = through_rows(values, received, out=torch.empty_like(values), count=count)
            for rows, place in batch.noised(group):
                d_values.index_add_(0, place, d_noised[rows])
            for d_map, operator in zip(d_maps, ctx.operators, strict=True):
                d_map[group] = operator.apply_transposed(d_values).view_as(d_map[group])
        unchanged = torch.zeros_like(norm.beta)
        return (d_shift, unchanged, norm.d_gamma, norm.d_beta, norm.d_weight, None, None, *d_maps)


def _operator(values: Tensor, size: tuple[int, int], align_corners: bool) -> Resampling:
    """Build the upscaling of a group's maps: for one image, which is a group on a CPU; on a GPU it fits any number."""
    return resampling((values.shape[1], values.shape[2]), size, align_corners, 1, 1, values.device, values.dtype)


def _upscaled(
    operators: Sequence[Resampling], maps: Sequence[Tensor], offset: Tensor
) -> Iterator[tuple[Tensor, slice]]:
    """Yield a group's upscaled sum of maps plus an offset (H,): all (rows, H), and which rows are now finished."""
    values, *others = [op.apply(m.flatten(0, 2)) for op, m in zip(operators, maps, strict=True)]
    for rows in chunks(values):
        for other in others:
            values[rows] += other[rows]
        values[rows] += offset
        yield values, rows


def _sum(maps: Sequence[Tensor], operators: Sequence[Resampling], shift: Tensor, batch: _Batch) -> Tensor:
    """Return the (H,) sum over this process's rows of the batch, without upscaling anything."""
    ones = maps[0].new_ones(batch.count.shape[1], 1)
    total = shift.sum(0)
    for values, operator in zip(maps, operators, strict=True):
        weight = operator.apply_transposed(ones)[:, 0]  # how often each low-resolution position counts
        total += batch.copies * (weight @ values.flatten(1, 2)).sum(0)
    return total
