"""JPEG: its markers, and a decoder that refuses damage instead of filling the gaps."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image

from supersimplenet.preprocessing.image_file import (
    REPAIR,
    Content,
    Header,
    Limits,
    TruncatedFileError,
    UnusableFileError,
)

MAGIC = b"\xff\xd8\xff"
_EOI, _SOS, _APP1 = 0xD9, 0xDA, 0xE1
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_KINDS = frozenset({0xC0, 0xC1, 0xC2, 0xC3})  # baseline, extended, progressive, lossless
# Within entropy-coded data, 0xFF is followed by 0, by a restart marker or by a fill byte.
_NEXT_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_COLOURS = {1: "GRAY", 3: "RGB", 4: "CMYK"}


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """A JPEG's markers up to its first scan; see `Header`."""

    size_px: tuple[int, int]
    channels: int
    orientation: int
    data_at: int  # where the first scan's entropy-coded data begin


def open_jpeg(content: Content, limits: Limits) -> Header:
    """Read the markers before the pixels; see `Header`.

    Raises:
        UnusableFileError: the markers are damaged, or the kind of JPEG is not read.
    """
    frame = _read_frame(content)
    limits.check_size(frame.size_px)
    return Header(
        size_px=frame.size_px,
        orientation=frame.orientation,
        lossy=True,
        pixels=partial(_decode, frame=frame, limits=limits),
    )


def decode_strictly(content: bytes, channels: int) -> NDArray[Any]:
    """Decode a JPEG to (H, W, channels) uint8; a warning of the decoder is an error.

    Raises:
        UnusableFileError: the JPEG is damaged, or of a kind that the decoder does not read.
        TruncatedFileError: it ends early.
    """
    try:
        pixels: NDArray[Any] = simplejpeg.decode_jpeg(
            content, colorspace=_COLOURS[channels], fastdct=False, fastupsample=False, strict=True
        )
    except ValueError as error:
        reason = str(error)
        if "Premature end of JPEG file" in reason:
            raise TruncatedFileError from error
        if "subsampling" in reason:
            raise UnusableFileError(
                "JPEG with an unusual chroma subsampling; save it with 4:4:4, 4:2:2 or 4:2:0"
            ) from error
        raise UnusableFileError(f"damaged ({reason}); {REPAIR}") from error
    return pixels


def orientation_of(exif: bytes, xmp: bytes = b"") -> int:
    """Return the EXIF orientation, 1 to 8, from EXIF or, where that has none, from XMP; 1 where it means nothing."""
    tags = Image.Exif()
    if exif:
        tags.load(exif)
    value = tags.get(ExifTags.Base.Orientation)
    if value is None and (found := _XMP_ORIENTATION.search(xmp)):
        value = int(found[1])
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _read_frame(content: Content) -> _Frame:
    frame, exif, xmp, data_at = None, b"", b"", 0
    for marker, segment, end in _segments(content):
        if marker in _FRAMES:
            frame = _checked_frame(marker, segment)
        elif marker == _APP1 and segment.startswith(_EXIF):
            exif += segment[len(_EXIF) :] if exif else segment
        elif marker == _APP1 and segment.startswith(_XMP):
            xmp = segment
        elif marker == _SOS:
            data_at = end
            break
    if frame is None:
        raise UnusableFileError(f"damaged (JPEG without a frame header); {REPAIR}")
    height, width, channels = frame
    return _Frame(size_px=(height, width), channels=channels, orientation=orientation_of(exif, xmp), data_at=data_at)


def _segments(content: Content) -> Iterator[tuple[int, bytes, int]]:
    """Yield each marker with its segment and the segment's end."""
    at = 2
    while True:
        marker, at = _marker(content, at)
        if marker == _EOI:
            raise TruncatedFileError
        start, at = at + 2, at + int.from_bytes(content[at : at + 2], "big")
        if at < start or at > len(content):
            raise TruncatedFileError
        yield marker, content[start:at], at


def _checked_frame(marker: int, segment: bytes) -> tuple[int, int, int]:
    """Return height, width and number of channels of a frame header."""
    if marker not in _KINDS:
        raise UnusableFileError(
            "JPEG that is hierarchical or has arithmetic coding; save it as baseline JPEG or as PNG"
        )
    if len(segment) < 6:
        raise TruncatedFileError
    bits, height, width, channels = struct.unpack_from(">BHHB", segment)
    if bits != 8:
        raise UnusableFileError(f"JPEG with {bits} bits a sample; save it as PNG or TIFF with 8 or 16 bits")
    if channels not in _COLOURS:
        raise UnusableFileError(f"JPEG with {channels} channels; save it as grey or RGB")
    return height, width, channels


def _marker(content: Content, at: int) -> tuple[int, int]:
    """Return the marker at a position, and the position after it."""
    if content[at : at + 1] != b"\xff":
        if at >= len(content):
            raise TruncatedFileError
        raise UnusableFileError(f"damaged (no JPEG marker at byte {at:,}); {REPAIR}")
    while (code := content[at : at + 1]) == b"\xff":
        at += 1
    if not code:
        raise TruncatedFileError
    return code[0], at + 1


def _decode(content: bytes, *, frame: _Frame, limits: Limits) -> NDArray[Any]:
    _check_scans(content, frame, limits)
    pixels = decode_strictly(content, frame.channels)
    if frame.channels < 4:
        return pixels
    # As Adobe's programs write them and Pillow reads them: inverted.
    height, width = frame.size_px
    return np.array(Image.frombytes("CMYK", (width, height), (255 - pixels).tobytes()).convert("RGB"))


def _check_scans(content: bytes, frame: _Frame, limits: Limits) -> None:
    """Count the scans up to the end marker."""
    scans, at = 1, frame.data_at
    limits.check_scans(scans, frame.size_px)
    while (found := _NEXT_MARKER.search(content, at)) and found[0][1] != _EOI:
        scans += found[0][1] == _SOS
        limits.check_scans(scans, frame.size_px)
        at = found.end() + int.from_bytes(content[found.end() : found.end() + 2], "big")
