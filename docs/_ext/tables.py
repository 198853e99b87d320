"""Put each table into a box that scrolls, so that a wide one does not widen the page of a phone."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the box to the tables of HTML pages; Furo has one, without a sign that there is more to the right."""
    app.connect("doctree-resolved", _mark)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _mark(app: Sphinx, doctree: nodes.document, name: str) -> None:
    for table in doctree.findall(nodes.table):
        columns = len(list(table.findall(nodes.colspec)))
        table["classes"].append("wide" if columns > 4 else "narrow")
