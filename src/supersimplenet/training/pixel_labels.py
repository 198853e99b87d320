"""Pixel labels of the training images at the map's resolution: defective pixels, counted pixels and pixel weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from supersimplenet.datasets.masks import MaskReader
from supersimplenet.errors import ImageError
from supersimplenet.model.config import LabelRecipe
from supersimplenet.preprocessing.geometry import TOUCHED, resize_mask, resize_plane
from supersimplenet.preprocessing.loading import Failure, OnError
from supersimplenet.preprocessing.prepared_image import Layout
from supersimplenet.preprocessing.preprocessor import Preprocessor
from supersimplenet.types import BAD, Sample


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
        counted: (K, h, w) bool: False on ignored pixels, and on every pixel where pixel labels are unknown.
        ignored: (K, h, w) bool.
        weight: (K, h, w) float32, None where every pixel weighs the same.
    """

    tiles: tuple[TrainingTile, ...]
    left_out: dict[str, int]
    bad: Tensor
    place: Tensor
    defective: Tensor
    counted: Tensor
    ignored: Tensor
    weight: Tensor | None

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

    A mask is widened at its own size, then weighted, then resized; a mask without any marked pixel counts as no mask. A
    tile of a bad image is bad if the widened mask reaches a position of the map in the tile, good if the mask does not
    touch the tile, and left out in between.

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

    Source: JIMS sections 3.4 and 4.2. Differs: tiles are this package's own.
    """
    masks = MaskReader() if masks is None else masks
    tiles: list[TrainingTile] = []
    planes = _Planes(size)
    place: list[int] = []
    bad: list[bool] = []
    failures = []
    left_out = {"touched": 0, "of_bad_images_without_mask": 0}
    for index, sample in enumerate(samples):
        try:
            found = _tiles(sample, recipe, size, preprocessor, masks)
        except ImageError as error:
            if on_error == "stop":
                raise
            failures.append(Failure(index=index, path=sample.image, reason=str(error)))
            continue
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
        **planes.stacked(weighed=recipe.distance_weight is not None),
    ), failures


@dataclass(frozen=True)
class _Labels:
    """Labels of one tile: the planes are (h, w), None where they are plain."""

    bad: bool
    known: bool = True
    defective: NDArray[np.bool_] | None = None
    ignored: NDArray[np.bool_] | None = None
    weight: NDArray[np.float32] | None = None


class _Planes:
    """The planes of `PixelLabels`; good tiles that have the same ignored pixels share one row."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._planes: list[tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32]]] = []
        self._shared: dict[bytes, int] = {}

    def add(self, labels: _Labels) -> int:
        """Add a tile's planes and return their row; -1 where the tile needs none."""
        if not labels.bad and labels.ignored is None:
            return -1
        ignored = np.zeros(self._size, dtype=bool) if labels.ignored is None else labels.ignored
        key = ignored.tobytes()
        if not labels.bad and key in self._shared:
            return self._shared[key]
        defective = np.zeros(self._size, dtype=bool) if labels.defective is None else labels.defective
        weight = np.ones(self._size, dtype=np.float32) if labels.weight is None else labels.weight
        self._planes.append((defective & ~ignored, ~ignored & labels.known, ignored, weight))
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


_Found = list[tuple[int, tuple[slice, slice], "_Labels | str"]]
_ALL = (slice(None), slice(None))


def _tiles(
    sample: Sample, recipe: LabelRecipe, size: tuple[int, int], preprocessor: Preprocessor | None, masks: MaskReader
) -> _Found:
    """Return the tiles of a sample: number, own region, and labels or the reason why the tile is left out."""
    is_bad = sample.label == BAD
    if preprocessor is None or preprocessor.is_plain:
        if not is_bad and sample.ignore is None:
            return [(0, _ALL, _Labels(bad=False))]
        mask, ignored = masks.defects(sample), masks.ignored(sample, size)
        known = not is_bad or (mask is not None and bool(mask.any()))
        defective, weight = _defective_and_weight(mask if known else None, recipe, size)
        return [(0, _ALL, _Labels(is_bad, known, defective, ignored, weight))]
    layout = preprocessor.lay_out(sample.image, masks.ignored(sample))
    mask = masks.defects(sample) if is_bad else None
    known = not is_bad or (mask is not None and bool(mask.any()))
    grid, placement = layout.grid, layout.placement
    mask_on_map, weight_on_map = None, None
    if is_bad and known:
        assert mask is not None
        mask = widen(mask, recipe.mask_dilation_px)
        mask_on_map = placement.plane_on_map(mask.astype(np.float32))
        if recipe.distance_weight is not None:
            weight_on_map = placement.plane_on_map(distance_weight(mask, *recipe.distance_weight))
    found: _Found = []
    for tile in range(len(grid)):
        hidden = layout.ignored_in(tile)
        if not layout.scores(hidden):
            continue
        own = grid.own(tile)
        ignored = None if hidden is None else resize_mask(hidden, size, at_least=TOUCHED)
        if not is_bad:
            found.append((tile, own, _Labels(False, ignored=ignored)))
        elif mask_on_map is None:
            whole = len(grid) == 1
            labels = _Labels(True, known=False, ignored=ignored) if whole else "of_bad_images_without_mask"
            found.append((tile, own, labels))
        else:
            found.append((tile, own, _tile_labels(layout, tile, mask_on_map, weight_on_map, ignored, size)))
    return found


def _tile_labels(
    layout: Layout,
    tile: int,
    mask_on_map: NDArray[np.float32],
    weight_on_map: NDArray[np.float32] | None,
    ignored: NDArray[np.bool_] | None,
    size: tuple[int, int],
) -> _Labels | str:
    """Return the labels of a tile of a bad image from planes of the map's size, or the reason why it is left out."""
    grid = layout.grid
    part = grid.plane(mask_on_map, tile, beyond=0.0)
    defective = resize_plane(part, size) >= 0.5
    counted = defective if ignored is None else defective & ~ignored
    if len(grid) > 1 and not counted.any():
        hidden = layout.ignored_in(tile)
        touches = (part >= TOUCHED) if hidden is None else (part >= TOUCHED) & ~hidden
        return "touched" if touches.any() else _Labels(False, ignored=ignored)
    weight = None if weight_on_map is None else resize_plane(grid.plane(weight_on_map, tile, beyond=1.0), size)
    return _Labels(True, defective=defective, ignored=ignored, weight=weight)


def _defective_and_weight(
    mask: NDArray[np.bool_] | None, recipe: LabelRecipe, size: tuple[int, int]
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Return defective pixels and weights, (h, w) each, from a mask at its own size; None for no known defect."""
    if mask is None:
        return np.zeros(size, dtype=bool), np.ones(size, dtype=np.float32)
    mask = widen(mask, recipe.mask_dilation_px)
    if recipe.distance_weight is None:
        return resize_mask(mask, size), np.ones(size, dtype=np.float32)
    return resize_mask(mask, size), resize_plane(distance_weight(mask, *recipe.distance_weight), size)


def widen(mask: NDArray[np.bool_], side_px: int) -> NDArray[np.bool_]:
    """Dilate a mask (H, W) by a square of ``side_px`` (odd)."""
    return ndimage.maximum_filter(mask, size=side_px, mode="constant", cval=False) if side_px > 1 else mask


def distance_weight(mask: NDArray[np.bool_], scale: float, power: float) -> NDArray[np.float32]:
    """Compute the weight of each pixel: ``scale * (d / d_max) ** power`` in a region, 1 outside.

    Args:
        mask: (H, W) bool; a region is 8-connected.
        scale: weight of the pixel farthest inside.
        power: how fast the weight falls towards the edge.

    Returns:
        (H, W) float32; d is the distance in pixels to the nearest pixel outside the region, d_max its largest value.
    """
    weight = np.ones(mask.shape, dtype=np.float32)
    if mask.all():  # the image's border counts as an edge only if there is no other edge
        distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    else:
        distance = ndimage.distance_transform_edt(mask)
    region, count = ndimage.label(mask, structure=ndimage.generate_binary_structure(2, 2))
    deepest = np.concatenate([[1.0], ndimage.maximum(distance, region, np.arange(1, count + 1))])
    weight[mask] = scale * (distance / deepest[region])[mask] ** power
    return weight
