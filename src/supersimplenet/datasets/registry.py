"""Look up data sources by name: describe a source in config.yaml, and rebuild it from its description."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supersimplenet.datasets.base import DataSource
from supersimplenet.datasets.folder import Folder
from supersimplenet.datasets.ksdd2 import KSDD2
from supersimplenet.datasets.mvtec import MVTecAD
from supersimplenet.datasets.sensum import SensumSODF
from supersimplenet.datasets.table import Table
from supersimplenet.datasets.visa import VisA
from supersimplenet.errors import DataError
from supersimplenet.utils.serialization import from_plain

SOURCES: dict[str, type[DataSource]] = {
    kind.__name__: kind for kind in (MVTecAD, VisA, KSDD2, SensumSODF, Folder, Table)
}
# Arguments that version 0.1 did not record, with the values that mean what it did.
_OF_VERSION_0_1: dict[str, dict[str, Any]] = {"Folder": {"split_rule": 1}}


def plain_name(source: DataSource) -> str:
    """Return a dataset's name for people: ``parts`` for ``Folder/parts``; names of public datasets stay whole."""
    kind, _, name = source.name.partition("/")
    return name if kind in ("Folder", "Table") and name else source.name


def describe_source(source: DataSource) -> dict[str, Any]:
    """Return the source's class and arguments as plain values, with absolute paths."""
    arguments = {name: _plain(getattr(source, name)) for name in _parameters(type(source))}
    return {"class_path": type(source).__name__, "init_args": arguments}


def source_from(description: Mapping[str, Any], where: str = "the dataset") -> DataSource:
    """Return the source that `describe_source` described.

    Args:
        description: such as ``data`` in a model folder's config.yaml.
        where: the file that it is from, for the error message.

    Raises:
        DataError: the source is of a user's own class, which cannot be found by its name.
        ModelFolderError: an argument is missing, unknown or wrong.
    """
    kind = SOURCES.get(description["class_path"])
    if kind is None:
        raise DataError(
            f"data source '{description['class_path']}' is not one of {', '.join(SOURCES)}; name the data again"
        )
    arguments = _OF_VERSION_0_1.get(kind.__name__, {}) | description["init_args"]
    return from_plain(kind, arguments, where=where, name="data.init_args")


def _parameters(kind: type[DataSource]) -> list[str]:
    parameters = inspect.signature(kind).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.resolve())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
