"""Files that appear whole or not at all, and hashes of content."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from supersimplenet.errors import DataError

Paths = str | Path | Sequence[str | Path]
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_BLOCK_BYTES = 1 << 20


def is_file(name: str | Path) -> bool:
    """Return whether a name is that of a file; what cannot be a name, such as one of 300 letters, is not."""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def exists(name: str | Path) -> bool:
    """Return whether there is a file or folder of a name; see `is_file`."""
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False


def as_paths(paths: Paths) -> list[Path]:
    """Return one path or several as a list."""
    return [Path(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]


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
        size = os.fstat(file.fileno()).st_size
        content = file.read(min(size, max_bytes) + 1)  # Python allocates as much as it is asked for
        while len(content) <= max_bytes and (more := file.read(_BLOCK_BYTES)):  # it grows
            content += more
        if len(content) > max_bytes:
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
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    return digest.hexdigest()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path``; the file written there is renamed to ``path`` when all went well.

    So a file appears whole or not at all, and replaces an earlier one in one step; it is on the disk, and survives a
    power cut, when this function returns. After an error the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        to_disk(temporary)  # before the rename: else the name could survive a power cut without the content
        temporary.replace(path)
        to_disk(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def to_disk(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk."""
    is_folder = path.is_dir()
    if is_folder and sys.platform == "win32":  # cannot be asked for there
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot
            raise
    finally:
        os.close(descriptor)


def remove_unused(path: Path) -> None:
    """Remove a file where there is one. Windows keeps a file that a process still maps into memory: it stays there."""
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        if sys.platform != "win32":
            raise


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")  # names of files may be no Unicode


def _require_regular(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "special")
        raise OSError(errno.EINVAL, f"{kind}, not a regular file")
