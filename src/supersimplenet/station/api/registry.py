"""Routes of the registry: models, trainings, promotions, and the rules by which the station trains."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query

from supersimplenet.errors import ConfigError, SuperSimpleNetError
from supersimplenet.inference.config import CALIBRATION_FILE, from_plain, to_plain
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.station.access.accounts import Identity
from supersimplenet.station.api import loop_shapes as shapes
from supersimplenet.station.api.routes import ERRORS, Here, StrictRoute, engineer, not_there, operator
from supersimplenet.station.problems import Problem
from supersimplenet.station.registry.jobs import BusyError
from supersimplenet.station.registry.promotions import Promotion, model_before, models_in_use, promote, roll_back
from supersimplenet.station.registry.records import DATA, MODEL, Registered, all_models, files_of
from supersimplenet.station.registry.records import one_model as find_model
from supersimplenet.station.registry.rules import Rule, new_answers, rules, set_rule
from supersimplenet.station.station import Station
from supersimplenet.station.storage.database import writing
from supersimplenet.training.config import parse_duration
from supersimplenet.utils.documents import read_yaml

router = APIRouter(prefix="/v1", route_class=StrictRoute)
_MOST_NUMBER = 2**31 - 1


@router.get("/registry", response_model=shapes.RegistryShape, responses=ERRORS, dependencies=[operator])
def registry(
    station: Here,
    product: Annotated[str | None, Query(max_length=200, description="only models of this product")] = None,
) -> dict[str, Any]:
    """List the models of the registry, the newest first, and which one of each product is in use."""
    if product is not None and product not in station.models.products:
        raise not_there("product", product)
    with station.engine.connect() as connection:
        models = all_models(connection, product)
        used = models_in_use(connection)
        products = station.models.products if product is None else [product]
        in_use = [_in_use(station, each, used.get(each), model_before(connection, each)) for each in products]
    numbers = {change.model for change in used.values()}
    return {
        "models": [_shown(station, model, is_used=model.number in numbers) for model in reversed(models)],
        "in_use": in_use,
        "threads": station.trainings.threads,
    }


@router.get("/registry/{number}", response_model=shapes.OneRegisteredShape, responses=ERRORS, dependencies=[operator])
def one_model(station: Here, number: int) -> dict[str, Any]:
    """Return a model of the registry, with all that its guarantee rests on."""
    model = _found(station, number)
    calibration = _calibration(model.model(station.config.folder))
    shown = to_plain(calibration)
    if calibration is not None:
        shown["basis"] = _without_folder(calibration.basis, model, station)
    return _now(station, model) | {"calibration": shown}


@router.post("/registry", response_model=shapes.RegisteredShape, responses=ERRORS, status_code=201)
def begin(station: Here, body: shapes.TrainBody, who: Annotated[Identity, engineer]) -> dict[str, Any]:
    """Begin to train a candidate from a version of a dataset, in a process beside the station; one at a time."""
    if body.product not in station.models.products:
        raise not_there("product", body.product)
    with _refusals():
        parse_duration(body.time_budget)
        model = station.trainings.begin(
            product=body.product,
            dataset=body.dataset,
            number=body.version,
            time_budget=body.time_budget,
            options=[f"--{name}={value}" for name, value in body.options.items()],
            gathers=body.gather,
            who=who.name,
        )
    return _now(station, model)


@router.delete("/registry/{number}/training", response_model=shapes.RegisteredShape, responses=ERRORS)
def stop(station: Here, number: int, who: Annotated[Identity, engineer]) -> dict[str, Any]:
    """Stop a training; what it has done stays, and it can go on later."""
    _found(station, number)
    with _refusals():
        return _now(station, station.trainings.stop(number, who=who.name))


@router.post("/registry/{number}/training", response_model=shapes.RegisteredShape, responses=ERRORS)
def resume(station: Here, number: int, who: Annotated[Identity, engineer]) -> dict[str, Any]:
    """Go on with a training that was stopped, interrupted or failed, from the first step that is missing."""
    _found(station, number)
    with _refusals():
        return _now(station, station.trainings.resume(number, who=who.name))


@router.post("/registry/{number}/comparison", response_model=shapes.RegisteredShape, responses=ERRORS)
def compare_again(station: Here, number: int, who: Annotated[Identity, engineer]) -> dict[str, Any]:
    """Compare a candidate again with the model in use, by the answers since, in a process beside the station."""
    _found(station, number)
    with _refusals():
        return _now(station, station.trainings.compare(number, who=who.name))


@router.post("/registry/{number}/shadow", response_model=shapes.RegisteredShape, responses=ERRORS)
def shadow(station: Here, number: int, body: shapes.ShadowBody, who: Annotated[Identity, engineer]) -> dict[str, Any]:
    """Let a finished model predict what the station inspected in the last hours, without a say, in its own process."""
    _found(station, number)
    with _refusals():
        return _now(station, station.trainings.shadow(number, hours=body.hours, who=who.name))


@router.post("/registry/{number}/promotion", response_model=shapes.PromotionShape, responses=ERRORS)
def promote_model(
    station: Here, number: int, body: shapes.PromoteBody, who: Annotated[Identity, engineer]
) -> Promotion:
    """Use a model from now on; the station takes it within seconds, without losing a picture."""
    _found(station, number)
    with _refusals(), writing(station.engine) as connection:
        return promote(connection, station.config.folder, number, who=who.name, **body.model_dump())


@router.post("/products/{product}/rollback", response_model=shapes.PromotionShape, responses=ERRORS)
def go_back(station: Here, product: str, body: shapes.WhyBody, who: Annotated[Identity, engineer]) -> Promotion:
    """Use the model again that was in use before; once more, the one before that."""
    if product not in station.models.products:
        raise not_there("product", product)
    with _refusals(), writing(station.engine) as connection:
        return roll_back(connection, station.config.folder, product, who=who.name, why=body.why)


@router.get("/training-rules", response_model=list[shapes.RuleShape], responses=ERRORS, dependencies=[operator])
def training_rules(station: Here) -> list[dict[str, Any]]:
    """Return for each product when the station trains it by itself."""
    with station.engine.connect() as connection:
        found = rules(connection)
        return [
            _plain_rule(product, found.get(product), new_answers(connection, product))
            for product in station.models.products
        ]


@router.put("/products/{product}/training-rule", response_model=shapes.RuleShape, responses=ERRORS)
def set_training_rule(
    station: Here, product: str, body: shapes.RuleBody, who: Annotated[Identity, engineer]
) -> dict[str, Any]:
    """Set when the station trains a product by itself; without a number of answers and a time of day, never."""
    if product not in station.models.products:
        raise not_there("product", product)
    with _refusals(), writing(station.engine) as connection:
        rule = set_rule(connection, product, **body.model_dump(), who=who.name)
        return _plain_rule(product, rule, new_answers(connection, product))


@contextmanager
def _refusals() -> Iterator[None]:
    """Answer what the registry refuses."""
    try:
        yield
    except BusyError as error:
        raise Problem(409, "training", str(error)) from error
    except ConfigError as error:
        raise Problem(422, "registry", str(error)) from error


def _found(station: Station, number: int) -> Registered:
    try:
        with station.engine.connect() as connection:
            return find_model(connection, number if 0 < number <= _MOST_NUMBER else 0)
    except ConfigError as error:
        raise not_there("model", str(number)) from error


def _now(station: Station, model: Registered) -> dict[str, Any]:
    with station.engine.connect() as connection:
        model = find_model(connection, model.number)
        last = models_in_use(connection).get(model.product)
    return _shown(station, model, is_used=last is not None and last.model == model.number)


def _shown(station: Station, model: Registered, *, is_used: bool) -> dict[str, Any]:
    """Return a model as it is shown: of what was found, the known keys alone."""
    is_running, state = station.trainings.is_running(model), model.state
    is_finished = state in ("candidate", "refused")
    is_open = state == "training" or (is_running and not is_finished)
    found = model.found
    calibration = None if is_open or state == "failed" else _calibration(model.model(station.config.folder))
    running = "comparing" if is_finished else "training"
    shown = "in use" if is_used else running if is_running else "interrupted" if is_open else state
    return {
        **{name: getattr(model, name) for name in ("number", "product", "at", "who", "parent")},
        **{name: getattr(model, name) for name in ("dataset", "version", "digest", "options")},
        "state": shown,
        "compared": None if is_open or found.get("compared") is None else found,
        "shadow": found.get("shadow"),
        "reasons": [] if is_open else [_without_folder(reason, model, station) for reason in found.get("reasons", ())],
        "guarantee": None if calibration is None else _without_folder(calibration.guarantee(), model, station),
        "training": asdict(station.trainings.progress(model)) if is_open or is_running else None,
    }


def _without_folder(text: str, model: Registered, station: Station) -> str:
    """Return a text with the names of pictures and folders alone, without where they are on the station's disk."""
    folder = model.folder(station.config.folder)
    for place in (folder / DATA / "pictures", folder / DATA, folder, station.config.folder):
        for written in (place.resolve(), place):
            text = text.replace(f"{written}{os.sep}", "")
    return text


def _in_use(station: Station, product: str, last: Promotion | None, back_to: int | None) -> dict[str, Any]:
    known = {name: None if last is None else getattr(last, name) for name in ("model", "at", "who", "why")}
    is_rollback = last is not None and last.is_rollback
    folder = None if last is None else files_of(station.config.folder, last.model) / MODEL
    is_loaded = station.models.of(product).path == folder
    return {"product": product, **known, "is_rollback": is_rollback, "is_loaded": is_loaded, "back_to": back_to}


def _calibration(folder: Path) -> Calibration | None:
    """Return the calibration of a finished model; None where there is none, or it cannot be read."""
    path = folder / CALIBRATION_FILE
    try:
        return _read_calibration(path, path.stat().st_mtime_ns)
    except (OSError, SuperSimpleNetError):
        return None


@lru_cache(maxsize=256)
def _read_calibration(path: Path, changed_ns: int) -> Calibration:
    del changed_ns  # a file that has changed is read again
    return from_plain(Calibration, read_yaml(path, advice="calibrate again"), where=str(path))


def _plain_rule(product: str, rule: Rule | None, number: int) -> dict[str, Any]:
    known = {"product": product, "new_answers": number}
    names = ("dataset", "answers", "daily_at", "time_budget", "promote_margin", "promote_differing")
    shown = (*names, "set_by", "set_at", "problem")
    return {name: None if rule is None else getattr(rule, name) for name in shown} | known
