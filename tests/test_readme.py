"""What the README shows is what runs: its commands and its Python, on a small folder of parts."""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import supersimplenet
from supersimplenet import SyntheticConfig, synthesize
from supersimplenet.cli import main as cli
from supersimplenet.cli.main import main
from supersimplenet.cli.train import without_model_name
from supersimplenet.runtime import Inspector

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
RUN = ("train", "report", "predict", "data check", "calibrate", "gate", "data split")
SHORT = ["--model.image_size", "[64,64]", "--trainer.max_steps", "2", "--trainer.accelerator", "cpu"]


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """`parts/{good,bad,masks}`, `new_parts` and `more_good`, as a reader of the README would have them."""
    config = SyntheticConfig(surfaces=("cast_grain",), size_px=(64, 64), train_good=10, test_good=3, test_per_defect=1)
    surface = synthesize(tmp_path / "drawn", config)[0]
    shutil.copytree(surface / "train" / "good", tmp_path / "parts" / "good")
    shutil.copytree(surface / "test", tmp_path / "parts" / "bad", ignore=lambda _, names: {"good"} & set(names))
    shutil.copytree(surface / "ground_truth", tmp_path / "parts" / "masks")
    shutil.copytree(surface / "test" / "good", tmp_path / "new_parts")
    shutil.copy(tmp_path / "new_parts" / "000.png", tmp_path / "new_parts" / "017.png")
    more = SyntheticConfig(
        surfaces=("cast_grain",), size_px=(64, 64), train_good=5, test_good=1, test_per_defect=1, seed=1
    )
    shutil.copytree(synthesize(tmp_path / "more", more)[0] / "train" / "good", tmp_path / "more_good")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands() -> list[list[str]]:
    """The indented lines that call the program, continued lines joined."""
    text = README.replace("\\\n", " ")
    return [shlex.split(line, comments=True)[1:] for line in re.findall(r"^    (supersimplenet .*)$", text, re.M)]


def test_the_commands_of_the_readme_run(parts, capsys):
    run = [command for command in commands() if command[0] in RUN or " ".join(command[:2]) in RUN]
    run = [command for command in run if not any(option.startswith("--view") for option in command)]
    order = ["train", "report", "predict", "data", "calibrate", "report", "gate", "data"]
    assert [command[0] for command in run] == order
    for command in run:
        if command[0] == "gate":
            shutil.copytree(parts / "runs" / "parts", parts / "runs" / "new")
            # Parts that neither model was trained on.
            bad = sorted((parts / "more" / "cast_grain" / "ground_truth").iterdir())[0].name
            rows = ["image,split,label", "more_good/000.png,test,good", f"more/cast_grain/test/{bad}/000.png,test,bad"]
            (parts / "golden.csv").write_text("\n".join(rows))
        few = ["--max-false-alarms", "46%"]  # what five parts can guarantee
        more = {"train": SHORT, "calibrate": few}.get(command[0], [])
        assert main(command + more) == 0, command
    assert (parts / "check" / "check.json").is_file()
    assert len((parts / "split.csv").read_text().splitlines()) == 15
    assert (parts / "report" / "report.html").is_file()
    assert (parts / "runs" / "parts" / "calibration.png").is_file()
    assert (parts / "results" / "predictions.csv").is_file()
    assert (parts / "results" / "defects.csv").is_file()
    assert len(list((parts / "results" / "overlays").iterdir())) == 4


def test_every_option_of_the_readmes_commands_is_known(parts):
    for folder in ("datasets/MVTecAD/bottle/train/good", "datasets/KSDD2"):
        (parts / folder).mkdir(parents=True)
    parser, _ = cli._build_parser()
    for command in commands():
        parser.parse_args(without_model_name(command))


PUBLIC = ("Detector.load", "Folder", "train", "evaluate", "calibrate", "export_model", "compare", "write_report")


def signature(name: str) -> str:
    """A call's arguments and their defaults, without types, as the README prints them."""
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


def test_the_readme_prints_the_public_signatures():
    block = re.findall(r"```text\n(.*?)```", README, re.S)
    assert len(block) == 1
    assert re.sub(r"\n +", " ", block[0]).splitlines() == [signature(name) for name in PUBLIC]


def test_the_python_of_the_readme_runs(parts, capsys):
    whole, network = re.findall(r"```python\n(.*?)```", README, re.S)
    quick = whole
    for long, short in (("max_epochs=60", "max_epochs=1"), ("(256, 256)", "(64, 64)"), ("alarms=0.1", "alarms=0.46")):
        assert long in quick
        quick = quick.replace(long, short)
    shutil.copytree(make_model(parts), parts / "runs" / "parts")
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


def make_model(parts: Path) -> Path:
    """The model that the README's commands train, in a folder beside."""
    command = next(command for command in commands() if command[0] == "train")
    place = command.index("--output") + 1
    assert main([*command[:place], str(parts / "earlier"), *command[place + 1 :], *SHORT]) == 0
    return parts / "earlier"
