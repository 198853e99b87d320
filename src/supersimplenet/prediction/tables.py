"""Write predictions as CSV, JSON lines or Parquet. A file appears only when it is complete; equal rows, equal file."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO, get_args

from supersimplenet.errors import ConfigError
from supersimplenet.postprocessing.parts import PartVerdict
from supersimplenet.runtime.rows import COLUMNS
from supersimplenet.types import Defect
from supersimplenet.utils.files import whole_file
from supersimplenet.utils.names import label_cell, path_cell, unicode_text

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
_PARTS_FILES: dict[Format, str] = {"csv": "parts.csv", "jsonl": "parts.jsonl", "parquet": "parts.parquet"}
PART_COLUMNS = tuple(field.name for field in dataclasses.fields(PartVerdict))
_DEFECT_COLUMNS = ("path", *(field.name for field in dataclasses.fields(Defect)))
_TEXTS = ("path", "part", "error")  # may hold bytes of names that are not UTF-8
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


def table_files(formats: Sequence[Format], *, parts: bool) -> list[str]:
    """Return the names of all files that these formats write, with or without tables of parts."""
    own = [name for format_ in formats for name in _FILES[format_]]
    return own + [_PARTS_FILES[format_] for format_ in formats if parts]


@contextmanager
def results_in(folder: Path, formats: Sequence[Format], names: Sequence[str] = COLUMNS) -> Iterator[list[_Sink]]:
    """Yield functions that write a row each, one for each file.

    The files appear at the end, and replace the files of an earlier run in any format.
    """
    with ExitStack() as files:
        sinks = [files.enter_context(_SINKS[format_](folder / table_file([format_]), names)) for format_ in formats]
        yield sinks + ([files.enter_context(_defects(folder / DEFECTS_FILE))] if "csv" in formats else [])
    _remove(folder / name for format_, own in _FILES.items() for name in own if format_ not in formats)


def write_parts(folder: Path, formats: Sequence[Format], parts: Sequence[PartVerdict] | None) -> None:
    """Write the tables of parts, and remove those of an earlier run in other formats; all of them where it is None."""
    wanted = () if parts is None else formats
    with ExitStack() as files:
        sinks = [
            files.enter_context(_SINKS[format_](folder / _PARTS_FILES[format_], PART_COLUMNS)) for format_ in wanted
        ]
        for row in map(dataclasses.asdict, parts or ()):
            for add in sinks:
                add(row)
    _remove(folder / name for format_, name in _PARTS_FILES.items() if format_ not in wanted)


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


@contextmanager
def _text_file(path: Path) -> Iterator[TextIO]:
    # csv ends its lines itself.
    with (
        whole_file(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        yield file


@contextmanager
def _csv(path: Path, names: Sequence[str]) -> Iterator[_Sink]:
    with _text_file(path) as file:
        table = csv.DictWriter(file, fieldnames=names)
        table.writeheader()

        def add(row: Row) -> None:
            cells = {name: _CELLS[name](value) for name, value in row.items() if name in _CELLS and value is not None}
            table.writerow(row | cells)

        yield add


_CELLS: dict[str, Callable[[Any], Any]] = {"path": path_cell, "error": path_cell, "part": label_cell, "defects": len}


@contextmanager
def _defects(path: Path) -> Iterator[_Sink]:
    with _text_file(path) as file:
        table = csv.DictWriter(file, fieldnames=_DEFECT_COLUMNS)
        table.writeheader()

        def add(row: Row) -> None:
            for defect in row["defects"] or ():
                zone = defect.get("zone")  # a journal of an earlier version has none
                table.writerow(
                    {"path": path_cell(row["path"]), **defect, "zone": None if zone is None else label_cell(zone)}
                )

        yield add


@contextmanager
def _jsonl(path: Path, names: Sequence[str]) -> Iterator[_Sink]:
    del names  # each row is written as it is
    with _text_file(path) as lines:

        def add(row: Row) -> None:
            lines.write(json.dumps(row) + "\n")

        yield add


@contextmanager
def _parquet(path: Path, names: Sequence[str]) -> Iterator[_Sink]:
    import pyarrow.parquet as pq

    waiting: list[Row] = []
    with (
        whole_file(path) as temporary,
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

    kinds = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "str | None": pa.string()}
    defect = pa.struct([(field.name, kinds[str(field.type)]) for field in dataclasses.fields(Defect)])
    named = {"defects": pa.list_(defect), "calibrated": pa.bool_()}
    named |= dict.fromkeys((*_TEXTS, "verdict"), pa.string())
    named |= dict.fromkeys(("photographs", "failed"), pa.int64())
    return pa.schema([(name, named.get(name, pa.float64())) for name in names])


def as_table(rows: Iterable[Row], names: Sequence[str] = COLUMNS) -> Any:
    """Return rows as an Arrow table. Bytes of names that are not UTF-8 are escaped; see `unicode_text`."""
    import pyarrow as pa

    plain = [row | {name: unicode_text(row[name]) for name in _TEXTS if row[name] is not None} for row in rows]
    return pa.Table.from_pylist(plain, schema=row_schema(names))
