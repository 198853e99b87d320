"""Files that appear whole or not at all, journals, and hashes of content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from supersimplenet.errors import ConfigError, DataError


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Append a JSON line, which is complete and on the disk when this function returns."""
    with path.open("ab+") as file:
        file.seek(0)
        file.truncate(len(whole_lines(file.read())))
        file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def whole_lines(content: bytes) -> bytes:
    """Return the content up to and including the last line end."""
    return content[: content.rfind(b"\n") + 1]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, 64 hexadecimal digits.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def cut_journal(journal: Path, multiple: int) -> int:
    """Cut the journal of an interrupted run to complete lines, a multiple of ``multiple``; return their number.

    Raises:
        ConfigError: ``multiple`` is less than 1.
    """
    if multiple < 1:
        raise ConfigError(f"batch_size: {multiple}; it must be at least 1")
    if not journal.is_file():
        return 0
    kept_bytes, done, whole_bytes, lines_read = 0, 0, 0, 0
    with journal.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            whole_bytes += len(line)
            lines_read += 1
            if lines_read % multiple == 0:
                kept_bytes, done = whole_bytes, lines_read
    os.truncate(journal, kept_bytes)
    return done


def read_journal(journal: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a journal, one JSON object per line; no row where there is no file."""
    if not journal.is_file():
        return
    with journal.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """Open a text file for writing; it appears under its name only when all of it is written."""
    temporary = temporary_path(path)
    with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        yield file
    temporary.replace(path)


def temporary_path(path: Path) -> Path:
    """Return the path to which a file is written before it is renamed to its final name."""
    return path.with_name(f".{path.name}.part")
