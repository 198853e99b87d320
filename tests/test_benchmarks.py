"""The benchmarks' protocol and the schema of their results; never a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from supersimplenet.benchmark.config import SpeedConfig
from supersimplenet.cli.main import main
from supersimplenet.errors import ConfigError
from supersimplenet.inference.model_folder import save_model
from supersimplenet.model.config import ModelConfig
from supersimplenet.model.network import SuperSimpleNet

SCRIPTS = Path(__file__).parents[1] / "experiments"


@pytest.mark.parametrize("engine", ["torch", pytest.param("openvino", marks=pytest.mark.slow)])
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
        assert list(report["calls"]) == ["whole network", "plain network"]
        assert list(report["training"]) == ["training step", "plain training step"]
        assert report["calls"]["plain network"]["times_the_first"] > 0
        assert "plain training step" in shown


def test_speed_times_a_trained_model_and_refuses_nonsense(tmp_path, capsys):
    network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=(64, 64)))
    save_model(tmp_path / "model", network, {})
    small = ["--file_size", "[64,64]", "--files", "1", "--rounds", "1", "--warmup", "0"]
    assert main(["benchmark", "speed", "--model", str(tmp_path / "model"), *small]) == 0
    assert f"{tmp_path / 'model'}, 64x64 px, batch 1, torch float32, cpu" in capsys.readouterr().err
    assert main(["benchmark", "speed", "--model", str(tmp_path / "none"), *small]) == 2
    assert "none: no such folder" in capsys.readouterr().err
    for arguments, message in (
        (["--rounds", "0"], "rounds: 0; it must be at least 1"),
        (["--threads", "0"], "threads: 0; it must be at least 1"),
        (["--warmup", "-1"], "warmup: -1; it must be at least 0"),
    ):
        with pytest.raises(ConfigError) as stop:
            SpeedConfig(**{arguments[0][2:]: int(arguments[1])})
        assert message in str(stop.value)


@pytest.mark.slow
def test_ceilings_counts_each_stage(tmp_path):
    output = tmp_path / "ceilings.json"
    subprocess.run(
        [sys.executable, str(SCRIPTS / "ceilings.py"), "--size", "64", "--rounds", "1", "--output", str(output)],
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


@pytest.mark.slow
def test_growth_continues_where_it_was_and_draws(tmp_path):
    """Two points of each series; a second call adds nothing; the picture appears."""
    lines, picture = tmp_path / "growth.jsonl", tmp_path / "growth.png"
    least = ["--max-size", "128", "--max-batch", "1", "--max-images", "100", "--threads", "1", "--seconds", "0.1"]
    command = [sys.executable, str(SCRIPTS / "growth.py"), *least, "--output", str(lines), "--plot", str(picture)]
    subprocess.run(command, check=True, capture_output=True)
    points = [json.loads(line) for line in lines.read_text().splitlines()]
    assert all(point["peak_mib"] >= point["resting_mib"] > 0 for point in points)
    assert picture.stat().st_size > 10_000
    subprocess.run(command, check=True, capture_output=True)
    assert len(lines.read_text().splitlines()) == len(points)


def gpu_report(folder: Path, *options: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, str(SCRIPTS / "gpu.py"), "--output", str(folder), "--small", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads((folder / "report.json").read_text())
    for name, section in report.items():
        assert f"== {name}: {section['status']}" in done.stdout
    return done.returncode, report


@pytest.mark.slow
def test_the_gpu_script_checks_before_it_times(tmp_path):
    status, report = gpu_report(tmp_path, "--only", "machine", "equality")
    assert (status, [section["status"] for section in report.values()]) == (0, ["done", "done"])
    assert report["equality"]["compact"]["published order"]["map"] < 1e-3


def test_a_section_of_the_gpu_script_that_hangs_is_stopped_and_the_rest_goes_on(tmp_path):
    status, report = gpu_report(tmp_path, "--only", "machine", "equality", "--budget", "0.1")
    assert status == 1
    assert all(s["status"] in ("stopped after 0 s", "no time was left") for s in report.values())


@pytest.mark.slow
def test_the_gpu_script_as_a_whole(tmp_path):
    status, report = gpu_report(tmp_path)
    assert status == 0, report
    assert report["whole_training"]["seconds"] > 0
    assert report["training_step"]["compact float32"]["training"]["plain training step"]["times_the_first"] > 0
    for precision in ("float32", "bfloat16"):
        for batch in (1, 2):
            assert report["inference"][f"compact {precision} batch {batch}"]["line"]["from_files"] > 0
