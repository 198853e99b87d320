"""Where what is made of the training images is kept: in memory, or in a file that the processes of a machine share."""

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
from supersimplenet.utils.files import write_text

CacheLocation = Literal["memory", "disk", "recomputed"]
_GIB = 1 << 30
_CACHE_FILE = "features.cache"
# Views of an image, by the axes of (H, W) that are flipped: as it is, top to bottom, left to right, both.
FLIPS: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (0, 1))


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What one pass over the images has left.

    Attributes:
        location: of the features.
        kept: features or pixels of all rows, None where images are read again.
        index: see `gather_features`.
        failures: likewise.
    """

    location: CacheLocation
    kept: Tensor | None
    index: list[int]
    failures: list[Failure]


@dataclass(frozen=True)
class Store:
    """Where features or pixels are kept: in memory; in a file where that is too small, or several processes want them.

    Each machine has files of its own, because the folder may be one that all of them see.
    """

    folder: Path
    cache: CacheConfig
    process_group: ProcessGroup

    @property
    def file(self) -> Path:
        """The file."""
        node = self.process_group.node
        return self.folder / (_CACHE_FILE if node == 0 else f"{node}.{_CACHE_FILE}")

    @property
    def notes(self) -> Path:
        """What the file holds, for the other processes of the machine."""
        return self.file.with_name(f"{self.file.name}.json")

    def remove(self) -> None:
        """Delete what this or an earlier run has left."""
        self.file.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)

    def place(self, size_bytes: int) -> CacheLocation:
        """Where something of that size can be kept."""
        shared = self.process_group.world_size > 1
        if size_bytes <= self.cache.memory_gib * _GIB and not shared:
            return "memory"
        limit = max(self.cache.memory_gib, self.cache.disk_gib) if shared else self.cache.disk_gib
        free = shutil.disk_usage(self.folder).free
        return "disk" if size_bytes <= min(limit * _GIB, free) else "recomputed"

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
        """Room for it, not filled; None where there is none."""
        location = self.place(prod(shape) * dtype.itemsize)
        if location == "memory":
            return torch.empty(shape, dtype=dtype)
        return self._map(shape, dtype) if location == "disk" else None

    def note(self, done: Filled) -> None:
        """Say what the file holds, to the other processes of the machine."""
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
        """What another process of this machine has left."""
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
    """Which row is which view of which image.

    Attributes:
        image: (R,) int64, image of each row.
        flip: (R,) int64, index into `FLIPS`.
    """

    image: Tensor
    flip: Tensor

    @classmethod
    def of(cls, counts: Sequence[int]) -> FlipIndex:
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

    location: CacheLocation
    flip_index: FlipIndex

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
        location: where the matrix lies.
        flip_index: what the rows are; by default each one image as it is.
    """

    def __init__(
        self, rows: Tensor, shapes: Sequence[torch.Size], location: CacheLocation, flip_index: FlipIndex | None = None
    ) -> None:
        self.rows = rows
        self.shapes = shapes
        self.location: CacheLocation = location
        self.flip_index = FlipIndex.of([1] * len(rows)) if flip_index is None else flip_index

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
        flip_index: what the rows are.
    """

    location: CacheLocation = "recomputed"

    def __init__(self, backbone: Backbone, pixels: Tensor | Callable[[Tensor], Tensor], flip_index: FlipIndex) -> None:
        self.backbone = backbone
        self.pixels = pixels
        self.flip_index = flip_index

    def read(self, row: Tensor) -> Tensor:
        """Pixels (B, H, W, 3) uint8 of the rows."""
        image = self.flip_index.image[row]
        pixels = self.pixels[image] if isinstance(self.pixels, Tensor) else self.pixels(image)
        return flipped(pixels, self.flip_index.axes(row))

    def features(self, row: Tensor, read: Tensor | None = None) -> tuple[Tensor, ...]:
        """See `FeatureSource`."""
        pixels = self.read(row) if read is None else read
        features: tuple[Tensor, ...] = self.backbone(pixels.to(self.backbone.mean.device))
        return features


def flipped(pixels: Tensor, axes: Sequence[tuple[int, ...]]) -> Tensor:
    """Images (B, H, W, ...), each flipped over its own axes of (H, W)."""
    return torch.stack([image.flip(over) for image, over in zip(pixels, axes, strict=True)])
