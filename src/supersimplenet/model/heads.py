"""Adaptor, segmentation head and classification head, computed at the feature maps' own resolution.

Upscaling and pooling act alike on every channel, so they commute with every matrix over channels:
``conv(pool(upscale(f))) = pool(upscale(conv(f)))``, layer by layer and summed. The wide matrices therefore meet 1/4 and
1/16 of the pixels, and only their results are upscaled. Adaptor and first convolution are one matrix (their product);
the 25 taps of the 5x5 convolution are 25 such matrices, and each tap's shift is folded into the upscaling. Biases come
after the pooling, because its zero padding would change them at the border.

The plain, published order of operations stands in ``tests/plain.py``; both give the same outputs and gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supersimplenet.model.hidden import normalise_activate_project
from supersimplenet.model.recipes import Variant
from supersimplenet.model.resample import TAPS, pooled_upscale, pooled_upscale_taps, tap_coverage
from supersimplenet.model.synthesis import Anomalies

HIDDEN = 1024  # channels of the segmentation head's hidden layer
CONV = 128  # channels of the classification head's convolution
LEAKY_SLOPE = 0.2


class HeadOutput(NamedTuple):
    """What the heads say of N images.

    Attributes:
        map_logit: (N, h, w), twice the resolution of the first feature map.
        score_logit: (N,).
    """

    map_logit: Tensor
    score_logit: Tensor


@dataclass(frozen=True)
class Projections:
    """The matrices that meet the feature maps, C channels over all layers.

    Attributes:
        hidden_weight: (HIDDEN, C) adaptor and first segmentation convolution in one.
        hidden_bias: (HIDDEN,).
        tap_weight: (5 * 5 * CONV, C), taps ordered x, y.
        tap_bias: (5, 5, CONV) what a tap gives on a constant, taps ordered x, y; None where there is none.
    """

    hidden_weight: Tensor
    hidden_bias: Tensor
    tap_weight: Tensor
    tap_bias: Tensor | None


class Heads(nn.Module):
    """The trained part of the network.

    Args:
        channels: channels of each feature map, in the order of `forward`'s maps.
        variant: ``jims`` or ``icpr``, see `ModelConfig`.
        align_corners: how feature maps are upscaled.
        generator: source of the initial weights.

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
        self, features: Sequence[Tensor], anomalies: Anomalies | None = None, *, stop_gradient: bool = False
    ) -> HeadOutput:
        """Map and score of each image, or of each image of the doubled, noised batch.

        Args:
            features: (B, h_l, w_l, C_l) feature maps, largest first.
            anomalies: noise for the doubled batch; None leaves the batch as it is.
            stop_gradient: keep the score's gradient out of the map.

        Returns:
            Logits of B images, or of 2B with ``anomalies``: first one copy of the batch, then the other.
        """
        projections = self.projections()
        map_logit = self._segment(features, projections, anomalies)  # (N, h, w)
        seen_map = map_logit.detach() if stop_gradient else map_logit
        response = self._convolve(features, projections, anomalies, seen_map)  # (N, CONV, h, w)
        return HeadOutput(map_logit, classify(self.conv_norm(response), seen_map, self.score.weight, self.score.bias))

    @property
    def conv_bias(self) -> Tensor:
        """(CONV,) bias of the classification head's convolution."""
        bias = self.conv.bias
        assert bias is not None
        return bias

    def projections(self) -> Projections:
        """The matrices of the current weights, differentiable."""
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

    def _segment(self, features: Sequence[Tensor], projections: Projections, anomalies: Anomalies | None) -> Tensor:
        clean = upscale_hidden(features, projections.hidden_weight, self.align_corners)  # (B, h, w, HIDDEN)
        height, width = clean.shape[1:3]
        rows = clean.flatten(0, 2) + projections.hidden_bias  # (P, HIDDEN)
        copies = 1 if anomalies is None else 2
        position, shift, count = self._hidden_noise(rows, anomalies)
        source = position % len(rows)
        norm, weight = self.hidden_norm, self.map.weight[0]
        if self.training:
            out = normalise_activate_project(
                rows,
                count,
                shift,
                source,
                gamma=norm.weight,
                beta=norm.bias,
                weight=weight,
                eps=norm.eps,
                negative_slope=LEAKY_SLOPE,
            )
            _update_running_statistics(norm, out.mean, out.variance, copies * len(rows))
            projected, noised = out.clean, out.noised
        else:
            projected, noised = (project_hidden(_eval(norm, r), weight) for r in (rows, rows[source] + shift))
        return projected.repeat(copies).index_copy(0, position, noised).view(-1, height, width)

    def _hidden_noise(self, rows: Tensor, anomalies: Anomalies | None) -> tuple[Tensor, Tensor, Tensor]:
        """Where noise is (M,), what it adds to the hidden layer (M, HIDDEN), and each clean row's multiplicity (P,)."""
        if anomalies is None:
            none = torch.empty(0, dtype=torch.int64, device=rows.device)
            return none, rows.new_empty(0, rows.shape[1]), rows.new_ones(len(rows))
        shift = anomalies.noise.to(rows.dtype) @ self.hidden.weight.T
        count = 2 - anomalies.mask.view(2, -1).sum(0)  # (P,)
        return anomalies.position, shift, count.to(rows.dtype)

    def _convolve(
        self, features: Sequence[Tensor], projections: Projections, anomalies: Anomalies | None, seen_map: Tensor
    ) -> Tensor:
        response = upscale_taps(features, projections.tap_weight, self.align_corners)  # (B, h, w, CONV)
        response = response + constant_response(projections.tap_bias, self.conv_bias, seen_map)
        if anomalies is not None:
            response = response.repeat(2, 1, 1, 1) + self._noise_response(anomalies)
        return response.permute(0, 3, 1, 2) + convolve_map(seen_map, self.conv.weight[:, -1:])

    def _tap_rows(self) -> Tensor:
        """The 5x5 kernel on the features as (5 * 5 * CONV, C) rows, taps ordered x, y."""
        kernel = self.conv.weight[:, :-1]  # (CONV, C, 5, 5): all but the map's channel
        return kernel.permute(3, 2, 0, 1).reshape(-1, kernel.shape[1])

    def _noise_response(self, anomalies: Anomalies) -> Tensor:
        """The convolution of the noise alone (2B, h, w, CONV): each noised pixel spread over its 25 neighbours."""
        images, height, width = anomalies.mask.shape
        taps = self._tap_rows()
        spread = (anomalies.noise.to(taps.dtype) @ taps.T).view(-1, CONV)  # (M * 25, CONV), taps ordered x, y
        radius = TAPS // 2
        padded_height, padded_width = height + 2 * radius, width + 2 * radius
        image, pixel = anomalies.position // (height * width), anomalies.position % (height * width)
        row, column = pixel // width, pixel % width
        tap = torch.arange(TAPS, device=row.device)
        # The pixel under tap t of an output pixel lies t - 2 further on, so it contributes t - 2 back.
        target_row = row[:, None, None] + 2 * radius - tap[None, None, :]
        target_column = column[:, None, None] + 2 * radius - tap[None, :, None]
        target = (image[:, None, None] * padded_height + target_row) * padded_width + target_column  # (M, x, y)
        padded = spread.new_zeros(images * padded_height * padded_width, CONV)
        padded = padded.index_add(0, target.flatten(), spread).view(images, padded_height, padded_width, CONV)
        return padded[:, radius : radius + height, radius : radius + width]

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        for layer in (self.adaptor, self.hidden, self.map, self.conv, self.score):
            nn.init.xavier_normal_(layer.weight, generator=generator)
            if layer.bias is not None:
                bound = layer.weight[0].numel() ** -0.5
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


def upscale_hidden(features: Sequence[Tensor], weight: Tensor, align_corners: bool) -> Tensor:
    """``weight`` applied at every pixel of the upscaled, pooled features.

    Args:
        features: (B, h_l, w_l, C_l) feature maps, largest first.
        weight: (K, C) over the channels of all maps.
        align_corners: how feature maps are upscaled.

    Returns:
        (B, h, w, K).
    """
    height, width = output_size(features)
    combined, operators = [], []
    for feature, part in zip(features, _by_layer(weight, features), strict=True):
        rows, columns = feature.shape[1:3]
        projected = F.linear(feature, part)  # (B, h_l, w_l, K)
        operator = pooled_upscale(columns, width, align_corners, feature.device, feature.dtype)
        combined.append(operator @ projected)  # (B, h_l, w, K)
        operators.append(pooled_upscale(rows, height, align_corners, feature.device, feature.dtype))
    stacked = torch.cat(combined, dim=1).flatten(2)  # (B, sum of h_l, w * K)
    return (torch.cat(operators, dim=1) @ stacked).view(len(stacked), height, width, -1)


def upscale_taps(features: Sequence[Tensor], tap_weight: Tensor, align_corners: bool) -> Tensor:
    """The 5x5 convolution of the upscaled, pooled features, without bias.

    Args:
        features: (B, h_l, w_l, C_l) feature maps, largest first.
        tap_weight: (5 * 5 * K, C), taps ordered x, y.
        align_corners: how feature maps are upscaled.

    Returns:
        (B, h, w, K).
    """
    height, width = output_size(features)
    combined, operators = [], []
    for feature, part in zip(features, _by_layer(tap_weight, features), strict=True):
        rows, columns = feature.shape[1:3]
        projected = F.linear(feature, part).view(len(feature), rows, columns * TAPS, -1)  # (B, h_l, w_l * x, y * K)
        operator = pooled_upscale_taps(columns, width, align_corners, feature.device, feature.dtype)
        across = (operator.flatten(1) @ projected).view(len(feature), rows, width, TAPS, -1)  # (B, h_l, w, y, K)
        combined.append(across.transpose(2, 3).flatten(1, 2))  # (B, h_l * y, w, K)
        operators.append(pooled_upscale_taps(rows, height, align_corners, feature.device, feature.dtype).flatten(1))
    stacked = torch.cat(combined, dim=1).flatten(2)  # (B, sum of h_l * y, w * K)
    return (torch.cat(operators, dim=1) @ stacked).view(len(stacked), height, width, -1)


def constant_response(tap_bias: Tensor | None, bias: Tensor, like: Tensor) -> Tensor:
    """The convolution's bias, and what a constant under its taps gives where they fall inside the map.

    Args:
        tap_bias: (5, 5, K), taps ordered x, y, or None.
        bias: (K,).
        like: (N, h, w), for the size.

    Returns:
        (K,) or (h, w, K).
    """
    if tap_bias is None:
        return bias
    rows = tap_coverage(like.shape[1], like.device, tap_bias.dtype)  # (h, 5)
    columns = tap_coverage(like.shape[2], like.device, tap_bias.dtype)  # (w, 5)
    return torch.einsum("wx,hy,xyk->hwk", columns, rows, tap_bias) + bias


def convolve_map(map_logit: Tensor, kernel: Tensor) -> Tensor:
    """The map's own channel of the 5x5 convolution: (N, h, w) and (K, 1, 5, 5) to (N, K, h, w)."""
    return F.conv2d(map_logit[:, None], kernel, padding=TAPS // 2)


def project_hidden(normalised: Tensor, weight: Tensor) -> Tensor:
    """Activation and projection of normalised rows: (P, HIDDEN) and (HIDDEN,) to (P,)."""
    return F.leaky_relu(normalised, LEAKY_SLOPE) @ weight


def classify(normalised: Tensor, seen_map: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Activation, pooling and the last linear layer.

    Args:
        normalised: (N, CONV, h, w) normalised response of the convolution.
        seen_map: (N, h, w) the map as the classification head sees it.
        weight: (1, 2 * CONV + 2), columns ordered conv-max, conv-mean, map-max, map-mean.
        bias: (1,).

    Returns:
        (N,) score in logits.
    """
    response = F.relu(normalised).flatten(2)
    flat_map = seen_map.flatten(1)
    pooled = [response.amax(2), response.mean(2), flat_map.amax(1, keepdim=True), flat_map.mean(1, keepdim=True)]
    return F.linear(torch.cat(pooled, dim=1), weight, bias)[:, 0]


def _by_layer(weight: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The columns of a matrix over all channels that belong to each feature map."""
    return torch.split(weight, [feature.shape[-1] for feature in features], dim=1)


def output_size(features: Sequence[Tensor]) -> tuple[int, int]:
    """Height and width of the map: twice the first feature map's."""
    return 2 * features[0].shape[1], 2 * features[0].shape[2]


def _eval(norm: nn.BatchNorm1d, rows: Tensor) -> Tensor:
    return F.batch_norm(rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


@torch.no_grad()
def _update_running_statistics(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, pixels: int) -> None:
    """What BatchNorm does in training: exponential averages, with the unbiased variance."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        raise RuntimeError("the hidden layer's BatchNorm must track running statistics")
    momentum = 0.1 if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(variance * (pixels / max(pixels - 1, 1)), momentum)
    norm.num_batches_tracked += 1
