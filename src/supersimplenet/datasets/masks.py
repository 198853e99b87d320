"""The masks of a sample: which pixels are defective, and which are to be ignored."""

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
from supersimplenet.preprocessing.geometry import TOUCHED, resize_mask
from supersimplenet.preprocessing.images import EncodedImage, image_size, read_mask
from supersimplenet.types import BAD, Sample
from supersimplenet.utils.files import file_sha256

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class _KeptMask:
    """A mask as compressed bits: a photograph's takes a few kilobytes."""

    shape: tuple[int, ...]
    bits: bytes

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> _KeptMask:
        return cls(mask.shape, zlib.compress(np.packbits(mask).tobytes(), level=1))

    def unpacked(self) -> NDArray[np.bool_]:
        bits = np.frombuffer(zlib.decompress(self.bits), dtype=np.uint8)
        return np.unpackbits(bits, count=int(np.prod(self.shape))).reshape(self.shape).astype(bool)


class MaskReader:
    """Reads each mask file once: its content is kept, compressed, and its hash.

    A training asks three times for a mask: whether it marks anything (which decides the supervision), what it marks,
    and its hash.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Path, bool], _KeptMask] = {}
        self._sha256: dict[Path, str] = {}

    def defects(self, sample: Sample) -> NDArray[np.bool_] | None:
        """Return the defective pixels (H, W) of a bad sample; see `read_defects`."""
        if sample.mask is None or not sample.pixel_labels_known:
            return None
        return self._read(sample.mask, sample, any_value=sample.mask_any_value)

    def ignored(self, sample: Sample, size_px: tuple[int, int] | None = None) -> NDArray[np.bool_] | None:
        """Return the pixels (H, W) that the sample's second mask marks; see `read_ignored`."""
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
        """Return the hash of a mask file, which is read where it was not yet.

        Raises:
            DataError: it cannot be read.
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
            image_size_px=image_size(sample.image),
            any_value=any_value,
        )
        self._kept[path, any_value] = _KeptMask.of(mask)
        return mask

    def _bytes_of(self, path: Path) -> bytes:
        content = path.read_bytes()
        self._sha256[path] = hashlib.sha256(content).hexdigest()
        return content


def read_defects(sample: Sample) -> NDArray[np.bool_] | None:
    """Return the defective pixels (H, W) of a bad sample at its image's own size; None where these are unknown.

    A mask that marks nothing says nothing: the defect is somewhere. It comes back as it is, empty.

    Raises:
        ImageError: the mask cannot be read, or is not of its image's size.
    """
    return MaskReader().defects(sample)


def read_ignored(sample: Sample, size_px: tuple[int, int] | None = None) -> NDArray[np.bool_] | None:
    """Return the pixels (H, W) that the sample's second mask marks; None where it has none.

    Args:
        sample: the sample.
        size_px: (height, width), at which those count that the mask touches; None for the image's own.

    Raises:
        ImageError: the mask cannot be read, is not of its image's size, or covers all of it.
    """
    return MaskReader().ignored(sample, size_px)


def without_empty_masks(
    samples: Sequence[Sample], masks: MaskReader | None = None
) -> tuple[list[Sample], list[Sample]]:
    """Return the samples, bad training images with an empty mask without pixel labels; and those images.

    An empty mask says nothing: the defect is somewhere. Reads every mask of bad training images; what cannot be read
    stays as it is, for the training to stop at or to skip.

    Args:
        samples: of both splits.
        masks: reads the masks; by default a new reader.
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
