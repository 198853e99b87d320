"""Read published split files. They are pickles, which could run any code, so only plain values are allowed."""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import NoReturn

from supersimplenet.errors import DataError
from supersimplenet.utils.files import read_regular
from supersimplenet.utils.formatting import first_line, shown_value

_LARGEST_BYTES = 1 << 20  # the 3,335 images of KolektorSDD2 take at most 73 kB, in the longest protocol
_LONGEST_NUMBER = 18  # digits
# Opcodes that Python's pickler writes for lists, tuples, integers, booleans and text, in any protocol.
_PLAIN = frozenset(
    {"PROTO", "FRAME", "STOP", "MARK", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "NEWTRUE", "NEWFALSE"}
    | {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "EMPTY_LIST", "LIST", "APPEND", "APPENDS"}
    | {"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
    | {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"}
)
_NAMED = frozenset({"GLOBAL", "STACK_GLOBAL", "INST"})  # these load a function or a class by its name
_KEEP = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


class _RefusedError(Exception):
    """A pickle contains an operation that is not allowed; the message names it."""


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler that refuses every function and every class."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _RefusedError(f"{module}.{name}")


def read_pickle(path: Path) -> object:
    """Return the value in a pickle of lists, tuples, integers, booleans and text. No code in it is ever run.

    Raises:
        DataError: the file is missing, too large or damaged, or holds other values, functions or classes.
    """
    try:
        data = read_regular(path, max_bytes=_LARGEST_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); fetch it from its publisher again") from error
    try:
        _check_plain(data)
        return _PlainUnpickler(io.BytesIO(data)).load()
    except _RefusedError as refused:
        raise DataError(
            f"{path}: asks for {refused}; a split file holds lists, tuples, whole numbers, truth values and text, so "
            "nothing in it was run; fetch it from its publisher again"
        ) from None
    except Exception as error:  # a damaged file makes pickle raise errors of any kind
        raise DataError(
            f"{path}: not a whole pickle ({type(error).__name__}: {first_line(error)}, {len(data):,} bytes); fetch it "
            "again"
        ) from error


def listed_images(entries: object, where: str) -> dict[int, bool]:
    """Return the images that a split file lists: for each image's number, whether its mask is used.

    Args:
        entries: a list of pairs. The first value is the image's number, or its name in digits (``12`` and ``"0012"``
            are the same image); the second value is whether its mask is used.
        where: the file and its section, for the error message.

    Raises:
        DataError: the entries have another form, or list an image twice.
    """
    if not isinstance(entries, list | tuple):
        raise DataError(f"{where}: found {shown_value(entries)}; wanted a list of (number, has mask) pairs")
    listed: dict[int, bool] = {}
    for position, entry in enumerate(entries):
        number, counts = entry if isinstance(entry, list | tuple) and len(entry) == 2 else (None, None)
        if isinstance(number, str) and _is_number(number):
            number = int(number)
        if not isinstance(number, int) or isinstance(number, bool) or counts not in (False, True):
            raise DataError(
                f"{where}, entry {position}: found {shown_value(entry)}; wanted a pair (number, has mask), such as "
                f"(12, True)"
            )
        if number in listed:
            raise DataError(f"{where}, entry {position}: image {number} stands in it twice; fetch the file again")
        listed[number] = bool(counts)
    return listed


def by_number(images: list[Path]) -> dict[int, Path]:
    """Return the images by number. An image's name must be its number, with or without leading zeros.

    Raises:
        DataError: a name is no number, or two images have the same number.
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
    """Check that a pickle holds plain values only. Stop at a function or class, which `_PlainUnpickler` refuses.

    Raises:
        _RefusedError: the pickle contains an opcode that is not allowed.
        ValueError: the pickle is cut off.
    """
    for operation, argument, position in pickletools.genops(data):
        if operation.name in _NAMED:
            return
        if operation.name not in _PLAIN:
            raise _RefusedError(f"{operation.name} at byte {position}")
        # The unpickler's memo grows to the largest index in the file: a file of ten bytes could fill the memory.
        if operation.name in _KEEP and argument is not None and not 0 <= argument < len(data):
            raise _RefusedError(f"place {argument} in a table at byte {position}")
