"""Bounded readers of JSON and YAML, for every file that is loaded.

A file that was damaged, or made to harm, costs little time and memory, and is refused in one line. Of YAML only what
`yaml.safe_dump` writes for plain values is read: mappings, lists, text, numbers, booleans and null.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from supersimplenet.errors import ModelFolderError, SuperSimpleNetError
from supersimplenet.utils.formatting import first_line, printable, shown_value
from supersimplenet.utils.text_files import read_text

MAX_BYTES = 16 << 20
_MAX_DEPTH = 32  # of lists and mappings inside each other; the deepest file that is written has 6
_MAX_VALUES = 1_000_000
_MAX_YAML_VALUES = 100_000  # which take half a second; a calibration has one for each part
_LONGEST_INTEGER = 20  # characters of the longest int64, with its sign
_PLAIN_TAGS = ("null", "bool", "int", "float", "str", "seq", "map")
_LONE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_LARGEST_SLOW_YAML = 1 << 18  # characters, which take a second


class UnreadableError(ValueError):
    """A text is not read; the message is one line and says why."""


def read_json(
    path: Path,
    *,
    advice: str,
    error: type[SuperSimpleNetError] = ModelFolderError,
    max_bytes: int = MAX_BYTES,
) -> Any:
    """Read a JSON file in UTF-8; see `parse_json`.

    Args:
        path: a regular file.
        advice: what to do about a file that cannot be used; ends the error's message.
        error: class of the error.
        max_bytes: larger files are refused.

    Raises:
        SuperSimpleNetError: of the class ``error``: the file cannot be read, is too large, or is not such JSON.
    """
    return _read(parse_json, "JSON", path, advice, error, max_bytes)


def read_yaml(
    path: Path,
    *,
    advice: str,
    error: type[SuperSimpleNetError] = ModelFolderError,
    max_bytes: int = MAX_BYTES,
) -> Any:
    """Read a YAML file; see `read_json` and `parse_yaml`."""
    return _read(parse_yaml, "YAML", path, advice, error, max_bytes)


def parse_json(text: str) -> Any:
    """Return the value of a JSON text. NaN and infinities are accepted; `from_plain` refuses them where they count.

    Raises:
        UnreadableError: not JSON, too deep, too many values, a name that stands twice, or a number beyond 64 bits.
    """
    if sum(map(text.count, ",[{")) > _MAX_VALUES:
        raise UnreadableError(f"more than {_MAX_VALUES:,} values")
    try:
        value = json.loads(text, object_pairs_hook=_mapping, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise UnreadableError(str(error)) from None
    except RecursionError:
        raise UnreadableError(_too_deep()) from None
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > _MAX_DEPTH + 1:
            raise UnreadableError(_too_deep())
        inside = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [item for items in inside for item in items]
    return value


def parse_yaml(text: str, *, numbers_as_names: bool = False) -> Any:
    """Return the value of a YAML text with one document. Dates are read as text.

    Args:
        text: the text.
        numbers_as_names: accept whole numbers as names in mappings, and return them as text.

    Raises:
        UnreadableError: as `parse_json`; also anchors, aliases, merge keys, and tags of other values.
    """
    import yaml  # not on the line, where no file is YAML

    # PyYAML writes a byte of a name that is no text as an escape, which only its own, slow parser reads.
    own = len(text) <= _LARGEST_SLOW_YAML and _LONE_ESCAPE.search(text)
    loader: Any = (yaml.SafeLoader if own else getattr(yaml, "CSafeLoader", yaml.SafeLoader))(text)
    try:
        return _YamlReader(loader, yaml, numbers_as_names).read()
    except yaml.YAMLError as error:
        problem = printable(getattr(error, "problem", None) or first_line(error))
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        raise UnreadableError(f"{problem}{line}") from None
    finally:
        loader.dispose()


class _YamlReader:
    """Builds a value from the events of a YAML parser, without its composer, which follows aliases.

    Args:
        loader: a safe loader of PyYAML.
        yaml: the module.
        numbers_as_names: see `parse_yaml`.
    """

    def __init__(self, loader: Any, yaml: Any, numbers_as_names: bool) -> None:
        self._loader, self._yaml, self._numbers_as_names = loader, yaml, numbers_as_names
        self._values = 0

    def read(self) -> Any:
        """Return the document's value; None for an empty text."""
        self._next()  # the start of the stream
        if isinstance(self._next(), self._yaml.StreamEndEvent):
            return None
        value = self._value(self._next(), depth=0)
        self._next()  # the end of the document
        if not isinstance(self._next(), self._yaml.StreamEndEvent):
            raise UnreadableError("more than one document")
        return value

    def _next(self) -> Any:
        return self._loader.get_event()

    def _value(self, event: Any, *, depth: int) -> Any:
        where = f"line {event.start_mark.line + 1}"
        self._values += 1
        if self._values > _MAX_YAML_VALUES:
            raise UnreadableError(f"more than {_MAX_YAML_VALUES:,} values")
        if isinstance(event, self._yaml.AliasEvent) or event.anchor is not None:
            raise UnreadableError(f"an anchor or alias in {where}, which is not read")
        if event.tag is not None and event.tag.removeprefix("tag:yaml.org,2002:") not in _PLAIN_TAGS:
            raise UnreadableError(f"the tag {shown_value(event.tag)} in {where}, which is not read")
        if isinstance(event, self._yaml.ScalarEvent):
            return self._scalar(event, where)
        if depth >= _MAX_DEPTH:
            raise UnreadableError(_too_deep())
        if isinstance(event, self._yaml.SequenceStartEvent):
            return list(self._items(self._yaml.SequenceEndEvent, depth))
        items = self._items(self._yaml.MappingEndEvent, depth)
        pairs = list(zip(items, items, strict=True))
        if self._numbers_as_names:
            pairs = [(str(name) if type(name) is int else name, value) for name, value in pairs]
        return _mapping(pairs)

    def _items(self, end: type, depth: int) -> Iterator[Any]:
        while not isinstance(event := self._next(), end):
            yield self._value(event, depth=depth + 1)

    def _scalar(self, event: Any, where: str) -> Any:
        text: str = event.value
        tag = event.tag or self._loader.resolve(self._yaml.ScalarNode, text, event.implicit)
        kind = tag.removeprefix("tag:yaml.org,2002:")
        if kind == "merge":
            raise UnreadableError(f"a merge key in {where}, which is not read")
        if kind == "int":
            if len(text) > _LONGEST_INTEGER:
                raise UnreadableError(f"the number {shown_value(text)} in {where} has more than 64 bits")
        elif kind not in ("null", "bool", "float"):
            return text
        try:
            value = self._loader.construct_object(self._yaml.ScalarNode(tag, text))
        except (ValueError, LookupError):
            raise UnreadableError(f"{shown_value(text)} in {where} is no {kind}") from None
        return _checked_integer(value) if kind == "int" else value


def _read(
    parse: Callable[[str], Any],
    kind: str,
    path: Path,
    advice: str,
    error: type[SuperSimpleNetError],
    max_bytes: int,
) -> Any:
    text = read_text(path, max_bytes=max_bytes, utf_16=False, advice=advice, error=error)
    try:
        return parse(text)
    except UnreadableError as reason:
        raise error(f"{path}: not readable as {kind} ({reason}); {advice}") from reason


def _mapping(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for name, value in pairs:
        if not isinstance(name, str):
            raise UnreadableError(f"{shown_value(name)} is no name")
        if name in mapping:
            raise UnreadableError(f"{shown_value(name)} stands twice")
        mapping[name] = value
    return mapping


def _integer(text: str) -> int:
    if len(text) > _LONGEST_INTEGER:
        raise UnreadableError(f"the number {shown_value(text)} has more than 64 bits")
    return _checked_integer(int(text))


def _checked_integer(value: int) -> int:
    if not -(1 << 63) <= value < 1 << 63:
        raise UnreadableError(f"the number {value} has more than 64 bits")
    return value


def _too_deep() -> str:
    return f"more than {_MAX_DEPTH} lists or mappings inside each other"
