"""Keeps a running station at the models that the registry says are in use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from supersimplenet.errors import SuperSimpleNetError
from supersimplenet.station.registry.promotions import models_in_use
from supersimplenet.station.registry.records import MODEL, files_of
from supersimplenet.utils.formatting import first_line

_EVERY_S = 1.0


class Watch:
    """Asks once a second which models are in use, and changes those that are others.

    A promotion may come from any process: the page's, a command, a job in CI. Whoever makes it writes a row alone, and
    this thread does the rest, so there is one way in which a model changes.

    Args:
        engine: the database.
        station: the station's folder.
        used: for each product the number of the promotion that is in use; others are not watched, and 0 is none.
        change: loads a model and uses it for a product; the earlier one stays where that fails.
        say: called with a line about a change or a trouble.
    """

    def __init__(
        self,
        engine: Engine,
        station: Path,
        used: Mapping[str, int],
        *,
        change: Callable[[str, Path], object],
        say: Callable[[str], None],
    ) -> None:
        self._engine, self._station, self._change, self._say = engine, station, change, say
        self._used = dict(used)
        self._failed: dict[str, str] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="registry", daemon=True)
        self._thread.start()

    @property
    def failed(self) -> Mapping[str, str]:
        """Why the model that was promoted last cannot be used, by product."""
        return dict(self._failed)

    def close(self) -> None:
        """Stop."""
        self._ended.set()
        self._thread.join(timeout=60)

    def _run(self) -> None:
        while not self._ended.wait(_EVERY_S):
            with suppress(SQLAlchemyError):  # away: nobody can promote anything, and a change is tried again
                self._follow()

    def _follow(self) -> None:
        with self._engine.connect() as connection:
            last = models_in_use(connection)
        for product, promotion in last.items():
            if self._used.get(product, promotion.number) != promotion.number:
                self._try(product, promotion.model)
                self._used[product] = promotion.number

    def _try(self, product: str, number: int) -> None:
        try:
            self._change(product, files_of(self._station, number) / MODEL)
        except SuperSimpleNetError as error:
            self._failed[product] = first_line(error)
            self._say(f"{product}: model {number} cannot be used ({first_line(error)}); the one before it stays")
            return
        self._failed.pop(product, None)
        self._say(f"{product}: model {number} is in use")
