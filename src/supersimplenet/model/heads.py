"""Adaptor, segmentation head and classification head, computed at the feature maps' own resolution.

Upscaling and pooling treat every channel alike, so they commute with every matrix over channels:
``conv(pool(upscale(f))) = pool(upscale(conv(f)))``, for each layer and for their sum. The wide matrices are therefore
applied to only 1/4 and 1/16 of the pixels, and only their results are upscaled. Adaptor and first convolution are one
matrix (their product); the 25 taps of the 5x5 convolution are 25 such matrices, and each tap's shift is folded into the
upscaling. Biases are added after the pooling, because its zero padding would change them at the border.

The plain, published order of operations is in `supersimplenet.benchmark.published_order`; both orders give the same
outputs and gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supersimplenet.model.anomalies import Anomalies
from supersimplenet.model.axes import TAPS, tap_coverage
from supersimplenet.model.classification_kernel import normalise_activate_pool
from supersimplenet.model.config import Variant
from supersimplenet.model.ops import AllReduce, identity, pointwise, update_running_statistics
from supersimplenet.model.resample import SparseMatrix, upscale, upscale_taps
from supersimplenet.model.segmentation_kernel import normalise_activate_project

HIDDEN = 1024  # channels of the segmentation head's hidden layer
CONV = 128  # channels of the classification head's convolution
LEAKY_SLOPE = 0.2


class HeadOutput(NamedTuple):
    """Outputs of the heads for N images.

    Attributes:
        map_logit: (N, h, w) anomaly map, twice the resolution of the first feature map.
        score_logit: (N,) anomaly score.
    """

    map_logit: Tensor
    score_logit: Tensor


@dataclass(frozen=True)
class Projections:
    """The matrices that are applied to the feature maps; C is the number of channels over all layers.

    Attributes:
        hidden_weight: (HIDDEN, C) adaptor and first segmentation convolution in one.
        hidden_bias: (HIDDEN,).
        tap_weight: (5 * 5 * CONV, C), taps ordered x, y.
        tap_bias: (5, 5, CONV) response of each tap to the adaptor's constant bias, taps ordered x, y; None where there
            is none.
    """

    hidden_weight: Tensor
    hidden_bias: Tensor
    tap_weight: Tensor
    tap_bias: Tensor | None


class Heads(nn.Module):
    """The trained layers of the network: adaptor, segmentation head and classification head.

    Args:
        channels: channels of each feature map, in the order of `forward`'s maps.
        variant: ``jims`` or ``icpr``, see `ModelConfig`.
        align_corners: how feature maps are upscaled.
        generator: random source of the initial weights.

    Source: JIMS section 3 and figure 2; ICPR section 3. Differs: the order of computation, not its result.
    """

    def __init__(
        self, channels: Sequence[int], *, variant: Variant, align_corners: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.variant = variant
        self.align_corners = align_corners
        total = sum(channels)
        self.adaptor = nn.Linear(total, total)
        self.hidden = nn.Linear(total, HIDDEN)
        self.hidden_norm = nn.BatchNorm1d(HIDDEN)
        self.map = nn.Linear(HIDDEN, 1, bias=False)
        self.conv = nn.Conv2d(total + 1, CONV, TAPS, padding="same")
        self.conv_norm = nn.BatchNorm2d(CONV)
        self.score = nn.Linear(2 * CONV + 2, 1)
        self._initialise(generator)

    def forward(
        self,
        features: Sequence[Tensor],
        anomalies: Anomalies | None = None,
        *,
        stop_gradient: bool = False,
        ignored: Tensor | None = None,
        all_reduce: AllReduce = identity,
    ) -> HeadOutput:
        """Compute map and score of each image, or of each image of the doubled, noised batch.

        Args:
            features: (B, h_l, w_l, C_l) feature maps, largest first.
            anomalies: noise for the doubled batch; None leaves the batch as it is.
            stop_gradient: keep the score's gradient out of the map.
            ignored: (B, h, w) bool, positions that the score's maxima and means over space leave out; not all positions
                of an image. (The batch statistics and the 5x5 convolution still include them.)
            all_reduce: in training, sums over the processes that share the batch; each process calls this method with
                its own images.

        Returns:
            Logits of B images, or of 2B with ``anomalies``: first one copy of the batch, then the other.
        """
        projections = self.projections()
        map_logit = self._segment(features, projections, anomalies, all_reduce)  # (N, h, w)
        map_input = map_logit.detach() if stop_gradient else map_logit
        kept = None if ignored is None else (~ignored).repeat(len(map_logit) // len(ignored), 1, 1).flatten(1)  # (N, P)
        maximum, average = self._pool(features, projections, anomalies, map_input, kept, all_reduce)  # (N, CONV) each
        score_logit = classify(maximum, average, map_input, self.score.weight, self.score.bias, kept)
        return HeadOutput(map_logit, score_logit)

    @property
    def conv_bias(self) -> Tensor:
        """(CONV,) bias of the classification head's convolution."""
        bias = self.conv.bias
        assert bias is not None
        return bias

    def projections(self) -> Projections:
        """Compute the matrices from the current weights, differentiably."""
        tap_weight, tap_bias = self._tap_rows(), None
        if self.variant == "icpr":
            tap_bias = (tap_weight @ self.adaptor.bias).view(TAPS, TAPS, CONV)
            tap_weight = tap_weight @ self.adaptor.weight
        return Projections(
            hidden_weight=self.hidden.weight @ self.adaptor.weight,
            hidden_bias=self.hidden.weight @ self.adaptor.bias + self.hidden.bias,
            tap_weight=tap_weight,
            tap_bias=tap_bias,
        )

    def _segment(
        self, features: Sequence[Tensor], projections: Projections, anomalies: Anomalies | None, all_reduce: AllReduce
    ) -> Tensor:
        """Compute the map (N, h, w)."""
        norm, weight, size = self.hidden_norm, self.map.weight[0], output_size(features)
        maps = project(features, projections.hidden_weight)
        noise = features[0].new_empty(0, sum(self.channels)) if anomalies is None else anomalies.noise
        shift = pointwise(noise, self.hidden.weight)  # (M, HIDDEN)
        if self.training:
            out = normalise_activate_project(
                maps,
                shift,
                anomalies,
                size=size,
                align_corners=self.align_corners,
                bias=projections.hidden_bias,
                gamma=norm.weight,
                beta=norm.bias,
                weight=weight,
                eps=norm.eps,
                negative_slope=LEAKY_SLOPE,
                all_reduce=all_reduce,
            )
            update_running_statistics(norm, out.mean, out.variance, out.total)
            return out.projected
        rows = upscale(maps, size, self.align_corners).flatten(0, 2) + projections.hidden_bias  # (P, HIDDEN)
        projected = project_hidden(_eval(norm, rows), weight)
        if anomalies is not None:
            shifted = rows[anomalies.position % len(rows)] + shift[: len(anomalies.position)]
            noised = project_hidden(_eval(norm, shifted), weight)
            projected = projected.repeat(2).index_copy(0, anomalies.position, noised)
        return projected.view(-1, *size)

    def _pool(
        self,
        features: Sequence[Tensor],
        projections: Projections,
        anomalies: Anomalies | None,
        map_input: Tensor,
        kept: Tensor | None,
        all_reduce: AllReduce,
    ) -> tuple[Tensor, Tensor]:
        """Compute maximum and mean of the activated 5x5 convolution over the kept positions, (N, CONV) each."""
        norm, size = self.conv_norm, output_size(features)
        clean = upscale_taps(project(features, projections.tap_weight), size, self.align_corners)  # (B, h, w, CONV)
        clean = (clean + constant_response(projections.tap_bias, self.conv_bias, size)).flatten(1, 2)
        seen = convolve_map(map_input, self.conv.weight[:, -1]).flatten(1, 2)  # (N, h * w, CONV)
        noise = None
        if anomalies is not None:
            spread = pointwise(anomalies.noise, self._tap_rows())  # (M, 25 * CONV)
            noise = sum_taps(spread.view(-1, CONV), anomalies).flatten(1, 2)
        if self.training:
            out = normalise_activate_pool(
                clean, seen, noise, kept, gamma=norm.weight, beta=norm.bias, eps=norm.eps, all_reduce=all_reduce
            )
            update_running_statistics(norm, out.mean, out.variance, out.total)
            return out.maximum, out.average
        response = clean.repeat(len(seen) // len(clean), 1, 1) + seen
        response = _eval(norm, (response if noise is None else response + noise).flatten(0, 1))
        return pool(response.view_as(seen), kept)

    def _tap_rows(self) -> Tensor:
        """Return the 5x5 kernel on the features as (5 * 5 * CONV, C) rows, taps ordered x, y."""
        kernel = self.conv.weight[:, :-1]  # (CONV, C, 5, 5): all but the map's channel
        return kernel.permute(3, 2, 0, 1).reshape(-1, kernel.shape[1])

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        for layer in (self.adaptor, self.hidden, self.map, self.conv, self.score):
            nn.init.xavier_normal_(layer.weight, generator=generator)
            if layer.bias is not None:
                bound = layer.weight[0].numel() ** -0.5
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def project(features: Sequence[Tensor], weight: Tensor) -> list[Tensor]:
    """Apply a matrix over the channels of all maps at each map's own resolution; the upscaled results add up.

    Args:
        features: (B, h_l, w_l, C_l) feature maps, largest first.
        weight: (K, C).

    Returns:
        (B, h_l, w_l, K) for each map.
    """
    parts = torch.split(weight, [feature.shape[-1] for feature in features], dim=1)
    return [pointwise(feature, part) for feature, part in zip(features, parts, strict=True)]


def sum_taps(spread: Tensor, anomalies: Anomalies) -> Tensor:
    """Compute the 5x5 'same' convolution of noise that is 0 except at some positions, from each tap's response there.

    Args:
        spread: (M' * 25, K) responses, taps ordered x, y; rows beyond the M positions are not read.
        anomalies: the positions, in a batch of 2B maps.

    Returns:
        (2B, h, w, K).
    """
    summed: Tensor = _SumTaps.apply(spread, anomalies)
    return summed.view(*anomalies.mask.shape, -1)


class _SumTaps(torch.autograd.Function):
    """Sum of the responses of the up to 25 noised positions around each output position; backward reads it back."""

    @staticmethod
    def forward(ctx: Any, spread: Tensor, anomalies: Anomalies) -> Tensor:
        number = anomalies.mask.new_full(anomalies.mask.shape, -1, dtype=torch.int32)  # (2B, h, w) 0..M-1, -1 elsewhere
        number.view(-1)[anomalies.position] = torch.arange(
            len(anomalies.position), dtype=torch.int32, device=spread.device
        )
        ctx.number, ctx.rows = number, len(spread)
        radius = TAPS // 2
        padded = F.pad(number, (radius,) * 4, value=-1)
        # Tap t reads the position t - 2 further on; taps are ordered x, y.
        read = padded.unfold(1, number.shape[1], 1).unfold(2, number.shape[2], 1)  # (2B, y, x, h, w)
        read = read.permute(0, 3, 4, 2, 1).flatten(0, 2).flatten(1)  # (2B * h * w, 25)
        present = read >= 0
        tap = torch.arange(TAPS * TAPS, dtype=torch.int32, device=spread.device)
        index = (read * (TAPS * TAPS) + tap)[present]
        count = present.sum(1, dtype=torch.int32)
        return SparseMatrix(index, (count.cumsum(0) - count).to(torch.int32), None).times(spread)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        number = ctx.number
        radius = TAPS // 2
        gradient = gradients[0].view(*number.shape, -1)
        padded = F.pad(gradient, (0, 0) + (radius,) * 4)  # (2B, h + 4, w + 4, K)
        image, row, column = (number >= 0).nonzero(as_tuple=True)
        tap = torch.arange(TAPS, device=row.device)
        # Tap t of an output reads the position t - 2 further on: a position contributes to the output t - 2 before it.
        target_row = row[:, None, None] + 2 * radius - tap[None, None, :]
        target_column = column[:, None, None] + 2 * radius - tap[None, :, None]
        target = (image[:, None, None] * padded.shape[1] + target_row) * padded.shape[2] + target_column  # (M, x, y)
        source = F.pad(target.flatten(), (0, ctx.rows - target.numel()))  # more rows read a corner of the padding: 0
        return padded.flatten(0, 2).index_select(0, source), None


def constant_response(tap_bias: Tensor | None, bias: Tensor, size: tuple[int, int]) -> Tensor:
    """Compute the convolution's bias plus the response of its taps to a constant, where they fall inside the map.

    Args:
        tap_bias: (5, 5, K), taps ordered x, y, or None.
        bias: (K,).
        size: (h, w).

    Returns:
        (K,) or (h, w, K).
    """
    if tap_bias is None:
        return bias
    rows, columns = (tap_coverage(length, bias.device, tap_bias.dtype) for length in size)  # (h, 5), (w, 5)
    return torch.einsum("wx,hy,xyk->hwk", columns, rows, tap_bias) + bias


def convolve_map(map_logit: Tensor, kernel: Tensor) -> Tensor:
    """Convolve the map with its own channel of the 5x5 kernel: (N, h, w) and (K, 5, 5) to (N, h, w, K)."""
    height, width = map_logit.shape[1:]
    patches = F.pad(map_logit, (TAPS // 2,) * 4).unfold(1, height, 1).unfold(2, width, 1)  # (N, 5, 5, h, w)
    return pointwise(patches.flatten(1, 2).permute(0, 2, 3, 1), kernel.flatten(1))


def project_hidden(normalised: Tensor, weight: Tensor) -> Tensor:
    """Activate (in place) and project normalised rows: (P, HIDDEN) and (HIDDEN,) to (P,)."""
    return F.leaky_relu_(normalised, LEAKY_SLOPE) @ weight


def pool(normalised: Tensor, kept: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Activate the normalised convolution (N, P, CONV), then return maximum and mean over space, (N, CONV) each.

    Where ``kept`` (N, P) bool is given, only its positions count.
    """
    active = F.relu(normalised)
    if kept is None:
        return active.amax(1), active.mean(1)
    active = active * kept[..., None]  # activations are at least 0, so a zeroed one is never a false maximum
    return active.amax(1), active.sum(1) / kept.sum(1, keepdim=True)


def classify(
    maximum: Tensor, average: Tensor, map_input: Tensor, weight: Tensor, bias: Tensor, kept: Tensor | None = None
) -> Tensor:
    """Apply the last linear layer and return the score.

    Args:
        maximum: (N, CONV) of the convolution over space.
        average: (N, CONV) likewise.
        map_input: (N, h, w) the map that the classification head gets.
        weight: (1, 2 * CONV + 2), columns ordered conv-max, conv-mean, map-max, map-mean.
        bias: (1,).
        kept: (N, h * w) bool, positions of the map that count; None for all.

    Returns:
        (N,) score in logits.
    """
    flat_map = map_input.flatten(1)
    if kept is None:
        of_map = [flat_map.amax(1, keepdim=True), flat_map.mean(1, keepdim=True)]
    else:
        highest = flat_map.masked_fill(~kept, -torch.inf).amax(1, keepdim=True)
        of_map = [highest, (flat_map * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True)]
    pooled = [maximum, average, *of_map]
    return F.linear(torch.cat(pooled, dim=1), weight, bias)[:, 0]


def output_size(features: Sequence[Tensor]) -> tuple[int, int]:
    """Return height and width of the map: twice those of the first feature map."""
    return 2 * features[0].shape[1], 2 * features[0].shape[2]


def _eval(norm: nn.BatchNorm1d | nn.BatchNorm2d, rows: Tensor) -> Tensor:
    return F.batch_norm(rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
