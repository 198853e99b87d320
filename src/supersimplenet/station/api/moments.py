"""Times in requests: ISO 8601."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Annotated, overload

from pydantic import BeforeValidator

MOMENT_TEXT = "ISO 8601 such as 2026-11-30T06:00:00Z; UTC where no zone is given; the + of a zone is written %2B"
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _as_sent(value: str) -> str:
    """Return the text of a time, if it is no number, which pydantic would read as seconds, and its + is no space."""
    if re.search(r":\d\d\S* \d\d:?\d\d$", value):
        raise ValueError(
            "a space before the zone; in an address + means a space, so write + as %2B, or the time in UTC with Z"
        )
    try:
        float(value)
    except ValueError:
        return value
    raise ValueError("a number; wanted a time such as 2026-11-30T06:00:00Z")


Moment = Annotated[datetime, BeforeValidator(_as_sent)]


@overload
def in_ms(moment: datetime) -> int: ...
@overload
def in_ms(moment: None) -> None: ...
def in_ms(moment: datetime | None) -> int | None:
    """Return a time in milliseconds since 1970; UTC where it names no zone."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return round((moment - _EPOCH).total_seconds() * 1000)
