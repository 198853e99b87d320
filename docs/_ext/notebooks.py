"""Notebooks as pages: text, code and stored outputs of a notebook, as Markdown. Nothing is executed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

_NAMED = re.compile(r"^\{\{ notebook: (\S+) \}\}$", re.M)
_PICTURES = ("image/jpeg", "image/png")


def as_markdown(notebook: Path) -> str:
    """Return a notebook as the Markdown of a page; pictures are part of it, as data.

    Links from `notebooks/` into `docs/` become links from the page, which stands in a folder of `docs`.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join(_text(cell) if cell["cell_type"] == "markdown" else _code(cell) for cell in cells)


def _text(cell: dict[str, Any]) -> str:
    text = "".join(cell["source"]).replace("](../docs/", "](../").replace(".ipynb)", ".md)")
    # GitHub's places of headings are those of the site, but in lower case there
    return re.sub(r"\]\(#([^)]+)\)", lambda match: f"](#{match[1].lower()})", text)


def _code(cell: dict[str, Any]) -> str:
    shown = [_block("ipython3", "".join(cell["source"]))]
    for output in cell["outputs"]:
        data = output.get("data", {})
        picture = next((kind for kind in _PICTURES if kind in data), None)
        if picture is not None:
            shown.append(f"![Output of the code above](data:{picture};base64,{''.join(data[picture]).strip()})")
        else:
            text = "".join(output.get("text", data.get("text/plain", "")))
            shown.append(f"::::{{container}} output\n{_block('text', text)}\n::::")
    return "\n\n".join(shown)


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text.strip()}\n```"


def _read(app: Sphinx, page: str, source: list[str]) -> None:
    def notebook(match: re.Match[str]) -> str:
        path = (Path(app.env.doc2path(page)).parent / match[1]).resolve()
        app.env.note_dependency(str(path))
        return as_markdown(path)

    source[0] = _NAMED.sub(notebook, source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Put the notebook in the place of the line that names it, `{{ notebook: ../../notebooks/own_parts.ipynb }}`."""
    app.connect("source-read", _read)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
