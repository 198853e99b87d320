"""From the bytes of an image file to upright pixels, one way for all formats; errors name the file. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from supersimplenet.errors import ImageError
from supersimplenet.preprocessing import jpeg, jpeg_2000, netpbm, png, tiff
from supersimplenet.preprocessing.image_file import (
    REPAIR,
    Content,
    Header,
    Limits,
    OpenFile,
    TruncatedFileError,
    UnusableFileError,
)
from supersimplenet.preprocessing.pillow_formats import (
    PILLOW_GUARD,
    format_of,
    open_with_pillow,
    orientation_of,
    pixels_of,
)
from supersimplenet.utils.files import open_regular

_HEAD_BYTES = 16


class Decoded(NamedTuple):
    """The upright pixels of an image.

    Attributes:
        pixels: (H, W, 1, 3 or 4), uint8 (0..255) or uint16.
        lossy: whether compression changed values.
        range_open: whether the values have 16 bits, and nothing says how many of them count.
    """

    pixels: NDArray[Any]
    lossy: bool
    range_open: bool


@dataclass(frozen=True)
class EncodedImage:
    """An image file whose bytes are not in a file of their own, but in an archive, a table or a store.

    Attributes:
        name: the image's name in results and errors.
        read: returns the bytes; called in the thread that decodes them, once each time the image is used.
        part: name of the part that it shows, if its source gives one.
    """

    name: str
    read: Callable[[], bytes]
    part: str | None = None

    def __str__(self) -> str:
        return self.name


def decode(path: Path | EncodedImage, *, limits: Limits | None = None, page: int | None = None) -> Decoded:
    """Decode a file to upright pixels; the same bytes give the same pixels wherever they come from.

    Args:
        path: the file.
        limits: bounds of what it may cost; by default those of the environment.
        page: number of the page of a TIFF, from 0; None for the largest.

    Raises:
        ImageError: the file cannot be read, is damaged, above the limits, or its pixels have no known meaning.
    """
    limits = Limits.from_environment() if limits is None else limits
    content = _bytes_of(path, limits)
    with image_errors(path, len(content)):
        return _decoded(_read_header(content, limits, page), content)


def image_size(
    path: str | os.PathLike[str], *, limits: Limits | None = None, page: int | None = None
) -> tuple[int, int]:
    """Return the (height, width) in px of what ``read_image`` returns without a resize, from the header alone.

    Args:
        path: the file.
        limits: see `decode`.
        page: likewise.

    Raises:
        ImageError: as ``read_image``, as far as the header shows the error.
    """
    limits = Limits.from_environment() if limits is None else limits
    with _opened(Path(path), limits) as content, image_errors(path, len(content)):
        header = _read_header(content, limits, page)
        height, width = header.size_px
    return (width, height) if header.orientation >= 5 else (height, width)


def suffix_of(content: bytes) -> str:
    """Return the usual suffix of an image file by its first bytes, such as ``png``; ``bin`` for anything else."""
    head = content[:_HEAD_BYTES]
    known = ((tiff.MAGICS, "tiff"), (jpeg.MAGIC, "jpg"), (png.MAGIC, "png"), (jpeg_2000.MAGICS, "jp2"))
    if suffix := next((suffix for magics, suffix in known if head.startswith(magics)), None):
        return suffix
    return "pnm" if head.startswith(netpbm.MAGICS) else (format_of(head) or "bin").lower()


def name_of(image: Image.Image) -> str:
    """Return the name of an image that Pillow has opened, for results and errors."""
    return str(getattr(image, "filename", "") or "PIL image")


def decode_opened(image: Image.Image, *, limits: Limits | None = None, page: int | None = None) -> Decoded:
    """Decode an image of Pillow as `decode` does a file.

    An image that Pillow has opened and not yet loaded is decoded from its file, so that it gives the same pixels as its
    path. An image that is loaded already gives the pixels that it holds.

    Args:
        image: the image.
        limits: see `decode`.
        page: number of the page of a TIFF, where the image stands at its first; see `decode`.

    Raises:
        ImageError: pixels without a known range, or a file that cannot be decoded.
    """
    limits = Limits.from_environment() if limits is None else limits
    name = name_of(image)
    file, frame = getattr(image, "fp", None), image.tell()
    with image_errors(name, 0):
        # Pillow empties ``tile`` as it loads.
        if file is not None and getattr(image, "tile", None) and (frame == 0 or image.format == "TIFF"):
            content = _read_all(file, limits)
            read = _decoded(_read_header(content, limits, frame or page), content)
            if getattr(image, "_exclusive_fp", False) and getattr(image, "_close_exclusive_fp_after_loading", False):
                image.load()  # which closes the file that Pillow opened
            return read
        pixels = pixels_of(image)
        limits.check_size((pixels.shape[0], pixels.shape[1]))
        # Pillow applies the orientation of a TIFF when it loads it, and of no other format.
        upright = _upright(pixels, 1 if isinstance(image, TiffImageFile) else orientation_of(image))
        if tiff.has_12_bits(image):
            return Decoded(tiff.over_full_range(upright), False, False)
        return Decoded(upright, False, upright.dtype.itemsize > 1)


def read_file(path: Path, limits: Limits) -> bytes:
    """Read an image file's bytes.

    Raises:
        ImageError: there is no such file, it is none, it is empty or above the limit, or it cannot be opened.
    """
    with _opened(path, limits) as content:
        return content[:]


@contextmanager
def within_memory(name: object) -> Iterator[None]:
    """Turn a lack of memory in the context into an ImageError, so that only this image is lost."""
    try:
        yield
    except MemoryError as error:
        raise ImageError(f"{name}: does not fit into memory; make the image smaller") from error


@contextmanager
def image_errors(name: object, length: int) -> Iterator[None]:
    """Turn every error in the context, and every warning of Pillow, into an ImageError that names the file.

    Args:
        name: of the file.
        length: of the file in bytes.
    """
    try:
        with within_memory(name), PILLOW_GUARD:
            yield
    except ImageError:
        raise
    except UnusableFileError as error:
        raise ImageError(f"{name}: {error}") from error
    except Exception as error:  # a decoder may raise any error on a damaged file
        text = " ".join(str(error).split())
        if isinstance(error, TruncatedFileError | EOFError) or "truncated" in text.lower():
            raise ImageError(f"{name}: truncated after {length:,} bytes; {REPAIR}") from error
        raise ImageError(f"{name}: damaged ({type(error).__name__}: {text}); {REPAIR}") from error


def _decoded(header: Header, content: bytes) -> Decoded:
    pixels = _upright(header.pixels(content), header.orientation)
    return Decoded(pixels, header.lossy, pixels.dtype.itemsize > 1 and not header.range_stated)


def _read_header(content: Content, limits: Limits, page: int | None) -> Header:
    """Choose the reader by the first bytes."""
    head = content[:_HEAD_BYTES]
    if head.startswith(tiff.MAGICS):
        return tiff.open_tiff(content, limits, page)
    if page:
        raise UnusableFileError(f"has no page {page}, as only a TIFF has pages; leave the page out")
    if head.startswith(jpeg.MAGIC):
        return jpeg.open_jpeg(content, limits)
    if head.startswith(netpbm.MAGICS):
        return netpbm.open_netpbm(content, limits)
    if head.startswith(png.MAGIC):
        return png.open_png(content, limits)
    if head.startswith(jpeg_2000.MAGICS):
        return jpeg_2000.open_jpeg_2000(content, limits)
    name = format_of(head)
    if name is None:
        raise UnusableFileError(
            f"not a readable image; wanted BMP, GIF, JPEG, JPEG 2000, PNG, PPM, TIFF or WebP; {REPAIR}"
        )
    return open_with_pillow(content, name, limits)


def _bytes_of(path: Path | EncodedImage, limits: Limits) -> bytes:
    if not isinstance(path, EncodedImage):
        return read_file(path, limits)
    try:
        content = path.read()
    except ImageError:
        raise
    except Exception as error:  # each store raises the errors of its own library
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise ImageError(f"{path.name}: cannot be read ({reason}); check where it lies") from error
    _check_length(path.name, len(content), limits)
    return content


def _read_all(file: Any, limits: Limits) -> bytes:
    """Return the bytes of a file that Pillow has open, and leave its position as it was."""
    place = file.tell()
    limits.check_bytes(file.seek(0, os.SEEK_END))
    file.seek(0)
    content: bytes = file.read()
    file.seek(place)
    return content


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[OpenFile]:
    if path.is_dir():
        raise ImageError(f"{path}: a folder; pass one of the images in it")
    try:
        file = open_regular(path)
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise ImageError(f"{path}: cannot be opened ({error.strerror}); check the path and its permissions") from error
    except ValueError as error:  # a NUL in the name
        raise ImageError(f"{path}: cannot be opened ({error}); check the path") from error
    with file:
        length = os.fstat(file.fileno()).st_size
        _check_length(path, length, limits)
        try:
            yield OpenFile(file, length)
        except OSError as error:
            raise ImageError(f"{path}: cannot be read ({error.strerror or error}); check the disk") from error


def _check_length(name: object, length: int, limits: Limits) -> None:
    if length == 0:
        raise ImageError(f"{name}: empty (0 bytes); {REPAIR}")
    try:
        limits.check_bytes(length)
    except UnusableFileError as error:
        raise ImageError(f"{name}: {error}") from error


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo an EXIF orientation; values outside 1..8 mean nothing and change nothing. Source: EXIF 2.3, tag 0x0112."""
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return pixels
