"""Routes of reviews: what people say about results, and the masks that they draw."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from starlette.concurrency import run_in_threadpool

from supersimplenet.errors import ConfigError, ImageError
from supersimplenet.station.access import audit
from supersimplenet.station.access.accounts import Identity
from supersimplenet.station.api import shapes
from supersimplenet.station.api.intake import Intake
from supersimplenet.station.api.moments import MOMENT_TEXT, Moment, in_ms
from supersimplenet.station.api.routes import ERRORS, Here, StrictRoute, found_result, model_of, not_there, operator
from supersimplenet.station.library.store import read_sent_mask
from supersimplenet.station.problems import Problem
from supersimplenet.station.review.answers import add_answer, answers_to, kinds_of_defects, last_answer
from supersimplenet.station.review.opinions import Answer, Said
from supersimplenet.station.review.queue import review_queue
from supersimplenet.station.review.rates import estimate_rates
from supersimplenet.station.station import Station
from supersimplenet.station.storage.database import now_ms, writing
from supersimplenet.station.storage.results import Filter

router = APIRouter(prefix="/v1", route_class=StrictRoute)
_RATES_MS = 7 * 86_400_000
_PUBLISHING = threading.Lock()  # of two reviews of a result, the later one is also published later
_MASK_BODY = {"requestBody": {"required": True, "content": {"image/png": {"schema": {"type": "string"}}}}}


@router.get("/review/queue", response_model=shapes.QueueShape, responses=ERRORS)
def queue(
    station: Here,
    who: Annotated[Identity, operator],
    product: Annotated[str | None, Query(max_length=200, description="may be left out where there is one")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    """Return the parts to ask a person about next, each with the reason."""
    name = model_of(station, product).product
    found = review_queue(
        station.engine,
        product=name,
        who=who.name,
        sampling=station.config.sampling,
        within_ms=station.config.part_ms,
        limit=limit,
    )
    shown = station.public([each.record for each in found])
    asked = [
        {"result": result, "reason": each.reason, "wrong": each.wrong}
        for each, result in zip(found, shown, strict=True)
    ]
    known = [each.wrong for each in found if each.wrong is not None]
    return JSONResponse(
        {
            "asked": asked,
            "expected_corrections": sum(known) if known else None,
            "defects": kinds_of_defects(station.engine, name),
        }
    )


@router.get("/review/rates", response_model=shapes.RatesShape, responses=ERRORS, dependencies=[operator])
def rates(
    station: Here,
    since: Annotated[Moment | None, Query(description=f"from this time on, {MOMENT_TEXT}; by default 7 days")] = None,
    until: Annotated[Moment | None, Query(description=f"before this time, {MOMENT_TEXT}")] = None,
    product: Annotated[str | None, Query(max_length=200, description="may be left out where there is one")] = None,
) -> Response:
    """Estimate how many parts escape and how many are called bad without need."""
    wanted = Filter(
        since=in_ms(since) if since is not None else now_ms() - _RATES_MS,
        until=in_ms(until),
        product=model_of(station, product).product,
    )
    found = estimate_rates(station.engine, wanted, station.config.sampling, within_ms=station.config.part_ms)
    return JSONResponse(asdict(found))


@router.post("/results/{id}/review", response_model=shapes.ResultShape, responses=ERRORS)
def review(
    station: Here,
    id: str,  # noqa: A002
    body: shapes.ReviewBody,
    who: Annotated[Identity, operator],
) -> Response:
    """Say what a part is: a false call is a good part, a missed defect a bad one. Null takes the answer back.

    Each person's last answer counts, and the majority decides; a mask that the person drew stays while the part is bad.
    """
    if body.defect is not None and body.verdict != "bad":
        raise Problem(422, "defect", f"defect: '{body.defect}', but the verdict is not bad; leave it out")

    def said(last: Answer | None) -> Said:
        mask = last.mask if last is not None and body.verdict == "bad" else None
        return Said(answer=body.verdict, defect=body.defect, mask=mask, asked=body.asked)

    return _say(station, id, who, said)


@router.get("/results/{id}/answers", response_model=shapes.AnswersShape, responses=ERRORS, dependencies=[operator])
def answers(station: Here, id: str) -> shapes.AnswersShape:  # noqa: A002
    """Return all answers about a result, those that were taken back or changed included."""
    record = found_result(station, id)
    with station.engine.connect() as connection:
        found = answers_to(connection, record["id"])
    said = [{**vars(each), "verdict": each.answer} for each in found]
    return shapes.AnswersShape.model_validate({"answers": said})


@router.get("/results/{id}/mask", response_class=FileResponse, responses=ERRORS, dependencies=[operator])
def mask(station: Here, id: str) -> Response:  # noqa: A002
    """Return the mask of a bad part as a PNG of the picture's size: 255 where a pixel is defective, else 0."""
    sha256 = found_result(station, id)["review_mask"]
    path = None if sha256 is None else station.library.mask(sha256)
    if path is None or not path.is_file():
        raise not_there("mask of result", id)
    return FileResponse(path, media_type="image/png", headers={"Cache-Control": "no-cache"})  # another may be drawn


@router.put("/results/{id}/mask", response_model=shapes.ResultShape, responses=ERRORS, openapi_extra=_MASK_BODY)
async def draw_mask(
    request: Request,
    station: Here,
    id: str,  # noqa: A002
    who: Annotated[Identity, operator],
) -> Response:
    """Say that a part is bad, and where: a PNG of the picture's size, white where a pixel is defective."""
    intake: Intake = request.app.state.intake
    with intake.holding() as body:
        await intake.fill(body, request)
        return await run_in_threadpool(_keep_mask, station, id, bytes(body.content), who)


@router.delete("/results/{id}/mask", response_model=shapes.ResultShape, responses=ERRORS)
def remove_mask(station: Here, id: str, who: Annotated[Identity, operator]) -> Response:  # noqa: A002
    """Take one's own mask back; the part stays bad."""

    def said(last: Answer | None) -> Said:
        if last is None or last.mask is None:
            raise not_there("mask of yours for result", id)
        return Said(answer=last.answer, defect=last.defect, mask=None, asked=last.asked)

    return _say(station, id, who, said)


def _keep_mask(station: Station, id: str, content: bytes, who: Identity) -> Response:  # noqa: A002
    row = found_result(station, id)["row"]
    if row["height"] is None:
        raise Problem(422, "unreadable", "this picture could not be read, so nothing can be marked in it")
    try:
        drawn = read_sent_mask(content, image_size_px=(row["height"], row["width"]))
    except ImageError as error:
        raise Problem(422, "mask", str(error)) from error
    sha256 = station.library.add_mask(drawn)

    def said(last: Answer | None) -> Said:
        defect, asked = (None, None) if last is None else (last.defect, last.asked)
        return Said(answer="bad", defect=defect, mask=sha256, asked=asked)

    return _say(station, id, who, said)


def _say(station: Station, id: str, who: Identity, said: Callable[[Answer | None], Said]) -> Response:  # noqa: A002
    """Add the answer that follows from a person's earlier one, and tell all who watch."""
    id = found_result(station, id)["id"]  # noqa: A001  # a repeat's own id leads to the first result
    with writing(station.engine) as connection:
        audit.lock(connection)  # two answers at once would each be counted without the other
        try:
            own = said(last_answer(connection, id, who=who.name))
        except ConfigError as error:
            raise Problem(422, "defect", str(error)) from error
        add_answer(connection, id, own, who=who.name)
        details = {"result": id, "verdict": own.answer, "defect": own.defect, "mask": own.mask}
        audit.append(connection, who=who.name, what="review", details=details)
    with _PUBLISHING:
        (result,) = station.public([found_result(station, id)])
        if station.hub is not None:
            station.hub.publish_review(result)
    return JSONResponse(result)
