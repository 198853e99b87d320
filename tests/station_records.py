"""Rows of a station's table of results, for tests that need no model."""

from __future__ import annotations

from typing import Any

from supersimplenet.station.storage.database import Ids, now_ms

IDS = Ids()


def result(
    key: str | None = None,
    *,
    verdict: str = "good",
    at: int | None = None,
    picture: str = "a" * 64,
    name: str = "a.png",
    part: str | None = None,
) -> dict[str, Any]:
    """Return a row of the table of results."""
    at = now_ms() if at is None else at
    return {
        "id": IDS.new(at),
        "key": key,
        "taken_at": at,
        "product": "parts",
        "source": "test",
        "name": name,
        "part": part,
        "model": "0" * 64,
        "verdict": verdict,
        "score": 0.25,
        "score_logit": -1.5,
        "picture": picture,
        "kind": "png",
        "size": 1 << 20,
        "kept": True,
        "row": {"defects": [], "p_value": 1 / 3, "calibrated": True, "unsure_from": None, "width": 4, "height": 3},
        "review": None,
        "reviewed_by": None,
        "reviewed_at": None,
        "review_defect": None,
        "review_mask": None,
    }
