"""Inspect each image and its masks once, in threads; keep all that the checks of a dataset need, but no pixels."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from supersimplenet.datasets.checks.duplicates import fingerprint
from supersimplenet.datasets.defect_sizes import region_widths
from supersimplenet.datasets.masks import read_ignored
from supersimplenet.datasets.regions import count_lost_regions
from supersimplenet.errors import ImageError
from supersimplenet.preprocessing.geometry import Placement, resize_mask
from supersimplenet.preprocessing.images import ImageFacts, read_mask, read_mask_levels, read_with_facts
from supersimplenet.preprocessing.reading import FULL_RANGE, ReadConfig
from supersimplenet.types import Sample

_THREADS = min(8, os.cpu_count() or 1)
# The published recipe's widening of masks and its smallest feature stride; the map has half of that stride.
_WIDENED_PX, _STRIDE_PX = 7, 8


@dataclass(frozen=True, kw_only=True)
class MaskInspection:
    """The properties of a mask file.

    Attributes:
        levels: the grey levels in the file, 0 to 255, ascending.
        marked_fraction: share of the pixels that count as defective, in [0, 1].
        vanishes: whether no marked pixel is left when the mask is resized to the network's input size.
        small_regions: number of regions that cover no position of the network's map by half; 0 where its size is not
            known.
        widths_px: width of each region, in pixels of the image; see `datasets.defect_sizes`.
    """

    levels: tuple[int, ...]
    marked_fraction: float
    vanishes: bool
    small_regions: int = 0
    widths_px: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageInspection:
    """The properties of an image file.

    Attributes:
        size_px: (height, width) of the upright image.
        digest: hash of the pixels; equal for equal pixels in any file format.
        highest: highest of 16-bit values, where the file does not say how many bits count; None elsewhere.
        brightness: mean grey level, in [0, 255].
        contrast: standard deviation of the grey level.
        fingerprint: see `duplicates`.
    """

    size_px: tuple[int, int]
    digest: str
    highest: int | None
    brightness: float
    contrast: float
    fingerprint: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The properties of one sample's files, and the errors in them.

    Attributes:
        image: properties of the image; None where it cannot be read.
        mask: properties of the mask; None where there is no mask, or where it cannot be used.
        image_error: why the image cannot be read; None if it can.
        mask_error: why the mask cannot be used; None if there is no error.
        ignore_error: why the ignore mask cannot be used; None if there is no error.
    """

    image: ImageInspection | None = None
    mask: MaskInspection | None = None
    image_error: str | None = None
    mask_error: str | None = None
    ignore_error: str | None = None


def inspect_samples(
    samples: Sequence[Sample],
    *,
    size_px: tuple[int, int] | None = None,
    reading: ReadConfig = FULL_RANGE,
    progress: Callable[[int], None] | None = None,
) -> list[Inspection]:
    """Inspect the files of each sample, in order. A broken file is reported in the result and raises no error.

    Args:
        samples: the samples to inspect.
        size_px: (height, width) of the network's input; None where it is not known.
        reading: how the dataset's images are read.
        progress: called with the number of samples inspected since the last call.
    """
    inspections = []
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="inspection") as pool:
        try:
            for inspection in pool.map(lambda sample: _inspect(sample, size_px, reading), samples):
                inspections.append(inspection)
                if progress is not None:
                    progress(1)
        finally:
            pool.shutdown(cancel_futures=True)
    return inspections


def digests_of(samples: Sequence[Sample], inspections: Sequence[Inspection]) -> dict[Path, str]:
    """Return the pixel digest of each image that could be read."""
    return {
        sample.image: inspection.image.digest
        for sample, inspection in zip(samples, inspections, strict=True)
        if inspection.image is not None
    }


def _inspect(sample: Sample, size_px: tuple[int, int] | None, reading: ReadConfig) -> Inspection:
    try:
        pixels, _, facts = read_with_facts(sample.image, reading=reading)
        image = _inspect_image(pixels, facts)
    except ImageError as error:
        return Inspection(image_error=str(error))
    mask, mask_error, ignore_error = None, None, None
    if sample.mask is not None:
        try:
            mask = _inspect_mask(sample, image.size_px, size_px, reading)
        except ImageError as error:
            mask_error = str(error)
    if sample.ignore is not None:
        try:
            read_ignored(sample, size_px or image.size_px, reading=reading)
        except ImageError as error:
            ignore_error = str(error)
    return Inspection(image=image, mask=mask, mask_error=mask_error, ignore_error=ignore_error)


def _inspect_image(pixels: NDArray[np.uint8], facts: ImageFacts) -> ImageInspection:
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    share = np.bincount(grey.ravel(), minlength=256) / grey.size  # (256,): no large array of floats
    levels = np.arange(256)
    brightness = float(share @ levels)
    return ImageInspection(
        size_px=facts.size_px,
        digest=facts.pixels,
        highest=facts.highest if facts.range_open else None,
        brightness=brightness,
        contrast=float(np.sqrt(share @ (levels - brightness) ** 2)),
        fingerprint=fingerprint(grey),
    )


def _inspect_mask(
    sample: Sample, image_size_px: tuple[int, int], size_px: tuple[int, int] | None, reading: ReadConfig
) -> MaskInspection:
    assert sample.mask is not None
    marked = read_mask(sample.mask, image_size_px=image_size_px, any_value=sample.mask_any_value, reading=reading)
    levels = np.bincount(read_mask_levels(sample.mask, reading=reading).ravel(), minlength=256)
    vanishes, small_regions = False, 0
    if size_px is not None and marked.any():
        vanishes, small_regions = not resize_mask(marked, size_px).any(), _small_regions(marked, size_px)
    return MaskInspection(
        levels=tuple(np.flatnonzero(levels).tolist()),
        marked_fraction=float(marked.mean()),
        vanishes=vanishes,
        small_regions=small_regions,
        widths_px=tuple(region_widths(marked)),
    )


def _small_regions(marked: NDArray[np.bool_], size_px: tuple[int, int]) -> int:
    """Count the regions that are too small for the map, widened as in a training with the default settings."""
    widened = ndimage.maximum_filter(marked, size=_WIDENED_PX, mode="constant", cval=False)
    map_px = map_size(size_px)
    placement = Placement.whole(map_px, (marked.shape[0], marked.shape[1]))
    return count_lost_regions(widened, placement, resize_mask(widened, map_px))


def map_size(size_px: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of the map of a network with this input size and the default feature strides."""
    return 2 * -(-size_px[0] // _STRIDE_PX), 2 * -(-size_px[1] // _STRIDE_PX)
