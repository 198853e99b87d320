"""What the pages show is what runs: each command is called, or at least parsed, and each Python snippet is executed."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pages import (
    PROGRAM,
    ROOT,
    RUNTIME,
    SHORT,
    blocks,
    command_in,
    indented,
    lines,
    name_of,
    pages,
    prepare,
    train_model,
)

from supersimplenet.cli import main as cli
from supersimplenet.cli.common import with_known_spelling
from supersimplenet.cli.main import main
from supersimplenet.cli.train import without_model_name
from supersimplenet.runtime import __main__ as runtime

# Commands that are parsed and not run, and why.
PARSED = {
    "data download": "fetches gigabytes",
    "supersimplenet demo": "a minute; tests/test_demo.py runs it, smaller",
    "benchmark": "many trainings, or a minute of timing",
    "--data MVTecAD": "a published dataset",
    "--data VisA": "a published dataset",
    "--data KSDD2": "a published dataset",
    "--data SensumSODF": "a published dataset",
    "s3://": "a server",
    "/mnt/line1": "a folder of a camera",
    "--engine ray": "a cluster; tests/test_ray.py runs it",
    "--logger": "a server; tests/test_loggers.py runs it",
    "--trainer.devices": "several processes; tests/test_ddp.py runs them",
    "supersimplenet distill": "weights that are not here; tests/test_distillation.py runs it",
    "resnet18": "weights that are not here",
    "import --source": "weights that are not here; tests/test_interop.py runs it",
    "--resume": "a training that was stopped; tests/test_resume.py runs it",
    "--view.align": "photographs of one part in another place; tests/test_align.py runs it",
    "--cross": "several trainings; tests/test_few_parts.py runs it",
}
# Lines that call other programs: they install, start or open something.
OTHER = (
    r"curl --fail |printf '|openssl |make \w+|source \.venv/bin/activate|pip install |ray start |"
    r"export MLFLOW_TRACKING_URI=|python experiments/\w+\.py|\.venv/bin/python tests/"
)
# What few parts can guarantee; the pages ask for what many can.
FEW = {"calibrate": ["--max-false-alarms", "46%"]}
FEW_ESCAPES = ["--max-escapes", "60%"]
QUICK = (
    ("max_epochs=60", "max_epochs=1"),
    ("(256, 256)", "(64, 64)"),
    ("alarms=0.1", "alarms=0.46"),
    ('ModelConfig(backbone="compact"), time_budget="15m"', 'ModelConfig(backbone="compact", image_size=(64, 64)), '
     'time_budget="1s"'),
)  # fmt: skip
EXECUTED_ELSEWHERE = {
    "docs/deploy.md": "test_runtime.py::test_the_program_of_the_documentation_runs_as_it_stands",
    "docs/station_outputs.md": "test_station_outputs.py::test_the_python_of_the_page_verifies_a_webhook",
    "docs/guides/python.md": "test_readme.py::test_the_python_of_the_guide_runs",
}
WITH_LINES = [page for page in pages() if lines(page)]
WITH_CALLS = [page for page in pages() if indented(page) or any(command_in(line) for line in lines(page))]
RUN_ELSEWHERE = {"docs/start.md": "test_readme.py", "docs/station_signed.md": "test_station_signed.py"}
QUICK_PAGES = {"README.md", "docs/guides/training.md"}  # run each time; the others are slow
RUN = [
    pytest.param(page, id=name_of(page), marks=[] if name_of(page) in QUICK_PAGES else pytest.mark.slow)
    for page in WITH_LINES
    if page in WITH_CALLS and name_of(page) not in RUN_ELSEWHERE
]
WITH_PYTHON = [page for page in pages() if blocks(page, "python") and name_of(page) not in EXECUTED_ELSEWHERE]


def reason_to_parse(line: str) -> str:
    words = " ".join(shlex.split(line, comments=True))
    return next((why for sign, why in PARSED.items() if sign in words), "")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder as a reader has it after a training: `runs/parts`, `runs/new`, and the data."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train_model(folder, Path("runs/parts"))
        shutil.copytree("runs/parts", "runs/new")
    return folder


@pytest.fixture
def place(prepared, tmp_path, monkeypatch):
    """A fresh copy of the prepared folder, in which the test's process is."""
    shutil.copytree(prepared, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


@pytest.mark.parametrize("page", WITH_CALLS, ids=name_of)
def test_every_option_of_every_command_is_known(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("datasets/MVTecAD/bottle/train/good", "datasets/KSDD2", "parts/good"):
        (tmp_path / folder).mkdir(parents=True)
    parser, commands = cli._build_parser()
    for line in [*lines(page), *indented(page)]:
        words = command_in(line)
        if words is None:
            continue
        arguments = words[1:]
        if arguments in (["--version"], ["--help"]):
            continue
        if words[0] == RUNTIME:
            runtime._parser().parse_intermixed_args(arguments)
            continue
        name = next(" ".join(arguments[:n]) for n in (2, 1) if " ".join(arguments[:n]) in commands)
        own = with_known_spelling(without_model_name(arguments), commands[name].parser)
        if "--config" not in own:  # the file is there when the page's commands run
            parser.parse_args([word for word in own if word != "--print_config"])


@pytest.mark.parametrize("page", WITH_LINES, ids=name_of)
def test_other_programs_are_those_that_a_reader_has(page):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    for line in lines(page):
        if command_in(line) is None:
            assert re.match(OTHER, line), f"{line}: neither this program nor a known one"
            if line.startswith("make "):
                assert line.split()[1] in targets


def run(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a line of a page in this process, with what stands before a pipe as its input."""
    words = command_in(line)
    assert words is not None
    if "|" in shlex.split(line, comments=True):
        with Path("piped.txt").open("wb") as piped:
            subprocess.run(shlex.split(line.partition("|")[0]), check=True, stdout=piped)
        with Path("piped.txt").open() as standard_input, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", standard_input)
            assert main(words[1:]) == 0, line
        return
    if words[0] == RUNTIME:
        assert runtime.main(words[1:]) == 0, line
        return
    command = words[1]
    more = FEW.get(command, []) if "--costs" not in words else []
    more = [*more, *(FEW_ESCAPES if "--max-escapes" in words else [])]
    more = [*more, *(SHORT if command == "train" and "--resume" not in words else [])]
    capsys.readouterr()
    if "--print_config" in words:
        with pytest.raises(SystemExit):
            main([*words[1:-1], *more, "--print_config"])
    else:
        assert main([*words[1:], *more]) == 0, line
    if ">" in shlex.split(line, comments=True):
        Path(line.rpartition(">")[2].strip()).write_text(capsys.readouterr().out)


@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_run_one_after_the_other(page, place, monkeypatch, capsys):
    written = " ".join(lines(page))
    if "--output runs/parts" in written:
        shutil.rmtree("runs/parts")
    elif "supersimplenet report" in lines(page):  # of the last model, which the page trains
        shutil.rmtree("runs")
    for line in lines(page):
        words = command_in(line)
        if words and words[1:] not in (["--version"], ["--help"]) and not reason_to_parse(line):
            run(line, monkeypatch, capsys)


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_the_python_of_a_page_runs(page, place, capsys):
    torch.save({"state_dict": {"weight": torch.ones(2)}}, "model.ckpt")
    namespace: dict[str, Any] = {}
    for block in blocks(page, "python"):
        for long, short in QUICK:
            block = block.replace(long, short)
        exec(block, namespace)


def test_each_reason_to_parse_is_still_needed():
    every = [line for page in WITH_CALLS for line in lines(page) if command_in(line)]
    words = [" ".join(shlex.split(line, comments=True)) for line in every]
    for sign in PARSED:
        assert any(sign in line for line in words), f"{sign}: no page has it any more"
    assert sum(not reason_to_parse(line) for line in every) > 40
    assert {command_in(line)[0] for line in every} == {PROGRAM, RUNTIME}


def test_snippets_that_are_run_elsewhere_are_run_there():
    for page, test in EXECUTED_ELSEWHERE.items():
        file, name = test.split("::")
        assert blocks(ROOT / page, "python")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")
