"""What all pages share: links where a page of the docs is only named, and a class for tables by their width."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

MENTION = re.compile(r"docs/([\w/-]+)\.md")
_MOST_NARROW = 4  # columns of a table of words; one with more is of numbers


def page_link(target: str, page: str) -> addnodes.pending_xref:
    """Return a link to a page of the docs.

    Args:
        target: the page below ``docs``, without its ending, such as ``decisions/0001-order-of-computation``.
        page: the page that the link stands on.
    """
    number = re.search(r"decisions/0*(\d+)-", target)
    link = addnodes.pending_xref(
        "", refdoc=page, refdomain="std", reftype="doc", reftarget=f"/{target}", refexplicit=bool(number)
    )
    link += nodes.inline(text=f"decision {number[1]}" if number else target)
    return link


def _link_mentions(app: Sphinx, doctree: nodes.document) -> None:
    page = app.env.docname
    for text in list(doctree.findall(nodes.Text)):
        words, parent = text.astext(), text.parent
        inside = (nodes.literal, nodes.literal_block, nodes.reference, nodes.title, nodes.raw, addnodes.pending_xref)
        if parent is None or isinstance(parent, inside) or not MENTION.search(words):
            continue
        found: list[nodes.Node] = []
        end = 0
        for match in MENTION.finditer(words):
            if (Path(app.srcdir) / f"{match[1]}.md").is_file():
                found += [nodes.Text(words[end : match.start()]), page_link(match[1], page)]
                end = match.end()
        parent.replace(text, [*found, nodes.Text(words[end:])])


def _mark_tables(app: Sphinx, doctree: nodes.document, page: str) -> None:
    for table in doctree.findall(nodes.table):
        columns = len(list(table.findall(nodes.colspec)))
        table["classes"].append("narrow" if columns <= _MOST_NARROW else "wide")


def setup(app: Sphinx) -> dict[str, Any]:
    """Link what is named when a page is read; mark tables when it is written."""
    app.connect("doctree-read", _link_mentions)
    app.connect("doctree-resolved", _mark_tables)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
