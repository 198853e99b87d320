"""A threshold that a person sets, with the guarantee that it has."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from sqlalchemy import Connection, Engine, delete, insert, select

from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import to_plain
from supersimplenet.metrics.thresholds import uniform_upper_bound
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.station.models import LoadedModel, id_of
from supersimplenet.station.storage.database import now_ms
from supersimplenet.station.storage.schema import MODELS, RESULTS, THRESHOLDS

CHOSEN_BY = "hand"


@dataclass(frozen=True, kw_only=True)
class SetThreshold:
    """A threshold that a person has set.

    Attributes:
        product: the product.
        base: id of the model as it was loaded.
        threshold_logit: from this score on an image is ``bad``.
        set_by: who set it.
        set_at: when, in milliseconds since 1970.
    """

    product: str
    base: str
    threshold_logit: float
    set_by: str
    set_at: int


def with_threshold(calibration: Calibration | None, threshold_logit: float, *, at_ms: int) -> Calibration:
    """Return a calibration with another threshold, and the false-alarm rate that holds for it.

    The bound holds at all thresholds at once, since who sets one may have seen the scores. Nothing bounds escapes: the
    scores of the bad parts are not known here.

    Args:
        calibration: the calibration as it was loaded.
        threshold_logit: the other threshold.
        at_ms: when it was set, in milliseconds since 1970: the guarantee has that date, also after a later start.

    Raises:
        ConfigError: there is no calibration of which anything could be said.
    """
    if calibration is None or not calibration.holds:
        raise ConfigError("threshold: the model has no valid calibration; run supersimplenet calibrate first")
    if calibration.cross is not None:
        raise ConfigError("threshold: it was set by models of folds; calibrate again for another one")
    if not np.isfinite(threshold_logit):
        raise ConfigError(f"threshold_logit: {threshold_logit}; wanted a finite number")
    above = sum(score >= threshold_logit for score in calibration.part_logits) / calibration.parts
    accept = calibration.accept_logit
    return replace(
        calibration,
        threshold_logit=float(threshold_logit),
        accept_logit=None if accept is None or accept >= threshold_logit else accept,
        chosen_by=CHOSEN_BY,
        max_false_alarms=uniform_upper_bound(above, calibration.parts, calibration.confidence),
        max_escapes=None,
        bad_parts=0,
        escapes=0,
        expected_escapes=None,
        date=datetime.fromtimestamp(at_ms / 1000).astimezone().date().isoformat(),
    )


def adjusted(model: LoadedModel, threshold_logit: float | None, *, at_ms: int | None = None) -> LoadedModel:
    """Return a model with another threshold, as a model of its own; with None as it was loaded.

    Images that are in work keep the threshold that they began with.

    Args:
        model: the model.
        threshold_logit: the other threshold.
        at_ms: when it was set, in milliseconds since 1970; None for now.

    Raises:
        ConfigError: see `with_threshold`.
    """
    base = model.base or model
    if threshold_logit is None:
        return base
    predictor = copy.copy(base.predictor)
    predictor.calibration = with_threshold(
        base.predictor.calibration, threshold_logit, at_ms=now_ms() if at_ms is None else at_ms
    )
    assert predictor.calibration is not None
    facts = {
        **base.facts,
        "base": base.id,
        "threshold_logit": predictor.threshold_logit,
        "calibration": to_plain(predictor.calibration),
        "guarantee": predictor.calibration.guarantee(),
    }
    return replace(base, id=id_of(facts), predictor=predictor, facts=facts, base=base)


def stored_thresholds(connection: Connection) -> dict[str, SetThreshold]:
    """Return the thresholds that were set, by product."""
    return {row["product"]: SetThreshold(**row) for row in connection.execute(select(THRESHOLDS)).mappings()}


def store_threshold(
    connection: Connection, model: LoadedModel, threshold_logit: float | None, *, by: str, at_ms: int
) -> SetThreshold | None:
    """Keep the threshold of a product for the next start; with None forget it."""
    connection.execute(delete(THRESHOLDS).where(THRESHOLDS.c.product == model.product))
    if threshold_logit is None:
        return None
    base = model.base or model
    row = SetThreshold(product=model.product, base=base.id, threshold_logit=threshold_logit, set_by=by, set_at=at_ms)
    connection.execute(insert(THRESHOLDS).values(**vars(row)))
    return row


def recent_scores(engine: Engine, model: LoadedModel, *, since: int, limit: int) -> list[tuple[float, str | None]]:
    """Return score and review of the newest results of a model, whatever threshold it had.

    Args:
        engine: the database.
        model: the model.
        since: from this time on, in milliseconds since 1970.
        limit: most results.
    """
    base = (model.base or model).id
    c = RESULTS.c
    with engine.connect() as connection:
        known = connection.execute(select(MODELS.c.id, MODELS.c.facts).where(MODELS.c.product == model.product))
        ids = {base, *(row.id for row in known if row.facts.get("base") == base)}
        query = (
            select(c.score_logit, c.review)
            .where(c.product == model.product, c.taken_at >= since, c.model.in_(ids), c.score_logit.is_not(None))
            .order_by(c.id.desc())
            .limit(limit)
        )
        return [(row.score_logit, row.review) for row in connection.execute(query)]
