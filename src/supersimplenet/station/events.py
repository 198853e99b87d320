"""New results to those who watch: server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

_WAITING = 200  # events for one who reads slowly; then the stream ends, and the page asks for what it missed
_BEAT_S = 10.0


class Hub:
    """Sends each new result to all who watch.

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
        if not self._loop.is_closed():
            texts = [event("result", result, id=result["id"]) for result in found]
            self._loop.call_soon_threadsafe(self._send, texts)

    async def stream(self, missed: Sequence[dict[str, Any]] = ()) -> AsyncIterator[str]:
        """Yield events as text: first those that were missed, then new ones; a beat where there is nothing new."""
        watcher: asyncio.Queue[str | None] = asyncio.Queue(_WAITING)
        self._watchers.add(watcher)
        try:
            yield "retry: 1000\n\n"
            for result in missed:
                yield event("result", result, id=result["id"])
            while True:
                try:
                    text = await asyncio.wait_for(watcher.get(), _BEAT_S)
                except asyncio.TimeoutError:
                    yield event("beat", {})
                    continue
                if text is None:
                    return
                yield text
        finally:
            self._watchers.discard(watcher)

    def close(self) -> None:
        """End all streams."""
        for watcher in self._watchers:
            _end(watcher)

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


def _end(watcher: asyncio.Queue[str | None]) -> None:
    while watcher.full():
        watcher.get_nowait()
    watcher.put_nowait(None)
