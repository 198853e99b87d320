"""What the routes of the service share: the station of a request, roles, and the errors they answer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from supersimplenet.errors import printable
from supersimplenet.station.access.guards import require
from supersimplenet.station.problems import ErrorAnswer, Problem
from supersimplenet.station.station import Station

operator, engineer = Depends(require("operator")), Depends(require("engineer"))
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": text}
    for status, text in {
        400: "a token in the URL, or an address that is not the station's",
        401: "not logged in",
        403: "not allowed for this role",
        404: "not there",
        408: "the request's body came too slowly",
        409: "a key that came before with another picture",
        413: "the request is too large",
        415: "another type of content",
        422: "not as wanted",
        503: "too much at once: try again after Retry-After",
        504: "not done in time",
    }.items()
}


async def station_of(request: Request) -> Station:
    """Return the station that a request is for."""
    station: Station = request.app.state.station
    return station


Here = Annotated[Station, Depends(station_of)]


def not_there(what: str, name: str) -> Problem:
    """Return the answer to a request for something that is not there."""
    return Problem(404, what, f"no {what} '{printable(name[:100])}'")
