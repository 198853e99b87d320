"""The pages for people: shells that scripts fill from the service's REST interface.

A shell holds no data, so that it needs no login; all words of a page are in ``assets/texts``, a file a language.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.types import Scope

_ASSETS = Path(__file__).parent / "assets"
_TEXTS = _ASSETS / "texts"
_PAGES = Environment(
    loader=FileSystemLoader(_ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_SERVED = {  # all else in the folder, such as the shells' sources, is not for browsers
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
_DEFAULT_LANGUAGE = "en"
_CHOSEN = "language"  # cookie of the chooser, which the page sets
_VISIT = "language-visit"  # cookie of ?lang=, until the browser is closed or another language is chosen
_RANGE = re.compile(r"\s*([A-Za-z]{1,8})[A-Za-z0-9-]*\s*(?:;\s*q=([0-9.]{1,5}))?\s*")  # de-AT;q=0.8

_ADDRESSES = {  # of each page; a page is ``assets/NAME.html`` with its style and script of that name
    "line": "/",
    "history": "/history",
    "review": "/review",
    "try": "/try",
    "models": "/models",
    "threshold": "/threshold",
    "health": "/health",
    "result": "/results/{id}",  # its script takes the id from the address
    "users": "/users",  # its script asks for what an admin alone may see
    "login": "/login",
}

router = APIRouter(include_in_schema=False)


@router.get("/favicon.ico")
def icon() -> Response:
    """Answer browsers that ask for an icon on their own; the pages name theirs."""
    return Response(status_code=204, headers={"Cache-Control": "max-age=86400"})


def mount_assets(app: FastAPI) -> None:
    """Serve styles, scripts and texts."""
    app.mount("/assets", _Assets(directory=_ASSETS))


class _Assets(StaticFiles):
    """Files for browsers, which ask each time whether they have changed."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        kind = _SERVED.get(Path(path).suffix)
        if kind is None:
            raise HTTPException(404)
        answer = await super().get_response(path, scope)
        answer.headers["Cache-Control"] = "no-cache"  # with the ETag: sent again only where it has changed
        if answer.status_code == 200:
            answer.headers["Content-Type"] = kind  # not what this computer's own table of types says
        return answer


@cache
def languages() -> Mapping[str, Mapping[str, str]]:
    """Return the words of the pages, by language."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(_TEXTS.glob("*.json"))}


def wanted_language(request: Request) -> str:
    """Return the language of the address (``?lang=``), of this visit or chosen; else the browser's, or English."""
    for named in (request.query_params.get("lang"), request.cookies.get(_VISIT), request.cookies.get(_CHOSEN)):
        if named is not None and named in languages():
            return named
    ranges = [_RANGE.fullmatch(text) for text in request.headers.get("accept-language", "")[:500].split(",")]
    liked = {found[1].lower(): _weight(found[2]) for found in reversed(ranges) if found}  # of equal ones, the first
    wanted = [name for name in reversed(liked) if name in languages() and liked[name] > 0]
    return max(wanted, key=lambda name: liked[name], default=_DEFAULT_LANGUAGE)


def _weight(text: str | None) -> float:
    try:
        return 1.0 if text is None else float(text)
    except ValueError:
        return 0.0


def _shell(request: Request, name: str) -> HTMLResponse:
    language = wanted_language(request)
    page = _PAGES.get_template(f"{name}.html")
    text = page.render(page=name, language=language, languages=languages(), words=languages()[language])
    answer = HTMLResponse(text, headers={"Vary": "Accept-Language, Cookie"})
    if request.query_params.get("lang") == language:
        answer.set_cookie(_VISIT, language, samesite="lax")
    return answer


for _name, _address in _ADDRESSES.items():
    router.add_route(_address, partial(_shell, name=_name))
