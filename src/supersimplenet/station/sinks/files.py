"""A sink that writes a table a day."""

from __future__ import annotations

import csv
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from supersimplenet.station.sinks.settings import FilesSink
from supersimplenet.station.sinks.sink import AwayError, Message, Sink
from supersimplenet.station.storage.exports import COLUMNS, csv_cells, write_parquet
from supersimplenet.utils.files import whole_file
from supersimplenet.utils.names import csv_line

_KNOWN = 1000  # last ids of a table, among which repeats are found
_DAY = re.compile(r"results-(\d{4}-\d\d-\d\d)\.csv")


class Files(Sink):
    """Appends each result to the table of its day, by UTC, once: of what comes again, the table has it already.

    Args:
        settings: the sink's settings.
    """

    def __init__(self, settings: FilesSink) -> None:
        self._folder, self._makes_parquet = settings.folder, settings.format == "parquet"
        self._tables: dict[str, _Table] = {}

    def open(self) -> None:
        """Make the folder."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AwayError(f"{self._folder}: {error.strerror}") from error

    def deliver(self, message: Message) -> None:
        """Append a result."""
        day = message["taken_at"][:10]
        try:
            if day in self._tables and not self._tables[day].is_in_place:
                self._tables.pop(day).close()  # somebody has replaced or removed it: what comes belongs to the new one
            if day not in self._tables:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._tables[day] = _Table(self._folder / f"results-{day}.csv")
                self._end_days_before(day)
            self._tables[day].append(message)
        except OSError as error:
            raise AwayError(f"results-{day}.csv: {error.strerror}") from error

    def confirm(self) -> None:
        """Bring what was appended to the disk."""
        try:
            for table in self._tables.values():
                table.to_disk()
        except OSError as error:
            raise AwayError(f"{self._folder}: {error.strerror}") from error

    def close(self) -> None:
        """Close the tables."""
        for table in self._tables.values():
            table.close()
        self._tables.clear()

    def _end_days_before(self, day: str) -> None:
        """Close the tables of earlier days but the last, to which results may still come; make Parquet of them."""
        *ended, _ = sorted(found for found in {*self._tables, *self._days()} if found < day) or [""]
        for earlier in ended:
            if earlier in self._tables:
                self._tables.pop(earlier).close()
            if self._makes_parquet:
                _to_parquet(self._folder / f"results-{earlier}.csv")

    def _days(self) -> Iterator[str]:
        return (match[1] for path in self._folder.iterdir() if (match := _DAY.fullmatch(path.name)))


class _Table:
    """A CSV table that is appended to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab+", buffering=0)  # what cannot be written must not wait in a buffer
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1  # a kill may have torn the last line
        self._file.truncate(whole)
        head, *lines = content[:whole].splitlines() or [b""]
        self._last = deque((line.partition(b",")[0].decode() for line in lines), maxlen=_KNOWN)
        if not head:
            self._write(COLUMNS)
        elif head != ",".join(COLUMNS).encode():
            self._file.close()
            text = f"{path.name}: its columns are those of another version; move it away"
            raise AwayError(text, "columns", file=path.name)

    @property
    def is_in_place(self) -> bool:
        """Whether the file that is open is still the one of that name."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except OSError:
            return False

    def append(self, message: Message) -> None:
        if message["repeat"] and message["id"] in self._last:
            return
        self._write(csv_cells(message))
        self._last.append(message["id"])

    def to_disk(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _write(self, cells: Iterable[object]) -> None:
        left = memoryview(csv_line(cells).encode())
        while left:
            left = left[self._file.write(left) :]


def _to_parquet(path: Path) -> None:
    """Turn a finished day's table into Parquet, beside what is there of that day; the CSV goes when that is whole."""
    import pyarrow.parquet as pq

    target = path.with_suffix(".parquet")
    rows = pq.read_table(target).to_pylist() if target.exists() else []
    known = {row["id"] for row in rows}
    with path.open(encoding="utf-8", newline="") as file:
        rows += [_typed(row) for row in csv.DictReader(file) if row["id"] not in known]
    with whole_file(target) as whole, whole.open("wb") as written:
        write_parquet(rows, written)
    path.unlink()


def _typed(row: dict[str, str]) -> dict[str, Any]:
    """Return a line of a CSV table with the types that its columns have."""
    return {name: _value(name, text) for name, text in row.items()}


def _value(name: str, text: str) -> Any:
    if not text:
        return None
    if name in ("calibrated", "picture_kept"):
        return text == "True"
    if name == "defects":
        return int(text)
    return float(text) if name in ("score", "p_value") or name.endswith("_logit") else text
