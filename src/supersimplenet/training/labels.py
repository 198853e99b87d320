"""Pixel labels of the training images at the map's resolution: what is defective, what counts, how much it weighs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from supersimplenet.data.images import resize_mask, resize_plane
from supersimplenet.data.loading import Failure, OnError
from supersimplenet.data.masks import read_defects, read_ignored
from supersimplenet.errors import ImageError
from supersimplenet.model.recipes import LabelRecipe
from supersimplenet.records import BAD, Sample

_EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class PixelLabels:
    """Labels of N images, held only for those whose labels are not plain (good, every pixel normal and counted).

    Attributes:
        bad: (N,) bool, the image's label.
        place: (N,) int64, row of each image in the planes below, -1 where its labels are plain.
        defective: (K, h, w) bool.
        counted: (K, h, w) bool: False on ignored pixels, and on every pixel where pixel labels are unknown.
        ignored: (K, h, w) bool.
        weight: (K, h, w) float32, None where every pixel weighs the same.
    """

    bad: Tensor
    place: Tensor
    defective: Tensor
    counted: Tensor
    ignored: Tensor
    weight: Tensor | None

    @property
    def known(self) -> Tensor:
        """(N,) bool, whether an image's pixel labels take part in the map's loss."""
        plain = self.place < 0
        if plain.all():
            return plain
        return plain | self.counted.flatten(1).any(1)[self.place]

    def select(self, index: Sequence[int]) -> PixelLabels:
        """Labels of some of the images, in the order of the index."""
        kept = torch.tensor(list(index))
        return replace(self, bad=self.bad[kept], place=self.place[kept])

    def of(self, image: Tensor, axes: Sequence[tuple[int, ...]]) -> BatchLabels:
        """Labels of some images, (B,) int64, each flipped over its own axes of (H, W)."""
        height, width = self.defective.shape[1:]
        plain = BatchLabels.plain(len(image), (height, width))
        defective, counted, ignored = plain.defective, plain.counted, plain.ignored
        weight = None if self.weight is None else torch.ones(len(image), height, width)
        for row, place in enumerate(self.place[image].tolist()):
            if place >= 0:
                defective[row] = self.defective[place].flip(axes[row])
                counted[row] = self.counted[place].flip(axes[row])
                ignored[row] = self.ignored[place].flip(axes[row])
                if weight is not None and self.weight is not None:
                    weight[row] = self.weight[place].flip(axes[row])
        return BatchLabels(self.bad[image], defective, counted, ignored, weight)


@dataclass(frozen=True)
class BatchLabels:
    """Labels of a batch: ``bad`` (B,), the planes (B, h, w) of `PixelLabels`."""

    bad: Tensor
    defective: Tensor
    counted: Tensor
    ignored: Tensor
    weight: Tensor | None

    @classmethod
    def plain(cls, images: int, size: tuple[int, int]) -> BatchLabels:
        """Labels of good images, every pixel normal and counted."""
        nowhere = torch.zeros(images, *size, dtype=torch.bool)
        return cls(torch.zeros(images, dtype=torch.bool), nowhere.clone(), ~nowhere, nowhere, None)

    def to(self, device: torch.device) -> BatchLabels:
        """The labels on a device."""
        weight = None if self.weight is None else self.weight.to(device)
        planes = (self.defective.to(device), self.counted.to(device), self.ignored.to(device))
        return BatchLabels(self.bad.to(device), *planes, weight)


def read_pixel_labels(
    samples: Sequence[Sample], recipe: LabelRecipe, size: tuple[int, int], *, on_error: OnError = "stop"
) -> tuple[PixelLabels, list[Failure]]:
    """Read the masks of training samples and bring them to the map's resolution.

    A mask is widened at its own size, then weighed, then resized; a mask that marks nothing says nothing.

    Args:
        samples: in the order of the images.
        recipe: widening and weights.
        size: (h, w) of the map.
        on_error: what a mask that cannot be read does; with ``skip`` its sample is reported, and its labels mean
            nothing.

    Raises:
        ImageError: a mask cannot be read, or is not of its image's size, and ``on_error`` is ``stop``.

    Source: JIMS sections 3.4 and 4.2. Differs: none.
    """
    place = torch.full((len(samples),), -1)
    planes: list[tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32]]] = []
    failures = []
    for index, sample in enumerate(samples):
        if sample.label != BAD and sample.ignore is None:
            continue
        try:
            mask, ignored = read_defects(sample), read_ignored(sample, size)
        except ImageError as error:
            if on_error == "stop":
                raise
            failures.append(Failure(index=index, path=sample.image, reason=str(error)))
            continue
        known = sample.label != BAD or (mask is not None and bool(mask.any()))
        ignored = np.zeros(size, dtype=bool) if ignored is None else ignored
        defective, weight = _defective_and_weight(mask if known else None, recipe, size)
        place[index] = len(planes)
        planes.append((defective & ~ignored, ~ignored & known, ignored, weight))
    stacked = [torch.from_numpy(np.stack(plane)) for plane in zip(*planes, strict=True)]
    defective_planes, counted, ignored_planes, weights = stacked or [torch.empty(0, *size)] * 4
    labels = PixelLabels(
        bad=torch.tensor([sample.label == BAD for sample in samples]),
        place=place,
        defective=defective_planes.bool(),
        counted=counted.bool(),
        ignored=ignored_planes.bool(),
        weight=weights if recipe.distance_weight is not None and planes else None,
    )
    return labels, failures


def _defective_and_weight(
    mask: NDArray[np.bool_] | None, recipe: LabelRecipe, size: tuple[int, int]
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Both planes (h, w) from a mask at its own size, None where nothing is known to be defective."""
    if mask is None:
        return np.zeros(size, dtype=bool), np.ones(size, dtype=np.float32)
    mask = widen(mask, recipe.mask_dilation_px)
    if recipe.distance_weight is None:
        return resize_mask(mask, size), np.ones(size, dtype=np.float32)
    return resize_mask(mask, size), resize_plane(distance_weight(mask, *recipe.distance_weight), size)


def widen(mask: NDArray[np.bool_], side_px: int) -> NDArray[np.bool_]:
    """The mask (H, W) dilated by a square of ``side_px`` (odd)."""
    return ndimage.maximum_filter(mask, size=side_px, mode="constant", cval=False) if side_px > 1 else mask


def distance_weight(mask: NDArray[np.bool_], scale: float, power: float) -> NDArray[np.float32]:
    """Weight of each pixel: ``scale * (d / d_max) ** power`` in a region, 1 outside.

    Args:
        mask: (H, W) bool; a region is 8-connected.
        scale: weight of the pixel farthest inside.
        power: how fast the weight falls towards the edge.

    Returns:
        (H, W) float32; d is the distance in pixels to the nearest pixel outside the region, d_max its largest value.
    """
    weight = np.ones(mask.shape, dtype=np.float32)
    if mask.all():  # the image's border is an edge only where there is no other
        distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    else:
        distance = ndimage.distance_transform_edt(mask)
    region, count = ndimage.label(mask, structure=_EIGHT_CONNECTED)
    deepest = np.concatenate([[1.0], ndimage.maximum(distance, region, np.arange(1, count + 1))])
    weight[mask] = scale * (distance / deepest[region])[mask] ** power
    return weight
