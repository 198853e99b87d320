"""Passwords from files."""

from __future__ import annotations

from pathlib import Path
from typing import overload

from supersimplenet.errors import ConfigError
from supersimplenet.utils.formatting import first_line


def unread(error: OSError | UnicodeError, path: Path) -> str:
    """Return why a file with a secret cannot be read; where there is none, its name may be the secret itself."""
    if isinstance(error, FileNotFoundError):
        return f"there is no such file in {path.parent}"
    return f"{path}: cannot be read ({error.strerror if isinstance(error, OSError) else first_line(error)})"


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
        raise ConfigError(f"password_file: {unread(error, path)}; wanted a file that holds it in one line") from error
    if len(lines) != 1 or not lines[0]:
        raise ConfigError(f"password_file: {path}: {len(lines)} lines; wanted the password in one line")
    return lines[0]
