"""The backbone's features of the training images: computed once and kept, or computed anew where they cannot be.

A row is one view of one image: the image as it is, or flipped. An image has one view or all four.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from supersimplenet.data.images import read_image
from supersimplenet.data.loading import Failure, OnError, PixelBatch, in_lanes
from supersimplenet.deploy.folder import move_to
from supersimplenet.errors import BackboneError, DataError
from supersimplenet.model.backbone import Backbone
from supersimplenet.processor import lanes
from supersimplenet.training.config import CacheConfig

Placement = Literal["memory", "disk", "recomputed"]

# Views of an image, by the axes of (H, W) that are flipped: as it is, top to bottom, left to right, both.
FLIPS: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (0, 1))

_GIB = 1 << 30
_BACKBONE_BATCH = 8
_SCALE_IMAGES = 64  # images on which the scale of the features is measured
_CACHE_TYPE = torch.bfloat16
_CACHE_FILE = "features.cache"


@dataclass(frozen=True)
class Views:
    """Which row is which view of which image.

    Attributes:
        image: (R,) int64, image of each row.
        flip: (R,) int64, index into `FLIPS`.
    """

    image: Tensor
    flip: Tensor

    @classmethod
    def of(cls, counts: Sequence[int]) -> Views:
        """Rows of images with so many views each, image by image."""
        image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64))
        flips = [flip for count in counts for flip in range(count)]
        return cls(image=image, flip=torch.tensor(flips, dtype=torch.int64))

    def rows(self) -> list[list[int]]:
        """Rows of each image."""
        found: list[list[int]] = [[] for _ in range(int(self.image[-1]) + 1)]
        for row, image in enumerate(self.image.tolist()):
            found[image].append(row)
        return found

    def axes(self, row: Tensor) -> list[tuple[int, ...]]:
        """Flipped axes of (H, W) of each row."""
        return [FLIPS[flip] for flip in self.flip[row].tolist()]


class FeatureSource(Protocol):
    """Features of training images by row."""

    placement: Placement
    views: Views

    def read(self, row: Tensor) -> Tensor:
        """What a worker process may do ahead of `features`, which takes its result."""
        ...

    def features(self, row: Tensor, read: Tensor | None = None) -> tuple[Tensor, ...]:
        """(B,) int64 to one (B, h_l, w_l, C_l) tensor a feature map, in the type it is kept in, where it is kept."""
        ...


class CachedFeatures:
    """Features of all rows in one bfloat16 matrix, in memory or in a memory-mapped file.

    Args:
        rows: (R, values of all maps) bfloat16.
        shapes: (h_l, w_l, C_l) of each map.
        placement: where the matrix lies.
        views: what the rows are; by default each one image as it is.
    """

    def __init__(
        self, rows: Tensor, shapes: Sequence[torch.Size], placement: Placement, views: Views | None = None
    ) -> None:
        self.rows = rows
        self.shapes = shapes
        self.placement: Placement = placement
        self.views = Views.of([1] * len(rows)) if views is None else views

    def read(self, row: Tensor) -> Tensor:
        """Nothing: the features are at hand."""
        del row
        return torch.empty(0)

    def features(self, row: Tensor, read: Tensor | None = None) -> tuple[Tensor, ...]:
        """See `FeatureSource`."""
        del read
        maps = torch.split(self.rows[row], [prod(shape) for shape in self.shapes], dim=1)
        return tuple(values.view(len(row), *shape) for values, shape in zip(maps, self.shapes, strict=True))


class RecomputedFeatures:
    """Features computed anew from pixels that were decoded once, or from files that are read again.

    Args:
        backbone: the feature extractor.
        pixels: (N, H, W, 3) uint8 where they can be kept, or a function that reads some images again.
        views: what the rows are.
    """

    placement: Placement = "recomputed"

    def __init__(self, backbone: Backbone, pixels: Tensor | Callable[[Tensor], Tensor], views: Views) -> None:
        self.backbone = backbone
        self.pixels = pixels
        self.views = views

    def read(self, row: Tensor) -> Tensor:
        """Pixels (B, H, W, 3) uint8 of the rows."""
        image = self.views.image[row]
        pixels = self.pixels[image] if isinstance(self.pixels, Tensor) else self.pixels(image)
        return flipped(pixels, self.views.axes(row))

    def features(self, row: Tensor, read: Tensor | None = None) -> tuple[Tensor, ...]:
        """See `FeatureSource`."""
        pixels = self.read(row) if read is None else read
        features: tuple[Tensor, ...] = self.backbone(pixels.to(self.backbone.mean.device))
        return features


def flipped(pixels: Tensor, axes: Sequence[tuple[int, ...]]) -> Tensor:
    """Images (B, H, W, ...), each flipped over its own axes of (H, W)."""
    return torch.stack([image.flip(over) for image, over in zip(pixels, axes, strict=True)])


def gather_features(
    backbone: Backbone,
    paths: Sequence[Path],
    *,
    views: Sequence[int] | None = None,
    image_size: tuple[int, int],
    cache: CacheConfig,
    folder: Path,
    on_error: OnError = "stop",
    progress: Callable[[int], None] = lambda images: None,
) -> tuple[FeatureSource, list[int], list[Failure]]:
    """Decode each image once and arrange for its features, within the stated limits of memory and disk.

    Args:
        backbone: the feature extractor, on its device.
        paths: the training images.
        views: how many views of each are wanted, 1 or 4; by default one.
        image_size: height and width to resize to.
        cache: the limits.
        folder: where a file may be kept; `remove_cache_files` clears it.
        on_error: what an unreadable image does.
        progress: called with the number of images done since the last call.

    Returns:
        The source; the index into ``paths`` of each of its images, which are those that could be read; the others.

    Raises:
        ImageError: an image cannot be read and ``on_error`` is ``stop``.
        DataError: no image could be read.
        BackboneError: the backbone does not take images of this size.
    """
    device = backbone.mean.device
    shapes = feature_shapes(backbone, image_size)
    remove_cache_files(folder)  # what a killed run left would count as used disk
    row_values = sum(prod(shape) for shape in shapes)
    counts = [1] * len(paths) if views is None else list(views)
    placement = _place(sum(counts) * row_values * _CACHE_TYPE.itemsize, cache, folder)
    if placement == "recomputed":
        kept = _allocate((len(paths), *image_size, 3), torch.uint8, cache, folder)
    else:
        kept = _allocate((sum(counts), row_values), _CACHE_TYPE, cache, folder)

    index: list[int] = []
    filled = 0
    failures: list[Failure] = []
    folded = move_to(backbone.folded(torch.float32), device)

    def look(batch: PixelBatch) -> tuple[PixelBatch, Tensor]:
        pixels = torch.from_numpy(batch.pixels)
        if placement == "recomputed" or not batch.index:
            return batch, pixels
        wanted = Views.of([counts[place] for place in batch.index])
        rows = flipped(pixels[wanted.image], wanted.axes(torch.arange(len(wanted.image))))
        parts = [folded(part.to(device)) for part in torch.split(rows, _BACKBONE_BATCH)]
        flat = [torch.cat([m.flatten(1) for m in maps], dim=1).to(_CACHE_TYPE).cpu() for maps in parts]
        return batch, torch.cat(flat)

    with lanes(device) as threads:
        for batch, values in in_lanes(
            look, paths, lanes=threads, size_px=image_size, batch_size=_BACKBONE_BATCH, on_error=on_error
        ):
            progress(len(batch.index) + len(batch.failures))
            failures += batch.failures
            if kept is not None and batch.index:
                kept[filled : filled + len(values)] = values
                filled += len(values)
            index += batch.index
    if not index:
        raise DataError(f"none of the {len(paths)} training images could be read; the first: {failures[0].reason}")
    rows = Views.of([counts[place] for place in index])
    if placement == "recomputed":
        readable = [paths[place] for place in index]
        pixels_of = _reader(readable, image_size) if kept is None else kept[:filled]
        return RecomputedFeatures(backbone, pixels_of, rows), index, failures
    assert kept is not None
    return CachedFeatures(kept[:filled], shapes, placement, rows), index, failures


def feature_shapes(backbone: Backbone, image_size: tuple[int, int]) -> list[torch.Size]:
    """(h_l, w_l, C_l) of each feature map of an image.

    Raises:
        BackboneError: the backbone does not take images of this size.
    """
    trial = torch.zeros(1, *image_size, 3, dtype=torch.uint8, device=backbone.mean.device)
    try:
        return [features.shape[1:] for features in backbone(trial)]
    except (AssertionError, RuntimeError) as error:
        height, width = image_size
        raise BackboneError(
            f"model.image_size: the backbone does not take {height}x{width} px ({error}); choose a size it takes"
        ) from error


def remove_cache_files(folder: Path) -> None:
    """Delete what `gather_features` may have left in a folder."""
    (folder / _CACHE_FILE).unlink(missing_ok=True)


def measure_feature_scale(source: FeatureSource, rows: Sequence[int]) -> float:
    """Standard deviation of the features over images, positions and channels.

    The variance is taken for each feature map over up to 64 rows spread evenly over the list, then averaged over
    the maps with their channels as weights.

    Args:
        source: features by row.
        rows: those to look at.

    Returns:
        A scale in feature units; multiplying every feature by a factor multiplies it by the same.
    """
    count = min(len(rows), _SCALE_IMAGES)
    chosen = torch.tensor(list(rows))[torch.arange(count) * len(rows) // count]
    channels = [f.shape[-1] for f in source.features(chosen[:1])]
    moments = torch.zeros(len(channels), 3, dtype=torch.float64)  # sum, sum of squares, count of each map
    for index in torch.split(chosen, _BACKBONE_BATCH):
        for row, f in zip(moments, source.features(index), strict=True):
            values = f.double()
            row += torch.stack([values.sum(), values.square().sum(), values.new_tensor(values.numel())]).cpu()
    mean, mean_square = moments[:, 0] / moments[:, 2], moments[:, 1] / moments[:, 2]
    weight = torch.tensor(channels, dtype=torch.float64)
    return float((((mean_square - mean**2) * weight).sum() / weight.sum()).sqrt())


def _place(size_bytes: int, cache: CacheConfig, folder: Path) -> Placement:
    if size_bytes <= cache.memory_gib * _GIB:
        return "memory"
    free = shutil.disk_usage(folder).free
    return "disk" if size_bytes <= min(cache.disk_gib * _GIB, free) else "recomputed"


def _allocate(shape: tuple[int, ...], dtype: torch.dtype, cache: CacheConfig, folder: Path) -> Tensor | None:
    placement = _place(prod(shape) * dtype.itemsize, cache, folder)
    if placement == "memory":
        return torch.empty(shape, dtype=dtype)
    if placement == "disk":
        return torch.from_file(str(folder / _CACHE_FILE), shared=True, size=prod(shape), dtype=dtype).view(shape)
    return None


def _reader(paths: Sequence[Path], image_size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    def read(index: Tensor) -> Tensor:
        return torch.stack([torch.from_numpy(read_image(paths[i], size_px=image_size)) for i in index.tolist()])

    return read
