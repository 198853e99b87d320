"""What each source is: a thread that sends pictures to be inspected, until it is stopped."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

from supersimplenet.errors import SuperSimpleNetError
from supersimplenet.station.inspection import Inspected, Picture
from supersimplenet.utils.formatting import first_line

Send = Callable[[Picture], "Future[Inspected]"]  # raises FullError where no more is taken now
RETRY_S = 0.1  # after the queue was full
_RESTARTS_AFTER_S = 5.0


@dataclass(frozen=True, kw_only=True)
class SourceState:
    """How a source is.

    Attributes:
        name: its name in the setup.
        kind: what it is, such as ``camera``.
        state: ``running``; ``away``, where it cannot be reached and is tried again; ``ended``, where no more will come.
        reason: why, where it is not running.
        taken: pictures that it has sent, since the start.
        missed: pictures that could not be taken, as the queue was full or the camera away, since the start.
    """

    name: str
    kind: str
    state: Literal["running", "away", "ended"]
    reason: str
    taken: int
    missed: int


class Source(ABC):
    """Sends pictures in a thread of its own.

    Args:
        name: the source's name in the setup.
        kind: what it is.
        send: takes a picture to inspect.
        say: called with a line when the source goes or comes back.
    """

    def __init__(self, name: str, kind: str, *, send: Send, say: Callable[[str], None]) -> None:
        self.name, self._kind = name, kind
        self.send, self._say = send, say
        self.taken = self.missed = 0
        self.stopped = threading.Event()
        self._reason = ""
        self._has_ended = False
        self._thread = threading.Thread(target=self._run_on, name=f"source-{name}")

    @property
    def state(self) -> SourceState:
        """How the source is."""
        return SourceState(
            name=self.name,
            kind=self._kind,
            state="ended" if self._has_ended else "away" if self._reason else "running",
            reason=self._reason,
            taken=self.taken,
            missed=self.missed,
        )

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more pictures; what was taken is inspected."""
        self.stopped.set()
        self._thread.join()

    @abstractmethod
    def run(self) -> None:
        """Send pictures until `stopped` is set, or none will come any more."""

    def goes(self, reason: str) -> None:
        """Say that the source is away, once."""
        if not self._reason:
            self._say(f"source '{self.name}' is away ({reason}); it is tried again")
        self._reason = reason

    def comes(self) -> None:
        """Say that the source is back."""
        if self._reason:
            self._say(f"source '{self.name}' is back")
        self._reason = ""

    def _run_on(self) -> None:
        while not self.stopped.is_set():
            try:
                self.run()
            except Exception as error:  # what a library raises; the source goes on
                known = isinstance(error, SuperSimpleNetError | OSError)
                self.goes(first_line(error) if known else f"{type(error).__name__}: {first_line(error)}")
                self.stopped.wait(_RESTARTS_AFTER_S)
                continue
            if not self.stopped.is_set():
                self._has_ended = True
                self._say(f"source '{self.name}' has ended")
            return
