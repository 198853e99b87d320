"""`predict` killed at random moments, again and again: its files are those of an undisturbed run, to the byte."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FILES = ["defects.csv", "predictions.csv", "predictions.jsonl", "predictions.parquet"]
JOURNAL = "predictions.partial.jsonl"


def contents(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.iterdir())}


def lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def kill_and_continue(model: Path, tmp_path: Path, *, kills: int, images: int, batch_size: int) -> dict[str, int]:
    """What happened, counted: kills before the first result, among them, and after the last."""
    many = tmp_path / "many"
    many.mkdir()
    for index in range(images):
        path = many / f"{index:05d}.png"
        if index < 50:
            pixels = np.random.default_rng(index).integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
        elif index % 97 == 0:
            path.write_bytes(b"not an image")
        else:
            os.link(many / f"{index % 50:05d}.png", path)
    command = [sys.executable, "-m", "supersimplenet", "predict", "--model", str(model), str(many), "--device", "cpu"]
    command += ["--batch-size", str(batch_size), "--format", "csv,jsonl,parquet", "--on-error", "skip", "--output"]

    def run(output: Path) -> None:
        subprocess.run([*command, str(output)], check=True, capture_output=True)

    started = time.monotonic()
    run(tmp_path / "whole")
    seconds = time.monotonic() - started
    expected = contents(tmp_path / "whole")
    assert sorted(expected) == FILES

    moments = random.Random(0)
    output = tmp_path / "killed"
    journal = output / JOURNAL
    happened = dict.fromkeys(("before", "among", "after", "finished"), 0)
    while sum(happened.values()) - happened["finished"] < kills:
        process = subprocess.Popen([*command, str(output)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        if moments.random() < 0.25:  # any moment of a run: imports, and maybe the writing of the files
            time.sleep(moments.uniform(0, 1.2 * seconds))
        else:  # some results further on, and a little
            target = lines(journal) + moments.randint(1, max(2, 2 * images // kills))
            while process.poll() is None and lines(journal) < min(target, images):
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.02))
        process.kill()
        if process.wait() == 0:
            happened["finished"] += 1
            assert contents(output) == expected
            shutil.rmtree(output)
            continue
        done = lines(journal)
        if (output / "predictions.csv").exists() or done == images:
            happened["after"] += 1
        else:
            happened["among" if done else "before"] += 1
    run(output)
    assert contents(output) == expected
    print(f"{happened}, an undisturbed run of {images} images takes {seconds:.1f} s")
    return happened


@pytest.mark.slow  # the quick tests kill one in tests/test_predict.py
def test_three_kills_leave_the_files_of_an_undisturbed_run(model, tmp_path):
    happened = kill_and_continue(model, tmp_path, kills=3, images=150, batch_size=1)
    assert happened["among"] > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_fifty_kills_leave_the_files_of_an_undisturbed_run(model, tmp_path, batch_size):
    happened = kill_and_continue(model, tmp_path, kills=50, images=1500, batch_size=batch_size)
    assert happened["among"] >= 20


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_fifty_kills_over_all_commands_lose_nothing(tmp_path):
    """Each command ten times, killed at a random moment and called again: files as of an undisturbed call."""
    program = [sys.executable, "-m", "supersimplenet"]
    surface = ["--surfaces", "[brushed_metal]", "--size_px", "[64,64]", "--train_good", "8", "--test_good", "2"]
    subprocess.run([*program, "data", "synthesize", "--output", str(tmp_path / "data"), *surface], check=True)
    source = ["--data", "MVTecAD", "--data.root", str(tmp_path / "data"), "--data.category", "brushed_metal"]
    small = ["--model.backbone", "compact", "--model.image_size", "[64,64]", "--trainer.max_epochs", "4"]
    model, place = tmp_path / "model", tmp_path / "place"
    good = str(tmp_path / "data" / "brushed_metal" / "test" / "good")
    commands = {
        "train": ["train", *source, *small, "--resume", "--output", str(place)],
        "calibrate": ["calibrate", "--model", str(place), "--max-false-alarms", "80%"],  # two parts can guarantee that
        "export": ["export", "--model", str(model), "--format", "onnx", "--output", str(place / "model.onnx")],
        "report": ["report", "--model", str(model), "--output", str(place)],
        "predict": ["predict", "--model", str(model), good, "--output", str(place)],
    }
    subprocess.run([*program, "train", *source, *small, "--output", str(model)], check=True, capture_output=True)
    moments = random.Random(0)
    happened: dict[str, int] = {}

    def call(name: str, *, kill_after_s: float | None = None) -> bool:
        command = [*program, *commands[name]]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            status = process.wait(kill_after_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return True
        assert status == 0, name
        return False

    def prepare(name: str) -> None:
        shutil.rmtree(place, ignore_errors=True)
        if name == "calibrate":
            shutil.copytree(model, place)

    def judged(name: str) -> dict[str, bytes]:
        """What must be equal: without times, and without the certificate's latency in an export."""
        found = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file() and path.name != ".lock"}
        found.pop("config.yaml", None)
        return dict.fromkeys(found, b"") if name == "export" else found

    for name in commands:
        prepare(name)
        started = time.monotonic()
        call(name)
        seconds, expected = time.monotonic() - started, judged(name)
        kills = 0
        while kills < 10:
            prepare(name)
            kills += call(name, kill_after_s=moments.uniform(0.2 * seconds, seconds))
            config = place / "config.yaml"
            if name != "train" or not config.is_file() or "finished: true" not in config.read_text():
                call(name)  # a finished training has nothing to resume
            assert judged(name) == expected, name
        happened[name] = kills
    print(happened)
