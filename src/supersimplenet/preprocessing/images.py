"""Image reading: the only way from a file or an array to pixels, for training, evaluation, export and serving.

The steps, in order, with their reasons:

1. Pillow decodes; of an animation or a stack of pages, only the first frame.
2. More than 8 bits become 8, rounded over the format's range (0..65535 -> 0..255). This comes before the resize, so
   that a 16-bit file and an 8-bit copy of it give the same pixels. Colour with 16 bits is cut to 8 by Pillow itself.
3. Transparency is blended over black, so that content erased in an editor does not reappear.
4. EXIF orientation is applied if it is stored before the pixel data.
5. Grey becomes RGB; CMYK and the like are converted without colour profiles.
6. Antialiased bilinear resize to (height, width), on 8 bits, by Pillow.

Needs no torch.
"""

from __future__ import annotations

import io
import os
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from supersimplenet.errors import DataError, ImageError
from supersimplenet.preprocessing.geometry import checked_size, resize_mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_PIXELS = 200_000_000
IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
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


AnyImage = str | Path | EncodedImage | Image.Image | NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """Facts about an image file besides its pixels.

    Attributes:
        sha256: SHA-256 of the file's content, 64 hexadecimal digits.
        pixels: see `pixel_digest`.
        size_px: (height, width), upright.
        lowest: smallest value of the pixels, in the file's own bits.
        highest: largest value, likewise.
    """

    sha256: str
    pixels: str
    size_px: tuple[int, int]
    lowest: int
    highest: int


def pixel_digest(pixels: NDArray[np.uint8]) -> str:
    """Return a hash of an image's pixels and size, equal for equal pixels whatever file they come from.

    Args:
        pixels: (H, W, 3) uint8, as `read_image` returns them without a resize.

    Returns:
        32 hexadecimal digits.
    """
    import hashlib  # OpenSSL behind it takes milliseconds to load, and the line needs none of it

    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def read_with_facts(
    path: str | Path, *, size_px: tuple[int, int] | None = None
) -> tuple[NDArray[np.uint8], tuple[int, int], ImageFacts]:
    """Read an image file once, as `read_image` does; also return its own size and the facts about the file.

    Args:
        path: see `read_image`.
        size_px: likewise.

    Raises:
        ImageError: as `read_image`.
    """
    import hashlib  # see `pixel_digest`

    content = b""

    def read() -> bytes:
        nonlocal content
        _file_length(Path(path))  # raises the reason where the path is no file
        content = Path(path).read_bytes()
        return content

    pixels, _ = _decode(EncodedImage(str(path), read), MAX_PIXELS)
    own = prepare_pixels(pixels)
    facts = ImageFacts(
        sha256=hashlib.sha256(content).hexdigest(),
        pixels=pixel_digest(own),
        size_px=(own.shape[0], own.shape[1]),
        lowest=int(pixels.min()),
        highest=int(pixels.max()),
    )
    return own if size_px is None else prepare_pixels(own, size_px=size_px), facts.size_px, facts


def read_image(
    path: str | os.PathLike[str] | EncodedImage, *, size_px: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Read an image file, upright and in RGB, as the module's docstring describes.

    Args:
        path: BMP, GIF, JPEG, JPEG 2000, PNG, PBM/PGM/PPM, TIFF or WebP; or the bytes of such a file.
        size_px: (height, width) to resize to; None keeps the file's own size.
        max_pixels: largest height times width to decode, checked in the header before any pixel is decoded.

    Returns:
        (H, W, 3) uint8, writable.

    Raises:
        ImageError: the file is missing, a folder, empty, truncated, no image or too large, or its pixels have no known
            range (floating point, 32-bit integers).
        ConfigError: ``size_px`` is not two positive integers.
    """
    return read_image_and_size(path, size_px=size_px, max_pixels=max_pixels)[0]


def read_image_and_size(
    path: str | os.PathLike[str] | EncodedImage, *, size_px: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Read an image as `read_image` does; also return the image's own (height, width) in px."""
    pixels, _ = _decode(path if isinstance(path, EncodedImage) else Path(path), max_pixels)
    return prepare_pixels(pixels, size_px=size_px), pixels.shape[:2]


def read_pillow(image: Image.Image) -> NDArray[np.uint8]:
    """Return an image that Pillow has opened, upright and in RGB: the same as ``read_image`` returns for its file.

    Args:
        image: of any mode whose range is known; EXIF orientation is applied where the image still carries it.

    Returns:
        (H, W, 3) uint8, writable.

    Raises:
        ImageError: pixels without a known range (floating point, 32-bit integers), or a file that cannot be decoded.
    """
    name = Path(_name_of(image))
    try:
        with _PILLOW_LIMIT_OFF:
            pixels, _ = _pixels_of(image, name)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # a file that Pillow opened lazily may be damaged
        raise ImageError(f"{name}: {_explained(error, 0)}") from error
    return prepare_pixels(pixels)


def read_any(
    image: AnyImage, *, size_px: tuple[int, int] | None = None
) -> tuple[NDArray[np.uint8], tuple[int, int], str]:
    """Read an image in any form that the package takes.

    Args:
        image: a path, an image file's bytes, an image that Pillow has opened, or an array as `prepare_pixels` takes it.
        size_px: (height, width) to resize to; None keeps the image's own size.

    Returns:
        (H, W, 3) uint8; the image's own (height, width) in px; its name for errors.

    Raises:
        ImageError: the image cannot be read.
    """
    if isinstance(image, np.ndarray):
        return prepare_pixels(image, size_px=size_px), (image.shape[0], image.shape[1]), "array"
    if isinstance(image, Image.Image):
        pixels = read_pillow(image)
        return prepare_pixels(pixels, size_px=size_px), (pixels.shape[0], pixels.shape[1]), _name_of(image)
    return *read_image_and_size(image, size_px=size_px), str(image)


def prepare_pixels(pixels: NDArray[Any], *, size_px: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Convert an array to what ``read_image`` returns: a file and its pixels as an array give identical results.

    Args:
        pixels: uint8 (0..255) or uint16 (0..65535); (H, W) or (H, W, 1) grey, (H, W, 3) RGB, (H, W, 4) RGB and alpha,
            which is blended over black. The caller must convert OpenCV's BGR to RGB.
        size_px: (height, width) to resize to; None keeps the array's own size.

    Returns:
        (H, W, 3) uint8, writable, never the array itself.

    Raises:
        ImageError: another type or shape; floating point, because its range cannot be known.
        ConfigError: ``size_px`` is not two positive integers.
    """
    if pixels.dtype.kind != "u" or pixels.dtype.itemsize > 2:
        raise ImageError(
            f"array: {pixels.dtype} pixels, whose range is unknown; pass uint8 (0 to 255) or uint16 (0 to 65535), "
            f"for values from 0 to 1 as (255 * pixels).round().astype('uint8')"
        )
    if pixels.ndim not in (2, 3) or pixels.size == 0 or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        raise ImageError(f"array: shape {pixels.shape}; wanted (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    flat = _over_black(_to_8_bit(pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]))
    rgb = np.array(np.broadcast_to(flat, (*flat.shape[:2], 3)))  # (H, W, 1 or 3) -> (H, W, 3)
    if size_px is None:
        return rgb
    height, width = checked_size(size_px)
    return np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=None))


def read_mask(
    path: str | os.PathLike[str] | EncodedImage,
    *,
    image_size_px: tuple[int, int] | None,
    size_px: tuple[int, int] | None = None,
    any_value: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.bool_]:
    """Read a pixel mask: True on defective pixels.

    A pixel is defective where its value is at least half of the *format's* range (128 of 255, 32768 of 65535), whatever
    the largest value in the file. There is one exception: in a losslessly stored mask that holds nothing but 0 and 1,
    the value 1 is defective. So faint compression artefacts (like 0 to 3) are no defect, and neither are class numbers:
    write those as 255. In a coloured mask the brightest channel counts, so pure red is defective; transparency counts
    as black.

    Args:
        path: the mask's file, in any format of ``read_image``; its orientation is applied too.
        image_size_px: (height, width) of its upright image, which the mask must match; None skips the check.
        size_px: (height, width) to resize to: antialiased bilinear on floats 0 and 1, defective where at least 0.5.
        any_value: every value but 0 is defective, as in the published masks of some datasets.
        max_pixels: as for ``read_image``.

    Returns:
        (H, W) bool.

    Raises:
        ImageError: as ``read_image``, and where the mask's size differs from its image's.
        ConfigError: ``size_px`` is not two positive integers.
    """
    path = path if isinstance(path, EncodedImage) else Path(path)
    pixels, lossy = _decode(path, max_pixels)
    if image_size_px is not None and pixels.shape[:2] != tuple(image_size_px):
        raise ImageError(
            f"{path}: the mask is {_shown_size(pixels.shape)} (height x width), "
            f"its image {_shown_size(image_size_px)}; export both at one size"
        )
    value = _over_black(pixels).max(axis=2)  # (H, W)
    half = 128 if value.dtype == np.uint8 else 32768
    threshold = 1 if any_value or (not lossy and value.max() == 1) else half
    mask: NDArray[np.bool_] = value >= threshold
    return mask if size_px is None else resize_mask(mask, size_px)


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


def list_images(path: str | os.PathLike[str]) -> list[Path]:
    """List the images below a folder, at any depth, by their suffix (``IMAGE_SUFFIXES``) in upper or lower case.

    Hidden files and folders are skipped, linked folders are not entered. A path to a file returns that file.

    Returns:
        Paths that start with ``path``, in natural order (``2.png`` before ``10.png``), the same on every machine.

    Raises:
        DataError: no such path, or no image in it.
    """
    top = Path(path)
    if top.is_file():
        return [top]
    if not top.is_dir():
        raise DataError(f"{top}: no such folder; check the path")
    found = []
    for folder, subfolders, names in os.walk(top):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [Path(folder, n) for n in names if not n.startswith(".") and Path(n).suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise DataError(f"{top}: no image in it; wanted files that end in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return sorted(found, key=natural_key)


def natural_key(path: Path) -> tuple[Any, ...]:
    """Return a sort key: folder by folder, numbers by their value, upper and lower case alike."""
    parts = [re.split(r"(\d+)", part.casefold()) for part in path.parts]
    return ([[int(t) if i % 2 else t for i, t in enumerate(tokens)] for tokens in parts], str(path))


def _decode(path: Path | EncodedImage, max_pixels: int) -> tuple[NDArray[Any], bool]:
    """Decode a file to upright pixels (H, W, 1, 3 or 4), uint8 or uint16; also return whether compression lost any."""
    with _opened(path, max_pixels) as image:
        return _pixels_of(image, path)


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


def _name_of(image: Image.Image) -> str:
    return str(getattr(image, "filename", "") or "PIL image")


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
            f"{path}: {_shown_size((height, width))} (height x width) are above the limit of {max_pixels:,} pixels; "
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


def _to_8_bit(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert 0..65535 to 0..255, rounded: 65535 is 255 x 257, so this is exact."""
    if pixels.dtype.itemsize == 1:
        return pixels
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _over_black(pixels: NDArray[Any]) -> NDArray[Any]:
    """Blend (H, W, 4) uint8 over black: (H, W, 3), rounded. Return anything else as it is."""
    if pixels.shape[2] != 4:
        return pixels
    colour, alpha = pixels[:, :, :3].astype(np.uint16), pixels[:, :, 3:].astype(np.uint16)
    return ((colour * alpha + 127) // 255).astype(np.uint8)


def _shown_size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]:,} x {shape[1]:,} px"
