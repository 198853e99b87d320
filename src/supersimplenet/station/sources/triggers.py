"""What tells a camera when to take a picture."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TriggerInfo:
    """What a trigger says of the picture to take.

    Attributes:
        part: name of the part that is before the camera; None where it is not known.
    """

    part: str | None = None


Fire = Callable[[TriggerInfo], None]  # takes the newest frame; returns at once, from any thread


class Trigger(ABC):
    """Says when a picture is to be taken."""

    @abstractmethod
    def start(self, fire: Fire) -> None:
        """Begin, and call ``fire`` for each picture from now on."""

    @abstractmethod
    def stop(self) -> None:
        """Fire no more; it may be started again."""
