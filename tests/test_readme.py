"""What the README shows is what runs: its commands and its Python, on a small folder of parts."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from supersimplenet import SyntheticConfig, synthesize
from supersimplenet.cli import main as cli
from supersimplenet.cli.main import main
from supersimplenet.cli.train import without_model_name

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
RUN = ("train", "test", "predict", "data check", "data split")
SHORT = ["--model.image_size", "[64,64]", "--trainer.max_steps", "2", "--trainer.accelerator", "cpu"]


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """`parts/{good,bad,masks}`, `new_parts` and `samples.csv`, as a reader of the README would have them."""
    config = SyntheticConfig(surfaces=("cast_grain",), size_px=(64, 64), train_good=10, test_good=3, test_per_defect=1)
    surface = synthesize(tmp_path / "drawn", config)[0]
    shutil.copytree(surface / "train" / "good", tmp_path / "parts" / "good")
    shutil.copytree(surface / "test", tmp_path / "parts" / "bad", ignore=lambda _, names: {"good"} & set(names))
    shutil.copytree(surface / "ground_truth", tmp_path / "parts" / "masks")
    shutil.copytree(surface / "test" / "good", tmp_path / "new_parts")
    shutil.copy(tmp_path / "new_parts" / "000.png", tmp_path / "new_parts" / "017.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands() -> list[list[str]]:
    """The indented lines that call the program, continued lines joined."""
    text = README.replace("\\\n", " ")
    return [shlex.split(line, comments=True)[1:] for line in re.findall(r"^    (supersimplenet .*)$", text, re.M)]


def test_the_commands_of_the_readme_run(parts, capsys):
    run = [command for command in commands() if command[0] in RUN or " ".join(command[:2]) in RUN]
    assert [command[0] for command in run] == ["train", "test", "predict", "data", "data"]
    for command in run:
        assert main(command + (SHORT if command[0] == "train" else [])) == 0, command
    assert (parts / "report" / "check.json").is_file()
    assert len((parts / "split.csv").read_text().splitlines()) == 15
    assert (parts / "runs" / "parts" / "metrics.json").is_file()
    assert (parts / "runs" / "parts" / "findings.png").is_file()
    assert (parts / "results" / "predictions.csv").is_file()
    assert len(list((parts / "results" / "overlays").iterdir())) == 4


def test_every_option_of_the_readmes_commands_is_known(parts):
    for folder in ("datasets/MVTecAD/bottle/train/good", "datasets/KSDD2"):
        (parts / folder).mkdir(parents=True)
    parser, _ = cli._build_parser()
    for command in commands():
        parser.parse_args(without_model_name(command))


def test_the_python_of_the_readme_runs(parts, capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 2
    namespace: dict[str, object] = {}
    quick = blocks[0].replace("max_epochs=30", "max_epochs=1").replace("(256, 256)", "(64, 64)")
    assert quick != blocks[0]
    exec(quick, namespace)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[0] in ("good", "bad")
    assert 0 <= float(printed[1]) <= 1
    exec(blocks[1], namespace)
    assert tuple(namespace["output"].map_logit.shape) == (1, 64, 64)
    assert tuple(namespace["output"].score_logit.shape) == (1,)
