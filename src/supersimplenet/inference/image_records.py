"""images.csv of a model folder: the images that a model was trained on, calibrated with and is tested with.

The file contains image names of the company that trained the model. It stays in the model folder: no export and no
report contains it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from supersimplenet.datasets.base import DataSource
from supersimplenet.datasets.held_out import derive_held_out, find_held_out
from supersimplenet.errors import ModelFolderError
from supersimplenet.inference.config import CONFIG_FILE
from supersimplenet.inference.model_folder import read_record, stated_hash
from supersimplenet.types import Sample, Split
from supersimplenet.utils.files import file_sha256, write_text

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
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        records = [_record(row) for row in rows]
    except (csv.Error, KeyError, ValueError, TypeError) as error:
        raise ModelFolderError(f"{path}: damaged ({error}); bring it back, or train the model again") from error
    stated = stated_hash(read_record(folder), IMAGES_FILE) if (folder / CONFIG_FILE).is_file() else None
    if stated is not None and file_sha256(path) != stated:
        raise ModelFolderError(f"{path}: not the one that the training wrote; bring it back, or train the model again")
    return records


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
    return dict(line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines())


def _record(row: dict[str, str]) -> ImageRecord:
    if set(row) != set(_COLUMNS) or None in row.values():
        raise ValueError(f"columns {', '.join(map(str, row))}; wanted {', '.join(_COLUMNS)}")
    if row["split"] not in get_args(Split) or row["role"] not in get_args(Role):
        raise ValueError(f"split {row['split']!r} and role {row['role']!r} of {row['name']}")
    numbers = {name: int(row[name]) if row[name] else None for name in _NUMBERS}
    texts = {name: row[name] for name in _COLUMNS if name not in _NUMBERS}
    return ImageRecord(**texts, **numbers)  # type: ignore[arg-type]  # split and role were checked above


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
