"""Records of models: each is added once, and its folder is never written again when it is finished."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, insert, select, update

from supersimplenet.errors import ConfigError
from supersimplenet.station.storage.database import now_ms
from supersimplenet.station.storage.schema import REGISTRY

StateName = Literal["training", "candidate", "refused", "failed"]
FOLDER, MODEL, DATA = "registry", "model", "data"


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A model of the registry.

    Attributes:
        number: its number, which is unique in the station.
        product: the product.
        state: ``training``; ``candidate``: it may be promoted; ``refused``: it fell behind its parent; ``failed``: its
            training ended with an error.
        at: when it was begun, in milliseconds since 1970.
        who: who began it.
        parent: number of the model that was in use then; None for none.
        dataset: the dataset that it was trained with; None for a model that was brought in.
        version: the version of that dataset.
        digest: digest of that version.
        options: further options of the training, as they were typed.
        found: guarantee, result of the comparison, and reasons, in plain values.
    """

    number: int
    product: str
    state: StateName
    at: int
    who: str
    parent: int | None = None
    dataset: str | None = None
    version: int | None = None
    digest: str | None = None
    options: list[str] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)

    def folder(self, station: Path) -> Path:
        """Return the folder of its files: model, data, log."""
        return files_of(station, self.number)

    def model(self, station: Path) -> Path:
        """Return its model folder."""
        return self.folder(station) / MODEL


def files_of(station: Path, number: int) -> Path:
    """Return the folder of a model's files by its number."""
    return station / FOLDER / f"{number:04}"


def register(connection: Connection, *, product: str, state: StateName, who: str, **known: Any) -> Registered:
    """Add a model; ``known`` are further attributes of `Registered`."""
    row = {"product": product, "state": state, "at": now_ms(), "who": who, "options": [], "found": {}, **known}
    number = connection.execute(insert(REGISTRY).values(**row).returning(REGISTRY.c.number)).scalar_one()
    return Registered(number=number, **row)


def all_models(connection: Connection, product: str | None = None) -> list[Registered]:
    """Return the models of a product, or all, oldest first."""
    query = select(REGISTRY).order_by(REGISTRY.c.number)
    if product is not None:
        query = query.where(REGISTRY.c.product == product)
    return [Registered(**row) for row in connection.execute(query).mappings()]


def one_model(connection: Connection, number: int) -> Registered:
    """Return a model by its number.

    Raises:
        ConfigError: there is none.
    """
    row = connection.execute(select(REGISTRY).where(REGISTRY.c.number == number)).mappings().first()
    if row is None:
        raise ConfigError(f"model: no model {number} in the registry; supersimplenet registry list shows them")
    return Registered(**row)


def set_state(connection: Connection, number: int, state: StateName, **found: Any) -> Registered:
    """Set the state of a model, and add to what was found about it."""
    before = one_model(connection, number)
    changed = {"state": state, "found": before.found | found}
    connection.execute(update(REGISTRY).where(REGISTRY.c.number == number).values(**changed))
    return Registered(**(vars(before) | changed))
