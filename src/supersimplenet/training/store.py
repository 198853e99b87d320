"""Where what is made of the training images is kept: in memory, or in a file that the processes of a machine share."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from supersimplenet.data.loading import Failure
from supersimplenet.plain import write_text
from supersimplenet.training.config import CacheConfig
from supersimplenet.training.processes import Processes

Placement = Literal["memory", "disk", "recomputed"]

_GIB = 1 << 30
_CACHE_FILE = "features.cache"


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What one pass over the images has left.

    Attributes:
        placement: of the features.
        kept: features or pixels of all rows, None where images are read again.
        index: see `gather_features`.
        failures: likewise.
    """

    placement: Placement
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
    processes: Processes

    @property
    def file(self) -> Path:
        """The file."""
        node = self.processes.node
        return self.folder / (_CACHE_FILE if node == 0 else f"{node}.{_CACHE_FILE}")

    @property
    def notes(self) -> Path:
        """What the file holds, for the other processes of the machine."""
        return self.file.with_name(f"{self.file.name}.json")

    def remove(self) -> None:
        """Delete what this or an earlier run has left."""
        self.file.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)

    def place(self, size_bytes: int) -> Placement:
        """Where something of that size can be kept."""
        shared = self.processes.count > 1
        if size_bytes <= self.cache.memory_gib * _GIB and not shared:
            return "memory"
        limit = max(self.cache.memory_gib, self.cache.disk_gib) if shared else self.cache.disk_gib
        free = shutil.disk_usage(self.folder).free
        return "disk" if size_bytes <= min(limit * _GIB, free) else "recomputed"

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
        """Room for it, not filled; None where there is none."""
        placement = self.place(prod(shape) * dtype.itemsize)
        if placement == "memory":
            return torch.empty(shape, dtype=dtype)
        return self._map(shape, dtype) if placement == "disk" else None

    def note(self, done: Filled) -> None:
        """Say what the file holds, to the other processes of the machine."""
        if self.processes.count == 1:
            return
        notes = {
            "placement": done.placement,
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
            placement=notes["placement"],
            kept=None if shape is None else self._map(tuple(shape), getattr(torch, notes["type"])),
            index=notes["index"],
            failures=[Failure(index=i, path=Path(path), reason=reason) for i, path, reason in notes["failures"]],
        )

    def _map(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.from_file(str(self.file), shared=True, size=prod(shape), dtype=dtype).view(shape)
