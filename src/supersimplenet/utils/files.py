"""Files that appear whole or not at all, journals, and hashes of content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from supersimplenet.errors import ConfigError, DataError

Paths = str | Path | Sequence[str | Path]


def as_paths(paths: Paths) -> list[Path]:
    """Return one path or several as a list."""
    return [Path(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]


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


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; the file written there is renamed to ``path`` when all went well.

    So a file appears whole or not at all, and replaces an earlier one in one step. After an error the temporary file
    is removed.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")  # names of files may be no Unicode


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
