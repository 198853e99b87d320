"""The HTTP server: uvicorn, with connections that may not wait without end, and streams that end when it stops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Server(uvicorn.Server):
    """uvicorn, which calls a function before it waits for its connections to end.

    Args:
        config: uvicorn's settings.
        before_stop: ends what would not end by itself.
    """

    def __init__(self, config: uvicorn.Config, before_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._before_stop = before_stop

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: see `uvicorn.Server.shutdown`."""
        self._before_stop()
        await super().shutdown(sockets)
        self._captured_signals.clear()  # else it would raise them again: a stop in order is no failure


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which also ends a connection where the head of a request does not come in time.

    Attributes:
        head_s: seconds for it.
    """

    head_s = 20.0
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take bytes; a complete head ends the waiting: the request is in work, and reads its body itself."""
        super().data_received(data)
        if not self._is_idle():
            self._stop_waiting()
        elif self._waiting is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(self.head_s, self._end)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _end(self) -> None:
        self._waiting = None
        if self._is_idle() and not self.transport.is_closing():
            self.transport.close()
