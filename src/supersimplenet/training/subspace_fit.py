"""The subspace of good images: mean and covariance of their features in one pass, in float64, and its directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.model.subspace import Subspace, ignored_positions, pooled_features
from supersimplenet.training.distributed import SINGLE_PROCESS, ProcessGroup
from supersimplenet.training.feature_cache import FeatureSource
from supersimplenet.training.pixel_labels import PixelLabels
from supersimplenet.training.training_set import TrainingSet
from supersimplenet.utils.console import console
from supersimplenet.utils.formatting import counted

EXPLAINED = 0.99  # share of the variance that the subspace holds; docs/decisions/0027-subspace.md
_BATCH = 8
_ROUNDING = 1e-12  # of float64 in a variance, as a share of the mean square


@dataclass(frozen=True)
class Moments:
    """Sums over positions, from which mean and covariance follow; sums of parts add up to those of the whole.

    Attributes:
        count: () float64, number of positions.
        total: (C,) float64, sum of the features.
        products: (C, C) float64, sum of their outer products.
    """

    count: Tensor
    total: Tensor
    products: Tensor

    @classmethod
    def none(cls, channels: int) -> Moments:
        """Return the sums over no position."""
        zeros = torch.zeros(1 + channels, channels, dtype=torch.float64)
        return cls(zeros.new_zeros(()), zeros[0], zeros[1:])

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Return the sums over the features (N, C) of some positions."""
        values = features.double()
        return cls(values.new_tensor(len(values)), values.sum(0), values.T @ values)

    def merge(self, other: Moments) -> Moments:
        """Return the sums over the positions of both."""
        return Moments(self.count + other.count, self.total + other.total, self.products + other.products)

    def everywhere(self, process_group: ProcessGroup) -> Moments:
        """Return the sums over the positions of all processes, the same in each."""
        flat = torch.cat([self.count[None], self.total, self.products.flatten()])
        flat = process_group.all_reduce(flat if process_group.device is None else flat.to(process_group.device))
        return Moments(flat[0], flat[1 : 1 + len(self.total)], flat[1 + len(self.total) :].view_as(self.products))

    def mean_and_covariance(self) -> tuple[Tensor, Tensor]:
        """Return mean (C,) and biased covariance (C, C)."""
        mean = self.total / self.count
        return mean, self.products / self.count - mean[:, None] * mean


def measure_moments(
    source: FeatureSource, rows: Sequence[int], labels: PixelLabels | None, *, strides: Sequence[int]
) -> Moments:
    """Sum over the pooled features of some rows, without the positions that are ignored there.

    Args:
        source: features by row.
        rows: rows of good images that are trained on, with as many views of each as the training uses.
        labels: labels of the source's tiles, with the ignored positions; None where every position counts.
        strides: stride of each feature map.
    """
    found: Moments | None = None
    for row in torch.split(torch.tensor(list(rows), dtype=torch.int64), _BATCH):
        features = pooled_features([_in_float64(values) for values in source.features(row)], strides)  # (B, h, w, C)
        views = source.flip_index
        ignored = None if labels is None else labels.of(views.image[row], views.axes(row)).ignored
        if ignored is None or not ignored.any():
            values = features.flatten(0, 2)
        else:
            values = features[~ignored_positions(ignored).to(features.device)]
        found = Moments.of(values) if found is None else found.merge(Moments.of(values))
    if found is None:  # the share of a process may be empty
        return Moments.none(sum(values.shape[-1] for values in source.features(torch.tensor([0]))))
    return found


def fit_subspace(moments: Moments, strides: Sequence[int], *, explained: float = EXPLAINED) -> Subspace:
    """Return the subspace of the leading principal directions that explain a share of the variance.

    Few images need no care: directions in which they do not vary at all are left out of the subspace like all others
    that explain little, and nothing is divided by a variance. At least one direction is left out.

    Args:
        moments: of the pooled features of good images, over at least one position.
        strides: stride of each feature map.
        explained: share of the variance.
    """
    mean, covariance = moments.mean_and_covariance()
    variance, direction = torch.linalg.eigh(covariance)  # ascending
    rounding = _ROUNDING * (covariance.diagonal() + mean**2).sum()
    held = variance.flip(0).cumsum(0)  # by the leading 1, 2, ... directions
    rank = int((held < explained * held[-1]).sum()) + 1 if held[-1] > rounding else 0
    left_out = max(len(mean) - rank, 1)
    return Subspace(
        mean.float(), direction[:, :left_out].float().contiguous(), torch.tensor(strides, device=mean.device)
    ).eval()


def fit_on_rows(
    source: FeatureSource,
    rows: Sequence[int],
    labels: PixelLabels | None,
    *,
    strides: Sequence[int],
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> Subspace:
    """Fit the subspace to some rows: a function of their features alone.

    Args:
        source: features by row.
        rows: see `measure_moments`.
        labels: likewise.
        strides: likewise.
        process_group: the processes that share the rows; each gets the same result.
    """
    own = measure_moments(source, rows[process_group.rank :: process_group.world_size], labels, strides=strides)
    return fit_subspace(own.everywhere(process_group), strides)


def fit_to_training_set(
    network: SuperSimpleNet, training_set: TrainingSet, process_group: ProcessGroup = SINGLE_PROCESS
) -> Subspace:
    """Fit the subspace to the good images that are trained on, in every view that they are trained in; print its size.

    Held-out images are not among them: they calibrate.
    """
    subspace = fit_to_images(network, training_set, training_set.good_images, process_group)
    channels, left_out = subspace.complement.shape
    console().print(
        f"subspace: {channels - left_out} of {channels} directions hold {100 * EXPLAINED:.0f} % of the variance of "
        f"{counted(len(training_set.good_images), 'good image')}"
    )
    return subspace


def fit_to_images(
    network: SuperSimpleNet,
    training_set: TrainingSet,
    images: Sequence[Sequence[int]],
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> Subspace:
    """Fit the subspace to some good images, each given by the rows of its tiles, in every view of the training."""
    source = training_set.source
    tiles = source.flip_index.image
    own = tiles[torch.tensor([row for rows in images for row in rows], dtype=torch.int64)]
    rows: list[int] = torch.isin(tiles, own).nonzero()[:, 0].tolist()
    strides = map_strides(network, source)
    subspace = fit_on_rows(source, rows, training_set.labels, strides=strides, process_group=process_group)
    return subspace.to(next(network.heads.parameters()).device)


def map_strides(network: SuperSimpleNet, source: FeatureSource) -> list[int]:
    """Return the stride of each feature map; of a module of the user's own the ratios alone, from the maps' sizes."""
    if network.backbone.origin != "module":
        return list(network.config.strides)
    longest = [max(values.shape[1:3]) for values in source.features(torch.tensor([0]))]
    return [round(longest[0] / length) for length in longest]


def _in_float64(values: Tensor) -> Tensor:
    return values.double() if values.device.type in ("cpu", "cuda") else values.cpu().double()
