"""Search, count and review results, and give them the form in which they leave the station."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Engine, Select, and_, func, or_, select, update

from supersimplenet.postprocessing.parts import PartVerdict, part_verdicts
from supersimplenet.station.storage.database import now_ms
from supersimplenet.station.storage.recorder import Record, Stored
from supersimplenet.station.storage.schema import ALIASES, RESULTS
from supersimplenet.types import Verdict

Order = Literal["newest", "oldest", "worst"]
Review = Literal["good", "bad"]
Reviewed = Literal["any", "none", "false-call", "missed"]
_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which results are wanted; None for no condition.

    Attributes:
        since: from this time on, in milliseconds since 1970.
        until: before this time, likewise.
        verdict: the station's verdict.
        product: name of the product.
        part: name of the part.
        model: id of the model.
        source: what sent the picture.
        reviewed: ``any`` review, ``none``, or one that says the verdict was a ``false-call`` or ``missed``.
    """

    since: int | None = None
    until: int | None = None
    verdict: Verdict | None = None
    product: str | None = None
    part: str | None = None
    model: str | None = None
    source: str | None = None
    reviewed: Reviewed | None = None

    def condition(self) -> ColumnElement[bool]:
        """Return the condition as SQL."""
        c = RESULTS.c
        found: list[ColumnElement[bool]] = []
        if self.since is not None:
            found.append(c.taken_at >= self.since)
        if self.until is not None:
            found.append(c.taken_at < self.until)
        found += [
            c[name] == value
            for name in ("verdict", "product", "part", "model", "source")
            if (value := getattr(self, name)) is not None
        ]
        if self.reviewed is not None:
            found.append(_REVIEWED[self.reviewed])
        return and_(*found) if found else and_(True)


_REVIEWED: dict[Reviewed, ColumnElement[bool]] = {
    "any": RESULTS.c.review.is_not(None),
    "none": RESULTS.c.review.is_(None),
    "false-call": and_(RESULTS.c.verdict != "good", RESULTS.c.review == "good"),
    "missed": and_(RESULTS.c.verdict == "good", RESULTS.c.review == "bad"),
}


def search(
    engine: Engine, wanted: Filter, *, order: Order = "newest", after: Record | None = None, limit: int = 50
) -> list[Record]:
    """Return results in an order.

    Args:
        engine: the database.
        wanted: which results.
        order: ``newest`` or ``oldest`` first, or ``worst``, that is by falling score.
        after: the result after which the list goes on; None for the beginning.
        limit: most results to return.
    """
    with engine.connect() as connection:
        return _records(connection, _ordered(wanted, order, after).limit(limit))


def every(engine: Engine, wanted: Filter) -> Iterator[Record]:
    """Yield all results that are wanted, oldest first, in a memory that does not grow with their number."""
    last: Record | None = None
    while found := search(engine, wanted, order="oldest", after=last, limit=_AT_ONCE):
        yield from found
        last = found[-1]


def find(engine: Engine, id: str) -> Record | None:  # noqa: A002
    """Return the result of an id; None where there is none."""
    first = select(ALIASES.c.result).where(ALIASES.c.id == id)
    with engine.connect() as connection:
        found = _records(connection, select(RESULTS).where(or_(RESULTS.c.id == id, RESULTS.c.id.in_(first))))
    return found[0] if found else None


def find_by_keys(engine: Engine, keys: Sequence[str]) -> dict[str, Record]:
    """Return the results that have one of these keys, by key."""
    with engine.connect() as connection:
        found = _records(connection, select(RESULTS).where(RESULTS.c.key.in_(keys)))
    return {record["key"]: record for record in found}


def of_part(engine: Engine, product: str, part: str) -> tuple[PartVerdict, list[Record]] | None:
    """Return the one verdict of a part, from all photographs of it, and these; None where there is none."""
    records = search(engine, Filter(product=product, part=part), order="oldest", limit=_AT_ONCE)
    if not records:
        return None
    (verdict,) = part_verdicts([as_photograph(record) for record in records])
    return verdict, records


def as_photograph(record: Record) -> dict[str, Any]:
    """Return a result as a row of a table of predictions."""
    own = {name: record[name] for name in ("part", "verdict", "score", "score_logit")}
    row: dict[str, Any] = record["row"]
    return row | own | {"path": record["name"]}


def count(engine: Engine, wanted: Filter) -> dict[str, int]:
    """Count results by verdict, and the reviews that contradict it."""
    c = RESULTS.c
    counted = select(c.verdict, c.review, func.count()).where(wanted.condition()).group_by(c.verdict, c.review)
    counts = dict.fromkeys(("good", "unsure", "bad", "false_calls", "missed"), 0)
    with engine.connect() as connection:
        for verdict, review, number in connection.execute(counted):
            counts[verdict] += number
            counts["false_calls"] += number * (verdict != "good" and review == "good")
            counts["missed"] += number * (verdict == "good" and review == "bad")
    return counts


def review(connection: Connection, id: str, verdict: Review | None, *, by: str) -> bool:  # noqa: A002
    """Set what a person says a part is, or with None take that back; return whether there is such a result."""
    at = None if verdict is None else now_ms()
    changed = (
        update(RESULTS)
        .where(RESULTS.c.id == id)
        .values(review=verdict, reviewed_by=None if verdict is None else by, reviewed_at=at)
    )
    return connection.execute(changed).rowcount == 1


def public(record: Record, stored: Stored | None = "database") -> dict[str, Any]:
    """Return a result in the form in which it leaves the station."""
    row = record["row"]
    reviewed = None
    if record["review"] is not None:
        reviewed = {
            "verdict": record["review"],
            "by": record["reviewed_by"],
            "at": iso_time(record["reviewed_at"]),
        }
    return {
        "id": record["id"],
        "taken_at": iso_time(record["taken_at"]),
        **{name: record[name] for name in ("product", "source", "name", "part", "verdict", "score", "score_logit")},
        **{name: row[name] for name in ("unsure_from", "p_value", "calibrated", "defects")},
        "model": record["model"],
        "picture": {
            "sha256": record["picture"],
            "kind": record["kind"],
            "bytes": record["size"],
            "width": row["width"],
            "height": row["height"],
            "kept": record["kept"],
        },
        "review": reviewed,
        "stored": stored,
    }


def iso_time(at_ms: int) -> str:
    """Return a time in milliseconds since 1970 as ISO 8601, UTC."""
    moment = datetime.fromtimestamp(at_ms / 1000, tz=timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ordered(wanted: Filter, order: Order, after: Record | None) -> Select[Any]:
    c = RESULTS.c
    condition = wanted.condition()
    if order == "worst":
        if after is not None:
            behind = and_(c.score_logit == after["score_logit"], c.id < after["id"])
            condition = and_(condition, or_(c.score_logit < after["score_logit"], behind))
        return select(RESULTS).where(condition).order_by(c.score_logit.desc(), c.id.desc())
    # Ids rise with time, so that order and place in the list need no second column.
    if after is not None:
        condition = and_(condition, c.id < after["id"] if order == "newest" else c.id > after["id"])
    return select(RESULTS).where(condition).order_by(c.id.desc() if order == "newest" else c.id)


def _records(connection: Connection, query: Select[Any]) -> list[Record]:
    return [dict(row) for row in connection.execute(query).mappings()]
