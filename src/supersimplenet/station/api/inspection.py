"""The route that inspects pictures."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from supersimplenet.postprocessing.parts import part_verdicts
from supersimplenet.station.api import shapes
from supersimplenet.station.api.intake import Intake, busy, pictures_of
from supersimplenet.station.api.routes import ERRORS, Here, StrictRoute, model_of, operator
from supersimplenet.station.inspection import FullError, Inspected, Picture, ReusedKeyError
from supersimplenet.station.models import LoadedModel
from supersimplenet.station.problems import Problem, problem_answer
from supersimplenet.station.station import Station
from supersimplenet.station.storage import results
from supersimplenet.station.storage.recorder import Record, shown_by

router = APIRouter(prefix="/v1", route_class=StrictRoute)
_PATH = "/v1/inspect"


class Door:
    """Refuses pictures at once while the queue is full: what is refused must not cost those in work their time.

    Args:
        app: the application behind it.
        station: the station.
    """

    def __init__(self, app: ASGIApp, station: Station) -> None:
        self._app, self._station = app, station

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it in."""
        if scope["type"] == "http" and scope["path"] == _PATH and self._station.inspections.is_full:
            await problem_answer(full(self._station))(scope, receive, send)
            return
        await self._app(scope, receive, send)


def full(station: Station) -> Problem:
    """Return the answer while the queue is full."""
    station.metrics.refused.labels("busy").inc()
    return busy(f"{station.config.queue} pictures are in work or waiting")


_PICTURE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/png": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
            "application/json": {
                "schema": shapes.ImagesShape.model_json_schema(ref_template="#/components/schemas/{model}")
            },
        },
    }
}


@router.post(
    "/inspect",
    response_model=shapes.AnswerShape,
    responses=ERRORS,
    openapi_extra=_PICTURE_BODY,
    dependencies=[operator],
    summary="Inspect one or many pictures",
)
async def inspect(
    request: Request,
    station: Here,
    product: Annotated[
        str | None, Query(max_length=200, description="may be left out where there is one product")
    ] = None,
    name: Annotated[str | None, Query(max_length=300, description="of a picture that is sent as raw bytes")] = None,
    part: Annotated[str | None, Query(max_length=200, description="the part that all these pictures show")] = None,
    store: Annotated[bool, Query(description="false: only answer, record nothing")] = True,
) -> Response:
    """Send pictures as raw bytes (``image/*``), as files of a form, or as base64 in JSON.

    A header ``Idempotency-Key`` (or ``key`` in JSON) makes a repeat safe: the result of the first is answered. Each
    picture that is answered with a result is recorded.
    """
    del name, part  # read by `pictures_of`
    model = model_of(station, product or request.headers.get("x-product"))
    intake: Intake = request.app.state.intake
    with intake.holding() as body:
        await intake.fill(body, request)
        began = time.monotonic()
        pictures = await pictures_of(request, bytes(body.content), source="http", keep=store)
        answers = await _inspected(station, pictures, model)
    station.metrics.seconds.observe(time.monotonic() - began)
    if any(answer.record["part"] is not None for answer in answers):
        return await run_in_threadpool(_answer, station, answers)  # it asks the database
    return _answer(station, answers)


async def _inspected(station: Station, pictures: list[Picture], model: LoadedModel) -> list[Inspected]:
    keys = [picture.key for picture in pictures if picture.key is not None]
    known = await run_in_threadpool(_known, station, keys) if keys else {}
    for picture in pictures:
        if picture.key in known:
            shown = hashlib.sha256(picture.content).hexdigest(), model.product
            if shown_by(known[picture.key]) != shown:
                raise _reused()
    new = [picture for picture in pictures if picture.key not in known]
    if len(new) > station.config.queue:
        raise Problem(413, "too_many", f"{len(new)} pictures in a request; send at most {station.config.queue} at once")
    try:
        futures = station.inspections.submit(new, model)
    except FullError as error:
        raise full(station) from error
    waiting = [asyncio.wrap_future(future) for future in futures]
    late = (await asyncio.wait(waiting, timeout=station.config.deadline_s))[1] if waiting else set()
    if late:
        for future in late:
            future.cancel()  # those whose turn has not come are not inspected
        station.metrics.refused.labels("deadline").inc()
        raise Problem(
            504,
            "late",
            f"not done within {station.config.deadline_s:g} s; send it again with the same Idempotency-Key, so that "
            "nothing is inspected twice",
        )
    found = iter([_outcome(future) for future in waiting])
    return [
        next(found) if picture.key not in known else Inspected(record=known[picture.key], stored="database")
        for picture in pictures
    ]


def _known(station: Station, keys: list[str]) -> dict[str, Record]:
    """Return earlier results by key; none while the database is away: a repeat is then known when it is recorded."""
    try:
        return results.find_by_keys(station.engine, keys)
    except SQLAlchemyError:
        return {}


def _reused() -> Problem:
    return Problem(
        409,
        "key_reused",
        "this Idempotency-Key came before with another picture or product; give each picture a key of its own",
    )


def _outcome(future: asyncio.Future[Inspected]) -> Inspected:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, ReusedKeyError):
        raise _reused() from error
    raise Problem(500, "engine", "the station failed at this picture; see its log") from error


def _answer(station: Station, answers: list[Inspected]) -> Response:
    records = [answer.record for answer in answers]
    error = records[0]["row"].get("error")
    if len(answers) == 1 and error is not None:
        code = records[0]["row"]["error_code"]
        raise Problem(500 if code == "engine" else 422, code, error)
    found = []
    if all(answer.stored is None for answer in answers):
        found = [results.public(record, None) for record in records]
        parts = part_verdicts([results.as_photograph(record) for record in records if record["part"] is not None])
        of_parts = [results.plain_part(part) for part in parts]
    else:
        found = station.public(records)
        of_parts = list({result["part"]: result["part_result"] for result in found if result["part"]}.values())
    for result, answer in zip(found, answers, strict=True):
        result["stored"] = answer.stored
        if answer.heat is not None:
            result["heat"] = _data_url(answer.heat)
    return JSONResponse({"results": found, "parts": of_parts})


def _data_url(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
