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
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.preprocessing.reading import MOST_BITS

SOURCES: dict[str, type[DataSource]] = {
    kind.__name__: kind for kind in (MVTecAD, VisA, KSDD2, SensumSODF, Folder, Table)
}


def describe_source(source: DataSource) -> dict[str, Any]:
    """Return the source's class and arguments as plain values, with absolute paths."""
    arguments = {name: _plain(getattr(source, name)) for name in _parameters(type(source))}
    return {"class_path": type(source).__name__, "init_args": arguments}


def source_from(description: Mapping[str, Any]) -> DataSource:
    """Return the source that `describe_source` described.

    Raises:
        DataError: the source is of a user's own class, which cannot be found by its name.
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


def tested_on(source: DataSource | None, record: Mapping[str, Any], model: Path) -> DataSource:
    """Return the dataset to test a model on: the given one or else, for None, the one that it was trained on.

    Args:
        source: the dataset.
        record: content of the model folder's config.yaml.
        model: the model folder, for the error message.

    Raises:
        ConfigError: no dataset is known, or it names another bit depth or page than the training's.
    """
    if source is None:
        return trained_on(record, model)
    reading = record.get("reading", {})
    for name, own in (("bit_depth", reading.get("bit_depth", MOST_BITS)), ("page", reading.get("page"))):
        given = getattr(source, name)
        if given not in (None, "auto", own):
            raise ConfigError(
                f"data.{name}: {given}, and {model} was trained with {'the largest' if own is None else own}; leave "
                "it out, so that the model reads as in its training"
            )
    return source


def trained_on(record: Mapping[str, Any], model: Path) -> DataSource:
    """Return the dataset that a model was trained on.

    Args:
        record: content of the model folder's config.yaml.
        model: the model folder, for the error message.

    Raises:
        ConfigError: the dataset is not known.
    """
    if "data" not in record:
        raise ConfigError(f"data: {model} was not trained here, so its dataset is not known; name one with --data")
    return source_from(record["data"])
