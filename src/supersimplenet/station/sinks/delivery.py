"""Delivers results to a sink in the background: each at least once, in order, also after it was away."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from supersimplenet.station.sinks.outbox import take_out, waiting_for
from supersimplenet.station.sinks.sink import AwayError, Message, RefusedError, Sink
from supersimplenet.station.storage.recorder import Record
from supersimplenet.utils.formatting import counted, first_line
from supersimplenet.utils.journals import append_line

_AT_ONCE = 50  # results between two confirmations
_IN_MEMORY = 500  # results; beyond these the outbox is read
_IDLE_S = 1.0
_TAKES_OUT_EVERY_S = 0.5
_WAITS_S = (0.5, 15.0)  # after the first failure, and at most
_SAYS_EVERY_S = 60.0
_NOTHING: Mapping[str, str] = MappingProxyType({})
_AT_STOP_S = 5.0  # for what still waits


@dataclass(frozen=True, kw_only=True)
class SinkState:
    """How a sink is.

    Attributes:
        name: its name in the setup.
        kind: what it is, such as ``mqtt``.
        away: whether it cannot be reached now.
        reason: why, where it is away.
        reason_code: short name of the reason; empty for words of a library.
        reason_values: what the reason names.
        refused: results that it refused, since the start.
        late: results that came too late for it to act on, since the start.
    """

    name: str
    kind: str
    away: bool
    reason: str
    reason_code: str
    reason_values: Mapping[str, str]
    refused: int
    late: int


class Delivery:
    """Delivers results to a sink in a thread of its own.

    Args:
        name: the sink's name in the setup.
        kind: what it is.
        sink: the sink.
        engine: the database with the outbox.
        is_new: returns whether an id is of this run; results of an earlier one may have been delivered by it.
        public: returns results in the form in which they leave the station.
        folder: where results go that the sink refuses.
        say: called with a line when the sink goes or comes back.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        sink: Sink,
        *,
        engine: Engine,
        is_new: Callable[[str], bool],
        public: Callable[[Sequence[Record]], Sequence[Message]],
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        self.name, self._kind, self._sink = name, kind, sink
        self._is_new, self._public, self._say = is_new, public, say
        self.set_aside = folder / f"refused-{name}.jsonl"
        self._feed = _Feed(engine, name)
        self._tried: set[str] = set()
        self._is_open = False
        self._reason = self._reason_code = ""
        self._reason_values: Mapping[str, str] = {}
        self._wait_s = 0.0
        self._refused = self._late_said = 0
        self._late_said_at = float("-inf")
        self._wake, self._ended = threading.Event(), threading.Event()
        self._ends_at = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"sink-{name}")
        self._thread.start()

    @property
    def state(self) -> SinkState:
        """How the sink is."""
        return SinkState(
            name=self.name,
            kind=self._kind,
            away=bool(self._reason),
            reason=self._reason,
            reason_code=self._reason_code,
            reason_values=self._reason_values,
            refused=self._refused,
            late=self._sink.late,
        )

    @property
    def in_memory(self) -> int:
        """Number of results in memory that the sink has not got yet."""
        return self._feed.in_memory

    def add(self, records: Sequence[Record]) -> None:
        """Take new results, which are in the outbox, or in the journal and will be there later; from any thread."""
        self._feed.add(records)
        self._wake.set()

    def close(self) -> None:
        """Deliver what waits, for some seconds at most, and stop; the rest stays in the outbox."""
        self._ends_at = time.monotonic() + _AT_STOP_S
        self._ended.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while time.monotonic() < self._ends_at:
            records = self._next()
            is_well = self._try(records)
            if self._ended.is_set() and not (records and is_well):
                break
            if not is_well:
                self._wait_s = min(max(2 * self._wait_s, _WAITS_S[0]), _WAITS_S[1])
                self._ended.wait(self._wait_s)
            elif not records:
                self._wake.wait(_IDLE_S)
                self._wake.clear()
        self._sink.close()
        self._feed.settle()

    def _next(self) -> list[Record]:
        try:
            return self._feed.next(_AT_ONCE)
        except SQLAlchemyError:  # what was not read yet waits for the database
            return []

    def _try(self, records: Sequence[Record]) -> bool:
        """Deliver results, or see that the sink is there; return whether it is."""
        try:
            if not self._is_open:
                self._sink.open()
                self._is_open = True
            if records:
                self._deliver(records)
            else:
                self._sink.check()
        except AwayError as error:
            self._go(str(error), error.code, error.values)
        except Exception as error:  # what a library raises beside its own errors
            self._go(f"{type(error).__name__}: {first_line(error)}")
        else:
            self._come()
            return True
        return False

    def _deliver(self, records: Sequence[Record]) -> None:
        done: list[Record] = []
        try:
            for record, message in zip(records, self._public(records), strict=True):
                is_repeat = record["id"] in self._tried or not self._is_new(record["id"])
                self._tried.add(record["id"])
                try:
                    self._sink.deliver({**message, "repeat": is_repeat})
                except RefusedError as error:
                    self._refuse(message, str(error))
                done.append(record)
        finally:
            self._sink.confirm()
            self._tried.difference_update(record["id"] for record in done)
            self._feed.take(done)
        self._say_late()

    def _say_late(self) -> None:
        """Say how many results came late, at most once a minute."""
        late, now = self._sink.late, time.monotonic()
        if late > self._late_said and now - self._late_said_at >= _SAYS_EVERY_S:
            came = counted(late - self._late_said, "result")
            self._late_said, self._late_said_at = late, now
            self._say(f"sink '{self.name}': {came} came too late to act on; {late:,} since the start")

    def _refuse(self, message: Message, reason: str) -> None:
        self._refused += 1
        append_line(self.set_aside, {"id": message["id"], "reason": reason, "result": message})
        self._say(f"sink '{self.name}' refuses a result ({reason}); it is in {self.set_aside.name}")

    def _come(self) -> None:
        self._wait_s = 0.0
        if self._reason:
            self._say(f"sink '{self.name}' is back")
        self._reason = self._reason_code = ""
        self._reason_values = {}

    def _go(self, reason: str, code: str = "", values: Mapping[str, str] = _NOTHING) -> None:
        if not self._reason:
            self._say(f"sink '{self.name}' is away ({reason}); results wait for it")
        self._reason, self._reason_code, self._reason_values = reason or "unknown", code, dict(values)
        self._is_open = False
        self._sink.close()


class _Feed:
    """The results that a sink has not got yet, in order: from memory while it keeps up, else from the outbox.

    So a sink gets results also while the database is away, as long as nothing older waits there.
    """

    def __init__(self, engine: Engine, sink: str) -> None:
        self._engine, self._sink = engine, sink
        self._lock = threading.Lock()
        self._fresh: dict[str, Record] = {}
        self._is_behind = self._has_missed = True  # what an earlier run left comes first
        self._ahead: deque[str] = deque(maxlen=_IN_MEMORY)  # read from the outbox before they were added here
        self._done: set[str] = set()  # delivered, and not yet taken out of the outbox
        self._taken_out_at = 0.0

    @property
    def in_memory(self) -> int:
        return len(self._fresh)

    def add(self, records: Sequence[Record]) -> None:
        with self._lock:
            ahead = set(self._ahead)
            self._fresh.update((record["id"], record) for record in records if record["id"] not in ahead)
            if len(self._fresh) > _IN_MEMORY:
                self._fresh.clear()
                self._is_behind = self._has_missed = True

    def next(self, limit: int) -> list[Record]:
        """Return the next results.

        Raises:
            SQLAlchemyError: they are in the database, and it is away.
        """
        self.settle(every_s=_TAKES_OUT_EVERY_S)
        while self._is_behind:
            self._take_out()
            with self._lock:
                self._has_missed = False
            waiting = waiting_for(self._engine, self._sink, limit=limit)
            if new := [record for record in waiting if record["id"] not in self._done]:
                return new
            with self._lock:
                self._is_behind = bool(waiting) or self._has_missed
        with self._lock:
            return list(self._fresh.values())[:limit]

    def take(self, records: Sequence[Record]) -> None:
        """Note results as delivered."""
        with self._lock:
            for record in records:
                if self._fresh.pop(record["id"], None) is None:
                    self._ahead.append(record["id"])
        self._done.update(record["id"] for record in records)

    def settle(self, *, every_s: float = 0.0) -> None:
        """Take delivered results out of the outbox, if the database is there and that was not done just now.

        A transaction for each result would cost the one that records them its time. What a kill leaves is repeated.
        """
        now = time.monotonic()
        if now - self._taken_out_at >= every_s:
            self._taken_out_at = now
            with suppress(SQLAlchemyError):
                self._take_out()

    def _take_out(self) -> None:
        if self._done:
            self._done -= take_out(self._engine, self._sink, self._done)
