"""JPEG 2000: decoded by Pillow; its structure, because the decoder takes a file that is cut."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from supersimplenet.preprocessing.image_file import (
    REPAIR,
    Content,
    Header,
    Limits,
    TruncatedFileError,
    UnusableFileError,
)
from supersimplenet.preprocessing.pillow_formats import header_of, opened, pixels_of

_BOXES, _STREAM = b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"
MAGICS = (_BOXES, _STREAM)
_START_OF_TILE, _END = b"\xff\x90", b"\xff\xd9"
_TILE_HEADER_BYTES = 12


@dataclass(frozen=True)
class _Facts:
    stream_at: int
    stream_end: int
    bits: int


def open_jpeg_2000(content: Content, limits: Limits) -> Header:
    """Read the header; see `Header`.

    Raises:
        UnusableFileError: the header is damaged, above the limits, or says what is not read.
    """
    start, end = _find_stream(content)
    facts = _Facts(start, end, _read_bits(content[start : start + 1024]))
    image = opened(content, "JPEG2000")
    if image.mode not in {"L", "LA", "RGB", "RGBA", "I;16"}:
        raise UnusableFileError(f"JPEG 2000 of Pillow's mode {image.mode}; save it as grey or RGB")
    pixels = partial(_decode, image=image, facts=facts)
    return header_of(image, limits, lossy=True, range_stated=facts.bits < 16, pixels=pixels)


def _decode(content: bytes, *, image: Image.Image, facts: _Facts) -> NDArray[Any]:
    _check_tiles(content, facts)
    pixels = pixels_of(image)
    if pixels.shape[2] > 1 and facts.bits > 8:
        return pixels  # colours, of which Pillow keeps the upper 8 bits
    # Pillow shifts values up to 8 or 16 bits, which leaves white below the full range.
    width, full = 8 * pixels.dtype.itemsize, np.iinfo(pixels.dtype).max
    if facts.bits in (8, 16):
        return pixels
    stored, highest = (pixels >> (width - facts.bits)).astype(np.uint32), 2**facts.bits - 1
    scaled: NDArray[Any] = ((2 * stored * full + highest) // (2 * highest)).astype(pixels.dtype)
    return scaled


def _find_stream(content: Content) -> tuple[int, int]:
    """Return where the code stream begins and ends."""
    if content[:4] == _STREAM:
        return 0, len(content)
    at = 0
    while at + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        start = at + 8
        if length == 1 and at + 16 <= len(content):
            start, (length,) = at + 16, struct.unpack(">Q", content[at + 8 : at + 16])
        end = len(content) if length == 0 else at + length
        if end < start:
            break
        if kind == b"jp2c":
            if end > len(content):
                raise TruncatedFileError
            return start, end
        at = end
    raise TruncatedFileError


def _read_bits(head: bytes) -> int:
    """Return the bits a sample from the beginning of the code stream."""
    if head[:4] != _STREAM or len(head) < 43:
        raise UnusableFileError(f"damaged (a JPEG 2000 code stream without its sizes); {REPAIR}")
    (components,) = struct.unpack_from(">H", head, 40)
    sizes = head[42 : 42 + 3 * components]
    if not 1 <= components <= 4 or len(sizes) < 3 * components:
        raise UnusableFileError(f"JPEG 2000 with {components} components; save it as grey or RGB")
    if len(set(sizes[::3])) > 1 or sizes[0] >= 128 or set(sizes[1::3]) | set(sizes[2::3]) != {1}:
        raise UnusableFileError("JPEG 2000 with signed, unequal or subsampled components; save it as grey or RGB")
    if sizes[0] >= 16:
        raise UnusableFileError(f"JPEG 2000 with {sizes[0] + 1} bits a sample; save it with 8 or 16 bits")
    return sizes[0] + 1


def _check_tiles(content: bytes, facts: _Facts) -> None:
    """Check that every part of every tile is there, and the end."""
    at = facts.stream_at + 2
    while (marker := content[at : at + 2]) not in (_END, _START_OF_TILE):
        if len(marker) < 2 or at >= facts.stream_end:
            raise TruncatedFileError
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    while content[at : at + 2] == _START_OF_TILE:
        if at + _TILE_HEADER_BYTES > facts.stream_end:
            raise TruncatedFileError
        (length,) = struct.unpack_from(">I", content, at + 6)
        if length == 0:  # up to the end
            at = facts.stream_end - 2
        elif length < _TILE_HEADER_BYTES:
            raise UnusableFileError(f"damaged (a JPEG 2000 tile of {length} bytes); {REPAIR}")
        else:
            at += length
    if content[at : at + 2] != _END or at + 2 > facts.stream_end:
        raise TruncatedFileError
