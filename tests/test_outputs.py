"""docs/outputs.md names every output, column and key that there is, and no other."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from supersimplenet.benchmark.journal import _TYPES as RUN
from supersimplenet.evaluation.evaluate import PREFIXES
from supersimplenet.evaluation.gate import GateResult
from supersimplenet.evaluation.results import Evaluation
from supersimplenet.inference.image_records import ImageRecord
from supersimplenet.metrics.anomalib_overlap import ANOMALIB_AUPRO
from supersimplenet.metrics.pixels import PixelTally
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.prediction.tables import PART_COLUMNS
from supersimplenet.runtime.bundle import Bundle, describe_outputs
from supersimplenet.runtime.rows import columns
from supersimplenet.station.storage.exports import COLUMNS as STATION_COLUMNS
from supersimplenet.types import Defect

PAGE = (Path(__file__).parents[1] / "docs" / "outputs.md").read_text(encoding="utf-8")


def named(heading: str, table: int = 0) -> list[str]:
    """The names in the first column of a table below a heading, in their order."""
    section = re.split(rf"^## {re.escape(heading)}.*\n", PAGE, flags=re.MULTILINE)[1].split("\n## ")[0]
    tables = re.findall(r"^\| (?:output|column|key).*\n\| ---.*\n((?:\|.*\n)+)", section + "\n", re.MULTILINE)
    rows = [line.split("|")[1] for line in tables[table].splitlines()]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def test_the_outputs_of_a_graph():
    full = describe_outputs("joint", whole=True, calibrated=True, subspace=True, shown=True)
    assert named("The graph of an exported file") == list(full)
    assert [name for name in full if "subspace" not in name and name not in ("joint_logit", "shown_map")] == list(
        describe_outputs("fused", whole=True, calibrated=True)
    )


def test_the_columns_of_predictions_defects_and_parts():
    assert named("Tables of predictions") == list(columns(aligned=True))
    assert named("Tables of predictions", 1) == ["path", *(field.name for field in fields(Defect))]
    assert named("Tables of predictions", 2) == list(PART_COLUMNS)


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("gate.json", GateResult),
        ("calibration.yaml", Calibration),
        ("images.csv", ImageRecord),
        ("Metadata of an exported file", Bundle),
    ],
)
def test_the_fields_of_what_is_stored(heading, kind):
    assert set(named(heading)) == {field.name for field in fields(kind)}


def test_the_keys_of_a_run():
    assert set(named("runs.jsonl of `benchmark accuracy`")) == set(RUN)


def test_the_keys_of_metrics_json():
    tally = PixelTally()
    tally.add(np.zeros((4, 4), np.float32), np.eye(4, dtype=bool), defect="scratch", ignored=None)
    evaluation = Evaluation(
        metrics=tally.metrics(),
        outcomes=[],
        types=[],
        sizes=[],
        overlap_curve=None,
        failures=[],
        calibration=None,
        threshold_logit=0.0,
        image_score="head",
        resolution="model",
        size_px=(4, 4),
    )
    detection = {"I-AUROC", "AP-det", "I-F1-max"}
    assert set(named("metrics.json")) == {*evaluation.summary(), *detection, ANOMALIB_AUPRO, "data"}
    assert {f"{prefix}-" for prefix in ("seg", "fused", "subspace", "joint", "zones")} == {
        prefix for prefix in PREFIXES.values() if prefix
    }


def test_the_results_of_a_station():
    assert named("Results of a station") == list(STATION_COLUMNS)
