"""The walls of the house: which room may import which, and which rooms need no more than three small packages."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "supersimplenet"
# From the ground up; docs/architecture.md draws it. A room imports from those before it alone.
ROOMS = (
    *("errors", "utils", "preprocessing", "types", "postprocessing", "runtime"),
    *("metrics", "datasets", "model", "inference", "evaluation", "export", "training", "distillation"),
    *("visualization", "prediction", "report", "station", "benchmark", "cli"),
)
# `Prediction.overlay` draws, and nothing that draws is imported before it is called.
LATE = {("types", "visualization")}
ON_THE_LINE = ROOMS[: ROOMS.index("runtime") + 1]
NETWORK = ("torch", "torchvision", "timm", "lightning")
WALLS = {  # what may not be imported, and the rooms that do without
    "all but numpy, Pillow and simplejpeg": ON_THE_LINE,
    "torch, scipy, matplotlib": (*ON_THE_LINE, "cli"),
    "torch": (*ON_THE_LINE, "metrics", "datasets", "station", "cli"),
}


def modules(room: str) -> list[str]:
    path = PACKAGE / room
    files = [path.with_suffix(".py")] if not path.is_dir() else sorted(path.rglob("*.py"))
    names = [".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts) for file in files]
    # Alembic runs its files itself, within a migration
    names = [name for name in names if not name.endswith(".__main__") and ".migrations." not in name]
    return [name.removesuffix(".__init__") for name in names]


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """Yield each module of the package that a file imports, and whether it does so when it is imported itself."""
    late: set[ast.AST] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        inside = node in late
        checked = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if inside or checked or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            late.update(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: a relative import hides which room it comes from"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from ((name, not inside) for name in names if name.split(".")[0] == "supersimplenet")


def test_every_module_stands_in_a_room():
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert found == {*ROOMS, "__init__", "__main__"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_from_those_below_it_alone(room):
    below = set(ROOMS[: ROOMS.index(room)])
    for name in modules(room):
        for imported, at_once in imports(_file(name)):
            other = imported.split(".")[1] if "." in imported else None
            if other in (room, None) or (room, other) == ("cli", "__version__"):
                continue
            if other not in below:
                assert not at_once, f"{name} imports {imported}"
                assert (room, other) in LATE, f"{name} imports {imported}"


def test_no_module_imports_itself_by_way_of_others():
    every = {name for room in ROOMS for name in modules(room)}
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for name in every:
        sorter.add(name, *({found for found, at_once in imports(_file(name)) if at_once} & every - {name}))
    assert len(list(sorter.static_order())) == len(every)  # raises CycleError where there is one


BEHIND_THE_WALL = """
import importlib, sys
refused, *names = sys.argv[1:]

class Wall:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if refused:
            refuse = top in refused.split(",")
        else:
            refuse = top not in ("supersimplenet", "numpy", "PIL", "simplejpeg") and top not in sys.stdlib_module_names
        if refuse:
            raise ModuleNotFoundError(f"{name} is behind the wall", name=name)

sys.meta_path.insert(0, Wall())
for name in names:
    importlib.import_module(name)
"""


@pytest.mark.parametrize("wall", WALLS)
def test_rooms_import_without_what_they_do_not_need(wall):
    names = [name for room in WALLS[wall] for name in modules(room)]
    refused = ""
    if wall == "all but numpy, Pillow and simplejpeg":
        names.remove("supersimplenet.utils.console")  # it writes with rich, for the program; the runtime prints
    else:
        refused = ",".join(NETWORK if wall == "torch" else (*NETWORK, "scipy", "matplotlib"))
    assert len(names) > 25
    command = [sys.executable, "-c", BEHIND_THE_WALL, refused, *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", sorted((ROOT / "experiments").glob("*.py")), ids=lambda file: file.stem)
def test_a_script_imports_what_is_there(file):
    for imported, _ in imports(file):
        module, _, name = imported.rpartition(".")
        try:
            import_module(imported)
        except ModuleNotFoundError:
            assert hasattr(import_module(module), name), f"{file.name} imports {imported}"


def _file(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
