"""Image loading in threads: from paths to batches of pixels and their results, in order; every failure is reported."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from supersimplenet.errors import ConfigError, ImageError
from supersimplenet.preprocessing.decoding import EncodedImage
from supersimplenet.preprocessing.prepared_image import PreparedImage
from supersimplenet.preprocessing.preprocessor import Preprocessor

OnError = Literal["stop", "skip"]
ImageFile = Path | EncodedImage
_DECODERS = 2
_AHEAD = 1  # finished batches that may wait beside those in progress; more where batches are small
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An image that could not be read.

    Attributes:
        index: index of the image in the list of images.
        path: path of the image.
        reason: the error's message.
    """

    index: int
    path: ImageFile
    reason: str


@dataclass(frozen=True, kw_only=True)
class ImageBatch:
    """Some consecutive images of a list.

    Attributes:
        index: index in the list of each readable image; there may be none.
        paths: path of each readable image.
        prepared: each readable image, prepared for the network.
        failures: images of the same section of the list that could not be read.
    """

    index: list[int]
    paths: list[ImageFile]
    prepared: list[PreparedImage]
    failures: list[Failure]

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(B, H, W, 3) pixels of the images, which must have one size; there must be at least one."""
        return np.stack([prepared.pixels for prepared in self.prepared])


def decode_batches(
    paths: Iterable[ImageFile], *, size_px: tuple[int, int], batch_size: int, on_error: OnError = "stop"
) -> Iterator[ImageBatch]:
    """Read and resize images ahead of their use, in order; see `map_in_threads`."""
    preprocessor = Preprocessor.stretch(size_px)
    return map_in_threads(
        lambda batch: batch,
        paths,
        threads=_DECODERS,
        preprocessor=preprocessor,
        batch_size=batch_size,
        on_error=on_error,
    )


def map_in_threads(
    work: Callable[[ImageBatch], T],
    paths: Iterable[ImageFile | None],
    *,
    threads: int,
    preprocessor: Preprocessor,
    batch_size: int,
    ignored: Callable[[int], NDArray[np.bool_] | None] = lambda index: None,
    with_facts: bool = False,
    on_error: OnError = "stop",
) -> Iterator[T]:
    """Read images and process them in several threads; each thread carries its own batch from the file to the result.

    Results come in the order of the images. Memory does not grow with their number.

    Args:
        work: what is done with a batch; called in several threads at once.
        paths: image files; may be an iterator without end. An iterator that waits for further images yields None: all
            images before it are then processed, and their results yielded, before the next item is requested.
        threads: number of threads.
        preprocessor: prepares each image for the network.
        batch_size: images in a batch.
        ignored: returns the pixels (H, W) of an image that count nowhere, by its index in the list; called in several
            threads.
        with_facts: also return the facts about each file; see `PreparedImage.facts`.
        on_error: ``stop`` raises at the first unreadable image, ``skip`` reports it among the batch's failures.

    Raises:
        ImageError: an image cannot be read and ``on_error`` is ``stop``.
        ConfigError: ``batch_size`` is less than 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size: {batch_size}; it must be at least 1")
    return _map_in_threads(
        lambda numbered: work(_read_batch(numbered, preprocessor, ignored, with_facts, on_error)),
        iter(paths),
        threads,
        batch_size,
    )


def _map_in_threads(
    carry: Callable[[list[tuple[int, ImageFile]]], T], images: Iterator[ImageFile | None], threads: int, batch_size: int
) -> Iterator[T]:
    waiting: deque[Future[T]] = deque()
    most = threads + max(_AHEAD, threads // batch_size)
    batches = _batches(images, batch_size)
    paused = ended = False
    with ThreadPoolExecutor(threads, thread_name_prefix="worker") as pool:

        def submit() -> None:
            nonlocal paused, ended
            while len(waiting) < most and not (paused or ended):
                batch = next(batches, None)
                paused, ended = batch == [], batch is None
                if batch:
                    waiting.append(pool.submit(carry, batch))

        try:
            submit()
            while waiting or not ended:
                if waiting:
                    result = waiting.popleft().result()  # raises what ``carry`` raised
                    submit()
                    yield result
                else:  # all results so far have been yielded
                    paused = False
                    submit()
        finally:
            pool.shutdown(cancel_futures=True)


def _batches(images: Iterator[ImageFile | None], batch_size: int) -> Iterator[list[tuple[int, ImageFile]]]:
    """Yield numbered images in batches; at a pause, the images so far, then an empty batch."""
    batch: list[tuple[int, ImageFile]] = []
    index = 0
    for image in images:
        if image is not None:
            batch.append((index, image))
            index += 1
        if batch and (image is None or len(batch) == batch_size):
            yield batch
            batch = []
        if image is None:
            yield []
    if batch:
        yield batch


def _read_batch(
    numbered: list[tuple[int, ImageFile]],
    preprocessor: Preprocessor,
    ignored: Callable[[int], NDArray[np.bool_] | None],
    with_facts: bool,
    on_error: OnError,
) -> ImageBatch:
    batch = ImageBatch(index=[], paths=[], prepared=[], failures=[])
    for index, path in numbered:
        try:
            prepared = preprocessor.prepare(path, ignored(index), with_facts=with_facts)
        except ImageError as error:
            if on_error == "stop":
                raise
            batch.failures.append(Failure(index=index, path=path, reason=str(error)))
            continue
        batch.index.append(index)
        batch.paths.append(path)
        batch.prepared.append(prepared)
    return batch
