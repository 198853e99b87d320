"""Triggers that see each frame: at an interval, and when what moved has come to rest."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from supersimplenet.errors import ConfigError, SuperSimpleNetError
from supersimplenet.preprocessing.images import read_image
from supersimplenet.station.sources.settings import IntervalTrigger, MotionTrigger
from supersimplenet.station.sources.triggers import Fire, Trigger, TriggerInfo

_SMALL_PX = (160, 120)  # width and height at which frames are compared


class FrameTrigger(Trigger):
    """Decides by the frames, in the thread that reads them; so what it fires for is the frame that it has just seen."""

    @property
    def reason(self) -> str:
        """Nothing: it needs no more than frames."""
        return ""

    def start(self, fire: Fire) -> None:
        """Begin."""
        self._fire = fire

    def stop(self) -> None:
        """Do nothing: without frames it does not fire."""

    @abstractmethod
    def sees(self, frame: NDArray[Any], at_s: float) -> None:
        """Take note of a frame, and fire where it is to be taken.

        Args:
            frame: (height, width, 3) or (height, width), uint8.
            at_s: when it came, on a clock that does not jump.
        """


class Interval(FrameTrigger):
    """Fires for the first frame, and then every so many seconds, as long as there are frames.

    Args:
        settings: the trigger's settings.
    """

    def __init__(self, settings: IntervalTrigger) -> None:
        self._seconds = settings.seconds
        self._next_s = float("-inf")

    def sees(self, frame: NDArray[Any], at_s: float) -> None:
        """Fire where it is time."""
        del frame
        if at_s < self._next_s:
            return
        self._next_s += self._seconds
        if self._next_s <= at_s:  # the first frame, or none came for long
            self._next_s = at_s + self._seconds
        self._fire(TriggerInfo())


class Motion(FrameTrigger):
    """Fires each time that what moved has come to rest.

    Rest is a time in which less than half of ``changed`` differs from its first frame; so slow motion is no rest. Moved
    has what differed from the last rest in between: another part that is like the one before it is another part.

    Args:
        settings: the trigger's settings.

    Raises:
        ConfigError: the picture of the empty place cannot be read.
    """

    def __init__(self, settings: MotionTrigger) -> None:
        self._changed, self._level, self._settle_s = settings.changed, settings.level, settings.settle_s
        self._empty: NDArray[np.uint8] | None = None
        if settings.empty is not None:
            try:
                self._empty = _small(cv2.cvtColor(read_image(settings.empty), cv2.COLOR_RGB2BGR))
            except SuperSimpleNetError as error:
                raise ConfigError(f"trigger: empty: {error}") from error
        self._rest = self._empty  # the last picture at rest
        self._calm: tuple[NDArray[np.uint8], float] | None = None  # first frame without motion since, and when it came
        self._has_moved = False

    def sees(self, frame: NDArray[Any], at_s: float) -> None:
        """Fire where the picture has come to rest."""
        small = _small(frame)
        if self._calm is None or self._difference(small, self._calm[0]) > self._changed / 2:
            self._calm = small, at_s
        if self._rest is not None and self._difference(small, self._rest) > self._changed:
            self._has_moved = True
        if at_s - self._calm[1] < self._settle_s or not (self._has_moved or self._rest is None):
            return
        is_first = self._rest is None
        self._rest, self._has_moved = small, False
        is_empty = self._empty is not None and self._difference(small, self._empty) <= self._changed
        if not (is_first or is_empty):
            self._fire(TriggerInfo())

    def _difference(self, one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
        """Return the share of two small pictures that differs."""
        return float(np.mean(cv2.absdiff(one, other) > self._level))


def _small(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a frame, BGR or grey, as a small grey picture."""
    small = cv2.resize(frame, _SMALL_PX, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY) if small.ndim == 3 else small
    return np.asarray(grey, dtype=np.uint8)
