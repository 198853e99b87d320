"""Pixel labels of the training images at the map's resolution: defective pixels, counted pixels and pixel weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from supersimplenet.datasets.masks import MaskReader
from supersimplenet.errors import ImageError
from supersimplenet.model.config import LabelRecipe
from supersimplenet.preprocessing.loading import Failure, OnError
from supersimplenet.preprocessing.preprocessor import Preprocessor
from supersimplenet.preprocessing.reading import FULL_RANGE
from supersimplenet.training.tile_labels import TileLabels, label_tiles
from supersimplenet.types import Sample


@dataclass(frozen=True)
class TrainingTile:
    """One input of the network: a whole training image, or a tile of one.

    Attributes:
        sample: index of the image in the list of samples.
        number: number of the tile in its image.
        own: rows and columns of the tile in which it has the largest weight of all tiles; see `TileGrid.own`.
    """

    sample: int
    number: int
    own: tuple[slice, slice]


@dataclass(frozen=True)
class PixelLabels:
    """Labels of N tiles; planes are stored only where labels are not plain (good, every pixel normal and counted).

    (In the training code, "image" also means a tile.)

    Attributes:
        tiles: the tiles, image by image.
        left_out: number of tiles that are not trained on, by reason: a defect merely touches the tile, or the tile is
            of a bad image without pixel labels, so that a defect may be in it.
        bad: (N,) bool, True for a bad tile.
        place: (N,) int64, row of each tile in the planes below, -1 where its labels are plain.
        defective: (K, h, w) bool.
        counted: (K, h, w) bool: False on ignored pixels, where a region too small for the map merely touches, and on
            every pixel where pixel labels are unknown.
        ignored: (K, h, w) bool.
        weight: (K, h, w) float32, None where every pixel weighs the same.
        small_regions: number of regions that are smaller than half a position of the map, by index of the image.
    """

    tiles: tuple[TrainingTile, ...]
    left_out: dict[str, int]
    bad: Tensor
    place: Tensor
    defective: Tensor
    counted: Tensor
    ignored: Tensor
    weight: Tensor | None
    small_regions: dict[int, int] = field(default_factory=dict)

    @property
    def known(self) -> Tensor:
        """(N,) bool, whether the pixel labels of each tile take part in the map's loss."""
        plain = self.place < 0
        if plain.all():
            return plain
        return plain | self.counted.flatten(1).any(1)[self.place]

    def select(self, index: Sequence[int]) -> PixelLabels:
        """Return the labels of some of the tiles, in the order of ``index``."""
        kept = torch.tensor(list(index), dtype=torch.int64)
        tiles = tuple(self.tiles[place] for place in index)
        return replace(self, tiles=tiles, bad=self.bad[kept], place=self.place[kept])

    def of(self, image: Tensor, axes: Sequence[tuple[int, ...]]) -> BatchLabels:
        """Return the labels of some tiles (B,) int64, each flipped over its own axes of (H, W)."""
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
    """Labels of a batch: ``bad`` (B,), and the planes (B, h, w) of `PixelLabels`."""

    bad: Tensor
    defective: Tensor
    counted: Tensor
    ignored: Tensor
    weight: Tensor | None

    @classmethod
    def plain(cls, images: int, size: tuple[int, int]) -> BatchLabels:
        """Return the labels of good images, with every pixel normal and counted."""
        nowhere = torch.zeros(images, *size, dtype=torch.bool)
        return cls(torch.zeros(images, dtype=torch.bool), nowhere.clone(), ~nowhere, nowhere, None)

    def to(self, device: torch.device) -> BatchLabels:
        """Return the labels on a device."""
        weight = None if self.weight is None else self.weight.to(device)
        planes = (self.defective.to(device), self.counted.to(device), self.ignored.to(device))
        return BatchLabels(self.bad.to(device), *planes, weight)


def read_pixel_labels(
    samples: Sequence[Sample],
    recipe: LabelRecipe,
    size: tuple[int, int],
    *,
    preprocessor: Preprocessor | None = None,
    masks: MaskReader | None = None,
    on_error: OnError = "stop",
) -> tuple[PixelLabels, list[Failure]]:
    """Divide training samples into inputs of the network, and bring their masks to the map's resolution.

    A mask is widened at its own size, then weighted, then resized: a position of the map is defective if at least half
    of it is. A region (8-connected, after widening) that covers no position by half would disappear: the position that
    it covers best is defective all the same, with a weight of at least 1, and the others that it touches count in no
    loss. A mask without any marked pixel counts as no mask. A tile of a bad image is bad if a position in it is
    defective, good if the mask does not touch the tile, and left out in between.

    Args:
        samples: the training samples, in the order of the images.
        recipe: gives the widening and the weights of masks.
        size: (h, w) of the map that the network returns.
        preprocessor: prepares images for the network; by default each is resized to the network's input size.
        masks: reads the masks; by default a new reader.
        on_error: ``stop`` raises at an image or mask that cannot be read; ``skip`` reports its sample and leaves out
            all tiles of it.

    Raises:
        ImageError: an image or mask cannot be read, or they differ in size, and ``on_error`` is ``stop``.

    Source: JIMS sections 3.4 and 4.2. Differs: tiles, and what becomes of small regions, are this package's own; with
    ``recipe.small_regions`` ``drop`` they are trained on as normal, as published.
    """
    masks = MaskReader(FULL_RANGE if preprocessor is None else preprocessor.reading) if masks is None else masks
    tiles: list[TrainingTile] = []
    planes = _Planes(size)
    place: list[int] = []
    bad: list[bool] = []
    failures = []
    left_out = {"touched": 0, "of_bad_images_without_mask": 0}
    small_regions: dict[int, int] = {}
    for index, sample in enumerate(samples):
        try:
            found, small = label_tiles(sample, recipe, size, preprocessor, masks)
        except ImageError as error:
            if on_error == "stop":
                raise
            failures.append(Failure(index=index, path=sample.image, reason=str(error)))
            continue
        if small:
            small_regions[index] = small
        for number, own, labels in found:
            if isinstance(labels, str):
                left_out[labels] += 1
                continue
            tiles.append(TrainingTile(sample=index, number=number, own=own))
            bad.append(labels.bad)
            place.append(planes.add(labels))
    return PixelLabels(
        tiles=tuple(tiles),
        left_out=left_out,
        bad=torch.tensor(bad, dtype=torch.bool),
        place=torch.tensor(place, dtype=torch.int64),
        small_regions=small_regions,
        **planes.stacked(weighed=recipe.distance_weight is not None),
    ), failures


class _Planes:
    """The planes of `PixelLabels`; good tiles that have the same ignored pixels share one row."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._planes: list[tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32]]] = []
        self._shared: dict[bytes, int] = {}

    def add(self, labels: TileLabels) -> int:
        """Add a tile's planes and return their row; -1 where the tile needs none."""
        if not labels.bad and labels.ignored is None:
            return -1
        ignored = np.zeros(self._size, dtype=bool) if labels.ignored is None else labels.ignored
        key = ignored.tobytes()
        if not labels.bad and key in self._shared:
            return self._shared[key]
        defective = np.zeros(self._size, dtype=bool) if labels.defective is None else labels.defective
        weight = np.ones(self._size, dtype=np.float32) if labels.weight is None else labels.weight
        counted = ~ignored & labels.known
        if labels.touched is not None:
            counted &= ~labels.touched
        self._planes.append((defective & ~ignored, counted, ignored, weight))
        if not labels.bad:
            self._shared[key] = len(self._planes) - 1
        return len(self._planes) - 1

    def stacked(self, *, weighed: bool) -> dict[str, Any]:
        """Return the planes by their names in `PixelLabels`."""
        found = [torch.from_numpy(np.stack(plane)) for plane in zip(*self._planes, strict=True)]
        defective, counted, ignored, weight = found or [torch.empty(0, *self._size)] * 4
        return {
            "defective": defective.bool(),
            "counted": counted.bool(),
            "ignored": ignored.bool(),
            "weight": weight if weighed and self._planes else None,
        }
