"""Read the images in tar archives, one after another, and notice every archive that is not whole.

`tarfile` takes a damaged header, a missing end and anything after a block of zeros for the end of the archive. Here
each of these is an error: headers are checked by their sums, the archive must end with two blocks of zeros and nothing
but zeros after them, and compressed data must be whole (their own sums are checked).
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import posixpath
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import IO, Any

from supersimplenet.errors import DataError, ImageError
from supersimplenet.prediction.sources import TIMEOUTS, given, opened, reason_of
from supersimplenet.preprocessing.decoding import EncodedImage
from supersimplenet.preprocessing.image_file import Limits, UnusableFileError
from supersimplenet.preprocessing.listing import (
    IMAGE_SUFFIXES,
    IRREGULAR,
    NO_TARGET,
    PassedOver,
    note_passed_over,
    suffix_of,
    why_passed_over,
)
from supersimplenet.preprocessing.loading import ImageFile
from supersimplenet.utils.files import open_regular
from supersimplenet.utils.formatting import first_line

NOT_FOLLOWED = "link without the suffix of a picture"
NO_IMAGE = "archive without an image"
_IMAGE = "image"
_BLOCK = 512
_READ_BYTES = 1 << 20
_MAX_HEADER_BYTES = 1 << 20  # of one member: long names, and a map of the holes in a sparse file
_OPENERS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream, mode="rb"),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}


def images_in_archive(file: ImageFile) -> Iterator[EncodedImage]:
    """Yield the images of a tar archive in the archive's order, with names such as ``shard.tar/member.png``.

    Images that are links to other members come after all others. A member that is sparse or larger than an image may
    be is yielded, too; reading it raises. What is passed over is counted, see `supersimplenet.preprocessing.listing`.

    Raises:
        DataError: the archive cannot be read, is damaged, or ends early. Raised where this is noticed.
    """
    passed_over = PassedOver()
    targets: dict[str, str] = {}  # of each link, by its name
    linked: list[str] = []  # names of links that are images
    images = 0
    for member, image in _members(file):
        is_link = member.issym() or member.islnk()
        if is_link:
            targets[_plain(member.name)] = _target(member)
        kind = _kind_of(member)
        if kind == _IMAGE and is_link:
            linked.append(member.name)
        elif kind == _IMAGE:
            images += 1
            yield image(member.name)
        elif kind is not None:
            passed_over.add(kind, f"{file}/{member.name}")
    for found in _followed(file, linked, targets, passed_over) if linked else ():
        images += 1
        yield found
    if not images:
        passed_over.add(NO_IMAGE, file)
    note_passed_over(file, passed_over)


def _kind_of(member: tarfile.TarInfo) -> str | None:
    """Return _IMAGE or the kind of what is passed over; None for members that are no pictures."""
    if member.isdir():
        return None
    if (kind := why_passed_over(member.name)) is not None:
        return kind
    suffix = suffix_of(member.name)
    if suffix in IMAGE_SUFFIXES:
        return _IMAGE if member.isreg() or member.issym() or member.islnk() else IRREGULAR
    return NOT_FOLLOWED if member.issym() and not suffix else None  # it may lead to a folder of images


def _followed(
    file: ImageFile, linked: list[str], targets: dict[str, str], passed_over: PassedOver
) -> Iterator[EncodedImage]:
    """Yield the images that are links: the archive is read again, because only now their targets are known.

    Raises:
        DataError: a target is in the archive twice.
    """
    wanted: dict[str, list[str]] = {}
    for name in linked:
        target, passed = _plain(name), set[str]()
        while target in targets and target not in passed:
            passed.add(target)
            target = targets[target]
        wanted.setdefault(target, []).append(name)
    found: set[str] = set()
    for member, image in _members(file):
        name = _plain(member.name)
        if name in wanted and member.isreg():
            if name in found:
                raise DataError(f"{file}: holds {name} twice, and a link to it, which may mean either; pack it again")
            found.add(name)
            yield from map(image, wanted[name])
    for target, names in wanted.items():
        for name in names if target not in found else ():
            passed_over.add(NO_TARGET, f"{file}/{name}")


def _members(file: ImageFile) -> Iterator[tuple[tarfile.TarInfo, Callable[[str], EncodedImage]]]:
    """Yield each member with a function that makes an image of it, under a name, before the next member is read.

    Raises:
        DataError: the archive is not whole.
    """
    with closing(opened(file)) as stream:
        head = _checked(file, lambda: _read_exactly(stream, _BLOCK))
        opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
        is_plain = opener is None and isinstance(file, Path)
        whole = _Prefixed(head, stream)
        source = _Forward(whole if opener is None else opener(whole), seekable=stream if is_plain else None)
        archive = _checked(file, lambda: tarfile.TarFile(fileobj=source, tarinfo=_StrictInfo))  # type: ignore[arg-type]
        while (member := _checked(file, partial(_next, archive, source))) is not None:
            archive.members = []  # else tarfile keeps every member in memory
            yield member, partial(_image, file, member, source, is_plain=is_plain)
        _checked(file, source.check_end)


def _image(file: ImageFile, member: tarfile.TarInfo, source: _Forward, name: str, *, is_plain: bool) -> EncodedImage:
    named = f"{file}/{name}"
    if member.issparse():
        return EncodedImage(named, partial(_refuse, f"{named}: a sparse file; pack it without --sparse"))
    try:
        Limits.from_environment().check_bytes(member.size)
    except UnusableFileError as error:
        return EncodedImage(named, partial(_refuse, f"{named}: {error}"))
    if is_plain:
        assert isinstance(file, Path)
        return EncodedImage(named, partial(_read_part, file, named, member.offset_data, member.size))
    return EncodedImage(named, partial(given, _checked(file, lambda: source.content(member))))


def _next(archive: tarfile.TarFile, source: _Forward) -> tarfile.TarInfo | None:
    source.begin_header()
    return archive.next()


def _checked(file: ImageFile, step: Callable[[], Any]) -> Any:
    """Return what a step of reading returns; turn its errors into one that names the archive."""
    try:
        return step()
    except DataError:
        raise
    except Exception as error:  # tarfile, the decompressors and remote stores may raise any error
        if isinstance(error, TIMEOUTS) or getattr(error, "strerror", None):
            raise DataError(f"{file}: cannot be read ({reason_of(error)}); check the path") from error
        raise DataError(f"{file}: not a readable tar archive ({first_line(error)}); pack it again") from error


class _StrictInfo(tarfile.TarInfo):
    """A header that is damaged, cut or missing raises, where `tarfile` ends the archive without a word."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _StrictInfo:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # a block of zeros
            raise
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError("it ends without its two blocks of zeros, so members may be missing") from error
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{first_line(error)} at byte {archive.offset:,}") from error


class _Forward:
    """The bytes of an archive, read once from the first to the last; `tarfile` reads the headers from it.

    Args:
        stream: gives the bytes.
        seekable: the file itself, where content can be skipped instead of read.
    """

    def __init__(self, stream: Any, *, seekable: IO[bytes] | None) -> None:
        self._stream = stream
        self._seekable = seekable
        self._at = 0
        self._header_bytes = 0
        self._content: bytes | None = None

    def begin_header(self) -> None:
        """Count the bytes of the next header from zero, and forget the content of the last member."""
        self._header_bytes, self._content = 0, None

    def tell(self) -> int:
        return self._at

    def read(self, size: int) -> bytes:
        self._header_bytes += size
        if not 0 <= self._header_bytes <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"the header of a member has more than {_MAX_HEADER_BYTES:,} bytes")
        return self._read(size)

    def seek(self, position: int) -> None:
        if position < self._at:
            raise tarfile.ReadError("a member of negative size")
        if self._seekable is not None:
            self._seekable.seek(position)
            self._stream, self._at = self._seekable, position
            return
        while self._at < position and self._read(min(_READ_BYTES, position - self._at)):
            pass

    def content(self, member: tarfile.TarInfo) -> bytes:
        """Return the content of the member whose header was read last."""
        if self._content is None:
            self.seek(member.offset_data)
            self._content = self._read(member.size)
        if len(self._content) < member.size:
            raise tarfile.ReadError("unexpected end of data")
        return self._content

    def check_end(self) -> None:
        """Check that after a block of zeros comes another one, and zeros only up to the end."""
        second = self._read(_BLOCK)
        if len(second) < _BLOCK:
            raise tarfile.ReadError("it ends with one block of zeros instead of two, so members may be missing")
        if second.count(0) < _BLOCK:
            raise tarfile.ReadError(f"a block of zeros and then more data at byte {self._at - _BLOCK:,}")
        while block := self._read(_READ_BYTES):
            if block.count(0) < len(block):
                raise tarfile.ReadError(f"more data after its end, before byte {self._at:,}")

    def _read(self, size: int) -> bytes:
        content = _read_exactly(self._stream, size)
        self._at += len(content)
        return content


class _Prefixed:
    """A stream whose first bytes were read already."""

    def __init__(self, head: bytes, stream: Any) -> None:
        self._head = head
        self._stream = stream

    def read(self, size: int) -> bytes:
        if not self._head:
            return self._stream.read(size)  # type: ignore[no-any-return]
        given, self._head = self._head[:size], self._head[size:]
        return given


def _read_exactly(stream: Any, size: int) -> bytes:
    """Read ``size`` bytes, or fewer at the end of the stream; one call of ``read`` may return fewer anywhere."""
    parts = []
    while size > 0 and (part := stream.read(min(size, _READ_BYTES))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _read_part(file: Path, name: str, offset: int, size: int) -> bytes:
    with open_regular(file) as whole:
        whole.seek(offset)
        content = whole.read(size)
    if len(content) < size:
        raise ImageError(f"{name}: the archive ends within it; pack it again")
    return content


def _refuse(message: str) -> bytes:
    raise ImageError(message)


def _plain(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")


def _target(member: tarfile.TarInfo) -> str:
    start = posixpath.dirname(member.name) if member.issym() else ""
    return _plain(posixpath.join(start, member.linkname))
