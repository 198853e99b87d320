"""README, Start and the guide of Python: what their commands and snippets leave and print; the public signatures."""

from __future__ import annotations

import inspect
import re
from operator import attrgetter
from typing import Any

import pytest
from pages import ROOT, SHORT, blocks, command_in, lines, prepare, train_model
from PIL import Image

import supersimplenet
from supersimplenet.cli.main import main
from supersimplenet.runtime import Inspector

README = ROOT / "README.md"
START = ROOT / "docs" / "start.md"
GUIDE = ROOT / "docs" / "guides" / "python.md"


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """The folders that a reader has, and nothing that was trained."""
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_is_short_and_shows_one_way():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150
    assert [command[1] for command in map(command_in, lines(README)) if command] == [
        *("data", "train", "report", "predict"),
    ]


def test_the_commands_of_start_leave_what_they_say(parts, capsys):
    commands = [command[1:] for command in map(command_in, lines(START)) if command]
    assert [command[0] for command in commands] == ["data", "train", "report", "predict", "calibrate"]
    for command in commands:
        few = ["--max-false-alarms", "46%"]  # what six parts can guarantee
        more = {"train": SHORT, "calibrate": few}.get(command[0], [])
        assert main(command + more) == 0, command
    assert (parts / "check" / "check.json").is_file()
    assert (parts / "runs" / "parts" / "instant" / "model.safetensors").is_file()
    model = parts / "runs" / "parts"
    assert (model / "report" / "report.html").is_file()
    assert (model / "calibration.png").is_file()
    assert (model / "predictions" / "predictions.csv").is_file()
    assert (model / "predictions" / "defects.csv").is_file()
    assert len(list((model / "predictions" / "overlays").iterdir())) == 4


PUBLIC = ("Detector.load", "Folder", "train", "evaluate", "calibrate", "export_model", "compare", "write_report")


def signature(name: str) -> str:
    """A call's arguments and their defaults, without types, as the guide prints them."""
    function = attrgetter(name)(supersimplenet)
    shown: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        default = parameter.default
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        if default is parameter.empty:
            shown.append(parameter.name)
        elif callable(default):
            shown.append(f"{parameter.name}=...")
        else:
            plain = default is None or isinstance(default, str | int | float | tuple)
            shown.append(f"{parameter.name}={repr(default) if plain else f'{type(default).__name__}()'}")
    return f"{name}({', '.join(shown)})".replace("'", '"')


def test_the_guide_prints_the_public_signatures():
    block = blocks(GUIDE, "text")
    assert len(block) == 1
    assert re.sub(r"\n +", " ", block[0]).splitlines() == [signature(name) for name in PUBLIC]


@pytest.mark.slow
def test_the_python_of_the_guide_runs(parts, capsys):
    whole, network = blocks(GUIDE, "python")
    quick = whole
    for long, short in (("max_epochs=60", "max_epochs=1"), ("(256, 256)", "(64, 64)"), ("alarms=0.1", "alarms=0.46")):
        assert long in quick
        quick = quick.replace(long, short)
    train_model(parts, parts / "runs" / "parts")
    capsys.readouterr()
    namespace: dict[str, Any] = {}
    exec(quick, namespace)
    printed = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(("trained", "test it"))]
    assert "of good parts are called bad, with 95 % confidence" in printed[0]
    assert printed[1].startswith("Prediction(new_parts/017.png: ")
    assert printed[2].split()[0] in ("good", "unsure", "bad")
    assert all(0 <= float(value) <= 1 for value in printed[3].split())
    assert 0 <= float(printed[4]) <= 1
    with Image.open("017.png") as overlay:
        assert overlay.size[0] >= 64
    assert (parts / "report_again" / "report.html").is_file()
    assert Inspector.load(parts / "parts_again.onnx").predict(
        parts / "new_parts" / "017.png"
    ).score_logit == pytest.approx(namespace["prediction"].score_logit, abs=1e-4)
    exec(network, namespace)
    assert tuple(namespace["output"].map_logit.shape) == (1, 64, 64)
    assert tuple(namespace["output"].score_logit.shape) == (1,)
