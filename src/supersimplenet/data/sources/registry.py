"""The data sources by name: what config.yaml says of a data set, and the data set that it says."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supersimplenet.data.sources.base import DataSource
from supersimplenet.data.sources.folder import Folder
from supersimplenet.data.sources.ksdd2 import KSDD2
from supersimplenet.data.sources.mvtec import MVTecAD
from supersimplenet.data.sources.sensum import SensumSODF
from supersimplenet.data.sources.table import Table
from supersimplenet.data.sources.visa import VisA
from supersimplenet.errors import DataError

SOURCES: dict[str, type[DataSource]] = {
    kind.__name__: kind for kind in (MVTecAD, VisA, KSDD2, SensumSODF, Folder, Table)
}


def describe_source(source: DataSource) -> dict[str, Any]:
    """The source's class and arguments in plain values, paths made absolute."""
    arguments = {name: _plain(getattr(source, name)) for name in _parameters(type(source))}
    return {"class_path": type(source).__name__, "init_args": arguments}


def source_from(description: Mapping[str, Any]) -> DataSource:
    """The source that `describe_source` described.

    Raises:
        DataError: a source of the user's own, which a name alone does not bring back.
    """
    kind = SOURCES.get(description["class_path"])
    if kind is None:
        raise DataError(
            f"data source '{description['class_path']}' is not one of {', '.join(SOURCES)}; name the data again"
        )
    return kind(**description["init_args"])


def _parameters(kind: type[DataSource]) -> list[str]:
    parameters = inspect.signature(kind).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.resolve())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
