"""What is published: the source distribution, the wheel that is built from it, their metadata, the citation."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import pytest
import yaml
from packaging.requirements import Requirement

import supersimplenet

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "supersimplenet"
NAME = f"supersimplenet-{supersimplenet.__version__}"
EXTRAS = {
    *("align", "cli", "dev", "docs", "export", "imagenet", "mlflow", "notebooks", "onnx", "openvino", "ray", "serve"),
    *("train", "wandb"),
}
BUILD = "import sys; from hatchling import build; getattr(build, sys.argv[1])(sys.argv[2])"


def _build(kind: str, project: Path, output: Path) -> Path:
    """Build with the backend alone, as `python -m build --no-isolation` does: without a network."""
    command = [sys.executable, "-c", BUILD, kind, str(output)]
    done = subprocess.run(command, cwd=project, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    (built,) = output.iterdir()
    return built


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("hatchling") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("hatchling is not installed, and CI=true: it is part of the extra dev")
        pytest.skip("hatchling is not installed; it is part of the extra dev")
    return _build("build_sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the unpacked source distribution builds."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        for member in archive:  # our own archive, and no Python before 3.12 is sure to have `filter`
            target = folder / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            content = archive.extractfile(member)
            assert content is not None
            target.write_bytes(content.read())
    return _build("build_wheel", folder / NAME, tmp_path_factory.mktemp("wheel"))


def sources() -> set[str]:
    """The package's own files, by their names in the wheel."""
    files = [file for file in PACKAGE.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    return {file.relative_to(PACKAGE.parent).as_posix() for file in files}


def requirements(wheel: Path) -> dict[str | None, set[str]]:
    """Names of the distributions that the package and each extra require; the extras of extras are in them."""
    found: dict[str | None, set[str]] = {None: set(), **{extra: set() for extra in EXTRAS}}
    for line in metadata(wheel).get_all("Requires-Dist", []):
        requirement = Requirement(line)
        for extra in found:
            if requirement.marker is None:
                is_of = extra is None
            else:
                is_of = extra is not None and requirement.marker.evaluate({"extra": extra})
            if is_of:
                found[extra].add(requirement.name.lower().replace("_", "-"))
    return found


def metadata(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        return HeaderParser().parsestr(archive.read(f"{NAME}.dist-info/METADATA").decode())


def test_the_source_distribution_holds_the_package_and_what_builds_it(sdist):
    assert sdist.name == f"{NAME}.tar.gz"
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert all(name.startswith(f"{NAME}/") for name in names)
    beside = {".gitignore", "CHANGELOG.md", "CITATION.cff", "LICENSE", "PKG-INFO", "README.md"}
    beside |= {"constraints.txt", "pyproject.toml"}
    assert {name.removeprefix(f"{NAME}/") for name in names} == beside | {f"src/{name}" for name in sources()}
    assert sdist.stat().st_size < 7_000_000  # 5.2 MB of it are the weights of the backbone `compact`


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    assert wheel.name == f"{NAME}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        record = archive.read(f"{NAME}.dist-info/RECORD").decode()
        licence = archive.read(f"{NAME}.dist-info/licenses/LICENSE")
        entry_points = archive.read(f"{NAME}.dist-info/entry_points.txt").decode()
        for name in sources():
            assert archive.read(name) == (PACKAGE.parent / name).read_bytes(), name
    info = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert names == sources() | {f"{NAME}.dist-info/{name}" for name in info}
    assert {row[0] for row in csv.reader(io.StringIO(record))} == names
    assert licence == (ROOT / "LICENSE").read_bytes()
    assert "supersimplenet = supersimplenet.__main__:main" in entry_points
    weights = {name for name in names if PurePosixPath(name).suffix == ".safetensors"}
    assert weights == {"supersimplenet/model/weights/compact.safetensors"}
    assert {"supersimplenet/py.typed", "supersimplenet/report/assets/report.html"} <= names
    assert wheel.stat().st_size < 7_000_000


def test_the_metadata_are_complete(wheel):
    found = metadata(wheel)
    assert (found["Name"], found["Version"]) == ("supersimplenet", supersimplenet.__version__)
    assert (found["License-Expression"], found["License-File"]) == ("Apache-2.0", "LICENSE")
    assert found["Requires-Python"] == "<3.14,>=3.10"
    assert found["Description-Content-Type"] == "text/markdown"
    assert set(found.get_all("Provides-Extra")) == EXTRAS
    classifiers = set(found.get_all("Classifier"))
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)} <= classifiers
    assert not any(line.startswith("License ::") for line in classifiers)  # not beside an expression: PEP 639


def test_the_base_and_the_engines_stay_small(wheel):
    found = requirements(wheel)
    assert found[None] == {"numpy", "pillow", "simplejpeg"}
    assert found["align"] == {"opencv-python-headless"}
    assert found["onnx"] == {"onnxruntime", "jsonargparse", "rich"}
    assert found["openvino"] == {"openvino", "jsonargparse", "rich"}
    assert {"torch", "torchvision", "timm", "lightning"} <= found["train"]
    assert not any({"build", "hatchling", "twine", "pytest"} & found[extra] for extra in {None, *EXTRAS} - {"dev"})


def test_constraints_name_a_version_of_everything_that_is_required(wheel):
    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    pinned = {re.fullmatch(r"([\w.-]+)==[\w.]+", line)[1].lower().replace("_", "-") for line in lines}
    assert len(pinned) == len(lines)
    assert set().union(*requirements(wheel).values()) <= pinned


def test_the_citation_names_this_version_and_both_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == supersimplenet.__version__
    assert citation["license"] == "Apache-2.0"
    papers = citation["references"]
    assert [paper["url"] for paper in papers] == [
        "https://arxiv.org/abs/2408.03143",
        "https://arxiv.org/abs/2508.19060",
    ]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for paper in papers:
        assert paper["title"] in readme
        assert paper["url"] in readme
        assert [author["family-names"] for author in paper["authors"]] == ["Rolih", "Fučka", "Skočaj"]


def test_the_container_is_pinned_and_names_extras_that_exist():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    extras = {extra for group in re.findall(r"\.whl\)\[([\w,]+)\]", text) for extra in group.split(",")}
    assert {"onnx", "export"} <= extras <= EXTRAS
    assert re.search(r"^ARG PYTHON=3\.11\.\d+-slim-\w+$", text, re.M)  # the Python of constraints.txt
    assert set(re.findall(r"^FROM (\S+)", text, re.M)) == {"python:${PYTHON}", "builder", "base"}
    assert text.index("USER 10001") < text.index("ENTRYPOINT")
    let_through = {
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")
    }
    assert {"pyproject.toml", "README.md", "LICENSE", "constraints.txt", "src"} <= let_through
    assert all((ROOT / name).exists() for name in let_through)


def test_the_docs_explain_every_extra():
    text = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.M)) == EXTRAS - {"cli"}  # what the engines' extras bring
