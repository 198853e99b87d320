"""The network in the plain, published order of operations, written once more from the description as the reference.

Nothing here is shared with the package but the parameters' names. DESIGN of the method: upscale and concatenate the
feature maps, pool, adapt, two heads; training doubles the batch and adds masked noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PlainHeads(nn.Module):
    def __init__(self, channels: Sequence[int], *, variant: str, align_corners: bool) -> None:
        super().__init__()
        total = sum(channels)
        self.variant, self.align_corners = variant, align_corners
        self.adaptor = nn.Conv2d(total, total, 1)
        self.segmentation = nn.Sequential(
            nn.Conv2d(total, 1024, 1), nn.BatchNorm2d(1024), nn.LeakyReLU(0.2), nn.Conv2d(1024, 1, 1, bias=False)
        )
        self.classification = nn.Sequential(
            nn.Conv2d(total + 1, 128, 5, padding="same"), nn.BatchNorm2d(128), nn.ReLU()
        )
        self.score = nn.Linear(258, 1)

    def fused(self, maps: Sequence[Tensor]) -> Tensor:
        height, width = (2 * side for side in maps[0].shape[2:])
        upscaled = [
            F.interpolate(m, size=(height, width), mode="bilinear", align_corners=self.align_corners) for m in maps
        ]
        return F.avg_pool2d(torch.cat(upscaled, dim=1), 3, stride=1, padding=1, count_include_pad=True)

    def forward(
        self,
        maps: Sequence[Tensor],
        noise: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        stop_gradient: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Maps (B, C_l, h_l, w_l); noise (2B, C, h, w) and mask (2B, h, w) double the batch."""
        features = self.fused(maps)
        adapted = self.adaptor(features)
        if noise is not None and mask is not None:
            features, adapted = features.repeat(2, 1, 1, 1), adapted.repeat(2, 1, 1, 1)
            masked = noise * mask[:, None]
            features, adapted = features + masked, adapted + masked
        map_logit = self.segmentation(adapted)
        seen = map_logit.detach() if stop_gradient else map_logit
        classified = adapted if self.variant == "icpr" else features
        response = self.classification(torch.cat([classified, seen], dim=1))
        pooled = [
            F.adaptive_max_pool2d(response, 1),
            F.adaptive_avg_pool2d(response, 1),
            F.adaptive_max_pool2d(seen, 1),
            F.adaptive_avg_pool2d(seen, 1),
        ]
        return map_logit[:, 0], self.score(torch.cat(pooled, dim=1).flatten(1))[:, 0]


# The package's name of each parameter beside the reference's.
NAMES = {
    "adaptor": "adaptor",
    "hidden": "segmentation.0",
    "hidden_norm": "segmentation.1",
    "map": "segmentation.3",
    "conv": "classification.0",
    "conv_norm": "classification.1",
    "score": "score",
}


def plain_name(name: str) -> str:
    module, parameter = name.split(".")
    return f"{NAMES[module]}.{parameter}"


def plain_loss(map_logit: Tensor, score_logit: Tensor, mask: Tensor, label: Tensor) -> Tensor:
    """Pixel by pixel, from probabilities, as the papers write it."""

    def mean(values: Tensor) -> Tensor:
        return values.mean() if len(values) else values.sum()

    def focal(logit: Tensor, target: Tensor) -> Tensor:
        p = torch.sigmoid(logit)
        p_true = torch.where(target, p, 1 - p)
        return (-((1 - p_true) ** 4) * torch.log(p_true)).mean()

    truncated = mean(F.relu(map_logit[~mask] + 0.5)) + mean(F.relu(0.5 - map_logit[mask]))
    return truncated + focal(map_logit, mask) + focal(score_logit, label)


def anomaly_map(map_logit: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Bilinear resize and torchvision's Gaussian blur, kernel 25, sigma 4."""
    from torchvision.transforms.functional import gaussian_blur

    resized = F.interpolate(map_logit[:, None], size=image_size, mode="bilinear", align_corners=False)
    return gaussian_blur(resized, kernel_size=[25, 25], sigma=[4.0, 4.0])[:, 0]
