"""From paths to batches of pixels, decoded ahead in threads, in order, with nothing dropped in silence."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from supersimplenet.data.images import read_image
from supersimplenet.errors import ConfigError, ImageError

OnError = Literal["stop", "skip"]

_DECODERS = 2
_AHEAD = 2  # batches that are decoded while one is worked on


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
        failures: images of the same stretch that could not be read.
    """

    index: list[int]
    paths: list[Path]
    pixels: NDArray[np.uint8]
    failures: list[Failure]


def decode_batches(
    paths: Iterable[Path], *, size_px: tuple[int, int], batch_size: int, on_error: OnError = "stop"
) -> Iterator[PixelBatch]:
    """Read and resize images ahead of their use, in their order. Memory does not grow with their number.

    Args:
        paths: image files; may be an iterator without end.
        size_px: height and width to resize to.
        batch_size: images in a batch.
        on_error: ``stop`` raises at the first unreadable image, ``skip`` reports it among the batch's failures.

    Raises:
        ImageError: an image cannot be read and ``on_error`` is ``stop``.
        ConfigError: ``batch_size`` is less than 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size: {batch_size}; it must be at least 1")
    numbered = enumerate(paths)
    waiting: deque[list[tuple[int, Path, Future[NDArray[np.uint8]]]]] = deque()
    with ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode") as pool:

        def submit() -> None:
            ahead = [
                (index, path, pool.submit(read_image, path, size_px=size_px))
                for index, path in islice(numbered, batch_size)
            ]
            if ahead:
                waiting.append(ahead)

        try:
            for _ in range(1 + _AHEAD):
                submit()
            while waiting:
                yield _collect(waiting.popleft(), size_px, on_error)
                submit()
        finally:
            pool.shutdown(cancel_futures=True)


def _collect(
    decoded: list[tuple[int, Path, Future[NDArray[np.uint8]]]], size_px: tuple[int, int], on_error: OnError
) -> PixelBatch:
    index, paths, pixels, failures = [], [], [], []
    for place, path, future in decoded:
        error = future.exception()
        if isinstance(error, ImageError) and on_error == "skip":
            failures.append(Failure(index=place, path=path, reason=str(error)))
        else:
            pixels.append(future.result())  # raises what reading it raised
            index.append(place)
            paths.append(path)
    stacked = np.stack(pixels) if pixels else np.empty((0, *size_px, 3), dtype=np.uint8)
    return PixelBatch(index=index, paths=paths, pixels=stacked, failures=failures)
