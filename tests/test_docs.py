"""What the docs name is there: files of the code, modules, links between pages."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "supersimplenet"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PAGES.remove(ROOT / "CHANGELOG.md")  # of what was


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_modules_and_links_are_there(page):
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"(?<![\w/.-])((?:[\w-]+/)*[\w-]+\.py)\b", text):
        found = [
            ROOT / path,
            ROOT / "tests" / path,
            PACKAGE / path,
            page.parent / path,
            *ROOT.glob(f"src/supersimplenet/*/{path}"),
        ]
        assert any(place.is_file() for place in found), f"{path}: no such file"
    for name in re.findall(r"\bsupersimplenet(?:\.\w+)+", text):
        parts = name.split(".")
        found = import_module(parts[0])
        for length, part in enumerate(parts[1:], start=2):
            if not hasattr(found, part):  # a module that nothing has imported yet
                import_module(".".join(parts[:length]))
            found = getattr(found, part)
    for link in re.findall(r"\]\(([^)#\s]+)", text):
        assert "://" in link or (page.parent / link).exists(), f"{link}: no such page"


def test_tests_that_the_docs_name_exist():
    text = "\n".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md")))
    named = re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", text)
    assert named
    for file, name in named:
        content = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in content, f"{file}::{name}"
