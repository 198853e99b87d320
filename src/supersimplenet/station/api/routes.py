"""What the routes of the service share: strict queries, the station of a request, roles, and the errors they answer."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.datastructures import QueryParams

from supersimplenet.errors import printable
from supersimplenet.station.access.guards import refuse_secrets_in_address, require
from supersimplenet.station.models import LoadedModel
from supersimplenet.station.problems import ErrorAnswer, Problem
from supersimplenet.station.station import Station
from supersimplenet.station.storage import results
from supersimplenet.station.storage.recorder import Record
from supersimplenet.utils.formatting import listed, nearest

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
_MOST_NAMED = 5  # wrong parameters in a message


class StrictRoute(APIRoute):
    """A route that refuses parameters in the query that it does not have, or that come twice.

    A misspelt filter that is left out of account would answer with all results.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        answer = super().get_route_handler()
        known = sorted(set(_query_names(self.dependant)))

        async def answer_strictly(request: Request) -> Response:
            refuse_secrets_in_address(request)  # whose advice matters more
            _check_query(request.query_params, known)
            return await answer(request)

        return answer_strictly


def _query_names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for needed in dependant.dependencies:
        yield from _query_names(needed)


def _check_query(given: QueryParams, known: Sequence[str]) -> None:
    if unknown := [name for name in given if name not in known]:
        wrong = [f"{name[:100]}: no such parameter{nearest(name[:100], known)}" for name in unknown[:_MOST_NAMED]]
        more = f"; and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
        has = f"this address takes {listed(known, 'and')}" if known else "this address takes none"
        raise Problem(422, "query", f"query: {'; '.join(wrong)}{more}; {has}")
    for name in given:
        if (times := len(given.getlist(name))) > 1:
            raise Problem(422, "query", f"query: {name}: given {times} times; wanted once")


def model_of(station: Station, product: str | None) -> LoadedModel:
    """Return the model of a product, which need not be named where there is one.

    Raises:
        Problem: there is no such product, or several and none is named.
    """
    try:
        return station.models.of(product)
    except KeyError:
        names = ", ".join(station.models.products)
        text = "no product is named" if product is None else f"no product '{printable(product)}'"
        raise Problem(404, "product", f"{text}; this station inspects {names}") from None


def found_result(station: Station, id: str) -> Record:  # noqa: A002
    """Return a result by its id.

    Raises:
        Problem: there is none.
    """
    record = results.find(station.engine, id) if len(id) == 32 and id.isalnum() else None
    if record is None:
        raise not_there("result", id)
    return record


def not_there(what: str, name: str) -> Problem:
    """Return the answer to a request for something that is not there."""
    return Problem(404, what, f"no {what} '{printable(name[:100])}'")
