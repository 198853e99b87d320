"""The heads in the plain, published order of operations: the reference for the fast order, in tests and benchmarks.

The code was written again from the papers; it shares only the parameters' names with the rest of the package. The
order is: upscale and concatenate the feature maps, pool, adapt, two heads; training doubles the batch and adds masked
noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F


class PlainHeads(nn.Module):
    """The adaptor and both heads.

    Args:
        channels: number of channels of each feature map.
        variant: ``jims`` classifies the features before the adaptor, ``icpr`` those after it.
        align_corners: option of the bilinear upscaling of the feature maps.
    """

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
        """Return the feature maps upscaled, concatenated and pooled: (B, C, h, w)."""
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
        ignored: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return anomaly map (N, h, w) and anomaly score (N,), in logits.

        Args:
            maps: (B, C_l, h_l, w_l) feature maps, largest first.
            noise: (2B, C, h, w) noise for the features; if given, the batch is doubled.
            mask: (2B, h, w), 1 where the noise is added.
            stop_gradient: do not pass gradients of the score to the anomaly map.
            ignored: (N, h, w) bool, True at positions that count in no score.
        """
        features = self.fused(maps)
        adapted = self.adaptor(features)
        if noise is not None and mask is not None:
            features, adapted = features.repeat(2, 1, 1, 1), adapted.repeat(2, 1, 1, 1)
            masked = noise * mask[:, None]
            features, adapted = features + masked, adapted + masked
        map_logit = self.segmentation(adapted)
        shown = map_logit.detach() if stop_gradient else map_logit
        classified = adapted if self.variant == "icpr" else features
        response = self.classification(torch.cat([classified, shown], dim=1))
        if ignored is not None:
            rows = []
            for image in range(len(shown)):
                kept = ~ignored[image]
                planes = (response[image][:, kept], shown[image][:, kept])  # (K, pixels), (1, pixels)
                rows.append(torch.cat([reduced for p in planes for reduced in (p.amax(1), p.mean(1))]))
            return map_logit[:, 0], self.score(torch.stack(rows))[:, 0]
        pooled = [
            F.adaptive_max_pool2d(response, 1),
            F.adaptive_avg_pool2d(response, 1),
            F.adaptive_max_pool2d(shown, 1),
            F.adaptive_avg_pool2d(shown, 1),
        ]
        return map_logit[:, 0], self.score(torch.cat(pooled, dim=1).flatten(1))[:, 0]


# Names of the package's modules, with the names of the same modules in the reference.
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
    """Return the name that a parameter of the package has in the reference."""
    module, parameter = name.split(".")
    return f"{NAMES[module]}.{parameter}"


def plain_loss(
    map_logit: Tensor,
    score_logit: Tensor,
    mask: Tensor,
    label: Tensor,
    *,
    known: Tensor | None = None,
    ignored: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Return the loss, computed pixel by pixel and from probabilities, as in the papers.

    The anomaly map's terms leave out images whose pixel labels are not ``known`` (N,), and then ignored pixels.
    """

    def mean(values: Tensor) -> Tensor:
        return values.mean() if len(values) else values.sum()

    def focal(logit: Tensor, target: Tensor) -> Tensor:
        p = torch.sigmoid(logit)
        p_true = torch.where(target, p, 1 - p)
        return -((1 - p_true) ** 4) * torch.log(p_true)

    weight = torch.ones_like(map_logit) if weight is None else weight
    images = torch.ones_like(label) if known is None else known
    map_logit, mask, weight = map_logit[images], mask[images], weight[images]
    pixels = torch.ones_like(mask) if ignored is None else ~ignored[images]
    map_logit, mask, weight = map_logit[pixels], mask[pixels], weight[pixels]
    truncated = mean((F.relu(map_logit + 0.5) * weight)[~mask]) + mean((F.relu(0.5 - map_logit) * weight)[mask])
    return truncated + mean(focal(map_logit, mask) * weight) + focal(score_logit, label).mean()


def plain_weight(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return 3 (d / d_max)^2 in each 8-connected region, with d the distance to the nearest pixel outside; else 1."""
    weight = np.ones(mask.shape)
    outside = np.argwhere(~mask)
    left = {tuple(pixel) for pixel in np.argwhere(mask)}
    while left:
        region, border = [], [left.pop()]
        while border:
            y, x = border.pop()
            region.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            border += near
        distance = [np.sqrt(((outside - pixel) ** 2).sum(1)).min() for pixel in region]
        for pixel, d in zip(region, distance, strict=True):
            weight[pixel] = 3 * (d / max(distance)) ** 2
    return weight


def plain_dilation(mask: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """Return a mask of the pixels that have a defective pixel in the square of this side around them."""
    reach = side // 2
    return np.array(
        [
            [
                mask[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1].any()
                for x in range(mask.shape[1])
            ]
            for y in range(mask.shape[0])
        ]
    )


def anomaly_map(map_logit: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return the anomaly map resized bilinearly and blurred by torchvision's Gaussian, kernel 25, sigma 4."""
    from torchvision.transforms.functional import gaussian_blur

    resized = F.interpolate(map_logit[:, None], size=image_size, mode="bilinear", align_corners=False)
    blurred: Tensor = gaussian_blur(resized, kernel_size=[25, 25], sigma=[4.0, 4.0])
    return blurred[:, 0]
