"""A source that takes the pictures that arrive in a folder."""

from __future__ import annotations

import hashlib
import queue
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from supersimplenet.errors import DataError
from supersimplenet.prediction.watch import Arrivals, State
from supersimplenet.station.inspection import FullError, Inspected, Picture
from supersimplenet.station.sources.settings import FolderSource
from supersimplenet.station.sources.source import RETRY_S, Send, Source
from supersimplenet.utils.formatting import first_line

DONE, FAILED = "done", "failed"  # folders in the watched one, which are not watched
_LISTS_EVERY_S = 0.5
_WAITS_S = 1.0  # for a folder or file that cannot be read
_LARGEST = 1 << 30  # bytes of a file


class Folder(Source):
    """Takes pictures from a folder, each once: its key is made of its name, size and date.

    A picture that was taken when the station was killed is still in the folder; it comes again with the same key, and
    has the result that is there already.

    Args:
        settings: the source's settings.
        send: takes a picture to inspect.
        say: called with a line when the folder goes or comes back.
    """

    def __init__(self, settings: FolderSource, *, send: Send, say: Callable[[str], None]) -> None:
        super().__init__(settings.name, settings.kind, send=send, say=say)
        self._folder, self._after = settings.folder, settings.after
        self._inspected: queue.SimpleQueue[tuple[Path, Future[Inspected]]] = queue.SimpleQueue()

    def run(self) -> None:
        """Take pictures until the source is stopped."""
        while not self.stopped.is_set():
            try:
                arrivals = Arrivals(
                    self._folder,
                    every_s=_LISTS_EVERY_S,
                    stop=self.stopped,
                    leave_out=self._folder / DONE,
                    report=self._say,
                )
            except DataError:
                self.goes(f"there is no folder {self._folder}")
                self.stopped.wait(_WAITS_S)
                continue
            self._watch(arrivals)

    def _watch(self, arrivals: Arrivals) -> None:
        for path in arrivals:
            if path is not None:
                self._take(path, arrivals.state_of(path))
            elif self._folder.is_dir():
                self.comes()
            else:
                self.goes(f"there is no folder {self._folder}")
            self._clear_away()

    def _take(self, path: Path, state: State) -> None:
        if state[0] > _LARGEST:
            self._say(f"source '{self.name}': {path}: {state[0] >> 20} MiB; wanted at most {_LARGEST >> 20}")
            self._move(path, FAILED)
            return
        name = path.relative_to(self._folder).as_posix()
        digest = hashlib.sha256(repr((self.name, name, *state)).encode()).hexdigest()
        key = f"{self._kind}-{digest[:40]}"
        while not self.stopped.is_set() and not self._offer(path, name, key):
            pass

    def _offer(self, path: Path, name: str, key: str) -> bool:
        """Send a picture; return False, after a moment, where it has to be tried again."""
        try:
            content = path.read_bytes()
            future = self.send(Picture(content=content, name=name, source=self.name, key=key))
        except FullError:
            self.stopped.wait(RETRY_S)
            return False
        except FileNotFoundError:  # it was removed meanwhile
            return True
        except OSError as error:
            self.goes(f"{path}: {error.strerror}")
            self.stopped.wait(_WAITS_S)
            return False
        self.taken += 1
        future.add_done_callback(lambda done: self._inspected.put((path, done)))
        return True

    def _clear_away(self) -> None:
        """Move or delete the pictures that have results."""
        while not self._inspected.empty():
            path, future = self._inspected.get()
            error = future.exception()
            if error is not None:
                self._say(f"source '{self.name}': {path}: no result ({type(error).__name__}: {first_line(error)})")
                continue
            inspected = future.result()
            if inspected.stored == "nowhere" or self._after == "leave":
                continue
            is_failed = inspected.record["verdict"] is None
            if self._after == "delete" and not is_failed:
                self._delete(path)
            else:
                self._move(path, FAILED if is_failed else None)

    def _delete(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._say(
                f"source '{self.name}': {path}: cannot be deleted ({error.strerror}); it stays, and has its result"
            )

    def _move(self, path: Path, below: str | None) -> None:
        target = self._folder / DONE / (below or "") / path.relative_to(self._folder)
        number = 1
        while target.exists():
            target = target.with_name(f"{path.stem}-{number}{path.suffix}")
            number += 1
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)
        except FileNotFoundError:
            return
        except OSError as error:
            self._say(f"source '{self.name}': {path}: cannot be moved ({error.strerror}); it stays, and has its result")
