"""Read zip files that hold weights or programs: bounded, and only in the form in which they are written."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from supersimplenet.errors import ModelFolderError, SuperSimpleNetError
from supersimplenet.utils.files import open_regular
from supersimplenet.utils.formatting import first_line, shown_value

_LARGEST_LIST_BYTES = 4 << 20  # of the list of members; a program of 1,000 tensors needs 0.1 MB
_BLOCK_BYTES = 1 << 20
_ENCRYPTED = 1
# What `zipfile` raises for files that are damaged, or that need something it does not have.
_BROKEN = (zipfile.BadZipFile, OSError, EOFError, ValueError, LookupError, NotImplementedError, RuntimeError)


@contextmanager
def opened_zip(
    path: Path, *, advice: str, error: type[SuperSimpleNetError] = ModelFolderError
) -> Iterator[zipfile.ZipFile]:
    """Open a zip file whose list of members is small; errors in the body that mean damage are turned into one line.

    Args:
        path: a regular file.
        advice: what to do about a damaged file; ends the error's message. Empty where the caller says it.
        error: class of the error.

    Raises:
        SuperSimpleNetError: of the class ``error``.
    """
    try:
        with open_regular(path) as file:
            bounded = _Bounded(file)
            with zipfile.ZipFile(bounded) as archive:
                bounded.largest = None
                yield archive
    except (*_BROKEN, struct.error) as reason:
        text = reason.strerror if isinstance(reason, OSError) else None
        raise error(f"{path}: damaged ({text or first_line(reason)}){'; ' if advice else ''}{advice}") from reason


def require_plain(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse an archive that is not as the exporters and torch write it: members that differ in name, uncompressed.

    So nothing that is read from it is larger than the file itself.

    Args:
        archive: opened by `opened_zip`.
        size: of the file in bytes.

    Raises:
        zipfile.BadZipFile: the archive has another form.
    """
    seen: set[str] = set()
    for info in archive.infolist():
        name, shown = info.filename, shown_value(info.orig_filename)
        parts = PurePosixPath(name).parts
        if name != info.orig_filename or not parts or ".." in parts or name.startswith("/") or set(name) & set("\\:"):
            raise zipfile.BadZipFile(f"the member {shown} has no plain name")
        if name.casefold() in seen:
            raise zipfile.BadZipFile(f"the member {shown} stands twice")
        seen.add(name.casefold())
        if info.flag_bits & _ENCRYPTED or info.compress_type != zipfile.ZIP_STORED:
            raise zipfile.BadZipFile(f"the member {shown} is compressed or encrypted; it is written as it is")
        if info.file_size != info.compress_size:
            raise zipfile.BadZipFile(f"the member {shown} has two sizes")
    total = sum(info.file_size for info in archive.infolist())
    if total > size:
        raise zipfile.BadZipFile(f"its members have {total:,} bytes, the file {size:,}")


def blocks(archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    """Yield a member's content in blocks; its checksum is compared at the end.

    Raises:
        zipfile.BadZipFile: the checksum differs.
    """
    with archive.open(name) as member:
        while block := member.read(_BLOCK_BYTES):
            yield block


class _Bounded:
    """A file whose reads are bounded while `zipfile` reads the list of members, which it does in one piece."""

    def __init__(self, file: BinaryIO) -> None:
        self.largest: int | None = _LARGEST_LIST_BYTES
        self.seek, self.tell, self.seekable, self.close = file.seek, file.tell, file.seekable, file.close
        self._read = file.read

    def read(self, size: int = -1) -> bytes:
        if self.largest is not None and size > self.largest:
            raise zipfile.BadZipFile(f"its list of members has {size:,} bytes, at most {self.largest:,} are read")
        return self._read(size)
