"""What a gate is told of a result: the verdict that counts, and how old it is."""

from __future__ import annotations

from datetime import datetime
from typing import cast

from supersimplenet.station.sinks.settings import Verdict4
from supersimplenet.station.sinks.sink import Message
from supersimplenet.station.storage.database import now_ms


def verdict_of(message: Message) -> Verdict4:
    """Return the verdict of a result's picture."""
    return cast(Verdict4, message["verdict"] or "failed")


def part_verdict_of(message: Message) -> Verdict4 | None:
    """Return the verdict of a result's part, from all its photographs until now; None without the part's name."""
    part = message["part_result"]
    return None if part is None else cast(Verdict4, part["verdict"] or "failed")


def gate_verdict(message: Message) -> Verdict4:
    """Return the verdict that a gate acts on: the part's, so that a good photograph does not let a bad part pass."""
    return part_verdict_of(message) or verdict_of(message)


def age_ms(message: Message) -> int:
    """Return the milliseconds since the station took the picture, by this computer's clock."""
    taken_at = datetime.fromisoformat(message["taken_at"].replace("Z", "+00:00"))
    return max(now_ms() - round(taken_at.timestamp() * 1000), 0)
