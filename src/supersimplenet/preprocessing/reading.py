"""How the image files of a dataset become pixels: settings that are fixed when a training starts, and stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from supersimplenet.errors import ConfigError

BitDepth = int | Literal["auto"]
FEWEST_BITS, MOST_BITS = 8, 16


def check_bit_depth(bits: object) -> None:
    """Check a number of bits.

    Raises:
        ConfigError: it is no whole number from 8 to 16.
    """
    if not isinstance(bits, int) or not FEWEST_BITS <= bits <= MOST_BITS:
        raise ConfigError(f"bit_depth: {bits!r}; wanted the number of bits that count, {FEWEST_BITS} to {MOST_BITS}")


def check_page(page: object) -> None:
    """Check the number of a page.

    Raises:
        ConfigError: it is neither None nor a whole number from 0 on.
    """
    if page is not None and (not isinstance(page, int) or page < 0):
        raise ConfigError(f"page: {page!r}; wanted the number of a TIFF's page, counted from 0")


def bits_for(highest: int) -> int:
    """Return the smallest bit depth, 8 to 16, whose range holds a value."""
    return max(FEWEST_BITS, highest.bit_length())


@dataclass(frozen=True, kw_only=True)
class ReadConfig:
    """How the images of one dataset are read, in training and in every later use.

    Attributes:
        bit_depth: number of bits that count in 16-bit values, 8 to 16: 12 for 0..4095. It holds for files that do not
            say it themselves (PNG, TIFF, PGM with the maximum 65535) and for arrays; files and arrays of 8 bits keep
            their range, and so does transparency.
        page: number of the page of a TIFF, from 0; None for the largest. Masks are read from their largest page.
    """

    bit_depth: int = MOST_BITS
    page: int | None = None

    def __post_init__(self) -> None:
        check_bit_depth(self.bit_depth)
        check_page(self.page)


FULL_RANGE = ReadConfig()
