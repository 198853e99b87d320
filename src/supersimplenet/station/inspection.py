"""Pictures in, verdicts out: a bounded queue, threads that predict what waits together, and a row for each picture."""

from __future__ import annotations

import functools
import hashlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np

from supersimplenet.errors import ImageError
from supersimplenet.postprocessing.parts import given_pattern
from supersimplenet.preprocessing.decoding import EncodedImage, suffix_of
from supersimplenet.preprocessing.loading import Failure
from supersimplenet.preprocessing.prepared_image import PreparedImage
from supersimplenet.runtime.predictor import IndexedPrediction
from supersimplenet.runtime.rows import as_row
from supersimplenet.station.config import StationConfig
from supersimplenet.station.drift import picture_facts
from supersimplenet.station.models import LoadedModel
from supersimplenet.station.storage.database import Ids, now_ms
from supersimplenet.station.storage.pictures import PictureStore, heat_png
from supersimplenet.station.storage.recorder import Record, Recorder, Stored, shown_by
from supersimplenet.types import Prediction, Verdict
from supersimplenet.utils.formatting import first_line


class FullError(Exception):
    """So many pictures are in work or waiting that no more are taken."""


class ReusedKeyError(Exception):
    """A key came again with another picture or product: the result of the first would be a verdict on another part."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture to inspect.

    Attributes:
        content: the bytes of the image file.
        name: its name as sent, for people.
        source: what sent it, such as ``http``.
        part: the part that it shows; None to find it in the name as in the training.
        key: the sender's own id: a picture that comes again with the same key has the result of the first.
        keep: whether the result is recorded.
    """

    content: bytes
    name: str
    source: str
    part: str | None = None
    key: str | None = None
    keep: bool = True


@dataclass(frozen=True, kw_only=True)
class Inspected:
    """The result for a picture.

    Attributes:
        record: the columns of the table of results.
        stored: where the record is; None where it was not to be kept.
        heat: the map as a PNG, where the result is not kept.
    """

    record: Record
    stored: Stored | None
    heat: bytes | None = None


@dataclass(kw_only=True)
class _Job:
    id: str
    picture: Picture
    model: LoadedModel
    taken_at: int
    future: Future[Inspected] = field(default_factory=Future)
    prepared: PreparedImage | None = None
    finished: bool = False  # its result is known, and on its way into the database


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Numbers since the start.

    Attributes:
        in_work: pictures that are in work or waiting.
        unkept: pictures that were not kept because the disk is nearly full, or could not be written.
    """

    in_work: int
    unkept: int


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast pictures are inspected.

    Attributes:
        per_minute: pictures in the last minute; of the last 1000 at most.
        p50_s: seconds from taking a picture to its result, of the last 1000: the median; None before the first.
        p95_s: 95 % are at most that.
        p99_s: 99 % are at most that.
    """

    per_minute: int
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None


class Inspections:
    """Inspects pictures in threads of its own.

    Args:
        threads: number of threads.
        ids: makes the results' ids.
        store: where pictures are kept.
        recorder: where results are recorded.
        config: the station's settings.
        say: called with a line about a trouble.
    """

    def __init__(
        self,
        *,
        threads: int,
        ids: Ids,
        store: PictureStore,
        recorder: Recorder,
        config: StationConfig,
        say: Callable[[str], None],
    ) -> None:
        self._store, self._recorder, self._config, self._say = store, recorder, config, say
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._ids = ids
        self._lock = threading.Lock()
        self._in_work = self._unkept = 0
        self._warned_at = 0.0
        self._done: deque[tuple[float, float]] = deque(maxlen=1000)  # when, and after how many seconds
        self._threads = [threading.Thread(target=self._work, name=f"inspection-{n}") for n in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def counts(self) -> Counts:
        """Numbers since the start."""
        return Counts(in_work=self._in_work, unkept=self._unkept)

    @property
    def speed(self) -> Speed:
        """How fast pictures are inspected."""
        done, now = list(self._done), time.monotonic()
        if not done:
            return Speed(per_minute=0, p50_s=None, p95_s=None, p99_s=None)
        p50, p95, p99 = (float(each) for each in np.percentile([seconds for _, seconds in done], (50, 95, 99)))
        return Speed(per_minute=sum(now - at < 60 for at, _ in done), p50_s=p50, p95_s=p95, p99_s=p99)

    @property
    def is_full(self) -> bool:
        """Whether not even one picture more is taken now."""
        return self._in_work >= self._config.queue

    def submit(self, pictures: Sequence[Picture], model: LoadedModel) -> list[Future[Inspected]]:
        """Take pictures, all or none. A future that is cancelled before its turn is not inspected.

        Raises:
            FullError: too many pictures are in work or waiting.
        """
        with self._lock:
            if self._in_work + len(pictures) > self._config.queue:
                raise FullError
            self._in_work += len(pictures)
        at = now_ms()
        jobs = [_Job(id=self._ids.new(at), picture=picture, model=model, taken_at=at) for picture in pictures]
        for job in jobs:
            job.future.add_done_callback(functools.partial(self._leave, time.monotonic()))
            self._jobs.put(job)
        return [job.future for job in jobs]

    def close(self) -> None:
        """Finish what was taken, and stop."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _leave(self, began: float, future: Future[Inspected]) -> None:
        if not future.cancelled():
            now = time.monotonic()
            self._done.append((now, now - began))
        with self._lock:
            self._in_work -= 1

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs = [job]
            while len(jobs) < job.model.predictor.images_at_once:
                try:
                    another = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if another is None:
                    self._jobs.put(None)  # the end, after these
                    break
                jobs.append(another)
            for _, group in groupby(jobs, key=lambda job: job.model.id):
                self._predict([job for job in group if job.future.set_running_or_notify_cancel()])

    def _predict(self, jobs: Sequence[_Job]) -> None:
        try:
            ready = [job for job in jobs if self._prepare(job)]
            if not ready:
                return
            predictor = ready[0].model.predictor
            prepared = [job.prepared for job in ready if job.prepared is not None]
            names = [job.picture.name for job in ready]
            for job, found in zip(ready, predictor.predict_prepared(prepared, names, on_error="skip"), strict=True):
                if isinstance(found, Failure):
                    self._fail(job, "unreadable", found.reason)
                else:
                    self._finish(job, found)
        except Exception as error:  # an engine's own error: the pictures fail, the thread goes on
            self._say(f"inspection failed: {type(error).__name__}: {first_line(error)}")
            for job in jobs:
                if not job.finished:
                    self._fail(job, "engine", f"the model could not compute ({type(error).__name__}); see the log")

    def _prepare(self, job: _Job) -> bool:
        """Prepare a picture for the network; return whether it can be read."""
        content = job.picture.content
        try:
            job.prepared = job.model.predictor.preprocessor.prepare(EncodedImage(job.picture.name, lambda: content))
        except ImageError as error:
            self._fail(job, "unreadable", str(error))
            return False
        return True

    def _finish(self, job: _Job, prediction: Prediction) -> None:
        job.finished = True
        record = self._record_of(job, prediction)
        if not job.picture.keep:
            job.future.set_result(Inspected(record=record, stored=None, heat=heat_png(prediction)))
            return
        if self._wants(record["verdict"], record["picture"]):
            record["kept"] = self._keep(job.picture.content, record, prediction)
        self._put(job, record)

    def _fail(self, job: _Job, code: str, reason: str) -> None:
        """Record that a picture could not be inspected: its part has no verdict, and that must not pass unseen."""
        job.finished = True
        record = self._record_of(job, Failure(index=0, path=self._file_of(job), reason=reason))
        record["row"]["error_code"] = code
        if not job.picture.keep:
            job.future.set_result(Inspected(record=record, stored=None))
            return
        if code == "engine":
            record["key"] = None  # sent again, it is inspected again
        record["kept"] = self._keep(job.picture.content, record, None)
        self._put(job, record)

    def _put(self, job: _Job, record: Record) -> None:
        own = record

        def then(record: Record, stored: Stored) -> None:
            if record["id"] != own["id"] and own["kept"]:  # its key has a result already
                self._store.take_back(own["id"], own["picture"], own["kind"])
            if shown_by(record) != shown_by(own):
                job.future.set_exception(ReusedKeyError())
            else:
                job.future.set_result(Inspected(record=record, stored=stored))

        self._recorder.put(record, then)

    @staticmethod
    def _file_of(job: _Job) -> EncodedImage:
        return EncodedImage(job.picture.name, lambda: job.picture.content, job.picture.part)

    def _record_of(self, job: _Job, found: Prediction | Failure) -> Record:
        picture, predictor = job.picture, job.model.predictor
        row = as_row(
            found
            if isinstance(found, Failure)
            else IndexedPrediction(index=0, file=self._file_of(job), prediction=found),
            calibrated=predictor.is_calibrated,
            aligned=predictor.aligned,
            group_pattern=given_pattern(predictor.group_pattern),
        )
        height, width = (None, None) if isinstance(found, Failure) else found.placement.image_size_px
        measured = {} if isinstance(found, Failure) or job.prepared is None else picture_facts(job.prepared.pixels)
        return {
            "id": job.id,
            "key": picture.key,
            "taken_at": job.taken_at,
            "product": job.model.product,
            "source": picture.source,
            "name": picture.name,
            "model": job.model.id,
            **{name: row[name] for name in ("part", "verdict", "score", "score_logit")},
            "picture": hashlib.sha256(picture.content).hexdigest(),
            "kind": suffix_of(picture.content),
            "size": len(picture.content),
            "kept": False,
            "row": _plain(row) | measured | {"width": width, "height": height},
            "review": None,
            "reviewed_by": None,
            "reviewed_at": None,
            "review_defect": None,
            "review_mask": None,
        }

    def _wants(self, verdict: Verdict, sha256: str) -> bool:
        """Return whether a picture is kept: all but good ones, and of good ones a share, as far as there is room."""
        if verdict != "good":
            return True
        if self._store.free_bytes < self._config.reserve_mib << 20:
            self._warn(
                f"less than {self._config.reserve_mib} MiB of the disk are free; pictures of good parts are not kept"
            )
            return False
        return int(sha256[:8], 16) < self._config.keep_good * (1 << 32)

    def _keep(self, content: bytes, record: Record, prediction: Prediction | None) -> bool:
        try:
            self._store.add_picture(content, record["picture"])
            if prediction is not None:
                self._store.add_heat(record["id"], prediction)
        except OSError as error:
            self._store.take_back(record["id"], record["picture"], record["kind"])
            self._warn(f"a picture cannot be kept ({error.strerror}); inspection goes on")
            return False
        return True

    def _warn(self, text: str) -> None:
        """Count a picture that is not kept, and say so at most once a minute."""
        with self._lock:
            self._unkept += 1
            now = time.monotonic()
            is_new = not self._warned_at or now - self._warned_at > 60
            if is_new:
                self._warned_at = now
        if is_new:
            self._say(text)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without what the table of results has columns for."""
    own = ("path", "part", "verdict", "score", "score_logit")
    return {name: value for name, value in row.items() if name not in own}
