"""The subspace score: how far features lie from the subspace that the features of good images fill.

The features of a position are those of all maps, average-pooled and brought onto the grid of the first map. The
leading principal directions of good images explain nearly all of their variance; what a new image has in the directions
that are left over was not seen in training. No gradient and no labels are needed.

Pooling and interpolation act alike on every channel, so they commute with the projection: each map is projected at its
own resolution, and only the projected channels are pooled and interpolated, by one matrix per axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supersimplenet.model.axes import pooled_placed
from supersimplenet.model.ops import pointwise
from supersimplenet.model.resample import resample_dense

HIGHEST = 10  # positions whose mean is the image's score
_SMALLEST_SQUARE = 1e-12  # added to the squared norm, so that the logarithm of an exact fit is finite: -13.8


class SubspaceOutput(NamedTuple):
    """Output for B images.

    Attributes:
        position_logit: (B, h, w) logarithm of each position's distance from the subspace, on the first map's grid.
        score_logit: (B,) mean of the ten highest of them, or of all where fewer count.
    """

    position_logit: Tensor
    score_logit: Tensor


class Subspace(nn.Module):
    """Distance of pooled features from the subspace of good images; C is the number of channels over all maps.

    Args:
        mean: (C,) mean of the pooled features of good images.
        complement: (C, K) orthonormal directions that are left out of the subspace, K of 1 or more.
        stride: (L,) int64, stride of each feature map, ascending.
        dense: write the projection as a matrix product, for graph compilers; else as torch computes it fastest.

    Source: the residual of a principal component analysis of features, as in SubspaceAD (CVPR 2026); pooled features of
    two layers on one grid: JIMS section 3.1 and PaDiM (ICPR workshops 2021). docs/decisions/0027-subspace.md.
    """

    mean: Tensor
    complement: Tensor
    stride: Tensor

    def __init__(self, mean: Tensor, complement: Tensor, stride: Tensor, *, dense: bool = False) -> None:
        super().__init__()
        self.dense = dense
        self.strides: list[int] = stride.tolist()
        self.register_buffer("mean", mean)
        self.register_buffer("complement", complement)
        self.register_buffer("stride", stride)

    @torch.no_grad()
    def for_inference(self, *, dense: bool) -> Subspace:
        """Return a copy in the form for torch, or for graph compilers."""
        return Subspace(self.mean.clone(), self.complement.clone(), self.stride.clone(), dense=dense).eval()

    def forward(self, features: Sequence[Tensor], ignored: Tensor | None = None) -> SubspaceOutput:
        """Compute the distance of each position, and each image's score.

        Args:
            features: (B, h_l, w_l, C_l) feature maps, largest first.
            ignored: (B, h, w) bool, positions that count in no score, never all of an image; see `ignored_positions`.
        """
        ends = list(accumulate(feature.shape[-1] for feature in features))
        # Slices, because graph optimisers would compute a split with several outputs for each image.
        parts = [self.complement[end - f.shape[-1] : end] for end, f in zip(ends, features, strict=True)]  # (C_l, K)
        projected = [self._project(feature, part.T) for feature, part in zip(features, parts, strict=True)]
        residual = on_first_grid(projected, self.strides) - self.mean @ self.complement  # (B, h, w, K)
        position_logit = (residual.square().sum(-1) + _SMALLEST_SQUARE).log() / 2
        return SubspaceOutput(position_logit, _mean_of_highest(position_logit, ignored))

    def _project(self, feature: Tensor, weight: Tensor) -> Tensor:
        # Always in the type of the directions: residuals are small differences of large features.
        feature = feature.to(weight.dtype)
        return F.linear(feature, weight) if self.dense else pointwise(feature, weight)


def on_first_grid(maps: Sequence[Tensor], strides: Sequence[int]) -> Tensor:
    """Pool maps 3x3 at their own stride, bring them onto the first one's grid at true positions, and add them.

    Args:
        maps: (B, h_l, w_l, K) each, largest first.
        strides: stride of each map; its position j lies at pixel j * stride.

    Returns:
        (B, h, w, K) at the size of the first map.
    """
    return _placed(maps, strides, (maps[0].shape[1], maps[0].shape[2]), strides[0])


def pooled_features(features: Sequence[Tensor], strides: Sequence[int]) -> Tensor:
    """Return the pooled features of all maps on the first one's grid: (B, h, w, C), from (B, h_l, w_l, C_l) each."""
    size = (features[0].shape[1], features[0].shape[2])
    each = [_placed([feature], [step], size, strides[0]) for feature, step in zip(features, strides, strict=True)]
    return torch.cat(each, dim=-1)


def _placed(maps: Sequence[Tensor], strides: Sequence[int], size: tuple[int, int], stride: int) -> Tensor:
    def axis(layer: int, size_in: int, size_out: int) -> Tensor:
        return pooled_placed(size_in, size_out, strides[layer], stride, maps[layer].device, maps[layer].dtype)

    return resample_dense(maps, size, axis)


def ignored_positions(ignored: Tensor) -> Tensor:
    """Return the positions of the first feature map's grid that count in no score.

    A position is ignored where any of its four positions of the network's map is, or, where none would be left in the
    image, where all four are.

    Args:
        ignored: (B, 2h, 2w) bool, never all positions of an image.

    Returns:
        (B, h, w) bool.
    """
    touched = F.max_pool2d(ignored.float()[:, None], 2)[:, 0]
    covered = 1 - F.max_pool2d((~ignored).float()[:, None], 2)[:, 0]
    none_left = touched.amin((1, 2), keepdim=True)
    return torch.where(none_left > 0, covered, touched) > 0


def _mean_of_highest(position_logit: Tensor, ignored: Tensor | None) -> Tensor:
    """Return the mean of the ten highest positions of each image (B, h, w) that count; of all where there are fewer."""
    counted = position_logit if ignored is None else position_logit.masked_fill(ignored, -torch.inf)
    at_least = F.pad(counted.flatten(1), (0, HIGHEST), value=-torch.inf)
    highest = at_least.topk(HIGHEST, dim=1).values  # (B, 10)
    counts = highest > -torch.inf
    return highest.masked_fill(~counts, 0).sum(1) / counts.sum(1)
