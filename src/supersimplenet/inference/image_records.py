"""images.csv of a model folder: the images that a model was trained on, calibrated with and is tested with.

The file contains image names of the company that trained the model. It stays in the model folder: no export and no
report contains it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from supersimplenet.datasets.base import DataSource
from supersimplenet.datasets.folder import Folder
from supersimplenet.datasets.folder_split import RecordedSplits
from supersimplenet.datasets.held_out import derive_held_out, find_held_out
from supersimplenet.datasets.registry import source_from
from supersimplenet.errors import ConfigError, ModelFolderError
from supersimplenet.inference.config import CONFIG_FILE
from supersimplenet.inference.config import IMAGES_FILE as IMAGES_FILE
from supersimplenet.inference.record import read_record, stated_hash
from supersimplenet.preprocessing.reading import MOST_BITS
from supersimplenet.types import BAD, Sample, Split
from supersimplenet.utils.files import file_sha256, read_regular, write_text
from supersimplenet.utils.formatting import few, shown_value
from supersimplenet.utils.names import csv_line
from supersimplenet.utils.serialization import from_plain

_KNOWN_IMAGES_FILE = "known_images.txt"  # of version 0.1: only hash and split, without the held-out images

Role = Literal["trained", "held-out", "left-out", "unused", "skipped", "earlier", "test"]
HELD_OUT_ROLES = ("held-out", "left-out")  # of the images of parts that are held out
TRAINED_ROLES = ("trained", "earlier")


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
        role: how the training used the image: ``trained``; ``held-out``: to calibrate; ``left-out``: for nothing,
            because its part is held out; ``unused``: for nothing, because an unsupervised training uses no bad image;
            ``skipped``: it could not be read; ``earlier``: it is not in the dataset, but the model that the training
            started from was trained on it. ``test`` for an image of the test split.
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
    rows: list[Iterable[object]] = [_COLUMNS]
    for record in sorted(records, key=lambda record: (record.split != "train", record.name)):
        rows.append(["" if (value := getattr(record, name)) is None else value for name in _COLUMNS])  # noqa: PERF401
    write_text(folder / IMAGES_FILE, "".join(map(csv_line, rows)))


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
        records = [
            _record(row, f"row {number}") for number, row in enumerate(csv.DictReader(lines, strict=True), start=1)
        ]
    except (csv.Error, ValueError, ModelFolderError) as error:
        raise ModelFolderError(f"{path}: damaged ({error}); {_ADVICE}") from error
    stated = stated_hash(read_record(folder), IMAGES_FILE) if (folder / CONFIG_FILE).is_file() else None
    if stated is not None and file_sha256(path) != stated:
        raise ModelFolderError(f"{path}: not the one that the training wrote; {_ADVICE}")
    return records


def read_known_images(folder: Path) -> dict[str, str] | None:
    """Return ``train`` or ``test`` for each image that a model was trained on or is tested with, by its content.

    The keys are the SHA-256 of the image's file and, where it was decoded, the digest of its pixels.

    Returns:
        None for a model folder without such a record, for example an imported one.

    Raises:
        ModelFolderError: the record is damaged.
    """
    records = read_image_records(folder)
    if records is not None:
        known = [record for record in records if record.role not in (*HELD_OUT_ROLES, "unused")]
        # Content in both splits counts as ``train``: the training split comes last, so that its entry stays.
        known.sort(key=lambda record: record.split == "train")
        return {key: record.split for record in known for key in (record.sha256, record.pixels) if key}
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
    """Return the training images that were held out when a model was trained, to calibrate it.

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


def samples_to_choose_by(folder: Path, samples: Sequence[Sample], record: Mapping[str, Any]) -> list[Sample]:
    """Return the images by which anything but the thresholds may be chosen: good ones trained on, and bad ones.

    They are of the training split, and neither held out nor of a part that is.

    Args:
        folder: the model folder.
        samples: samples of the dataset of the training.
        record: the folder's config.yaml.

    Raises:
        DataError: which images were held out is not known any more.
        ModelFolderError: images.csv is damaged.
    """
    training = [sample for sample in samples if sample.split == "train"]
    records = read_image_records(folder)
    if records is None:
        kept = {file_sha256(sample.image) for sample in derive_held_out(_dataset(record, folder), record)}
        return [sample for sample in training if file_sha256(sample.image) not in kept]
    trained = {image.sha256 for image in records if image.role == "trained"}
    kept = {image.sha256 for image in records if image.role in HELD_OUT_ROLES}
    chosen = []
    for sample in training:
        sha256 = file_sha256(sample.image)
        if sha256 not in kept and (sha256 in trained or sample.label == BAD):
            chosen.append(sample)
    return chosen


def tested_on(source: DataSource | None, record: Mapping[str, Any], model: Path) -> DataSource:
    """Return the dataset to test a model on: the given one or else, for None, the one that it was trained on.

    Args:
        source: the dataset.
        record: content of the model folder's config.yaml.
        model: the model folder.

    Raises:
        ConfigError: no dataset is known, or it names another bit depth or page than the training's.
    """
    if source is None:
        return trained_on(record, model)
    reading = record.get("reading", {})
    for name, own in (("bit_depth", reading.get("bit_depth", MOST_BITS)), ("page", reading.get("page"))):
        given = getattr(source, name)
        if given not in (None, "auto", own):
            raise ConfigError(
                f"data.{name}: {given}, and {model} was trained with {'the largest' if own is None else own}; leave "
                "it out, so that the model reads as in its training"
            )
    return source


def trained_on(record: Mapping[str, Any], model: Path) -> DataSource:
    """Return the dataset that a model was trained on; each image that it knows keeps the split that it had then.

    Args:
        record: content of the model folder's config.yaml.
        model: the model folder.

    Raises:
        ConfigError: the dataset is not known.
        ModelFolderError: images.csv is damaged.
    """
    if "data" not in record:
        raise ConfigError(f"data: {model} was not trained here, so its dataset is not known; name one with --data")
    return as_recorded(_dataset(record, model), model)


def as_recorded(source: DataSource, model: Path) -> DataSource:
    """Return the dataset with each image that a model folder records in its recorded split."""
    records = read_image_records(model)
    if records is None or not isinstance(source, Folder):  # the splits of all others are fixed
        return source
    records = [image for image in records if image.role != "earlier"]
    return source.following(
        RecordedSplits(
            by_name={image.name: image.split for image in records},
            by_sha256={image.sha256: image.split for image in records},
        )
    )


def _dataset(record: Mapping[str, Any], folder: Path) -> DataSource:
    return source_from(record["data"], where=str(folder / CONFIG_FILE))
