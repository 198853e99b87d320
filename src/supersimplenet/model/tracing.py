"""Keeps threads that compute and threads that trace apart.

While torch.fx traces a module, it replaces ``Module.__call__`` for the whole process: a network that another thread
computes meanwhile fails, or ends up in the trace.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Lets any number of threads compute at the same time, or one thread trace alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._computing, self._tracing = 0, False

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute; waits while a thread traces. Not to be entered twice by one thread."""
        with self._changed:
            while self._tracing:
                self._changed.wait()
            self._computing += 1
        try:
            yield
        finally:
            with self._changed:
                self._computing -= 1
                self._changed.notify_all()

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Trace; waits for those who compute or trace, and no further thread begins to compute until the end."""
        with self._changed:
            while self._tracing:
                self._changed.wait()
            self._tracing = True
            while self._computing:
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._tracing = False
                self._changed.notify_all()


GATE = Gate()  # of this process
