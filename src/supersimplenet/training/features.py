"""The backbone's features of the training images: computed once and kept, or computed anew if they cannot be kept.

A row is one view of one input of the network: the input as it is, or flipped. An input is an image or a tile of an
image, and has one row or all four. (In this module and in the sampler, "image" also means a tile.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from supersimplenet.errors import BackboneError, DataError
from supersimplenet.inference.model_folder import move_to
from supersimplenet.model.backbone import Backbone
from supersimplenet.preprocessing.images import ImageFacts
from supersimplenet.preprocessing.loading import Failure, ImageBatch, OnError, map_in_threads
from supersimplenet.preprocessing.preprocessor import Preprocessor
from supersimplenet.training.config import CacheConfig
from supersimplenet.training.distributed import SINGLE_PROCESS, ProcessGroup
from supersimplenet.training.feature_cache import (
    FLIPS,
    CachedFeatures,
    FeatureSource,
    Filled,
    FlipIndex,
    RecomputedFeatures,
    Store,
)
from supersimplenet.utils.system import worker_threads

_BACKBONE_BATCH = 8
_SCALE_IMAGES = 64  # number of images on which the scale of the features is measured
_RANGE_MARGIN = 16.0  # features of real images may be this much larger than those of the drawn ones


def gather_features(
    backbone: Backbone,
    paths: Sequence[Path],
    *,
    preprocessor: Preprocessor,
    tiles: Sequence[Sequence[int]] | None = None,
    flip_counts: Sequence[int] | None = None,
    cache: CacheConfig,
    feature_type: torch.dtype | None = None,
    folder: Path,
    on_error: OnError = "stop",
    process_group: ProcessGroup = SINGLE_PROCESS,
    progress: Callable[[int], None] = lambda images: None,
    facts: dict[Path, ImageFacts] | None = None,
) -> tuple[FeatureSource, list[int], list[Failure]]:
    """Decode each image once and provide its features, within the given limits of memory and disk.

    Args:
        backbone: the feature extractor, on its device.
        paths: the training images.
        preprocessor: prepares images for the network.
        tiles: numbers of the wanted tiles of each image, ascending; by default the first tile alone, which is the whole
            image if images are not cut.
        flip_counts: number of wanted views of each tile, 1 or 4, tile by tile; by default 1.
        cache: the limits.
        feature_type: type in which features are kept; None for the one that `choose_feature_type` chooses.
        folder: folder for the cache file; `remove_cache_files` deletes the file.
        on_error: ``stop`` raises at an unreadable image, ``skip`` reports it.
        process_group: the processes of the training. Local rank 0 reads and computes, and writes to a file that all
            processes of its machine map into memory, so that memory holds the features once; the larger of the two
            limits applies to this file.
        progress: called with the number of images done since the last call.
        facts: receives the facts about each image file, in the process that reads it; None if they are not needed.

    Returns:
        The source of the features; the index of each of its inputs in the list of all wanted tiles (image by image;
        tiles of unreadable images are missing); the unreadable images, with their index in ``paths``.

    Raises:
        ImageError: an image cannot be read and ``on_error`` is ``stop``.
        DataError: no image could be read.
        BackboneError: the backbone does not accept images of this size.
    """
    device = backbone.mean.device
    image_size = preprocessor.size_px
    shapes = feature_shapes(backbone, image_size)
    row_values = sum(prod(shape) for shape in shapes)
    wanted = [[0]] * len(paths) if tiles is None else tiles
    counts = [1] * sum(map(len, wanted)) if flip_counts is None else list(flip_counts)
    store = Store(folder, cache, process_group)

    def fill() -> Filled:
        folded = move_to(backbone.folded(torch.float32, preprocessor.size_px), device)
        return _fill(
            folded,
            paths,
            feature_type=feature_type or choose_feature_type(folded, image_size, device),
            preprocessor=preprocessor,
            wanted=wanted,
            counts=counts,
            row_values=row_values,
            store=store,
            device=device,
            on_error=on_error,
            progress=progress,
            facts={} if facts is None else facts,
        )

    done = process_group.on_local_rank_zero(fill, store.open)
    rows = FlipIndex.of([counts[place] for place in done.index])
    if done.location == "recomputed":
        flat_tiles = [(path, tile) for path, of_image in zip(paths, wanted, strict=True) for tile in of_image]
        pixels_of = (
            _Reader([flat_tiles[place] for place in done.index], preprocessor) if done.kept is None else done.kept
        )
        return RecomputedFeatures(backbone, pixels_of, rows), done.index, done.failures
    assert done.kept is not None
    return CachedFeatures(done.kept, shapes, done.location, rows), done.index, done.failures


def _fill(
    folded: torch.nn.Module,
    paths: Sequence[Path],
    *,
    feature_type: torch.dtype,
    preprocessor: Preprocessor,
    wanted: Sequence[Sequence[int]],
    counts: Sequence[int],
    row_values: int,
    store: Store,
    device: torch.device,
    on_error: OnError,
    progress: Callable[[int], None],
    facts: dict[Path, ImageFacts],
) -> Filled:
    """Read the images once and keep their features, or else their pixels, where there is room."""
    store.remove()  # files of a killed run would count as used disk space
    location = store.place(sum(counts) * row_values * feature_type.itemsize)
    if location == "recomputed":
        kept = store.allocate((len(counts), *preprocessor.size_px, 3), torch.uint8)
    else:
        kept = store.allocate((sum(counts), row_values), feature_type)
    first = list(accumulate((len(of_image) for of_image in wanted), initial=0))  # index of each image's first tile
    index: list[int] = []
    filled = 0
    failures: list[Failure] = []

    def compute(batch: ImageBatch) -> tuple[ImageBatch, Tensor]:
        inputs = [
            (prepared.tile_pixels(tile), counts[first[place] + number])
            for place, prepared in zip(batch.index, batch.prepared, strict=True)
            for number, tile in enumerate(wanted[place])
        ]
        if not inputs or kept is None:
            return batch, torch.empty(0)
        if location == "recomputed":
            return batch, torch.from_numpy(np.stack([pixels for pixels, _ in inputs]))
        return batch, _features_of(folded, inputs, device, feature_type)

    batch_size = _BACKBONE_BATCH if preprocessor.config.fit != "tiles" else 1
    with worker_threads(device) as threads:
        for batch, values in map_in_threads(
            compute,
            paths,
            threads=threads,
            preprocessor=preprocessor,
            batch_size=batch_size,
            with_facts=True,
            on_error=on_error,
        ):
            progress(len(batch.index) + len(batch.failures))
            failures += batch.failures
            facts.update(
                (paths[place], prepared.facts)
                for place, prepared in zip(batch.index, batch.prepared, strict=True)
                if prepared.facts is not None  # never None for a path
            )
            if kept is not None and batch.index:
                kept[filled : filled + len(values)] = values
                filled += len(values)
            for place in batch.index:
                index += range(first[place], first[place + 1])
    if not index:
        raise DataError(f"none of the {len(paths)} training images could be read; the first: {failures[0].reason}")
    done = Filled(location=location, kept=None if kept is None else kept[:filled], index=index, failures=failures)
    store.note(done)
    return done


def _features_of(
    folded: torch.nn.Module,
    inputs: Sequence[tuple[NDArray[np.uint8], int]],
    device: torch.device,
    feature_type: torch.dtype,
) -> Tensor:
    """Compute features (R, values of all maps): one row per view of each input (pixels, number).

    Values beyond the type's range become its largest.
    """
    largest = torch.finfo(feature_type).max
    turned = [(pixels, axes) for pixels, count in inputs for axes in FLIPS[:count]]
    flat = []
    for start in range(0, len(turned), _BACKBONE_BATCH):
        part = [torch.from_numpy(pixels).flip(axes) for pixels, axes in turned[start : start + _BACKBONE_BATCH]]
        maps = folded(torch.stack(part).to(device))
        values = torch.cat([of_map.flatten(1) for of_map in maps], dim=1).clamp_(-largest, largest)
        flat.append(values.to(feature_type).cpu())
    return torch.cat(flat)


def choose_feature_type(folded: torch.nn.Module, image_size: tuple[int, int], device: torch.device) -> torch.dtype:
    """Return the 16-bit type in which a backbone's features are kept: float16 where its range allows, else bfloat16.

    float16 has three more bits, but a range. That of the features is measured on drawn images, black, white, striped
    and of noise, so that no image of the data decides anything.
    """
    height, width = image_size
    drawn = torch.zeros(4, height, width, 3, dtype=torch.uint8)
    drawn[1], drawn[2, :, ::2] = 255, 255
    drawn[3] = torch.randint(256, (height, width, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    largest = max(float(values.abs().amax()) for values in folded(drawn.to(device)))
    half = torch.finfo(torch.float16)
    return torch.float16 if half.tiny <= largest <= half.max / _RANGE_MARGIN else torch.bfloat16


def feature_shapes(backbone: Backbone, image_size: tuple[int, int]) -> list[torch.Size]:
    """Return (h_l, w_l, C_l) of each feature map of an image.

    Raises:
        BackboneError: the backbone does not accept images of this size.
    """
    trial = torch.zeros(1, *image_size, 3, dtype=torch.uint8, device=backbone.mean.device)
    try:
        return [features.shape[1:] for features in backbone(trial)]
    except (AssertionError, RuntimeError) as error:
        height, width = image_size
        raise BackboneError(
            f"model.image_size: the backbone does not take {height}x{width} px ({error}); choose a size it takes"
        ) from error


def remove_cache_files(folder: Path, process_group: ProcessGroup = SINGLE_PROCESS) -> None:
    """Delete the files that `gather_features` may have left in a folder."""
    if process_group.leads:
        Store(folder, CacheConfig(), process_group).remove()


def measure_feature_scale(source: FeatureSource, rows: Sequence[int]) -> float:
    """Compute the standard deviation of the features over images, positions and channels.

    The variance is taken for each feature map over up to 64 rows spread evenly over the list, then averaged over
    the maps with their channels as weights.

    Args:
        source: features by row.
        rows: the rows to choose from.

    Returns:
        A scale in feature units. If every feature is multiplied by a factor, so is the scale.
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


@dataclass(frozen=True)
class _Reader:
    """Reads images again. A worker process gets it pickled where processes are spawned: on Windows and macOS."""

    inputs: Sequence[tuple[Path, int]]
    preprocessor: Preprocessor

    def __call__(self, index: Tensor) -> Tensor:
        prepared = [
            (self.preprocessor.prepare(path), tile) for path, tile in map(self.inputs.__getitem__, index.tolist())
        ]
        return torch.stack([torch.from_numpy(image.tile_pixels(tile)) for image, tile in prepared])
