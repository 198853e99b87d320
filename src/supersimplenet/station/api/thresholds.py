"""Routes of thresholds: what is set, what another one would have changed, and to set it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import to_plain
from supersimplenet.station import thresholds
from supersimplenet.station.access.accounts import Identity
from supersimplenet.station.api import shapes
from supersimplenet.station.api.moments import MOMENT_TEXT, Moment, in_ms
from supersimplenet.station.api.routes import ERRORS, Here, StrictRoute, engineer, not_there, operator
from supersimplenet.station.models import LoadedModel
from supersimplenet.station.problems import Problem
from supersimplenet.station.station import Station
from supersimplenet.station.storage.results import iso_time

router = APIRouter(prefix="/v1", route_class=StrictRoute)
_MOST = 20_000  # scores of an answer


@router.get(
    "/products/{product}/threshold", response_model=shapes.ThresholdShape, responses=ERRORS, dependencies=[operator]
)
def threshold(
    station: Here,
    product: str,
    preview: Annotated[
        float | None, Query(description="another threshold, in logits: only say what would hold")
    ] = None,
) -> Response:
    """Return a product's threshold and its guarantee, and who set it."""
    model = _model(station, product)
    if preview is None:
        return JSONResponse(_plain(station, model))
    try:
        return JSONResponse(_plain(station, thresholds.adjusted(model, preview)))
    except ConfigError as error:
        raise Problem(409, "no_guarantee", str(error)) from error


@router.put("/products/{product}/threshold", response_model=shapes.ThresholdShape, responses=ERRORS)
def set_threshold(
    station: Here, product: str, body: shapes.ThresholdBody, who: Annotated[Identity, engineer]
) -> Response:
    """Set a product's threshold, or with null that of its calibration; pictures in work keep theirs."""
    _model(station, product)
    try:
        model = station.set_threshold(product, body.threshold_logit, by=who.name)
    except ConfigError as error:
        raise Problem(409, "no_guarantee", str(error)) from error
    return JSONResponse(_plain(station, model))


@router.get("/products/{product}/scores", response_model=shapes.ScoresShape, responses=ERRORS, dependencies=[operator])
def scores(
    station: Here, product: str, since: Annotated[Moment, Query(description=f"from this time on, {MOMENT_TEXT}")]
) -> Response:
    """Return the scores of the newest results of a product's model, at most 20,000, whatever threshold it had."""
    found = thresholds.recent_scores(station.engine, _model(station, product), since=in_ms(since), limit=_MOST)
    return JSONResponse(
        {"scores_logit": [round(score, 4) for score, _ in found], "reviews": [review for _, review in found]}
    )


def _model(station: Station, product: str) -> LoadedModel:
    if product not in station.models.products:
        raise not_there("product", product)
    return station.models.of(product)


def _plain(station: Station, model: LoadedModel) -> dict[str, Any]:
    calibration, base = model.predictor.calibration, model.base or model
    with station.engine.connect() as connection:
        stored = thresholds.stored_thresholds(connection).get(model.product)
    is_stored = stored is not None and stored.base == base.id
    return {
        "product": model.product,
        "model": model.id,
        "calibrated": model.predictor.is_calibrated,
        "threshold_logit": model.predictor.threshold_logit,
        "accept_logit": None if calibration is None else calibration.accept_logit,
        "calibrated_threshold_logit": base.predictor.threshold_logit,
        "max_false_alarms": None if calibration is None else calibration.max_false_alarms,
        "confidence": None if calibration is None else calibration.confidence,
        "guarantee": None if calibration is None else calibration.guarantee(),
        "calibration": to_plain(calibration),
        "part_logits": [] if calibration is None else list(calibration.part_logits),
        "set_by": stored.set_by if stored is not None and is_stored else None,
        "set_at": iso_time(stored.set_at) if stored is not None and is_stored else None,
    }
