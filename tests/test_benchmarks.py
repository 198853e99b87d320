"""The benchmarks' protocol and the schema of their results; never a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from supersimplenet.cli import main
from supersimplenet.deploy.folder import save_model
from supersimplenet.errors import ConfigError
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.model.recipes import ModelConfig
from supersimplenet.settings import SpeedConfig

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


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_speed_reports_each_stage_and_the_line(engine, tmp_path, capsys):
    output = tmp_path / "speed.json"
    small = ["--image_size", "[64,64]", "--file_size", "[96,128]", "--files", "3", "--rounds", "2", "--warmup", "0"]
    others = ["--training", "true", "--compare", "plain", "--batch_size", "2"] if engine == "torch" else []
    assert main(["benchmark", "speed", "--engine", engine, *small, *others, "--output", str(output)]) == 0
    report = json.loads(output.read_text())
    assert report["config"]["rounds"] == 2
    assert list(report["stages"])[:3] == ["decode", "resize", "backbone"]
    rows = [*report["stages"].values(), *report["calls"].values(), *report.get("training", {}).values()]
    for row in rows:
        assert 0 < row["p10_ms"] <= row["median_ms"] <= row["p90_ms"]
    assert report["line"]["from_memory"] > 0
    assert report["line"]["from_files"] > 0
    assert report["peak_memory_mib"] > 100
    assert report["machine"]["processor"]
    shown = capsys.readouterr().err
    assert "images a second, many at once" in shown
    if others:
        assert list(report["calls"]) == ["predict", "plain predict"]
        assert list(report["training"]) == ["training step", "plain training step"]
        assert report["calls"]["plain predict"]["times_the_first"] > 0
        assert "plain training step" in shown


def test_speed_times_a_trained_model_and_refuses_nonsense(tmp_path, capsys):
    network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=(64, 64)))
    save_model(tmp_path / "model", network, {})
    small = ["--file_size", "[64,64]", "--files", "1", "--rounds", "1", "--warmup", "0"]
    assert main(["benchmark", "speed", "--model", str(tmp_path / "model"), *small]) == 0
    assert main(["benchmark", "speed", "--model", str(tmp_path / "none"), *small]) == 1
    assert "no model here" in capsys.readouterr().err
    for arguments, message in (
        (["--rounds", "0"], "rounds: 0; it must be at least 1"),
        (["--threads", "0"], "threads: 0; it must be at least 1"),
        (["--warmup", "-1"], "warmup: -1; it must be at least 0"),
    ):
        with pytest.raises(ConfigError) as stop:
            SpeedConfig(**{arguments[0][2:]: int(arguments[1])})
        assert message in str(stop.value)


def test_ceilings_counts_each_stage(tmp_path):
    output = tmp_path / "ceilings.json"
    script = SCRIPT.with_name("ceilings.py")
    subprocess.run(
        [sys.executable, str(script), "--size", "64", "--rounds", "1", "--output", str(output)],
        check=True,
        capture_output=True,
    )
    report = json.loads(output.read_text())
    stages = {row["stage"]: row for row in report["stages"]}
    # compact at 64 px: maps of 8x8x128 and 4x4x256, a map of 16x16.
    products = 8 * 8 * 128 + 4 * 4 * 256
    assert stages["hidden: matrix"]["mmac"] == pytest.approx(products * 1024 / 1e6)
    assert stages["5x5: matrices of the taps"]["mmac"] == pytest.approx(products * 25 * 128 / 1e6)
    assert stages["hidden: activate, project"]["mmac"] == pytest.approx(16 * 16 * 1024 / 1e6)
    total = sum(row["mmac"] for name, row in stages.items() if name != "whole network")
    assert stages["whole network"]["mmac"] == pytest.approx(total)
