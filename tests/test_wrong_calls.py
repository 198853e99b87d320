"""Wrong calls: each ends with status 2 and one line that says what was wanted, before torch is imported."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from supersimplenet.cli import main as cli
from supersimplenet.cli.main import main
from supersimplenet.runtime.__main__ import main as runtime

DATA = ["--data", "Folder", "--data.good", "good"]
RIGHT = {  # for each command a call that is right, as far as it can be told before torch is imported
    "train": [*DATA, "--output", "out"],
    "test": ["--model", "model"],
    "calibrate": ["--model", "model"],
    "report": ["--model", "model", "--output", "out"],
    "gate": ["--candidate", "model", "--current", "model", "--golden", "text.txt"],
    "predict": ["--model", "model", "good", "--output", "out"],
    "export": ["--model", "model", "--format", "onnx", "--output", "out.onnx"],
    "distill": ["good", "--output", "out"],
    "import": ["--source", "official", "text.txt", "--output", "out"],
    "demo": ["--output", "out"],
    "data synthesize": ["--output", "out"],
    "data download": ["KSDD2", "--output", "out"],
    "data check": DATA,
    "data convert": ["--images", "good", "--annotations", "good", "--format", "voc", "--output", "out"],
    "data split": [*DATA, "--output", "split.csv"],
    "serve": ["--model", "model", "--folder", "out"],
    "datasets list": ["--folder", "good"],
    "datasets import": ["parts", "good", "--folder", "out"],
    "datasets gather": ["parts", "--product", "parts", "--folder", "good"],
    "datasets diff": ["parts", "1", "2", "--folder", "good"],
    "datasets export": ["parts", "--output", "out", "--folder", "good"],
    "registry list": ["--folder", "good"],
    "registry add": ["model", "--product", "parts", "--folder", "out"],
    "registry train": ["--product", "parts", "--dataset", "parts", "--folder", "good"],
    "registry resume": ["1", "--folder", "good"],
    "registry compare": ["1", "--folder", "good"],
    "registry shadow": ["1", "--folder", "good"],
    "registry diff": ["1", "2", "--folder", "good"],
    "registry mirror": ["--server", "sqlite://", "--folder", "good"],
    "registry promote": ["1", "--folder", "good"],
    "registry rollback": ["--product", "parts", "--folder", "good"],
    "review export": ["--product", "parts", "--who", "anna", "--output", "out", "--folder", "good"],
    "review import": ["text.txt", "--who", "anna", "--folder", "good"],
    "station add-user": ["anna", "--role", "operator", "--folder", "out"],
    "station change-user": ["anna", "--disabled", "true", "--folder", "good"],
    "station add-token": ["line-1", "--role", "operator", "--folder", "out"],
    "station revoke-token": ["line-1", "--folder", "good"],
    "station users": ["--folder", "good"],
    "station audit": ["--folder", "good"],
    "station outbox": ["--folder", "good"],
    "station export": ["--output", "results.csv", "--folder", "good"],
    "station verify": ["text.txt", "--key", "text.txt"],
    "benchmark speed": ["--output", "speed.json"],
    "benchmark accuracy": ["--data", "MVTecAD", "--data.root", "good", "--output", "out"],
}
VALUES = [
    "",
    "x",
    "-1.5",
    ".nan",
    "-.inf",
    "1e400",
    "9" * 400,
    "[1,2",
    "{a: 1}",
    "\U0001f642\u202e",
    "\x1b[31m",
]
# Options that take any text or any name, or one that only a library, the hub or the machine can tell.
FREE = {
    "--output",
    "--folder",
    "--save",
    "--model.backbone",
    "--trainer.accelerator",
    "--address",
    "--backbone",
    "--categories",
    "--devices",
}
PATHS = {"--model", "--good", "--bad", "--compare", "--candidate", "--current", "--golden", "--list", "--watch"}
PATHS |= {
    "--archive",
    "--images",
    "--head",
    "--sign",
    "--verify",
    "--key",
    "--view.roi",
    "--view.reference",
    "--model.backbone_weights",
}


@pytest.fixture(scope="module", autouse=True)
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder, before = tmp_path_factory.mktemp("room"), Path.cwd()
    for name in ("good", "empty", "model"):
        (folder / name).mkdir()
    Image.new("RGB", (40, 40)).save(folder / "good" / "a.png")
    (folder / "model" / "config.yaml").write_text("a: 1\n")
    (folder / "text.txt").write_text("hello\n")
    (folder / "broken.yaml").write_text("a: [1\n")
    (folder / "other.yaml").write_text("nonsense: 3\n")
    (folder / "wrong.yaml").write_text("seed: x\n")
    (folder / "deep.yaml").write_text("[" * 5000)
    (folder / "nul.yaml").write_text('output: "a\\0b"\n')
    (folder / "bytes.yaml").write_bytes(b"seed: \xff\n")
    os.chdir(folder)
    yield folder
    os.chdir(before)


def campaign() -> list[list[str]]:
    """Return wrong calls, drawn from what the parsers know: each option of each command, at least once."""
    rng = random.Random(27)
    calls = []
    for name, command in cli._build_parser()[1].items():
        right = [*name.split(), *RIGHT[name]]
        calls += [[*right, "--frobnicate", "1"], [*right, "--help.x"]]
        if name != "demo" and "speed" not in name:
            calls.append(name.split())
        for action in command.parser._actions:
            option = next((text for text in action.option_strings if text.startswith("--")), None)
            if option is None or "help" in option or "config" in option:
                continue
            if action.nargs != 0:
                calls.append([*right, option])
            if option in PATHS:
                calls.append([*right, option, rng.choice(["no/where", "text.txt/below", "a" * 300])])
            elif option not in FREE and action.type is not str and "str" not in str(getattr(action, "_typehint", "")):
                calls.append([*right, f"{option}={rng.choice(VALUES)}"])
    return calls


OWN = [
    "",
    "frob",
    "data",
    "data frob",
    "benchmark speeed",
    "--frob",
    "train",
    "train --data folder",
    "train --data Folder",
    "train --data Folder --data.good no/where",
    "train --data Folder --data.good good --data.test_fraction x",
    "train --data Folder --data.good good --data.test_fraction 2",
    "train --data Folder --data.good good --data.tset_fraction 0.2",
    "train --data Folder --data.good good --data.group_pattern (",
    "train --data VisA --data.good good",
    "train --data MVTecAD",
    "train --data MVTecAD --data.category bottle --data.root no/where",
    "train --data Table --data.path no.csv",
    "train --data Folder --data.good good --config no.yaml",
    "train --data Folder --data.good good --config good",
    "train --data Folder --data.good good --config broken.yaml",
    "train --data Folder --data.good good --config other.yaml",
    "train --data Folder --data.good good --config wrong.yaml",
    "train --data Folder --data.good good --config nul.yaml",
    "train --data Folder --data.good good --config bytes.yaml",
    "train --data Folder --data.good good --config text.txt",
    "train --data Folder --data.good good --config deep.yaml",
    "train --data Folder --data.good good --output text.txt",
    "train --data Folder --data.good good --output text.txt/below",
    "train --data Folder --data.good good --masks no.txt",
    "train --data Folder --data.good good --masks -3",
    "train --data Folder --data.good good --time-budget soon",
    "train --data Folder --data.good good --model PatchCore",
    "train --data Folder --data.good good --view.roi no.png",
    "train --data Folder --data.good good --view.align rigid",
    "train --resume",
    "train --resume --output no/run",
    "test --model empty",
    "test --model text.txt",
    "test --model model --device abacus",
    "test --model model --workers 2",
    "calibrate --model model --max-false-alarms 5% --costs false-alarm=1,escape=5",
    "calibrate --model model --max-escapes 1% --costs false-alarm=1,escape=5",
    "calibrate --model model --bad-share 2%",
    "calibrate --model model --confidence 200%",
    "calibrate --model model --costs escape=5",
    "calibrate --model model --group-pattern (",
    "export --model model --format onnx --output good",
    "export --model model --format onnx --output a.xml",
    "export --model model --format onnx --output a.onnx --precision bf16",
    "export --model model --format onnx --output a.onnx --size 64 64 --dynamic",
    "export --model model --format onnx --output a.onnx --size 64",
    "predict --model model --output out",
    "predict --model model no.png --output out",
    "predict --model model good --output out --format xls",
    "predict --model model good --output out --overlay-style outline",
    "predict --model model good --output out --overlays --overlay-style red",
    "predict --model model good --output out --watch good",
    "predict --model model good --output out --watch-for 5m",
    "predict --model model good --output out --engine ray --overlays",
    "predict --model model good --output out --false-discovery-rate 5",
    "data check --data Folder --data.good good --size 0 4",
    "data download X",
    "data synthesize --output out --surfaces [velvet]",
    "data split --data Folder --data.good good --output good",
    "data split --data Folder --data.good good --output s.csv --test-fraction 2",
    "station change-user anna --folder good",
    "station change-user anna --password hunter2 --folder good",
    "serve --model good --folder out --keep-good 5",
    "benchmark accuracy --data MVTecAD --data.root good --output out --seeds 0,one",
    "benchmark accuracy --data MVTecAD --data.root good --output out --regimes much",
]


@pytest.fixture(scope="module")
def reported() -> list[tuple[list[str], object, str, bool]]:
    """Return each call of the campaign with its status, what it printed, and whether it imported torch."""
    code = (
        "import contextlib, io, json, sys\n"
        "from supersimplenet.cli.main import main\n"
        "for call in json.loads(sys.stdin.read()):\n"
        "    out, err, status = io.StringIO(), io.StringIO(), None\n"
        "    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):\n"
        "        try:\n"
        "            status = main(call)\n"
        "        except SystemExit as stop:\n"
        "            status = stop.code\n"
        "        except Exception as error:\n"
        "            status = repr(error)\n"
        "    print(json.dumps([call, status, out.getvalue() + err.getvalue(), 'torch' in sys.modules]))\n"
    )
    calls = json.dumps([*campaign(), *(call.split() for call in OWN)])
    done = subprocess.run([sys.executable, "-c", code], input=calls, capture_output=True, text=True, check=True)
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_every_wrong_call_is_one_line_and_status_2(reported):
    assert len(reported) >= 250
    wrong = []
    for call, status, printed, _ in reported:
        is_line = printed.count("\n") == 1 and printed.startswith("supersimplenet")
        says_types = any(sign in printed for sign in ("<class", "typing.", "Parser key", "Traceback", "Literal["))
        if status != 2 or not is_line or says_types or not printed[:-1].isprintable():
            wrong.append(f"{status} {call}: {printed}")
    assert not wrong, "\n".join(wrong)


def test_a_message_names_the_option_as_it_is_typed(reported):
    printed = [
        text for call, _, text, _ in reported if call[:2] == ["data", "split"] and call[-2:-1] == ["--test-fraction"]
    ]
    assert printed
    assert all(text.startswith("supersimplenet data split: --test-fraction: '2'; wanted") for text in printed)


def test_no_wrong_call_waits_for_torch(reported):
    assert [call for call, _, _, with_torch in reported if with_torch] == []


def test_a_terminal_as_standard_input_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", _Terminal())
    assert main(["predict", "--model", "model", "-", "--output", "out"]) == 2
    assert "-: standard input is a terminal; pipe a list of images" in capsys.readouterr().err


class _Terminal:
    def isatty(self) -> bool:
        return True


def test_a_missing_region_of_interest_does_not_advise_to_skip_images(capsys):
    assert main(["train", *DATA, "--view.roi", "no.png"]) == 2
    assert capsys.readouterr().err == "supersimplenet train: --view.roi: no.png: no such file; check the path\n"


def test_help_names_no_python_types(capsys):
    for name in RIGHT:
        with pytest.raises(SystemExit):
            main([*name.split(), "--help"])
        text = capsys.readouterr().out
        assert not [sign for sign in ("<class", "Literal[", "type:", "NoneType", "Path |") if sign in text], name


@pytest.mark.parametrize(
    "call", ["", "no.onnx good", "text.txt good --threads x", "text.txt good --size 4", "text.txt", "text.txt --frob"]
)
def test_the_line_program_refuses_in_a_line(call, capsys):
    try:
        status = runtime(call.split())
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2, error
    assert error.count("\n") == 1
    assert error.startswith("python -m supersimplenet.runtime: ")


@pytest.mark.parametrize(
    "call",
    [
        ["serve", "--folder", "out", "--model", "a" * 400],
        ["registry", "list", "--folder", "a" * 400],
        ["registry", "add", "model", "--product", "parts", "--folder", "a" * 400],
        ["station", "outbox", "--drop", "web", "--folder", "a" * 400],
        ["train", "--warm-start", "a" * 400],
    ],
)
def test_a_name_that_is_too_long_for_one_is_refused_in_a_line(call, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.yaml").write_text("finished: true")
    assert main(call) == 2
    assert capsys.readouterr().err.startswith(f"supersimplenet {call[0]}")
