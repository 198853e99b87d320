"""BMP, GIF and WebP, decoded by Pillow; and what keeps Pillow from warning, guessing and allocating."""

from __future__ import annotations

import io
import re
import struct
import sys
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError

from supersimplenet.preprocessing.image_file import (
    REPAIR,
    Content,
    Header,
    Limits,
    OpenFile,
    TruncatedFileError,
    UnusableFileError,
)

# The beginning of a file, and Pillow's name of the format.
_MAGICS = {b"BM": "BMP", b"GIF87a": "GIF", b"GIF89a": "GIF"}
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def format_of(head: bytes) -> str | None:
    """Return Pillow's name of the format of a file that begins with ``head``; None if it is none of this module."""
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    return next((name for magic, name in _MAGICS.items() if head.startswith(magic)), None)


def open_with_pillow(content: Content, name: str, limits: Limits) -> Header:
    """Read the header of a BMP, GIF or WebP; see `Header`.

    Raises:
        UnusableFileError: the header is damaged or above the limits.
    """
    if name == "WEBP":  # Pillow allocates the whole canvas as it opens the file
        limits.check_size(_webp_size(content[:30]))
    image = opened(content, name)
    return header_of(image, limits, lossy=name == "WEBP", pixels=partial(_decode, image=image))


def header_of(
    image: Image.Image,
    limits: Limits,
    *,
    lossy: bool,
    range_stated: bool = False,
    pixels: Callable[[bytes], NDArray[Any]],
) -> Header:
    """Return the header of an image that Pillow has opened.

    Raises:
        UnusableFileError: its size is above the limits.
    """
    size_px = image.size[1], image.size[0]
    limits.check_size(size_px)
    return Header(
        size_px=size_px, orientation=orientation_of(image), lossy=lossy, range_stated=range_stated, pixels=pixels
    )


def opened(content: Content, name: str) -> Image.Image:
    """Open a file with one of Pillow's readers.

    Raises:
        UnusableFileError: the header is damaged.
    """
    # One reader of Pillow alone: the one for EPS starts Ghostscript.
    source = content.file if isinstance(content, OpenFile) else io.BytesIO(content)  # type: ignore[arg-type]
    source.seek(0)
    try:
        return Image.open(source, formats=(name,))
    except UnidentifiedImageError as error:
        raise UnusableFileError(f"damaged (its {name} header cannot be read); {REPAIR}") from error


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
