"""Lets a candidate predict what the station inspects, without a say, and tells where it differs.

A process of its own reads the station's results and predicts their pictures from the disk: nothing is added to the way
of a picture through the station, a kill loses nothing, and what was inspected before counts as well as what comes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, and_, func, insert, select

from supersimplenet.errors import ConfigError, ImageError
from supersimplenet.inference.config import CONFIG_FILE, HERE, ComputeConfig
from supersimplenet.metrics.thresholds import rate_interval
from supersimplenet.preprocessing.decoding import EncodedImage
from supersimplenet.preprocessing.loading import Failure
from supersimplenet.runtime.predictor import Predictor
from supersimplenet.station.registry.promotions import in_use
from supersimplenet.station.registry.records import Registered, one_model, set_state
from supersimplenet.station.storage.database import now_ms, writing
from supersimplenet.station.storage.pictures import PictureStore
from supersimplenet.station.storage.schema import RESULTS, SHADOWS
from supersimplenet.utils.formatting import counted, per_cent

_AT_ONCE = 100
_EVERY_S = 1.0
_CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Shadow:
    """What a candidate says about pictures that the station inspected with another model.

    Attributes:
        since: time of the first picture, in milliseconds since 1970; where there is none, the time that was asked for.
        until: time of the last one, likewise.
        pictures: number of pictures that both predicted.
        failed: pictures that the candidate could not predict.
        not_kept: pictures of that time that are not on the disk, so the candidate has not seen them.
        newly_bad: pictures that the candidate calls bad, and the station good or unsure.
        newly_good: pictures that the candidate calls good, and the station unsure or bad.
        differing: share of pictures with another verdict.
        differing_bounds: its interval, with 95 % confidence.
        candidate_right: pictures of another verdict, one of the two good, of which people say that the candidate is
            right.
        station_right: likewise, the station.
    """

    since: int
    until: int
    pictures: int
    failed: int
    not_kept: int
    newly_bad: int
    newly_good: int
    differing: float
    differing_bounds: tuple[float, float]
    candidate_right: int
    station_right: int

    def describe(self) -> str:
        """Return in sentences what was found."""
        if not self.pictures + self.failed:
            return "no picture of that time"
        low, high = self.differing_bounds
        text = (
            f"another verdict on {per_cent(self.differing)} of {counted(self.pictures, 'picture')} (95 % interval "
            f"{per_cent(low)} to {per_cent(high)}): {self.newly_bad} newly bad, {self.newly_good} newly good; people "
            f"say that the candidate is right about {self.candidate_right} of them, the station about "
            f"{self.station_right}"
        )
        if self.failed:
            text += f"; it could not predict {counted(self.failed, 'picture')}"
        if self.not_kept:
            text += f"; not kept, so not seen: {counted(self.not_kept, 'picture')} of that time"
        return text


def run_shadow(
    engine: Engine,
    station: Path,
    number: int,
    *,
    since: int,
    until: int,
    compute: ComputeConfig = HERE,
    ended: Event | None = None,
    progress: Callable[[int], None] = lambda pictures: None,
) -> Shadow:
    """Predict with a candidate what the station inspected in a time, and what it inspects until its end.

    Args:
        engine: the database.
        station: the station's folder.
        number: the candidate.
        since: beginning of the time, in milliseconds since 1970; it may have passed.
        until: its end; where it has passed, what was inspected is all.
        compute: device, engine and precision.
        ended: set to end early.
        progress: called with the number of pictures done since the last call.

    Returns:
        What was found, which the registry keeps, too.

    Raises:
        ConfigError: there is no such finished model, or it is in use.
    """
    with engine.connect() as connection:
        model = one_model(connection, number)
        used = in_use(connection, model.product)
    if not (model.model(station) / CONFIG_FILE).is_file() or model.state not in ("candidate", "refused"):
        raise ConfigError(f"model {number}: {model.state}; only a finished model predicts")
    if used is not None and used.number == number:
        raise ConfigError(f"model {number}: in use, so there is nothing to compare it with")
    from supersimplenet.prediction.predict import open_model  # torch, for a model folder

    predictor, pictures = open_model(model.model(station), compute), PictureStore(station)
    assert isinstance(predictor, Predictor)
    ended = ended or Event()
    while not ended.is_set():
        is_last = now_ms() >= until
        while (rows := _waiting(engine, model, since, until)) and not ended.is_set():
            with writing(engine) as connection:
                connection.execute(insert(SHADOWS), list(_predicted(predictor, pictures, number, rows)))
            progress(len(rows))
        if is_last:
            break
        ended.wait(_EVERY_S)
    with writing(engine) as connection:
        found = shadow_of(connection, model, since=since, until=until)
        set_state(connection, number, model.state, shadow=asdict(found))
    return found


def shadow_of(connection: Connection, model: Registered, *, since: int, until: int) -> Shadow:
    """Return what a candidate said about pictures of a time."""
    s, r = SHADOWS.c, RESULTS.c
    own = and_(s.model == model.number, _in_time(model, since, until))
    query = select(s.verdict, r.verdict.label("station"), r.review, func.count().label("number"))
    rows = connection.execute(
        query.join_from(SHADOWS, RESULTS, s.result == r.id).where(own).group_by(s.verdict, r.verdict, r.review)
    ).all()
    counts: Counter[str] = Counter()
    for verdict, of_station, review, number in rows:
        if verdict is None or of_station is None:
            counts["failed"] += number
            continue
        counts["pictures"] += number
        counts["differing"] += number * (verdict != of_station)
        counts["newly_bad"] += number * (verdict == "bad" != of_station)
        counts["newly_good"] += number * (verdict == "good" != of_station)
        if (verdict == "good") != (of_station == "good") and review in ("good", "bad"):
            counts["candidate_right" if (verdict == "good") == (review == "good") else "station_right"] += number
    gone = and_(_in_time(model, since, until), r.kept.is_(False))
    span = select(func.min(r.taken_at), func.max(r.taken_at)).join_from(SHADOWS, RESULTS, s.result == r.id).where(own)
    first, last = connection.execute(span).one()
    pictures = counts["pictures"]
    return Shadow(
        since=since if first is None else first,
        until=until if last is None else last,
        pictures=pictures,
        not_kept=connection.execute(select(func.count()).select_from(RESULTS).where(gone)).scalar_one(),
        differing=counts["differing"] / pictures if pictures else 0.0,
        differing_bounds=rate_interval(counts["differing"], pictures, _CONFIDENCE) if pictures else (0.0, 1.0),
        **{name: counts[name] for name in ("failed", "newly_bad", "newly_good", "candidate_right", "station_right")},
    )


def _in_time(model: Registered, since: int, until: int) -> ColumnElement[bool]:
    c = RESULTS.c
    return and_(c.product == model.product, c.taken_at >= since, c.taken_at < until)


def _waiting(engine: Engine, model: Registered, since: int, until: int) -> Sequence[Any]:
    """Return the oldest results of the time that the candidate has not seen yet and whose pictures are kept."""
    s, r = SHADOWS.c, RESULTS.c
    seen = select(s.result).where(s.model == model.number, s.result == r.id).exists()
    query = select(r.id, r.name, r.picture, r.kind).where(_in_time(model, since, until), r.kept.is_(True), ~seen)
    with engine.connect() as connection:
        return connection.execute(query.order_by(r.id).limit(_AT_ONCE)).all()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:  # retention was quicker
        raise ImageError(f"{path.name}: cannot be read ({error.strerror})") from error


def _predicted(
    predictor: Predictor, pictures: PictureStore, number: int, rows: Sequence[Any]
) -> Iterator[dict[str, Any]]:
    files = [EncodedImage(row.name, partial(_content, pictures.picture(row.picture, row.kind))) for row in rows]
    for row, found in zip(rows, predictor.predict_files(files, on_error="skip"), strict=True):
        verdict, score = (
            (None, None)
            if isinstance(found, Failure)
            else (found.prediction.verdict, float(found.prediction.score_logit))
        )
        yield {
            "model": number,
            "result": row.id,
            "verdict": verdict,
            "score_logit": score,
            "at": now_ms(),
        }
