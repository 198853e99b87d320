"""Passwords from files."""

from __future__ import annotations

from pathlib import Path
from typing import overload

from supersimplenet.errors import ConfigError
from supersimplenet.utils.formatting import first_line


@overload
def read_password(path: Path) -> str: ...
@overload
def read_password(path: None) -> None: ...
def read_password(path: Path | None) -> str | None:
    """Return the password that a file holds in its one line; None without a file.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"password_file: {path}: cannot be read ({first_line(error)})") from error
    if len(lines) != 1 or not lines[0]:
        raise ConfigError(f"password_file: {path}: {len(lines)} lines; wanted the password in one line")
    return lines[0]
