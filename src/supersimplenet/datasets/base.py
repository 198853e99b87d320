"""What every data source has: samples in one order, a hash of what was trained on. No torch is needed.

Whatever the source, its samples are sorted (training first, then by path in natural order), so that the same files
give the same list on every machine.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from supersimplenet.errors import DataError
from supersimplenet.preprocessing.images import natural_key
from supersimplenet.types import Sample
from supersimplenet.utils.files import file_sha256

if TYPE_CHECKING:
    from collections.abc import Iterable


class DataSource(ABC):
    """Where samples come from. A source of one's own needs a name and a list of samples.

    Attributes:
        name: for people, and for the folder of a model.
        image_size: (height, width) in px that results on the data set are published for; None where it is free.
        perlin_threshold: published threshold of the unsupervised recipe where the data set has its own, else None.
    """

    name: str
    image_size: tuple[int, int] | None = None
    perlin_threshold: float | None = None

    @abstractmethod
    def samples(self) -> list[Sample]:
        """Every sample of both splits, sorted.

        Raises:
            DataError: the data set is missing, incomplete or contradicts itself.
        """


def sort_samples(samples: list[Sample]) -> list[Sample]:
    """Training first, then by path in natural order."""
    return sorted(samples, key=lambda sample: (sample.split != "train", natural_key(sample.image)))


def relative_names(samples: Iterable[Sample]) -> dict[Path, str]:
    """Each image's path below the folder common to all, so that what follows from names survives a move of the data."""
    paths = [sample.image for sample in samples]
    root = os.path.commonpath([path.absolute().parent for path in paths])
    return {path: path.absolute().relative_to(root).as_posix() for path in paths}


def training_list_hash(samples: Iterable[Sample]) -> str:
    """Hash of what a model was trained on: equal for the same files, labels and masks, wherever they lie.

    SHA-256 of one line for each training sample: image path below the folder common to all training images, label,
    whether the pixel labels are known, SHA-256 of the image file, SHA-256 of the mask file or ``-`` (after
    ``any:`` where each of its values but 0 is a defect), and SHA-256 of the second mask's file where there is one;
    separated by NUL, sorted. Every file is read once.

    Returns:
        64 hexadecimal digits.

    Raises:
        DataError: no training sample, or a file that is gone.
    """
    training = [sample for sample in samples if sample.split == "train"]
    if not training:
        raise DataError("no training sample to hash; wanted samples with split train")
    names = relative_names(training)
    lines = []
    for sample in training:
        mask = "-" if sample.mask is None else ("any:" if sample.mask_any_value else "") + file_sha256(sample.mask)
        fields = [
            names[sample.image],
            str(sample.label),
            str(int(sample.pixel_labels_known)),
            file_sha256(sample.image),
            mask,
        ]
        if sample.ignore is not None:
            fields.append(file_sha256(sample.ignore))
        lines.append("\0".join(fields) + "\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
