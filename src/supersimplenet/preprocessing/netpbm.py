"""PBM, PGM and PPM: six simple formats, read with numpy because Pillow cuts their 16-bit colours to 8."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supersimplenet.preprocessing.image_file import (
    REPAIR,
    Content,
    Header,
    Limits,
    TruncatedFileError,
    UnusableFileError,
)

MAGICS = tuple(b"P%d" % kind for kind in range(1, 7))
_HEADER_BYTES = 1 << 16  # room for comments
_SPACE = rb"(?:[ \t\r\n\v\f]|#[^\r\n]*[\r\n])+"
_HEADERS = {
    fields: re.compile(
        rb"P[1-6]" + _SPACE + (rb"(\d{1,10})" + _SPACE) * (fields - 1) + rb"(\d{1,10})(?:[ \t\r\n\v\f]|$)"
    )
    for fields in (2, 3)
}
_COMMENT = re.compile(rb"#[^\r\n]*")


def open_netpbm(content: Content, limits: Limits) -> Header:
    """Read the header; see `Header`.

    Raises:
        UnusableFileError: the header is damaged.
    """
    head = content[:_HEADER_BYTES]
    kind = int(head[1:2])
    fields = 2 if kind in (1, 4) else 3
    found = _HEADERS[fields].match(head)
    if found is None:
        raise UnusableFileError(f"damaged (a header without width, height{' and maximum' * (fields - 2)}); {REPAIR}")
    width, height, highest = (*map(int, found.groups()), 1)[:3]
    limits.check_size((height, width))
    if not 1 <= highest <= 65535:
        raise UnusableFileError(f"damaged (a largest value of {highest:,}; at most 65,535 is allowed); {REPAIR}")
    shape = (height, width, 3 if kind in (3, 6) else 1)
    decode = partial(_decode, start=found.end(), kind=kind, shape=shape, highest=highest)
    return Header(size_px=(height, width), orientation=1, lossy=False, range_stated=highest < 65535, pixels=decode)


def _decode(content: bytes, *, start: int, kind: int, shape: tuple[int, int, int], highest: int) -> NDArray[Any]:
    height, width, channels = shape
    count = height * width * channels
    values: NDArray[Any]
    if kind == 1:
        digits = _COMMENT.sub(b"", content[start:]).translate(None, b" \t\r\n\v\f")[:count]
        values = _long_enough(np.frombuffer(digits, np.uint8), count) - ord("0")
    elif kind in (2, 3):
        words = _COMMENT.sub(b"", content[start:]).split(maxsplit=count)
        if len(words) <= count and not content[-1:].isspace():  # the last number may have lost digits
            raise TruncatedFileError
        values = _long_enough(np.array(words[:count], dtype=np.uint32), count)
    elif kind == 4:
        row_bytes = -(-width // 8)
        packed = np.frombuffer(content, np.uint8, offset=start)[: height * row_bytes]
        rows = _long_enough(packed, height * row_bytes).reshape(height, row_bytes)
        values = np.unpackbits(rows, axis=1, count=width)
    else:
        size = 1 if highest < 256 else 2
        stored = content[start : start + count * size]
        if len(stored) < count * size:
            raise TruncatedFileError
        values = np.frombuffer(stored, np.uint8 if size == 1 else ">u2")
    if int(values.max()) > highest:
        raise UnusableFileError(f"damaged (a value of {int(values.max()):,} above the largest, {highest:,}); {REPAIR}")
    scaled = _over_full_range(1 - values if kind in (1, 4) else values, highest)
    return scaled.reshape(shape)


def _over_full_range(values: NDArray[Any], highest: int) -> NDArray[Any]:
    """Scale 0..highest to 0..255 or, from 256 on, to 0..65535, rounded."""
    kind, full = (np.uint8, 255) if highest < 256 else (np.uint16, 65535)
    if highest == full:
        return values.astype(kind)
    steps = np.arange(highest + 1, dtype=np.uint64)
    table: NDArray[Any] = ((2 * steps * full + highest) // (2 * highest)).astype(kind)
    return np.take(table, values)


def _long_enough(values: NDArray[Any], count: int) -> NDArray[Any]:
    if values.size < count:
        raise TruncatedFileError
    return values
