"""Brings a model folder into the registry."""

from __future__ import annotations

import shutil
from pathlib import Path

from sqlalchemy import Engine

from supersimplenet.errors import ConfigError, OutputError
from supersimplenet.inference.config import CONFIG_FILE
from supersimplenet.station.access import audit
from supersimplenet.station.registry.promotions import in_use
from supersimplenet.station.registry.records import MODEL, Registered, register, set_state
from supersimplenet.station.storage.database import writing
from supersimplenet.utils.documents import read_yaml

_LEFT_OUT = ("checkpoints", "logs", ".*")  # of a training, which is over


def bring_in(engine: Engine, station: Path, folder: Path, *, product: str, who: str) -> Registered:
    """Copy a finished model folder into the registry, as a candidate.

    Args:
        engine: the database.
        station: the station's folder.
        folder: the model folder.
        product: the product.
        who: who brings it.

    Raises:
        ConfigError: its training is not finished.
        OutputError: it cannot be copied.
    """
    if read_yaml(folder / CONFIG_FILE, advice="name a model folder").get("finished") is False:
        raise ConfigError(f"{folder}: its training is not finished; supersimplenet train --resume --output {folder}")
    with writing(engine) as connection:
        audit.lock(connection)
        parent = in_use(connection, product)
        model = register(
            connection, product=product, state="failed", who=who, parent=None if parent is None else parent.number
        )
        audit.append(connection, who=who, what="add model", details={"product": product, "model": model.number})
    target = model.folder(station)
    try:
        target.mkdir(parents=True)
        shutil.copytree(folder, target / f".{MODEL}", ignore=shutil.ignore_patterns(*_LEFT_OUT))
        (target / f".{MODEL}").rename(target / MODEL)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror})") from error
    with writing(engine) as connection:
        return set_state(connection, model.number, "candidate", reasons=[])
