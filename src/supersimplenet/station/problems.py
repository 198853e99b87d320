"""The one form of a station's errors: ``{"error": {"code": "forbidden", "message": "what to do"}}``."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from supersimplenet.station.storage.database import NotReachedError
from supersimplenet.utils.formatting import counted, printable

_NO_BODY = (204, 304)
_AWAY_S = 5
_OF_PYDANTIC = "Value error, "  # before the message of a validator of our own


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str = Field(description="stays the same in later versions; for programs", examples=["forbidden"])
    message: str = Field(description="for people: what was found and what to do", examples=["this needs an engineer"])


class ErrorAnswer(BaseModel):
    """The answer to a request that failed."""

    error: ErrorDetail


class Problem(HTTPException):
    """A request that is refused.

    Args:
        status: status of the answer.
        code: short name for programs, such as ``forbidden``.
        message: for people: what was found and what to do.
        headers: headers of the answer.
    """

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, None if headers is None else dict(headers))
        self.code = code
        self.message = message


def problem_answer(problem: Problem) -> Response:
    """Return the answer that tells of a problem."""
    error = {"code": problem.code, "message": printable(problem.message)}
    return JSONResponse({"error": error}, status_code=problem.status_code, headers=problem.headers)


def problem_docs(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what ``responses=`` of a route takes, for the statuses that it refuses with."""
    return {status: {"model": ErrorAnswer, "description": HTTPStatus(status).phrase} for status in statuses}


def add_problem_handlers(app: FastAPI) -> None:
    """Give all errors of an app the one form, those of FastAPI and unexpected ones too."""
    for kind, handler in (
        (HTTPException, _answer_http),
        (RequestValidationError, _answer_invalid),
        (OperationalError, _answer_away),
        (InterfaceError, _answer_away),
        (PoolTimeoutError, _answer_away),
        (Exception, _answer_unexpected),
    ):
        app.add_exception_handler(kind, handler)


def _answer_http(request: Request, error: Exception) -> Response:
    del request
    if isinstance(error, Problem):
        return problem_answer(error)
    assert isinstance(error, HTTPException)
    if error.status_code in _NO_BODY:
        return Response(status_code=error.status_code, headers=error.headers)
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return problem_answer(Problem(error.status_code, code, str(error.detail), error.headers))


def _answer_invalid(request: Request, error: Exception) -> Response:
    """Name what is wrong without what was sent, which may be a password."""
    del request
    assert isinstance(error, RequestValidationError)
    first, *others = error.errors()
    place = ".".join(str(part) for part in first["loc"])
    more = f"; and {counted(len(others), 'further error')}" if others else ""
    return problem_answer(
        Problem(422, "invalid", f"{place}: {first['msg'].removeprefix(_OF_PYDANTIC)}{more}; see /v1/openapi.json")
    )


def not_reached() -> Problem:
    """Return the answer while the database was not reached since the start: nobody is let in who is not known."""
    message = "the database was not reached since the start, so nobody is known yet; it is tried again by itself"
    return Problem(503, "database_not_reached", message, {"Retry-After": str(_AWAY_S)})


def _answer_away(request: Request, error: Exception) -> Response:
    del request
    if isinstance(error, NotReachedError):
        return problem_answer(not_reached())
    message = "the database cannot be reached; try again in some seconds"
    return problem_answer(Problem(503, "database_away", message, {"Retry-After": str(_AWAY_S)}))


def _answer_unexpected(request: Request, error: Exception) -> Response:
    del request, error
    return problem_answer(Problem(500, "internal", "the station failed at this request; its log says why"))
