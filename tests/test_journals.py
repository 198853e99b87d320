"""Journals and the identity of a run: damage is found, nothing wrong is continued."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from supersimplenet import Detector, ModelConfig, SuperSimpleNet
from supersimplenet.errors import DataError, ImageError, OutputError
from supersimplenet.evaluation.calibrate import calibrate
from supersimplenet.evaluation.config import ThresholdConfig
from supersimplenet.inference.model_folder import save_model
from supersimplenet.prediction.job import predict_to_folder
from supersimplenet.prediction.watch import Arrivals
from supersimplenet.utils.journals import Kept, append_line, as_line, cut_journal, mend_journal, read_journal

ROWS = [{"path": f"{name}.png", "score": index / 3, "error": None} for index, name in enumerate("äbc")]
JOURNAL, IDENTITY = "predictions.partial.jsonl", "predictions.partial.json"


def test_a_flipped_byte_anywhere_drops_rows_and_never_changes_one(tmp_path):
    content = b"".join(map(as_line, ROWS))
    starts = [0, *np.cumsum([len(as_line(row)) for row in ROWS]).tolist()]
    journal = tmp_path / "journal"
    for place in range(len(content)):
        broken = bytearray(content)
        broken[place] ^= 1 << place % 8
        journal.write_bytes(broken)
        before = sum(start <= place for start in starts[1:])  # number of rows before the damaged one
        # A broken line end joins two lines, and a new one divides a line.
        assert cut_journal(journal, 1, first="path").rows == before
        assert list(read_journal(journal, first="path")) == ROWS[:before]
        journal.write_bytes(broken)
        kept = mend_journal(journal, first="path")
        left = list(read_journal(journal, first="path"))
        assert kept.rows == len(left) >= 1
        assert all(row in ROWS for row in left)


def test_lines_of_version_0_1_are_read_and_garbage_is_not(tmp_path):
    journal = tmp_path / "journal"
    old = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
    journal.write_bytes(old + as_line(ROWS[0]))
    assert list(read_journal(journal, first="path")) == [*ROWS, ROWS[0]]
    garbage = [b"\x00\xff\n", b"\n", b"[" * 100_000 + b"\n", b'{"other": 1}\n', b"null\n", b"{}\n"]
    for line in garbage:
        journal.write_bytes(old + line + as_line(ROWS[0]))
        with pytest.raises(DataError, match="journal, line 4: damaged"):
            list(read_journal(journal, first="path"))
        assert cut_journal(journal, 2, first="path") == Kept(2, damaged=1, dropped=3)
    journal.write_bytes(b"")
    assert cut_journal(journal, 1, first="path") == Kept(0)
    append_line(journal, ROWS[1])
    assert list(read_journal(journal, first="path")) == ROWS[1:2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=(64, 64)), seed=1)
    save_model(folder, network.eval(), {"image_score": "head"})
    return folder


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    (tmp_path / "photographs").mkdir()
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photographs" / f"{index}.png")
    return sorted((tmp_path / "photographs").iterdir())


def interrupted(model: Path, photographs: list[Path], output: Path) -> None:
    """A run that ended at an unreadable fifth image, which is readable now."""
    good = photographs[4].read_bytes()
    photographs[4].write_bytes(b"")
    with pytest.raises(ImageError):
        predict_to_folder(Detector.load(model, device="cpu"), photographs, output, model_folder=model)
    photographs[4].write_bytes(good)


def test_rows_after_a_damaged_line_are_predicted_again(model, photographs, tmp_path, capsys):
    detector = Detector.load(model, device="cpu")
    whole = predict_to_folder(detector, photographs, tmp_path / "whole", model_folder=model)
    output = tmp_path / "out"
    interrupted(model, photographs, output)
    content = bytearray((output / JOURNAL).read_bytes())
    assert content.count(b"\n") == 4
    content[content.index(b'"score_logit": ') + 16 + content.index(b"\n")] ^= 1  # somewhere in the second row
    (output / JOURNAL).write_bytes(content)
    summary = predict_to_folder(detector, photographs, output, model_folder=model)
    assert (summary.images, summary.continued) == (6, 1)
    assert summary.table.read_bytes() == whole.table.read_bytes()
    assert "1 damaged line; 3 rows dropped, whose images are predicted again" in capsys.readouterr().err
    assert sorted(path.name for path in output.iterdir()) == ["defects.csv", "predictions.csv", "predictions.jsonl"]


def test_a_watched_folder_keeps_the_rows_around_a_damaged_line(model, photographs, tmp_path):
    detector, output = Detector.load(model, device="cpu"), tmp_path / "out"
    folder = photographs[0].parent

    def watched() -> list[str]:
        stop = threading.Event()
        arrivals = Arrivals(folder, every_s=0.01, until_s=0.05, stop=stop)
        predict_to_folder(detector, arrivals, output, model_folder=model)
        return [row["path"] for row in read_journal(output / JOURNAL, first="path")]

    names = watched()
    lines = (output / JOURNAL).read_bytes().splitlines(keepends=True)
    (output / JOURNAL).write_bytes(lines[0] + b"garbage\n" + b"".join(lines[2:]))
    photographs[5].unlink()  # what is gone cannot be predicted again, so its row must stay
    assert watched() == [names[0], *names[2:], names[1]]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("config", "model.config.yaml"),
        ("weights", "model.model.safetensors"),
        ("roi", "model.roi.png unset there"),
        ("precision", "computation torch float32 on cpu there, torch bfloat16 on cpu here"),
        ("batch", "batch_size 1 there, 3 here"),
        ("overlays", "overlays False there, True here"),
        ("list_all", "list_all False there, True here"),
        ("image_score", "model.calibration.yaml unset there"),
        ("version", "supersimplenet 0.0.1 there"),
    ],
)
def test_a_run_is_not_continued_by_another(change, named, model, photographs, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    output = tmp_path / "out"
    interrupted(copy, photographs, output)
    options = {}
    precision = "bfloat16" if change == "precision" else "float32"
    if change == "config":
        record = yaml.safe_load((copy / "config.yaml").read_text())
        (copy / "config.yaml").write_text(yaml.safe_dump({**record, "image_score": "map"}, sort_keys=False))
    elif change == "weights":
        network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=(64, 64)), seed=2)
        save_model(copy, network.eval(), {"image_score": "head"})
    elif change == "roi":
        (copy / "roi.png").write_bytes(b"any")
    elif change == "batch":
        options["batch_size"] = 3
    elif change == "overlays":
        options["overlays"] = True
    elif change == "version":
        identity = json.loads((output / IDENTITY).read_text())
        (output / IDENTITY).write_text(json.dumps({**identity, "supersimplenet": "0.0.1"}))
    elif change == "image_score":
        good = [photographs[0].parent]
        calibrate(copy, good=good, image_score="map", config=ThresholdConfig(lenient=True))
    journal = (output / JOURNAL).read_bytes()
    detector = Detector.load(copy, device="cpu", precision=precision)
    detector.list_all = change == "list_all"
    with pytest.raises(OutputError, match=named) as refused:
        predict_to_folder(detector, photographs, output, model_folder=copy, **options)
    assert "\n" not in str(refused.value)
    assert (output / JOURNAL).read_bytes() == journal


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"\xff\xfe"])
def test_a_journal_whose_identity_is_lost_is_refused(content, model, photographs, tmp_path):
    output = tmp_path / "out"
    interrupted(model, photographs, output)
    (output / IDENTITY).unlink()
    if content is not None:
        (output / IDENTITY).write_bytes(content)
    with pytest.raises(OutputError, match=rf"{IDENTITY}: (missing|damaged), so the model of the interrupted run"):
        predict_to_folder(Detector.load(model, device="cpu"), photographs, output, model_folder=model)


def test_a_run_that_fails_before_its_first_row_leaves_nothing(model, photographs, tmp_path):
    photographs[0].write_bytes(b"")
    with pytest.raises(ImageError):
        predict_to_folder(Detector.load(model, device="cpu"), photographs, tmp_path / "out", model_folder=model)
    assert not (tmp_path / "out").exists()
