"""The pages for people: shells that a script fills from the service's REST interface."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined

_ASSETS = Path(__file__).parent / "assets"
_PAGES = Environment(
    loader=FileSystemLoader(_ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)

router = APIRouter(include_in_schema=False)


@router.get("/")
def line() -> HTMLResponse:
    """Return the page of the line."""
    return HTMLResponse(_PAGES.get_template("line.html").render())


def mount_assets(app: FastAPI) -> None:
    """Serve styles and scripts."""
    app.mount("/assets", StaticFiles(directory=_ASSETS))
