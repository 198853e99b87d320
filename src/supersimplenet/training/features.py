"""The backbone's features of the training images: computed once and kept, or computed anew where they cannot be."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
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

_GIB = 1 << 30
_BACKBONE_BATCH = 8
_SCALE_IMAGES = 64  # images on which the scale of the features is measured
_CACHE_TYPE = torch.bfloat16
_CACHE_FILE = "features.cache"


class FeatureSource(Protocol):
    """Features of training images by their index."""

    placement: Placement

    def features(self, index: Tensor) -> tuple[Tensor, ...]:
        """(B,) int64 to one (B, h_l, w_l, C_l) tensor a feature map, in the type it is kept in, where it is kept."""
        ...


class CachedFeatures:
    """Features of all images in one bfloat16 matrix, an image a row, in memory or in a memory-mapped file.

    Args:
        rows: (N, values of all maps) bfloat16.
        shapes: (h_l, w_l, C_l) of each map.
        placement: where the matrix lies.
    """

    def __init__(self, rows: Tensor, shapes: Sequence[torch.Size], placement: Placement) -> None:
        self.rows = rows
        self.shapes = shapes
        self.placement: Placement = placement

    def features(self, index: Tensor) -> tuple[Tensor, ...]:
        """See `FeatureSource`."""
        maps = torch.split(self.rows[index], [prod(shape) for shape in self.shapes], dim=1)
        return tuple(values.view(len(index), *shape) for values, shape in zip(maps, self.shapes, strict=True))


class RecomputedFeatures:
    """Features computed anew from pixels that were decoded once.

    Args:
        backbone: the feature extractor.
        pixels: (N, H, W, 3) uint8 where they can be kept, or a function that reads some of them again.
    """

    placement: Placement = "recomputed"

    def __init__(self, backbone: Backbone, pixels: Tensor | Callable[[Tensor], Tensor]) -> None:
        self.backbone = backbone
        self.pixels = pixels

    def features(self, index: Tensor) -> tuple[Tensor, ...]:
        """See `FeatureSource`."""
        pixels = self.pixels[index] if isinstance(self.pixels, Tensor) else self.pixels(index)
        features: tuple[Tensor, ...] = self.backbone(pixels.to(self.backbone.mean.device))
        return features


def gather_features(
    backbone: Backbone,
    paths: Sequence[Path],
    *,
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
        image_size: height and width to resize to.
        cache: the limits.
        folder: where a file may be kept; `remove_cache_files` clears it.
        on_error: what an unreadable image does.
        progress: called with the number of images done since the last call.

    Returns:
        The source; the index into ``paths`` of each of its images; what could not be read.

    Raises:
        ImageError: an image cannot be read and ``on_error`` is ``stop``.
        DataError: no image could be read.
        BackboneError: the backbone does not take images of this size.
    """
    device = backbone.mean.device
    trial = torch.zeros(1, *image_size, 3, dtype=torch.uint8, device=device)
    try:
        shapes = [features.shape[1:] for features in backbone(trial)]
    except (AssertionError, RuntimeError) as error:
        height, width = image_size
        raise BackboneError(
            f"model.image_size: the backbone does not take {height}x{width} px ({error}); choose a size it takes"
        ) from error
    remove_cache_files(folder)  # what a killed run left would count as used disk
    row_values = sum(prod(shape) for shape in shapes)
    placement = _place(len(paths) * row_values * _CACHE_TYPE.itemsize, cache, folder)
    if placement == "recomputed":
        kept = _allocate((len(paths), *image_size, 3), torch.uint8, cache, folder)
    else:
        kept = _allocate((len(paths), row_values), _CACHE_TYPE, cache, folder)

    index: list[int] = []
    failures: list[Failure] = []
    folded = move_to(backbone.folded(torch.float32), device)

    def look(batch: PixelBatch) -> tuple[PixelBatch, Tensor]:
        values = torch.from_numpy(batch.pixels)
        if placement != "recomputed" and batch.index:
            values = torch.cat([maps.flatten(1) for maps in folded(values.to(device))], dim=1).to(_CACHE_TYPE).cpu()
        return batch, values

    with lanes(device) as threads:
        for batch, values in in_lanes(
            look, paths, lanes=threads, size_px=image_size, batch_size=_BACKBONE_BATCH, on_error=on_error
        ):
            progress(len(batch.index) + len(batch.failures))
            failures += batch.failures
            if kept is not None:
                kept[len(index) : len(index) + len(batch.index)] = values
            index += batch.index
    if not index:
        raise DataError(f"none of the {len(paths)} training images could be read; the first: {failures[0].reason}")
    if placement == "recomputed":
        readable = [paths[place] for place in index]
        pixels_of = _reader(readable, image_size) if kept is None else kept[: len(index)]
        return RecomputedFeatures(backbone, pixels_of), index, failures
    assert kept is not None
    return CachedFeatures(kept[: len(index)], shapes, placement), index, failures


def remove_cache_files(folder: Path) -> None:
    """Delete what `gather_features` may have left in a folder."""
    (folder / _CACHE_FILE).unlink(missing_ok=True)


def measure_feature_scale(source: FeatureSource, images: int) -> float:
    """Standard deviation of the features over images, positions and channels.

    The variance is taken for each feature map over up to 64 images spread evenly over the set, then averaged over
    the maps with their channels as weights.

    Args:
        source: features by index.
        images: how many the source has.

    Returns:
        A scale in feature units; multiplying every feature by a factor multiplies it by the same.
    """
    count = min(images, _SCALE_IMAGES)
    chosen = torch.arange(count) * images // count
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
