"""A station: models, pictures, database and what works on them, opened and closed together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from supersimplenet.errors import ConfigError, StationError
from supersimplenet.inference.config import HERE, ComputeConfig
from supersimplenet.station.access import audit
from supersimplenet.station.config import StationConfig
from supersimplenet.station.drift import Drift
from supersimplenet.station.events import Hub
from supersimplenet.station.inspection import Inspected, Inspections, Picture
from supersimplenet.station.known import Known, ask, keep_known, read_known
from supersimplenet.station.library.store import LibraryStore
from supersimplenet.station.metrics import Metrics
from supersimplenet.station.models import LoadedModel, Models
from supersimplenet.station.registry.jobs import Jobs
from supersimplenet.station.registry.records import MODEL, files_of
from supersimplenet.station.registry.rules import RuleWatch
from supersimplenet.station.registry.watch import Watch
from supersimplenet.station.setup import NOTHING_SET_UP, Setup
from supersimplenet.station.signs import gauges_of
from supersimplenet.station.sinks.delivery import Delivery
from supersimplenet.station.sinks.opening import make_sink
from supersimplenet.station.sinks.outbox import holding, numbers_waiting
from supersimplenet.station.sinks.settings import SinkSettings
from supersimplenet.station.sinks.sink import Sink
from supersimplenet.station.sources.opening import make_source
from supersimplenet.station.sources.settings import SourceSettings
from supersimplenet.station.sources.source import Source
from supersimplenet.station.storage import results
from supersimplenet.station.storage.database import Ids, now_ms, open_database, writing
from supersimplenet.station.storage.pictures import PictureStore
from supersimplenet.station.storage.recorder import Record, Recorder, Stored, insert_or_leave
from supersimplenet.station.storage.retention import Retention
from supersimplenet.station.storage.schema import MODELS
from supersimplenet.station.thresholds import SetThreshold, adjusted, store_threshold
from supersimplenet.utils.formatting import first_line
from supersimplenet.utils.locks import WAIT_TO_WRITE_S, writing_into

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
        self.has_reached_database = False  # since the start; it may be away again
        self.hub: Hub | None = None
        self._ids = Ids()
        self._setting_thresholds = threading.Lock()  # in the database, and of the models in use
        self.metrics = Metrics(lambda: gauges_of(self))
        with ExitStack() as opened:
            opened.enter_context(writing_into(config.folder, advice=", or name another --folder"))
            known = read_known(config)
            self.engine: Engine = open_database(config.database_url, may_come_later=known is not None)
            opened.callback(self.engine.dispose)
            _check_products(setup.sources, list(paths))
            sinks = {each.name: make_sink(each, products=list(paths)) for each in setup.sinks}  # before a long wait
            promoted = self._promoted(known)
            paths = {**paths, **self._paths_of(promoted, paths)}
            self.models = Models(
                paths,
                folder=config.models,
                one_by_one=config.workers == 1,
                compute=compute,
                trust=trust,
            )
            opened.callback(self.models.close)
            self.store = PictureStore(config.folder)
            self.library = LibraryStore(config.folder)
            self.drift = Drift(self.engine, self.models, say=say)
            opened.callback(self.drift.close)
            away = self._begin_with_database(known)
            self.deliveries = [self._delivery(settings, sinks[settings.name], opened) for settings in setup.sinks]
            self.recorder = Recorder(
                self.engine,
                config.folder / _JOURNAL,
                say=say,
                sinks=[delivery.name for delivery in self.deliveries],
                published=self._published,
                away=away,
                first=self._use_database,
            )
            opened.callback(self.recorder.close)
            self.retention = Retention(self.engine, self.store, config, waits=lambda: self.recorder.away, say=say)
            opened.callback(self.retention.close)
            self.inspections = Inspections(
                threads=config.workers or self.models.threads,
                ids=self._ids,
                store=self.store,
                recorder=self.recorder,
                config=config,
                say=say,
            )
            opened.callback(self.inspections.close)
            self.registry = Watch(
                self.engine,
                config.folder,
                {product: promoted.get(product, (0, 0))[0] for product in paths},
                change=self._change_promoted,
                say=say,
            )
            opened.callback(self.registry.close)
            self.trainings = Jobs(self.engine, config, say=say)
            opened.callback(self.trainings.close)
            self._rules = RuleWatch(self.engine, config.folder, self.trainings, say=say)
            opened.callback(self._rules.close)
            self.sources = [self._source(settings) for settings in setup.sources]
            for source in self.sources:
                source.start()
                opened.callback(source.stop)
            opened.callback(self._end_sources)
            self._open = opened.pop_all()

    def _delivery(self, settings: SinkSettings, sink: Sink, opened: ExitStack) -> Delivery:
        opened.enter_context(holding(self.config.folder, settings.name, wait_s=WAIT_TO_WRITE_S))
        delivery = Delivery(
            settings.name,
            settings.kind,
            sink,
            engine=self.engine,
            is_new=self._ids.has_made,
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
        self._try_to_remember(model)
        self.drift.use(model)
        return model

    def _change_promoted(self, product: str, path: Path) -> None:
        self.change_model(product, path)
        with self.engine.connect() as connection:
            self._keep_known(ask(connection))

    def set_threshold(self, product: str, threshold_logit: float | None, *, by: str) -> LoadedModel:
        """Set a product's threshold, or with None that of its calibration; kept for the next start, and in the trail.

        Raises:
            ConfigError: nothing could be guaranteed.
        """
        with self._setting_thresholds:
            before = self.models.of(product)
            at_ms = now_ms()
            model = adjusted(before, threshold_logit, at_ms=at_ms)
            with writing(self.engine) as connection:
                store_threshold(connection, model, threshold_logit, by=by, at_ms=at_ms)
                known = ask(connection)
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
            self._use(model)
            self._keep_known(known)
        self._try_to_remember(model)
        return model

    def _use(self, model: LoadedModel) -> None:
        """Use a model whose threshold is another one."""
        self.models.exchange(model)
        self.drift.use(model)

    def _promoted(self, known: Known | None) -> Mapping[str, tuple[int, int]]:
        """Return the last promotion of each product, its number and that of the model; while away, as last known."""
        try:
            with self.engine.connect() as connection:
                return ask(connection).models
        except SQLAlchemyError:
            return {} if known is None else known.models

    def _paths_of(self, promoted: Mapping[str, tuple[int, int]], paths: Mapping[str, Path]) -> dict[str, Path]:
        """Return the folder of each product's model of the registry; others are those that were named."""
        found = {}
        for product in paths:
            if product in promoted:
                _, model = promoted[product]
                found[product] = files_of(self.config.folder, model) / MODEL
                self.say(f"{product}: model {model} of the registry is in use")
        return found

    def _begin_with_database(self, known: Known | None) -> str:
        """Use the database, or while it is away what is known of it; return why it is away, empty where it is there."""
        try:
            self._use_database()
        except SQLAlchemyError as error:
            if known is None:
                raise StationError(
                    f"the database cannot be used ({first_line(error)}); check URL and server"
                ) from error
            self.say(
                f"the database is away ({first_line(error)}); the station starts with the thresholds that it knows, "
                "and results wait until it comes"
            )
            self._set_thresholds(known.thresholds)
            return first_line(error)
        return ""

    def _use_database(self) -> None:
        """Bring together, once, what the database says and what the station has.

        Raises:
            SQLAlchemyError: the database is away.
        """
        if self.has_reached_database:
            return
        with self._setting_thresholds:
            with self.engine.connect() as connection:
                known = ask(connection)
            self._set_thresholds(known.thresholds)
            self._keep_known(known)
        self.drift.load()
        for model in self.models:
            self._remember(model.base or model)
            self._remember(model)
        self.has_reached_database = True

    def _set_thresholds(self, stored: Mapping[str, SetThreshold]) -> None:
        """Set the thresholds of models as they were set, or as they were calibrated."""
        for model in self.models:
            base, own = model.base or model, stored.get(model.product)
            if own is not None and own.base != base.id:
                self.say(f"{model.product}: the threshold that {own.set_by} set was for another model; not used")
                own = None
            wanted = base if own is None else adjusted(base, own.threshold_logit, at_ms=own.set_at)
            if (wanted is base, wanted.predictor.threshold_logit) != (model is base, model.predictor.threshold_logit):
                self._use(wanted)

    def _keep_known(self, known: Known) -> None:
        try:
            keep_known(self.config, known)
        except OSError as error:
            self.say(
                f"what is in use cannot be written ({first_line(error)}); a start while the database is away waits"
            )

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
            delivery.add(records)
        if self.hub is not None and self.hub.is_watched:
            self.hub.publish(self.public(records, stored))

    def _try_to_remember(self, model: LoadedModel) -> None:
        try:
            self._remember(model)
        except SQLAlchemyError as error:
            self.say(
                f"the facts of model {model.id[:12]} cannot be recorded ({type(error).__name__}); its folder has them"
            )

    def _remember(self, model: LoadedModel) -> None:
        """Record what a model is, so that its verdicts can be reproduced."""
        row = {
            "id": model.id,
            "product": model.product,
            "path": str(model.path),
            "loaded_at": now_ms(),
            "facts": dict(model.facts),
        }
        with writing(self.engine) as connection:
            connection.execute(insert_or_leave(self.engine, MODELS), [row])


def _check_products(sources: Sequence[SourceSettings], products: Sequence[str]) -> None:
    for source in sources:
        if source.product not in products and (source.product is not None or len(products) > 1):
            named = "no product is named" if source.product is None else f"no product '{source.product}'"
            raise ConfigError(f"setup: source '{source.name}': {named}; this station inspects {', '.join(products)}")
