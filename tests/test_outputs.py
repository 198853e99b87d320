"""docs/outputs.md names every output, column and key that there is, and no other."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from supersimplenet.prediction.tables import PART_COLUMNS
from supersimplenet.runtime.bundle import describe_outputs
from supersimplenet.runtime.rows import columns
from supersimplenet.types import Defect

PAGE = (Path(__file__).parents[1] / "docs" / "outputs.md").read_text(encoding="utf-8")


def named(table: int) -> list[str]:
    """The names in the first column of a table of the page, in their order."""
    tables = re.findall(r"^\| (?:output|column|key|file).*\n\| ---.*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    rows = [line.split("|")[1] for line in tables[table].splitlines()]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def test_the_outputs_of_a_graph():
    assert named(0) == list(describe_outputs("fused", whole=True, calibrated=True))


def test_the_columns_of_predictions():
    assert named(1) == list(columns(aligned=True))


def test_the_columns_of_parts():
    assert named(2) == list(PART_COLUMNS)


def test_the_columns_of_defects():
    assert named(3) == ["path", *(field.name for field in fields(Defect))]
