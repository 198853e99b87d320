"""Two small memories: attempts that are limited, and answers that outlast a database that is away."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

from sqlalchemy.exc import SQLAlchemyError

T = TypeVar("T")
_KEYS = 10_000  # that are remembered; beyond it the oldest is forgotten
_REMEMBERED_S = 5.0


class Attempts:
    """Limits how often something may be tried, for each key.

    Args:
        most: attempts within the time.
        within_s: the time, in seconds.
    """

    def __init__(self, most: int, *, within_s: float) -> None:
        self._most, self._within_s = most, within_s
        self._times: OrderedDict[str, deque[float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str) -> float:
        """Count an attempt, if it is allowed, before it is made.

        Returns:
            0, or the seconds until the next attempt is allowed.
        """
        now = time.monotonic()
        with self._lock:
            times = self._times.setdefault(key, deque())
            self._times.move_to_end(key)
            while times and times[0] <= now - self._within_s:
                times.popleft()
            if len(times) >= self._most:
                return times[0] + self._within_s - now
            times.append(now)
            if len(self._times) > _KEYS:
                self._times.popitem(last=False)
            return 0.0

    def give_back(self, key: str) -> None:
        """Take back the last attempt, which was right."""
        with self._lock:
            times = self._times.get(key)
            if times:
                times.pop()
                if not times:
                    del self._times[key]


class Remembered(Generic[T]):
    """Answers of the database that hold for some seconds, and for as long as it is away."""

    def __init__(self) -> None:
        self._answers: dict[str, tuple[T, float]] = {}

    def get(self, key: str, ask: Callable[[], T | None]) -> T | None:
        """Return the answer for a key; None is not remembered.

        Raises:
            SQLAlchemyError: the database is away, and there is no earlier answer.
        """
        now = time.monotonic()
        known = self._answers.get(key)
        if known is not None:
            if now < known[1]:
                return known[0]
            self._answers[key] = (known[0], now + _REMEMBERED_S)  # others need not wait for the database meanwhile
        try:
            answer = ask()
        except SQLAlchemyError:
            if known is None:
                raise
            return known[0]
        if answer is None:
            self._answers.pop(key, None)
        else:
            self._answers[key] = (answer, now + _REMEMBERED_S)
        return answer

    def knows(self, key: str) -> bool:
        """Return whether `get` would answer without asking."""
        known = self._answers.get(key)
        return known is not None and time.monotonic() < known[1]

    def forget(self) -> None:
        """Forget all answers: something was changed."""
        self._answers.clear()
