"""The wheel with each extra, in a fresh environment of each Python: does it install, how large is it, does it run?

    make matrix
    python experiments/install_matrix.py --wheel dist/*.whl --output matrix --pythons 3.11 --extras base,onnx
    python experiments/install_matrix.py --wheel dist/*.whl --output matrix --pythons 3.12 --extras train+ray --uv uv

Each environment is made, filled by pip (or by uv, with `--uv PROGRAM`), used and deleted before the next one. In it, as
far as the extra allows: training on a drawn surface of 64x64 px, test, prediction, export, runtime; and the message of
what the extra lacks. Exported files for the extras that cannot write any are those of tests/fixtures. `train+ray`
installs one extra after the other into the same environment, because torch takes minutes: the second row has the time
of the second step, and the size of both. Of each environment:

- packages: number of distributions, this one included.
- MB: of everything below the environment's site-packages, 10^6 bytes, pip and setuptools not counted.
- install, s: downloads included unless the cache holds them (PIP_NO_CACHE_DIR=1 or UV_NO_CACHE=1 for none).
- run, s: of all commands that were run in it.

Pythons are those named python3.10 to python3.13 on the PATH, or below pyenv's folder of versions. `matrix.json` also
holds each command with its time, and `matrix.md` the table. The exit status is 1 where a command did not do what it
should.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
EXTRAS = ("base", "align", "onnx", "openvino", "train+imagenet+ray+export")
COLUMNS = ("python", "extra", "packages", "MB", "install, s", "run, s", "result")
FIXTURES = Path(__file__).resolve().parents[1] / "tests" / "fixtures" / "version_0_1"
FREE_GB = {"base": 1, "align": 1, "onnx": 1, "openvino": 2}  # asked for before an environment is made
FREE_GB_WITH_TORCH = 14
TIMEOUT_S = 3600
SURFACE = "cast_grain"
TRAIN = (
    *("train", "--data", "MVTecAD", "--data.root", "drawn", "--data.category", SURFACE),
    *("--model.image_size", "[64,64]", "--trainer.max_steps", "4", "--trainer.accelerator", "cpu"),
    *("--trainer.escapes_share", "0"),
)
ALIGN = """
import numpy as np
from supersimplenet.preprocessing.alignment import Aligner
rng = np.random.default_rng(0)
small = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
large = np.kron(small, np.ones((16, 16, 1), dtype=np.uint8))
found = Aligner(large[:256, :256], "translation", max_residual=0.5).align(large[6:262, 8:264], "shifted")[1]
assert abs(found.shift_px - 10) < 1, found  # 6 down, 8 to the right
"""
WITHOUT_TORCH = """
import importlib.util
found = [name for name in ("torch", "torchvision", "timm", "lightning", "scipy") if importlib.util.find_spec(name)]
assert not found, found
"""


@dataclass(frozen=True)
class Step:
    """A command in an environment, and what it should do.

    Attributes:
        name: for the table of steps.
        arguments: of Python.
        status: exit status.
        says: what its output holds.
        rows: lines of JSON on its standard output, where they are counted.
        leaves: file that it writes.
    """

    name: str
    arguments: tuple[str, ...]
    status: int = 0
    says: str = ""
    rows: int | None = None
    leaves: str | None = None


def program(name: str, *arguments: str, **wanted: Any) -> Step:
    return Step(name, ("-m", "supersimplenet", *arguments), **wanted)


def runtime(name: str, *arguments: str, **wanted: Any) -> Step:
    return Step(name, ("-m", "supersimplenet.runtime", *arguments), **wanted)


def steps(extra: str) -> Iterator[Step]:
    """Yield what an environment with an extra can do, and what it says of what it cannot."""
    images = str(FIXTURES / "images")
    yield Step("version", ("-c", "import supersimplenet; print(supersimplenet.__version__)"))
    yield runtime("help of the runtime", "--help", says="--graph")
    if extra in ("base", "align"):
        yield Step("no torch", ("-c", WITHOUT_TORCH))
        yield program("the program names its extra", "--help", status=1, says="supersimplenet[cli]")
        for engine in ("onnx", "openvino"):
            file = str(FIXTURES / f"plain.{engine}")
            yield runtime(f"the runtime names {engine}", file, images, status=2, says=f"supersimplenet[{engine}]")
    if extra == "align":
        yield Step("align", ("-c", ALIGN))
    if extra in ("onnx", "openvino"):
        file = str(FIXTURES / f"plain.{extra}")
        yield Step("no torch", ("-c", WITHOUT_TORCH))
        yield program("help", "--help", says="benchmark")
        yield runtime("runtime", file, images, rows=4)
        predict = ("predict", "--model", file, images, "--output", "thin")
        yield program("predict", *predict, leaves="thin/predictions.csv")
        folder = ("predict", "--model", str(FIXTURES / "plain"), images, "--output", "none")
        yield program("predict of a folder names train", *folder, status=1, says="supersimplenet[train]")
    if extra in ("train", "imagenet", "ray", "export"):
        yield from trained(extra)


def trained(extra: str) -> Iterator[Step]:
    good = f"drawn/{SURFACE}/test/good"
    drawn = ("--surfaces", f"[{SURFACE}]", "--size_px", "[64,64]", "--train_good", "12")
    drawn = (*drawn, "--test_good", "4", "--test_per_defect", "2")
    backbone = "efficientnet_lite0" if extra == "imagenet" else "compact"
    yield program("draw a dataset", "data", "synthesize", "--output", "drawn", *drawn)
    training = (*TRAIN, "--model.backbone", backbone, "--output", "model")
    yield program("train", *training, leaves="model/model.safetensors")
    yield program("test", "test", "--model", "model", leaves="model/metrics.json")
    yield program("predict", "predict", "--model", "model", good, "--output", "results", leaves="results/defects.csv")
    onnx = ("export", "--model", "model", "--format", "onnx", "--output", "part.onnx")
    if extra == "train":
        yield program("report", "report", "--model", "model", "--output", "report", leaves="report/report.html")
        yield program("export names its extra", *onnx, status=2, says="supersimplenet[export]")
    if extra == "ray":
        ray = ("--engine", "ray", "--workers", "1", "--output", "by_ray")
        yield program("predict by ray", "predict", "--model", "model", good, *ray, leaves="by_ray/defects.csv")
    if extra == "export":
        yield program("export onnx", *onnx, leaves="part.onnx")
        yield runtime("runtime onnx", "part.onnx", good, rows=4)
        for file_format, file in (("openvino", "part.openvino"), ("torch", "part.pt2")):
            command = ("export", "--model", "model", "--format", file_format, "--output", file)
            yield program(f"export {file_format}", *command, leaves=file)
            trust = ("--trust",) if file_format == "torch" else ()
            yield runtime(f"runtime {file_format}", file, good, *trust, rows=4)


def interpreter(version: str) -> Path | None:
    """Return a Python of a version, such as 3.12, that runs; None where there is none."""
    named = shutil.which(f"python{version}")
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    places = [*sorted(versions.glob(f"{version}.*/bin/python")), *([Path(named)] if named else [])]
    for place in places:
        asked = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
        done = subprocess.run([place, "-c", asked], capture_output=True, text=True, encoding="utf-8", check=False)
        if done.returncode == 0 and done.stdout.strip() == version:
            return place
    return None


def measured(python: Path, extras: Sequence[str], wheel: Path, install: Sequence[str]) -> Iterator[Row]:
    """Install the wheel into a fresh environment, with one extra after another; yield the row of each."""
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        environment = Path(folder) / "venv"
        needed = max(FREE_GB.get(extra, FREE_GB_WITH_TORCH) for extra in extras)
        free = shutil.disk_usage(folder).free / 1e9
        if free < needed:
            yield {"extra": "+".join(extras), "result": f"not run: {free:.1f} GB are free, wanted are {needed}"}
            return
        subprocess.run([python, "-m", "venv", environment], check=True)
        inside = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
        for count, extra in enumerate(extras, start=1):
            room = Path(folder) / f"room-{extra}"
            room.mkdir()
            asked = f"supersimplenet[{extra}]" if extra != "base" else "supersimplenet"
            started = time.perf_counter()
            command = [*(install or [inside, "-m", "pip", "install"]), f"{asked} @ {wheel.resolve().as_uri()}"]
            installed = run(command, room, {"VIRTUAL_ENV": str(environment)})
            row: Row = {"extra": "+".join(extras[:count]), "install, s": round(time.perf_counter() - started, 1)}
            if installed.returncode != 0:
                yield {**row, "result": "not installed", "output": installed.stdout[-3000:]}
                return
            yield {**row, **used(inside, environment, extra, room)}


def used(inside: Path, environment: Path, extra: str, room: Path) -> Row:
    """Run the steps of an extra in its environment; return the rest of its row."""
    listed = run([inside, "-m", "pip", "list", "--format", "freeze"], room).stdout.splitlines()
    packages = [line for line in listed if re.match(r"(?!pip=|setuptools=)[\w.-]+==", line)]
    checked = run([inside, "-m", "pip", "check"], room)
    failures = [] if checked.returncode == 0 else [f"pip check: {checked.stdout.strip()}"]
    times: dict[str, float] = {}
    size = round(sum(size_mb(place) for place in site_packages(environment)), 1)
    for step in steps(extra):
        started = time.perf_counter()
        failure = problem(step, run([inside, *step.arguments], room), room)
        times[step.name] = round(time.perf_counter() - started, 1)
        failures += [failure] if failure else []
    return {
        "packages": len(packages),
        "MB": size,
        "run, s": round(sum(times.values()), 1),
        "result": "; ".join(failures) or "runs",
        "failures": failures,
        "steps": times,
        "versions": packages,
    }


def problem(step: Step, done: subprocess.CompletedProcess[str], room: Path) -> str:
    """Return what a step did otherwise than it should; nothing where all is as it should be."""
    rows = sum(line.startswith("{") for line in done.stdout.splitlines())
    if done.returncode != step.status:
        return f"{step.name}: exit status {done.returncode}, wanted {step.status}: {done.stdout.strip()[-1500:]}"
    if step.says not in done.stdout:
        return f"{step.name}: '{step.says}' is not in: {done.stdout.strip()[-500:]}"
    if step.rows is not None and rows != step.rows:
        return f"{step.name}: {rows} rows, wanted {step.rows}"
    if step.leaves is not None and not (room / step.leaves).is_file():
        return f"{step.name}: no {step.leaves}"
    return ""


def run(
    command: Sequence[str | Path], room: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder of its own, without this checkout on its path; standard error comes with the output."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        command,
        cwd=room,
        env={**kept, "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1", **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=TIMEOUT_S,
        check=False,
    )


def site_packages(environment: Path) -> list[Path]:
    return [*environment.glob("lib/python*/site-packages"), *environment.glob("Lib/site-packages")]


def size_mb(folder: Path) -> float:
    """Return what the files that pip installed hold, without pip and setuptools, which an environment begins with."""
    total = 0
    for place in folder.iterdir():
        if re.match(r"(pip|setuptools|pkg_resources|_distutils_hack|distutils-precedence)\b", place.name):
            continue
        files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
        total += sum(file.stat().st_size for file in files)
    return total / 1e6


def as_markdown(rows: Sequence[Row]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "| " + " | ".join(["---"] * len(COLUMNS)) + " |"]
    for row in rows:
        cells = [str(row.get(name, "")).replace("\n", " ").replace("|", "/")[:200] for name in COLUMNS]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--pythons", default=",".join(PYTHONS))
    parser.add_argument("--extras", default=",".join(EXTRAS))
    parser.add_argument("--constraints", type=Path, help="such as constraints.txt, made for Python 3.11")
    parser.add_argument("--uv", help="install with this uv instead of pip")
    options = parser.parse_args()
    install = [options.uv, "pip", "install"] if options.uv else []
    if options.constraints:
        os.environ["UV_CONSTRAINT" if options.uv else "PIP_CONSTRAINT"] = str(options.constraints.resolve())
    options.output.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for version in options.pythons.split(","):
        python = interpreter(version)
        for extras in options.extras.split(","):
            found: Iterator[Row] = iter([{"extra": extras, "result": "no such Python here"}])
            if python is not None:
                found = measured(python, extras.split("+"), options.wheel, install)
            for row in found:
                rows.append({"python": version, **row})
                print(as_markdown(rows[-1:]).splitlines()[-1], flush=True)
                (options.output / "matrix.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
                (options.output / "matrix.md").write_text(as_markdown(rows), encoding="utf-8")
    return int(any(row["result"] not in ("runs", "no such Python here") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
