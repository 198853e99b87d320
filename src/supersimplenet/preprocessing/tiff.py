"""TIFF: the tags that decide what the pixels mean, checked against what is known to be read correctly.

Pillow decodes; it guesses where it does not know a combination of tags, and fills what is missing. So a page is first
checked here: its combination must be one of those that the tests compare with other decoders, and all of its strips or
tiles must be there.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from supersimplenet.preprocessing.image_file import (
    REPAIR,
    Content,
    Header,
    Limits,
    TruncatedFileError,
    UnusableFileError,
)
from supersimplenet.preprocessing.jpeg import decode_strictly
from supersimplenet.preprocessing.pillow_formats import both_bytes, opened, pixels_of

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST_PAGES = 10_000
_ADVICE = "save it as grey or RGB with 8 or 16 bits"
_TYPES = {1: "B", 3: "H", 4: "I", 7: "B", 16: "Q"}


class _Tag(IntEnum):
    """The tags that decide what the pixels mean; the names of TIFF 6.0, shortened."""

    SUBFILE = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS = 278
    LENGTHS = 279
    PLANAR = 284
    PREDICTOR = 317
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_LENGTHS = 325
    EXTRA = 338
    FORMAT = 339
    JPEG_TABLES = 347


_TAGS = frozenset(_Tag)
_NONE, _JPEG = 1, 7
_LOSSLESS = {5: "LZW", 8: "Deflate", 32946: "Deflate", 32773: "PackBits", 34925: "LZMA", 50000: "Zstandard"}
# Not read: fax compression (2 to 4), whose decoders fill what is damaged, old JPEG (6) and the rest.
_COMPRESSIONS = {_NONE: "none", _JPEG: "JPEG", **_LOSSLESS}
_WHITE_IS_0, _BLACK_IS_0, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {
    _WHITE_IS_0: "white-is-zero",
    _BLACK_IS_0: "black-is-zero",
    _RGB: "RGB",
    _PALETTE: "palette",
    _CMYK: "CMYK",
    _YCBCR: "YCbCr",
    8: "CIELab",
    32803: "colour filter array",
}
_UNSPECIFIED, _PREMULTIPLIED, _STRAIGHT = 0, 1, 2
# Colours: their number of samples, bits a sample, and kinds of one extra sample; None for no extra sample.
_KNOWN: dict[int, tuple[int, dict[int, tuple[int | None, ...]]]] = {
    _WHITE_IS_0: (1, {1: (None,), 2: (None,), 4: (None,), 8: (None,), 16: (None,)}),
    _BLACK_IS_0: (
        1,
        {
            **dict.fromkeys((1, 2, 4, 12, 16), (None,)),
            8: (None, _UNSPECIFIED, _PREMULTIPLIED, _STRAIGHT),
        },
    ),
    _RGB: (3, dict.fromkeys((8, 16), (None, _UNSPECIFIED, _PREMULTIPLIED, _STRAIGHT))),
    _PALETTE: (1, dict.fromkeys((1, 2, 4, 8), (None,))),
    _CMYK: (4, {8: (None,)}),
    _YCBCR: (3, {8: (None,)}),
}
_FORMATS = {2: "signed or 32-bit integer", 3: "floating-point", 4: "untyped", 5: "complex", 6: "complex"}


@dataclass(frozen=True, kw_only=True)
class _Page:
    """One page's tags, the place and type of each tag's value in the file, and the place of the page itself."""

    tags: Mapping[int, tuple[int, ...]]
    value_at: Mapping[int, tuple[int, str]]
    offset: int
    order: str
    big: bool

    @property
    def size_px(self) -> tuple[int, int]:
        return self.one(_Tag.HEIGHT, 0), self.one(_Tag.WIDTH, 0)

    def one(self, tag: int, default: int) -> int:
        return self.tags.get(tag, (default,))[0]


def open_tiff(content: Content, limits: Limits, page: int | None) -> Header:
    """Read the tags of a page; see `Header`.

    Args:
        content: the file.
        limits: bounds of a page's size.
        page: number of the page, from 0; None for the largest, the first of them where several are equally large.

    Raises:
        UnusableFileError: the tags are damaged or not a known combination, or there is no such page.
    """
    pages = _read_pages(content)
    if page is None:
        photographs = [
            each for each in pages if not each.one(_Tag.SUBFILE, 0) & 4
        ] or pages  # 4: a mask of transparency
        chosen = max(photographs, key=lambda each: each.size_px[0] * each.size_px[1])
    elif page < len(pages):
        chosen = pages[page]
    else:
        raise UnusableFileError(f"has no page {page}, as it has {len(pages)}, counted from 0; choose one of them")
    limits.check_size(chosen.size_px)
    _check_combination(chosen)
    orientation = chosen.one(_Tag.ORIENTATION, 1)
    return Header(
        size_px=chosen.size_px,
        orientation=orientation if 1 <= orientation <= 8 else 1,
        lossy=chosen.one(_Tag.COMPRESSION, 1) == _JPEG,
        range_stated=chosen.one(_Tag.BITS, 1) < 16,
        pixels=partial(_decode, page=chosen),
    )


def _decode(content: bytes, *, page: _Page) -> NDArray[Any]:
    _check_parts(content, page)
    white_is_0 = page.one(_Tag.PHOTOMETRIC, 0) == _WHITE_IS_0
    bits, extra = page.one(_Tag.BITS, 1), page.tags.get(_Tag.EXTRA, ())
    changed: dict[int, int] = {_Tag.ORIENTATION: 1}
    if white_is_0 and bits == 16:
        changed[_Tag.PHOTOMETRIC] = _BLACK_IS_0  # Pillow does not invert 16 bits
    if extra == (_PREMULTIPLIED,):
        changed[_Tag.EXTRA] = _STRAIGHT  # else Pillow divides by alpha
    patched = _with_tags(content, page, changed)
    if bits == 16 and page.one(_Tag.PHOTOMETRIC, 0) == _RGB:
        pixels: NDArray[Any] = both_bytes(lambda: opened(patched, "TIFF"))
    else:
        pixels = pixels_of(opened(patched, "TIFF"))
    if white_is_0 and bits == 16:
        pixels = 65535 - pixels
    if bits == 12:
        pixels = over_full_range(pixels)
    # Premultiplied colours are those over black already.
    return pixels[:, :, :3] if extra == (_PREMULTIPLIED,) else pixels


def has_12_bits(image: Image.Image) -> bool:
    """Return whether an image that Pillow has loaded holds the 12 bits of a TIFF, which Pillow does not scale."""
    return isinstance(image, TiffImageFile) and image.tag_v2.get(_Tag.BITS) == (12,)


def over_full_range(pixels: NDArray[Any]) -> NDArray[np.uint16]:
    """Scale 0..4095 to 0..65535, rounded."""
    return ((pixels.astype(np.uint32) * 65535 + 2047) // 4095).astype(np.uint16)


def _with_tags(content: bytes, page: _Page, changed: Mapping[int, int]) -> bytes:
    """Return the file with this page as its first one, and with other values of tags that the page has."""
    patches = [((8, "Q") if page.big else (4, "I"), page.offset)]
    patches += [(page.value_at[tag], value) for tag, value in changed.items() if tag in page.tags]
    patched = bytearray(content)
    for (at, kind), value in patches:
        struct.pack_into(page.order + kind, patched, at, value)
    return bytes(patched) if patched != content else content


# --- tags --------------------------------------------------------------------------------------------------------


def _read_pages(content: Content) -> list[_Page]:
    head = content[:16]
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] in (b"+\0", b"\0+")
    if len(head) < 16:
        raise TruncatedFileError
    (offset,) = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)
    pages: list[_Page] = []
    seen = set()
    while offset:
        if offset in seen:
            raise UnusableFileError(f"damaged (TIFF pages that go in a circle); {REPAIR}")
        if len(pages) == _MOST_PAGES:
            raise UnusableFileError(f"TIFF of more than {_MOST_PAGES:,} pages; split it")
        seen.add(offset)
        page, offset = _read_page(content, offset, order, big)
        pages.append(page)
    if not pages:
        raise UnusableFileError(f"damaged (TIFF without a page); {REPAIR}")
    return pages


def _read_page(content: Content, offset: int, order: str, big: bool) -> tuple[_Page, int]:
    count_type, entry_bytes, inline, pointer = ("Q", 20, 8, "Q") if big else ("H", 12, 4, "I")
    count_bytes = struct.calcsize(count_type)
    (count,) = _unpacked(content, offset, order + count_type)
    start = offset + count_bytes
    if start + count * entry_bytes > len(content):
        raise TruncatedFileError
    table = content[start : start + count * entry_bytes + inline]
    if len(table) < count * entry_bytes + inline:
        raise TruncatedFileError
    tags: dict[int, tuple[int, ...]] = {}
    value_at = {}
    for number in range(count):
        at = number * entry_bytes
        tag, kind, length = struct.unpack_from(order + "HH" + pointer, table, at)
        if tag not in _TAGS:
            continue
        if tag in tags:
            raise UnusableFileError(f"damaged (TIFF tag {tag} is there twice); {REPAIR}")
        if kind not in _TYPES or not length:
            raise UnusableFileError(f"damaged (TIFF tag {tag} of type {kind} with {length} values); {REPAIR}")
        place = start + at + entry_bytes - inline
        if struct.calcsize(_TYPES[kind]) * length > inline:
            (place,) = struct.unpack_from(order + pointer, table, at + entry_bytes - inline)
        tags[tag] = _unpacked(content, place, f"{order}{length}{_TYPES[kind]}")
        value_at[tag] = place, _TYPES[kind]
    (following,) = struct.unpack_from(order + pointer, table, count * entry_bytes)
    return _Page(tags=tags, value_at=value_at, offset=offset, order=order, big=big), following


def _unpacked(content: Content, at: int, form: str) -> tuple[int, ...]:
    size = struct.calcsize(form)
    if at + size > len(content):
        raise TruncatedFileError
    return struct.unpack(form, content[at : at + size])


# --- what is known to be read correctly --------------------------------------------------------------------------


def _check_combination(page: _Page) -> None:
    tags = page.tags
    if _Tag.PHOTOMETRIC not in tags:
        raise UnusableFileError(f"TIFF that does not say which colours it has; {_ADVICE}")
    colour = page.one(_Tag.PHOTOMETRIC, 0)
    samples, bits = page.one(_Tag.SAMPLES, 1), tags.get(_Tag.BITS, (1,))
    formats, extra = tags.get(_Tag.FORMAT, (1,)), tags.get(_Tag.EXTRA, ())
    compression, predictor = page.one(_Tag.COMPRESSION, _NONE), page.one(_Tag.PREDICTOR, 1)
    if (other := max(formats)) != 1 or min(formats) != 1:
        kind = _FORMATS.get(other, f"unknown ({other})")
        raise UnusableFileError(f"{kind} pixels, whose range is unknown; scale them and save as 8 or 16 bit")
    if max(bits) > 16:
        raise UnusableFileError(
            f"TIFF with {max(bits)} bits a sample, {max(bits)}-bit integer pixels, whose range is unknown; "
            "scale them and save as 8 or 16 bit"
        )
    if colour not in _KNOWN:
        raise UnusableFileError(f"TIFF with {_named(_COLOURS, colour)} colours; {_ADVICE}")
    colours, kinds = _KNOWN[colour]
    if samples != colours + len(extra) or len(bits) not in (1, samples):
        raise UnusableFileError(f"TIFF with {samples} samples a pixel of {_COLOURS[colour]} colours; {_ADVICE}")
    shown = f"{'/'.join(map(str, sorted(set(bits))))} bits a sample of {_COLOURS[colour]} colours"
    if len(set(bits)) > 1 or bits[0] not in kinds:
        raise UnusableFileError(f"TIFF with {shown}; {_ADVICE}")
    if len(extra) > 1 or (extra[0] if extra else None) not in kinds[bits[0]]:
        raise UnusableFileError(f"TIFF with {shown} and extra samples {extra}; {_ADVICE}")
    if compression not in _COMPRESSIONS:
        raise UnusableFileError(
            f"TIFF with compression {compression}; save it with LZW, Deflate, PackBits or without compression"
        )
    _check_layout(page, colour, bits[0], extra, compression, predictor)


def _check_layout(
    page: _Page, colour: int, bits: int, extra: tuple[int, ...], compression: int, predictor: int
) -> None:
    """Check how the samples are stored."""
    shown = f"TIFF with {_COMPRESSIONS[compression]} compression"
    planar, fill_order = page.one(_Tag.PLANAR, 1), page.one(_Tag.FILL_ORDER, 1)
    if predictor not in (1, 2) or (predictor == 2 and (compression in (_NONE, 32773) or bits not in (8, 16))):
        raise UnusableFileError(f"{shown} and predictor {predictor} of {bits} bits; save it without a predictor")
    if (compression == _JPEG) != (colour == _YCBCR) and not (compression == _JPEG and colour in (_BLACK_IS_0, _RGB)):
        raise UnusableFileError(f"{shown} of {_COLOURS[colour]} colours; {_ADVICE}")
    if compression == _JPEG and (bits != 8 or extra or planar != 1):
        raise UnusableFileError(f"{shown} of {bits} bits, with extra samples or planes; {_ADVICE}")
    if bits == 12 and compression != _NONE:
        raise UnusableFileError(f"{shown} of 12 bits; {_ADVICE}")
    if planar not in (1, 2) or (
        planar == 2 and page.one(_Tag.SAMPLES, 1) > 1 and (bits != 8 or extra or colour != _RGB)
    ):
        raise UnusableFileError(
            f"TIFF with planes (planar configuration {planar}) of {bits} bits; save it with interleaved samples"
        )
    if fill_order not in (1, 2) or (fill_order == 2 and (bits > 8 or page.one(_Tag.SAMPLES, 1) > 1)):
        raise UnusableFileError(f"TIFF with fill order {fill_order} of {bits} bits; save it with fill order 1")


def _named(names: Mapping[int, str], value: int) -> str:
    return names.get(value, f"unknown ({value})")


# --- strips and tiles --------------------------------------------------------------------------------------------


def _check_parts(content: bytes, page: _Page) -> None:
    """Check that every strip or tile is there; Pillow leaves pixels black where one is missing."""
    needed = _bytes_by_part(page)
    tiled = _Tag.TILE_OFFSETS in page.tags
    offsets = page.tags.get(_Tag.TILE_OFFSETS if tiled else _Tag.OFFSETS, ())
    lengths = page.tags.get(_Tag.TILE_LENGTHS if tiled else _Tag.LENGTHS, ())
    if page.one(_Tag.COMPRESSION, _NONE) != _NONE:
        needed = [1] * len(needed)  # the decoder checks the rest
    elif not lengths:
        lengths = tuple(needed)
    if not len(offsets) == len(lengths) == len(needed) or (tiled and _Tag.OFFSETS in page.tags):
        raise UnusableFileError(
            f"damaged (TIFF with {len(offsets)} offsets and {len(lengths)} lengths of its {len(needed)} strips or "
            f"tiles); {REPAIR}"
        )
    for number, (offset, length) in enumerate(zip(offsets, lengths, strict=True)):
        if offset + length > len(content):
            raise TruncatedFileError
        if length < needed[number]:
            raise UnusableFileError(
                f"damaged (TIFF strip or tile {number} has {length:,} of {needed[number]:,} bytes); {REPAIR}"
            )
    if page.one(_Tag.COMPRESSION, _NONE) == _JPEG:
        _check_jpeg(content, page, offsets, lengths)


def _bytes_by_part(page: _Page) -> list[int]:
    """Return the number of bytes that each strip or tile has without compression, one plane after another."""
    (height, width), samples = page.size_px, page.one(_Tag.SAMPLES, 1)
    if _Tag.TILE_OFFSETS in page.tags:
        part_height, part_width = page.one(_Tag.TILE_HEIGHT, 0), page.one(_Tag.TILE_WIDTH, 0)
        heights = [part_height] * -(-height // max(part_height, 1))
    else:
        part_height, part_width = min(page.one(_Tag.ROWS, height), height), width
        heights = [min(part_height, height - top) for top in range(0, height, max(part_height, 1))]
    if part_height < 1 or part_width < 1:
        raise UnusableFileError(f"damaged (TIFF parts of {part_height} x {part_width} px); {REPAIR}")
    planes = samples if page.one(_Tag.PLANAR, 1) == 2 else 1
    row_bytes = -(-part_width * page.one(_Tag.BITS, 1) * (samples // planes) // 8)
    across = -(-width // part_width)
    return [rows * row_bytes for rows in heights for _ in range(across)] * planes


def _check_jpeg(content: bytes, page: _Page, offsets: tuple[int, ...], lengths: tuple[int, ...]) -> None:
    """Decode each part once more, with a decoder that does not hide damage."""
    tables = bytes(page.tags.get(_Tag.JPEG_TABLES, ()))[:-2]  # without its end marker
    for offset, length in zip(offsets, lengths, strict=True):
        part = content[offset : offset + length]
        decode_strictly(tables + part[2:] if tables else part, 1 if page.one(_Tag.SAMPLES, 1) == 1 else 3)
