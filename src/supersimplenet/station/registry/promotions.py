"""Which model is in use: the one of the last promotion, or the one before it after a rollback.

A promotion is a row. It is there or not, so no kill leaves a state in between; a station that runs reads the rows, and
one that starts does.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select

from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import CONFIG_FILE
from supersimplenet.metrics.evidence import Evidence
from supersimplenet.station.access import audit
from supersimplenet.station.registry.records import Registered, one_model
from supersimplenet.station.storage.database import now_ms
from supersimplenet.station.storage.schema import PROMOTIONS

MARGIN = 0.2  # 14 bad parts that are found, and 14 good ones that pass, without a new mistake


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """A change of the model in use.

    Attributes:
        number: its place in the order of all changes.
        product: the product.
        model: number of the model that is in use from then on.
        is_rollback: whether it went back to an earlier one.
        at: when, in milliseconds since 1970.
        who: who did it.
        why: in words.
    """

    number: int
    product: str
    model: int
    is_rollback: bool
    at: int
    who: str
    why: str


def promotions(connection: Connection, product: str | None = None) -> list[Promotion]:
    """Return all changes, or those of a product, oldest first."""
    query = select(PROMOTIONS).order_by(PROMOTIONS.c.number)
    if product is not None:
        query = query.where(PROMOTIONS.c.product == product)
    return [Promotion(**row) for row in connection.execute(query).mappings()]


def models_in_use(connection: Connection) -> dict[str, Promotion]:
    """Return the last change of each product."""
    return {each.product: each for each in promotions(connection)}


def in_use(connection: Connection, product: str) -> Registered | None:
    """Return the model of a product that is in use; None where none was ever promoted."""
    last = models_in_use(connection).get(product)
    return None if last is None else one_model(connection, last.model)


def promote(
    connection: Connection,
    station: Path,
    number: int,
    *,
    who: str,
    why: str = "",
    margin: float = MARGIN,
    force: bool = False,
) -> Promotion:
    """Use a model from now on.

    Args:
        connection: of a transaction by `writing`.
        station: the station's folder.
        number: the model.
        who: who promotes it.
        why: in words.
        margin: share of parts on which it may make a new mistake; see `Evidence`. Where the comparison with the model
            in use has not shown this, it is refused.
        force: also one that fell behind, or of which nothing is shown.

    Raises:
        ConfigError: it is not finished, fell behind the model in use, was not compared with it by enough parts, is in
            use already, or its folder is not there.
    """
    audit.lock(connection)
    model = one_model(connection, number)
    if model.state == "refused" and not force:
        reasons = "; ".join(model.found.get("reasons", ()))
        raise ConfigError(f"model {number}: refused ({reasons}); with --force it is promoted all the same")
    if model.state not in ("candidate", "refused"):
        raise ConfigError(f"model {number}: {model.state}; wanted a candidate")
    now = in_use(connection, model.product)
    if now is not None and now.number == number:
        raise ConfigError(f"model {number}: in use already")
    if not force:
        require_shown(connection, model, margin, station)
    return _change(connection, station, model, who=who, why=why, is_rollback=False, forced=force)


def require_shown(connection: Connection, model: Registered, margin: float, station: Path) -> None:
    """Refuse a model of which its comparison with the model in use, where there is one, shows too little.

    Args:
        connection: the database.
        model: the model.
        margin: see `promote`.
        station: the station's folder.

    Raises:
        ConfigError: it was not compared with it, or by too few parts.
    """
    now = in_use(connection, model.product)
    if now is None:
        return
    number, place = model.number, f"--folder {shlex.quote(str(station))}"
    ways = [("to compare it", f"supersimplenet registry compare {number} {place}")]
    compared = model.found.get("compared")
    if compared != now.number or "evidence" not in model.found:
        was = "was not compared with" if compared is None else f"was compared with model {compared}, not with"
        raise ConfigError(f"model {number}: {was} model {now.number}, which is in use", commands=ways)
    evidence = Evidence(**model.found["evidence"])
    if lacks := evidence.lacks(margin):
        if evidence.margin < 1:
            shown = math.ceil(evidence.margin * 100) / 100
            ways.append(
                ("to take it by what is shown", f"supersimplenet registry promote {number} --margin {shown:g} {place}")
            )
        raise ConfigError(
            f"model {number}: {'; '.join(lacks)}. Review more parts and compare again, or name a larger margin",
            commands=ways,
        )


def roll_back(connection: Connection, station: Path, product: str, *, who: str, why: str = "") -> Promotion:
    """Use the model again that was in use before the present one; once more, the one before that.

    Raises:
        ConfigError: there is none.
    """
    audit.lock(connection)
    history = _history(promotions(connection, product))
    if len(history) < 2:
        raise ConfigError(f"product '{product}': no earlier model to go back to")
    return _change(connection, station, one_model(connection, history[-2]), who=who, why=why, is_rollback=True)


def model_before(connection: Connection, product: str) -> int | None:
    """Return the number of the model that `roll_back` would use; None where there is none."""
    history = _history(promotions(connection, product))
    return history[-2] if len(history) > 1 else None


def _history(changes: Iterable[Promotion]) -> list[int]:
    """Return the models that were promoted and not taken back, oldest first."""
    history: list[int] = []
    for change in changes:
        if change.is_rollback:
            history.pop()
        else:
            history.append(change.model)
    return history


def _change(
    connection: Connection,
    station: Path,
    model: Registered,
    *,
    who: str,
    why: str,
    is_rollback: bool,
    forced: bool = False,
) -> Promotion:
    if not (model.model(station) / CONFIG_FILE).is_file():
        raise ConfigError(f"model {model.number}: {model.model(station)} is not there; restore it from a backup")
    row: dict[str, Any] = {
        "product": model.product,
        "model": model.number,
        "is_rollback": is_rollback,
        "at": now_ms(),
        "who": who,
        "why": why,
    }
    number = connection.execute(insert(PROMOTIONS).values(**row).returning(PROMOTIONS.c.number)).scalar_one()
    details = {"product": model.product, "model": model.number, "why": why} | ({"forced": True} if forced else {})
    audit.append(connection, who=who, what="roll back" if is_rollback else "promote", details=details)
    return Promotion(number=number, **row)
