"""Decide how the images of a dataset are read, once, and say where few of their grey levels would be left."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from supersimplenet.datasets.base import DataSource
from supersimplenet.errors import ImageError
from supersimplenet.preprocessing.decoding import decode
from supersimplenet.preprocessing.reading import FEWEST_BITS, MOST_BITS, ReadConfig, bits_for
from supersimplenet.utils.console import console
from supersimplenet.utils.formatting import counted

_THREADS = min(8, os.cpu_count() or 1)


def decide_reading(source: DataSource, images: Iterable[Path]) -> ReadConfig:
    """Return how the images of a dataset are read; print the bit depth where it was to be found out.

    For ``auto`` it is the smallest one, from 8 bits on, whose range holds every 16-bit value of the images; where none
    has 16-bit values of an unknown range, it is 16. Images that cannot be read decide nothing.

    Args:
        source: the dataset, with its ``bit_depth`` and its ``page``.
        images: the images that decide for ``auto``; each is decoded once more for it.
    """
    if source.bit_depth != "auto":
        bits = MOST_BITS if source.bit_depth is None else source.bit_depth
        return ReadConfig(bit_depth=bits, page=source.page)

    def highest_of(image: Path) -> int:
        try:
            decoded = decode(image, page=source.page)
        except ImageError:
            return 0
        return int(decoded.pixels[:, :, :3].max()) if decoded.range_open else 0

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="bit-depth") as pool:
        each = list(pool.map(highest_of, images))
    highest = max(each, default=0)
    bits = bits_for(highest) if highest else MOST_BITS
    found = f"the highest is {highest:,}" if highest else "there is none"
    console().print(
        f"data.bit_depth auto: of the 16-bit values in {counted(len(each), 'image')} {found}, so {bits} bits count"
    )
    return ReadConfig(bit_depth=bits, page=source.page)


def unused_range(highest: Iterable[int], bits: int) -> str | None:
    """Return a warning where 16-bit images stay within a quarter of their range; None where they do not.

    Args:
        highest: the highest value of each image with 16-bit values of an unknown range.
        bits: number of bits that count.
    """
    reached = max(highest, default=0)
    fitting = bits_for(reached)
    if not reached or reached >= 1 << (bits - 2) or bits == FEWEST_BITS:
        return None
    levels = round(reached * 255 / ((1 << bits) - 1)) + 1
    return (
        f"no value of the 16-bit images is above {reached:,}, so at most {levels} of 256 grey levels are left of "
        f"{bits} bits; --data.bit_depth {fitting} keeps more"
    )
