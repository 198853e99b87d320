"""Published split files are pickles, and a pickle can run any program. These may hold plain values and nothing else."""

from __future__ import annotations

import io
import pickle
import pickletools
import reprlib
from pathlib import Path
from typing import NoReturn

from supersimplenet.errors import DataError

_LARGEST_BYTES = 1 << 20  # KolektorSDD2 has 3,335 images: at most 73 kB, in the wordiest protocol
_LONGEST_NUMBER = 18  # digits
# What Python's pickler writes for lists, tuples, whole numbers, truth values and text, in any protocol.
_PLAIN = frozenset(
    {"PROTO", "FRAME", "STOP", "MARK", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "NEWTRUE", "NEWFALSE"}
    | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "EMPTY_LIST", "LIST", "APPEND", "APPENDS"}
    | {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
    | {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"}
)
_NAMED = frozenset({"GLOBAL", "STACK_GLOBAL", "INST"})  # fetch a function or a class, by name
_KEEP = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


class _RefusedError(Exception):
    """What a pickle asked for, in words."""


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler that finds no function and no class, whatever its name."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _RefusedError(f"{module}.{name}")


def read_pickle(path: Path) -> object:
    """The value in a pickle of lists, tuples, whole numbers, truth values and text. Nothing in it is ever run.

    Raises:
        DataError: no such file, too large, damaged, or it asks for anything else; a function or class by its name.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    if len(data) > _LARGEST_BYTES:
        raise DataError(f"{path}: more than {_LARGEST_BYTES:,} bytes; a split file is smaller, fetch it again")
    try:
        _check_plain(data)
        return _PlainUnpickler(io.BytesIO(data)).load()
    except _RefusedError as refused:
        raise DataError(
            f"{path}: asks for {refused}; a split file holds lists, tuples, whole numbers, truth values and text, so "
            "nothing in it was run; fetch it from its publisher again"
        ) from None
    except Exception as error:  # on a damaged file the readers raise whatever they stumble over
        raise DataError(
            f"{path}: not a whole pickle ({type(error).__name__}: {error}, {len(data):,} bytes); fetch it again"
        ) from error


def listed_images(entries: object, where: str) -> dict[int, bool]:
    """Which images a split file lists, by number: whether each one's mask counts.

    Args:
        entries: a list of pairs: the image's number, or its name in digits (``12`` and ``"0012"`` are one image), and
            whether its mask counts.
        where: the file, and the part of it, for the error message.

    Raises:
        DataError: anything else, or an image that stands twice.
    """
    if not isinstance(entries, list | tuple):
        raise DataError(f"{where}: found {reprlib.repr(entries)}; wanted a list of (number, has mask) pairs")
    listed: dict[int, bool] = {}
    for position, entry in enumerate(entries):
        number, counts = entry if isinstance(entry, list | tuple) and len(entry) == 2 else (None, None)
        if isinstance(number, str) and _is_number(number):
            number = int(number)
        if not isinstance(number, int) or isinstance(number, bool) or counts not in (False, True):
            raise DataError(
                f"{where}, entry {position}: found {reprlib.repr(entry)}; wanted a pair (number, has mask), such as "
                f"(12, True)"
            )
        if number in listed:
            raise DataError(f"{where}, entry {position}: image {number} stands in it twice; fetch the file again")
        listed[number] = bool(counts)
    return listed


def by_number(images: list[Path]) -> dict[int, Path]:
    """Each image by the number that its name is, with or without zeros in front.

    Raises:
        DataError: a name that is no number, or a number that stands twice.
    """
    found: dict[int, Path] = {}
    for image in images:
        if not _is_number(image.stem):
            raise DataError(f"{image}: its name is no number, as the split file's are; remove it")
        first = found.setdefault(int(image.stem), image)
        if first is not image:
            raise DataError(f"{image}: has the number of {first}; remove one of them")
    return found


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) <= _LONGEST_NUMBER


def _check_plain(data: bytes) -> None:
    """Raises _RefusedError at the first thing that is not plain, except for a name: that the unpickler tells.

    Raises ValueError where the pickle breaks off.
    """
    for operation, argument, position in pickletools.genops(data):
        if operation.name in _NAMED:
            return
        if operation.name not in _PLAIN:
            raise _RefusedError(f"{operation.name} at byte {position}")
        # The unpickler's table grows to the largest place that is named, so a file of ten bytes could fill the memory.
        if operation.name in _KEEP and argument is not None and not 0 <= argument < len(data):
            raise _RefusedError(f"place {argument} in a table at byte {position}")
