"""Data source for a table of images in CSV or Parquet."""

from __future__ import annotations

import io
import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from supersimplenet.datasets.base import DataSource, sort_samples
from supersimplenet.errors import DataError
from supersimplenet.preprocessing.reading import BitDepth
from supersimplenet.types import BAD, GOOD, Sample, Split
from supersimplenet.utils.files import is_file, open_regular
from supersimplenet.utils.formatting import few, first_line
from supersimplenet.utils.names import label_of, name_of
from supersimplenet.utils.text_files import existing_path, read_text, separator_of, yes_or_no

_COLUMNS = ("image", "split", "label", "defect", "mask", "group", "pixel_labels_known", "ignore", "mask_any_value")
_LABELS = {"0": GOOD, "good": GOOD, "1": BAD, "bad": BAD}
_MAX_ROWS = 5_000_000
_MAX_CELL_BYTES = 1 << 15  # far above the longest path
_BATCH_ROWS = 1024


class Table(DataSource):
    """A table of images: CSV, or Parquet if the file's name ends in .parquet.

    A CSV file may come from a spreadsheet: with commas, semicolons or tabs, in UTF-8 or UTF-16, with back slashes in
    relative paths; truth values, labels and splits may be written in capitals.

    The columns ``image``, ``split`` (train, test) and ``label`` (0, 1, good, bad) are required. ``defect``, ``mask``,
    ``group`` (the physical part), ``ignore`` (an ignore mask, whose pixels count in no loss and no metric),
    ``pixel_labels_known`` and ``mask_any_value`` (true, false, 1, 0) may be left out or left empty. By default, the
    pixel labels of a bad image are known if it has a mask, and a mask is read as described in `read_mask`. Where
    ``mask_any_value`` is true, every mask value except 0 marks a defect. Other columns are refused, so that a misspelt
    name is noticed.

    Args:
        path: File of the table.
        root: Folder that relative paths in the table start from. By default the table's own folder.
        bit_depth: Number of bits that count in 16-bit images, such as 12 for values of 0 to 4095, or auto, which takes
            the smallest that holds the values of the training images. By default all 16; a model keeps its own.
        page: Number of the page of TIFF images, from 0. By default the largest; a model keeps its own.
    """

    def __init__(
        self, *, path: Path, root: Path | None = None, bit_depth: BitDepth | None = None, page: int | None = None
    ) -> None:
        self.path = Path(path)
        self.root = self.path.parent if root is None else Path(root)
        self.name = f"Table/{self.path.stem}"
        self.set_reading(bit_depth, page)

    def samples(self) -> list[Sample]:
        """Return every sample of both splits, sorted.

        Raises:
            DataError: a column, a cell or a file is not valid, an image is listed twice, a group is in both splits,
                or there is no row. Row numbers in messages are as in an editor: in CSV the header is row 1.
        """
        is_parquet = self.path.suffix.lower() == ".parquet"
        rows = _read_rows(self.path, is_parquet=is_parquet)
        samples = []
        row_of: dict[str, int] = {}
        for number, row in enumerate(rows, start=1 if is_parquet else 2):
            try:
                sample = self._sample(row)
            except (ValueError, DataError) as error:
                raise DataError(f"{self.path}, row {number}: {error}") from error
            first = row_of.setdefault(os.path.normpath(sample.image), number)
            if first != number:
                raise DataError(f"{self.path}, row {number}: image {row['image']} is in row {first} too; keep one")
            samples.append(sample)
        self._check_splits(samples)
        return sort_samples(samples)

    def _sample(self, row: dict[str, str | None]) -> Sample:
        """Return the sample of a row; raise ValueError if the row has a mistake."""
        image, mask, ignore = (self._file(row, column) for column in ("image", "mask", "ignore"))
        if image is None:
            raise ValueError("image: empty; wanted a path")
        split, label = (row["split"] or "").lower(), _LABELS.get((row["label"] or "").lower())
        if split not in ("train", "test"):
            raise ValueError(f"split: '{row['split'] or ''}'; wanted train or test")
        if label is None:
            raise ValueError(f"label: '{row['label'] or ''}'; wanted 0, 1, good or bad")
        defect = label_of(row["defect"] or "") or ("good" if label == GOOD else "bad")
        if (defect == "good") != (label == GOOD):
            raise ValueError(f"defect: '{defect}' with label {row['label']}; correct one of them")
        if label == GOOD and mask is not None:
            raise ValueError("mask: given for a good image; leave it empty, or label the image bad")
        any_value = _yes_no(row, "mask_any_value", default=False)
        if any_value and mask is None:
            raise ValueError("mask_any_value: true without a mask; give the mask, or leave it empty")
        known = _pixel_labels_known(row, label, mask)
        labels = Sample(
            image=image,
            label=label,
            split=cast("Split", split),
            defect=defect,
            group=label_of(row["group"] or "") or None,
        )
        return replace(labels, mask=mask, mask_any_value=any_value, pixel_labels_known=known, ignore=ignore)

    def _file(self, row: dict[str, str | None], column: str) -> Path | None:
        if (cell := row[column]) is None:
            return None
        path = existing_path(cell, self.root)
        if not is_file(path) and not is_file(path := existing_path(name_of(cell), self.root)):
            raise ValueError(f"{column}: {path}: no such file; correct the path, or root ({self.root})")
        return path

    def _check_splits(self, samples: list[Sample]) -> None:
        if not samples:
            raise DataError(f"{self.path}: no row; wanted a row for each image")
        splits = defaultdict(set)
        for sample in samples:
            splits[sample.group].add(sample.split)
        leaking = sorted(group for group, both in splits.items() if group is not None and len(both) > 1)
        if leaking:
            raise DataError(
                f"{self.path}: groups that stand in train and in test: {few(leaking)}; "
                f"put all images of one part into one split"
            )


def _pixel_labels_known(row: dict[str, str | None], label: int, mask: Path | None) -> bool:
    """Return whether a row's pixel labels are known; raise ValueError if the cell contradicts the rest of the row."""
    known = _yes_no(row, "pixel_labels_known", default=label == GOOD or mask is not None)
    if label == GOOD and not known:
        raise ValueError("pixel_labels_known: false for a good image, whose pixels are all normal; leave it empty")
    if label == BAD and known and mask is None:
        raise ValueError("pixel_labels_known: true for a bad image without a mask; give its mask, or false")
    return known


def _yes_no(row: dict[str, str | None], column: str, *, default: bool) -> bool:
    cell = row[column]
    if cell is None:
        return default
    try:
        return yes_or_no(cell)
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from error


def _read_rows(path: Path, *, is_parquet: bool) -> list[dict[str, str | None]]:
    """Return the rows. Every known column is text, so that group 009 does not become 9; an empty cell is None."""
    import pyarrow  # imported here, because it takes time and no other source needs it

    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path of the table")
    try:
        return list(_parquet_rows(path) if is_parquet else _csv_rows(path))
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: not a readable {'Parquet' if is_parquet else 'CSV'} table ({first_line(error)})"
        ) from error


def _csv_rows(path: Path) -> Iterator[dict[str, str | None]]:
    import pyarrow
    from pyarrow import csv

    separator, text = separator_of(read_text(path))
    table = csv.read_csv(
        io.BytesIO(text.encode()),
        parse_options=csv.ParseOptions(delimiter=separator, newlines_in_values=True),
        convert_options=csv.ConvertOptions(column_types=dict.fromkeys(_COLUMNS, pyarrow.string())),
    )
    _check_columns(path, table.column_names)
    for batch in table.to_batches():
        yield from map(_known, batch.to_pylist())


def _parquet_rows(path: Path) -> Iterator[dict[str, str | None]]:
    """Yield the rows, few at a time: a small file may hold very many equal cells, or very long ones."""
    import pyarrow
    from pyarrow import compute, parquet

    def is_text(kind: Any) -> bool:
        tests = ("is_string", "is_binary", "is_large_string", "is_large_binary")
        return any(getattr(pyarrow.types, test)(kind) for test in tests)

    with open_regular(path) as opened:
        schema = parquet.read_schema(opened)
        names = schema.names
        _check_columns(path, names)
        # Text comes as a dictionary of its values, so that equal cells are in memory once.
        file = parquet.ParquetFile(opened, read_dictionary=[item.name for item in schema if is_text(item.type)])
        if file.metadata.num_rows > _MAX_ROWS:
            raise DataError(f"{path}: {file.metadata.num_rows:,} rows; at most {_MAX_ROWS:,} are read; split it")
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            for column in batch.columns:
                values = column.dictionary if pyarrow.types.is_dictionary(column.type) else column
                longest = compute.max(compute.binary_length(values)).as_py() if is_text(values.type) else None
                if longest is not None and longest > _MAX_CELL_BYTES:
                    raise DataError(f"{path}: a cell of {longest:,} bytes; at most {_MAX_CELL_BYTES:,} are read")
            as_text = batch.cast(pyarrow.schema([(name, pyarrow.string()) for name in names]))
            yield from map(_known, as_text.to_pylist())


def _check_columns(path: Path, names: list[str]) -> None:
    unknown = [name for name in names if name not in _COLUMNS]
    if unknown:
        raise DataError(f"{path}: unknown columns {few(unknown)}; known are {', '.join(_COLUMNS)}")
    if len(set(names)) < len(names):
        raise DataError(f"{path}: a column stands twice: {', '.join(names)}; keep one of each")
    missing = [name for name in _COLUMNS[:3] if name not in names]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; found {', '.join(names)}")


def _known(row: dict[str, str | None]) -> dict[str, str | None]:
    return {name: row.get(name) or None for name in _COLUMNS}
