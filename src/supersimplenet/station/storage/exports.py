"""Results as files to take along: CSV, Parquet, a zip of pictures; written while they are read."""

from __future__ import annotations

import csv
import io
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from supersimplenet.station.storage.pictures import PictureStore
from supersimplenet.station.storage.recorder import Record
from supersimplenet.station.storage.results import iso_time
from supersimplenet.utils.names import label_cell

_COLUMNS: dict[str, Callable[[Record], Any]] = {
    "id": lambda record: record["id"],
    "taken_at": lambda record: iso_time(record["taken_at"]),
    **{name: lambda record, name=name: record[name] for name in ("product", "source", "name", "part", "verdict")},  # type: ignore[misc]
    "score": lambda record: record["score"],
    "p_value": lambda record: record["row"]["p_value"],
    "calibrated": lambda record: record["row"]["calibrated"],
    "defects": lambda record: None if record["row"]["defects"] is None else len(record["row"]["defects"]),
    **{
        name: lambda record, name=name: record["row"][name]  # type: ignore[misc]
        for name in ("head_logit", "map_max_logit", "fused_logit", "subspace_logit", "joint_logit")
    },
    "score_logit": lambda record: record["score_logit"],
    "model": lambda record: record["model"],
    "picture": lambda record: record["picture"],
    "picture_kept": lambda record: record["kept"],
    "review": lambda record: record["review"],
    "reviewed_by": lambda record: record["reviewed_by"],
    "reviewed_at": lambda record: None if record["reviewed_at"] is None else iso_time(record["reviewed_at"]),
}
COLUMNS = tuple(_COLUMNS)
_TEXTS = ("product", "source", "name", "part", "reviewed_by")  # that people chose
_FLOATS = (
    "score",
    "p_value",
    "score_logit",
    "head_logit",
    "map_max_logit",
    "fused_logit",
    "subspace_logit",
    "joint_logit",
)
_GROUP_ROWS = 4096
_BLOCK_BYTES = 1 << 16


def csv_lines(records: Iterable[Record]) -> Iterator[str]:
    """Yield a CSV table with a line for each result. Texts that a spreadsheet would compute are escaped."""
    buffer = io.StringIO()
    table = csv.writer(buffer)
    table.writerow(COLUMNS)
    for record in records:
        cells = {name: cell(record) for name, cell in _COLUMNS.items()}
        cells |= {name: label_cell(cells[name]) for name in _TEXTS if cells[name] is not None}
        table.writerow(cells.values())
        if buffer.tell() >= _BLOCK_BYTES:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()


def parquet_blocks(records: Iterable[Record]) -> Iterator[bytes]:
    """Yield the bytes of a Parquet table with a row for each result."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"calibrated": pa.bool_(), "picture_kept": pa.bool_(), "defects": pa.int64()}
    kinds |= dict.fromkeys(_FLOATS, pa.float64())
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    with tempfile.TemporaryFile() as file:
        with pq.ParquetWriter(file, schema) as writer:
            waiting: list[dict[str, Any]] = []
            for record in records:
                waiting.append({name: cell(record) for name, cell in _COLUMNS.items()})
                if len(waiting) == _GROUP_ROWS:
                    writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
                    waiting.clear()
            writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
        file.seek(0)
        while block := file.read(_BLOCK_BYTES):
            yield block


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
                folder = record["review"] or record["verdict"]
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
