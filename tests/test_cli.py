"""The command line as a user types it, in processes of its own where that matters."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from argparse import SUPPRESS
from pathlib import Path

import pytest
import yaml

from supersimplenet import __version__
from supersimplenet.cli import main as cli
from supersimplenet.cli.main import main

SURFACE = ["--data", "MVTecAD", "--data.category", "brushed_metal"]
SMALL = ["--model.backbone", "compact", "--model.image_size", "[64,64]", "--trainer.accelerator", "cpu"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("surfaces")
    counts = ["--train_good", "6", "--test_good", "2", "--test_per_defect", "1"]
    status = main(
        ["data", "synthesize", "--output", str(root), "--surfaces", "[brushed_metal]", "--size_px", "[64,64]", *counts]
    )
    assert status == 0
    return root


def test_train_test_predict_from_the_command_line(root, tmp_path, capsys):
    model, results = tmp_path / "model", tmp_path / "results"
    train = ["train", *SURFACE, "--data.root", str(root), *SMALL, "--trainer.max_epochs", "1", "--output", str(model)]
    assert main(train) == 0
    assert f"supersimplenet report --model {model}" in capsys.readouterr().out
    assert main(["test", "--model", str(model)]) == 0
    metrics = json.loads((model / "metrics.json").read_text())
    assert metrics["images"] == {"good": 2, "bad": 4, "bad_without_pixel_labels": 0}
    assert 0 <= metrics["I-AUROC"] <= 1
    assert (model / "findings.png").stat().st_size > 10_000
    images = root / "brushed_metal" / "test" / "good"
    assert main(["predict", "--model", str(model), str(images), "--output", str(results), "--overlays"]) == 0
    assert len((results / "predictions.csv").read_text().splitlines()) == 3
    assert len(list((results / "overlays").iterdir())) == 2


def test_the_published_command_works_with_the_program_renamed(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "MVTecAD").symlink_to(root)
    published = ["train", "--model", "SuperSimpleNet", "--data", "MVTecAD", "--data.category", "brushed_metal"]
    assert main([*published, *SMALL, "--trainer.max_steps", "1"]) == 0
    assert (tmp_path / "runs" / "MVTecAD" / "brushed_metal" / "model.safetensors").is_file()


def test_a_yaml_file_holds_options_and_the_command_line_overrides_them(root, tmp_path, capsys):
    config = tmp_path / "run.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "data": {"class_path": "MVTecAD", "init_args": {"category": "brushed_metal", "root": str(root)}},
                "model": {"backbone": "compact", "image_size": [64, 64]},
                "recipe": {"batch_size": 3},
                "trainer": {"max_epochs": 7, "max_steps": 1, "accelerator": "cpu"},
                "seed": 5,
            }
        )
    )
    output = tmp_path / "model"
    assert main(["train", "--config", str(config), "--trainer.max_epochs", "2", "--output", str(output)]) == 0
    record = yaml.safe_load((output / "config.yaml").read_text())
    assert (record["seed"], record["recipe"]["batch_size"], record["trainer"]["max_epochs"]) == (5, 3, 2)


def test_print_config_shows_every_option(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--data", "Folder", "--data.good", "parts", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["recipe"]["perlin_threshold"] == "auto"
    assert printed["trainer"]["max_epochs"] == 300
    assert printed["model"]["backbone"] == "wide_resnet50_2.tv_in1k"
    assert printed["data"]["class_path"].endswith("Folder")


def test_help_explains_every_option():
    commands = [command for group in cli.command_groups().values() for command in group]
    assert {"train", "test", "predict", "synthesize", "speed"} < {command.name for command in commands}
    for command in commands:
        assert command.help
        for action in command.parser._actions:
            assert action.help, f"{command.name}: {action.option_strings or action.dest} has no explanation"


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0
    for command in ("train", "test", "predict", "import", "demo", "data", "benchmark"):
        assert f"\n    {command} " in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train", "--data", "MVTecAD", "--data.root", "no/where", "--data.category", "bottle"],
            "train: --data.root: no/where: no such file or folder; supersimplenet data download MVTecAD",
        ),
        (["train"], "train: data: not given"),
        (["train", "--resume"], "train: output: not given; --resume needs the folder of the interrupted run"),
        (
            ["train", "--resume", "--output", "no/run"],
            "train: no/run: nothing to resume yet; run the train command again",
        ),
        (["test", "--model", "no/model"], "test: --model: no/model: no such folder"),
        (["test", "--model", "no/model", "--device", "abacus"], "test: --model: no/model: no such folder"),
        (
            ["predict", "--model", "no/model", "no/image", "--output", "out"],
            "--model: no/model: no such file or folder",
        ),
    ],
)
def test_a_wrong_path_is_one_message_and_status_2(arguments, message, capsys):
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"supersimplenet {arguments[0]}: " in line
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--recipe.batch_size", "0"], "recipe.batch_size: 0; it must be at least 1"),
        (["train", "--trainer.max_epochs", "-1"], "trainer.max_epochs: -1; it must be 0 or more"),
        (["train", "--model.image_size", "[16,16]"], "each side at least 32 px"),
        (["train", "--recipe.perlin_treshold", "0.3"], "perlin_treshold"),
        (["train", "--model", "PatchCore"], "this program trains SuperSimpleNet; found --model PatchCore"),
    ],
)
def test_wrong_options_are_refused_by_name(arguments, message, capsys):
    try:
        status = main([*arguments, "--data", "Folder", "--data.good", "."])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert message in capsys.readouterr().err


def test_the_module_and_the_command_are_the_same():
    versions = [
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
        for command in (
            [sys.executable, "-m", "supersimplenet", "--version"],
            [str(Path(sys.executable).with_name("supersimplenet")), "--version"],
        )
    ]
    assert versions[0] == versions[1] == f"supersimplenet {__version__}\n"


def test_help_does_not_wait_for_torch():
    code = "import sys, supersimplenet.cli.main as cli; cli._build_parser(); print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed == "False\n"


def test_the_program_lets_waiting_threads_sleep_unless_told_otherwise(monkeypatch, capsys):
    for given, found in ((None, "1000"), ("77", "77")):
        monkeypatch.setenv("GOMP_SPINCOUNT", given) if given else monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
        with pytest.raises(SystemExit):
            main(["--version"])
        assert os.environ["GOMP_SPINCOUNT"] == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--supervision", "fully"], "--supervision: 'fully'; choose among 'auto', 'unsupervised', 'weak', 'mixed'"),
        (["--data", "folder"], "--data: 'folder' is none of MVTecAD, "),
        (["--model.image_size", "128"], "--model.image_size: '128'; wanted two whole numbers, such as '[256,256]'"),
        (["--supervison", "weak"], "unrecognized arguments: --supervison; did you mean --supervision?; --help"),
        (["--batch-size", "8"], "unrecognized arguments: --batch-size; did you mean --recipe.batch_size?; --help"),
        (["--frobnicate", "8"], "unrecognized arguments: --frobnicate; --help explains"),
    ],
)
def test_a_slip_of_typing_is_said_in_a_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", *arguments])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(("given", "found"), [(None, "1000"), ("5", "5")])
def test_from_python_too_waiting_threads_sleep(given, found):
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    environment |= {"GOMP_SPINCOUNT": given} if given else {}
    code = (
        "import os, sys; from supersimplenet import Folder; assert 'torch' not in sys.modules; "
        "print(os.environ['GOMP_SPINCOUNT'])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found


def test_help_shows_the_basic_options_and_all_of_them_on_request(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    short = capsys.readouterr().out
    assert stop.value.code == 0
    assert short.startswith("usage: supersimplenet train [options] [PATH]\n")
    assert len(short.splitlines()) < 90
    assert "--time-budget" in short
    assert "--recipe.noise_std" not in short
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help", "all"])
    whole = capsys.readouterr().out
    assert stop.value.code == 0
    shown = [set(re.findall(r"^  (?:-h, )?(--[\w.-]+)", text, re.MULTILINE)) for text in (short, whole)]
    parser = next(command.parser for command in cli.command_groups()[""] if command.name == "train")
    every = {a.option_strings[-1] for a in parser._actions if a.option_strings and a.help != SUPPRESS}
    assert {option.removesuffix("+") for option in every} - {o.removesuffix("+") for o in shown[1]} == set()
    hidden = int(re.search(r"(\d+) more options: supersimplenet train --help all", short)[1])
    assert len(shown[1] - shown[0]) == hidden
