"""Routes of results: search, pictures, parts, exports, and the stream of new ones."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from supersimplenet.errors import ImageError
from supersimplenet.preprocessing.reading import FULL_RANGE, ReadConfig
from supersimplenet.station.access.guards import may_go_on
from supersimplenet.station.api import shapes
from supersimplenet.station.api.intake import busy
from supersimplenet.station.api.moments import MOMENT_TEXT, Moment, in_ms
from supersimplenet.station.api.routes import ERRORS, Here, StrictRoute, found_result, not_there, operator
from supersimplenet.station.problems import Problem
from supersimplenet.station.station import Station
from supersimplenet.station.storage import exports, names, results
from supersimplenet.station.storage.pictures import SHOWN_KINDS, SHOWN_SIDES_PX, levels_png
from supersimplenet.station.storage.recorder import Record
from supersimplenet.utils.formatting import nearest

router = APIRouter(prefix="/v1", route_class=StrictRoute)
_KEPT = {"Cache-Control": "private, max-age=86400, immutable"}  # a picture never changes
_MOST_NAMED = 20  # products in a message


def wanted_results(  # one parameter for each in the URL
    since: Annotated[Moment | None, Query(description=f"from this time on, {MOMENT_TEXT}")] = None,
    until: Annotated[Moment | None, Query(description=f"before this time, {MOMENT_TEXT}")] = None,
    verdict: results.Wanted | None = None,
    product: Annotated[str | None, Query(max_length=200)] = None,
    part: Annotated[str | None, Query(max_length=400)] = None,
    model: Annotated[str | None, Query(max_length=64)] = None,
    source: Annotated[str | None, Query(max_length=200)] = None,
    reviewed: results.Reviewed | None = None,
) -> results.Filter:
    """Return which results a request wants."""
    texts = {"product": product, "part": part, "model": model, "source": source}
    if any("\0" in (value or "") for value in texts.values()):
        raise Problem(422, "text", "a NUL character in the query; no name has one")
    return results.Filter(since=in_ms(since), until=in_ms(until), verdict=verdict, reviewed=reviewed, **texts)


Wanted = Annotated[results.Filter, Depends(wanted_results)]


@router.get("/results", response_model=shapes.ListShape, responses=ERRORS, dependencies=[operator])
def list_results(
    station: Here,
    wanted: Wanted,
    order: results.Order = "newest",
    after: Annotated[str | None, Query(max_length=64, description="id of the last result that is known")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Response:
    """Search results by time, verdict, product, part, model, source and review."""
    last = None if after is None else found_result(station, after)
    found = results.search(station.engine, wanted, order=order, after=last, limit=limit + 1)
    if not found:
        _check_names(station, wanted)
    more = found[limit - 1]["id"] if len(found) > limit else None
    return JSONResponse({"results": station.public(found[:limit]), "next": more})


@router.get("/counts", response_model=shapes.CountsShape, responses=ERRORS, dependencies=[operator])
def count_results(station: Here, wanted: Wanted) -> Response:
    """Count results by verdict, and reviews that contradict it."""
    counts = results.count(station.engine, wanted)
    if not any(counts.values()):
        _check_names(station, wanted)
    return JSONResponse(counts)


@router.get("/results.csv", response_class=StreamingResponse, responses=ERRORS, dependencies=[operator])
def results_as_csv(station: Here, wanted: Wanted) -> Response:
    """Return results as a CSV table, oldest first."""
    lines = exports.csv_lines(_every(station, wanted))
    return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=_attached("results.csv"))


@router.get("/results.parquet", response_class=StreamingResponse, responses=ERRORS, dependencies=[operator])
def results_as_parquet(station: Here, wanted: Wanted) -> Response:
    """Return results as a Parquet table, oldest first."""
    blocks = exports.parquet_blocks(_every(station, wanted))
    return StreamingResponse(blocks, media_type="application/vnd.apache.parquet", headers=_attached("results.parquet"))


@router.get("/results.zip", response_class=StreamingResponse, responses=ERRORS, dependencies=[operator])
def pictures_as_zip(station: Here, wanted: Wanted) -> Response:
    """Return the kept pictures of results in a folder for each verdict, those that were reviewed by the review."""
    blocks = exports.zip_blocks(_every(station, wanted), station.store)
    return StreamingResponse(blocks, media_type="application/zip", headers=_attached("results.zip"))


@router.get("/results/{id}", response_model=shapes.ResultShape, responses=ERRORS, dependencies=[operator])
def one_result(station: Here, id: str) -> Response:  # noqa: A002
    """Return a result."""
    return JSONResponse(station.public([found_result(station, id)])[0])


@router.get("/results/{id}/picture", response_class=FileResponse, responses=ERRORS, dependencies=[operator])
def picture(station: Here, id: str) -> Response:  # noqa: A002
    """Return the picture as it was sent."""
    record = found_result(station, id)
    kind = SHOWN_KINDS.get(record["kind"], "application/octet-stream")
    name = f"{id}.{record['kind']}"
    return FileResponse(_kept(station, record), media_type=kind, headers=_KEPT | _attached(name))


@router.get("/results/{id}/view", response_class=FileResponse, responses=ERRORS, dependencies=[operator])
def view(
    station: Here,
    id: str,  # noqa: A002
    side: Annotated[int, Query(description="longest side in px, at most: 320, 1600 or 8192")] = SHOWN_SIDES_PX[1],
) -> Response:
    """Return the picture as the model sees it, as a JPEG for a browser."""
    if side not in SHOWN_SIDES_PX:
        raise Problem(422, "side", f"side: {side}; wanted 320, 1600 or 8192")
    record = found_result(station, id)
    _kept(station, record)
    reading = _reading(station, record["product"])
    try:
        path = station.store.shown(record["picture"], record["kind"], side_px=side, reading=reading)
    except ImageError as error:
        raise Problem(404, "unreadable", f"this picture cannot be shown: {error}") from error
    return FileResponse(path, media_type="image/jpeg", headers=_KEPT)


@router.get("/results/{id}/heat", response_class=FileResponse, responses=ERRORS, dependencies=[operator])
def heat(station: Here, id: str) -> Response:  # noqa: A002
    """Return the anomaly map in its colours, as a PNG with opacity, to be laid over the picture."""
    return FileResponse(_map_of(station, id), media_type="image/png", headers=_KEPT)


@router.get("/results/{id}/levels", response_class=Response, responses=ERRORS, dependencies=[operator])
def levels(station: Here, id: str) -> Response:  # noqa: A002
    """Return the anomaly map as a grey PNG of 8 bits that rises with the anomaly, in the picture's proportions.

    Of a calibrated model, 128 and more reach the pixel threshold.
    """
    return Response(levels_png(_map_of(station, id)), media_type="image/png", headers=_KEPT)


@router.get("/parts/{product}/{part:path}", response_model=shapes.PartAnswer, responses=ERRORS, dependencies=[operator])
def part(station: Here, product: str, part: str) -> Response:
    """Return the one verdict of a part, from all photographs of it."""
    within_ms = station.config.part_ms
    found = None if "\0" in product + part else results.of_part(station.engine, product, part, within_ms=within_ms)
    if found is None:
        raise not_there("part", part)
    verdict, records = found
    return JSONResponse(results.plain_part(verdict) | {"results": station.public(records)})


@router.get("/events", response_class=StreamingResponse, responses=ERRORS, dependencies=[operator])
async def events(request: Request, station: Here) -> Response:
    """Stream new results (``result``) and reviews (``review``) as server-sent events, as long as the sender is known.

    ``Last-Event-ID`` gets the results that were missed, at most 50. ``ended`` comes last where a login is needed again.
    """
    if station.hub is None:
        raise busy("the station starts")
    last = request.headers.get("last-event-id")
    missed = await run_in_threadpool(_missed, station, last) if last else []
    stream = station.hub.stream(missed, may_go_on=functools.partial(may_go_on, request))
    return StreamingResponse(stream, media_type="text/event-stream")


def _every(station: Station, wanted: results.Filter) -> Iterator[Record]:
    """Return all results that are wanted, oldest first; the first ones are asked for at once."""
    records = results.every(station.engine, wanted)
    first = next(records, None)
    if first is None:
        _check_names(station, wanted)
        return records
    return chain([first], records)


def _check_names(station: Station, wanted: results.Filter) -> None:
    """Refuse a product or model that never was; for where nothing was found, as it asks the database."""
    product, model = wanted.product, wanted.model
    if product is not None and product not in station.models.products:
        earlier = names.products(station.engine)
        if product not in earlier:
            known = sorted({*earlier, *station.models.products})
            shown = ", ".join(known[:_MOST_NAMED]) + (", ..." if len(known) > _MOST_NAMED else "")
            raise Problem(404, "product", f"no product '{product}'{nearest(product, known)}; known are {shown}")
    in_use = {used.id for used in station.models}
    if model is not None and model not in in_use and not names.has_model(station.engine, model):
        raise Problem(404, "model", f"no model '{model}'; wanted an id of 64 digits as in results and /v1/models")


def _kept(station: Station, record: Record) -> Path:
    path = station.store.picture(record["picture"], record["kind"])
    if not record["kept"] or not path.is_file():
        raise Problem(404, "not_kept", "the picture of this result is not kept")
    return path


def _map_of(station: Station, id: str) -> Path:  # noqa: A002
    record = found_result(station, id)
    _kept(station, record)
    path = station.store.heat(record["id"])
    if not path.is_file():
        raise Problem(404, "no_map", "the map of this result is not kept")
    return path


def _reading(station: Station, product: str) -> ReadConfig:
    try:
        return station.models.of(product).predictor.preprocessor.reading
    except KeyError:  # a product of earlier days
        return FULL_RANGE


def _missed(station: Station, last: str) -> list[dict[str, Any]]:
    record = results.find(station.engine, last)
    if record is None:
        return []
    newest = results.search(station.engine, results.Filter(since=record["taken_at"]), limit=50)
    return station.public([missed for missed in reversed(newest) if missed["id"] > last])


def _attached(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}
