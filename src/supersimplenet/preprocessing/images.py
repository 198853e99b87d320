"""Image reading: the only way from a file or an array to pixels, for training, evaluation, export and serving.

The steps, in order, with their reasons:

1. The file's bytes are decoded (`supersimplenet.preprocessing.decoding`): of an animation the first frame, of a TIFF's
   pages the largest. What is damaged, or not known to be read correctly, is refused.
2. More than 8 bits become 8, rounded over their range (0..65535 -> 0..255). This comes before the resize, so that a
   16-bit file and an 8-bit copy of it give the same pixels. Colours of JPEG 2000 with 16 bits alone are cut. A sensor's
   10 or 12 bits in 16-bit values have the range of the dataset's bit depth (0..4095 -> 0..255 for 12), and a value
   above it is refused. Values of 8 bits, and those of a file that says how many bits it has, keep their own range.
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
from supersimplenet.preprocessing.decoding import (
    Decoded,
    EncodedImage,
    decode,
    decode_opened,
    name_of,
    read_file,
)
from supersimplenet.preprocessing.geometry import checked_size, resize_mask
from supersimplenet.preprocessing.image_file import Limits
from supersimplenet.preprocessing.reading import FULL_RANGE, MOST_BITS, ReadConfig, bits_for
from supersimplenet.utils.formatting import shown_px

AnyImage = str | Path | EncodedImage | Image.Image | NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """Facts about an image file besides its pixels.

    Attributes:
        sha256: SHA-256 of the file's content, 64 hexadecimal digits.
        pixels: see `pixel_digest`.
        size_px: (height, width), upright.
        lowest: smallest value of the pixels but for transparency, in the file's own bits.
        highest: largest value, likewise.
        range_open: see `Decoded`.
    """

    sha256: str
    pixels: str
    size_px: tuple[int, int]
    lowest: int
    highest: int
    range_open: bool = False


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
    path: str | Path, *, size_px: tuple[int, int] | None = None, reading: ReadConfig = FULL_RANGE
) -> tuple[NDArray[np.uint8], tuple[int, int], ImageFacts]:
    """Read an image file once, as `read_image` does; also return its own size and the facts about the file.

    Args:
        path: see `read_image`.
        size_px: likewise.
        reading: likewise.

    Raises:
        ImageError: as `read_image`.
    """
    import hashlib  # see `pixel_digest`

    limits = Limits.from_environment()
    content = read_file(Path(path), limits)
    decoded = decode(EncodedImage(str(path), lambda: content), limits=limits, page=reading.page)
    own = _prepare(decoded, str(path), reading)
    values = decoded.pixels[:, :, :3]
    facts = ImageFacts(
        sha256=hashlib.sha256(content).hexdigest(),
        pixels=pixel_digest(own),
        size_px=(own.shape[0], own.shape[1]),
        lowest=int(values.min()),
        highest=int(values.max()),
        range_open=decoded.range_open,
    )
    return own if size_px is None else prepare_pixels(own, size_px=size_px), facts.size_px, facts


def read_image(
    path: str | os.PathLike[str] | EncodedImage,
    *,
    size_px: tuple[int, int] | None = None,
    limits: Limits | None = None,
    reading: ReadConfig = FULL_RANGE,
) -> NDArray[np.uint8]:
    """Read an image file, upright and in RGB, as the module's docstring describes.

    Args:
        path: BMP, GIF, JPEG, JPEG 2000, PNG, PBM/PGM/PPM, TIFF or WebP; or the bytes of such a file.
        size_px: (height, width) to resize to; None keeps the file's own size.
        limits: bounds on pixels, bytes and time, checked before any pixel is decoded; by default those of the
            environment.
        reading: which bits count, and which page.

    Returns:
        (H, W, 3) uint8, writable.

    Raises:
        ImageError: the file is missing, a folder, empty, truncated, no image or too large, its pixels have no known
            range (floating point, 32-bit integers), or a value is above the range that ``reading`` gives.
        ConfigError: ``size_px`` is not two positive integers.
    """
    return read_image_and_size(path, size_px=size_px, limits=limits, reading=reading)[0]


def read_image_and_size(
    path: str | os.PathLike[str] | EncodedImage,
    *,
    size_px: tuple[int, int] | None = None,
    limits: Limits | None = None,
    reading: ReadConfig = FULL_RANGE,
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Read an image as `read_image` does; also return the image's own (height, width) in px."""
    path = path if isinstance(path, EncodedImage) else Path(path)
    decoded = decode(path, limits=limits, page=reading.page)
    return _prepare(decoded, str(path), reading, size_px=size_px), decoded.pixels.shape[:2]


def read_pillow(image: Image.Image, *, reading: ReadConfig = FULL_RANGE) -> NDArray[np.uint8]:
    """Return an image that Pillow has opened, upright and in RGB: the same as ``read_image`` returns for its file.

    Args:
        image: of any mode whose range is known; EXIF orientation is applied where the image still carries it.
        reading: see `read_image`; its page counts where the image stands at its first.

    Returns:
        (H, W, 3) uint8, writable.

    Raises:
        ImageError: pixels without a known range (floating point, 32-bit integers), a value above the range, or a file
            that cannot be decoded.
    """
    return _prepare(decode_opened(image, page=reading.page), name_of(image), reading)


def read_any(
    image: AnyImage, *, size_px: tuple[int, int] | None = None, reading: ReadConfig = FULL_RANGE
) -> tuple[NDArray[np.uint8], tuple[int, int], str]:
    """Read an image in any form that the package takes.

    Args:
        image: a path, an image file's bytes, an image that Pillow has opened, or an array as `prepare_pixels` takes it.
        size_px: (height, width) to resize to; None keeps the image's own size.
        reading: see `read_image`.

    Returns:
        (H, W, 3) uint8; the image's own (height, width) in px; its name for errors.

    Raises:
        ImageError: the image cannot be read.
    """
    if isinstance(image, np.ndarray):
        pixels = prepare_pixels(image, size_px=size_px, reading=reading)
        return pixels, (image.shape[0], image.shape[1]), "array"
    if isinstance(image, Image.Image):
        pixels = read_pillow(image, reading=reading)
        return prepare_pixels(pixels, size_px=size_px), (pixels.shape[0], pixels.shape[1]), name_of(image)
    return *read_image_and_size(image, size_px=size_px, reading=reading), str(image)


def prepare_pixels(
    pixels: NDArray[Any], *, size_px: tuple[int, int] | None = None, reading: ReadConfig = FULL_RANGE
) -> NDArray[np.uint8]:
    """Convert an array to what ``read_image`` returns: a file and its pixels as an array give identical results.

    Args:
        pixels: uint8 (0..255) or uint16 (0..65535); (H, W) or (H, W, 1) grey, (H, W, 3) RGB, (H, W, 4) RGB and alpha,
            which is blended over black. The caller must convert OpenCV's BGR to RGB.
        size_px: (height, width) to resize to; None keeps the array's own size.
        reading: which bits of uint16 count.

    Returns:
        (H, W, 3) uint8, writable, never the array itself.

    Raises:
        ImageError: another type or shape; floating point, because its range cannot be known; or a value above the
            range.
        ConfigError: ``size_px`` is not two positive integers.
    """
    if pixels.dtype.kind != "u" or pixels.dtype.itemsize > 2:
        raise ImageError(
            f"array: {pixels.dtype} pixels, whose range is unknown; pass uint8 (0 to 255) or uint16 (0 to 65535), "
            f"for values from 0 to 1 as (255 * pixels).round().astype('uint8')"
        )
    if pixels.ndim not in (2, 3) or pixels.size == 0 or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)):
        raise ImageError(f"array: shape {pixels.shape}; wanted (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    decoded = Decoded(pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis], False, pixels.dtype.itemsize > 1)
    return _prepare(decoded, "array", reading, size_px=size_px)


def _prepare(
    decoded: Decoded, name: str, reading: ReadConfig, *, size_px: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Return decoded pixels in RGB, with 8 bits, at a size (None for their own); errors have the name."""
    bits = reading.bit_depth if decoded.range_open else MOST_BITS
    flat = _over_black(_to_8_bit(decoded.pixels, bits, name))
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
    reading: ReadConfig = FULL_RANGE,
) -> NDArray[np.bool_]:
    """Read a pixel mask: True on defective pixels.

    A pixel is defective where its value is at least half of the *format's* range (128 of 255, 32768 of 65535), whatever
    the largest value in the file. Where fewer of the 16 bits count, their range does instead (2048 of 4095), unless a
    value of the mask is above it. There is one exception: in a losslessly stored mask that holds nothing but 0 and 1,
    the value 1 is defective. So faint compression artefacts (like 0 to 3) are no defect, and neither are class numbers:
    write those as 255. In a coloured mask the brightest channel counts, so pure red is defective; transparency counts
    as black.

    Args:
        path: the mask's file, in any format of ``read_image``; its orientation is applied too.
        image_size_px: (height, width) of its upright image, which the mask must match; None skips the check.
        size_px: (height, width) to resize to: antialiased bilinear on floats 0 and 1, defective where at least 0.5.
        any_value: every value but 0 is defective, as in the published masks of some datasets.
        limits: as for ``read_image``.
        reading: which bits count in images of the mask's dataset.

    Returns:
        (H, W) bool.

    Raises:
        ImageError: as ``read_image``, and where the mask's size differs from its image's.
        ConfigError: ``size_px`` is not two positive integers.
    """
    path = path if isinstance(path, EncodedImage) else Path(path)
    decoded = decode(path, limits=limits)
    if image_size_px is not None and decoded.pixels.shape[:2] != tuple(image_size_px):
        raise ImageError(
            f"{path}: the mask is {shown_px(decoded.pixels.shape)} (height x width), "
            f"its image {shown_px(image_size_px)}; export both at one size"
        )
    value, bits = _levels(decoded, reading)
    threshold = 1 if any_value or (not decoded.lossy and value.max() == 1) else 1 << (bits - 1)
    mask: NDArray[np.bool_] = value >= threshold
    return mask if size_px is None else resize_mask(mask, size_px)


def read_mask_levels(path: Path, *, reading: ReadConfig = FULL_RANGE) -> NDArray[np.uint8]:
    """Return the values (H, W) of a mask file, by which `read_mask` decides, 0 to 255."""
    value, bits = _levels(decode(path), reading)
    return _to_8_bit(value[:, :, np.newaxis], bits, str(path))[:, :, 0]


def _levels(decoded: Decoded, reading: ReadConfig) -> tuple[NDArray[Any], int]:
    """Return the values (H, W) of a mask, and the bits of their range."""
    value = _over_black(decoded.pixels).max(axis=2)
    if value.dtype.itemsize == 1:
        return value, 8
    fits = decoded.range_open and int(value.max()) < 1 << reading.bit_depth
    return value, reading.bit_depth if fits else MOST_BITS


def _to_8_bit(pixels: NDArray[Any], bits: int, name: str) -> NDArray[np.uint8]:
    """Convert 0..2**bits - 1 to 0..255, rounded; transparency has 16 bits always."""
    if pixels.dtype.itemsize == 1:
        return pixels
    if bits == MOST_BITS:
        return _scaled(pixels, bits)
    colours = pixels[:, :, :3]
    if (highest := int(colours.max())) >= 1 << bits:
        raise ImageError(
            f"{name}: a value of {highest:,} is above the {bits} bits (at most {(1 << bits) - 1:,}) that the training "
            f"fixed for its images; set the camera as then, or train with --data.bit_depth {bits_for(highest)}"
        )
    alpha = pixels[:, :, 3:]
    return np.concatenate([_scaled(colours, bits), _scaled(alpha, MOST_BITS)], axis=2)


def _scaled(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    full = (1 << bits) - 1  # odd, so no value lies halfway between two
    return ((values.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)


def _over_black(pixels: NDArray[Any]) -> NDArray[Any]:
    """Blend (H, W, 4) over black: (H, W, 3), rounded. Return anything else as it is."""
    if pixels.shape[2] != 4:
        return pixels
    wide, full = (np.uint16, 255) if pixels.dtype.itemsize == 1 else (np.uint32, 65535)
    colour, alpha = pixels[:, :, :3].astype(wide), pixels[:, :, 3:].astype(wide)
    return ((colour * alpha + full // 2) // full).astype(pixels.dtype)
