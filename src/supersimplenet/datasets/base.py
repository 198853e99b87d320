"""Base class of the data sources, the order of samples, and the hash of the training data. Needs no torch.

The samples of every source are sorted (training first, then by path in natural order), so that the same files give
the same list on every machine.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from supersimplenet.errors import DataError
from supersimplenet.preprocessing.listing import natural_key
from supersimplenet.preprocessing.reading import BitDepth, check_bit_depth, check_page
from supersimplenet.types import Sample
from supersimplenet.utils.files import file_sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class DataSource(ABC):
    """Source of the samples of a dataset. A class of your own needs a ``name`` and the method `samples`.

    Attributes:
        name: name shown to people; it also names the model folder.
        image_size: (height, width) in px that published results on the dataset use; None where the size is free.
        perlin_threshold: published Perlin threshold of the unsupervised recipe for this dataset; None for the usual
            one.
        bit_depth: number of bits that count in 16-bit images, 8 to 16; ``auto`` to find it out when a training starts.
            None: all 16 for a training; elsewhere, what the model was trained with. See `ReadConfig`.
        page: number of the page of a TIFF; likewise.
    """

    name: str
    image_size: tuple[int, int] | None = None
    perlin_threshold: float | None = None
    bit_depth: BitDepth | None = None
    page: int | None = None

    def set_reading(self, bit_depth: BitDepth | None, page: int | None) -> None:
        """Set ``bit_depth`` and ``page``.

        Raises:
            ConfigError: there is no such bit depth, or no such page.
        """
        if bit_depth not in (None, "auto"):
            check_bit_depth(bit_depth)
        check_page(page)
        self.bit_depth, self.page = bit_depth, page

    def __repr__(self) -> str:
        return f"{type(self).__name__}({getattr(self, 'name', '')!r})"

    @abstractmethod
    def samples(self) -> list[Sample]:
        """Return every sample of both splits, sorted.

        Raises:
            DataError: the dataset is missing, incomplete or contradicts itself.
        """

    def survey(self) -> tuple[list[Sample], list[tuple[Path, str]]]:
        """Return the samples, and masks that belong to none of them with what was wanted; `samples` raises instead.

        A check of the dataset reports such masks among its other findings. A good sample may have a mask here;
        `samples` allows only an empty one.

        Raises:
            DataError: as `samples`, for every other reason.
        """
        return self.samples(), []


def sort_samples(samples: list[Sample]) -> list[Sample]:
    """Return the samples sorted: training first, then by path in natural order."""
    return sorted(samples, key=lambda sample: (sample.split != "train", natural_key(sample.image)))


def relative_names(samples: Iterable[Sample]) -> dict[Path, str]:
    """Return each image's path below the folder common to all images; it stays the same when the data are moved."""
    paths = [sample.image for sample in samples]
    root = os.path.commonpath([path.absolute().parent for path in paths])
    return {path: path.absolute().relative_to(root).as_posix() for path in paths}


def training_list_hash(samples: Iterable[Sample], sha256_of: Callable[[Path], str] = file_sha256) -> str:
    """Return a hash of the training data: equal for the same files, labels and masks, wherever the files are.

    It is the SHA-256 of one line for each training sample, the lines sorted. A line holds, separated by NUL: image path
    below the folder common to all training images, label, whether the pixel labels are known, SHA-256 of the image
    file, SHA-256 of the mask file or ``-`` (with ``any:`` in front where every mask value but 0 marks a defect), and
    SHA-256 of the ignore mask's file where there is one. Every file is read once.

    Returns:
        64 hexadecimal digits.

    Raises:
        DataError: there is no training sample, or a file cannot be read.
    """
    training = [sample for sample in samples if sample.split == "train"]
    if not training:
        raise DataError("no training sample to hash; wanted samples with split train")
    names = relative_names(training)
    lines = []
    for sample in training:
        mask = "-" if sample.mask is None else ("any:" if sample.mask_any_value else "") + sha256_of(sample.mask)
        fields = [
            names[sample.image],
            str(sample.label),
            str(int(sample.pixel_labels_known)),
            sha256_of(sample.image),
            mask,
        ]
        if sample.ignore is not None:
            fields.append(sha256_of(sample.ignore))
        lines.append("\0".join(fields) + "\n")
    return hashlib.sha256(os.fsencode("".join(sorted(lines)))).hexdigest()
