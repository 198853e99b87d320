"""Routes of the models and of the state of the station."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from sqlalchemy import select

from supersimplenet.errors import SuperSimpleNetError
from supersimplenet.station.access.accounts import Identity
from supersimplenet.station.access.audit import append
from supersimplenet.station.api import shapes
from supersimplenet.station.api.intake import busy
from supersimplenet.station.api.routes import ERRORS, Here, StrictRoute, engineer, not_there, operator
from supersimplenet.station.drift import DriftState
from supersimplenet.station.metrics import CONTENT_TYPE
from supersimplenet.station.models import LoadedModel
from supersimplenet.station.problems import Problem, not_reached
from supersimplenet.station.signs import signs_of
from supersimplenet.station.storage.database import writing
from supersimplenet.station.storage.results import iso_time
from supersimplenet.station.storage.schema import MODELS
from supersimplenet.utils.version import __version__

router = APIRouter(prefix="/v1", route_class=StrictRoute)


@router.get("/models", response_model=list[shapes.ModelShape], responses=ERRORS, dependencies=[operator])
def models(station: Here) -> Response:
    """List the models in use, with all that decides."""
    return JSONResponse([_plain_model(model) for model in station.models])


@router.get("/models/available", response_model=list[str], responses=ERRORS, dependencies=[engineer])
def available_models(station: Here) -> Response:
    """List the models that may be chosen: those below the folder that was named with --models."""
    return JSONResponse(sorted(station.models.available()))


@router.get("/models/{id}", response_model=shapes.ModelShape, responses=ERRORS, dependencies=[operator])
def one_model(station: Here, id: str) -> Response:  # noqa: A002
    """Return a model that decides or once decided."""
    with station.engine.connect() as connection:
        row = connection.execute(select(MODELS).where(MODELS.c.id == id.replace("\0", ""))).mappings().first()
    if row is None:
        raise not_there("model", id)
    return JSONResponse({name: row[name] for name in ("id", "product", "path", "facts")})


@router.put("/products/{product}/model", response_model=shapes.ModelShape, responses=ERRORS)
def choose_model(station: Here, product: str, body: shapes.ModelBody, who: Annotated[Identity, engineer]) -> Response:
    """Use another model for a product; no request is lost: what the earlier one has begun it also ends."""
    if product not in station.models.products:
        raise not_there("product", product)
    try:
        model = station.change_model(product, station.models.chosen(body.name))
    except SuperSimpleNetError as error:
        raise Problem(422, "model", f"{error}; {product} keeps its model") from error
    with writing(station.engine) as connection:
        append(connection, who=who.name, what="model", details={"product": product, "model": model.id})
    return JSONResponse(_plain_model(model))


@router.get("/drift", response_model=list[shapes.DriftShape], responses=ERRORS, dependencies=[operator])
def drift(station: Here) -> Response:
    """Say for each product whether its pictures are still like those before them."""
    return JSONResponse([_plain_drift(state) for state in station.drift.states])


@router.post("/products/{product}/drift/accept", response_model=shapes.DriftShape, responses=ERRORS)
def accept_drift(station: Here, product: str, who: Annotated[Identity, engineer]) -> Response:
    """Take the pictures as they are now for the normal; comparison begins anew."""
    if product not in station.models.products:
        raise not_there("product", product)
    before = station.drift.accept(station.models.of(product))
    with writing(station.engine) as connection:
        details = {"product": product, "changed": [each.name for each in before.changed]}
        append(connection, who=who.name, what="accept drift", details=details)
    (state,) = [state for state in station.drift.states if state.product == product]
    return JSONResponse(_plain_drift(state))


@router.get("/status", response_model=shapes.StatusShape, responses=ERRORS, dependencies=[operator])
def status(station: Here) -> Response:
    """Return the state of the station, and signs of what is not as it should be."""
    waiting = station.waiting
    return JSONResponse(
        {
            "version": __version__,
            "products": station.models.products,
            "in_work": station.inspections.counts.in_work,
            "queue": station.config.queue,
            "free_mib": station.store.free_bytes >> 20,
            "shift_hours": station.config.shift_hours,
            "speed": asdict(station.inspections.speed),
            "sources": [asdict(source.state) for source in station.sources],
            "sinks": [asdict(sink.state) | {"waiting": waiting.get(sink.name, 0)} for sink in station.deliveries],
            "signs": [asdict(sign) for sign in signs_of(station)],
        }
    )


@router.get("/live", responses=ERRORS)
async def live() -> dict[str, bool]:
    """Answer while the process runs."""
    return {"live": True}


@router.get("/ready", responses=ERRORS)
async def ready(station: Here) -> dict[str, bool]:
    """Answer with 200 where pictures are taken: also while the database is away, as results then wait on the disk.

    Until it was reached once since the start nobody is known, and only those of sources are taken: 503.
    """
    if not station.has_reached_database:
        raise not_reached()
    if station.inspections.is_full:
        raise busy("the queue is full")
    return {"ready": True}


@router.get("/version", responses=ERRORS)
async def version() -> dict[str, str]:
    """Return the version of the package."""
    return {"version": __version__}


@router.get("/metrics", response_class=Response, responses=ERRORS, dependencies=[operator])
def metrics(station: Here) -> Response:
    """Return what Prometheus reads."""
    return Response(station.metrics.text(), media_type=CONTENT_TYPE)


def _plain_model(model: LoadedModel) -> dict[str, Any]:
    return {"id": model.id, "product": model.product, "path": str(model.path), "facts": dict(model.facts)}


def _plain_drift(state: DriftState) -> dict[str, Any]:
    return asdict(state) | {
        "drifted_at": None if state.drifted_at is None else iso_time(state.drifted_at),
        "since": iso_time(state.since),
        "changed": [each.name for each in state.changed],
    }
