"""Watch a folder for new images by listing it repeatedly, which works on network drives, too."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from supersimplenet.errors import DataError
from supersimplenet.preprocessing.listing import Listing, list_folder, natural_key, note_passed_over
from supersimplenet.preprocessing.loading import ImageFile
from supersimplenet.utils.formatting import few

State = tuple[int, int]  # size in bytes and date in ns: when either changes, a file is another picture
_LOOKS_EVERY_S = 1.0
_EMPTY_FOR_S = 60.0
_NAMES_KEPT = 100_000
_TABLES_EVERY_S, _TABLES_SHARE = 10.0, 20  # so often, and so many times longer than writing them took


class Arrivals:
    """The images of a folder, at any depth, and the images that arrive there later.

    A file is yielded when its size and its date, whatever date that is, are the same in two listings in a row, so that
    a file that is still being copied is not read too early. A file that changes later is yielded again. A file that
    stays empty is yielded after a minute, so that it gets a row with its error. Files of one listing come in natural
    order. What cannot be read does not end the watching: it is reported once, and again when it comes back.

    Args:
        folder: the folder to watch. It may vanish and come back, as a network drive does.
        every_s: seconds between two listings.
        until_s: seconds after which watching ends; None for no limit.
        stop: an event that ends watching when it is set.
        leave_out: a folder below ``folder`` whose files are skipped.
        report: called with a line about what is passed over.
        empty_for_s: seconds for which an empty file may stay empty.

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
        report: Callable[[str], None] = lambda text: None,
        empty_for_s: float = _EMPTY_FOR_S,
    ) -> None:
        if not folder.is_dir():
            raise DataError(f"watch: no such folder {folder}; make it before images are put there")
        self.folder = folder
        self.every_s = every_s
        self.until_s = until_s
        self.stop = stop or threading.Event()
        self.leave_out = leave_out
        self.report = report
        self.empty_for_s = empty_for_s
        self._taken: dict[Path, State] = {}
        self._waiting: dict[Path, tuple[State, float]] = {}  # with the time since when the file is like this
        self._troubles: set[str] = set()  # of the last look

    def pass_over(self, looked_at: Iterable[tuple[str, Sequence[int] | None]], *, until_ns: int) -> None:
        """Skip the images of an earlier run that have not changed since.

        Args:
            looked_at: name of each image of that run, with its size and date; None where the run did not record them,
                as in version 0.1. Then a file with a date after ``until_ns`` has changed.
            until_ns: time when that run ended, in nanoseconds as in `os.stat`.
        """
        for name, state in looked_at:
            path = Path(name)
            if state is not None:
                self._taken[path] = (state[0], state[1])
                continue
            with suppress(OSError):
                status = path.stat()
                if status.st_mtime_ns <= until_ns:
                    self._taken[path] = (status.st_size, status.st_mtime_ns)

    def state_of(self, path: Path) -> State:
        """Return size and date that a file had when it was yielded."""
        return self._taken[path]

    def __iter__(self) -> Iterator[Path | None]:
        ends = None if self.until_s is None else time.monotonic() + self.until_s
        while True:
            for path in self._look():
                if self.stop.is_set():
                    break
                self._taken[path] = self._waiting.pop(path)[0]
                yield path
            yield None
            if self.stop.is_set() or (ends is not None and time.monotonic() >= ends):
                break
            left_s = self.every_s if ends is None else min(self.every_s, max(0.0, ends - time.monotonic()))
            self.stop.wait(left_s)
        if self._waiting:
            waiting: list[Path] = sorted(self._waiting, key=natural_key)
            self.report(f"watch: not read, because empty, or still changing at the end: {few(waiting)}")

    def _look(self) -> list[Path]:
        """List the folder; return the files that are ready, in natural order."""
        troubles: set[str] = set()
        now_s, before = time.monotonic(), self._waiting
        self._waiting = {}
        ready = []
        for path in self._list(troubles):
            try:
                status = path.stat()
            except FileNotFoundError:  # it was removed meanwhile
                continue
            except OSError as error:
                troubles.add(f"watch: {path}: cannot be read ({error.strerror}); it is tried again")
                continue
            state = (status.st_size, status.st_mtime_ns)
            if self._taken.get(path) == state:
                continue
            known = before.get(path)
            self._waiting[path] = known if known is not None and known[0] == state else (state, now_s)
            if known == self._waiting[path] and (state[0] or now_s - known[1] >= self.empty_for_s):
                ready.append(path)
        for trouble in sorted(troubles - self._troubles):
            self.report(trouble)
        self._troubles = troubles
        return ready

    def _list(self, troubles: set[str]) -> list[Path]:
        try:
            listing: Listing = list_folder(
                self.folder, on_error="skip", leave_out=self.leave_out, names_kept=_NAMES_KEPT
            )
        except (DataError, OSError):
            troubles.add(f"watch: {self.folder}: the folder is not there; it is waited for")
            return []
        note_passed_over(self.folder, listing.passed_over)
        for kind, names in listing.passed_over.names.items():
            troubles |= {f"watch: {name}: left out ({kind})" for name in names}
        return listing.files


class Refresh:
    """Write the files of a watched folder again while it is watched, in a small share of the time.

    Args:
        write: writes the files.
        rows: number of rows that are in the files.
        wanted: whether they are written before the end.
    """

    def __init__(self, write: Callable[[], object], *, rows: int, wanted: bool) -> None:
        self._write = write
        self._wanted = wanted
        self._rows = rows
        self._next_s = 0.0

    def __call__(self, rows: int) -> None:
        """Write the files if there are new rows and it is time to."""
        started_s = time.monotonic()
        if not self._wanted or rows == self._rows or started_s < self._next_s:
            return
        self._write()
        ended_s = time.monotonic()
        self._rows, self._next_s = rows, ended_s + max(_TABLES_EVERY_S, _TABLES_SHARE * (ended_s - started_s))


def with_pauses(images: Iterator[ImageFile | None], at_pause: Callable[[], None]) -> Iterator[ImageFile | None]:
    """Yield the images; call a function at each None, when all images before it have their rows."""
    for image in images:
        yield image
        if image is None:
            at_pause()


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
