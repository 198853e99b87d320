"""Which products and models a station has, and has had."""

from __future__ import annotations

from sqlalchemy import Engine, func, select

from supersimplenet.station.storage.schema import MODELS, RESULTS


def products(engine: Engine) -> list[str]:
    """Return the products that have results, by name; each is one step in an index, whatever the number of results."""
    product = RESULTS.c.product
    first = select(func.min(product))
    found: list[str] = []
    with engine.connect() as connection:
        name = connection.execute(first).scalar_one()
        while name is not None:
            found.append(name)
            name = connection.execute(first.where(product > name)).scalar_one()
    return found


def has_model(engine: Engine, id: str) -> bool:  # noqa: A002
    """Return whether a model of this id was ever loaded."""
    with engine.connect() as connection:
        return connection.execute(select(MODELS.c.id).where(MODELS.c.id == id)).first() is not None
