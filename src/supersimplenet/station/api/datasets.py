"""Routes of datasets: their versions, what differs between two, and a new one from what people answered."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from sqlalchemy import Connection

from supersimplenet.errors import ConfigError
from supersimplenet.station.access.accounts import Identity
from supersimplenet.station.api import loop_shapes as shapes
from supersimplenet.station.api.routes import ERRORS, Here, StrictRoute, engineer, not_there, operator
from supersimplenet.station.library import versions
from supersimplenet.station.library.roles import Role
from supersimplenet.station.library.versions import Change, Label, Version

router = APIRouter(prefix="/v1", route_class=StrictRoute)
_MOST_CHANGES = 1000
Number = Annotated[int, Query(ge=1, le=2**31 - 1, description="number of a version")]


@router.get("/datasets", response_model=list[shapes.DatasetShape], responses=ERRORS, dependencies=[operator])
def datasets(station: Here) -> list[dict[str, Any]]:
    """List the datasets and their versions, the newest first, with the numbers of pictures by role and label."""
    with station.engine.connect() as connection:
        return [
            {
                "name": name,
                "versions": [_shown(connection, each) for each in reversed(versions.versions(connection, name))],
            }
            for name in versions.names(connection)
        ]


@router.get(
    "/datasets/{name}/changes", response_model=shapes.DifferenceShape, responses=ERRORS, dependencies=[operator]
)
def changes(station: Here, name: str, before: Number, after: Number) -> dict[str, Any]:
    """Say what differs between two versions of a dataset."""
    with station.engine.connect() as connection:
        if name not in versions.names(connection):
            raise not_there("dataset", name)
        try:
            found = versions.changes(connection, name, before, after)
        except ConfigError as error:
            raise not_there("version", f"{before} or {after}") from error
    kinds = Counter(_kind(change) for change in found)
    return {
        **{kind: kinds[kind] for kind in ("added", "changed", "removed")},
        "changes": [asdict(change) for change in found[:_MOST_CHANGES]],
    }


@router.post("/datasets/{name}/gather", response_model=shapes.GatheredShape, responses=ERRORS)
def gather(
    station: Here,
    name: Annotated[str, Path(pattern=shapes.DATASET_PATTERN)],
    body: shapes.GatherBody,
    who: Annotated[Identity, engineer],
) -> dict[str, Any]:
    """Make a version from the answers about a product's parts, of those on which people agree."""
    if body.product not in station.models.products:
        raise not_there("product", body.product)
    found = station.trainings.gather(product=body.product, dataset=name, who=who.name)
    return {
        "dataset": name,
        "version": None if found.version is None else found.version.number,
        **{count: getattr(found, count) for count in ("taken", "unusable", "disputed", "not_kept")},
        "left_out": len(found.left_out),
    }


def _kind(change: Change) -> str:
    return "added" if change.before is None else "removed" if change.after is None else "changed"


def _shown(connection: Connection, made: Version) -> dict[str, Any]:
    counts = versions.counts(connection, made)
    roles: tuple[Role, ...] = ("train", "calibration", "golden")
    labels: tuple[Label, ...] = ("good", "bad")
    return {
        **{name: value for name, value in vars(made).items() if name != "dataset"},
        "counts": {role: {label: counts[role, label] for label in labels} for role in roles},
    }
