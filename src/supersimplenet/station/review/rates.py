"""Estimates how many parts escape and how many are called bad without need, from parts that were drawn by chance."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from supersimplenet.metrics.sampled_rates import SampledRate, Stratum, sampled_rate
from supersimplenet.station.review.answers import asked_about
from supersimplenet.station.review.parts import stratum_of_part
from supersimplenet.station.review.sampling import Sampling, StratumName, part_key
from supersimplenet.station.storage import results
from supersimplenet.utils.iteration import in_blocks

PASSED: tuple[StratumName, ...] = ("passed", "passed-near")
STOPPED: tuple[StratumName, ...] = ("unsure", "bad")
_AT_ONCE = 500
_DECIDING = ("part", "path", "verdict", "score", "p_value", "score_logit", "error")  # see `part_verdicts`


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What the parts that were drawn say about a time.

    Attributes:
        escapes: share of the parts called good that are bad; None where there was no such part.
        false_calls: share of the parts called unsure or bad that are good; likewise.
        asked: parts that were drawn.
        answered: those of which all photographs were answered because of that, and people agree: good or bad.
        known_escapes: parts called good that a person found to be bad, whether drawn or not: there are at least these.
        known_false_calls: parts called unsure or bad that a person found to be good, likewise.
        failed: parts without a verdict; they are in no rate.
    """

    escapes: SampledRate | None
    false_calls: SampledRate | None
    asked: int
    answered: int
    known_escapes: int
    known_false_calls: int
    failed: int


@dataclass(frozen=True)
class _Photograph:
    """What counts of a photograph; a month's may be a million."""

    row: dict[str, Any]
    review: str | None
    asked: bool  # whether somebody answered because the part was drawn


def estimate_rates(
    engine: Engine, wanted: results.Filter, sampling: Sampling, *, within_ms: int, confidence: float = 0.95
) -> Rates:
    """Estimate the rates of parts inspected in a time, each with all its photographs.

    Only parts that were drawn by chance count in the estimates, and only where somebody answered because of that: what
    a person clicks because something was seen is bad more often, also among drawn parts. Of drawn parts without such an
    answer it is taken that they are like those with one.

    Args:
        engine: the database.
        wanted: which results; a time, a product, a model.
        sampling: how parts were drawn in that time.
        within_ms: see `part_key`.
        confidence: of the intervals.
    """
    parts: dict[str, list[_Photograph]] = defaultdict(list)
    for block in in_blocks(results.every(engine, wanted), _AT_ONCE):
        asked = asked_about(engine, [record["id"] for record in block], reason="random")
        for record in block:
            row = results.as_photograph(record)
            row = {name: row[name] for name in _DECIDING}
            photograph = _Photograph(row, record["review"], record["id"] in asked)
            parts[part_key(record, within_ms=within_ms)].append(photograph)
    counts: Counter[str] = Counter()
    number: Counter[StratumName] = Counter()
    drawn: Counter[tuple[StratumName, str]] = Counter()
    for key, photographs in parts.items():
        stratum, answer = stratum_of_part([photograph.row for photograph in photographs]), _answer(photographs)
        if stratum is None:
            counts["failed"] += 1
            continue
        number[stratum] += 1
        counts["known escapes"] += stratum in PASSED and answer == "bad"
        counts["known false calls"] += stratum in STOPPED and answer == "good"
        if sampling.draws(key, stratum):
            counts["asked"] += 1
            if answer is not None and all(photograph.asked for photograph in photographs):
                drawn[stratum, answer] += 1

    def rate(names: Iterable[StratumName], event: str) -> SampledRate | None:
        strata = [
            Stratum(parts=number[name], drawn=drawn[name, "good"] + drawn[name, "bad"], events=drawn[name, event])
            for name in names
        ]
        return sampled_rate(strata, confidence=confidence)

    return Rates(
        escapes=rate(PASSED, "bad"),
        false_calls=rate(STOPPED, "good"),
        asked=counts["asked"],
        answered=drawn.total(),
        known_escapes=counts["known escapes"],
        known_false_calls=counts["known false calls"],
        failed=counts["failed"],
    )


def _answer(photographs: Iterable[_Photograph]) -> str | None:
    """Return what people say a part is: bad where one photograph shows it, good where all were found good."""
    said = {photograph.review for photograph in photographs}
    if "bad" in said:
        return "bad"
    return "good" if said == {"good"} else None
