"""Text files that people make: lists and tables, from any system and from a spreadsheet.

A byte order mark decides the encoding (UTF-8 or UTF-16); without one it is UTF-8. Anything else is refused with what to
do, since a guess may give wrong names. Needs only the standard library.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from supersimplenet.errors import DataError
from supersimplenet.utils.files import exists, open_regular, read_regular

MAX_TEXT_BYTES = 256 << 20
MAX_LINE_CHARACTERS = 1 << 16
SEPARATORS = (",", ";", "\t")
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_BLOCK_BYTES = 1 << 16
_SAVE = "save it as UTF-8"
_YES_NO = {"0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}
_NAMED_SEPARATOR = re.compile(r'"?sep=(.)"?\r?\n')  # Excel's first line


def read_text(path: Path, *, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a text file.

    Args:
        path: a regular file in UTF-8, or in UTF-16 with a byte order mark.
        max_bytes: size of the largest file that is read.

    Returns:
        The text, without a byte order mark.

    Raises:
        DataError: the file cannot be read, is too large, or is no such text.
    """
    try:
        content = read_regular(path, max_bytes=max_bytes)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    encoding, start = _encoding_of(content)
    try:
        text = content[start:].decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, start + error.start) + 1
        raise DataError(f"{path}, line {line}: not {encoding.upper()} text ({error.reason}); {_SAVE}") from error
    if "\0" in text:
        raise DataError(f"{path}, line {text.count(chr(10), 0, text.index(chr(0))) + 1}: a NUL character; {_SAVE}")
    return text


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file of any length that are not blank; see `arriving_lines`.

    Raises:
        DataError: the file cannot be read, or is no text.
    """
    try:
        with open_regular(path) as file:
            blocks = iter(lambda: file.read(_BLOCK_BYTES), b"")
            for line in arriving_lines(blocks, name=str(path)):
                if line is not None:
                    yield line
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error


def arriving_lines(blocks: Iterable[bytes], *, name: str) -> Iterator[str | None]:
    """Yield the lines in blocks of bytes that are not blank; yield None after each block.

    Bytes that are not UTF-8 are kept as surrogates, as `os.fsdecode` does: names of files may hold any bytes.

    Args:
        blocks: the bytes of a text, in UTF-8 or in UTF-16 with a byte order mark.
        name: name of the text for errors.

    Raises:
        DataError: a line is too long for a name or holds a NUL character, or the text is no UTF-16 after its mark.
    """
    decoder: codecs.IncrementalDecoder | None = None
    head, rest, number = b"", "", 0
    for block in _ended(blocks):
        is_last = block is None
        head += block or b""
        if decoder is None:
            if not is_last and any(mark.startswith(head) and mark != head for mark in _MARKS):
                continue  # it may become a byte order mark
            encoding, start = _encoding_of(head)
            errors = "surrogateescape" if encoding == "utf-8" else "strict"
            decoder, head = codecs.getincrementaldecoder(encoding)(errors), head[start:]
        try:
            rest += decoder.decode(head, final=is_last)
        except UnicodeDecodeError as error:
            raise DataError(f"{name}: not whole {encoding.upper()} text ({error.reason}); {_SAVE}") from error
        head = b""
        *whole, rest = rest.split("\n")
        if is_last and rest:
            whole, rest = [*whole, rest], ""
        for line in whole:
            number += 1
            _check_line(line, f"{name}, line {number}")
            if line.strip():
                yield line.rstrip("\r")
        _check_line(rest, f"{name}, line {number + 1}")
        if not is_last:
            yield None


def separator_of(text: str) -> tuple[str, str]:
    """Return the separator of a table's columns and the table itself, without a first line that names the separator.

    The separator is the one that stands most often in the first line.
    """
    if named := _NAMED_SEPARATOR.match(text):
        return named[1], text[named.end() :]
    first = text.lstrip("\r\n").partition("\n")[0]
    return max(SEPARATORS, key=first.count), text


def yes_or_no(text: str) -> bool:
    """Return the truth value that a cell names, in upper or lower case.

    Raises:
        ValueError: it is none.
    """
    value = _YES_NO.get(text.lower())
    if value is None:
        raise ValueError(f"'{text}'; wanted true, false, yes, no, 1 or 0")
    return value


def existing_path(text: str, root: Path | None = None) -> Path:
    """Return the path that a list or table names, which may be written as on Windows.

    The text is taken as it is where a file has this name. If not, a file is searched for whose name has no quotes and
    no blanks around it, and slashes instead of back slashes; without one, the text's own path is returned.

    Args:
        text: the path as written.
        root: folder that a relative path starts from; by default the current one.

    Raises:
        DataError: the text is not UTF-8, and no file has exactly these bytes as its name.
    """
    own = Path(text) if root is None else root / text
    bare = text.strip().strip('"')
    is_text = _is_unicode(text)
    if (is_text and bare == text and "\\" not in text) or exists(own):
        return own
    for name in (bare, bare.replace("\\", "/")):
        path = Path(name) if root is None else root / name
        if exists(path):
            return path
    if not is_text:
        shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        raise DataError(f"'{shown}' is not UTF-8 text, and no file has these bytes as its name; save the list as UTF-8")
    return own


def _encoding_of(head: bytes) -> tuple[str, int]:
    """Return the encoding, and the length of the byte order mark."""
    for mark, encoding in _MARKS.items():
        if head.startswith(mark):
            return encoding, len(mark)
    return "utf-8", 0


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _ended(blocks: Iterable[bytes]) -> Iterator[bytes | None]:
    yield from blocks
    yield None


def _check_line(line: str, where: str) -> None:
    if "\0" in line:
        raise DataError(f"{where}: a NUL character; wanted UTF-8 text with one name a line, so {_SAVE}")
    if len(line) > MAX_LINE_CHARACTERS:
        raise DataError(f"{where}: longer than {MAX_LINE_CHARACTERS:,} characters; wanted one name a line")
