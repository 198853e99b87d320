"""PNG, BMP, GIF, WebP and JPEG 2000, decoded by Pillow; and what keeps Pillow from warning, guessing and allocating."""

from __future__ import annotations

import io
import re
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin

from supersimplenet.preprocessing.image_file import (
    REPAIR,
    Content,
    Header,
    Limits,
    OpenFile,
    TruncatedFileError,
    UnusableFileError,
)

# The beginning of a file, and Pillow's name of the format. No other reader of Pillow (the one for EPS starts
# Ghostscript) ever gets a file.
MAGICS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
}
_LOSSY = frozenset({"WEBP", "JPEG2000"})
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def format_of(head: bytes) -> str | None:
    """Return Pillow's name of the format of a file that begins with ``head``; None if it is none of this module."""
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    return next((name for magic, name in MAGICS.items() if head.startswith(magic)), None)


def open_with_pillow(content: Content, name: str, limits: Limits) -> Header:
    """Read the header of a file of one of these formats; see `Header`.

    Raises:
        UnusableFileError: the header is damaged or above the limits.
    """
    if name == "WEBP":  # Pillow allocates the whole canvas as it opens the file
        limits.check_size(_webp_size(content[:30]))
    image = opened(content, name)
    size_px = image.size[1], image.size[0]
    limits.check_size(size_px)
    if name == "JPEG2000":
        _check_jpeg_2000(image)
    return Header(
        size_px=size_px,
        orientation=orientation_of(image),
        lossy=name in _LOSSY,
        pixels=partial(_decode_png if name == "PNG" else _decode, image=image),
    )


def opened(content: Content, name: str) -> Image.Image:
    """Open a file with one of Pillow's readers."""
    source = content.file if isinstance(content, OpenFile) else io.BytesIO(content)  # type: ignore[arg-type]
    source.seek(0)
    return Image.open(source, formats=(name,))


def pixels_of(image: Image.Image) -> NDArray[Any]:
    """Return the pixels of an image of Pillow: (H, W, 1, 3 or 4), uint8 or uint16.

    Raises:
        UnusableFileError: pixels without a known range.
    """
    image.load()  # numpy hides some of the errors of loading
    pixels = np.array(_plain_mode(image))
    if pixels.dtype.itemsize > 1:
        pixels = pixels.astype(np.uint16)  # from either byte order, and from the int32 of mode "I"
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    # Many programs write BMP files with an alpha channel that they leave at 0.
    if image.format == "BMP" and pixels.shape[2] == 4 and not pixels[:, :, 3].any():
        return pixels[:, :, :3]
    return pixels


def both_bytes(reopen: Callable[[], Image.Image]) -> NDArray[np.uint16]:
    """Return the full values of colours with 16 bits, of which Pillow keeps the upper byte only.

    Args:
        reopen: opens the image; called twice. The second time, Pillow is told the other byte order, and so keeps the
            lower byte.
    """
    upper, lower = reopen(), reopen()
    lower.tile = [_with_args(tile, _other_byte(tile[3])) for tile in lower.tile]  # type: ignore[attr-defined]
    upper.load()
    lower.load()
    pixels = np.array(upper, dtype=np.uint16)
    pixels <<= 8
    pixels |= np.asarray(lower)
    return pixels


def _with_args(tile: Any, args: Any) -> Any:
    return tile._replace(args=args) if hasattr(tile, "_replace") else (*tile[:3], args)  # a plain tuple until Pillow 11


def _other_byte(args: Any) -> Any:
    if isinstance(args, str):
        return args[:-1] + _OTHER_BYTE[args[-1]]
    return (_other_byte(args[0]), *args[1:])


def _plain_mode(image: Image.Image) -> Image.Image:
    """Return the image in a mode that numpy reads directly: L, RGB, RGBA or 16-bit grey."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in {"PNG", "PPM"}):
        return image  # PNG and PPM have mode "I" with 16 bits only
    if image.mode in {"I", "F"}:
        kind = "floating-point" if image.mode == "F" else "signed or 32-bit integer"
        raise UnusableFileError(f"{kind} pixels, whose range is unknown; scale them and save as 8 or 16 bit")
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("L" if image.mode in {"1", "L"} else "RGB")


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, from the metadata before the pixel data."""
    # Not ``image.getexif()``, which decodes every pixel of a PNG, to search for a chunk after the pixel data.
    value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


# --- PNG ---------------------------------------------------------------------------------------------------------


_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# The passes of an interlaced PNG: first column and row, and the steps between columns and rows.
_PNG_PASSES = (
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
class _PngFacts:
    bits: int
    colour_type: int
    interlaced: bool
    transparent: tuple[int, ...] | None  # the one grey level or colour that is transparent


def _decode_png(content: bytes, *, image: Image.Image) -> NDArray[Any]:
    facts = _check_png(content)
    image.load()
    # Pillow leaves rows black that are missing, whereas no row of a photograph is black throughout.
    last_row = image.crop((0, image.height - 1, image.width, image.height))
    if facts.interlaced or not np.asarray(last_row).any():
        _check_png_length(content, image.size, facts)
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


def _check_png(content: bytes) -> _PngFacts:
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
            return _PngFacts(bits, colour_type, content[28] != 0, transparent)
        at = end + 4


def _check_png_length(content: bytes, size: tuple[int, int], facts: _PngFacts) -> None:
    """Decompress the pixels once more, and count their bytes."""
    pixel_bits = facts.bits * _PNG_SAMPLES[facts.colour_type]
    passes = _PNG_PASSES if facts.interlaced else ((0, 0, 1, 1),)
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


# --- the other formats -------------------------------------------------------------------------------------------


def _webp_size(head: bytes) -> tuple[int, int]:
    """Return (height, width) from the first chunk."""
    if len(head) < 30:
        raise TruncatedFileError
    kind = head[12:16]
    if kind == b"VP8X":
        return int.from_bytes(head[27:30], "little") + 1, int.from_bytes(head[24:27], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return height & 0x3FFF, width & 0x3FFF
    raise UnusableFileError(f"damaged (a WebP that begins with {kind!r}); {REPAIR}")


def _check_jpeg_2000(image: Image.Image) -> None:
    if image.mode not in {"L", "LA", "RGB", "RGBA", "I;16"}:
        raise UnusableFileError(f"JPEG 2000 of Pillow's mode {image.mode}; save it as grey or RGB")


def _decode(content: bytes, *, image: Image.Image) -> NDArray[Any]:
    return pixels_of(image)


# --- Pillow's own warnings and limits ----------------------------------------------------------------------------


class _PillowGuard:
    """Context in which Pillow's warnings are errors and its own limit on pixels is off, because ours replaces it.

    Both are settings of the whole process. Users are counted, so that threads may overlap: the first one to enter
    changes them, the last one to leave restores them.
    """

    # A private tag of which Pillow expects one value, while others write more, has no effect on pixels.
    _FILTERS = (
        ("ignore", re.compile("Metadata Warning, tag"), Warning, re.compile(r"PIL\."), 0),
        ("error", None, Warning, re.compile(r"PIL\."), 0),
    )

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._limit: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
                # Not `warnings.filterwarnings`, after which every warning of the process that was shown once is
                # shown again.
                warnings.filters[:0] = self._FILTERS  # type: ignore[index]
                for module in (Image, TiffImagePlugin):
                    vars(module).pop("__warningregistry__", None)  # forgets what was shown before
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                Image.MAX_IMAGE_PIXELS = self._limit
                for entry in self._FILTERS:
                    if entry in warnings.filters:
                        warnings.filters.remove(entry)  # type: ignore[attr-defined]


PILLOW_GUARD = _PillowGuard()
