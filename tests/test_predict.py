"""Predictions into files: complete, in order, continued after any interruption."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from supersimplenet import Detector
from supersimplenet.errors import ConfigError, DataError, ImageError, OutputError
from supersimplenet.prediction.inputs import find_images
from supersimplenet.prediction.job import predict_to_folder


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 256, (50, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return sorted(folder.iterdir())


def read_table(output: Path) -> list[dict[str, str]]:
    with (output / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_table_and_lines_hold_every_image_in_order(model, photographs, tmp_path):
    detector = Detector.load(model)
    summary = predict_to_folder(detector, photographs, tmp_path / "out", model_folder=model, batch_size=4)
    rows = read_table(tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert list(rows[0])[:9] == [
        "path",
        "score",
        "unsure_from",
        "verdict",
        "calibrated",
        "p_value",
        "q_value",
        "defects",
        "score_logit",
    ]
    assert [row["path"] for row in rows] == [line["path"] for line in lines] == [str(path) for path in photographs]
    expected = detector.predict(list(photographs))
    assert {row["score"] for row in rows} == {""}  # without a calibration there is no threshold to set it by
    assert [float(row["map_max_logit"]) for row in rows] == pytest.approx([p.map_max_logit for p in expected], rel=1e-4)
    assert [row["verdict"] for row in rows] == ["bad" if p.score_logit >= 0 else "good" for p in expected]
    assert {(row["calibrated"], row["p_value"], row["q_value"], row["defects"]) for row in rows} == {
        ("False", "", "", "")
    }
    assert summary.images == 6
    assert summary.verdicts["bad"] == sum(p.score_logit >= 0 for p in expected)
    assert summary.flagged is None
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["defects.csv", "predictions.csv", "predictions.jsonl"]


@pytest.mark.parametrize("torn", [b"", b'{"path": "photo'])
def test_an_interrupted_run_continues_without_repeating_or_losing_one(model, photographs, tmp_path, torn):
    """Interrupted by an unreadable image; the journal's last line torn as a power cut would."""
    detector, output = Detector.load(model), tmp_path / "out"
    whole = predict_to_folder(detector, photographs, tmp_path / "whole", model_folder=model, batch_size=2)
    good = photographs[4].read_bytes()
    photographs[4].write_bytes(b"")
    with pytest.raises(ImageError, match=r"4\.png: empty"):
        predict_to_folder(detector, photographs, output, model_folder=model, batch_size=2)
    photographs[4].write_bytes(good)
    assert not (output / "predictions.csv").exists()
    with (output / "predictions.partial.jsonl").open("ab") as journal:
        journal.write(torn)
    summary = predict_to_folder(detector, photographs, output, model_folder=model, batch_size=2)
    assert (summary.images, summary.continued) == (6, 4)
    assert (output / "predictions.csv").read_bytes() == whole.table.read_bytes()
    assert (output / "predictions.jsonl").read_bytes() == (tmp_path / "whole" / "predictions.jsonl").read_bytes()


@pytest.mark.slow
def test_a_killed_process_continues_to_the_same_table(model, photographs, tmp_path):
    many = tmp_path / "many"
    many.mkdir()
    for index in range(300):
        os.link(photographs[index % 6], many / f"{index:03d}.png")
    command = [sys.executable, "-m", "supersimplenet", "predict", "--model", str(model), str(many)]
    command += ["--batch-size", "1", "--device", "cpu", "--output"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    process = subprocess.Popen([*command, str(tmp_path / "killed")], stderr=subprocess.DEVNULL)
    journal = tmp_path / "killed" / "predictions.partial.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (journal.exists() and journal.read_bytes().count(b"\n") >= 20):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = journal.read_bytes().count(b"\n")
    assert 20 <= done < 300
    again = subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True, text=True)
    assert f"300 images, {done} of them done before" in again.stdout
    assert read_table(tmp_path / "killed") == read_table(tmp_path / "whole")


def test_an_interrupted_run_is_not_continued_over_other_images_or_by_another_model(model, photographs, tmp_path):
    detector, output = Detector.load(model), tmp_path / "out"
    photographs[2].write_bytes(b"")
    with pytest.raises(ImageError):
        predict_to_folder(detector, photographs, output, model_folder=model, batch_size=1)
    with pytest.raises(OutputError, match="holds an interrupted run over other images"):
        predict_to_folder(detector, photographs[1:], output, model_folder=model)
    with pytest.raises(OutputError, match="holds an interrupted run of another model or calibration"):
        predict_to_folder(detector, photographs, output, model_folder=model, overlays=True)


def test_unreadable_images_are_rows_with_their_error(model, photographs, tmp_path):
    photographs[1].write_text("this is no image")
    summary = predict_to_folder(
        Detector.load(model), photographs, tmp_path / "out", model_folder=model, batch_size=2, on_error="skip"
    )
    rows = read_table(tmp_path / "out")
    assert summary.failed == 1
    assert [row["path"] for row in rows] == [str(path) for path in photographs]
    assert (rows[1]["score"], rows[1]["verdict"]) == ("", "")
    assert "1.png: not a readable image" in rows[1]["error"]
    assert all(row["error"] == "" for index, row in enumerate(rows) if index != 1)


def test_overlays_keep_the_image_where_the_map_is_cold(model, photographs, tmp_path):
    detector = Detector.load(model)
    predict_to_folder(detector, photographs, tmp_path / "out", model_folder=model, overlays=True)
    overlays = sorted((tmp_path / "out" / "overlays").iterdir())
    assert [path.name for path in overlays] == [f"{index:06d}_{index}.png" for index in range(6)]
    with Image.open(overlays[0]) as overlay:
        assert overlay.width >= 60
        assert overlay.height > 50  # the strip with the verdict lies below
    # A later run over fewer images leaves none of these behind; files of another name are nobody's business.
    (tmp_path / "out" / "overlays" / "notes.txt").touch()
    predict_to_folder(detector, photographs[4:], tmp_path / "out", model_folder=model, overlays=True)
    left = sorted(path.name for path in (tmp_path / "out" / "overlays").iterdir())
    assert left == ["000000_4.png", "000001_5.png", "notes.txt"]


def test_inputs_are_files_folders_and_patterns(photographs, tmp_path, monkeypatch):
    folder = photographs[0].parent
    monkeypatch.chdir(tmp_path)
    assert find_images([str(folder)]) == photographs
    assert find_images([str(folder / "[12].png"), str(photographs[1])]) == photographs[1:3]
    assert find_images(["photographs/*.png"]) == [path.relative_to(tmp_path) for path in photographs]
    with pytest.raises(DataError, match="nowhere: no such file or folder, and no pattern that matches one"):
        find_images(["nowhere"])


def test_results_of_an_earlier_run_are_no_input(model, photographs, tmp_path):
    folder = photographs[0].parent
    output = folder / "out"
    for _ in range(2):
        summary = predict_to_folder(
            Detector.load(model),
            find_images([str(folder)], leave_out=output),
            output,
            model_folder=model,
            overlays=True,
        )
        assert summary.images == 6


def test_a_batch_of_none_and_an_unknown_device_are_refused(model, photographs, tmp_path):
    with pytest.raises(ConfigError, match="batch_size: 0; it must be at least 1"):
        predict_to_folder(Detector.load(model), photographs, tmp_path / "out", model_folder=model, batch_size=0)
    with pytest.raises(ConfigError, match="device: 'abacus' cannot be used here"):
        Detector.load(model, device="abacus")
