"""Decode image files with Pillow: upright pixels, and errors that name the file. Needs no torch."""

from __future__ import annotations

import io
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from supersimplenet.errors import ImageError
from supersimplenet.utils.formatting import shown_px

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_PIXELS = 200_000_000
# Listed, so that no other reader of Pillow (the one for EPS starts Ghostscript) ever gets a file.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "GIF", "PPM", "WEBP", "JPEG2000")
_LOSSY_FORMATS = frozenset({"JPEG", "MPO", "WEBP", "JPEG2000"})
_REPAIR = "re-export it"


@dataclass(frozen=True)
class EncodedImage:
    """An image file whose bytes are not in a file of their own, but in an archive, a table or a store.

    Attributes:
        name: the image's name in results and errors.
        read: returns the bytes; called in the thread that decodes them, once each time the image is used.
    """

    name: str
    read: Callable[[], bytes]

    def __str__(self) -> str:
        return self.name


def decode(path: Path | EncodedImage, max_pixels: int) -> tuple[NDArray[Any], bool]:
    """Decode a file to upright pixels (H, W, 1, 3 or 4), uint8 or uint16; also return whether compression lost any."""
    with _opened(path, max_pixels) as image:
        return _pixels_of(image, path)


def image_size(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Return the (height, width) in px of what ``read_image`` returns without a resize, from the header alone.

    Raises:
        ImageError: as ``read_image``, as far as the header shows the error.
    """
    with _opened(Path(path), max_pixels) as image:
        width, height = image.size
        orientation = _orientation(image)
        if isinstance(image, TiffImageFile):  # Pillow's version decides whether its ``size`` is upright already
            width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
    return (width, height) if orientation >= 5 else (height, width)


def name_of(image: Image.Image) -> str:
    """Return the name of an image that Pillow has opened, for results and errors."""
    return str(getattr(image, "filename", "") or "PIL image")


def decode_opened(image: Image.Image) -> NDArray[Any]:
    """Decode an image that Pillow has opened, as `decode` does; return the pixels.

    Raises:
        ImageError: pixels without a known range, or a file that cannot be decoded.
    """
    name = Path(name_of(image))
    try:
        with _PILLOW_LIMIT_OFF:
            return _pixels_of(image, name)[0]
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # a file that Pillow opened lazily may be damaged
        raise ImageError(f"{name}: {_explained(error, 0)}") from error


def read_file(path: Path) -> bytes:
    """Read an image file's bytes.

    Raises:
        ImageError: there is no such file, or it cannot be opened.
    """
    _file_length(path)  # raises the reason where the path is no file
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {_explained(error, 0)}") from error


def _pixels_of(image: Image.Image, path: Path | EncodedImage) -> tuple[NDArray[Any], bool]:
    # Pillow applies the orientation of a TIFF when it loads it, and of no other format.
    orientation = 1 if isinstance(image, TiffImageFile) else _orientation(image)
    has_12_bits = isinstance(image, TiffImageFile) and image.tag_v2[BITSPERSAMPLE] == (12,)
    lossy = image.format in _LOSSY_FORMATS
    pixels = np.array(_plain_mode(image, path))
    if pixels.dtype.itemsize > 1:
        pixels = pixels.astype(np.uint16)  # from either byte order, and from the int32 of mode "I"
    if has_12_bits:  # 0..4095 to 0..65535, rounded
        pixels = ((pixels.astype(np.uint32) * 65535 + 2047) // 4095).astype(np.uint16)
    return _upright(pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis], orientation), lossy


def _plain_mode(image: Image.Image, path: Path | EncodedImage) -> Image.Image:
    """Return the image in a mode that numpy reads directly: L, RGB, RGBA or 16-bit grey."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in {"PNG", "PPM"}):
        return image  # PNG and PPM have mode "I" with 16 bits only
    if image.mode in {"I", "F"}:
        kind = "floating-point" if image.mode == "F" else "signed or 32-bit integer"
        raise ImageError(f"{path}: {kind} pixels, whose range is unknown; scale them and save as 8 or 16 bit")
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image.convert("L" if image.mode in {"1", "L"} else "RGB")


@contextmanager
def _opened(path: Path | EncodedImage, max_pixels: int) -> Iterator[Image.Image]:
    """Open a file and check its header; any error in the context becomes an ImageError that names the file."""
    source: Path | io.BytesIO
    if isinstance(path, EncodedImage):
        source = io.BytesIO(_bytes_of(path))
        length = source.getbuffer().nbytes
    else:
        source, length = path, _file_length(path)
    if length == 0:
        raise ImageError(f"{path}: empty (0 bytes); {_REPAIR}")
    try:
        with _PILLOW_LIMIT_OFF, Image.open(source, formats=_FORMATS) as image:
            _check_pixel_count(path, image.size, max_pixels)
            yield image
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers may raise any error on a damaged file
        raise ImageError(f"{path}: {_explained(error, length)}") from error


def _bytes_of(image: EncodedImage) -> bytes:
    try:
        return image.read()
    except ImageError:
        raise
    except Exception as error:  # each store raises the errors of its own library
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise ImageError(f"{image.name}: cannot be read ({reason}); check where it lies") from error


def _file_length(path: Path) -> int:
    if path.is_dir():
        raise ImageError(f"{path}: a folder; pass one of the images in it")
    try:
        return path.stat().st_size
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise ImageError(f"{path}: {_explained(error, 0)}") from error


def _check_pixel_count(path: Path | EncodedImage, pillow_size: tuple[int, int], max_pixels: int) -> None:
    width, height = pillow_size
    if width * height > max_pixels:
        raise ImageError(
            f"{path}: {shown_px((height, width))} (height x width) are above the limit of {max_pixels:,} pixels; "
            f"make it smaller, or call read_image with a larger max_pixels"
        )


def _explained(error: Exception, length: int) -> str:
    """Return cause and remedy as text, from the error of opening or decoding a file of ``length`` bytes."""
    if isinstance(error, UnidentifiedImageError):
        return f"not a readable image; wanted BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF or WebP; {_REPAIR}"
    if isinstance(error, OSError) and error.strerror:  # an error of the system; Pillow's errors have no such text
        return f"cannot be opened ({error.strerror}); check the path and its permissions"
    if "truncated" in str(error).lower():
        return f"truncated after {length:,} bytes; {_REPAIR}"
    return f"damaged ({type(error).__name__}: {error}); {_REPAIR}"


class _PillowLimitOff:
    """Context that disables Pillow's own pixel limit, because ours replaces it.

    Pillow's limit is one number for the whole process, and Pillow warns at half of what it refuses. Users are counted,
    so that threads may overlap: the first one to enter disables the limit, the last one to leave restores it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._limit: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                Image.MAX_IMAGE_PIXELS = self._limit


_PILLOW_LIMIT_OFF = _PillowLimitOff()


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8, from the metadata before the pixel data."""
    if isinstance(image, TiffImageFile):
        return int(image.tag_v2.get(ExifTags.Base.Orientation, 1))
    # Not ``image.getexif()``, which decodes every pixel of a PNG, to search for a chunk after the pixel data.
    return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo an EXIF orientation; values outside 1..8 mean nothing and change nothing. Source: EXIF 2.3, tag 0x0112."""
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return pixels
