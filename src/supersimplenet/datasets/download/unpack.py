"""Unpack archives, and never write outside the target folder.

Only plain files and folders are written, and only by this module: neither `tarfile` nor `zipfile` writes anything.
The protection in tarfile, ``filter="data"``, needs Python 3.10.12, 3.11.4 or 3.12, but this package also supports older
versions; zipfile has no such protection.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, Literal, NamedTuple

from supersimplenet.errors import DataError
from supersimplenet.utils.console import progress_bar
from supersimplenet.utils.formatting import first_line
from supersimplenet.utils.names import is_device_name

_MEMBER_BYTES = 4096  # size on disk of even an empty file: a million empty files would fill the disk, too
_MB = 1_000_000
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)
Kind = Literal["file", "folder", "symbolic link", "hard link", "device or pipe"]


class Member(NamedTuple):
    """One entry of an archive.

    Attributes:
        name: name in the archive.
        kind: kind of file that unpacking would create.
        size: unpacked size in bytes.
        open: function that opens the content of a file; valid only until the next member is read.
    """

    name: str
    kind: Kind
    size: int
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, *, at_most_bytes: int, wanted: Callable[[PurePosixPath], bool]) -> None:
    """Unpack an archive into a new folder.

    Args:
        archive: a tar file, compressed or not, or a zip file, which has the suffix .zip.
        folder: the folder to create; it must not exist yet, and is removed after an error or an interruption.
        at_most_bytes: largest unpacked size. Larger archives are refused before the limit is exceeded. Each member
            counts as at least 4096 bytes.
        wanted: returns whether to write a member, from its path. Unwanted members are checked as well.

    Raises:
        DataError: a member is neither file nor folder, has a path outside the folder, or is in the archive twice; the
            archive is too large when unpacked; or it is broken.
    """
    folder.mkdir(parents=True)
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, folder)  # after any error or Ctrl-C: half a dataset would seem complete
        try:
            _unpack(archive, folder, at_most_bytes, wanted)
        except _BROKEN as error:
            raise DataError(f"{archive}: not a readable archive ({error}); fetch it again") from error
        undo.pop_all()


def _unpack(archive: Path, folder: Path, at_most_bytes: int, wanted: Callable[[PurePosixPath], bool]) -> None:
    budget_bytes = at_most_bytes
    with archive.open("rb") as file, progress_bar() as bar:
        task = bar.add_task(f"unpacking {archive.name}", total=archive.stat().st_size // _MB, detail="MB")
        for member in _members(archive, file):
            path = _safe_path(archive, member)
            budget_bytes -= max(member.size, _MEMBER_BYTES)
            if budget_bytes < 0:
                raise DataError(
                    f"{archive}: unpacks to more than {at_most_bytes:,} bytes, refused at '{member.name}'; this is not "
                    f"the dataset it should be, remove it"
                )
            if wanted(path):
                _write(archive, member, folder / path)
            bar.update(task, completed=file.tell() // _MB)


def _members(archive: Path, file: IO[bytes]) -> Iterator[Member]:
    try:
        yield from _zip_members(file) if archive.suffix == ".zip" else _tar_members(file)
    except Exception as error:  # both libraries raise errors of any kind for damaged headers
        raise tarfile.ReadError(first_line(error)) from error


def _tar_members(file: IO[bytes]) -> Iterator[Member]:
    with tarfile.open(fileobj=file, mode="r|*") as tar:  # as a stream: each byte of an xz file is decompressed once
        for info in tar:
            if info.isfile():
                kind: Kind = "file"
            elif info.isdir():
                kind = "folder"
            elif info.issym():
                kind = "symbolic link"
            elif info.islnk():
                kind = "hard link"
            else:
                kind = "device or pipe"

            def content(info: tarfile.TarInfo = info) -> IO[bytes]:
                stream = tar.extractfile(info)
                assert stream is not None  # None is returned only for members that are neither file nor link
                return stream

            yield Member(info.name, kind, info.size, content)


def _zip_members(file: IO[bytes]) -> Iterator[Member]:
    kinds: dict[int, Kind] = {0: "file", stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symbolic link"}
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            kind = kinds.get(stat.S_IFMT(info.external_attr >> 16), "device or pipe")  # 0: not made on Unix
            if info.is_dir() and kind == "file":
                kind = "folder"

            def content(info: zipfile.ZipInfo = info) -> IO[bytes]:
                return archive.open(info)

            yield Member(info.filename, kind, info.file_size, content)


def _safe_path(archive: Path, member: Member) -> PurePosixPath:
    """Return the member's path below the folder; refuse links, devices, and paths that lead out of it on any system."""
    if member.kind not in ("file", "folder"):
        raise DataError(f"{archive}: refused: '{member.name}' is a {member.kind}; wanted files and folders only")
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or any(character in member.name for character in "\\:\0"):
        raise DataError(f"{archive}: refused: the path '{member.name}' leads outside the folder of the dataset")
    if any(map(is_device_name, path.parts)):
        raise DataError(f"{archive}: refused: '{member.name}' names a device on Windows")
    return path


def _opened(member: Member) -> IO[bytes]:
    try:
        return member.open()
    except Exception as error:  # likewise: a place before the file's beginning, a method that is not known
        raise zipfile.BadZipFile(f"'{member.name}' cannot be read: {first_line(error)}") from error


def _write(archive: Path, member: Member, target: Path) -> None:
    try:
        if member.kind == "folder":
            target.mkdir(parents=True, exist_ok=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with _opened(member) as source, target.open("xb") as file:
            shutil.copyfileobj(source, file)
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(f"{archive}: refused: '{member.name}' stands in it twice, or below a file") from error
