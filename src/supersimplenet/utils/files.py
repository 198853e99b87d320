"""Files that appear whole or not at all, journals, and hashes of content."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from supersimplenet.errors import ConfigError, DataError
from supersimplenet.utils.serialization import as_json

Paths = str | Path | Sequence[str | Path]
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_HASH_BLOCK_BYTES = 1 << 20


def is_file(name: str | Path) -> bool:
    """Return whether a name is that of a file; what cannot be a name, such as one of 300 letters, is not."""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def as_paths(paths: Paths) -> list[Path]:
    """Return one path or several as a list."""
    return [Path(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Append a JSON line, which is complete and on the disk when this function returns."""
    with path.open("ab+") as file:
        file.seek(0)
        file.truncate(len(whole_lines(file.read())))
        file.write(as_json(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def whole_lines(content: bytes) -> bytes:
    """Return the content up to and including the last line end."""
    return content[: content.rfind(b"\n") + 1]


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading in binary mode; refuse everything that is not a regular file.

    Reading a named pipe or a device may wait forever, or never end.

    Raises:
        OSError: the file cannot be opened or is not regular; ``strerror`` says why.
    """
    _require_regular(path.stat())  # before it is opened: opening a device may change its state
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _require_regular(os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_regular(path: Path, *, max_bytes: int) -> bytes:
    """Read a regular file of at most ``max_bytes`` bytes.

    Raises:
        OSError: as `open_regular`, or the file is larger; ``strerror`` says why.
    """
    with open_regular(path) as file:
        content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            size = os.fstat(file.fileno()).st_size
            raise OSError(errno.EFBIG, f"{size:,} bytes; at most {max_bytes:,} are read")
    return content


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a regular file's content, 64 hexadecimal digits.

    Raises:
        DataError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open_regular(path) as file:
            while block := file.read(_HASH_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    return digest.hexdigest()


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


def _require_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "special")
        raise OSError(errno.EINVAL, f"{kind}, not a regular file")
