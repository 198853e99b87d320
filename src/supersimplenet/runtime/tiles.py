"""Maps and scores of prepared images: images of one tile in batches, larger images tile by tile. No torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from supersimplenet.preprocessing.prepared_image import PreparedImage, Tile

NamedOutputs = dict[str, NDArray[Any]]  # all outputs of a graph, (B, ...) each


class Outputs(NamedTuple):
    """What the network gives for B images, float32 logits; None for what it does not compute.

    Attributes:
        map: (B, H, W) the smoothed anomaly map.
        head_logit: (B,) the classification head's score.
        subspace_map: (B, H, W) the smoothed distance from the subspace of good images.
        subspace_logit: (B,) its score.
    """

    map: NDArray[np.float32] | None = None
    head_logit: NDArray[np.float32] | None = None
    subspace_map: NDArray[np.float32] | None = None
    subspace_logit: NDArray[np.float32] | None = None


class ImageOutputs(NamedTuple):
    """What the network gives for an image, as `Outputs`: maps (H, W) of the whole image, and scores."""

    map: NDArray[np.float32] | None = None
    head_logit: float | None = None
    subspace_map: NDArray[np.float32] | None = None
    subspace_logit: float | None = None


class Run(Protocol):
    """Function that runs the network; may be called from any thread."""

    def __call__(self, pixels: NDArray[np.uint8], ignored: NDArray[np.bool_] | None = None) -> Outputs:
        """Turn (B, H, W, 3) uint8 into maps (B, H, W) and scores (B,)."""


@dataclass(frozen=True, kw_only=True)
class TileRunner:
    """Runs the network on the tiles of prepared images.

    Attributes:
        run: runs the network.
        tiles_at_once: number of tiles of an image that go through the network together.
        pool: threads that share the tiles of an image; None for no such threads.
        threads: number of threads of the pool.
    """

    run: Run
    tiles_at_once: int = 1
    pool: Executor | None = None
    threads: int = 1

    def outputs(self, prepared: Sequence[PreparedImage]) -> list[ImageOutputs]:
        """Return maps and scores of each image; there must be at least one image."""
        if any(len(image.layout.grid) > 1 for image in prepared):
            return [self._blended(image) for image in prepared]
        found = self._run_tiles([next(image.tiles()) for image in prepared])
        sizes = [image.layout.placement.map_size_px for image in prepared]
        each: list[Any] = [
            [None] * len(sizes)
            if values is None
            else [plane[:height, :width] for plane, (height, width) in zip(values, sizes, strict=True)]
            if values.ndim == 3
            else values.tolist()
            for values in found
        ]
        return [ImageOutputs(*of_image) for of_image in zip(*each, strict=True)]

    def _blended(self, image: PreparedImage) -> ImageOutputs:
        """Return maps and scores of an image of many tiles: the maps blended, the highest scores.

        A defect lies in one or a few tiles, so that a mean of all scores would hide it.
        """
        layout = image.layout
        maps: dict[str, NDArray[np.float32]] = {}
        lowest: dict[str, float] = {}
        scores: dict[str, float] = {}
        for tiles, outputs in self._run_batches(_batches(image.tiles(), self.tiles_at_once)):
            for name, values in outputs._asdict().items():
                if values is None:
                    continue
                for tile, value in zip(tiles, values, strict=True):
                    if values.ndim == 3:
                        blended = maps.setdefault(name, np.zeros(layout.placement.map_size_px, dtype=np.float32))
                        layout.grid.add(blended, value, tile.number)
                        lowest[name] = min(lowest.get(name, np.inf), float(value.min()))
                    else:
                        scores[name] = max(scores.get(name, -np.inf), float(value) if tile.scores else -np.inf)
        if layout.ignored is not None:
            for name, blended in maps.items():
                blended[layout.ignored] = lowest[name]  # values there are missing or meaningless
        return ImageOutputs(**maps, **scores)  # type: ignore[arg-type]  # maps and scores by their names

    def _run_batches(self, batches: Iterator[list[Tile]]) -> Iterator[tuple[list[Tile], Outputs]]:
        """Yield the network's outputs for each batch, in order; few batches are in memory at a time."""
        if self.pool is None:
            for tiles in batches:
                yield tiles, self._run_tiles(tiles)
            return
        waiting: deque[tuple[list[Tile], Future[Outputs]]] = deque()
        for tiles in batches:
            waiting.append((tiles, self.pool.submit(self._run_tiles, tiles)))
            if len(waiting) > self.threads:
                done, outputs = waiting.popleft()
                yield done, outputs.result()
        for done, outputs in waiting:
            yield done, outputs.result()

    def _run_tiles(self, tiles: Sequence[Tile]) -> Outputs:
        pixels = np.stack([tile.pixels for tile in tiles])
        if all(tile.ignored is None for tile in tiles):
            return self.run(pixels)
        nowhere = np.zeros(pixels.shape[1:3], dtype=bool)
        return self.run(pixels, np.stack([nowhere if tile.ignored is None else tile.ignored for tile in tiles]))


def _batches(tiles: Iterator[Tile], size: int) -> Iterator[list[Tile]]:
    """Yield batches of tiles; tiles with ignored pixels get their own batches, because the others run faster."""
    waiting: dict[bool, list[Tile]] = {True: [], False: []}
    for tile in tiles:
        batch = waiting[tile.ignored is None]
        batch.append(tile)
        if len(batch) == size:
            waiting[tile.ignored is None] = []
            yield batch
    for batch in waiting.values():
        if batch:
            yield batch
