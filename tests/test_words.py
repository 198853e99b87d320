"""One word for one thing: words that were retired stand nowhere a reader meets them."""

from __future__ import annotations

import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from supersimplenet.cli.main import command_groups

ROOT = Path(__file__).parents[1]
# What is written today, for each pattern that is not.
RETIRED = {
    r"heat[ -]?maps?": "anomaly map",
    r"promis(e(?![.(])|es|ed|ing)": "guarantee",  # not JavaScript's own Promise
    r"judg(e|es|ed|ing|ement)": "verdict, decide, predict",
    r"lanes?": "thread",
    r"leash": "stop_with_stdin",
    r"lookers?": "Predictor",
    r"look(s|ed) at": "predict, inspect, read (a person looks at things, a program does not)",
    r"piece by piece": "in tiles",
    r"terminal\.py|records\.py|planes\.py|looking\.py": "rooms that are gone",
    r"data[ -]sets?": "dataset",
    r"its processors?|on a processor|a processor's": "CPU",
}
# Records of what was, and names of what version 0.1 wrote.
HISTORY = {"CHANGELOG.md", "test_words.py"}


def texts() -> Iterator[tuple[str, str]]:
    """Yield each place where people read words, and the words: docs, comments and strings of the code, pages, help."""
    for pattern in ("*.md", "docs/**/*.md", "src/**/*.html", "src/**/*.js", "src/**/*.css"):
        for file in sorted(ROOT.glob(pattern)):
            if file.name not in HISTORY:
                yield str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")
    for file in sorted(ROOT.glob("notebooks/*.ipynb")):
        cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
        yield str(file.relative_to(ROOT)), "\n".join("".join(cell["source"]) for cell in cells)
    for file in sorted([*ROOT.glob("src/**/*.py"), *ROOT.glob("experiments/*.py")]):
        yield str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")
    for commands in command_groups().values():
        for command in commands:
            yield f"help of {command.name}", command.parser.format_help()


@pytest.mark.parametrize("retired", RETIRED)
def test_a_retired_word_stands_nowhere(retired):
    pattern = re.compile(rf"\b({retired})\b", re.IGNORECASE)
    found = [
        f"{place}: {text[max(match.start() - 30, 0) : match.end() + 30]!r}"
        for place, text in texts()
        for match in pattern.finditer(text)
    ]
    assert found == [], f"write '{RETIRED[retired]}' instead"


def test_the_words_are_read_where_they_stand():
    places = dict(texts())
    assert "guarantee" in places["README.md"]
    assert "anomaly map" in places["help of predict"]
    assert "guarantee" in places["notebooks/own_parts.ipynb"]
    tokens = tokenize.generate_tokens(io.StringIO(places["src/supersimplenet/types.py"]).readline)
    assert any(token.type == tokenize.STRING and "verdict" in token.string for token in tokens)
