"""How wide the smallest defects are, and whether the network can see them at its input size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from supersimplenet.errors import ImageError
from supersimplenet.utils.formatting import shown_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from supersimplenet.datasets.masks import MaskReader
    from supersimplenet.types import Sample

Seen = Literal["seen", "hard to see", "not seen"]
# Widths in pixels of the network's input; measured: docs/decisions/0033-size-of-defects.md.
SEEN_PX, HARD_PX = 5.0, 2.0
_SMALL_SHARE = 0.05  # of the regions, which may be slips of the brush, are passed over
_SIDES_PX = (256, 320, 384, 448, 512)  # of inputs that are offered; a step takes 1 to 4 times as long


class NetworkInput(NamedTuple):
    """What the network sees of an image.

    Attributes:
        size_px: (height, width) of its input.
        fit: how an image becomes it: ``stretch``, ``pad`` or ``tiles``.
        scale: of an image that is cut into tiles.
    """

    size_px: tuple[int, int] = (256, 256)
    fit: str = "stretch"
    scale: float = 1.0

    def scale_of(self, image_px: tuple[int, int]) -> float:
        """Return how many pixels of the input one of the image becomes, in the direction in which they are fewer."""
        if self.fit == "tiles":
            return self.scale
        return min(inner / outer for inner, outer in zip(self.size_px, image_px, strict=True))

    def __str__(self) -> str:
        return "in tiles" if self.fit == "tiles" else f"at {shown_size(self.size_px)}"


@dataclass(frozen=True, kw_only=True)
class DefectSize:
    """The width of a defect.

    Attributes:
        width_px: diameter of the largest circle in it, in pixels of its image, to within a pixel.
        image_px: (height, width) of the image.
    """

    width_px: float
    image_px: tuple[int, int]

    def at(self, seen_by: NetworkInput) -> float:
        """Return its width in pixels of the network's input."""
        return self.width_px * seen_by.scale_of(self.image_px)


def region_widths(mask: NDArray[np.bool_]) -> list[float]:
    """Return the width of each 8-connected region of a mask (H, W), in pixels; see `DefectSize`."""
    from scipy import ndimage  # not for commands that open no mask

    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    widths = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = np.pad(labels[box] == number, 1)
        # From the centre of a pixel to that of the nearest one outside: half a pixel more than the radius.
        widths.append(max(1.0, 2 * float(ndimage.distance_transform_edt(inside).max()) - 0.5))
    return widths


def sizes_of(samples: Iterable[Sample], reader: MaskReader) -> Iterator[DefectSize]:
    """Yield the size of each region in the masks of samples; masks that cannot be read are passed over."""
    for sample in samples:
        with suppress(ImageError):
            mask = reader.defects(sample)
            if mask is not None:
                for width in region_widths(mask):
                    yield DefectSize(width_px=width, image_px=(mask.shape[0], mask.shape[1]))


def smallest_defect(sizes: Iterable[DefectSize], seen_by: NetworkInput) -> DefectSize | None:
    """Return the smallest defect as the network sees it, of all but the smallest twentieth; None without any."""
    found = sorted(sizes, key=lambda size: size.at(seen_by))
    return found[int(_SMALL_SHARE * len(found))] if found else None


def how_seen(width_px: float) -> Seen:
    """Return whether a defect of this width at the network's input is seen."""
    return "seen" if width_px >= SEEN_PX else "hard to see" if width_px >= HARD_PX else "not seen"


def fitting_input(smallest: DefectSize) -> NetworkInput:
    """Return the smallest of the offered inputs at which a defect is seen; the largest where it is seen at none."""
    offered = [NetworkInput((side, side)) for side in _SIDES_PX]
    return next((seen_by for seen_by in offered if smallest.at(seen_by) >= SEEN_PX), offered[-1])


def describe_smallest(smallest: DefectSize, seen_by: NetworkInput) -> str:
    """Return in words how small the smallest defect is and whether it is seen, and what to do where it is not."""
    at_input = smallest.at(seen_by)
    text = (
        f"smallest defects: {round(smallest.width_px, 1):g} px wide of {shown_size(smallest.image_px)}; {seen_by} that "
        f"is {at_input:.1f} px, {how_seen(at_input)}"
    )
    return text if at_input >= SEEN_PX else f"{text}; {_advice(smallest, seen_by)}"


def describe_limit(images_px: Sequence[tuple[int, int]], seen_by: NetworkInput) -> str:
    """Return in words what is too small to be seen in images of these (height, width), for a dataset without masks."""
    median_px = sorted(images_px, key=seen_by.scale_of)[len(images_px) // 2]
    scale = seen_by.scale_of(median_px)
    median = " (median)" if len(set(images_px)) > 1 else ""
    return (
        f"of images of {shown_size(median_px)}{median}, {seen_by}, defects are seen from some {SEEN_PX / scale:.0f} px "
        f"of width on, and hardly any below {max(1.0, HARD_PX / scale):.0f} px"
    )


def _advice(smallest: DefectSize, seen_by: NetworkInput) -> str:
    larger = fitting_input(smallest)
    if seen_by.fit == "tiles":
        return "photograph from closer"
    if smallest.at(larger) >= SEEN_PX:
        return f"--model.image_size '[{larger.size_px[0]},{larger.size_px[1]}]' shows them"
    return "--view.fit tiles shows them" if smallest.width_px >= SEEN_PX else "photograph from closer"
