"""A station: models, pictures, database and what works on them, opened and closed together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from supersimplenet.inference.config import HERE, ComputeConfig
from supersimplenet.station.config import StationConfig
from supersimplenet.station.events import Hub
from supersimplenet.station.inspection import Inspections
from supersimplenet.station.metrics import Metrics
from supersimplenet.station.models import LoadedModel, Models
from supersimplenet.station.storage.database import now_ms, open_database, writing
from supersimplenet.station.storage.pictures import PictureStore
from supersimplenet.station.storage.recorder import REFUSED, Record, Recorder, insert_or_leave
from supersimplenet.station.storage.retention import Retention
from supersimplenet.station.storage.schema import MODELS
from supersimplenet.utils.formatting import counted
from supersimplenet.utils.locks import writing_into

_JOURNAL = "waiting.jsonl"


@dataclass(frozen=True, kw_only=True)
class Sign:
    """Something that is not as it should be, for the page and the log.

    Attributes:
        code: short name.
        text: what it is, and what to do.
    """

    code: str
    text: str


class Station:
    """Everything that a service has, from the models to the database.

    Args:
        paths: model folder or exported file of each product.
        config: the station's settings.
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
            self.store = PictureStore(config.folder)
            self.recorder = Recorder(self.engine, config.folder / _JOURNAL, say=say, published=self._published)
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
            self._open = opened.pop_all()

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
        return model

    def signs(self) -> list[Sign]:
        """Return what is not as it should be; the page shows it large."""
        signs = []
        if self.recorder.away:
            signs.append(
                Sign(
                    code="database",
                    text=f"The database is away ({self.recorder.reason}). Inspection goes on; results follow later.",
                )
            )
        if self.recorder.lost:
            lost = counted(self.recorder.lost, "result")
            signs.append(
                Sign(code="lost", text=f"{lost} lost: neither database nor disk can be written. Free the disk.")
            )
        if (self.config.folder / REFUSED).is_file():
            text = (
                f"The database refused results; they are in {REFUSED} in the station's folder. Move it away when read."
            )
            signs.append(Sign(code="refused", text=text))
        if self.store.free_bytes < self.config.reserve_mib << 20:
            free = f"{self.store.free_bytes >> 20} MiB of the disk are free"
            signs.append(Sign(code="disk", text=f"{free}. Pictures of good parts are not kept. Free the disk."))
        signs += [
            Sign(
                code="calibration",
                text=f"The model of {model.product} has no valid guarantee. Run supersimplenet calibrate.",
            )
            for model in self.models
            if not model.predictor.is_calibrated
        ]
        return signs

    def _published(self, records: Sequence[Record]) -> None:
        for record in records:
            self.metrics.inspected.labels(record["product"], record["verdict"]).inc()
        if self.hub is not None:
            self.hub.publish(records)

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

    def _gauges(self) -> dict[str, tuple[str, float]]:
        counts = self.inspections.counts
        return {
            "in_work": ("Pictures in work or waiting", counts.in_work),
            "queue_size": ("Pictures that may be in work or waiting", self.config.queue),
            "pictures_not_kept": ("Pictures not kept for want of room, since the start", counts.unkept),
            "results_lost": ("Results lost, since the start", self.recorder.lost),
            "database_away": ("1 while results wait for the database", float(self.recorder.away)),
            "disk_free_bytes": ("Free space of the disk", float(self.store.free_bytes)),
        }
