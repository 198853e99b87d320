"""From images to predictions with anything that looks at pixels, a `Detector` or a line's `Inspector`. No torch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from supersimplenet.errors import ImageError
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.postprocessing.postprocessor import PostProcessor
from supersimplenet.preprocessing.loading import Failure, ImageBatch, ImageFile, OnError, map_in_threads
from supersimplenet.preprocessing.prepared_image import Layout, PreparedImage, Tile
from supersimplenet.preprocessing.preprocessor import Preprocessor
from supersimplenet.types import Prediction

Image = str | Path | NDArray[np.uint8] | NDArray[np.uint16]
_LARGE_IMAGES = 2  # that are looked at side by side, so that one is read while the other is computed


@dataclass(frozen=True, kw_only=True)
class IndexedPrediction:
    """A prediction, the place of its image in the list it came from, and the image's file."""

    index: int
    file: ImageFile
    prediction: Prediction


class SupportsPredict(Protocol):
    """What looks at files: all that a table of predictions asks for."""

    @property
    def calibration(self) -> Calibration | None:
        """The thresholds and what they promise."""

    @property
    def threshold_logit(self) -> float:
        """From this score on an image is ``bad``."""

    @property
    def aligned(self) -> bool:
        """Whether images are aligned to a reference, and predictions say how they lay."""

    @property
    def images_at_once(self) -> int:
        """How many images go through the network together, unless told otherwise."""

    def predict_files(
        self,
        paths: Iterable[ImageFile | None],
        *,
        batch_size: int | None = None,
        on_error: OnError = "stop",
        then: Callable[[IndexedPrediction], None] = lambda item: None,
    ) -> Iterator[IndexedPrediction | Failure]:
        """Look at many files, in their order; see `Detector.predict_files`."""


class Run(Protocol):
    """Runs the network; see `supersimplenet.inference.engines.Engine.run`."""

    def __call__(
        self, pixels: NDArray[np.uint8], ignored: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(B, H, W, 3) uint8 to maps (B, H, W) and scores (B,), logits."""


@dataclass(frozen=True, kw_only=True)
class ImagePredictor:
    """What looks at images as the network sees them: the one place where they become predictions.

    Attributes:
        run: the network; may be called from any thread.
        postprocessor: what is decided from its outputs.
        preprocessor: how images are brought before it.
        tiles_at_once: tiles of an image that go through the network together.
        pool: threads that share the tiles of an image; None for none.
        threads: how many they are.
    """

    run: Run
    postprocessor: PostProcessor
    preprocessor: Preprocessor
    tiles_at_once: int = 1
    pool: Executor | None = None
    threads: int = 1

    def look(self, seen: Sequence[PreparedImage], paths: Sequence[str | None]) -> list[Prediction]:
        """Return a prediction for each image.

        Args:
            seen: the images; there may be none.
            paths: where each came from, None for an array.

        Raises:
            ImageError: an image's score is not finite.
        """
        predictions = []
        for found in self.look_each(seen, paths):
            if isinstance(found, ImageError):
                raise found
            predictions.append(found)
        return predictions

    def look_each(self, seen: Sequence[PreparedImage], paths: Sequence[str | None]) -> list[Prediction | ImageError]:
        """Return a prediction for each image, or the error in its place; see `look`."""
        if not seen:
            return []
        if all(len(image.layout.grid) == 1 for image in seen):
            maps, heads = self._look_at_once(seen)
        else:
            each = [self._look_at_tiles(image) for image in seen]
            maps, heads = [map_logit for map_logit, _ in each], [head for _, head in each]
        return [
            self._judged(map_logit, head_logit, image.layout, path)
            for image, map_logit, head_logit, path in zip(seen, maps, heads, paths, strict=True)
        ]

    def look_at_images(self, images: Sequence[Image]) -> list[Prediction]:
        """Look at paths and arrays, one after another.

        Raises:
            ImageError: an image cannot be read, or is neither a path nor an array.
        """
        if not isinstance(images, list | tuple):
            raise ImageError(f"{type(images).__name__}: wanted a path, a numpy array, or a list of either")
        predictions: list[Prediction] = []
        for image in images:
            if not isinstance(image, str | Path | np.ndarray):
                raise ImageError(f"{type(image).__name__}: wanted a path or a numpy array")
            path = None if isinstance(image, np.ndarray) else str(image)
            predictions += self.look([self.preprocessor.prepare(image)], [path])
        return predictions

    def look_at_files(
        self,
        paths: Iterable[ImageFile | None],
        *,
        lanes: int,
        batch_size: int,
        ignored: Callable[[int], NDArray[np.bool_] | None] = lambda index: None,
        on_error: OnError = "stop",
        then: Callable[[IndexedPrediction], None] = lambda item: None,
    ) -> Iterator[IndexedPrediction | Failure]:
        """Look at many files in several threads at once; see `Detector.predict_files`.

        Args:
            paths: image files.
            lanes: number of threads.
            batch_size: images that go through the network together.
            ignored: pixels (H, W) of an image that count in no score, by its place in the list.
            on_error: what an unreadable image does.
            then: done with each prediction in the thread that made it.
        """
        if self.preprocessor.config.fit == "tiles" and self.pool is None:
            # Of large images two are in memory at a time, whatever the number of cores; these share out the tiles.
            with ThreadPoolExecutor(lanes, thread_name_prefix="tiles") as pool:
                looker = replace(self, pool=pool, threads=lanes, tiles_at_once=batch_size)
                yield from looker.look_at_files(
                    paths, lanes=min(lanes, _LARGE_IMAGES), batch_size=1, ignored=ignored, on_error=on_error, then=then
                )
            return

        def work(batch: ImageBatch) -> list[IndexedPrediction | Failure]:
            found = self.look_each(batch.seen, [str(path) for path in batch.paths])
            batch.seen.clear()  # what follows needs the memory
            items: list[IndexedPrediction | Failure] = [*batch.failures]
            for index, file, prediction in zip(batch.index, batch.paths, found, strict=True):
                if not isinstance(prediction, ImageError):
                    item = IndexedPrediction(index=index, file=file, prediction=prediction)
                    then(item)
                    items.append(item)
                elif on_error == "stop":
                    raise prediction
                else:
                    items.append(Failure(index=index, path=file, reason=str(prediction)))
            return sorted(items, key=lambda item: item.index)

        for items in map_in_threads(
            work,
            paths,
            lanes=lanes,
            preprocessor=self.preprocessor,
            batch_size=batch_size,
            ignored=ignored,
            on_error=on_error,
        ):
            yield from items

    def _judged(
        self, map_logit: NDArray[np.float32], head_logit: float, layout: Layout, path: str | None
    ) -> Prediction | ImageError:
        try:
            return self.postprocessor.predict(map_logit, head_logit, layout=layout, path=path)
        except ImageError as error:
            return error

    def _look_at_once(self, seen: Sequence[PreparedImage]) -> tuple[list[NDArray[np.float32]], list[float]]:
        """Maps and scores of images that are one tile each."""
        maps, heads = self._run([next(image.tiles()) for image in seen])
        sizes = [image.layout.placement.map_size_px for image in seen]
        return [values[:height, :width] for values, (height, width) in zip(maps, sizes, strict=True)], heads.tolist()

    def _look_at_tiles(self, image: PreparedImage) -> tuple[NDArray[np.float32], float]:
        """Map and score of an image that may be many tiles: the maps blended, the highest score.

        A defect lies in one tile or in few, so their mean would drown it.
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
            blended[layout.ignored] = lowest  # no tile was looked at there, or not for this
        return blended, head

    def _run_batches(
        self, batches: Iterator[list[Tile]]
    ) -> Iterator[tuple[list[Tile], NDArray[np.float32], NDArray[np.float32]]]:
        """The network's outputs for each batch, in their order; few batches are in memory at a time."""
        if self.pool is None:
            for tiles in batches:
                yield (tiles, *self._run(tiles))
            return
        waiting: deque[tuple[list[Tile], Future[tuple[NDArray[np.float32], NDArray[np.float32]]]]] = deque()
        for tiles in batches:
            waiting.append((tiles, self.pool.submit(self._run, tiles)))
            if len(waiting) > self.threads:
                done, outputs = waiting.popleft()
                yield (done, *outputs.result())
        for done, outputs in waiting:
            yield (done, *outputs.result())

    def _run(self, tiles: Sequence[Tile]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        pixels = np.stack([tile.pixels for tile in tiles])
        if all(tile.ignored is None for tile in tiles):
            return self.run(pixels)
        nowhere = np.zeros(pixels.shape[1:3], dtype=bool)
        return self.run(pixels, np.stack([nowhere if tile.ignored is None else tile.ignored for tile in tiles]))


def _batches(tiles: Iterator[Tile], size: int) -> Iterator[list[Tile]]:
    """Tiles that go through the network together: where nothing is ignored it is quicker, so these keep apart."""
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
