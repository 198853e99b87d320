"""The demo as `make demo` runs it: minutes, so `make test-slow`."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from supersimplenet.cli.main import main


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_finds_the_defects(tmp_path):
    assert main(["demo", "--output", str(tmp_path / "demo")]) == 0
    metrics = json.loads((tmp_path / "demo" / "model" / "metrics.json").read_text())
    assert metrics["I-AUROC"] >= 0.9
    assert metrics["seg-I-AUROC"] >= 0.9
    assert metrics["AUPRO"] >= 0.7
    with Image.open(tmp_path / "demo" / "model" / "findings.png") as sheet:
        assert sheet.width >= 800
    assert main(["demo", "--output", str(tmp_path / "demo")]) == 1  # nothing is overwritten
