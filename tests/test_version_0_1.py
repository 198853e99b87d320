"""What version 0.1 wrote is read by this version, and says the same; see tests/fixtures/version_0_1/README.md.

Version 0.1 listed the regions of good images too, which is `--list-all` now, and no peaks.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from supersimplenet.cli.main import main

FIXTURES = Path(__file__).parent / "fixtures" / "version_0_1"
# Sums of some thousand float32 products: in another order on another CPU.
TOLERANCE = 2e-5
RAW = ("score_logit", "head_logit", "map_max_logit", "fused_logit")


@pytest.mark.parametrize(
    "name", ["plain", "tiles", "plain.onnx", "plain.openvino", "plain.pt2", "tiles.onnx"], ids=lambda name: name
)
def test_a_model_of_version_0_1_says_what_it_said(name, tmp_path, monkeypatch):
    monkeypatch.chdir(FIXTURES)  # the rows name images by their paths as typed
    trust = ["--trust"] if name.endswith(".pt2") else []
    assert main(["predict", "--model", name, "images", "--output", str(tmp_path), "--list-all", *trust]) == 0
    for table in ("predictions.csv", "defects.csv"):
        with (tmp_path / table).open(newline="") as now, (Path("rows") / name / table).open(newline="") as then:
            rows = [row for row in csv.DictReader(now) if row.get("below_threshold") != "True"]
            for row, wanted in zip(rows, csv.DictReader(then), strict=True):
                for column, value in wanted.items():
                    if column in (*RAW, "peak_logit"):
                        assert float(row[column]) == pytest.approx(float(value), abs=TOLERANCE)
                    elif column != "score":  # which is on another scale in later versions
                        assert row[column] == value, column
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["verdict"] for line in lines].count("bad") in (1, 2)


def test_options_that_version_0_1_printed_are_read(capsys):
    """With a class by its path of that version."""
    text = (FIXTURES / "print_config.yaml").read_text()
    assert "class_path: supersimplenet.Folder" in text
    with pytest.raises(SystemExit) as stop:
        main(["train", "--config", str(FIXTURES / "print_config.yaml"), "--print_config"])
    assert stop.value.code == 0
    now = yaml.safe_load(capsys.readouterr().out)

    def kept(then: object, now: object) -> bool:
        """Later versions may add options; those of then keep their names and values."""
        if isinstance(then, dict):
            return isinstance(now, dict) and all(name in now and kept(then[name], now[name]) for name in then)
        return then == now

    assert kept(yaml.safe_load(text), now)
