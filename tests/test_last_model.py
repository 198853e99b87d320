"""Commands without --model take the last model that was trained below runs/, and say which."""

from __future__ import annotations

import os
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from supersimplenet.cli.last_model import named_or_last
from supersimplenet.cli.main import main
from supersimplenet.errors import ConfigError


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(model: Path, name: str, minute: int) -> Path:
    folder = Path("runs") / name
    shutil.copytree(model, folder)
    ended = datetime(2026, 3, 4, 15, minute, 30).timestamp()
    os.utime(folder / "config.yaml", (ended, ended))
    return folder


def test_the_newest_finished_model_is_taken_and_named(model, place, capsys):
    put(model, "parts", 10)
    newest = put(model, "sets/parts-2", 20)
    put(model, "sets/parts-2/instant", 40)  # a part of that model
    (put(model, "unfinished", 30) / "model.safetensors").unlink()
    (Path("runs") / "other").mkdir()
    (Path("runs") / "other" / "config.yaml").write_text("seed: 3\n")
    assert named_or_last(None) == newest
    assert capsys.readouterr().err == (
        "model: runs/sets/parts-2, trained 2026-03-04 15:20 (the last one; --model names another)\n"
    )
    assert named_or_last(Path("runs/parts")) == Path("runs/parts")
    put(model, "twin", 20)
    with pytest.raises(ConfigError, match="the last two models are of the same minute, 2026-03-04 15:20; say --model"):
        named_or_last(None)


def test_without_a_model_it_is_said_what_there_is(model, place):
    with pytest.raises(ConfigError, match=r"there is no finished model below runs/; name one$"):
        named_or_last(None)
    (put(model, "parts", 10) / "model.safetensors").unlink()
    put(model, "parts/instant", 5)
    with pytest.raises(ConfigError, match="the first detector is --model runs/parts/instant"):
        named_or_last(None)


def test_predict_writes_into_the_model_by_default(model, place, capsys):
    folder = put(model, "parts", 10)
    pixels = np.random.default_rng(3).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Path("photos").mkdir()
    Image.fromarray(pixels).save("photos/1.png")
    assert main(["predict", "photos"]) == 0
    said = capsys.readouterr()
    assert "model: runs/parts" in said.err
    assert f"results: {folder / 'predictions' / 'predictions.csv'}" in said.out
    assert main(["predict", "photos"]) == 0  # the results are no second model
    Path("parts.onnx").write_bytes(b"an exported file")
    assert main(["predict", "--model", "parts.onnx", "photos"]) == 2
    assert "--output: not given; wanted with parts.onnx" in capsys.readouterr().err
