"""Strata of parts, from all photographs: what the queue asks and what the rates count must be the same parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from supersimplenet.postprocessing.parts import part_verdicts
from supersimplenet.station.review.sampling import Sampling, StratumName, part_key, stratum_of
from supersimplenet.station.storage import results
from supersimplenet.station.storage.recorder import Record


def stratum_of_part(photographs: Iterable[Mapping[str, Any]]) -> StratumName | None:
    """Return the stratum of a part from its photographs, of which the worst decides; None without a verdict."""
    (part,) = part_verdicts(photographs)
    return None if part.verdict is None else stratum_of(part.verdict, part.p_value)


def drawn_records(records: Sequence[Record], sampling: Sampling, *, within_ms: int) -> list[Record]:
    """Return the results, in their order, whose part is drawn by chance: all photographs of it, or none.

    Args:
        records: results.
        sampling: how parts are drawn.
        within_ms: see `part_key`.
    """
    parts: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        parts[part_key(record, within_ms=within_ms)].append(record)
    drawn: set[str] = set()
    for key, photographs in parts.items():
        stratum = stratum_of_part([results.as_photograph(record) for record in photographs])
        if stratum is not None and sampling.draws(key, stratum):
            drawn.update(record["id"] for record in photographs)
    return [record for record in records if record["id"] in drawn]
