r"""Names of files in files that others read: CSV, Parquet, pictures. docs/cli.md has the rules.

A name is bytes, and may be no text at all. Python keeps a byte that is not UTF-8 as one of U+DC80 to U+DCFF; in a file
it is the escape ``\udc80`` to ``\udcff``, as in JSON.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import sys
from collections.abc import Iterable

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins so is computed by a spreadsheet
_ESCAPED_BYTE = re.compile(r"\\u(dc[89a-f][0-9a-f])")
_NOT_ON_WINDOWS = re.compile(r'[\x00-\x1f<>:"/\\|?*]')  # in no name of a file there; a colon would name a stream
_DEVICE = re.compile(r"(?:aux|con|conin\$|conout\$|nul|prn|(?:com|lpt)[0-9¹²³]) *(?:\.|$)", re.IGNORECASE)
_STEM_BYTES = 180  # a file system takes names of 255 bytes; a number, a suffix and ".part" are added


def unicode_text(name: str) -> str:
    """Return a name as valid Unicode: each byte that is not UTF-8 as an escape."""
    return name.encode("utf-8", "backslashreplace").decode()


def name_of(text: str) -> str:
    """Return the name that `unicode_text` was given."""
    return _ESCAPED_BYTE.sub(lambda match: chr(int(match[1], 16)), text)


def path_cell(path: str) -> str:
    """Return a path as a cell of a CSV file: a spreadsheet computes nothing, and the path leads to the same file."""
    return unicode_text(f"./{path}" if path.startswith(_FORMULA) else path)


def label_cell(label: str) -> str:
    """Return a label, such as a type of defect, as a cell of a CSV file that a spreadsheet does not compute."""
    return unicode_text(f"'{label}" if label.lstrip("'").startswith(_FORMULA) else label)


def label_of(cell: str) -> str:
    """Return the label that `label_cell` was given."""
    quoted = cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA)
    return name_of(cell[1:] if quoted else cell)


def csv_line(cells: Iterable[object]) -> str:
    """Return a line of a CSV file, ending in a line feed. `csv.writer` alone would not quote a name with a CR then."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue()[:-2] + "\n"


def is_device_name(name: str) -> bool:
    """Return whether Windows takes the name of a file for a device, such as ``nul`` or ``COM1.png``."""
    return _DEVICE.match(name) is not None


def short_stem(name: str) -> str:
    """Return the beginning of a file's stem, and a hash of the name where it is too long for a longer name.

    On Windows, characters that no name of a file may hold there become ``_``.
    """
    stem = os.path.splitext(os.path.basename(name))[0].replace("\0", "_")  # noqa: PTH119, PTH122  no path, a name
    if sys.platform == "win32":
        stem = _NOT_ON_WINDOWS.sub("_", stem)  # a name in an archive, or of a URL, may hold any of them
    encoded = os.fsencode(stem)
    if len(encoded) <= _STEM_BYTES:
        return stem
    cut = encoded[: _STEM_BYTES - 9].decode("utf-8", "ignore")
    return f"{cut}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
