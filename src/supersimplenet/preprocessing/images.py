"""Image reading: the only way from a file or an array to pixels, for training, evaluation, export and serving.

The steps, in order, with their reasons:

1. The file's bytes are decoded (`supersimplenet.preprocessing.decoding`): of an animation the first frame, of a TIFF's
   pages the largest. What is damaged, or not known to be read correctly, is refused.
2. More than 8 bits become 8, rounded over the format's range (0..65535 -> 0..255). This comes before the resize, so
   that a 16-bit file and an 8-bit copy of it give the same pixels. Colours of JPEG 2000 with 16 bits alone are cut.
3. Transparency is blended over black, so that content erased in an editor does not reappear.
4. EXIF orientation is applied if it is stored before the pixel data.
5. Grey becomes RGB; CMYK and the like are converted without colour profiles.
6. Antialiased bilinear resize to (height, width), on 8 bits, by Pillow.

Needs no torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from supersimplenet.errors import ImageError
from supersimplenet.preprocessing.decoding import EncodedImage, decode, decode_opened, name_of, read_file
from supersimplenet.preprocessing.geometry import checked_size, resize_mask
from supersimplenet.preprocessing.image_file import Limits
from supersimplenet.utils.formatting import shown_px

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

    limits = Limits.from_environment()
    content = read_file(Path(path), limits)
    pixels, _ = decode(EncodedImage(str(path), lambda: content), limits=limits)
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
    path: str | os.PathLike[str] | EncodedImage,
    *,
    size_px: tuple[int, int] | None = None,
    limits: Limits | None = None,
    page: int | None = None,
) -> NDArray[np.uint8]:
    """Read an image file, upright and in RGB, as the module's docstring describes.

    Args:
        path: BMP, GIF, JPEG, JPEG 2000, PNG, PBM/PGM/PPM, TIFF or WebP; or the bytes of such a file.
        size_px: (height, width) to resize to; None keeps the file's own size.
        limits: bounds on pixels, bytes and time, checked before any pixel is decoded; by default those of the
            environment.
        page: number of the page of a TIFF, from 0; None for the largest.

    Returns:
        (H, W, 3) uint8, writable.

    Raises:
        ImageError: the file is missing, a folder, empty, truncated, no image or too large, or its pixels have no known
            range (floating point, 32-bit integers).
        ConfigError: ``size_px`` is not two positive integers.
    """
    return read_image_and_size(path, size_px=size_px, limits=limits, page=page)[0]


def read_image_and_size(
    path: str | os.PathLike[str] | EncodedImage,
    *,
    size_px: tuple[int, int] | None = None,
    limits: Limits | None = None,
    page: int | None = None,
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Read an image as `read_image` does; also return the image's own (height, width) in px."""
    path = path if isinstance(path, EncodedImage) else Path(path)
    pixels, _ = decode(path, limits=limits, page=page)
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
    return prepare_pixels(decode_opened(image))


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
        return prepare_pixels(pixels, size_px=size_px), (pixels.shape[0], pixels.shape[1]), name_of(image)
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
    limits: Limits | None = None,
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
        limits: as for ``read_image``.

    Returns:
        (H, W) bool.

    Raises:
        ImageError: as ``read_image``, and where the mask's size differs from its image's.
        ConfigError: ``size_px`` is not two positive integers.
    """
    path = path if isinstance(path, EncodedImage) else Path(path)
    pixels, lossy = decode(path, limits=limits)
    if image_size_px is not None and pixels.shape[:2] != tuple(image_size_px):
        raise ImageError(
            f"{path}: the mask is {shown_px(pixels.shape)} (height x width), "
            f"its image {shown_px(image_size_px)}; export both at one size"
        )
    value = _over_black(pixels).max(axis=2)  # (H, W)
    half = 128 if value.dtype == np.uint8 else 32768
    threshold = 1 if any_value or (not lossy and value.max() == 1) else half
    mask: NDArray[np.bool_] = value >= threshold
    return mask if size_px is None else resize_mask(mask, size_px)


def _to_8_bit(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert 0..65535 to 0..255, rounded: 65535 is 255 x 257, so this is exact."""
    if pixels.dtype.itemsize == 1:
        return pixels
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _over_black(pixels: NDArray[Any]) -> NDArray[Any]:
    """Blend (H, W, 4) over black: (H, W, 3), rounded. Return anything else as it is."""
    if pixels.shape[2] != 4:
        return pixels
    wide, full = (np.uint16, 255) if pixels.dtype.itemsize == 1 else (np.uint32, 65535)
    colour, alpha = pixels[:, :, :3].astype(wide), pixels[:, :, 3:].astype(wide)
    return ((colour * alpha + full // 2) // full).astype(pixels.dtype)
