"""A source that plays a line: pictures of a folder, drawn at random, one after another in equal steps of time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from supersimplenet.errors import DataError
from supersimplenet.preprocessing.listing import list_folder
from supersimplenet.station.inspection import FullError, Picture
from supersimplenet.station.sources.settings import ReplaySource
from supersimplenet.station.sources.source import Send, Source


class Replay(Source):
    """Sends pictures of a folder for ever, to try a station without a camera.

    Each is drawn from all of them, so that what comes has no order.

    Args:
        settings: the source's settings.
        send: takes a picture to inspect.
        say: called with a line about a trouble.
    """

    def __init__(self, settings: ReplaySource, *, send: Send, say: Callable[[str], None]) -> None:
        super().__init__(settings.name, settings.kind, send=send, say=say)
        self._folder, self._seconds = settings.folder, settings.seconds
        self._draw = random.Random(settings.seed)

    def run(self) -> None:
        """Send pictures until the source is stopped."""
        paths = list_folder(self._folder, on_error="skip").files
        if not paths:
            raise DataError(f"no pictures in {self._folder}")
        self.comes()
        due = time.monotonic()
        while not self.stopped.wait(max(0.0, due - time.monotonic())):
            due += self._seconds
            path = self._draw.choice(paths)
            name = path.relative_to(self._folder).as_posix()
            try:
                self.send(Picture(content=path.read_bytes(), name=name, source=self.name))
                self.taken += 1
            except FullError:
                self.missed += 1
