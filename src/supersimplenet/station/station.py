"""A station: models, pictures, database and what works on them, opened and closed together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import HERE, ComputeConfig
from supersimplenet.station.access import audit
from supersimplenet.station.config import StationConfig
from supersimplenet.station.drift import Drift
from supersimplenet.station.events import Hub
from supersimplenet.station.inspection import Inspected, Inspections, Picture
from supersimplenet.station.metrics import Gauge, Metrics
from supersimplenet.station.models import LoadedModel, Models
from supersimplenet.station.setup import NOTHING_SET_UP, Setup
from supersimplenet.station.sinks.delivery import Delivery
from supersimplenet.station.sinks.opening import make_sink
from supersimplenet.station.sinks.outbox import numbers_waiting
from supersimplenet.station.sinks.settings import SinkSettings
from supersimplenet.station.sources.opening import make_source
from supersimplenet.station.sources.settings import SourceSettings
from supersimplenet.station.sources.source import Source
from supersimplenet.station.storage import results
from supersimplenet.station.storage.database import now_ms, open_database, writing
from supersimplenet.station.storage.pictures import PictureStore
from supersimplenet.station.storage.recorder import REFUSED, Record, Recorder, Stored, insert_or_leave
from supersimplenet.station.storage.retention import Retention
from supersimplenet.station.storage.schema import MODELS
from supersimplenet.station.thresholds import adjusted, store_threshold, stored_threshold
from supersimplenet.utils.formatting import counted
from supersimplenet.utils.locks import writing_into

_JOURNAL = "waiting.jsonl"


@dataclass(frozen=True, kw_only=True)
class Sign:
    """Something that is not as it should be, for the page and the log.

    Attributes:
        code: short name.
        text: what it is, and what to do.
        values: what the text names, for the page's texts in other languages.
    """

    code: str
    text: str
    values: Mapping[str, str | int] = field(default_factory=dict)


class Station:
    """Everything that a service has, from the models to the database.

    Args:
        paths: model folder or exported file of each product.
        config: the station's settings.
        setup: where pictures come from and results go, beside requests.
        compute: device, engine and precision for model folders.
        trust: also open exported torch programs, which may run code of their authors.
        say: called with a line for the log.

    Raises:
        SuperSimpleNetError: the subclass names the cause.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        config: StationConfig,
        setup: Setup = NOTHING_SET_UP,
        *,
        compute: ComputeConfig = HERE,
        trust: bool = False,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.say = config, say
        self.hub: Hub | None = None
        self.metrics = Metrics(self._gauges)
        with ExitStack() as opened:
            opened.enter_context(writing_into(config.folder, advice=", or name another --folder"))
            self.engine: Engine = open_database(config.database_url)
            opened.callback(self.engine.dispose)
            self.models = Models(
                paths, folder=config.models, one_by_one=config.workers == 1, compute=compute, trust=trust
            )
            opened.callback(self.models.close)
            for model in self.models:
                self._remember(model)
                self._set_stored_threshold(model)
            self.store = PictureStore(config.folder)
            self.drift = Drift(self.engine, self.models, say=say)
            opened.callback(self.drift.close)
            self.deliveries = [self._delivery(settings, opened) for settings in setup.sinks]
            self.recorder = Recorder(
                self.engine,
                config.folder / _JOURNAL,
                say=say,
                sinks=[delivery.name for delivery in self.deliveries],
                published=self._published,
            )
            opened.callback(self.recorder.close)
            self.retention = Retention(self.engine, self.store, config, say=say)
            opened.callback(self.retention.close)
            self.inspections = Inspections(
                threads=config.workers or self.models.threads,
                store=self.store,
                recorder=self.recorder,
                config=config,
                say=say,
            )
            opened.callback(self.inspections.close)
            self.sources = [self._source(settings) for settings in setup.sources]
            for source in self.sources:
                source.start()
                opened.callback(source.stop)
            opened.callback(self._end_sources)
            self._open = opened.pop_all()

    def _delivery(self, settings: SinkSettings, opened: ExitStack) -> Delivery:
        delivery = Delivery(
            settings.name,
            settings.kind,
            make_sink(settings, products=self.models.products),
            engine=self.engine,
            public=self.public,
            folder=self.config.folder,
            say=self.say,
        )
        opened.callback(delivery.close)
        return delivery

    def _source(self, settings: SourceSettings) -> Source:
        products = self.models.products
        if settings.product not in products and (settings.product is not None or len(products) > 1):
            named = "no product is named" if settings.product is None else f"no product '{settings.product}'"
            raise ConfigError(f"setup: source '{settings.name}': {named}; this station inspects {', '.join(products)}")

        def send(picture: Picture) -> Future[Inspected]:
            (future,) = self.inspections.submit([picture], self.models.of(settings.product))
            return future

        return make_source(settings, send=send, say=self.say)

    @property
    def waiting(self) -> dict[str, int]:
        """Number of results that wait for each sink, those of an earlier setup included."""
        try:
            stored = numbers_waiting(self.engine)
        except SQLAlchemyError:
            stored = {}
        return stored | {each.name: max(each.in_memory, stored.get(each.name, 0)) for each in self.deliveries}

    def __enter__(self) -> Station:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def watch_from(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send new results to those who watch, in this event loop."""
        self.hub = Hub(loop)

    def end_streams(self) -> None:
        """End the streams of those who watch, which do not end by themselves."""
        if self.hub is not None:
            self.hub.close()

    def close(self) -> None:
        """Finish what was taken, and close everything, in the order opposite to that of opening."""
        self._open.close()

    def change_model(self, product: str, path: Path) -> LoadedModel:
        """Use another model for a product; see `Models.change`."""
        model = self.models.change(product, path)
        self._remember(model)
        self.drift.use(model)
        return model

    def signs(self) -> list[Sign]:
        """Return what is not as it should be; the page shows it large."""
        signs = []
        if self.recorder.away:
            signs.append(
                Sign(
                    code="database",
                    text=f"The database is away ({self.recorder.reason}). Inspection goes on; results follow later.",
                    values={"reason": self.recorder.reason},
                )
            )
        if self.recorder.lost:
            lost = counted(self.recorder.lost, "result")
            text = f"{lost} lost: neither database nor disk can be written. Free the disk."
            signs.append(Sign(code="lost", text=text, values={"count": self.recorder.lost}))
        if (self.config.folder / REFUSED).is_file():
            text = (
                f"The database refused results; they are in {REFUSED} in the station's folder. Move it away when read."
            )
            signs.append(Sign(code="refused", text=text, values={"file": REFUSED}))
        if self.store.free_bytes < self.config.reserve_mib << 20:
            free = self.store.free_bytes >> 20
            text = f"{free} MiB of the disk are free. Pictures of good parts are not kept. Free the disk."
            signs.append(Sign(code="disk", text=text, values={"mib": free}))
        signs += [
            Sign(
                code="source",
                text=f"Source '{source.name}' is away ({source.reason}). It is tried again.",
                values={"name": source.name, "reason": source.reason},
            )
            for source in (each.state for each in self.sources)
            if source.state == "away"
        ]
        signs += [
            Sign(
                code="sink",
                text=f"Sink '{sink.name}' is away ({sink.reason}). Inspection goes on; results follow later.",
                values={"name": sink.name, "reason": sink.reason},
            )
            for sink in (each.state for each in self.deliveries)
            if sink.away
        ]
        set_up = {each.name for each in self.deliveries}
        signs += [
            Sign(
                code="outbox",
                text=f"Results wait for the sink '{name}' ({number}), which is not in the setup. Put it back, or run "
                f"supersimplenet station outbox --drop {name}.",
                values={"name": name, "count": number},
            )
            for name, number in self.waiting.items()
            if name not in set_up
        ]
        signs += [
            Sign(
                code="drift",
                text=f"Pictures of {state.product} are not like those before them any more. See the page Health.",
                values={"product": state.product},
            )
            for state in self.drift.states
            if state.drifted_at is not None
        ]
        signs += [
            Sign(
                code="calibration",
                text=f"The model of {model.product} has no valid guarantee. Run supersimplenet calibrate.",
                values={"product": model.product},
            )
            for model in self.models
            if not model.predictor.is_calibrated
        ]
        return signs

    def set_threshold(self, product: str, threshold_logit: float | None, *, by: str) -> LoadedModel:
        """Set a product's threshold, or with None that of its calibration; kept for the next start, and in the trail.

        Raises:
            ConfigError: nothing could be guaranteed.
        """
        before = self.models.of(product)
        model = adjusted(before, threshold_logit)
        with writing(self.engine) as connection:
            store_threshold(connection, model, threshold_logit, by=by)
            audit.append(
                connection,
                who=by,
                what="threshold",
                details={
                    "product": product,
                    "before": before.predictor.threshold_logit,
                    "threshold_logit": model.predictor.threshold_logit,
                    "guarantee": model.facts["guarantee"],
                    "model": model.id,
                },
            )
        self._remember(model)
        self.models.exchange(model)
        self.drift.use(model)
        return model

    def _set_stored_threshold(self, model: LoadedModel) -> None:
        stored = stored_threshold(self.engine, model.product)
        if stored is None:
            return
        if stored.base != model.id:
            self.say(f"{model.product}: the threshold that {stored.set_by} set was for another model; not used")
            return
        own = adjusted(model, stored.threshold_logit)
        self._remember(own)
        self.models.exchange(own)

    def public(self, records: Sequence[Record], stored: Stored | None = "database") -> list[dict[str, Any]]:
        """Return results in the form in which they leave the station, each with the verdict of its part until now."""
        try:
            parts = results.parts_of(self.engine, records, within_ms=self.config.part_ms)
        except SQLAlchemyError:  # away: a part's verdict is then that of the photographs at hand
            parts = results.parts_among(records, records, within_ms=self.config.part_ms)
        return [results.public(record, stored, part_result=parts.get(record["id"])) for record in records]

    def _end_sources(self) -> None:
        """Tell all sources at once, before one after another is waited for."""
        for source in self.sources:
            source.stopped.set()

    def _published(self, records: Sequence[Record], stored: Stored) -> None:
        for record in records:
            self.metrics.inspected.labels(record["product"], record["verdict"] or "failed").inc()
        self.drift.add(records)
        for delivery in self.deliveries:
            delivery.add(records, stored)
        if self.hub is not None and self.hub.is_watched:
            self.hub.publish(self.public(records, stored))

    def _remember(self, model: LoadedModel) -> None:
        """Record what a model is, so that its verdicts can be reproduced."""
        row = {
            "id": model.id,
            "product": model.product,
            "path": str(model.path),
            "loaded_at": now_ms(),
            "facts": dict(model.facts),
        }
        try:
            with writing(self.engine) as connection:
                connection.execute(insert_or_leave(self.engine, MODELS), [row])
        except SQLAlchemyError as error:
            self.say(
                f"the facts of model {model.id[:12]} cannot be recorded ({type(error).__name__}); its folder has them"
            )

    def _gauges(self) -> Iterator[Gauge]:
        counts = self.inspections.counts
        for name, text, value in (
            ("in_work", "Pictures in work or waiting", counts.in_work),
            ("queue_size", "Pictures that may be in work or waiting", self.config.queue),
            ("pictures_not_kept", "Pictures not kept for want of room, since the start", counts.unkept),
            ("results_lost", "Results lost, since the start", self.recorder.lost),
            ("database_away", "1 while results wait for the database", self.recorder.away),
            ("disk_free_bytes", "Free space of the disk", self.store.free_bytes),
        ):
            yield Gauge(name, text, {"": float(value)})
        sources, sinks = [each.state for each in self.sources], [each.state for each in self.deliveries]
        away = {each.name: float(each.state == "away") for each in sources}
        missed = {each.name: float(each.missed) for each in sources}
        capital = {state.product: state.capital for state in self.drift.states}
        yield Gauge("drift_capital", "Of the test of drift; from 1000 on pictures have changed", capital, "product")
        yield Gauge("source_away", "1 while a source is away", away, "source")
        yield Gauge(
            "source_missed",
            "Pictures missed, as the queue was full or the camera away, since the start",
            missed,
            "source",
        )
        yield Gauge("sink_away", "1 while a sink is away", {each.name: float(each.away) for each in sinks}, "sink")
        late = {each.name: float(each.late) for each in sinks}
        yield Gauge("sink_late", "Results that came too late for a sink to act on, since the start", late, "sink")
        waiting = {name: float(number) for name, number in self.waiting.items()}
        yield Gauge("sink_waiting", "Results that a sink has not got yet", waiting, "sink")
