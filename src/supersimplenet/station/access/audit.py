"""The audit trail: who did what and when, each entry chained to the one before it by a hash.

Entries are added and never changed. A hash chain in its own database shows no more than that it fits together: who may
write there can compute all of it anew. So its head (the last entry's number and hash) is kept elsewhere from time to
time, and compared later; see `check`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Text, cast, func, insert, select

from supersimplenet.station.storage.database import now_ms
from supersimplenet.station.storage.schema import AUDIT

_LOCK = 0x55504E  # of PostgreSQL's advisory locks: any number that nothing else takes
_AT_ONCE = 1000  # entries in memory while the chain is checked


@dataclass(frozen=True)
class Head:
    """The end of the trail: number and hash of its last entry."""

    number: int
    hash: str


@dataclass(frozen=True)
class Entry:
    """An entry of the trail, with the columns of `AUDIT`."""

    number: int
    at: int
    who: str
    what: str
    details: dict[str, Any]
    previous: str
    hash: str


@dataclass(frozen=True)
class Fault:
    """Where a trail is broken: the number of the first entry that is wrong or missing, and what is wrong."""

    number: int
    problem: str


EMPTY = Head(0, "0" * 64)  # the head before the first entry


def lock(connection: Connection) -> None:
    """Wait until no other transaction writes to the trail, and let none do so until this one ends.

    A transaction that reads, decides and writes calls this first. One that calls `append` last need not.

    Args:
        connection: of a transaction by `writing`, which on SQLite is alone from its beginning.
    """
    if connection.dialect.name == "postgresql":  # not LOCK TABLE: that needs the right to change entries
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))


def append(connection: Connection, *, who: str, what: str, details: Mapping[str, Any]) -> Head:
    """Add an entry; it is there when the caller's transaction is committed.

    Args:
        connection: of a transaction by `writing`.
        who: name of a user, of a token (``token:line-1``), or what else did it.
        what: what was done, such as ``add user``.
        details: plain values of JSON; no secrets.

    Returns:
        The trail's new head.
    """
    lock(connection)
    before = head(connection)
    entry = {
        "number": before.number + 1,
        "at": now_ms(),
        "who": who,
        "what": what,
        "details": dict(details),
        "previous": before.hash,
    }
    digest = _digest(entry)
    connection.execute(insert(AUDIT).values(**entry, hash=digest))
    return Head(before.number + 1, digest)


def head(connection: Connection) -> Head:
    """Return the trail's head, which is `EMPTY` where there is no entry."""
    last = connection.execute(select(AUDIT.c.number, AUDIT.c.hash).order_by(AUDIT.c.number.desc()).limit(1)).first()
    return EMPTY if last is None else Head(last.number, last.hash)


def entries(connection: Connection, *, before: int | None = None, limit: int = 100) -> list[Entry]:
    """Return up to ``limit`` entries, the newest first: those below the number ``before``, or the last ones."""
    query = select(AUDIT).order_by(AUDIT.c.number.desc()).limit(limit)
    if before is not None:
        query = query.where(AUDIT.c.number < before)
    return [Entry(**row) for row in connection.execute(query).mappings()]


def check(connection: Connection, *, head: Head | None = None) -> Fault | None:
    """Check that no entry was changed, removed, added in between or moved.

    Args:
        connection: the database.
        head: the trail's head at an earlier time, kept elsewhere. Without it a trail that was cut at its end, or
            computed anew, is not noticed.

    Returns:
        The first fault, or None.
    """
    text = cast(AUDIT.c.details, Text).label("details")  # what is no JSON any more is a fault, not an error
    query = select(*(text if column is AUDIT.c.details else column for column in AUDIT.c)).order_by(AUDIT.c.number)
    with connection.execute(query, execution_options={"yield_per": _AT_ONCE}) as rows:
        return _first_fault(map(dict, rows.mappings()), head)


def _first_fault(rows: Iterable[dict[str, Any]], kept: Head | None) -> Fault | None:
    last = EMPTY
    for row in rows:
        number = last.number + 1
        if row["number"] != number:
            return Fault(number, f"it is missing; entry {row['number']} follows")
        if row["previous"] != last.hash:
            return Fault(number, "it does not follow the entry before it; entries were moved or computed anew")
        last = Head(number, row["hash"])
        if not _is_whole(row):
            return Fault(number, "it was changed: its hash is another one")
        if kept is not None and kept.number == number and kept.hash != last.hash:
            return Fault(number, "it is not the entry of the kept head; the trail was computed anew")
    if kept is not None and kept.number > last.number:
        return Fault(last.number + 1, f"it is missing, up to entry {kept.number} of the kept head; the end was cut off")
    return None


def _is_whole(row: dict[str, Any]) -> bool:
    found = row.pop("hash")
    try:
        return bool(_digest({**row, "details": json.loads(row["details"])}) == found)
    except (TypeError, ValueError, RecursionError):  # no JSON, or bytes in place of a text
        return False


def _digest(entry: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an entry as JSON without spaces, its names in order."""
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()
