"""Watch a folder for new images by listing it repeatedly, which works on network drives, too."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from supersimplenet.errors import DataError
from supersimplenet.preprocessing.images import list_images, natural_key

_LOOKS_EVERY_S = 1.0


class Arrivals:
    """The images of a folder, at any depth, and the images that arrive there later.

    A file is yielded when its size and its date are the same in two listings in a row, so that a file that is still
    being copied is not read too early. A file that changes later is yielded again. Files of one listing come in natural
    order.

    Args:
        folder: the folder to watch.
        every_s: seconds between two listings.
        until_s: seconds after which watching ends; None for no limit.
        stop: an event that ends watching when it is set.
        leave_out: a folder below ``folder`` whose files are skipped.

    Raises:
        DataError: the folder does not exist.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every_s: float = _LOOKS_EVERY_S,
        until_s: float | None = None,
        stop: threading.Event | None = None,
        leave_out: Path | None = None,
    ) -> None:
        if not folder.is_dir():
            raise DataError(f"watch: no such folder {folder}; make it before images are put there")
        self.folder = folder
        self.every_s = every_s
        self.until_s = until_s
        self.stop = stop or threading.Event()
        self.leave_out = None if leave_out is None else leave_out.resolve()
        self._taken: dict[Path, tuple[int, int]] = {}  # size and date of each
        self._done: set[Path] = set()
        self._failed: dict[Path, int] = {}  # for each, the time after which a change counts, in ns

    def pass_over(self, looked_at: Iterable[tuple[str, bool]], *, until_ns: int) -> None:
        """Skip the images of an earlier run, except unreadable images that have changed since.

        Args:
            looked_at: name of each image of that run, and whether the image could be read.
            until_ns: time when that run ended, in nanoseconds as in `os.stat`.
        """
        for name, readable in looked_at:
            path = Path(name)
            if readable:
                self._done.add(path)
                self._failed.pop(path, None)
            elif path not in self._done:
                self._failed[path] = until_ns

    def __iter__(self) -> Iterator[Path | None]:
        ends = None if self.until_s is None else time.monotonic() + self.until_s
        before: dict[Path, tuple[int, int]] = {}
        while True:
            now = self._changed()
            for path in sorted((path for path, state in now.items() if before.get(path) == state), key=natural_key):
                if self.stop.is_set():
                    return
                self._taken[path] = now[path]
                yield path
            yield None
            if self.stop.is_set() or (ends is not None and time.monotonic() >= ends):
                return
            before = now
            left_s = self.every_s if ends is None else min(self.every_s, max(0.0, ends - time.monotonic()))
            self.stop.wait(left_s)

    def _changed(self) -> dict[Path, tuple[int, int]]:
        """Return size and date of each file that was not yielded yet with this size and date."""
        found = {}
        try:
            paths = list_images(self.folder)
        except DataError:  # no image there yet
            return {}
        for path in paths:
            if path in self._done or (self.leave_out is not None and self.leave_out in path.resolve().parents):
                continue
            try:
                status = path.stat()
            except OSError:  # the file was removed meanwhile
                continue
            state = (status.st_size, status.st_mtime_ns)
            if status.st_size and self._taken.get(path) != state and self._failed.get(path, 0) < status.st_mtime_ns:
                found[path] = state
        return found


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C or a termination signal sets; only a second such signal ends the process.

    Outside the main thread, which alone may handle signals, nothing sets the event.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def set_stop(number: int, frame: FrameType | None) -> None:
        del frame
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, set_stop)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
