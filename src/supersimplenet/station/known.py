"""What a station last knew of a database that is a server, for a start while that is away.

Verdicts rest on the models that were promoted and on the thresholds that people have set, so a station starts without
its database only if it knows these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from supersimplenet.station.config import StationConfig
from supersimplenet.station.registry.promotions import models_in_use
from supersimplenet.station.thresholds import SetThreshold, stored_thresholds
from supersimplenet.utils.files import write_text

_FILE = "database.json"


@dataclass(frozen=True, kw_only=True)
class Known:
    """What decides, as the database says.

    Attributes:
        thresholds: the thresholds that were set, by product.
        models: the last promotion of each product: its number, and that of the model.
    """

    thresholds: Mapping[str, SetThreshold]
    models: Mapping[str, tuple[int, int]]


def ask(connection: Connection) -> Known:
    """Return what the database says."""
    last = models_in_use(connection)
    return Known(
        thresholds=stored_thresholds(connection),
        models={product: (each.number, each.model) for product, each in last.items()},
    )


def keep_known(config: StationConfig, known: Known) -> None:
    """Write what the station's database says into its folder; nothing where that is a file there itself.

    Raises:
        OSError: it cannot be written; then nothing is known.
    """
    if config.database is None:
        return
    content = {
        "database": _name(config),
        "thresholds": [vars(threshold) for threshold in known.thresholds.values()],
        "models": known.models,
    }
    path = config.folder / _FILE
    try:
        write_text(path, json.dumps(content) + "\n")
    except OSError:
        path.unlink(missing_ok=True)  # an old threshold is worse than none
        raise


def read_known(config: StationConfig) -> Known | None:
    """Return what the station last knew; None where it knows nothing."""
    try:
        content = json.loads((config.folder / _FILE).read_text(encoding="utf-8"))
        if content["database"] != _name(config):
            return None
        return Known(
            thresholds={row["product"]: SetThreshold(**row) for row in content["thresholds"]},
            models={product: (number, model) for product, (number, model) in content["models"].items()},
        )
    except (OSError, ValueError, TypeError, KeyError):  # not there, or damaged
        return None


def _name(config: StationConfig) -> str:
    return make_url(config.database_url).render_as_string(hide_password=True)
