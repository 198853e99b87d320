"""An event loop in a thread of its own, for libraries that are asynchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Loop:
    """Runs coroutines in a thread of its own, until it is closed.

    The loop waits with a selector, which Windows does not do by default: aiomqtt needs it.

    Args:
        name: name of the thread.
    """

    _loop: asyncio.AbstractEventLoop
    _ended: asyncio.Event

    def __init__(self, name: str) -> None:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name=name, daemon=True)
        self._thread.start()
        ready.wait()

    def run(self, coroutine: Coroutine[Any, Any, T], *, timeout_s: float | None = None) -> T:
        """Run a coroutine, wait for it, and return what it returns; from another thread.

        Raises:
            TimeoutError: it took longer than ``timeout_s``; it is cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, timeout_s), self._loop)
        try:
            return future.result()
        except asyncio.TimeoutError as error:  # another class than the built-in one in Python 3.10
            raise TimeoutError(str(error) or "no answer in time") from error

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Begin a coroutine, which is cancelled when the loop is closed."""
        asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """Cancel what still runs, and end the thread."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def _run(self, ready: threading.Event) -> None:
        """Do what `asyncio.run` does, which chooses the loop by itself in Python 3.10."""
        loop = asyncio.SelectorEventLoop()
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._stay(ready))
            running = asyncio.all_tasks(loop)
            for task in running:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*running, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    async def _stay(self, ready: threading.Event) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        ready.set()
        await self._ended.wait()
