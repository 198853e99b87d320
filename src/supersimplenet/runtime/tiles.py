"""Maps and scores of prepared images: images of one tile in batches, larger images tile by tile. No torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from supersimplenet.preprocessing.prepared_image import PreparedImage, Tile

Outputs = tuple[NDArray[np.float32], NDArray[np.float32]]  # maps (B, H, W) and scores (B,), logits
NamedOutputs = dict[str, NDArray[Any]]  # all outputs of a graph, (B, ...) each


class Run(Protocol):
    """Function that runs the network; may be called from any thread."""

    def __call__(self, pixels: NDArray[np.uint8], ignored: NDArray[np.bool_] | None = None) -> Outputs:
        """Turn (B, H, W, 3) uint8 into maps (B, H, W) and scores (B,), logits."""


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

    def outputs(self, prepared: Sequence[PreparedImage]) -> tuple[list[NDArray[np.float32]], list[float]]:
        """Return map and score of each image; there must be at least one image."""
        if all(len(image.layout.grid) == 1 for image in prepared):
            maps, heads = self._run_tiles([next(image.tiles()) for image in prepared])
            sizes = [image.layout.placement.map_size_px for image in prepared]
            return [
                values[:height, :width] for values, (height, width) in zip(maps, sizes, strict=True)
            ], heads.tolist()
        each = [self._blended(image) for image in prepared]
        return [map_logit for map_logit, _ in each], [head for _, head in each]

    def _blended(self, image: PreparedImage) -> tuple[NDArray[np.float32], float]:
        """Return map and score of an image of many tiles: the maps blended, the highest score.

        A defect lies in one or a few tiles, so that a mean of all scores would hide it.
        """
        layout = image.layout
        blended = np.zeros(layout.placement.map_size_px, dtype=np.float32)
        head, lowest = -np.inf, np.inf
        for tiles, maps, heads in self._run_batches(_batches(image.tiles(), self.tiles_at_once)):
            for tile, map_logit, head_logit in zip(tiles, maps, heads.tolist(), strict=True):
                layout.grid.add(blended, map_logit, tile.number)
                lowest = min(lowest, float(map_logit.min()))
                head = max(head, head_logit if tile.scores else -np.inf)
        if layout.ignored is not None:
            blended[layout.ignored] = lowest  # values there are missing or meaningless
        return blended, head

    def _run_batches(
        self, batches: Iterator[list[Tile]]
    ) -> Iterator[tuple[list[Tile], NDArray[np.float32], NDArray[np.float32]]]:
        """Yield the network's outputs for each batch, in order; few batches are in memory at a time."""
        if self.pool is None:
            for tiles in batches:
                yield (tiles, *self._run_tiles(tiles))
            return
        waiting: deque[tuple[list[Tile], Future[Outputs]]] = deque()
        for tiles in batches:
            waiting.append((tiles, self.pool.submit(self._run_tiles, tiles)))
            if len(waiting) > self.threads:
                done, outputs = waiting.popleft()
                yield (done, *outputs.result())
        for done, outputs in waiting:
            yield (done, *outputs.result())

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
