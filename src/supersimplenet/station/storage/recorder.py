"""Writes results into the database; while it is away, into a journal on the disk, from which they follow later."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Engine, Table, insert, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from supersimplenet.errors import SuperSimpleNetError
from supersimplenet.station.storage.database import writing
from supersimplenet.station.storage.schema import ALIASES, OUTBOX, RESULTS
from supersimplenet.utils.formatting import first_line
from supersimplenet.utils.iteration import in_blocks
from supersimplenet.utils.journals import as_line, mend_journal, read_journal

Record = dict[str, Any]  # the columns of `RESULTS`
Stored = Literal["database", "journal", "memory", "nowhere"]
REFUSED = "refused.jsonl"  # results that the database refuses for what they hold
_AT_ONCE = 256  # rows of a transaction
_TRIES_EVERY_S = 1.0
_IN_MEMORY = 100_000  # rows that are kept where neither database nor journal can be written


class _Entry(NamedTuple):
    record: Record
    then: Callable[[Record, Stored], None]


class Recorder:
    """Writes results in the background, many in a transaction, and says of each where it is.

    A result that is in the database or in the journal is on the disk. Where neither can be written, because the disk is
    full, results wait in memory.

    Args:
        engine: the database.
        journal: file of results that wait for the database; those of an earlier run follow at once.
        say: called with a line when the database goes or comes back.
        sinks: names of the sinks for which each new result is put into the outbox, in the same transaction.
        published: called with new results, once, as soon as they are safe, and with where they are.
        away: why the database cannot be used now; empty where it can.
        first: called before results that waited follow; while it raises an error of SQLAlchemy, they wait further.
    """

    def __init__(
        self,
        engine: Engine,
        journal: Path,
        *,
        say: Callable[[str], None],
        sinks: Sequence[str] = (),
        published: Callable[[Sequence[Record], Stored], None] = lambda records, stored: None,
        away: str = "",
        first: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine, self._journal, self._say, self._published = engine, journal, say, published
        self._first = first
        self._sinks = sinks
        self._early: set[str] = set()  # ids that were published before the database had them
        self._inbox: queue.Queue[_Entry | None] = queue.Queue()
        self._memory: list[Record] = []
        self._lock = threading.Lock()  # of journal and memory
        self._ended = threading.Event()
        mend_journal(journal, first="id")
        self._away = bool(away) or journal.is_file()
        self.reason = away or ("results of an earlier run wait" if self._away else "")
        self.lost = 0
        self._writer = threading.Thread(target=self._write, name="recorder")
        self._healer = threading.Thread(target=self._heal, name="recorder-healer", daemon=True)
        self._writer.start()
        self._healer.start()

    @property
    def away(self) -> bool:
        """Whether results wait for the database."""
        return self._away

    def put(self, record: Record, then: Callable[[Record, Stored], None]) -> None:
        """Write a result; ``then`` is called with it, or with the one that its key names already, when it is safe."""
        self._inbox.put(_Entry(record, then))

    def close(self) -> None:
        """Write what is still waiting, and stop."""
        self._inbox.put(None)
        self._writer.join()
        self._ended.set()
        self._healer.join(timeout=_TRIES_EVERY_S * 2)

    def _write(self) -> None:
        ended = False
        while not ended:
            entries: list[_Entry] = []
            item = self._inbox.get()
            while item is not None:
                entries.append(item)
                if len(entries) == _AT_ONCE or self._inbox.empty():
                    break
                item = self._inbox.get()
            ended = item is None
            if entries:
                self._record(entries)

    def _record(self, entries: Sequence[_Entry]) -> None:
        records = [entry.record for entry in entries]
        stored: Stored = "database"
        if not self._away:
            try:
                inserted = insert_results(self._engine, records, sinks=self._sinks)
                self._publish(inserted.new, stored)
                records = inserted.found
            except SQLAlchemyError as error:
                self._go(first_line(error))
        if self._away:
            stored = self._set_aside(records)
            if stored != "nowhere":
                self._publish(records, stored)
        for entry, record in zip(entries, records, strict=True):
            entry.then(record, stored)

    def _publish(self, new: Sequence[Record], stored: Stored) -> None:
        """Publish what was not published before. What is recorded stays so if nobody can listen."""
        fresh = [record for record in new if record["id"] not in self._early]
        self._early.difference_update(record["id"] for record in new)
        if stored != "database":
            self._early.update(record["id"] for record in fresh)
        try:
            self._published(fresh, stored)
        except Exception as error:
            self._say(f"new results cannot be shown ({type(error).__name__}: {first_line(error)})")

    def _go(self, reason: str) -> None:
        self._away, self.reason = True, reason
        self._say(f"the database cannot be written ({reason}); results wait in {self._journal.name}")

    def _set_aside(self, records: Sequence[Record]) -> Stored:
        with self._lock:
            self._away = True  # the database may have come back while the lock was waited for: these follow, too
            if not self._memory:  # what waits in memory stays in order
                if self._write_journal(self._journal, records):
                    return "journal"
                self._say(f"{self._journal.name} cannot be written; results wait in memory")
            if len(self._memory) + len(records) > _IN_MEMORY:
                self.lost += len(records)
                return "nowhere"
            self._memory += records
            return "memory"

    @staticmethod
    def _write_journal(journal: Path, records: Sequence[Record]) -> bool:
        """Append records to a journal, all or none; return whether they are on the disk."""
        left = memoryview(b"".join(map(as_line, records)))
        try:
            with journal.open("ab", buffering=0) as file:
                before = file.seek(0, os.SEEK_END)
                try:
                    while left:
                        left = left[file.write(left) :]
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(before)  # needs no space
                    raise
        except OSError:
            return False
        return True

    def _heal(self) -> None:
        while not self._ended.wait(_TRIES_EVERY_S):
            if self._away:
                self._try_to_follow()

    def _try_to_follow(self) -> None:
        try:
            self._follow()
        except (SQLAlchemyError, OSError, SuperSimpleNetError) as error:
            self.reason = first_line(error)

    def _follow(self) -> None:
        """Write what waits into the database; while the last of it is written, nothing more is set aside."""
        self._first()
        done = 0
        for records in in_blocks(read_journal(self._journal, first="id"), _AT_ONCE):
            self._bring(records)
            done += len(records)
        with self._lock:
            rest = list(read_journal(self._journal, first="id"))[done:] + self._memory
            for records in in_blocks(rest, _AT_ONCE):
                self._bring(records)
            self._journal.unlink(missing_ok=True)
            self._memory = []
            self._away, self.reason = False, ""
        self._say(f"the database is back; {done + len(rest)} results followed")

    def _bring(self, records: Sequence[Record]) -> None:
        """Write results that waited. One that the database refuses for what it holds keeps no other waiting."""
        try:
            inserted = insert_results(self._engine, records, sinks=self._sinks, answered=True)
            self._publish(inserted.new, "database")
        except (OperationalError, InterfaceError):
            raise
        except SQLAlchemyError as error:
            if len(records) > 1:
                for record in records:
                    self._bring([record])
                return
            refused = self._journal.with_name(REFUSED)
            if not self._write_journal(refused, records):
                raise
            self._say(f"the database refuses a result ({first_line(error)}); it is in {refused.name}")


class Inserted(NamedTuple):
    """What an insertion did.

    Attributes:
        found: for each result the row that is in the database: where a key was known, the earlier result.
        new: the results that were not there before.
    """

    found: list[Record]
    new: list[Record]


def insert_results(
    engine: Engine, records: Sequence[Record], *, sinks: Sequence[str] = (), answered: bool = False
) -> Inserted:
    """Insert results in one transaction; what is there already, by id or key, stays.

    Args:
        engine: the database.
        records: the results.
        sinks: names of the sinks for which each new result is put into the outbox.
        answered: whether their ids were answered already, without knowing whether their keys were there: then the id of
            a repeat leads to the first from now on.
    """
    c = RESULTS.c
    with writing(engine) as connection:
        new = _insert_new(connection, engine, records)
        found = list(records)
        keys = [record["key"] for record in records if record["key"] is not None]
        if keys:
            rows = connection.execute(select(RESULTS).where(c.key.in_(keys))).mappings()
            known = {row["key"]: dict(row) for row in rows}
            found = [record if record["key"] is None else known[record["key"]] for record in records]
            if answered:
                new += _keep_repeats(connection, engine, records, found)
        waiting = [{"sink": sink, "result": record["id"]} for record in new for sink in sinks]
        if waiting:
            connection.execute(insert(OUTBOX), waiting)
    return Inserted(found=found, new=new)


def shown_by(record: Record) -> tuple[str, str]:
    """Return what two results of one key must have in common: the picture, and the product whose model inspects it."""
    return record["picture"], record["product"]


def _insert_new(connection: Connection, engine: Engine, records: Sequence[Record]) -> list[Record]:
    """Insert results; return those that were not there already, in their order."""
    statement = insert_or_leave(engine, RESULTS).returning(RESULTS.c.id)
    new = set(connection.execute(statement, list(records)).scalars())
    return [record for record in records if record["id"] in new]


def _keep_repeats(
    connection: Connection, engine: Engine, records: Sequence[Record], found: Sequence[Record]
) -> list[Record]:
    """Let the id of each repeat lead to the first result; one of another picture is a result of its own: return it."""
    repeats = [(record, row) for record, row in zip(records, found, strict=True) if row["id"] != record["id"]]
    aliases = [
        {"id": record["id"], "result": row["id"]} for record, row in repeats if shown_by(row) == shown_by(record)
    ]
    if aliases:
        connection.execute(insert_or_leave(engine, ALIASES), aliases)
    others = [record | {"key": None} for record, row in repeats if shown_by(row) != shown_by(record)]
    return _insert_new(connection, engine, others) if others else []


def insert_or_leave(engine: Engine, table: Table) -> Any:
    """Return an insertion that leaves rows as they are whose id or key is there already."""
    own = postgresql_insert if engine.dialect.name == "postgresql" else sqlite_insert
    return own(table).on_conflict_do_nothing()
