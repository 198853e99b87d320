"""Search, count and review results, and give them the form in which they leave the station."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Engine, Select, and_, func, or_, select, tuple_

from supersimplenet.postprocessing.parts import PartVerdict, part_verdicts
from supersimplenet.station.storage.recorder import Record, Stored
from supersimplenet.station.storage.schema import ALIASES, RESULTS

Order = Literal["newest", "oldest", "worst"]
Reviewed = Literal["any", "none", "false-call", "missed", "disputed"]
Wanted = Literal["good", "unsure", "bad", "failed"]  # a verdict, or that there is none
SCORES = ("head_logit", "map_max_logit", "fused_logit", "subspace_logit", "joint_logit", "zones_logit")
_AT_ONCE = 500
_WORST = 1e308  # in place of the score of a picture that could not be inspected


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which results are wanted; None for no condition.

    Attributes:
        since: from this time on, in milliseconds since 1970.
        until: before this time, likewise.
        verdict: the station's verdict; ``failed`` where the picture could not be inspected.
        product: name of the product.
        part: name of the part.
        model: id of the model.
        source: what sent the picture.
        reviewed: ``any`` review, ``none``, or one that is ``disputed`` or says that the verdict was a ``false-call`` or
            ``missed``.
    """

    since: int | None = None
    until: int | None = None
    verdict: Wanted | None = None
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
            for name in ("product", "part", "model", "source")
            if (value := getattr(self, name)) is not None
        ]
        if self.verdict is not None:
            found.append(c.verdict.is_(None) if self.verdict == "failed" else c.verdict == self.verdict)
        if self.reviewed is not None:
            found.append(_REVIEWED[self.reviewed])
        return and_(*found) if found else and_(True)


_REVIEWED: dict[Reviewed, ColumnElement[bool]] = {
    "any": RESULTS.c.review.is_not(None),
    "none": RESULTS.c.review.is_(None),
    "false-call": and_(RESULTS.c.verdict.in_(("unsure", "bad")), RESULTS.c.review == "good"),
    "missed": and_(RESULTS.c.verdict == "good", RESULTS.c.review == "bad"),
    "disputed": RESULTS.c.review == "disputed",
}


def search(
    engine: Engine, wanted: Filter, *, order: Order = "newest", after: Record | None = None, limit: int = 50
) -> list[Record]:
    """Return results in an order.

    Args:
        engine: the database.
        wanted: which results.
        order: ``newest`` or ``oldest`` first, or ``worst``, that is failed ones, then by falling score.
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


def of_part(engine: Engine, product: str, part: str, *, within_ms: int) -> tuple[PartVerdict, list[Record]] | None:
    """Return the one verdict of a part, from all photographs of it, and these; None where there is none.

    Args:
        engine: the database.
        product: name of the product.
        part: name of the part.
        within_ms: photographs that came longer before the last one are of an earlier part of the same name.
    """
    last = search(engine, Filter(product=product, part=part), limit=1)
    if not last:
        return None
    wanted = Filter(product=product, part=part, since=last[0]["taken_at"] - within_ms)
    records = search(engine, wanted, order="oldest", limit=_AT_ONCE)
    (verdict,) = part_verdicts([as_photograph(record) for record in records])
    return verdict, records


def parts_of(engine: Engine, records: Iterable[Record], *, within_ms: int) -> dict[str, PartVerdict]:
    """Return for each result whose part has a name the verdict of that part, by the result's id.

    Args:
        engine: the database; results that it does not have yet count as well.
        records: the results.
        within_ms: photographs of a name that came longer before or after a result are of another part.
    """
    c = RESULTS.c
    named = [record for record in records if record["part"] is not None]
    if not named:
        return {}
    times = [record["taken_at"] for record in named]
    same = tuple_(c.product, c.part).in_({(record["product"], record["part"]) for record in named})
    near = and_(c.taken_at >= min(times) - within_ms, c.taken_at <= max(times) + within_ms)
    with engine.connect() as connection:
        known = {record["id"]: record for record in _records(connection, select(RESULTS).where(and_(same, near)))}
    return parts_among(named, (known | {record["id"]: record for record in named}).values(), within_ms=within_ms)


def parts_among(records: Iterable[Record], photographs: Iterable[Record], *, within_ms: int) -> dict[str, PartVerdict]:
    """Return for each result whose part has a name the verdict of that part, from these photographs alone."""
    ordered = sorted(photographs, key=lambda each: each["id"])
    found = {}
    for record in records:
        if record["part"] is None:
            continue
        together = [
            as_photograph(other)
            for other in ordered
            if (other["product"], other["part"]) == (record["product"], record["part"])
            and abs(other["taken_at"] - record["taken_at"]) <= within_ms
        ]
        (found[record["id"]],) = part_verdicts(together)
    return found


def as_photograph(record: Record) -> dict[str, Any]:
    """Return a result as a row of a table of predictions."""
    own = {name: record[name] for name in ("part", "verdict", "score", "score_logit")}
    row: dict[str, Any] = record["row"]
    return {"error": None} | row | own | {"path": record["name"]}


def count(engine: Engine, wanted: Filter) -> dict[str, int]:
    """Count results by verdict, and the reviews that contradict it."""
    c = RESULTS.c
    counted = select(c.verdict, c.review, func.count()).where(wanted.condition()).group_by(c.verdict, c.review)
    counts = dict.fromkeys(("good", "unsure", "bad", "failed", "false_calls", "missed"), 0)
    with engine.connect() as connection:
        for verdict, review, number in connection.execute(counted):
            counts[verdict or "failed"] += number
            counts["false_calls"] += number * (verdict in ("unsure", "bad") and review == "good")
            counts["missed"] += number * (verdict == "good" and review == "bad")
    return counts


def public(
    record: Record, stored: Stored | None = "database", *, part_result: PartVerdict | None = None
) -> dict[str, Any]:
    """Return a result in the form in which it leaves the station.

    Args:
        record: the result.
        stored: where it is.
        part_result: the verdict of its part, from all photographs of it until now.
    """
    row = record["row"]
    error = row.get("error")
    reviewed = None
    if record["review"] is not None:
        reviewed = {
            "verdict": record["review"],
            "by": record["reviewed_by"],
            "at": iso_time(record["reviewed_at"]),
            "defect": record["review_defect"],
            "mask": record["review_mask"],
        }
    return {
        "id": record["id"],
        "taken_at": iso_time(record["taken_at"]),
        **{name: record[name] for name in ("product", "source", "name", "part", "verdict", "score", "score_logit")},
        **{name: row[name] for name in ("unsure_from", "p_value", "calibrated", "defects")},
        "scores": {name: row.get(name) for name in SCORES},
        "error": None if error is None else {"code": row["error_code"], "message": error},
        "part_result": None if part_result is None else plain_part(part_result),
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


def plain_part(part: PartVerdict) -> dict[str, Any]:
    """Return the verdict of a part in plain values."""
    names = ("part", "verdict", "score", "p_value", "score_logit", "photographs", "failed")
    return {name: getattr(part, name) for name in names}


def iso_time(at_ms: int) -> str:
    """Return a time in milliseconds since 1970 as ISO 8601, UTC."""
    moment = datetime.fromtimestamp(at_ms / 1000, tz=timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ordered(wanted: Filter, order: Order, after: Record | None) -> Select[Any]:
    c = RESULTS.c
    condition = wanted.condition()
    if order == "worst":
        score = func.coalesce(c.score_logit, _WORST)  # the databases sort NULL differently
        if after is not None:
            last = _WORST if after["score_logit"] is None else after["score_logit"]
            condition = and_(condition, or_(score < last, and_(score == last, c.id < after["id"])))
        return select(RESULTS).where(condition).order_by(score.desc(), c.id.desc())
    # Ids rise with time, so that order and place in the list need no second column.
    if after is not None:
        condition = and_(condition, c.id < after["id"] if order == "newest" else c.id > after["id"])
    return select(RESULTS).where(condition).order_by(c.id.desc() if order == "newest" else c.id)


def _records(connection: Connection, query: Select[Any]) -> list[Record]:
    return [dict(row) for row in connection.execute(query).mappings()]
