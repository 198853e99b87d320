"""A station: models, pictures, database and what works on them, opened and closed together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
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
from supersimplenet.station.metrics import Metrics
from supersimplenet.station.models import LoadedModel, Models
from supersimplenet.station.setup import NOTHING_SET_UP, Setup
from supersimplenet.station.signs import gauges_of
from supersimplenet.station.sinks.delivery import Delivery
from supersimplenet.station.sinks.opening import make_sink
from supersimplenet.station.sinks.outbox import numbers_waiting
from supersimplenet.station.sinks.settings import SinkSettings
from supersimplenet.station.sinks.sink import Sink
from supersimplenet.station.sources.opening import make_source
from supersimplenet.station.sources.settings import SourceSettings
from supersimplenet.station.sources.source import Source
from supersimplenet.station.storage import results
from supersimplenet.station.storage.database import now_ms, open_database, writing
from supersimplenet.station.storage.pictures import PictureStore
from supersimplenet.station.storage.recorder import Record, Recorder, Stored, insert_or_leave
from supersimplenet.station.storage.retention import Retention
from supersimplenet.station.storage.schema import MODELS
from supersimplenet.station.thresholds import adjusted, store_threshold, stored_threshold
from supersimplenet.utils.locks import writing_into

_JOURNAL = "waiting.jsonl"


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
        self.metrics = Metrics(lambda: gauges_of(self))
        with ExitStack() as opened:
            opened.enter_context(writing_into(config.folder, advice=", or name another --folder"))
            self.engine: Engine = open_database(config.database_url)
            opened.callback(self.engine.dispose)
            _check_products(setup.sources, list(paths))
            sinks = {each.name: make_sink(each, products=list(paths)) for each in setup.sinks}  # before a long wait
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
            self.deliveries = [self._delivery(settings, sinks[settings.name], opened) for settings in setup.sinks]
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

    def _delivery(self, settings: SinkSettings, sink: Sink, opened: ExitStack) -> Delivery:
        delivery = Delivery(
            settings.name,
            settings.kind,
            sink,
            engine=self.engine,
            public=self.public,
            folder=self.config.folder,
            say=self.say,
        )
        opened.callback(delivery.close)
        return delivery

    def _source(self, settings: SourceSettings) -> Source:
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


def _check_products(sources: Sequence[SourceSettings], products: Sequence[str]) -> None:
    for source in sources:
        if source.product not in products and (source.product is not None or len(products) > 1):
            named = "no product is named" if source.product is None else f"no product '{source.product}'"
            raise ConfigError(f"setup: source '{source.name}': {named}; this station inspects {', '.join(products)}")
