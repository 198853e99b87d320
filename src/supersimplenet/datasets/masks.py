"""Read the masks of a sample: its defective pixels, and the pixels to ignore."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from supersimplenet.errors import ImageError
from supersimplenet.preprocessing.decoding import EncodedImage, image_size, read_file
from supersimplenet.preprocessing.geometry import TOUCHED, resize_mask
from supersimplenet.preprocessing.image_file import Limits
from supersimplenet.preprocessing.images import read_mask
from supersimplenet.preprocessing.reading import FULL_RANGE, ReadConfig
from supersimplenet.types import BAD, Sample
from supersimplenet.utils.files import file_sha256

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class _KeptMask:
    """A mask in compressed bits, usually a few kilobytes."""

    shape: tuple[int, ...]
    bits: bytes

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> _KeptMask:
        return cls(mask.shape, zlib.compress(np.packbits(mask).tobytes(), level=1))

    def unpacked(self) -> NDArray[np.bool_]:
        bits = np.frombuffer(zlib.decompress(self.bits), dtype=np.uint8)
        return np.unpackbits(bits, count=int(np.prod(self.shape))).reshape(self.shape).astype(bool)


class MaskReader:
    """Reader that reads each mask file once, and keeps the compressed mask and the file's hash.

    A training needs each mask three times: to see whether it is empty (which decides the supervision), to get its
    pixels, and to get its hash.

    Args:
        reading: how the dataset's images are read.
    """

    def __init__(self, reading: ReadConfig = FULL_RANGE) -> None:
        self.reading = reading
        self._kept: dict[tuple[Path, bool], _KeptMask] = {}
        self._sha256: dict[Path, str] = {}

    def defects(self, sample: Sample) -> NDArray[np.bool_] | None:
        """Return the defective pixels (H, W) of a bad sample; see `read_defects`."""
        if sample.mask is None or not sample.pixel_labels_known:
            return None
        return self._read(sample.mask, sample, any_value=sample.mask_any_value)

    def ignored(self, sample: Sample, size_px: tuple[int, int] | None = None) -> NDArray[np.bool_] | None:
        """Return the pixels (H, W) that the sample's ignore mask marks; see `read_ignored`."""
        if sample.ignore is None:
            return None
        whole = self._read(sample.ignore, sample, any_value=False)
        ignored = whole if size_px is None else resize_mask(whole, size_px, at_least=TOUCHED)
        if ignored.all():
            raise ImageError(
                f"{sample.ignore}: leaves no pixel of {sample.image.name} to look at; mark less, or drop both"
            )
        return ignored

    def sha256(self, path: Path) -> str:
        """Return the hash of a mask file; read the file if it was not read before.

        Raises:
            DataError: the file cannot be read.
        """
        if path not in self._sha256:
            self._sha256[path] = file_sha256(path)
        return self._sha256[path]

    def _read(self, path: Path, sample: Sample, *, any_value: bool) -> NDArray[np.bool_]:
        kept = self._kept.get((path, any_value))
        if kept is not None:
            return kept.unpacked()
        mask = read_mask(
            EncodedImage(str(path), lambda: self._bytes_of(path)),
            image_size_px=image_size(sample.image, page=self.reading.page),
            any_value=any_value,
            reading=self.reading,
        )
        self._kept[path, any_value] = _KeptMask.of(mask)
        return mask

    def _bytes_of(self, path: Path) -> bytes:
        content = read_file(path, Limits.from_environment())
        self._sha256[path] = hashlib.sha256(content).hexdigest()
        return content


def read_defects(sample: Sample, *, reading: ReadConfig = FULL_RANGE) -> NDArray[np.bool_] | None:
    """Return the defective pixels (H, W) of a bad sample at its image's own size; None where they are unknown.

    An empty mask is returned as it is. It gives no information, because the image has a defect somewhere.

    Args:
        sample: the sample.
        reading: how the dataset's images are read.

    Raises:
        ImageError: the mask cannot be read, or has another size than its image.
    """
    return MaskReader(reading).defects(sample)


def read_ignored(
    sample: Sample, size_px: tuple[int, int] | None = None, *, reading: ReadConfig = FULL_RANGE
) -> NDArray[np.bool_] | None:
    """Return the pixels (H, W) that the sample's ignore mask marks; None where the sample has no ignore mask.

    Args:
        sample: the sample.
        size_px: (height, width) of the result, in which every pixel that the mask touches is marked; None for the
            image's own size.
        reading: how the dataset's images are read.

    Raises:
        ImageError: the mask cannot be read, has another size than its image, or covers the whole image.
    """
    return MaskReader(reading).ignored(sample, size_px)


def without_empty_masks(
    samples: Sequence[Sample], masks: MaskReader | None = None
) -> tuple[list[Sample], list[Sample]]:
    """Return the samples with empty masks of bad training images marked as unknown labels, and the samples changed.

    An empty mask gives no information, because the image has a defect somewhere. The function reads the masks of all
    bad training images. A sample with an unreadable mask is not changed; the training later stops at it or skips it.

    Args:
        samples: samples of both splits.
        masks: reader for the masks; by default a new one.

    Returns:
        All samples, and the original samples of those that have an empty mask.
    """
    masks = MaskReader() if masks is None else masks
    used, empty = [], []
    for sample in samples:
        is_empty = False
        if sample.split == "train" and sample.label == BAD:
            with suppress(ImageError):
                mask = masks.defects(sample)
                is_empty = mask is not None and not mask.any()
        used.append(replace(sample, pixel_labels_known=False) if is_empty else sample)
        empty += [sample] * is_empty
    return used, empty
