"""New results and reviews to those who watch: server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

_WAITING = 200  # events for one who reads slowly; then the stream ends, and the page asks for what it missed
_BEAT_S = 10.0
_ASK_S = 2.0  # between two questions whether a stream may go on


class Hub:
    """Sends each new result, and each review, to all who watch.

    Args:
        loop: the event loop of the service.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watchers: set[asyncio.Queue[str | None]] = set()

    @property
    def is_watched(self) -> bool:
        """Whether anybody watches."""
        return bool(self._watchers)

    def publish(self, found: Sequence[dict[str, Any]]) -> None:
        """Send results in their public form; may be called from any thread."""
        self._publish([event("result", result, id=result["id"]) for result in found])

    def publish_review(self, result: dict[str, Any]) -> None:
        """Send a result whose review was changed, in its public form; may be called from any thread."""
        self._publish([event("review", result)])

    async def stream(
        self, missed: Sequence[dict[str, Any]] = (), *, may_go_on: Callable[[], Awaitable[bool]]
    ) -> AsyncIterator[str]:
        """Yield events as text: first results that were missed, then what is new; a beat where there is nothing new.

        Args:
            missed: results that the watcher does not have yet.
            may_go_on: whether the watcher may see what comes, asked every other second; if not, ``ended`` is the last
                event.
        """
        watcher: asyncio.Queue[str | None] = asyncio.Queue(_WAITING)
        self._watchers.add(watcher)
        try:
            yield "retry: 1000\n\n"
            for result in missed:
                yield event("result", result, id=result["id"])
            asked_at = sent_at = time.monotonic()
            while (text := await _next(watcher)) is not None:
                now = time.monotonic()
                if now - asked_at >= _ASK_S:
                    asked_at = now
                    if not await may_go_on():
                        yield event("ended", {})
                        return
                if text or now - sent_at >= _BEAT_S:
                    sent_at = now
                    yield text or event("beat", {})
        finally:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """End all streams."""
        for watcher in self._watchers:
            _end(watcher)

    def _publish(self, texts: Sequence[str]) -> None:
        if texts and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._send, texts)

    def _send(self, texts: Sequence[str]) -> None:
        for watcher in list(self._watchers):
            if watcher.qsize() + len(texts) > _WAITING:
                self._watchers.discard(watcher)
                _end(watcher)
                continue
            for text in texts:
                watcher.put_nowait(text)


def event(name: str, data: Any, *, id: str | None = None) -> str:  # noqa: A002
    """Return an event as text."""
    number = "" if id is None else f"id: {id}\n"
    return f"{number}event: {name}\ndata: {json.dumps(data)}\n\n"


async def _next(watcher: asyncio.Queue[str | None]) -> str | None:
    """Return the next event, None at the end, or an empty text where none came for a while."""
    try:
        return await asyncio.wait_for(watcher.get(), _ASK_S)
    except asyncio.TimeoutError:
        return ""


def _end(watcher: asyncio.Queue[str | None]) -> None:
    while watcher.full():
        watcher.get_nowait()
    watcher.put_nowait(None)
