"""From paths to batches of pixels, and what is made of them, in threads, in order, nothing dropped in silence."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from supersimplenet.data.images import read_image_and_size
from supersimplenet.errors import ConfigError, ImageError

OnError = Literal["stop", "skip"]

_DECODERS = 2
_AHEAD = 1  # batches beyond those being worked on that may be finished and waiting; more where they are single images

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An image that could not be read.

    Attributes:
        index: its place in the list of images.
        path: its path.
        reason: the error's message.
    """

    index: int
    path: Path
    reason: str


@dataclass(frozen=True, kw_only=True)
class PixelBatch:
    """Some consecutive images of a list.

    Attributes:
        index: the place of each readable image in the list.
        paths: its path.
        pixels: (B, H, W, 3) uint8; B may be 0 where every image failed.
        image_sizes_px: (height, width) of each image before it was resized.
        failures: images of the same stretch that could not be read.
    """

    index: list[int]
    paths: list[Path]
    pixels: NDArray[np.uint8]
    image_sizes_px: list[tuple[int, int]]
    failures: list[Failure]


def decode_batches(
    paths: Iterable[Path], *, size_px: tuple[int, int], batch_size: int, on_error: OnError = "stop"
) -> Iterator[PixelBatch]:
    """Read and resize images ahead of their use, in their order; see `in_lanes`."""
    return in_lanes(
        lambda batch: batch, paths, lanes=_DECODERS, size_px=size_px, batch_size=batch_size, on_error=on_error
    )


def in_lanes(
    work: Callable[[PixelBatch], T],
    paths: Iterable[Path],
    *,
    lanes: int,
    size_px: tuple[int, int],
    batch_size: int,
    on_error: OnError = "stop",
) -> Iterator[T]:
    """Read images and work on them in several threads at once, each carrying its own batch from the file to the result.

    Results come in the order of the images. Memory does not grow with their number.

    Args:
        work: what is done with a batch; called in several threads at once.
        paths: image files; may be an iterator without end.
        lanes: number of threads.
        size_px: height and width to resize to.
        batch_size: images in a batch.
        on_error: ``stop`` raises at the first unreadable image, ``skip`` reports it among the batch's failures.

    Raises:
        ImageError: an image cannot be read and ``on_error`` is ``stop``.
        ConfigError: ``batch_size`` is less than 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size: {batch_size}; it must be at least 1")
    return _in_lanes(
        lambda numbered: work(_read_batch(numbered, size_px, on_error)), enumerate(paths), lanes, batch_size
    )


def _in_lanes(
    carry: Callable[[list[tuple[int, Path]]], T], numbered: Iterator[tuple[int, Path]], lanes: int, batch_size: int
) -> Iterator[T]:
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(lanes, thread_name_prefix="lane") as pool:

        def submit() -> None:
            batch = list(islice(numbered, batch_size))
            if batch:
                waiting.append(pool.submit(carry, batch))

        try:
            for _ in range(lanes + max(_AHEAD, lanes // batch_size)):
                submit()
            while waiting:
                result = waiting.popleft().result()  # raises what the work raised
                submit()
                yield result
        finally:
            pool.shutdown(cancel_futures=True)


def _read_batch(numbered: list[tuple[int, Path]], size_px: tuple[int, int], on_error: OnError) -> PixelBatch:
    read = [(index, path, _read(path, size_px)) for index, path in numbered]
    errors = [(index, path, result) for index, path, result in read if isinstance(result, ImageError)]
    if errors and on_error == "stop":
        raise errors[0][2]
    good = [(index, path, result) for index, path, result in read if not isinstance(result, ImageError)]
    return PixelBatch(
        index=[index for index, _, _ in good],
        paths=[path for _, path, _ in good],
        pixels=np.stack([pixels for _, _, (pixels, _) in good]) if good else np.empty((0, *size_px, 3), dtype=np.uint8),
        image_sizes_px=[image_size_px for _, _, (_, image_size_px) in good],
        failures=[Failure(index=index, path=path, reason=str(error)) for index, path, error in errors],
    )


def _read(path: Path, size_px: tuple[int, int]) -> tuple[NDArray[np.uint8], tuple[int, int]] | ImageError:
    try:
        return read_image_and_size(path, size_px=size_px)
    except ImageError as error:
        return error
