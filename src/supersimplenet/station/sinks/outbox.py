"""The outbox: what each sink has not got yet, written in the transaction that writes the result."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path

from sqlalchemy import Connection, Engine, delete, func, select

from supersimplenet.station.storage.database import writing
from supersimplenet.station.storage.recorder import Record
from supersimplenet.station.storage.schema import OUTBOX, RESULTS
from supersimplenet.utils.locks import writing_file

_AT_ONCE = 200  # ids of a statement


def waiting_for(engine: Engine, sink: str, *, limit: int) -> list[Record]:
    """Return the results that a sink has waited for longest, in order."""
    o = OUTBOX.c
    query = select(RESULTS).join(OUTBOX, o.result == RESULTS.c.id).where(o.sink == sink).order_by(o.number)
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(query.limit(limit)).mappings()]


def take_out(engine: Engine, sink: str, ids: Collection[str]) -> set[str]:
    """Remove results from what a sink waits for; return those that were there."""
    o = OUTBOX.c
    found: set[str] = set()
    ordered = sorted(ids)
    for start in range(0, len(ordered), _AT_ONCE):
        some = ordered[start : start + _AT_ONCE]
        with writing(engine) as connection:
            gone = delete(OUTBOX).where(o.sink == sink, o.result.in_(some)).returning(o.result)
            found.update(connection.execute(gone).scalars())
    return found


def numbers_waiting(engine: Engine) -> dict[str, int]:
    """Return how many results wait for each sink that has any."""
    o = OUTBOX.c
    with engine.connect() as connection:
        rows = connection.execute(select(o.sink, func.count()).group_by(o.sink))
        return {row[0]: row[1] for row in rows}


def holding(folder: Path, sink: str, *, wait_s: float = 0.0) -> AbstractContextManager[None]:
    """Hold what waits for a sink: a station does so for each sink that it has, and who drops it meanwhile.

    Args:
        folder: the station's folder.
        sink: name of the sink.
        wait_s: seconds to wait for another process that holds it.

    Raises:
        LockedError: another process holds it.
    """
    return writing_file(folder / f"sink-{sink}", wait_s=wait_s)


def drop(connection: Connection, sink: str) -> int:
    """Remove all that waits for a sink; return how many results that were."""
    return connection.execute(delete(OUTBOX).where(OUTBOX.c.sink == sink)).rowcount
