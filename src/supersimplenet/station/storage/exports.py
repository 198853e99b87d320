"""Results as files to take along: CSV, Parquet, a zip of pictures; written while they are read."""

from __future__ import annotations

import csv
import io
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

from supersimplenet.station.storage.pictures import PictureStore
from supersimplenet.station.storage.recorder import Record
from supersimplenet.station.storage.results import SCORES, public
from supersimplenet.utils.formatting import printable
from supersimplenet.utils.names import label_cell

Public = dict[str, Any]  # a result in its public form
_COLUMNS: dict[str, Callable[[Public], Any]] = {
    **{name: itemgetter(name) for name in ("id", "taken_at", "product", "source", "name", "part", "verdict", "score")},
    "p_value": itemgetter("p_value"),
    "calibrated": itemgetter("calibrated"),
    "defects": lambda result: None if result["defects"] is None else len(result["defects"]),
    **{name: lambda result, name=name: result["scores"][name] for name in SCORES},  # type: ignore[misc]
    "score_logit": itemgetter("score_logit"),
    "error": lambda result: None if result["error"] is None else printable(result["error"]["message"]),
    "model": itemgetter("model"),
    "picture": lambda result: result["picture"]["sha256"],
    "picture_kept": lambda result: result["picture"]["kept"],
    "review": lambda result: result["review"] and result["review"]["verdict"],
    "reviewed_by": lambda result: result["review"] and result["review"]["by"],
    "reviewed_at": lambda result: result["review"] and result["review"]["at"],
}
COLUMNS = tuple(_COLUMNS)
_TEXTS = ("product", "source", "name", "part", "error", "reviewed_by")  # that people chose
_FLOATS = ("score", "p_value", "score_logit", *SCORES)
_GROUP_ROWS = 4096
_BLOCK_BYTES = 1 << 16


def csv_lines(records: Iterable[Record]) -> Iterator[str]:
    """Yield a CSV table with a line for each result. Texts that a spreadsheet would compute are escaped."""
    buffer = io.StringIO()
    table = csv.writer(buffer)
    table.writerow(COLUMNS)
    for record in records:
        table.writerow(csv_cells(public(record)))
        if buffer.tell() >= _BLOCK_BYTES:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def csv_cells(result: Public) -> list[Any]:
    """Return the cells of a line of a CSV table, in the order of `COLUMNS`."""
    row = as_cells(result)
    row |= {name: label_cell(row[name]) for name in _TEXTS if row[name] is not None}
    return list(row.values())


def as_cells(result: Public) -> dict[str, Any]:
    """Return the row of a table for a result in its public form, by column."""
    return {name: cell(result) for name, cell in _COLUMNS.items()}


def parquet_blocks(records: Iterable[Record]) -> Iterator[bytes]:
    """Yield the bytes of a Parquet table with a row for each result."""
    with tempfile.TemporaryFile() as file:
        write_parquet((as_cells(public(record)) for record in records), file)
        file.seek(0)
        while block := file.read(_BLOCK_BYTES):
            yield block


def write_table(records: Iterable[Record], path: Path, *, is_parquet: bool) -> int:
    """Write a table with a row for each result, CSV or Parquet; return their number."""
    number = 0

    def counted() -> Iterator[Record]:
        nonlocal number
        for record in records:
            number += 1
            yield record

    with path.open("wb") as file:
        if is_parquet:
            write_parquet((as_cells(public(record)) for record in counted()), file)
        else:
            file.writelines(line.encode() for line in csv_lines(counted()))
    return number


def write_parquet(rows: Iterable[Mapping[str, Any]], file: IO[bytes]) -> None:
    """Write rows by column into a Parquet table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"calibrated": pa.bool_(), "picture_kept": pa.bool_(), "defects": pa.int64()}
    kinds |= dict.fromkeys(_FLOATS, pa.float64())
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    with pq.ParquetWriter(file, schema) as writer:
        waiting: list[Mapping[str, Any]] = []
        for row in rows:
            waiting.append(row)
            if len(waiting) == _GROUP_ROWS:
                writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
                waiting.clear()
        writer.write_table(pa.Table.from_pylist(waiting, schema=schema))


def zip_blocks(records: Iterable[Record], store: PictureStore) -> Iterator[bytes]:
    """Yield the bytes of a zip with the kept pictures of results, in a folder for each verdict, and their table.

    A picture of whose part a person said what it is lies in the folder of that: ``good`` or ``bad``.
    """
    out = _Outgoing()
    listed: list[Record] = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for record in records:
            listed.append(record)
            path = store.picture(record["picture"], record["kind"])
            if record["kept"] and path.is_file():
                folder = record["review"] or record["verdict"] or "failed"
                archive.write(path, f"{folder}/{record['id']}.{record['kind']}")
                yield out.taken()
        archive.writestr("results.csv", "".join(csv_lines(listed)))
    yield out.taken()


class _Outgoing(io.RawIOBase):
    """A file that is only written, forwards, and whose bytes are taken away as they come."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, block: Any) -> int:
        self._waiting += block
        return len(block)

    def taken(self) -> bytes:
        block = bytes(self._waiting)
        self._waiting.clear()
        return block
