"""The benchmarks' protocol and the schema of their results; never a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "order_of_computation.py"


def test_order_of_computation_reports_each_pair(tmp_path):
    output = tmp_path / "results.json"
    small = ["--size", "64", "--batch", "1", "--rounds", "2", "--backbones", "compact"]
    subprocess.run([sys.executable, str(SCRIPT), *small, "--output", str(output)], check=True, capture_output=True)
    report = json.loads(output.read_text())
    assert (report["size"], report["batch"], report["rounds"]) == (64, 1, 2)
    assert [(row["backbone"], row["what"]) for row in report["results"]] == [
        ("compact", "training step"),
        ("compact", "inference"),
    ]
    for row in report["results"]:
        assert row["fast_ms_per_image"] > 0
        assert row["plain_over_fast"] > 0
    assert report["results"][1]["backbone_ms_per_image"] > 0
