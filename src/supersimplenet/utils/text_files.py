"""Text files: the one place that turns their bytes into text; and what lists and tables of people need besides.

Text is UTF-8, with or without a byte order mark. Lists and tables, which a spreadsheet may have written, may also be
UTF-16 with its mark. Anything else is refused with what to do, since a guess may give wrong names.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from supersimplenet.errors import DataError, SuperSimpleNetError
from supersimplenet.utils.files import exists, open_regular, read_regular
from supersimplenet.utils.formatting import printable
from supersimplenet.utils.names import unicode_text

MAX_TEXT_BYTES = 256 << 20
MAX_LINE_CHARACTERS = 1 << 16
SEPARATORS = (",", ";", "\t")
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_BLOCK_BYTES = 1 << 16
_CHECK = "check the path and its permissions"
_SAVE = "save it as UTF-8"
_YES_NO = {"0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}
_NAMED_SEPARATOR = re.compile(r'"?sep=(.)"?\r?\n')  # Excel's first line


def read_text(
    path: Path,
    *,
    max_bytes: int = MAX_TEXT_BYTES,
    utf_16: bool = True,
    advice: str | None = None,
    error: type[SuperSimpleNetError] = DataError,
) -> str:
    """Read a text file.

    Args:
        path: a regular file in UTF-8, with or without a byte order mark.
        max_bytes: size of the largest file that is read.
        utf_16: whether the file may also be in UTF-16 with a byte order mark.
        advice: what to do about a file that cannot be used; by default to check its path, or to save it as UTF-8.
        error: class of the error.

    Returns:
        The text, without a byte order mark.

    Raises:
        SuperSimpleNetError: of the class ``error``: the file cannot be read, is too large, or is no such text.
    """
    try:
        content = read_regular(path, max_bytes=max_bytes)
    except OSError as reason:
        raise error(f"{path}: cannot be read ({reason.strerror}); {advice or _CHECK}") from reason
    encoding, start = _encoding_of(content, utf_16=utf_16)
    try:
        text = content[start:].decode(encoding)
    except UnicodeDecodeError as reason:
        line = content.count(b"\n", 0, start + reason.start) + 1
        raise error(
            f"{path}, line {line}: not {encoding.upper()} text ({reason.reason}); {advice or _SAVE}"
        ) from reason
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise error(f"{path}, line {line}: a NUL character; {advice or _SAVE}")
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
        raise DataError(f"{path}: cannot be read ({error.strerror}); {_CHECK}") from error


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
    is_text = unicode_text(text) == text
    if (is_text and bare == text and "\\" not in text) or exists(own):
        return own
    for name in (bare, bare.replace("\\", "/")):
        path = Path(name) if root is None else root / name
        if exists(path):
            return path
    if not is_text:
        raise DataError(
            f"'{printable(text)}' is not UTF-8 text, and no file has these bytes as its name; save the list as UTF-8"
        )
    return own


def _encoding_of(head: bytes, *, utf_16: bool = True) -> tuple[str, int]:
    """Return the encoding, and the length of the byte order mark."""
    for mark, encoding in _MARKS.items():
        if head.startswith(mark) and (utf_16 or encoding == "utf-8"):
            return encoding, len(mark)
    return "utf-8", 0


def _ended(blocks: Iterable[bytes]) -> Iterator[bytes | None]:
    yield from blocks
    yield None


def _check_line(line: str, where: str) -> None:
    if "\0" in line:
        raise DataError(f"{where}: a NUL character; wanted UTF-8 text with one name a line, so {_SAVE}")
    if len(line) > MAX_LINE_CHARACTERS:
        raise DataError(f"{where}: longer than {MAX_LINE_CHARACTERS:,} characters; wanted one name a line")
