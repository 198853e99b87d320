"""How good a backbone's features are for finding defects, without training anything on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from supersimplenet.errors import DataError
from supersimplenet.metrics.ranking import auroc
from supersimplenet.model.backbone import Backbone
from supersimplenet.model.subspace import pooled_features
from supersimplenet.preprocessing.loading import decode_batches
from supersimplenet.training.subspace_fit import Moments, fit_subspace
from supersimplenet.types import BAD, GOOD, Sample

_BATCH = 8
_PATCHES = 10_000  # of good images, that new ones are compared with


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Image AUROC on a dataset of two detectors that are fitted to the features of its good training images.

    Attributes:
        nearest_neighbour: an image's score is the largest distance of its features to the nearest of the good ones.
        subspace: it is the mean of the ten highest distances to the subspace of the good ones.
    """

    nearest_neighbour: float
    subspace: float


@torch.inference_mode()
def measure_quality(
    backbone: Backbone, strides: Sequence[int], samples: Sequence[Sample], *, size_px: tuple[int, int], seed: int = 0
) -> Quality:
    """Fit both detectors to the good training images of a dataset and rank its test images.

    Args:
        backbone: the backbone.
        strides: stride of each of its feature maps.
        samples: the dataset, with both splits.
        size_px: height and width to which images are resized.
        seed: of the choice of features that new ones are compared with.

    Raises:
        DataError: no good training images, or test images of one label alone.

    Source: nearest neighbours as PatchCore (CVPR 2022), without its coreset; the subspace: `fit_subspace`.
    """
    good = [sample.image for sample in samples if sample.split == "train" and sample.label == GOOD]
    tested = [sample for sample in samples if sample.split == "test"]
    labels = [int(sample.label == BAD) for sample in tested]
    if not good or len(set(labels)) < 2:
        raise DataError(
            f"{len(good)} good training images, {labels.count(0)} good and {labels.count(1)} bad test images; features "
            "are measured with at least one of each"
        )
    generator = torch.Generator().manual_seed(seed)
    each = -(-_PATCHES // len(good))
    moments, kept = None, []
    for maps in _maps(backbone, good, size_px):
        pooled = pooled_features(maps, strides).flatten(1, 2)  # (B, h * w, C)
        of_batch = Moments.of(pooled.flatten(0, 1).cpu())
        moments = of_batch if moments is None else moments.merge(of_batch)
        kept += [image[torch.randperm(len(image), generator=generator)[:each].to(image.device)] for image in pooled]
    assert moments is not None
    memory = torch.cat(kept)[:_PATCHES]
    subspace = fit_subspace(moments, strides).to(memory.device)
    far: list[float] = []
    outside: list[float] = []
    for maps in _maps(backbone, [sample.image for sample in tested], size_px):
        outside += subspace(maps).score_logit.tolist()
        far += [
            float(torch.cdist(image, memory).amin(1).max()) for image in pooled_features(maps, strides).flatten(1, 2)
        ]
    return Quality(nearest_neighbour=auroc(far, labels), subspace=auroc(outside, labels))


def _maps(backbone: Backbone, paths: Iterable[Path], size_px: tuple[int, int]) -> Iterator[tuple[Tensor, ...]]:
    for batch in decode_batches(paths, size_px=size_px, batch_size=_BATCH):
        yield tuple(values.float() for values in backbone(torch.from_numpy(batch.pixels).to(backbone.mean.device)))
