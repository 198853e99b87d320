"""Conversion of settings to plain values, which YAML and JSON can hold, and back. Executes no code, needs no torch.

`from_plain` is the one place where what was loaded is compared with the types that the code declares: no other code
asks whether a loaded value has the right type. What values of that type are allowed, each class checks when it is made.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from supersimplenet.errors import ModelFolderError, SuperSimpleNetError
from supersimplenet.utils.formatting import few, listed, shown_value

T = TypeVar("T")
_LONGEST_NAME = 40
_COUNTS = {2: "two", 3: "three", 4: "four"}
_WANTED = {
    str: ("text", "texts"),
    int: ("a whole number", "whole numbers"),
    float: ("a finite number", "finite numbers"),
    bool: ("true or false", "values true or false"),
    Path: ("a path", "paths"),
    NoneType: ("null", "nulls"),
}
_FITS: dict[Any, Callable[[Any], bool]] = {
    Any: lambda value: True,
    NoneType: lambda value: value is None,
    str: lambda value: isinstance(value, str),
    int: lambda value: isinstance(value, int) and not isinstance(value, bool),
    float: lambda value: isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value),
    bool: lambda value: isinstance(value, bool),
    Path: lambda value: isinstance(value, str) and value != "" and "\0" not in value,
}


_LONE = re.compile("[\ud800-\udfff]")


def as_json(value: Any, **options: Any) -> str:
    r"""Return JSON that is valid UTF-8, with the letters of all languages as they are.

    A byte of a name that is not UTF-8 is written as an escape, ``\udc80`` to ``\udcff``; `json.loads` reads it as
    Python keeps it in a path, so that the file is found again.
    """
    text = json.dumps(value, ensure_ascii=False, **options)
    return _LONE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class _MisfitError(Exception):
    """A value has another type than declared; the message says where, what was found and what is wanted."""


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
    if isinstance(value, int | float) and type(value) not in (int, float, bool):  # such as a number with a range
        return int(value) if isinstance(value, int) else float(value)
    return value


def from_plain(kind: type[T], values: Any, *, where: str, name: str = "") -> T:
    """Build a dataclass, or another class with annotated parameters, from the result of `to_plain`.

    Args:
        kind: the class; each parameter's declared type is checked.
        values: the plain values, by name.
        where: the file, for the error message.
        name: name of ``values`` in the file, such as ``model``; empty where they are the whole file.

    Raises:
        ModelFolderError: an unknown, missing or wrong value, or one that the class refuses.
    """
    return checked(kind, values, where=where, name=name)  # type: ignore[no-any-return]


def checked(kind: Any, value: Any, *, where: str, name: str = "") -> Any:
    """Return a plain value as the type that is declared for it: numbers, text, paths, tuples, dictionaries, classes.

    Numbers must be finite; true and false are no numbers.

    Raises:
        ModelFolderError: the value does not have that type; see `from_plain`.
    """
    try:
        return _converted(kind, value, name)
    except (_MisfitError, SuperSimpleNetError) as error:
        raise ModelFolderError(f"{where}: {error}") from error


def _converted(kind: Any, value: Any, name: str) -> Any:
    """Return the value as the type ``kind``; ``name`` is its place, for the message."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _one_of(arguments, value, name)
    if origin is Literal:
        if any(type(value) is type(known) and value == known for known in arguments):
            return value
    elif kind in _FITS:
        if _FITS[kind](value):
            return kind(value) if kind in (float, Path) else value
    elif origin in (tuple, list, Sequence):
        if isinstance(value, list | tuple):
            return _sequence(origin, arguments, value, name)
    elif isinstance(value, Mapping):
        return _built(kind, value, name) if origin is None else _mapping(arguments, value, name)
    raise _MisfitError(f"{name or 'the file'}: {shown_value(value)}; wanted {_wanted(kind)}")


def _mapping(kinds: Sequence[Any], values: Mapping[Any, Any], name: str) -> dict[Any, Any]:
    return {
        _converted(kinds[0], key, f"a name in {name}"): _converted(kinds[1], value, _place(name, key))
        for key, value in values.items()
    }


def _one_of(kinds: Sequence[Any], value: Any, name: str) -> Any:
    """Return the value as the first of the types that it has."""
    for kind in kinds:
        nested = not isinstance(kind, str) and isinstance(value, Mapping) and dataclasses.is_dataclass(kind)
        nested |= isinstance(value, list | tuple) and get_args(kind)[1:] == (...,)
        try:
            return _converted(kind, value, name)
        except _MisfitError:
            if nested:  # the field or item inside is what is wrong
                raise
    raise _MisfitError(f"{name}: {shown_value(value)}; wanted {_wanted(Union[tuple(kinds)])}")  # noqa: UP007


def _sequence(origin: Any, kinds: Sequence[Any], values: Sequence[Any], name: str) -> Any:
    any_number = origin is not tuple or (len(kinds) == 2 and kinds[1] is ...)
    if not any_number and len(values) != len(kinds):
        raise _MisfitError(f"{name}: {shown_value(values)}; wanted {_wanted(tuple[tuple(kinds)])}")  # type: ignore[misc]
    each = [kinds[0]] * len(values) if any_number else kinds
    converted = [
        _converted(kind, value, f"{name}[{place}]")
        for place, (kind, value) in enumerate(zip(each, values, strict=True))
    ]
    return tuple(converted) if origin is not list else converted


def _built(kind: Any, values: Mapping[str, Any], name: str) -> Any:
    """Return an object of a class, made from its parameters' plain values."""
    hints, required = _parameters(kind)
    unknown = [_shown(key) for key in values if key not in hints]
    if unknown:
        raise _MisfitError(f"{name + ': ' if name else ''}unknown {few(unknown)}; written by another version?")
    missing = [key for key in required if key not in values]
    if missing:
        raise _MisfitError(f"{name + ': ' if name else ''}lacks {', '.join(missing)}; bring back the file")
    converted = {key: _converted(hints[key], value, _place(name, key)) for key, value in values.items()}
    try:
        return kind(**converted)
    except SuperSimpleNetError as error:
        text = str(error)
        raise _MisfitError(text if not name or text.startswith(name) else f"{name}.{text}") from error


@cache
def _parameters(kind: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the declared types of a class's parameters, and the names of those that must be given."""
    hints = get_type_hints(kind if dataclasses.is_dataclass(kind) else kind.__init__)
    parameters = inspect.signature(kind).parameters
    required = [name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty]
    return {name: hints[name] for name in parameters}, required


def _place(name: str, key: Any) -> str:
    return f"{name}.{_shown(key)}" if name else _shown(key)


def _shown(key: Any) -> str:
    return key if isinstance(key, str) and key.isidentifier() and len(key) < _LONGEST_NAME else shown_value(key)


def _wanted(kind: Any, *, several: bool = False) -> str:
    """Describe a type in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _WANTED:
        return _WANTED[kind][several]
    if origin in (Union, UnionType):
        choices = [
            get_args(one) if get_origin(one) is Literal else [_wanted(one, several=several)] for one in arguments
        ]
        return listed([str(choice) for some in choices for choice in some])
    if origin is Literal:
        return listed([str(value) for value in arguments])
    if origin is tuple and (len(arguments) != 2 or arguments[1] is not ...):
        if len(set(arguments)) == 1:
            return f"{_COUNTS.get(len(arguments), len(arguments))} {_wanted(arguments[0], several=True)}"
        return f"a list of {listed([_wanted(one) for one in arguments], 'and')}"
    if origin in (tuple, list, Sequence):
        return f"a list of {_wanted(arguments[0], several=True)}"
    return "names with values"
