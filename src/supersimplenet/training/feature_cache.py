"""Cache of the training images' features or pixels: in memory, or in a file that the processes of a machine share."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from supersimplenet.model.backbone import Backbone
from supersimplenet.preprocessing.loading import Failure
from supersimplenet.training.config import CacheConfig
from supersimplenet.training.distributed import ProcessGroup
from supersimplenet.utils.files import remove_unused, write_text

CacheLocation = Literal["memory", "disk", "recomputed"]
_GIB = 1 << 30
_CACHE_FILE = "features.cache"
# Views of an image, each given by the axes of (H, W) that are flipped: none, top to bottom, left to right, both.
FLIPS: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (0, 1))


@dataclass(frozen=True, kw_only=True)
class Filled:
    """The result of one pass over the training images.

    Attributes:
        location: where the features are kept.
        kept: features or pixels of all rows; None where images are read again.
        index: see `gather_features`.
        failures: the unreadable images; see `gather_features`.
    """

    location: CacheLocation
    kept: Tensor | None
    index: list[int]
    failures: list[Failure]


@dataclass(frozen=True)
class Store:
    """Storage of features or pixels: in memory, or in a file if memory is too small or several processes share them.

    Each machine has files of its own, because all machines may share the folder.
    """

    folder: Path
    cache: CacheConfig
    process_group: ProcessGroup

    @property
    def file(self) -> Path:
        """Path of the cache file."""
        node = self.process_group.node
        return self.folder / (_CACHE_FILE if node == 0 else f"{node}.{_CACHE_FILE}")

    @property
    def notes(self) -> Path:
        """Path of the JSON file that describes the cache file to the other processes of the machine."""
        return self.file.with_name(f"{self.file.name}.json")

    def remove(self) -> None:
        """Delete the files that this or an earlier run has left."""
        remove_unused(self.file)
        self.notes.unlink(missing_ok=True)

    def place(self, size_bytes: int) -> CacheLocation:
        """Return where data of this size can be kept."""
        shared = self.process_group.world_size > 1
        if size_bytes <= self.cache.memory_gib * _GIB and not shared:
            return "memory"
        limit = max(self.cache.memory_gib, self.cache.disk_gib) if shared else self.cache.disk_gib
        free = shutil.disk_usage(self.folder).free
        return "disk" if size_bytes <= min(limit * _GIB, free) else "recomputed"

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
        """Return an uninitialised tensor in memory or in the file; None where neither has room."""
        location = self.place(prod(shape) * dtype.itemsize)
        if location == "memory":
            return torch.empty(shape, dtype=dtype)
        return self._map(shape, dtype) if location == "disk" else None

    def note(self, done: Filled) -> None:
        """Write the description of the cache file for the other processes of the machine."""
        if self.process_group.world_size == 1:
            return
        notes = {
            "location": done.location,
            "shape": None if done.kept is None else list(done.kept.shape),
            "type": None if done.kept is None else str(done.kept.dtype).removeprefix("torch."),
            "index": done.index,
            "failures": [[failure.index, str(failure.path), failure.reason] for failure in done.failures],
        }
        write_text(self.notes, json.dumps(notes))

    def open(self) -> Filled:
        """Return the result that local rank 0 of this machine has written."""
        notes = json.loads(self.notes.read_text(encoding="utf-8"))
        shape = notes["shape"]
        return Filled(
            location=notes["location"],
            kept=None if shape is None else self._map(tuple(shape), getattr(torch, notes["type"])),
            index=notes["index"],
            failures=[Failure(index=i, path=Path(path), reason=reason) for i, path, reason in notes["failures"]],
        )

    def _map(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.from_file(str(self.file), shared=True, size=prod(shape), dtype=dtype).view(shape)


@dataclass(frozen=True)
class FlipIndex:
    """The image and the view that each of the R rows holds.

    Attributes:
        image: (R,) int64, image of each row.
        flip: (R,) int64, index into `FLIPS`.
    """

    image: Tensor
    flip: Tensor

    @classmethod
    def of(cls, counts: Sequence[int]) -> FlipIndex:
        """Return the index of images that have these numbers of views, image by image."""
        image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.int64))
        flips = [flip for count in counts for flip in range(count)]
        return cls(image=image, flip=torch.tensor(flips, dtype=torch.int64))

    def rows(self) -> list[list[int]]:
        """Return the rows of each image."""
        found: list[list[int]] = [[] for _ in range(int(self.image[-1]) + 1)]
        for row, image in enumerate(self.image.tolist()):
            found[image].append(row)
        return found

    def axes(self, row: Tensor) -> list[tuple[int, ...]]:
        """Return the axes of (H, W) that are flipped in each of the given rows."""
        return [FLIPS[flip] for flip in self.flip[row].tolist()]


class FeatureSource(Protocol):
    """Features of training images by row."""

    location: CacheLocation
    dtype: torch.dtype
    flip_index: FlipIndex

    def read(self, row: Tensor) -> Tensor:
        """Return the data that a worker process can read ahead; `features` takes the data as ``read``."""
        ...

    def features(self, row: Tensor, read: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return one (B, h_l, w_l, C_l) tensor per feature map for rows (B,) int64, of the stored type and device."""
        ...


class CachedFeatures:
    """Features of all rows in one matrix, in memory or in a memory-mapped file.

    Args:
        rows: (R, values of all maps).
        shapes: (h_l, w_l, C_l) of each map.
        location: where the matrix is kept.
        flip_index: image and view of each row; by default each row is one image, not flipped.
    """

    def __init__(
        self, rows: Tensor, shapes: Sequence[torch.Size], location: CacheLocation, flip_index: FlipIndex | None = None
    ) -> None:
        self.rows = rows
        self.dtype = rows.dtype
        self.shapes = shapes
        self.location: CacheLocation = location
        self.flip_index = FlipIndex.of([1] * len(rows)) if flip_index is None else flip_index

    def read(self, row: Tensor) -> Tensor:
        """Return an empty tensor: nothing needs to be read ahead."""
        del row
        return torch.empty(0)

    def features(self, row: Tensor, read: Tensor | None = None) -> tuple[Tensor, ...]:
        """See `FeatureSource`."""
        del read
        maps = torch.split(self.rows[row], [prod(shape) for shape in self.shapes], dim=1)
        return tuple(values.view(len(row), *shape) for values, shape in zip(maps, self.shapes, strict=True))


class RecomputedFeatures:
    """Features computed anew from pixels that were decoded once and kept, or from files that are read again.

    Args:
        backbone: the feature extractor.
        pixels: (N, H, W, 3) uint8 where they can be kept, or a function that reads the images of some indices again.
        flip_index: image and view of each row.
    """

    location: CacheLocation = "recomputed"
    dtype = torch.float32

    def __init__(self, backbone: Backbone, pixels: Tensor | Callable[[Tensor], Tensor], flip_index: FlipIndex) -> None:
        self.backbone = backbone
        self.pixels = pixels
        self.flip_index = flip_index

    def read(self, row: Tensor) -> Tensor:
        """Return the pixels (B, H, W, 3) uint8 of the rows, flipped."""
        image = self.flip_index.image[row]
        pixels = self.pixels[image] if isinstance(self.pixels, Tensor) else self.pixels(image)
        return flipped(pixels, self.flip_index.axes(row))

    def features(self, row: Tensor, read: Tensor | None = None) -> tuple[Tensor, ...]:
        """See `FeatureSource`."""
        pixels = self.read(row) if read is None else read
        features: tuple[Tensor, ...] = self.backbone(pixels.to(self.backbone.mean.device))
        return features


def flipped(pixels: Tensor, axes: Sequence[tuple[int, ...]]) -> Tensor:
    """Flip each of the images (B, H, W, ...) over its own axes of (H, W)."""
    return torch.stack([image.flip(over) for image, over in zip(pixels, axes, strict=True)])
