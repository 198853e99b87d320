"""Checks of what was typed, made before a command imports anything slow: impossible values, missing paths.

Each raises `ConfigError`, which ends the program with the exit status of a wrong call.
"""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace

from supersimplenet.datasets.download.archives import ARCHIVES
from supersimplenet.datasets.registry import SOURCES
from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import CONFIG_FILE

Reads = Literal["file", "folder", "file or folder", "model folder", "model", "input"]
Writes = Literal["file", "folder"]
_LARGEST = 2**63  # what torch, numpy and Parquet hold
_GLOB_SIGNS = frozenset("*?[")
_UNNAMED = ("path", "paths", "file")  # arguments without an option's name


def check_not_empty(arguments: Sequence[str]) -> None:
    """Check that no argument is empty, as a shell variable without a value leaves it.

    Raises:
        ConfigError: an argument is empty; the message names its option.
    """
    for position, argument in enumerate(arguments):
        named = re.fullmatch(r"(--[\w.-]+)=\s*", argument)
        if named is not None or not argument.strip():
            before = arguments[position - 1] if position and arguments[position - 1].startswith("--") else "an argument"
            raise ConfigError(f"{named[1] if named else before}: empty; wanted a value")


def check_values(options: Namespace) -> None:
    """Check that each number is finite and fits into 64 bits, and that no text holds a NUL character.

    Raises:
        ConfigError: a value cannot be; the message names its option.
    """
    for key, value in options.items():
        option = "--" + key.replace(".init_args", "")
        for item in _items(value):
            if isinstance(item, float) and not math.isfinite(item):
                raise ConfigError(f"{option}: {item}; wanted a finite number")
            if isinstance(item, int) and not -_LARGEST <= item < _LARGEST:
                raise ConfigError(f"{option}: {item}; wanted a number that fits into 64 bits")
            if isinstance(item, str | Path) and "\0" in str(item):
                raise ConfigError(f"{option}: holds a NUL character; no text and no path does")


def check_paths(options: Namespace, reads: Mapping[str, Reads], writes: Mapping[str, Writes]) -> None:
    """Check that all that a call reads is there, and that its results can be written.

    Args:
        options: the parsed options; ``data`` is a dataset, whose folders and files are checked too.
        reads: for each option that names paths to read: what they must be.
        writes: for each option that names a result: what it is.

    Raises:
        ConfigError: a path is missing, of another kind, or cannot be written; the message names its option.
    """
    looks: list[tuple[str, Callable[[Any], str]]] = [
        (name, partial(_problem, kind=kind)) for name, kind in reads.items()
    ]
    looks += [(name, partial(_obstacle, kind=kind)) for name, kind in writes.items()]
    for name, look in looks:
        for path in _items(options[name]):
            try:
                problem = look(path)
            except OSError as error:  # such as a name that is too long
                problem = error.strerror or str(error)
            if problem:
                dotted = name if "." in name else name.replace("_", "-")
                raise ConfigError(f"{name.upper() if name in _UNNAMED else f'--{dotted}'}: {path}: {problem}")
    if options.get("data") is not None:
        _check_data(options.data)


def _check_data(data: Namespace) -> None:
    name = data.class_path.rpartition(".")[2]
    parameters = inspect.signature(SOURCES[name]).parameters.values() if name in SOURCES else ()
    given = {parameter.name: parameter.default for parameter in parameters} | dict(data.init_args.items())
    for argument, value in given.items():
        for path in _items(value):
            if isinstance(path, Path) and not path.exists():
                fetch = f"; supersimplenet data download {name}" if name in ARCHIVES and argument == "root" else ""
                raise ConfigError(f"--data.{argument}: {path}: no such file or folder{fetch or '; check the path'}")


def _items(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _items(item)
    elif value is not None:
        yield value


def _problem(path: str | Path, kind: Reads) -> str:
    """Return why a path cannot be read as what it must be; nothing where it can."""
    if kind == "input" and (str(path) == "-" or "://" in str(path) or _GLOB_SIGNS & set(str(path))):
        return ""
    path = Path(path)
    if not path.exists():
        wanted = "file or folder" if kind in ("input", "model") else "folder" if kind == "model folder" else kind
        return f"no such {wanted}; check the path"
    if kind in ("folder", "model folder") and not path.is_dir():
        return f"a file; wanted a {kind}"
    if kind == "file" and path.is_dir():
        return "a folder; wanted a file"
    if kind in ("model", "model folder") and path.is_dir() and not (path / CONFIG_FILE).is_file():
        return f"no model here, {CONFIG_FILE} is missing; name a folder that `supersimplenet train` wrote"
    return "" if os.access(path, os.R_OK) else "cannot be read; check its permissions"


def _obstacle(path: Path, kind: Writes) -> str:
    """Return why a result cannot be written; nothing where it can."""
    if str(path).encode("utf-8", "replace") != os.fsencode(path):
        return "holds bytes that are no UTF-8 text; the libraries that write there refuse it, choose another name"
    if kind == "file" and path.is_dir():
        return "a folder; wanted the name of a file"
    if kind == "folder" and path.exists() and not path.is_dir():
        return "a file; wanted a folder"
    place = path if path.is_dir() else path.absolute().parent
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return f"{place} is a file, so nothing can be put below it"
    return "" if os.access(place, os.W_OK | os.X_OK) else f"nothing can be written in {place}; check its permissions"
