"""The masks of a sample: which pixels are defective, which are to be ignored."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from supersimplenet.errors import ImageError
from supersimplenet.preprocessing.geometry import TOUCHED, resize_mask
from supersimplenet.preprocessing.images import image_size, read_mask
from supersimplenet.types import BAD, Sample

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from supersimplenet.types import Sample


def read_defects(sample: Sample) -> NDArray[np.bool_] | None:
    """Defective pixels (H, W) of a bad sample at its image's own size; None where its pixel labels are unknown.

    A mask that marks nothing says nothing: the defect is somewhere. It comes back as it is, empty.

    Raises:
        ImageError: the mask cannot be read, or is not of its image's size.
    """
    if sample.mask is None or not sample.pixel_labels_known:
        return None
    return read_mask(sample.mask, image_size_px=image_size(sample.image), any_value=sample.mask_any_value)


def read_ignored(sample: Sample, size_px: tuple[int, int] | None = None) -> NDArray[np.bool_] | None:
    """Pixels (H, W) that the sample's second mask marks; None where it has none.

    Args:
        sample: the sample.
        size_px: (height, width), at which those count that the mask touches; None for the image's own.

    Raises:
        ImageError: the mask cannot be read, is not of its image's size, or covers all of it.
    """
    if sample.ignore is None:
        return None
    whole = read_mask(sample.ignore, image_size_px=image_size(sample.image))
    ignored = whole if size_px is None else resize_mask(whole, size_px, at_least=TOUCHED)
    if ignored.all():
        raise ImageError(f"{sample.ignore}: leaves no pixel of {sample.image.name} to look at; mark less, or drop both")
    return ignored


def without_empty_masks(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """The samples, where a bad training image whose mask marks nothing has unknown pixel labels; and those images.

    An empty mask says nothing: the defect is somewhere. Reads every mask of the training split; what cannot be read
    stays as it is, for the training to stop at or to skip.
    """
    used, empty = [], []
    for sample in samples:
        is_empty = False
        if sample.split == "train" and sample.label == BAD:
            with suppress(ImageError):
                mask = read_defects(sample)
                is_empty = mask is not None and not mask.any()
        used.append(replace(sample, pixel_labels_known=False) if is_empty else sample)
        empty += [sample] * is_empty
    return used, empty
