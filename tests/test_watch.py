"""`predict --watch`: every file of the line is taken or reported, whatever it is, and the watching goes on."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from supersimplenet import Detector
from supersimplenet.prediction import watch
from supersimplenet.prediction.job import predict_to_folder
from supersimplenet.prediction.watch import Arrivals

YEAR_S = 365 * 24 * 3600


@pytest.fixture
def line(tmp_path: Path) -> Path:
    folder = tmp_path / "line"
    folder.mkdir()
    return folder


def photograph(path: Path, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


class Looks:
    """A watched folder, look by look, and what it reports."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.reports: list[str] = []
        self.stop = threading.Event()
        self.arrivals = Arrivals(folder, every_s=0.001, stop=self.stop, report=self.reports.append, **options)
        self._images = iter(self.arrivals)

    def look(self) -> list[str]:
        """The names of what one look gives."""
        return [path.name for path in itertools.takewhile(lambda path: path is not None, self._images)]

    def looks(self, number: int) -> list[str]:
        return [name for _ in range(number) for name in self.look()]

    def end(self) -> None:
        self.stop.set()
        assert [path for path in self._images if path is not None] == []


@pytest.mark.parametrize("date_s", [0, 1, -YEAR_S, 2**32, 2**33])  # two of them in the future
def test_files_of_any_date_are_taken_once(line, date_s):
    os.utime(photograph(line / "1.png"), (date_s, date_s))
    watched = Looks(line)
    assert watched.looks(4) == ["1.png"]
    os.utime(line / "1.png", (date_s, date_s - 1))  # changed, to an older date
    assert watched.looks(3) == ["1.png"]


def test_empty_files_are_waited_for_and_then_given(line):
    (line / "1.png").touch()
    (line / "2.png").touch()
    watched = Looks(line, empty_for_s=0.05)
    assert watched.looks(3) == []
    (line / "2.png").write_bytes(b"grown")
    assert watched.looks(3) == ["2.png"]
    time.sleep(0.06)
    assert watched.looks(3) == ["1.png"]  # for its error
    (line / "1.png").write_bytes(b"grown")
    assert watched.looks(3) == ["1.png"]
    assert watched.reports == []


def test_what_is_still_waited_for_at_the_end_is_named(line):
    (line / "empty.png").touch()
    watched = Looks(line)
    watched.look()
    (line / "growing.png").write_bytes(b"half")
    watched.look()
    watched.end()
    named = f"{line}/empty.png, {line}/growing.png"
    assert watched.reports == [f"watch: not read, because empty, or still changing at the end: {named}"]


def test_what_is_no_image_is_reported_once_each(line):
    watched = Looks(line)
    assert watched.look() == []
    os.mkfifo(line / "pipe.png")
    (line / "gone.png").symlink_to("nowhere.png")
    (line / "a.heic").touch()
    (line / ".b.png").touch()
    (line / "up").symlink_to(".")
    assert watched.looks(5) == []
    assert watched.reports == [
        f"watch: {line}/.b.png: left out (hidden picture)",
        f"watch: {line}/a.heic: left out (.heic)",
        f"watch: {line}/gone.png: left out (link to nothing)",
        f"watch: {line}/pipe.png: left out (special file)",
        f"watch: {line}/up: left out (link to a folder that is listed already)",
    ]
    photograph(line / "nowhere.png")  # now the link leads to something
    assert sorted(watched.looks(3)) == ["gone.png", "nowhere.png"]


def test_a_folder_that_vanishes_and_comes_back_is_gone_on_with(line, tmp_path):
    photograph(line / "1.png")
    watched = Looks(line)
    assert watched.looks(2) == ["1.png"]
    line.rename(tmp_path / "away")
    assert watched.looks(3) == []
    assert watched.reports == [f"watch: {line}: the folder is not there; it is waited for"]
    (tmp_path / "away").rename(line)
    photograph(line / "2.png")
    assert watched.looks(3) == ["2.png"]
    shutil.rmtree(line)
    assert watched.looks(2) == []
    assert len(watched.reports) == 2  # it is a second time


def test_a_folder_that_cannot_be_read_is_reported_and_the_others_are_watched(line, monkeypatch):
    (line / "locked").mkdir()
    photograph(line / "locked" / "1.png")
    photograph(line / "2.png")
    scandir, failing = os.scandir, threading.Event()

    def sometimes(path):
        if failing.is_set() and os.fspath(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("supersimplenet.preprocessing.listing.os.scandir", sometimes)
    failing.set()
    watched = Looks(line)
    assert watched.looks(3) == ["2.png"]
    assert watched.reports == [f"watch: {line}/locked: left out (folder that cannot be read)"]
    failing.clear()
    assert watched.looks(3) == ["1.png"]


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def run(model: Path, line: Path, output: Path) -> list[tuple[str, bool]]:
    arrivals = Arrivals(line, every_s=0.01, until_s=0.05)
    predict_to_folder(Detector.load(model), arrivals, output, model_folder=model, on_error="skip")
    return [(Path(row["path"]).name, not row["error"]) for row in rows(output)]


def test_an_image_that_changed_while_nothing_ran_is_predicted_again(model, line, tmp_path):
    output = tmp_path / "out"
    dated = (1_000_000_000, 1_000_000_000)
    for number in (1, 2):
        os.utime(photograph(line / f"{number}.png", number), dated)
    assert run(model, line, output) == [("1.png", True), ("2.png", True)]
    assert run(model, line, output) == [("1.png", True), ("2.png", True)]
    first = rows(output)[1]["map_max_logit"]
    photograph(line / "2.png", 9)
    os.utime(line / "2.png", (0, 0))  # another picture, with a date before the run
    assert run(model, line, output) == [("1.png", True), ("2.png", True), ("2.png", True)]
    assert rows(output)[2]["map_max_logit"] != first
    assert "seen" not in json.loads((output / "predictions.jsonl").read_text().splitlines()[0])


def test_a_journal_without_sizes_and_dates_is_gone_on_with(model, line, tmp_path):
    output = tmp_path / "out"
    photograph(line / "1.png")
    run(model, line, output)
    journal = output / "predictions.partial.jsonl"
    row = json.loads(journal.read_text())
    del row["seen"]
    journal.write_text(json.dumps(row) + "\n")
    assert run(model, line, output) == [("1.png", True)]
    os.utime(line / "1.png", (time.time() + 10, time.time() + 10))
    assert run(model, line, output) == [("1.png", True), ("1.png", True)]


def test_tables_are_written_while_it_is_watched(model, line, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "_TABLES_EVERY_S", 0.0)
    output, stop = tmp_path / "out", threading.Event()
    photograph(line / "1.png")
    seen: list[int] = []

    class Watched(Arrivals):
        def __iter__(self) -> Iterator[Path | None]:
            for image in super().__iter__():
                yield image
                if image is None and (output / "predictions.csv").is_file():
                    seen.append(len(rows(output)))
                    if len(seen) == 1:
                        photograph(line / "2.png", 2)
                    elif seen[-1] == 2:
                        stop.set()

    each: list[str] = []
    predict_to_folder(
        Detector.load(model),
        Watched(line, every_s=0.01, stop=stop),
        output,
        model_folder=model,
        each=lambda row: each.append(Path(row["path"]).name),
    )
    assert seen[0] == 1
    assert seen[-1] == 2
    assert each == ["1.png", "2.png"]


def test_the_command_goes_on_over_unreadable_images_and_prints_a_line_for_each(model, line, tmp_path):
    photograph(line / "1.png")
    (line / "2.png").write_bytes(b"no image")
    os.mkfifo(line / "3.png")
    output = tmp_path / "out"
    command = [sys.executable, "-m", "supersimplenet", "predict", "--model", str(model), "--watch", str(line)]
    process = subprocess.Popen(
        [*command, "--output", str(output), "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = [process.stdout.readline() for _ in range(2)]
    photograph(line / "4.png", 4)
    lines.append(process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    table = rows(output)
    assert [Path(row["path"]).name for row in table] == ["1.png", "2.png", "4.png"]
    for text, row in zip(lines, table, strict=True):
        score = "" if row["error"] else f"{float(row['score_logit']):.3f}"
        assert text == f"{row['path']}\t{row['verdict'] or 'error'}\t{score}\n"
    assert f"{line}/2.png: not a readable image" in errors
    assert errors.count(f"watch: {line}/3.png: left out (special file)") == 1
    assert "3 images: " in printed
