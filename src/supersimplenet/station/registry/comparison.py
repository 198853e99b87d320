"""Compares a candidate with the model in use, on parts that nothing was trained on: golden ones, and reviewed ones.

The golden parts are those of the candidate's dataset, in its newest version. The reviewed ones are the parts of the
last weeks about which people agree and that no training has seen; they grow each day, so a comparison may be repeated.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, select

from supersimplenet.datasets.splits import write_table
from supersimplenet.errors import ConfigError, ImageError
from supersimplenet.inference.config import CONFIG_FILE
from supersimplenet.preprocessing.images import pixel_digest, read_image
from supersimplenet.station.library.store import LibraryStore
from supersimplenet.station.library.versions import entries, version
from supersimplenet.station.registry.processes import Processes
from supersimplenet.station.registry.promotions import in_use
from supersimplenet.station.registry.records import Registered, one_model, set_state
from supersimplenet.station.storage import results
from supersimplenet.station.storage.database import now_ms, writing
from supersimplenet.station.storage.pictures import PictureStore
from supersimplenet.station.storage.schema import PICTURES, ROLES
from supersimplenet.types import BAD, GOOD, Sample
from supersimplenet.utils.locks import writing_into

GATE_FOLDER = "comparison"
WEEKS = 4
_PARTS_FILE = "parts.csv"
_GATE_FILE = "gate.json"  # `supersimplenet.evaluation.gate.GATE_FILE`, whose module needs torch
_WEEK_MS = 7 * 86_400_000


def compare_again(
    engine: Engine,
    station: Path,
    number: int,
    *,
    weeks: float = WEEKS,
    threads: int | None = None,
    say: Callable[[str], None],
) -> Registered:
    """Compare a candidate with the model in use by what is known now; return it with what was found.

    Args:
        engine: the database.
        station: the station's folder.
        number: the model.
        weeks: how far back reviewed parts count.
        threads: number of threads for the process; None for all.
        say: called with a line before each step.

    Raises:
        ConfigError: there is no such candidate, or no other model is in use.
        StationError: the comparison failed: its log is named.
        LockedError: another process is at it.
    """
    with engine.connect() as connection:
        model = one_model(connection, number)
        now = in_use(connection, model.product)
    if model.state not in ("candidate", "refused") or not (model.model(station) / CONFIG_FILE).is_file():
        raise ConfigError(f"model {number}: {model.state}; only a finished model is compared")
    if now is None or now.number == number:
        raise ConfigError(
            f"model {number}: no other model of {model.product} is in use, so there is nothing to compare"
        )
    with writing_into(model.folder(station), advice=": wait until it has ended"):
        processes = Processes(model.folder(station), threads)
        found = compare(engine, station, model, now, processes, weeks=weeks, say=say)
    with writing(engine) as connection:
        return set_state(connection, number, "refused" if found["reasons"] else "candidate", **found)


def compare(
    engine: Engine,
    station: Path,
    model: Registered,
    current: Registered,
    processes: Processes,
    *,
    weeks: float = WEEKS,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Compare a model with another one; return what was found, in plain values."""
    say(f"comparing with model {current.number}")
    output = model.folder(station) / GATE_FOLDER
    shutil.rmtree(output, ignore_errors=True)
    parts = _unseen_parts(engine, station, model, since=now_ms() - round(weeks * _WEEK_MS))
    write_table([*parts.golden, *parts.reviewed], output / _PARTS_FILE)
    models = ["--candidate", str(model.model(station)), "--current", str(current.model(station))]
    golden = ["--golden", str(output / _PARTS_FILE), "--output", str(output)]
    processes.run("gate", *models, *golden, passes=(0, 1))
    gate = json.loads((output / _GATE_FILE).read_text(encoding="utf-8"))
    return {
        "compared": current.number,
        "compared_at": now_ms(),
        "golden_good": _count(parts.golden, GOOD),
        "golden_bad": _count(parts.golden, BAD),
        "reviewed_good": _count(parts.reviewed, GOOD),
        "reviewed_bad": _count(parts.reviewed, BAD),
        "trained_on": parts.trained_on,
        "new_escapes": len(gate["new_escapes"]),
        "new_false_alarms": len(gate["new_false_alarms"]),
        "new_unsure": len(gate["new_unsure"]),
        "evidence": gate["evidence"],
        "reasons": [] if gate["passed"] else [parts.with_names(reason) for reason in gate["reasons"]],
    }


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """Pictures to compare by, and the names with which they came, since their files are named by hashes.

    ``trained_on`` counts reviewed ones that show nothing, as a training has seen them.
    """

    golden: list[Sample]
    reviewed: list[Sample]
    trained_on: int
    names: dict[Path, str]

    def with_names(self, text: str) -> str:
        for path, name in self.names.items():
            text = text.replace(str(path), name)
        return text


def _unseen_parts(engine: Engine, station: Path, model: Registered, *, since: int) -> _Parts:
    library, pictures = LibraryStore(station), PictureStore(station)
    with engine.connect() as connection:
        held = [] if model.dataset is None else entries(connection, version(connection, model.dataset))
        known = _Known.of(connection)
    golden = [
        Sample(
            image=library.picture(entry.picture, entry.kind),
            label=BAD if entry.known.label == "bad" else GOOD,
            split="test",
            defect=entry.known.defect or entry.known.label,
            mask=None if entry.known.mask is None else library.mask(entry.known.mask),
            pixel_labels_known=entry.known.label == "good" or entry.known.mask is not None,
            group=entry.group,
        )
        for entry in held
        if entry.role == "golden"
    ]
    seen = {entry.picture for entry in held if entry.role == "golden"}
    names = {library.picture(entry.picture, entry.kind): entry.name for entry in held if entry.role == "golden"}
    reviewed, trained_on = [], 0
    for record in results.every(engine, results.Filter(product=model.product, since=since, reviewed="any")):
        path = pictures.picture(record["picture"], record["kind"])
        if record["review"] not in ("good", "bad") or record["picture"] in seen or not path.is_file():
            continue
        seen.add(record["picture"])
        if known.holds(record["picture"], record["part"], path):
            trained_on += 1
            continue
        names[path] = record["name"]
        reviewed.append(
            Sample(
                image=path,
                label=BAD if record["review"] == "bad" else GOOD,
                split="test",
                defect="good" if record["review"] == "good" else record["review_defect"] or "bad",
                pixel_labels_known=record["review"] == "good",
                group=None if record["part"] is None else f"reviewed {record['part']}",
            )
        )
    return _Parts(golden=golden, reviewed=reviewed, trained_on=trained_on, names=names)


@dataclass(frozen=True)
class _Known:
    """What trains or calibrates: hashes of pictures, digests of their pixels, names of parts."""

    keys: frozenset[str]
    parts: frozenset[str]

    @classmethod
    def of(cls, connection: Connection) -> _Known:
        p, r = PICTURES.c, ROLES.c
        query = select(p.sha256, p.pixels, p.group).join_from(PICTURES, ROLES, r.group == p.group)
        rows = connection.execute(query.where(r.role != "golden")).all()
        keys = frozenset(key for row in rows for key in (row.sha256, row.pixels))
        return cls(keys, frozenset(row.group.partition("/")[2] for row in rows))

    def holds(self, sha256: str, part: str | None, path: Path) -> bool:
        if sha256 in self.keys or part in self.parts:
            return True
        try:
            return pixel_digest(read_image(path)) in self.keys
        except ImageError:
            return False  # the gate says so


def _count(samples: list[Sample], label: int) -> int:
    return sum(sample.label == label for sample in samples)
