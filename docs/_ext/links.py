"""Check the built pages: every link leads to a page and a place that are there, and no page fetches anything."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.application import Sphinx
from sphinx.errors import SphinxError

_FETCHED = {("script", "src"), ("img", "src"), ("link", "href"), ("source", "src"), ("iframe", "src"), ("use", "href")}
_IN_STYLE = re.compile(r"""url\(\s*['"]?(?!data:|#)([^'")]+)|@import\s+['"]([^'"]+)""")


class BrokenLinksError(SphinxError):
    """Links of the built pages lead nowhere, or pages fetch from outside."""

    category = "links"


class _Page(HTMLParser):
    """Collects the places of a page, and what it links to or fetches."""

    def __init__(self) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: list[tuple[str, bool]] = []  # where to, and whether the browser fetches it with the page

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if value is None:
                continue
            if name == "id" or (tag == "a" and name == "name"):
                self.places.add(value)
            elif (tag, name) in _FETCHED or (tag == "a" and name == "href"):
                self.links.append((value, (tag, name) in _FETCHED))


def broken_links(site: Path) -> list[str]:
    """Return a line for each link of the pages below ``site`` that leads nowhere or fetches from outside."""
    pages = {}
    for file in sorted(site.rglob("*.html")):
        pages[file.resolve()] = page = _Page()
        page.feed(file.read_text(encoding="utf-8"))
    found = []
    for file, page in pages.items():
        where = file.relative_to(site.resolve())
        for link, fetched in page.links:
            if reason := _reason(link, fetched, file, page, pages):
                found.append(f"{where}: {link}: {reason}")
    for style in sorted(site.rglob("*.css")):
        for match in _IN_STYLE.finditer(style.read_text(encoding="utf-8")):
            link = match[1] or match[2]
            if urlsplit(link).netloc or not (style.parent / urlsplit(link).path).is_file():
                found.append(f"{style.relative_to(site)}: {link}: outside, or missing")
    return found


def _reason(link: str, fetched: bool, file: Path, page: _Page, pages: dict[Path, _Page]) -> str:
    parts = urlsplit(link)
    if parts.scheme == "data":
        return ""
    if parts.scheme or parts.netloc:
        return "is fetched from outside" if fetched else ""
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if not target.is_file():
        return "no such file"
    place = unquote(parts.fragment)
    known = pages.get(target)
    return "no such place" if place and known is not None and place not in known.places else ""


def _check(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.name == "html" and (found := broken_links(Path(app.outdir))):
        raise BrokenLinksError("\n".join(found))


def setup(app: Sphinx) -> dict[str, Any]:
    """Run the check after each build of HTML; what it finds fails the build."""
    app.connect("build-finished", _check)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    sys.exit("\n".join(broken_links(Path(sys.argv[1]))) or 0)
