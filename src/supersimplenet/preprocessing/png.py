"""PNG: decoded by Pillow; its check sums, its end, and the values that Pillow does not give."""

from __future__ import annotations

import struct
import zlib
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
from supersimplenet.preprocessing.pillow_formats import both_bytes, header_of, opened, pixels_of

MAGIC = b"\x89PNG\r\n\x1a\n"
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# The passes of an interlaced PNG: first column and row, and the steps between columns and rows.
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class _Facts:
    bits: int
    colour_type: int
    interlaced: bool
    transparent: tuple[int, ...] | None  # the one grey level or colour that is transparent


def open_png(content: Content, limits: Limits) -> Header:
    """Read the header; see `Header`.

    Raises:
        UnusableFileError: the header is damaged or above the limits.
    """
    image = opened(content, "PNG")
    return header_of(image, limits, lossy=False, pixels=partial(_decode, image=image))


def _decode(content: bytes, *, image: Image.Image) -> NDArray[Any]:
    facts = _check_chunks(content)
    image.load()
    # Pillow leaves rows black that are missing, whereas no row of a photograph is black throughout.
    last_row = image.crop((0, image.height - 1, image.width, image.height))
    if facts.interlaced or not np.asarray(last_row).any():
        _check_length(content, image.size, facts)
    if facts.colour_type == 3:
        return pixels_of(image)
    if facts.colour_type == 4 and facts.bits == 16:
        # Grey and alpha of two bytes each are the four bytes of RGBA with 8 bits.
        header = content[12:24] + b"\x08\x06" + content[26:29]
        patched = content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
        parts = pixels_of(opened(patched, "PNG")).astype(np.uint16)
        grey, alpha = parts[..., 0] << 8 | parts[..., 1], parts[..., 2] << 8 | parts[..., 3]
        return np.stack([grey, grey, grey, alpha], axis=2)
    if facts.colour_type in (2, 6) and facts.bits == 16:
        pixels: NDArray[Any] = both_bytes(lambda: opened(content, "PNG"))
    else:
        image.info.pop("transparency", None)  # Pillow compares it before it scales the pixels
        pixels = pixels_of(image)
    if facts.transparent is None:
        return pixels
    scale = 255 // (2**facts.bits - 1) if facts.bits < 8 else 1
    full = 65535 if facts.bits == 16 else 255
    hidden = (pixels == np.array(facts.transparent) * scale).all(axis=2)
    alpha = np.where(hidden, 0, full).astype(pixels.dtype)
    return np.dstack([np.broadcast_to(pixels, (*hidden.shape, 3)), alpha])


def _check_chunks(content: bytes) -> _Facts:
    """Check every check sum, and that the file has its end; Pillow does not."""
    view, at, transparent = memoryview(content), 8, None
    bits, colour_type = content[24], content[25]
    while True:
        if at + 12 > len(content):
            raise TruncatedFileError
        (length,) = struct.unpack_from(">I", content, at)
        kind, end = content[at + 4 : at + 8], at + 8 + length
        if end + 4 > len(content):
            raise TruncatedFileError
        if zlib.crc32(view[at + 4 : end]) != struct.unpack_from(">I", content, end)[0]:
            raise UnusableFileError(f"damaged (wrong check sum of the PNG chunk {kind.decode('latin-1')!r}); {REPAIR}")
        if kind == b"tRNS" and colour_type in (0, 2) and length == (2 if colour_type == 0 else 6):
            transparent = struct.unpack_from(f">{length // 2}H", content, at + 8)
        if kind == b"IEND":
            return _Facts(bits, colour_type, content[28] != 0, transparent)
        at = end + 4


def _check_length(content: bytes, size: tuple[int, int], facts: _Facts) -> None:
    """Decompress the pixels once more, and count their bytes."""
    pixel_bits = facts.bits * _SAMPLES[facts.colour_type]
    passes = _PASSES if facts.interlaced else ((0, 0, 1, 1),)
    missing = 0
    for x, y, across, down in passes:
        width, height = -(-(size[0] - x) // across), -(-(size[1] - y) // down)
        missing += height * (1 + -(-width * pixel_bits // 8)) if width > 0 and height > 0 else 0
    stream, at = zlib.decompressobj(), 8
    while missing > 0 and not stream.eof and at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        data = content[at + 8 : at + 8 + length] if content[at + 4 : at + 8] == b"IDAT" else b""
        while data and missing > 0 and not stream.eof:
            missing -= len(stream.decompress(data, _BLOCK_BYTES))
            data = stream.unconsumed_tail
        at += 12 + length
    if missing > 0 and not stream.eof:
        missing -= len(stream.flush())
    if missing > 0:
        raise TruncatedFileError
