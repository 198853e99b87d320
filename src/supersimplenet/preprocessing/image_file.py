"""What the readers of image formats share: limits, bytes by position, headers, and how a format refuses a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, BinaryIO, Protocol

from numpy.typing import NDArray

from supersimplenet.errors import ConfigError
from supersimplenet.utils.formatting import shown_px

REPAIR = "re-export it"
_ENVIRONMENT = "SUPERSIMPLENET_"


class UnusableFileError(Exception):
    """A file's content cannot be used; the message is reason and remedy, to which the caller adds the file's name."""


class TruncatedFileError(Exception):
    """A file ends before its pixels do."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what one image file may cost, checked before its pixels are decoded.

    Each has an environment variable of its name, such as ``SUPERSIMPLENET_MAX_PIXELS``.

    Attributes:
        max_pixels: largest height times width.
        max_side: largest height and largest width in px.
        max_bytes: largest size of the file.
        max_scan_pixels: largest product of a JPEG's number of scans and of its pixels, which bounds the time that it
            takes to decode.
    """

    max_pixels: int = 200_000_000
    max_side: int = 1_000_000
    max_bytes: int = 1_000_000_000
    max_scan_pixels: int = 1_000_000_000

    @classmethod
    def from_environment(cls) -> Limits:
        """Return the limits with those that environment variables set.

        Raises:
            ConfigError: a variable is not a whole number of at least 1.
        """
        given = {}
        for field in fields(cls):
            variable = _ENVIRONMENT + field.name.upper()
            text = os.environ.get(variable)
            if text is None:
                continue
            try:
                given[field.name] = int(text)
            except ValueError:
                given[field.name] = 0
            if given[field.name] < 1:
                raise ConfigError(f"{variable}: {text!r}; wanted a whole number of at least 1, such as 400000000")
        return cls(**given)

    def check_size(self, size_px: tuple[int, int]) -> None:
        """Refuse an image whose (height, width) is above the limits.

        Raises:
            UnusableFileError: it is, or a side is 0.
        """
        height, width = size_px
        shown = f"{shown_px(size_px)} (height x width)"
        if height < 1 or width < 1:
            raise UnusableFileError(f"{shown}, so it has no pixel; {REPAIR}")
        if height * width > self.max_pixels:
            raise UnusableFileError(
                f"{shown} are above the limit of {self.max_pixels:,} pixels; "
                f"make it smaller, or raise {_ENVIRONMENT}MAX_PIXELS"
            )
        if max(size_px) > self.max_side:
            raise UnusableFileError(
                f"{shown} are above the limit of {self.max_side:,} px a side; "
                f"make it smaller, or raise {_ENVIRONMENT}MAX_SIDE"
            )

    def check_bytes(self, length: int) -> None:
        """Refuse a file of more bytes than the limit.

        Raises:
            UnusableFileError: it is.
        """
        if length > self.max_bytes:
            raise UnusableFileError(
                f"{length:,} bytes are above the limit of {self.max_bytes:,}; "
                f"make it smaller, or raise {_ENVIRONMENT}MAX_BYTES"
            )

    def check_scans(self, scans: int, size_px: tuple[int, int]) -> None:
        """Refuse a JPEG that would take too long to decode.

        Raises:
            UnusableFileError: it would.
        """
        # A scan of a tiny image takes time too, about that of 256 x 256 px.
        if scans * max(size_px[0] * size_px[1], 1 << 16) > self.max_scan_pixels:
            raise UnusableFileError(
                f"JPEG of {scans:,} or more scans of {shown_px(size_px)}, above the limit of "
                f"{self.max_scan_pixels:,} scans x pixels; re-export it, or raise {_ENVIRONMENT}MAX_SCAN_PIXELS"
            )


class Content(Protocol):
    """A file's bytes by position; of ``bytes`` and `OpenFile` alike."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...


class OpenFile:
    """The bytes of an open file, of which only those that are asked for are read."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self.file = file
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice, /) -> bytes:
        start, stop, _ = part.indices(self._length)
        self.file.seek(start)
        return self.file.read(max(0, stop - start))


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a format's reader knows of a file before it decodes the pixels.

    Attributes:
        size_px: (height, width) as stored, before the orientation is applied.
        orientation: EXIF orientation, 1 to 8.
        lossy: whether compression changed values.
        range_stated: whether the file says which of the 16 bits count; its values are scaled to all of them.
        pixels: decodes the stored pixels, given the file's bytes: (H, W, 1, 3 or 4), uint8 or uint16 of the full range.
    """

    size_px: tuple[int, int]
    orientation: int
    lossy: bool
    range_stated: bool = False
    pixels: Callable[[bytes], NDArray[Any]]
