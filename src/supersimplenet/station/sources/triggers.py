"""What tells a camera to take a picture: the interface, and what listens to another machine for it."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from supersimplenet.station.loop import Loop
from supersimplenet.utils.formatting import first_line

_AGAIN_AFTER_S = 1.0
_LONGEST_PART = 200  # letters, as in requests


@dataclass(frozen=True, kw_only=True)
class TriggerInfo:
    """A signal to take a picture.

    Attributes:
        part: name of the part that is in front of the camera, where the signal says so.
        at_s: when it came, by `time.monotonic`.
    """

    part: str | None = None
    at_s: float = field(default_factory=time.monotonic)


Fire = Callable[[TriggerInfo], None]


class Trigger(Protocol):
    """Calls a function at each signal, from a thread of its own, until it is stopped."""

    @property
    def reason(self) -> str:
        """Why no signal can come now; empty where it can."""

    def start(self, fire: Fire) -> None:
        """Begin; ``fire`` must return at once, or the next signals come late."""

    def stop(self) -> None:
        """Call no more, and end."""


class Listener(ABC):
    """A trigger that gets its signals from another machine, and connects again by itself.

    Signals that were sent while it was not connected are not made up for: the part has gone by.

    Args:
        name: name of the camera, for the log.
        say: called with a line for the log.
    """

    def __init__(self, name: str, *, say: Callable[[str], None]) -> None:
        self._name, self._say = name, say
        self._reason = "not connected yet"
        self._has_complained = False

    @property
    def reason(self) -> str:
        """Why no signal can come now; empty where it can."""
        return self._reason

    def start(self, fire: Fire) -> None:
        """Connect, in a thread of its own."""
        self._fire = fire
        self._loop = Loop(f"trigger-{self._name}")
        self._loop.begin(self._listen_on())

    def stop(self) -> None:
        """Disconnect."""
        self._loop.close()

    @abstractmethod
    async def listen(self) -> None:
        """Connect, call `hears`, then `signals` for each signal; ends with an error when the connection is lost."""

    def hears(self) -> None:
        """Say that signals can come from now on."""
        self._reason = ""

    def signals(self, part: object = None) -> None:
        """Pass a signal on, with the part's name as it came; one that cannot be a name is said once, and left out.

        Args:
            part: a text or a whole number; None or an empty text for no name.
        """
        is_name = isinstance(part, (str, int)) and not isinstance(part, bool)
        name = str(part).strip() if is_name else ""
        if len(name) > _LONGEST_PART or not name.isprintable() or not (is_name or part is None):
            self.complains(f"{str(part)[:80]!r} is no name of a part")
            name = ""
        self._fire(TriggerInfo(part=name or None))

    def complains(self, what: str) -> None:
        """Say, once, what is wrong with a signal."""
        if not self._has_complained:
            self._say(f"trigger of '{self._name}': {what}; the picture is taken without one")
        self._has_complained = True

    async def _listen_on(self) -> None:
        while True:
            try:
                await self.listen()
            except Exception as error:  # what a library raises; the trigger goes on
                self._reason = first_line(error)
            await asyncio.sleep(_AGAIN_AFTER_S)
