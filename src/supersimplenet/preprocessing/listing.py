"""List the images of a folder, and count what is passed over. The one place that decides which files are images.

Linked files and folders are followed; a folder that was listed already is not listed again, so that a link to a parent
folder is no endless loop. What is passed over is counted by kind: inside `counting`, which every command opens, the
counts of all listings add up to one line for the user and one entry of the run's record.
"""

from __future__ import annotations

import errno
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from supersimplenet.errors import DataError, ImageError
from supersimplenet.utils.formatting import few

if TYPE_CHECKING:
    from supersimplenet.preprocessing.loading import OnError

IMAGE_SUFFIXES = frozenset({
    ".apng", ".bmp", ".dib", ".gif", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx",
    ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
})  # fmt: skip
UNREAD_SUFFIXES = frozenset({
    ".ai", ".arw", ".avif", ".cr2", ".cr3", ".dcm", ".dds", ".dng", ".emf", ".eps", ".exr", ".fits", ".hdr", ".heic",
    ".heif", ".hif", ".ico", ".jls", ".jxl", ".jxr", ".mpo", ".nef", ".orf", ".pcx", ".pef", ".pfm", ".psd", ".raf",
    ".raw", ".rw2", ".sgi", ".srw", ".svg", ".tga", ".wmf", ".xcf",
})  # fmt: skip
HIDDEN = "hidden picture"
HIDDEN_FOLDER = "hidden folder"
LISTED_ALREADY = "link to a folder that is listed already"
IRREGULAR = "special file"  # a pipe, a device, a socket
NO_TARGET = "link to nothing"
UNREADABLE = "folder that cannot be read"
_FOLDER, _IMAGE = "folder", "image"


@dataclass(frozen=True)
class PassedOver:
    """What one listing passed over: the number of things of each kind, and the names of the first ones.

    Attributes:
        counts: number of things of each kind.
        names: names of the first ones.
        names_kept: so many names of each kind are kept.
    """

    counts: Counter[str] = field(default_factory=Counter)
    names: dict[str, list[str]] = field(default_factory=dict)
    names_kept: int = 3

    def add(self, kind: str, name: object) -> None:
        """Count one thing."""
        self.counts[kind] += 1
        kept = self.names.setdefault(kind, [])
        if len(kept) < self.names_kept:
            kept.append(str(name))


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The images of a folder, and what was passed over.

    Attributes:
        files: the images, in natural order.
        passed_over: the rest.
    """

    files: list[Path]
    passed_over: PassedOver


class LeftOut:
    """What all listings of a command passed over.

    Args:
        on_error: ``stop`` raises at a folder that cannot be read, ``skip`` counts it.
    """

    def __init__(self, on_error: OnError = "stop", within: LeftOut | None = None) -> None:
        self.on_error: OnError = on_error
        # By source, so that a folder that is listed twice counts once.
        self._by_source: dict[str, PassedOver] = {} if within is None else within._by_source
        self._said: set[str] = set() if within is None else within._said

    def add(self, source: object, passed_over: PassedOver) -> None:
        """Add what the listing of a folder, archive or URL passed over; it replaces an earlier listing of the same."""
        if passed_over.counts:
            self._by_source[str(source)] = passed_over

    def counts(self) -> dict[str, int]:
        """Return the number of things of each kind, in alphabetical order of the kinds."""
        total: Counter[str] = Counter()
        for passed_over in self._by_source.values():
            total += passed_over.counts
        return dict(sorted(total.items()))

    def describe(self) -> str:
        """Return one line for the user, such as ``left out: 12 .heic (not read: convert them to PNG)``; or nothing."""
        names: dict[str, list[str]] = {}
        for passed_over in self._by_source.values():
            for kind, found in passed_over.names.items():
                names.setdefault(kind, []).extend(found)
        return _described(self.counts(), names)

    def unsaid(self) -> str:
        """Return what `describe` does, but each text once, so that a command says it once; or nothing."""
        text = self.describe()
        if text in self._said:
            return ""
        self._said.add(text)
        return text


_CURRENT: ContextVar[LeftOut | None] = ContextVar("left_out", default=None)


@contextmanager
def counting(on_error: OnError = "stop") -> Iterator[LeftOut]:
    """Count what all listings in this context pass over.

    A context inside another one shares its counts, and sets its own ``on_error``.

    Args:
        on_error: ``stop`` raises at a folder that cannot be read, ``skip`` counts it.
    """
    inner = LeftOut(on_error, within=_CURRENT.get())
    token = _CURRENT.set(inner)
    try:
        yield inner
    finally:
        _CURRENT.reset(token)


def note_passed_over(source: object, passed_over: PassedOver) -> None:
    """Add what a listing passed over to the counts of the command, if there is one."""
    if (current := _CURRENT.get()) is not None:
        current.add(source, passed_over)


def list_images(path: str | os.PathLike[str], *, leave_out: Path | None = None) -> list[Path]:
    """List the images below a folder, at any depth, by their suffix (``IMAGE_SUFFIXES``) in upper or lower case.

    A path to a file returns that file. What is passed over is counted by the innermost `counting`, which also decides
    what a folder does that cannot be read; outside of one, it raises.

    Args:
        path: the folder.
        leave_out: a folder that is not entered, such as the one for the results.

    Returns:
        Paths that start with ``path``, in natural order (``2.png`` before ``10.png``), the same on every machine.

    Raises:
        DataError: no such path, or no image in it.
        ImageError: a folder cannot be read.
    """
    top = Path(path)
    if top.is_file():
        return [top]
    current = _CURRENT.get()
    listing = list_folder(top, on_error="stop" if current is None else current.on_error, leave_out=leave_out)
    note_passed_over(top, listing.passed_over)
    if not listing.files:
        rest = _described(listing.passed_over.counts, listing.passed_over.names)
        raise DataError(
            f"{top}: no image in it; wanted files that end in {', '.join(sorted(IMAGE_SUFFIXES))}"
            + (f"; {rest}" if rest else "")
        )
    return listing.files


def list_folder(
    top: Path, *, on_error: OnError, leave_out: Path | None = None, names_kept: int = PassedOver.names_kept
) -> Listing:
    """List the images below a folder, at any depth; see `list_images`.

    Hidden files and folders are passed over, and so are files with the suffix of a picture that is not read.

    Args:
        top: the folder.
        on_error: ``stop`` raises at a folder that cannot be read, ``skip`` counts it.
        leave_out: a folder that is not entered, and not counted.
        names_kept: see `PassedOver`.

    Raises:
        DataError: no such folder.
        ImageError: a folder cannot be read, and ``on_error`` is ``stop``.
    """
    if not top.is_dir():
        raise DataError(f"{top}: no such file or folder; check the path")
    files: list[Path] = []
    passed_over = PassedOver(names_kept=names_kept)
    not_entered = set() if leave_out is None else _identity(leave_out)
    seen = set(not_entered)
    folders, links = [str(top)], list[str]()
    while folders or links:
        is_link = not folders  # after the folders themselves, so that an image has its own name where it has two
        folder = folders.pop() if folders else links.pop()
        try:
            identity = _identity(Path(folder))
            if is_link and identity & seen - not_entered:
                passed_over.add(LISTED_ALREADY, folder)
            found = [] if identity & seen else _entries(folder)
        except OSError as error:
            if on_error == "stop":
                reason = error.strerror or error
                raise ImageError(f"{folder}: the folder cannot be read ({reason}); check its permissions") from error
            passed_over.add(UNREADABLE, folder)
            continue
        seen |= identity
        for entry, kind in found:
            if kind == _FOLDER:
                (links if entry.is_symlink() else folders).append(entry.path)
            elif kind == _IMAGE:
                files.append(Path(entry.path))
            elif kind is not None:
                passed_over.add(kind, entry.path)
    return Listing(files=sorted(files, key=natural_key), passed_over=passed_over)


def why_passed_over(name: str) -> str | None:
    """Return the kind of a picture that is passed over because of its name; None for images and for other files."""
    suffix = suffix_of(name)
    is_picture = suffix in IMAGE_SUFFIXES or suffix in UNREAD_SUFFIXES
    if not is_picture:
        return None
    return HIDDEN if _last(name).startswith(".") else suffix if suffix in UNREAD_SUFFIXES else None


def suffix_of(name: str) -> str:
    """Return the suffix of a file's name in lower case, with its dot. A name such as ``.png`` has the suffix .png."""
    stem, dot, suffix = _last(name).rpartition(".")
    del stem
    return f"{dot}{suffix}".lower() if dot else ""


def natural_key(path: PurePath) -> tuple[Any, ...]:
    """Return a sort key: folder by folder, numbers by their value, upper and lower case alike."""
    parts = [re.split(r"(\d+)", part.casefold()) for part in path.parts]
    return ([[int(t) if i % 2 else t for i, t in enumerate(tokens)] for tokens in parts], str(path))


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _identity(folder: Path) -> set[tuple[int, int]]:
    """Return what tells a folder from every other one, whatever name leads to it; nothing for a missing folder."""
    try:
        status = folder.stat()
    except FileNotFoundError:
        return set()
    return {(status.st_dev, status.st_ino)}


def _entries(folder: str) -> list[tuple[os.DirEntry[str], str | None]]:
    """Return what is in a folder, each with its kind, in an order that is the same on every machine.

    Raises:
        OSError: the folder cannot be read.
    """
    with os.scandir(folder) as entries:
        return sorted(((entry, _kind_of(entry)) for entry in entries), key=lambda pair: pair[0].name, reverse=True)


def _kind_of(entry: os.DirEntry[str]) -> str | None:
    """Return _FOLDER, _IMAGE or the kind of what is passed over; None for files that are no pictures.

    Raises:
        OSError: the system does not say what the entry is.
    """
    try:
        is_folder, is_file = entry.is_dir(), entry.is_file()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link that leads to itself
            return NO_TARGET
        raise
    if is_folder:
        return HIDDEN_FOLDER if entry.name.startswith(".") else _FOLDER
    if (kind := why_passed_over(entry.name)) is not None:
        return kind
    is_image = suffix_of(entry.name) in IMAGE_SUFFIXES
    if is_file:
        return _IMAGE if is_image else None
    if entry.is_symlink() and not Path(entry.path).exists():
        return NO_TARGET  # whatever its name: it may have led to a folder, such as one of a drive that is not there
    return IRREGULAR if is_image else None


def _described(counts: Mapping[str, int], names: Mapping[str, Iterable[str]]) -> str:
    parts = []
    unread = {kind: number for kind, number in counts.items() if kind.startswith(".")}
    for kind, number in counts.items():
        if kind in unread:
            continue
        parts.append(f"{number:,} {_plural(kind, number)} ({few([*names[kind]], number)})")
    if unread:
        pictures = ", ".join(f"{number:,} {kind}" for kind, number in unread.items())
        parts.append(f"{pictures} (not read: convert them to PNG)")
    return f"left out: {', '.join(parts)}" if parts else ""


def _plural(kind: str, number: int) -> str:
    head, _, tail = kind.partition(" ")
    if number == 1:
        return kind
    return f"{head}s {tail}" if head in {"archive", "folder", "link", "picture", "table"} else f"{kind}s"
