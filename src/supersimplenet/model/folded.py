"""The trained network for inference, with all constant factors multiplied together."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from supersimplenet.model.axes import TAPS
from supersimplenet.model.heads import (
    CONV,
    LEAKY_SLOPE,
    HeadOutput,
    Heads,
    classify,
    constant_response,
    convolve_map,
    output_size,
    pool,
    project,
    project_hidden,
)
from supersimplenet.model.network import SuperSimpleNet, anomaly_map
from supersimplenet.model.ops import pointwise
from supersimplenet.model.resample import upscale_dense, upscale_taps, upscale_taps_dense
from supersimplenet.model.segmentation_kernel import activate_project
from supersimplenet.model.subspace import ignored_positions


class FoldedNetwork(nn.Module):
    """Network from pixels to the smoothed anomaly maps and the scores; BatchNorms are folded into the weights.

    Args:
        network: the trained network; its weights are copied, so that later training does not change this module.
        dtype: type of the backbone and of the wide matrices; everything else stays float32.
        dense: write the upscaling as dense matrix products, for graph compilers; else as sparse sums, for torch.
        open_size: take images of other sizes than the network's too.
    """

    def __init__(
        self,
        network: SuperSimpleNet,
        *,
        dtype: torch.dtype = torch.float32,
        dense: bool = False,
        open_size: bool = False,
    ) -> None:
        super().__init__()
        self.image_size = network.config.size_px
        self.backbone = network.backbone.folded(dtype, None if open_size else self.image_size)
        self.measures = FoldedMeasures(network, dtype=dtype, dense=dense)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of what `forward` returns, in its order."""
        return self.measures.output_names

    def forward(self, pixels: Tensor, ignored: Tensor | None = None) -> tuple[Tensor, ...]:
        """Compute anomaly maps and scores of each image.

        Args:
            pixels: (B, H, W, 3) uint8, RGB.
            ignored: (B, H, W) bool, pixels that count in no score, never all pixels of an image; None for none.

        Returns:
            See `FoldedMeasures.forward`.
        """
        return self.of_features(self.backbone(pixels), self.image_size, ignored)

    def of_features(
        self, features: Sequence[Tensor], image_size: Sequence[int], ignored: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Compute the same from feature maps (B, h_l, w_l, C_l), for images of this size."""
        found: tuple[Tensor, ...] = self.measures(features, image_size, _touched(features, ignored))
        return found

    def raw(self, pixels: Tensor, ignored: Tensor | None = None) -> tuple[HeadOutput, Tensor | None]:
        """Compute the heads' outputs, and the positions (B, h, w) bool of the map that touch ignored pixels."""
        features = self.backbone(pixels)
        touched = _touched(features, ignored)
        assert self.measures.heads is not None
        return self.measures.heads(features, touched), touched


def _touched(features: Sequence[Tensor], ignored: Tensor | None) -> Tensor | None:
    """Return the positions (B, h, w) bool of the map that touch ignored pixels (B, H, W)."""
    if ignored is None:
        return None
    return F.adaptive_max_pool2d(ignored[:, None].float(), output_size(features))[:, 0] > 0


class FoldedMeasures(nn.Module):
    """What the network makes of features: map and score of the heads and of the subspace, where it has them.

    Args:
        network: see `FoldedNetwork`.
        dtype: type of the wide matrices of the heads, and so of the features; None for the type of the heads.
        dense: see `FoldedNetwork`.
    """

    def __init__(self, network: SuperSimpleNet, *, dtype: torch.dtype | None = None, dense: bool = False) -> None:
        super().__init__()
        self.heads = None if network.heads is None else FoldedHeads(network.heads, dtype=dtype, dense=dense)
        self.subspace = None if network.subspace is None else network.subspace.for_inference(dense=dense)
        self.map_shift_px = network.map_shift_px
        self.output_names = output_names_of(network)

    def forward(
        self, features: Sequence[Tensor], image_size: Sequence[int], ignored: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Compute maps and scores.

        Args:
            features: (B, h_l, w_l, C_l) feature maps, largest first.
            image_size: H, W.
            ignored: (B, h, w) bool, see `Heads.forward`.

        Returns:
            (B, H, W) smoothed map and (B,) score of each part of ``output_names``, float32 logits.
        """
        found: tuple[Tensor, ...] = ()
        if self.heads is not None:
            output = self.heads(features, ignored)
            found = (self.finished_map(output.map_logit, image_size, ignored), output.score_logit)
        if self.subspace is not None:
            hidden = None if ignored is None else ignored_positions(ignored)
            distance = self.subspace(features, hidden)
            found = (*found, anomaly_map(distance.position_logit, image_size, hidden), distance.score_logit)
        return found

    def finished_map(self, map_logit: Tensor, image_size: Sequence[int], ignored: Tensor | None = None) -> Tensor:
        """Return the heads' map (B, H, W) upscaled, smoothed and moved back; see `anomaly_map`."""
        return anomaly_map(map_logit, image_size, ignored, shift_px=self.map_shift_px)


def output_names_of(network: SuperSimpleNet) -> tuple[str, ...]:
    """Return the names of what a network computes, in order: those of `supersimplenet.runtime.tiles.Outputs`."""
    return (
        *(() if network.heads is None else ("map", "head_logit")),
        *(() if network.subspace is None else ("subspace_map", "subspace_logit")),
    )


class FoldedHeads(nn.Module):
    """Heads for inference: adaptor and first convolution in one matrix, both BatchNorms folded into the weights.

    Args:
        heads: trained heads; their weights are copied, so that later training does not change this module.
        dtype: type of the wide matrices, and so of the features; None for the type of the heads.
        dense: see `FoldedNetwork`.
    """

    hidden_weight: Tensor
    hidden_bias: Tensor
    map_weight: Tensor
    tap_weight: Tensor
    tap_bias: Tensor | None
    conv_bias: Tensor
    map_kernel: Tensor
    score_weight: Tensor
    score_bias: Tensor

    @torch.no_grad()
    def __init__(self, heads: Heads, *, dtype: torch.dtype | None = None, dense: bool = False) -> None:
        super().__init__()
        self.align_corners = heads.align_corners
        self.dense = dense
        kept = heads.hidden.weight.dtype
        exact = copy.deepcopy(heads).double().projections()  # computed only once, so in float64: no need to round twice
        hidden_scale, hidden_shift = _scale_and_shift(heads.hidden_norm)
        conv_scale, conv_shift = _scale_and_shift(heads.conv_norm)
        tap_weight = exact.tap_weight.view(TAPS * TAPS, CONV, -1) * conv_scale[:, None]
        wide = {"hidden_weight": exact.hidden_weight * hidden_scale[:, None], "tap_weight": tap_weight.flatten(0, 1)}
        narrow = {
            "hidden_bias": exact.hidden_bias * hidden_scale + hidden_shift,
            "map_weight": heads.map.weight[0],
            "tap_bias": None if exact.tap_bias is None else exact.tap_bias * conv_scale,
            "conv_bias": heads.conv_bias.double() * conv_scale + conv_shift,
            "map_kernel": heads.conv.weight[:, -1].double() * conv_scale[:, None, None],
            "score_weight": heads.score.weight,
            "score_bias": heads.score.bias,
        }
        for name, value in (wide | narrow).items():
            to = dtype if dtype is not None and name in wide else kept
            self.register_buffer(name, None if value is None else value.to(to, copy=True))

    def forward(self, features: Sequence[Tensor], ignored: Tensor | None = None) -> HeadOutput:
        """Compute map and score of each image.

        Args:
            features: (B, h_l, w_l, C_l) feature maps, largest first.
            ignored: (B, h, w) bool, see `Heads.forward`.

        Returns:
            Logits, equal to those of the heads in eval mode up to rounding.
        """
        size = output_size(features)
        map_logit = self._segment(self._project(features, self.hidden_weight), size)  # (B, h, w)
        response = self._upscale_taps(features, size)  # (B, h, w, CONV)
        response += constant_response(self.tap_bias, self.conv_bias, size)
        response += self._convolve_map(map_logit)
        kept = None if ignored is None else ~ignored.flatten(1)
        maximum, average = pool(response.flatten(1, 2), kept)
        return HeadOutput(map_logit, classify(maximum, average, map_logit, self.score_weight, self.score_bias, kept))

    def _project(self, features: Sequence[Tensor], weight: Tensor) -> list[Tensor]:
        if not self.dense:
            return project(features, weight)
        ends = list(accumulate(feature.shape[-1] for feature in features))
        # Graph optimisers compute these slices once; they would compute a split with several outputs per image.
        parts = [weight[:, end - feature.shape[-1] : end] for feature, end in zip(features, ends, strict=True)]
        return [pointwise(feature, part) for feature, part in zip(features, parts, strict=True)]

    def _segment(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        if self.dense:
            hidden = upscale_dense(maps, size, self.align_corners)  # (B, h, w, HIDDEN)
            return project_hidden(hidden.add_(self.hidden_bias), self.map_weight)
        return activate_project(
            maps,
            size=size,
            align_corners=self.align_corners,
            bias=self.hidden_bias,
            weight=self.map_weight,
            negative_slope=LEAKY_SLOPE,
        )

    def _convolve_map(self, map_logit: Tensor) -> Tensor:
        if not self.dense:
            return convolve_map(map_logit, self.map_kernel)
        return F.conv2d(map_logit[:, None], self.map_kernel[:, None], padding=TAPS // 2).permute(0, 2, 3, 1)

    def _upscale_taps(self, features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        if not self.dense:
            return upscale_taps(project(features, self.tap_weight), size, self.align_corners)
        by_tap = self.tap_weight.view(TAPS, TAPS, CONV, -1)  # (x, y, CONV, C)
        taps = [self._project(features, by_tap[:, tap].flatten(0, 1)) for tap in range(TAPS)]  # y, then feature map
        return upscale_taps_dense(list(zip(*taps, strict=True)), size, self.align_corners)


def _scale_and_shift(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return scale and shift of a BatchNorm in eval mode, ``x * scale + shift``, in float64."""
    if norm.running_mean is None or norm.running_var is None:
        raise RuntimeError("only a BatchNorm with running statistics can be folded")
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    return scale, norm.bias.double() - norm.running_mean.double() * scale
