"""Predict any number of images into files; after an interruption, continue without repeating or losing an image."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from supersimplenet.errors import ConfigError, OutputError
from supersimplenet.inference.config import CALIBRATION_FILE, WEIGHTS_FILE
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.prediction.tables import DEFAULT_FORMATS, Format, Row, results_in, table_file
from supersimplenet.prediction.watch import Arrivals
from supersimplenet.preprocessing.loading import ImageFile, OnError
from supersimplenet.runtime.predictor import IndexedPrediction, SupportsPredict
from supersimplenet.runtime.rows import as_row, columns
from supersimplenet.types import Prediction, Verdict
from supersimplenet.utils.files import cut_journal, read_journal, whole_file, write_text
from supersimplenet.utils.names import short_stem

_JOURNAL = "predictions.partial.jsonl"
_IDENTITY = "predictions.partial.json"
_SEEN = "seen"  # in the journal: size and date of a watched file when it was taken
_TABLES_EVERY_S, _TABLES_SHARE = 10.0, 20  # of a watched folder: so often, and so many times longer than it took
OVERLAYS = "overlays"


@dataclass(frozen=True, kw_only=True)
class PredictionSummary:
    """The results of a prediction run in numbers.

    Attributes:
        images: number of images.
        continued: number of these images that were already predicted by an earlier, interrupted run.
        verdicts: number of images by verdict: good, unsure and bad.
        flagged: number of images called bad at the chosen false-discovery rate; None without such a rate.
        failed: number of images that could not be read; their rows hold an error.
        table: file of results; the first if there are several.
        replaced: whether this file replaced the file of an earlier run.
        threshold_logit: threshold of the model: an image is ``bad`` from this score on.
        calibration: calibration of the model; None where the model is not calibrated.
        left_out: number of things by kind that lie in the folders and archives, and are no image that is read; see
            `supersimplenet.preprocessing.listing`.
    """

    images: int
    continued: int
    verdicts: dict[Verdict, int]
    flagged: int | None
    failed: int
    table: Path
    replaced: bool
    threshold_logit: float
    calibration: Calibration | None
    left_out: dict[str, int] = field(default_factory=dict)


def predict_to_folder(
    detector: SupportsPredict,
    images: Iterable[ImageFile | None],
    output: Path,
    *,
    model_folder: Path,
    formats: Sequence[Format] = DEFAULT_FORMATS,
    overlays: bool = False,
    false_discovery_rate: float | None = None,
    batch_size: int | None = None,
    on_error: OnError = "stop",
    progress: Callable[[int], None] = lambda images: None,
    each: Callable[[Row], None] = lambda row: None,
) -> PredictionSummary:
    """Predict every image; write files such as ``predictions.csv`` and ``defects.csv``, and overlays if wanted.

    Each result is immediately appended to a journal; the final files appear, complete, when all images are done. The
    same call continues an interrupted run, and its files are then equal, byte by byte, to those of an uninterrupted
    run. Memory does not grow with the number of images.

    Args:
        detector: the detector or predictor to use.
        images: images in the order of the results; iterated over once. For a watched folder, the journal is kept, so
            that a later call continues with the images that arrived or changed since, and the files are written again
            and again while it is watched.
        output: folder for the results.
        model_folder: the detector's model folder or exported file; a run is continued only with the same weights.
        formats: file formats of the results.
        overlays: also write each image with its anomaly map.
        false_discovery_rate: also give each image its p-value adjusted for the number of images, ``q_value``, and
            count the images at or below this rate.
        batch_size: number of images that go through the network together; None for a default that suits the engine.
        on_error: ``stop`` raises at the first unreadable image, ``skip`` writes a row with the error for it.
        progress: called with the number of images done since the last call.
        each: called with each row as it comes.

    Raises:
        ImageError: an image cannot be read and ``on_error`` is ``stop``; the results before this image are kept.
        OutputError: the folder holds an interrupted run with other images or another model.
        ConfigError: a false-discovery rate is given, but the model is not calibrated.
    """
    if false_discovery_rate is not None and not detector.is_calibrated:
        raise ConfigError(
            "false_discovery_rate: needs p-values, and the model is not calibrated in this precision; run "
            "`supersimplenet calibrate`"
        )
    output.mkdir(parents=True, exist_ok=True)
    journal = output / _JOURNAL
    watched = str(images.folder) if isinstance(images, Arrivals) else None
    replaces = watched is None and (output / table_file(formats)).is_file()
    _check_identity(output, model_folder, overlays=overlays, watched=watched)
    if isinstance(images, Arrivals):
        ended_ns = journal.stat().st_mtime_ns if journal.is_file() else 0
        done = cut_journal(journal, 1)
        images.pass_over(((row["path"], row.get(_SEEN)) for row in read_journal(journal)), until_ns=ended_ns)
        left: Iterator[ImageFile | None] = iter(images)
    else:
        # Continue after a complete batch: in a batch with other images, results may differ in the last bit.
        done = cut_journal(journal, detector.images_at_once if batch_size is None else batch_size)
        left = _after(journal, iter(images))
    progress(done)
    if done == 0:
        for stale in (output / OVERLAYS).glob("[0-9][0-9][0-9][0-9][0-9][0-9]_*.png"):
            stale.unlink()  # they belong to a run that this run replaces
        with suppress(OSError):  # not there, or something else is in it
            (output / OVERLAYS).rmdir()
    count = done

    def finish() -> tuple[dict[Verdict, int], int | None, int]:
        names = columns(aligned=detector.aligned)
        return _finish(output, formats, false_discovery_rate, names, stays=watched is not None)

    refresh = _Refresh(finish, rows=done, wanted=watched is not None)
    left = _with_pauses(left, lambda: refresh(count))
    with journal.open("a", encoding="utf-8") as lines:

        def draw(item: IndexedPrediction) -> None:
            if overlays:
                _write_overlay(item.file, item.prediction, output / OVERLAYS, done + item.index)

        for item in detector.predict_files(left, batch_size=batch_size, on_error=on_error, then=draw):
            row = as_row(item, calibrated=detector.is_calibrated, aligned=detector.aligned)
            seen = {_SEEN: images.state_of(Path(row["path"]))} if isinstance(images, Arrivals) else {}
            lines.write(json.dumps(row | seen) + "\n")
            lines.flush()
            count += 1
            progress(1)
            each(row)
            refresh(count)
        os.fsync(lines.fileno())
    verdicts, flagged, failed = finish()
    return PredictionSummary(
        images=count,
        continued=done,
        verdicts=verdicts,
        flagged=flagged,
        failed=failed,
        table=output / table_file(formats),
        replaced=replaces,
        threshold_logit=detector.threshold_logit,
        calibration=detector.calibration,
    )


class _Refresh:
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


def _with_pauses(images: Iterator[ImageFile | None], at_pause: Callable[[], None]) -> Iterator[ImageFile | None]:
    """Yield the images; call a function at each None, when all images before it have their rows."""
    for image in images:
        yield image
        if image is None:
            at_pause()


def _check_identity(output: Path, model_folder: Path, *, overlays: bool, watched: str | None) -> None:
    """Check that an interrupted run in the folder has the same model and options; record those of this run."""
    candidates = [model_folder, *(model_folder / name for name in (WEIGHTS_FILE, CALIBRATION_FILE))]
    files = [path for path in candidates if path.is_file()]
    stats = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    identity = {"files": stats, "overlays": overlays, "watched": watched}
    path = output / _IDENTITY
    if (output / _JOURNAL).is_file() and path.is_file():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if earlier.get("watched") != watched:
            kind = "images" if earlier.get("watched") is None else f"the watched folder {earlier['watched']}"
            raise OutputError(f"{output}: holds a run over {kind}; continue that one, or choose another --output")
        if earlier != identity:
            raise OutputError(
                f"{output}: holds an interrupted run of another model or calibration; continue that one, choose "
                f"another --output, or remove {path.name} and {_JOURNAL}"
            )
    write_text(path, json.dumps(identity))


def _after(journal: Path, images: Iterator[ImageFile | None]) -> Iterator[ImageFile | None]:
    """Return the images that come after those in the journal.

    Raises:
        OutputError: the journal's images are not the first images of ``images``.
    """
    for row in read_journal(journal):
        image = next((image for image in images if image is not None), None)
        if image is None or row["path"] != str(image):
            raise OutputError(
                f"{journal.parent}: holds an interrupted run over other images ('{row['path']}' where this run has "
                f"'{'nothing' if image is None else image}'); continue that one, choose another "
                f"--output, or remove {journal.name}"
            )
    return images


def _finish(
    output: Path,
    formats: Sequence[Format],
    false_discovery_rate: float | None,
    names: Sequence[str],
    *,
    stays: bool,
) -> tuple[dict[Verdict, int], int | None, int]:
    """Turn the journal into the final files; return the numbers of verdicts, flagged images and failed images."""
    journal = output / _JOURNAL
    verdicts: dict[Verdict, int] = {"good": 0, "unsure": 0, "bad": 0}
    flagged, failed = 0, 0
    q_values: Iterator[float] = iter(())
    if false_discovery_rate is not None:
        from supersimplenet.metrics.thresholds import false_discovery  # needs scipy

        adjusted = false_discovery([row["p_value"] for row in read_journal(journal) if row["error"] is None])
        flagged, q_values = int((adjusted <= false_discovery_rate).sum()), iter(adjusted.tolist())
    with results_in(output, formats, names) as sinks:
        for row in read_journal(journal):
            row.pop(_SEEN, None)
            if row["error"] is None:
                verdicts[row["verdict"]] += 1
                row["q_value"] = next(q_values, None)
            failed += row["error"] is not None
            for add in sinks:
                add(row)
    if not stays:
        (output / _IDENTITY).unlink()
        journal.unlink()  # last, so that a run that is killed before this line loses no results
    return verdicts, None if false_discovery_rate is None else flagged, failed


def _write_overlay(image: ImageFile, prediction: Prediction, folder: Path, index: int) -> None:
    """Write the overlay of an image; the file's name starts with the image's index, so equal names do not collide."""
    from supersimplenet.visualization.overlay import draw_overlay

    folder.mkdir(exist_ok=True)
    target = folder / f"{index:06d}_{short_stem(str(image))}.png"
    with whole_file(target) as temporary:
        draw_overlay(image, prediction).save(temporary, format="PNG")
