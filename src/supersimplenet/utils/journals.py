"""Journals: one JSON object a line, with a check sum, by which an interrupted run continues.

A line reads ``{"crc32": "89abcdef", "path": ...}``: the check sum is that of the object without it. Lines of version
0.1 have none.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from supersimplenet.errors import ConfigError, DataError
from supersimplenet.utils.files import to_disk, whole_file

_SEAL = re.compile(rb'\{"crc32": "([0-9a-f]{8})", ')


class Kept(NamedTuple):
    """What is kept of the journal of an interrupted run.

    Attributes:
        rows: number of rows.
        damaged: number of damaged lines found.
        dropped: number of complete lines that were dropped, the damaged ones included.
    """

    rows: int
    damaged: int = 0
    dropped: int = 0


def as_line(row: Mapping[str, Any]) -> bytes:
    """Return a journal's line for a row, which has at least one value."""
    body = json.dumps(row).encode()
    return b'{"crc32": "%08x", %b\n' % (zlib.crc32(body), body[1:])


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row, which is complete and on the disk when this function returns."""
    is_new = not path.exists()
    with path.open("ab+") as file:
        file.seek(0)
        file.truncate(len(whole_lines(file.read())))
        file.write(as_line(row))
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        to_disk(path.parent)


def whole_lines(content: bytes) -> bytes:
    """Return the content up to and including the last line end."""
    return content[: content.rfind(b"\n") + 1]


def row_of(line: bytes, *, first: str) -> dict[str, Any] | None:
    """Return the row of a line; None for a line that is damaged or incomplete.

    Args:
        line: the line, with its end.
        first: name of a row's first value, by which a line of version 0.1 is known.
    """
    if not line.endswith(b"\n"):
        return None
    seal = _SEAL.match(line)
    if seal is not None:
        body = b"{" + line[seal.end() : -1]
        return json.loads(body) if zlib.crc32(body) == int(seal[1], 16) else None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and next(iter(row), None) == first else None


def read_journal(journal: Path, *, first: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a journal; no row where there is no file.

    Raises:
        DataError: a line is damaged.
    """
    if not journal.is_file():
        return
    with journal.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            row = row_of(line, first=first)
            if row is None:
                raise DataError(f"{journal}, line {number}: damaged; run the command again, or remove the file")
            yield row


def cut_journal(journal: Path, multiple: int, *, first: str) -> Kept:
    """Cut the journal of an interrupted run before its first damaged line, to a multiple of ``multiple`` rows.

    Raises:
        ConfigError: ``multiple`` is less than 1.
    """
    if multiple < 1:
        raise ConfigError(f"batch_size: {multiple}; it must be at least 1")
    if not journal.is_file():
        return Kept(0)
    kept_bytes, kept, whole_bytes, rows, lost = 0, 0, 0, 0, 0
    with journal.open("rb") as lines:
        for line in lines:
            if lost or row_of(line, first=first) is None:
                lost += line.endswith(b"\n")
                continue
            whole_bytes += len(line)
            rows += 1
            if rows % multiple == 0:
                kept_bytes, kept = whole_bytes, rows
    os.truncate(journal, kept_bytes)
    return Kept(kept, damaged=int(lost > 0), dropped=lost and rows - kept + lost)


def mend_journal(journal: Path, *, first: str) -> Kept:
    """Remove the damaged lines of a journal, and keep those before and after them."""
    if not journal.is_file():
        return Kept(0)
    rows, damaged, torn = 0, 0, False
    with journal.open("rb") as lines:
        for line in lines:
            rows += (good := row_of(line, first=first) is not None)
            damaged += not good and line.endswith(b"\n")
            torn = not line.endswith(b"\n")
    if damaged or torn:
        # The rename comes last, when the journal is closed: Windows renames onto no open file.
        with whole_file(journal) as temporary, journal.open("rb") as lines, temporary.open("wb") as kept:
            kept.writelines(line for line in lines if row_of(line, first=first) is not None)
    return Kept(rows, damaged=damaged, dropped=damaged)
