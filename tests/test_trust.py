"""An exported file that is opened runs no code, whatever its name and content, unless the caller trusts it."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from supersimplenet.cli.main import main
from supersimplenet.errors import ModelFolderError
from supersimplenet.runtime import Inspector

PROGRAM = Path(__file__).parent / "fixtures" / "version_0_1" / "plain.pt2"
IMAGE = PROGRAM.parent / "images" / "0.png"
REFUSED = "a torch program, which can run code when it is opened; where you trust who made it, add --trust"


class Payload:
    """Runs a command as soon as an unpickler meets it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (str(self.trace),)


def disguised(target: Path, trace: Path, way: str) -> Path:
    """The program with a payload in it, under another name or with other members."""
    payload = pickle.dumps(Payload(trace))
    with zipfile.ZipFile(PROGRAM) as source, zipfile.ZipFile(target, "w") as archive:
        members = {name: source.read(name) for name in source.namelist()}
        if way == "weights":
            members["archive/data/weights/model.pt"] = payload
        elif way == "samples":
            members["archive/data/sample_inputs/model.pt"] = payload
        elif way == "second program":
            members["archive/models/other.json"] = members["archive/models/model.json"]
            members["archive/data/sample_inputs/other.pt"] = payload
        elif way == "other case":
            members["archive/data/Sample_Inputs/model.pt"] = payload
        elif way == "shared object":
            members["archive/data/aotinductor/model/kernel.so"] = payload
        elif way == "old layout":
            members = {"serialized_exported_program.json": b"{}", "version": b"8.4", "archive_format": b"pt2"}
        elif way == "openvino too":
            members |= {"model.xml": b"<?xml version='1.0'?>", "model.bin": b""}
        for name, content in members.items():
            archive.writestr(name, content)
        if way == "doubled":
            with pytest.warns(UserWarning, match="Duplicate name"):
                archive.writestr("archive/data/sample_inputs/model.pt", payload)
    return target


WAYS = ("weights", "samples", "second program", "other case", "shared object", "old layout", "openvino too", "doubled")


@pytest.mark.parametrize("way", WAYS)
def test_no_torch_program_is_opened_unasked(way, tmp_path):
    trace = tmp_path / "trace"
    file = disguised(tmp_path / "parts", trace, way)
    with pytest.raises(ModelFolderError, match=REFUSED):
        Inspector.load(file)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_name_that_says_another_format_is_refused_even_when_trusted(suffix, tmp_path):
    file = Path(shutil.copy(PROGRAM, tmp_path / f"parts{suffix}"))
    named = {".onnx": "onnx", ".xml": "openvino"}[suffix]
    with pytest.raises(ModelFolderError, match=f"named as a file for {named}, but its content is for torch"):
        Inspector.load(file, trust=True)


@pytest.mark.slow
def test_each_command_opens_one_where_it_is_told_to(tmp_path, capsys):
    command = ["predict", "--model", str(PROGRAM), str(IMAGE), "--output", str(tmp_path)]
    assert main(command) == 1
    assert REFUSED in capsys.readouterr().err
    assert main([*command, "--trust"]) == 0
    runtime = [sys.executable, "-m", "supersimplenet.runtime", str(PROGRAM), str(IMAGE)]
    refused = subprocess.run(runtime, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert REFUSED in refused.stderr
    taken = subprocess.run([*runtime, "--trust"], capture_output=True, text=True, check=False)
    assert (taken.returncode, taken.stdout.count("\n")) == (0, 1)


def test_the_refusal_needs_no_torch(tmp_path):
    """Torch is not even imported: the line's computer has none."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from supersimplenet.runtime.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(PROGRAM), str(IMAGE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert REFUSED in done.stderr


def test_an_export_gets_no_name_of_another_format(tmp_path, capsys):
    model = PROGRAM.parent / "plain"
    command = ["export", "--model", str(model), "--format", "torch", "--output", str(tmp_path / "parts.onnx")]
    assert main(command) == 2
    assert "output: parts.onnx is named as a file for onnx, the format is torch; rename it" in capsys.readouterr().err
