"""Options of a synthetic dataset. Needs no scipy, so that ``--help`` can show them on every machine."""

from __future__ import annotations

from dataclasses import dataclass

from supersimplenet.errors import ConfigError

SMALLEST_SIDE_PX = 64
# The random key of every image contains these numbers: append new ones, but never renumber, or images would change.
SURFACE_KEY = {"brushed_metal": 0, "cast_grain": 1, "woven_cloth": 2, "printed_pattern": 3}
DEFECT_KEY = {"good": 0, "scratch": 1, "pit": 2, "stain": 3, "crack": 4, "missing_pattern": 5}
SPLIT_KEY = {"train": 0, "test": 1}
_PATTERNED = ("woven_cloth", "printed_pattern")


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """Images of the synthetic dataset.

    Attributes:
        surfaces: surfaces to draw, one category each: brushed_metal, cast_grain, woven_cloth, printed_pattern; each at
            most once.
        size_px: height and width of every image in pixels, each at least 64.
        train_good: number of good training images for each surface, at least 1.
        test_good: number of good test images for each surface, at least 1.
        test_per_defect: number of test images for each surface and each type of defect, at least 1.
        seed: seed of the random numbers, 0 or more. Another seed gives entirely different images of the same products.

    Raises:
        ConfigError: an option is outside these bounds.
    """

    surfaces: tuple[str, ...] = tuple(SURFACE_KEY)
    size_px: tuple[int, int] = (256, 256)
    train_good: int = 60
    test_good: int = 20
    test_per_defect: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.surfaces:
            raise ConfigError(f"surfaces: found none, wanted at least one of {', '.join(SURFACE_KEY)}")
        for surface in self.surfaces:
            check_surface("surfaces", surface)
        if len(set(self.surfaces)) < len(self.surfaces):
            raise ConfigError(f"surfaces: found {', '.join(self.surfaces)}, wanted each one once")
        check_size(self.size_px)
        for option in ("train_good", "test_good", "test_per_defect"):
            _check_count(option, getattr(self, option), smallest=1)
        _check_count("seed", self.seed, smallest=0)


def defects_on(surface: str) -> tuple[str, ...]:
    """Return the defects that ``surface`` can have; ``missing_pattern`` only on a surface with a pattern.

    Raises:
        ConfigError: the surface is unknown.
    """
    check_surface("surface", surface)
    return tuple(name for name in DEFECT_KEY if name != "good" and (name != "missing_pattern" or surface in _PATTERNED))


def check_surface(option: str, surface: str) -> None:
    """Check that a surface is known.

    Raises:
        ConfigError: the surface is unknown.
    """
    if surface not in SURFACE_KEY:
        raise ConfigError(f"{option}: found {surface!r}, wanted one of {', '.join(SURFACE_KEY)}")


def check_size(size_px: tuple[int, int]) -> None:
    """Check that a size is large enough to draw.

    Raises:
        ConfigError: the size is too small, or not two integers.
    """
    if len(size_px) != 2 or any(not isinstance(side, int) or side < SMALLEST_SIDE_PX for side in size_px):
        wanted = f"(height, width), whole numbers of {SMALLEST_SIDE_PX} or more"
        raise ConfigError(f"size_px: found {tuple(size_px)}, wanted {wanted}")


def _check_count(option: str, count: int, *, smallest: int) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or count < smallest:
        raise ConfigError(f"{option}: found {count!r}, wanted a whole number of {smallest} or more")
