"""Turn the journal of a run into its tables, and count what is in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from supersimplenet.postprocessing.parts import PartVerdict, part_key, part_of, part_verdicts
from supersimplenet.prediction.tables import Format, Row, results_in, write_parts
from supersimplenet.types import Verdict
from supersimplenet.utils.journals import read_journal

SEEN = "seen"  # in the journal: size and date of a watched file when it was taken
FIRST = "path"  # first column of a row


@dataclass(frozen=True, kw_only=True)
class PartCounts:
    """The verdicts of a run's parts in numbers.

    Attributes:
        parts: number of parts.
        photographs: number of their photographs.
        verdicts: number of parts by verdict: good, unsure and bad; a part without a verdict is in none.
        unnamed: number of parts that are a single photograph, of which the part is not known.
    """

    parts: int
    photographs: int
    verdicts: dict[Verdict, int]
    unnamed: int

    @property
    def unknown(self) -> int:
        """Number of parts without a verdict: a photograph could not be predicted, and no other is bad."""
        return self.parts - sum(self.verdicts.values())


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The results of a run in numbers; see `supersimplenet.prediction.job.PredictionSummary`."""

    verdicts: dict[Verdict, int]
    flagged: int | None
    failed: int
    parts: PartCounts | None


def write_tables(
    journal: Path,
    formats: Sequence[Format],
    *,
    columns: Sequence[str],
    group_pattern: re.Pattern[str] | None,
    false_discovery_rate: float | None,
    watched: bool,
) -> Counts:
    """Write the tables of images, defects and, where parts are known, parts, into the journal's folder.

    Args:
        journal: the journal of the run.
        formats: file formats of the tables.
        columns: names of the columns of the table of images.
        group_pattern: finds the part's name in a file's name.
        false_discovery_rate: see `supersimplenet.prediction.job.predict_to_folder`.
        watched: whether the images are those of a watched folder. An image that changed there has several rows; of
            these the last one counts for its part.
    """

    def rows() -> Iterator[Row]:
        for row in read_journal(journal, first=FIRST):
            row.pop(SEEN, None)
            yield row if "part" in row else _row_of_0_1(row, group_pattern)

    parts: list[PartVerdict] | None = None
    if group_pattern is not None or any(row["part"] is not None for row in rows()):
        parts = part_verdicts(_latest(rows) if watched else rows())
    flagged: int | None = None
    q_values: Iterator[float] = iter(())
    if false_discovery_rate is not None:
        from supersimplenet.metrics.thresholds import false_discovery  # needs scipy

        of_each = (row["p_value"] for row in rows()) if parts is None else (part.p_value for part in parts)
        adjusted = false_discovery([p_value for p_value in of_each if p_value is not None])
        flagged, q_values = int((adjusted <= false_discovery_rate).sum()), iter(adjusted.tolist())
    q_of_part: dict[Any, float | None] = {}
    if parts is not None and false_discovery_rate is not None:
        parts = [replace(part, q_value=None if part.p_value is None else next(q_values)) for part in parts]
        q_of_part = {part.key: part.q_value for part in parts}
    verdicts: dict[Verdict, int] = {"good": 0, "unsure": 0, "bad": 0}
    failed = 0
    with results_in(journal.parent, formats, columns) as sinks:
        for row in rows():
            failed += row["error"] is not None
            if row["error"] is None:
                verdicts[row["verdict"]] += 1
                key = part_key(row["part"], row["path"])
                row["q_value"] = next(q_values, None) if parts is None else q_of_part.get(key)
            for add in sinks:
                add(row)
    write_parts(journal.parent, formats, parts)
    return Counts(verdicts=verdicts, flagged=flagged, failed=failed, parts=None if parts is None else _counts_of(parts))


def _row_of_0_1(row: Row, group_pattern: re.Pattern[str] | None) -> Row:
    """Return a row of a journal that version 0.1 wrote, which listed the regions of good images, and no peaks."""
    defects = row["defects"]
    if defects is not None:
        defects = [defect | {"below_threshold": False} for defect in defects if row["verdict"] != "good"]
    return row | {"part": part_of(row["path"], group_pattern), "defects": defects}


def _latest(rows: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """Yield the last row of each path."""
    last = {row["path"]: place for place, row in enumerate(rows())}
    return (row for place, row in enumerate(rows()) if last[row["path"]] == place)


def _counts_of(parts: Sequence[PartVerdict]) -> PartCounts:
    found = Counter(part.verdict for part in parts)
    return PartCounts(
        parts=len(parts),
        photographs=sum(part.photographs for part in parts),
        verdicts={"good": found["good"], "unsure": found["unsure"], "bad": found["bad"]},
        unnamed=sum(part.part is None for part in parts),
    )
