"""SuperSimpleNet: frozen backbone, trained heads, and the anomaly map upscaled to the image's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from supersimplenet.model.anomalies import Anomalies
from supersimplenet.model.axes import smoothed_upscale
from supersimplenet.model.backbone import Backbone, build_backbone
from supersimplenet.model.config import NO_SHIFT, ModelConfig
from supersimplenet.model.heads import HeadOutput, Heads
from supersimplenet.model.layers import resolve_layers
from supersimplenet.model.subspace import Subspace
from supersimplenet.utils.system import require_own_threads

SMOOTHING_SIGMA_PX = 4.0
_SMALLEST_SHARE = 1e-4  # of the smoothing's weights; a pixel needs at least this share on counted positions


class SuperSimpleNet(nn.Module):
    """The network, in the fast and exact order of computation.

    Args:
        config: architecture and backbone. The network's own config has its open layers, strides and size filled in.
        backbone: a backbone that is already built; by default the one that ``config`` names.
        seed: seed of the heads' initial weights.
        heads: whether there are heads; without them the subspace alone tells good from bad.

    Attributes:
        heads: the trained part of the network; None without.
        subspace: the subspace of good images; None until it is fitted, and for models of version 0.1.
        map_shift_px: how far (down, right) heat lies from its defect, in pixels of the input, measured after the
            training (docs/decisions/0029-place-and-outline.md); the anomaly map is moved back by it.

    Raises:
        BackboneError: the backbone cannot be built or its weights cannot be loaded.

    Source: Rolih, Fučka, Skočaj, ICPR 2024 (arXiv 2408.03143) and JIMS 2025 (arXiv 2508.19060). Differs: nothing in the
    result; outputs are logits; the sigmoid is applied last, outside the network.
    """

    def __init__(
        self, config: ModelConfig, *, backbone: Backbone | None = None, seed: int = 0, heads: bool = True
    ) -> None:
        super().__init__()
        require_own_threads()
        self.map_shift_px = NO_SHIFT
        is_own = backbone is not None and backbone.origin == "module"
        self.config = replace(config, feature_strides=config.strides) if is_own else resolve_layers(config)
        self.backbone = build_backbone(self.config) if backbone is None else backbone
        self.heads: Heads | None
        self.subspace: Subspace | None
        self.register_module("heads", None)
        self.register_module("subspace", None)
        if heads:
            self.heads = Heads(
                self.backbone.channels,
                variant=config.variant,
                align_corners=config.align_corners,
                generator=torch.Generator().manual_seed(seed),
            )

    @property
    def trained_heads(self) -> Heads:
        """The heads of a network that has some."""
        assert self.heads is not None, "a network of the subspace alone has no heads"
        return self.heads

    def forward(self, pixels: Tensor, anomalies: Anomalies | None = None, *, stop_gradient: bool = False) -> HeadOutput:
        """Compute map and score of each image.

        Args:
            pixels: (B, H, W, 3) uint8, RGB.
            anomalies: noise for the doubled batch, in training; see `Heads.forward`.
            stop_gradient: keep the score's gradient out of the map.

        Returns:
            Logits; the map has the feature resolution (h, w). `anomaly_map` resizes it to the image's size.
        """
        return self.trained_heads(self.backbone(pixels), anomalies, stop_gradient=stop_gradient)  # type: ignore[no-any-return]


def anomaly_map(
    map_logit: Tensor,
    image_size: Sequence[int],
    ignored: Tensor | None = None,
    *,
    shift_px: tuple[int, int] = NO_SHIFT,
) -> Tensor:
    """Resize the map to the image's size, smooth it with a Gaussian of sigma 4 px, and move it back by its shift.

    Args:
        map_logit: (N, h, w).
        image_size: H, W, more than 12 px each.
        ignored: (N, h, w) bool, positions that are left out of the smoothing; the weights of the other positions are
            scaled up to make up for them. None for none.
        shift_px: how far (down, right) heat lies from its defect; the map's border values fill up the other edges.

    Returns:
        (N, H, W) logits.

    Source: ICPR section 3.3. Differs: the shift is this package's own; all steps are one matrix per axis.
    """
    rows, columns = (
        smoothed_upscale(size_in, size_out, SMOOTHING_SIGMA_PX, map_logit.device, map_logit.dtype, shift)
        for size_in, size_out, shift in zip(map_logit.shape[1:], image_size, shift_px, strict=True)
    )
    if ignored is None:
        return rows @ map_logit @ columns.T
    kept = (~ignored).to(map_logit.dtype)
    share = rows @ kept @ columns.T
    smooth = rows @ (map_logit * kept) @ columns.T / share.clamp_min(_SMALLEST_SHARE)
    lowest = map_logit.amin((1, 2), keepdim=True)  # for pixels with no counted position around them
    return torch.where(share > _SMALLEST_SHARE, smooth, lowest)
