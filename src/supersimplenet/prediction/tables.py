"""Write predictions as CSV, JSON lines or Parquet. A file appears only when it is complete; equal rows, equal file."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO, get_args

from supersimplenet.errors import ConfigError
from supersimplenet.runtime.rows import COLUMNS
from supersimplenet.types import Defect
from supersimplenet.utils.files import whole_file
from supersimplenet.utils.names import path_cell, unicode_text

Format = Literal["csv", "jsonl", "parquet"]
Row = dict[str, Any]
DEFAULT_FORMATS: tuple[Format, ...] = ("csv", "jsonl")
CSV_FILE = "predictions.csv"
JSONL_FILE = "predictions.jsonl"
PARQUET_FILE = "predictions.parquet"
DEFECTS_FILE = "defects.csv"
_FILES: dict[Format, tuple[str, ...]] = {
    "csv": (CSV_FILE, DEFECTS_FILE),
    "jsonl": (JSONL_FILE,),
    "parquet": (PARQUET_FILE,),
}
_DEFECT_COLUMNS = ("path", *(field.name for field in dataclasses.fields(Defect)))
_GROUP_ROWS = 4096  # rows in a row group of a Parquet file; so many are in memory


class _Sink(Protocol):
    def __call__(self, row: Row) -> None:
        """Write a row of `supersimplenet.runtime.rows.as_row`."""


def parse_formats(text: str) -> tuple[Format, ...]:
    """Return the formats that a text such as ``csv,parquet`` names.

    Raises:
        ConfigError: a format is unknown, none is named, or the library that writes it is not installed.
    """
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in get_args(Format)]:
        raise ConfigError(f"format: '{unknown[0]}'; choose among {', '.join(get_args(Format))}, commas between them")
    if "parquet" in names and find_spec("pyarrow") is None:
        raise ConfigError("format: parquet is written by pyarrow, which is not installed; pip install pyarrow")
    return tuple(format_ for format_ in get_args(Format) if format_ in names)


def table_file(formats: Sequence[Format]) -> str:
    """Return the name of the first file that these formats write."""
    return _FILES[formats[0]][0]


def table_files(formats: Sequence[Format]) -> list[str]:
    """Return the names of all files that these formats write."""
    return [name for format_ in formats for name in _FILES[format_]]


@contextmanager
def results_in(folder: Path, formats: Sequence[Format], names: Sequence[str] = COLUMNS) -> Iterator[list[_Sink]]:
    """Yield a function for each format that writes a row.

    The files appear at the end, and replace the files of an earlier run in any format.
    """
    with ExitStack() as files:
        yield [files.enter_context(_SINKS[format_](folder, names)) for format_ in formats]
    for format_, own_files in _FILES.items():
        for name in own_files if format_ not in formats else ():
            (folder / name).unlink(missing_ok=True)


@contextmanager
def _text_file(path: Path) -> Iterator[TextIO]:
    # csv ends its lines itself.
    with (
        whole_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        yield file


@contextmanager
def _csv(folder: Path, names: Sequence[str]) -> Iterator[_Sink]:
    with _text_file(folder / DEFECTS_FILE) as defects_file, _text_file(folder / CSV_FILE) as table_file_:
        table = csv.DictWriter(table_file_, fieldnames=names)
        defects = csv.DictWriter(defects_file, fieldnames=_DEFECT_COLUMNS)
        table.writeheader()
        defects.writeheader()

        def add(row: Row) -> None:
            found = row["defects"]
            path, error = (None if row[name] is None else path_cell(row[name]) for name in ("path", "error"))
            defects.writerows({"path": path, **defect} for defect in found or ())
            table.writerow(row | {"path": path, "error": error, "defects": None if found is None else len(found)})

        yield add


@contextmanager
def _jsonl(folder: Path, names: Sequence[str]) -> Iterator[_Sink]:
    del names  # each row is written as it is
    with _text_file(folder / JSONL_FILE) as lines:

        def add(row: Row) -> None:
            lines.write(json.dumps(row) + "\n")

        yield add


@contextmanager
def _parquet(folder: Path, names: Sequence[str]) -> Iterator[_Sink]:
    import pyarrow.parquet as pq

    waiting: list[Row] = []
    with (
        whole_file(folder / PARQUET_FILE) as temporary,
        pq.ParquetWriter(temporary, row_schema(names)) as writer,
    ):

        def add(row: Row) -> None:
            waiting.append(row)
            if len(waiting) == _GROUP_ROWS:
                writer.write_table(as_table(waiting, names))
                waiting.clear()

        yield add
        if waiting:
            writer.write_table(as_table(waiting, names))


_SINKS = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}


def row_schema(names: Sequence[str] = COLUMNS) -> Any:
    """Return the Arrow schema of rows with these columns."""
    import pyarrow as pa

    kinds = {"int": pa.int64(), "float": pa.float64()}
    defect = pa.struct([(field.name, kinds[str(field.type)]) for field in dataclasses.fields(Defect)])
    named = {"defects": pa.list_(defect), "calibrated": pa.bool_()}
    named |= dict.fromkeys(("path", "verdict", "error"), pa.string())
    return pa.schema([(name, named.get(name, pa.float64())) for name in names])


def as_table(rows: Iterable[Row], names: Sequence[str] = COLUMNS) -> Any:
    """Return rows as an Arrow table. Bytes of names that are not UTF-8 are escaped; see `unicode_text`."""
    import pyarrow as pa

    plain = [
        row | {name: None if row[name] is None else unicode_text(row[name]) for name in ("path", "error")}
        for row in rows
    ]
    return pa.Table.from_pylist(plain, schema=row_schema(names))
