"""The subspace of good images: mean and covariance of their features in one pass, in float64, and its directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from supersimplenet.datasets.parts import merge_copies
from supersimplenet.datasets.splits import split_in_folds
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.model.subspace import Subspace, ignored_positions, pooled_features
from supersimplenet.training.distributed import SINGLE_PROCESS, ProcessGroup
from supersimplenet.training.feature_cache import FeatureSource
from supersimplenet.training.pixel_labels import PixelLabels
from supersimplenet.training.training_set import TrainingSet
from supersimplenet.types import Sample
from supersimplenet.utils.console import console
from supersimplenet.utils.formatting import counted

EXPLAINED = 0.99  # share of the variance that the subspace holds; docs/decisions/0027-subspace.md
_BATCH = 8
_FOLDS = 5  # of the good images, to measure what the subspace makes of images to which it was not fitted
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
    source: FeatureSource, rows: Sequence[int], labels: PixelLabels | None, strides: Sequence[int]
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


@dataclass(frozen=True)
class CrossFit:
    """The subspace of some images, and for each fold of them the one of all others, which tells what new images get.

    Attributes:
        whole: fitted to all images.
        without: of each fold, fitted to the images of all other folds; none where there is only one image.
        fold: fold of each image.
    """

    whole: Subspace
    without: list[Subspace]
    fold: list[int]


def fit_to_training_set(
    network: SuperSimpleNet, training_set: TrainingSet, *, seed: int, process_group: ProcessGroup = SINGLE_PROCESS
) -> CrossFit:
    """Fit the subspace to the good images that are trained on, in every view that they are trained in; print its size.

    Held-out images are not among them: they calibrate.
    """
    fit = fit_to_images(network, training_set, training_set.good_images, seed=seed, process_group=process_group)
    channels, left_out = fit.whole.complement.shape
    console().print(
        f"subspace: {channels - left_out} of {channels} directions hold {100 * EXPLAINED:.0f} % of the variance of "
        f"{counted(len(training_set.good_images), 'good image')}"
    )
    return fit


def fit_to_images(
    network: SuperSimpleNet,
    training_set: TrainingSet,
    images: Sequence[Sequence[int]],
    *,
    seed: int,
    process_group: ProcessGroup = SINGLE_PROCESS,
) -> CrossFit:
    """Fit the subspace to some good images in every view of the training, and to all but each fold of them: one pass.

    Args:
        network: the network of the features.
        training_set: the features.
        images: rows of the tiles of each image.
        seed: seed of the folds, which hold whole parts; of one part alone, single images.
        process_group: the processes that share the work; each gets the same result.
    """
    source = training_set.source
    strides = map_strides(network, source)
    fold = process_group.on_rank_zero(lambda: _split(training_set.samples_of(images), training_set, seed))
    of_fold = []
    for number in range(max(fold) + 1):
        members = [rows for rows, its_fold in zip(images, fold, strict=True) if its_fold == number]
        moments = measure_moments(source, _every_view(source, members, process_group), training_set.labels, strides)
        of_fold.append(moments.everywhere(process_group))
    device = network.backbone.mean.device
    whole = fit_subspace(reduce(Moments.merge, of_fold), strides).to(device)
    without = []
    for number in range(len(of_fold) if len(of_fold) > 1 else 0):
        others = (moments for place, moments in enumerate(of_fold) if place != number)
        without.append(fit_subspace(reduce(Moments.merge, others), strides).to(device))
    return CrossFit(whole, without, fold)


def _split(samples: Sequence[Sample], training_set: TrainingSet, seed: int) -> list[int]:
    """Return the fold of each good image."""
    if len(samples) == 1:
        return [0]
    merged = merge_copies(samples, {path: facts.pixels for path, facts in training_set.facts.items()})
    parts = len({sample.group or str(sample.image) for sample in merged})
    if parts == 1:
        merged, parts = [replace(sample, group=None) for sample in merged], len(merged)
    return split_in_folds(merged, min(_FOLDS, parts), seed=seed)


def _every_view(source: FeatureSource, images: Sequence[Sequence[int]], process_group: ProcessGroup) -> list[int]:
    """Return a process's share of the rows of all views of some images."""
    tiles = source.flip_index.image
    own = tiles[torch.tensor([row for rows in images for row in rows], dtype=torch.int64)]
    rows: list[int] = torch.isin(tiles, own).nonzero()[:, 0].tolist()
    return rows[process_group.rank :: process_group.world_size]


def map_strides(network: SuperSimpleNet, source: FeatureSource) -> list[int]:
    """Return the stride of each feature map; of a module of the user's own the ratios alone, from the maps' sizes."""
    if network.backbone.origin != "module":
        return list(network.config.strides)
    longest = [max(values.shape[1:3]) for values in source.features(torch.tensor([0]))]
    return [round(longest[0] / length) for length in longest]


def _in_float64(values: Tensor) -> Tensor:
    return values.double() if values.device.type in ("cpu", "cuda") else values.cpu().double()
