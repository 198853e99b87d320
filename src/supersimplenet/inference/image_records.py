"""images.csv of a model folder: the images that a model was trained on, calibrated with and is tested with.

The file contains image names of the company that trained the model. It stays in the model folder: no export and no
report contains it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from supersimplenet.datasets.base import DataSource
from supersimplenet.datasets.held_out import derive_held_out, find_held_out
from supersimplenet.errors import ModelFolderError
from supersimplenet.types import Sample, Split
from supersimplenet.utils.files import read_regular, write_text
from supersimplenet.utils.formatting import few, shown_value
from supersimplenet.utils.serialization import from_plain

IMAGES_FILE = "images.csv"
_KNOWN_IMAGES_FILE = "known_images.txt"  # of version 0.1: only hash and split, without the held-out images

Role = Literal["trained", "held-out", "skipped", "test"]


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """One image that a model was trained on, calibrated with or is tested with.

    Attributes:
        name: path of the image below the folder that all images of the dataset share.
        sha256: SHA-256 of the file's content.
        pixels: hash of the image's pixels, equal for equal pixels in another file; empty where it was not decoded.
        height: in px, upright; None where the image was not decoded.
        width: likewise.
        lowest: smallest value of the pixels, in the file's own bits; None where the image was not decoded.
        highest: largest value, likewise.
        split: split of the dataset that contains the image.
        role: how the training used the image; ``test`` for an image of the test split.
    """

    name: str
    sha256: str
    pixels: str = ""
    height: int | None = None
    width: int | None = None
    lowest: int | None = None
    highest: int | None = None
    split: Split
    role: Role


_COLUMNS = tuple(field.name for field in fields(ImageRecord))
_NUMBERS = ("height", "width", "lowest", "highest")
_NUMBER = re.compile("[0-9]{1,10}")
_LARGEST_BYTES = 1 << 28  # some 2 million images
_ADVICE = "bring it back, or train the model again"


def write_image_records(folder: Path, records: Iterable[ImageRecord]) -> None:
    """Write images.csv into a model folder, sorted by name; it appears whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for record in sorted(records, key=lambda record: (record.split != "train", record.name)):
        writer.writerow(["" if (value := getattr(record, name)) is None else value for name in _COLUMNS])
    write_text(folder / IMAGES_FILE, text.getvalue())


def read_image_records(folder: Path) -> list[ImageRecord] | None:
    """Return the rows of images.csv; None for a model folder without this file, as version 0.1 wrote.

    Raises:
        ModelFolderError: the file is damaged.
    """
    path = folder / IMAGES_FILE
    if not path.is_file():
        return None
    lines = io.StringIO(_text(path), newline="")
    try:
        return [_record(row, f"row {number}") for number, row in enumerate(csv.DictReader(lines, strict=True), start=1)]
    except (csv.Error, ValueError, ModelFolderError) as error:
        raise ModelFolderError(f"{path}: damaged ({error}); {_ADVICE}") from error


def read_known_images(folder: Path) -> dict[str, str] | None:
    """Return ``train`` or ``test`` by the SHA-256 of each image that a model was trained on or is tested with.

    Returns:
        None for a model folder without such a record, for example an imported one.

    Raises:
        ModelFolderError: the record is damaged.
    """
    records = read_image_records(folder)
    if records is not None:
        known = [record for record in records if record.role != "held-out"]
        # Content in both splits counts as ``train``: the training split comes last, so that its entry stays.
        return {record.sha256: record.split for record in sorted(known, key=lambda record: record.split == "train")}
    path = folder / _KNOWN_IMAGES_FILE
    if not path.is_file():
        return None
    split_of = dict(line.rpartition(" ")[::2] for line in _text(path).splitlines())
    if not set(split_of.values()) <= set(get_args(Split)):
        raise ModelFolderError(f"{path}: damaged (wanted a hash and train or test in each line); {_ADVICE}")
    return split_of


def _text(path: Path) -> str:
    try:
        # A file's name may be no Unicode.
        return read_regular(path, max_bytes=_LARGEST_BYTES).decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise ModelFolderError(f"{path}: cannot be read ({error.strerror}); {_ADVICE}") from error


def _record(row: dict[str, str], where: str) -> ImageRecord:
    if set(row) != set(_COLUMNS) or None in row.values():
        raise ValueError(f"columns {few([shown_value(name) for name in row])}; wanted {', '.join(_COLUMNS)}")
    values: dict[str, Any] = dict(row)
    for name in _NUMBERS:
        text = row[name]
        values[name] = None if text == "" else int(text) if _NUMBER.fullmatch(text) else text
    return from_plain(ImageRecord, values, where=where)


def held_out_samples(folder: Path, source: DataSource, record: Mapping[str, Any]) -> list[Sample]:
    """Return the good training images that were held out when a model was trained.

    Args:
        folder: the model folder.
        source: the dataset of the training.
        record: the folder's config.yaml.

    Raises:
        DataError: an image is missing now, or has changed.
        ModelFolderError: images.csv is damaged.
    """
    records = read_image_records(folder)
    if records is None:
        return derive_held_out(source, record)
    return find_held_out(source, {image.name: image.sha256 for image in records if image.role == "held-out"})
