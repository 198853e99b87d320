"""Conversion of settings to plain values, which YAML and JSON can hold, and back. Executes no code, needs no torch."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from supersimplenet.errors import ModelFolderError, SuperSimpleNetError

T = TypeVar("T")
_LONE = re.compile("[\ud800-\udfff]")


def as_json(value: Any, **options: Any) -> str:
    r"""Return JSON that is valid UTF-8, with the letters of all languages as they are.

    A byte of a name that is not UTF-8 is written as an escape, ``\udc80`` to ``\udcff``; `json.loads` reads it as
    Python keeps it in a path, so that the file is found again.
    """
    text = json.dumps(value, ensure_ascii=False, **options)
    return _LONE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def to_plain(value: Any) -> Any:
    """Convert dataclasses, paths and tuples to values that YAML and JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return value


def from_plain(kind: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Build a configuration dataclass from the result of `to_plain`.

    Raises:
        ModelFolderError: the dataclass has no field of some name, or refuses a value.
    """
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ModelFolderError(f"{where}: unknown {', '.join(unknown)}; written by another version?")
    converted: dict[str, Any] = {}
    for name, value in values.items():
        if "Path" in str(known[name].type) and value is not None:
            converted[name] = Path(value)
        else:
            converted[name] = tuple(value) if isinstance(value, list) else value
    try:
        return kind(**converted)
    except (TypeError, ValueError, SuperSimpleNetError) as error:
        raise ModelFolderError(f"{where}: {error}") from error
