"""Predict any number of images into files; after an interruption, continue without repeating or losing an image."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from supersimplenet.errors import ConfigError, OutputError
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.postprocessing.parts import given_pattern
from supersimplenet.prediction.finish import FIRST, SEEN, Counts, PartCounts, write_tables
from supersimplenet.prediction.identity import IDENTITY, check_identity, run_identity
from supersimplenet.prediction.tables import DEFAULT_FORMATS, Format, Row, table_file
from supersimplenet.prediction.watch import Arrivals, Refresh, with_pauses
from supersimplenet.preprocessing.loading import ImageFile, OnError
from supersimplenet.runtime.predictor import IndexedPrediction, SupportsPredict
from supersimplenet.runtime.rows import as_row, columns
from supersimplenet.types import OverlayStyle, Prediction, Verdict
from supersimplenet.utils.console import console
from supersimplenet.utils.files import to_disk, whole_file
from supersimplenet.utils.formatting import counted
from supersimplenet.utils.journals import Kept, as_line, cut_journal, mend_journal, read_journal
from supersimplenet.utils.locks import writing_into
from supersimplenet.utils.names import short_stem

_JOURNAL = "predictions.partial.jsonl"
_TO_DISK_EVERY_S = 5.0  # a power cut loses no more; the images are predicted again
OVERLAYS = "overlays"


@dataclass(frozen=True, kw_only=True)
class PredictionSummary:
    """The results of a prediction run in numbers.

    Attributes:
        images: number of images.
        continued: number of these images that were already predicted by an earlier, interrupted run.
        verdicts: number of images by verdict: good, unsure and bad.
        flagged: number of parts, or of images where parts are not known, called bad at the chosen false-discovery rate;
            None without such a rate.
        failed: number of images that could not be read; their rows hold an error.
        parts: the parts in numbers; None where they are not known.
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
    parts: PartCounts | None
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
    overlay_style: OverlayStyle = "heat",
    group_pattern: str | None = None,
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
        model_folder: the detector's model folder or exported file; a run is continued only with the same content.
        formats: file formats of the results.
        overlays: also write each image with its listed defects and its anomaly map.
        overlay_style: how they are drawn; see `Prediction.overlay`.
        group_pattern: finds the part's name in a file's name: also write a table of parts, see
            `supersimplenet.postprocessing.parts`. An image from a table may name its part itself.
        false_discovery_rate: also give each part, or each image where parts are not known, its p-value adjusted for
            their number, ``q_value``, and count those at or below this rate.
        batch_size: number of images that go through the network together; None for a default that suits the engine.
        on_error: ``stop`` raises at the first unreadable image, ``skip`` writes a row with the error for it.
        progress: called with the number of images done since the last call.
        each: called with each row as it comes.

    Raises:
        ImageError: an image cannot be read and ``on_error`` is ``stop``; the results before this image are kept.
        OutputError: the folder holds an interrupted run with other images or another model, or another process writes
            into it.
        ConfigError: a false-discovery rate is given, but the model is not calibrated; or the pattern cannot be used.
    """
    if false_discovery_rate is not None and not detector.is_calibrated:
        raise ConfigError(
            "false_discovery_rate: needs p-values, and the model is not calibrated in this precision; run "
            "`supersimplenet calibrate`"
        )
    with writing_into(output):
        return _predict_to_folder(
            detector,
            images,
            output,
            model_folder=model_folder,
            formats=formats,
            overlays=overlays,
            overlay_style=overlay_style,
            group_pattern=group_pattern,
            false_discovery_rate=false_discovery_rate,
            batch_size=detector.images_at_once if batch_size is None else batch_size,
            on_error=on_error,
            progress=progress,
            each=each,
        )


def _predict_to_folder(
    detector: SupportsPredict,
    images: Iterable[ImageFile | None],
    output: Path,
    *,
    model_folder: Path,
    formats: Sequence[Format],
    overlays: bool,
    overlay_style: OverlayStyle,
    group_pattern: str | None,
    false_discovery_rate: float | None,
    batch_size: int,
    on_error: OnError,
    progress: Callable[[int], None],
    each: Callable[[Row], None],
) -> PredictionSummary:
    journal = output / _JOURNAL
    watched = str(images.folder) if isinstance(images, Arrivals) else None
    replaces = watched is None and (output / table_file(formats)).is_file()
    pattern = given_pattern(group_pattern)
    identity = run_identity(
        detector,
        model_folder,
        batch_size=batch_size,
        overlays=overlays,
        overlay_style=overlay_style,
        group_pattern=None if pattern is None else pattern.pattern,
        watched=watched,
    )
    check_identity(journal, identity, model=model_folder)
    if isinstance(images, Arrivals):
        ended_ns = journal.stat().st_mtime_ns if journal.is_file() else 0
        kept = mend_journal(journal, first=FIRST)
        rows = read_journal(journal, first=FIRST)
        images.pass_over(((row["path"], row.get(SEEN)) for row in rows), until_ns=ended_ns)
        left: Iterator[ImageFile | None] = iter(images)
    else:
        # Continue after a complete batch: in a batch with other images, results may differ in the last bit.
        kept = cut_journal(journal, batch_size, first=FIRST)
        left = _after(journal, iter(images))
    _tell_damage(journal, kept)
    done = kept.rows
    progress(done)
    if done == 0:
        for stale in (output / OVERLAYS).glob("[0-9][0-9][0-9][0-9][0-9][0-9]_*.png"):
            stale.unlink()  # they belong to a run that this run replaces
        with suppress(OSError):  # not there, or something else is in it
            (output / OVERLAYS).rmdir()
    count, synced = done, time.monotonic()

    def write() -> Counts:
        return write_tables(
            journal,
            formats,
            columns=columns(aligned=detector.aligned),
            group_pattern=pattern,
            false_discovery_rate=false_discovery_rate,
            watched=watched is not None,
        )

    refresh = Refresh(write, rows=done, wanted=watched is not None)
    left = with_pauses(left, lambda: refresh(count))
    with _journal(journal) as lines:

        def draw(item: IndexedPrediction) -> None:
            if overlays:
                place = done + item.index
                _write_overlay(item.file, item.prediction, output / OVERLAYS, place, style=overlay_style)

        for item in detector.predict_files(left, batch_size=batch_size, on_error=on_error, then=draw):
            row = as_row(item, calibrated=detector.is_calibrated, aligned=detector.aligned, group_pattern=pattern)
            seen = {SEEN: images.state_of(Path(row["path"]))} if isinstance(images, Arrivals) else {}
            lines.write(as_line(row | seen))
            lines.flush()
            if time.monotonic() - synced > _TO_DISK_EVERY_S:
                os.fsync(lines.fileno())
                synced = time.monotonic()
            count += 1
            progress(1)
            each(row)
            refresh(count)
        os.fsync(lines.fileno())
    counts = write()
    if watched is None:
        journal.unlink()  # after the tables, which are on the disk now, so that no result is lost
        (output / IDENTITY).unlink()  # last: a journal of which the model is not known is of no use
    return PredictionSummary(
        images=count,
        continued=done,
        verdicts=counts.verdicts,
        flagged=counts.flagged,
        failed=counts.failed,
        parts=counts.parts,
        table=output / table_file(formats),
        replaced=replaces,
        threshold_logit=detector.threshold_logit,
        calibration=detector.calibration,
    )


@contextmanager
def _journal(journal: Path) -> Iterator[BinaryIO]:
    """Open a journal to append to it; after an error before its first row, remove what the run has written."""
    try:
        with journal.open("ab") as lines:
            to_disk(journal.parent)
            yield lines
    except BaseException:
        if journal.is_file() and not journal.stat().st_size:
            journal.unlink()
            journal.with_name(IDENTITY).unlink(missing_ok=True)
        raise


def _tell_damage(journal: Path, kept: Kept) -> None:
    if kept.damaged:
        console().print(
            f"{journal}: {counted(kept.damaged, 'damaged line')}; {counted(kept.dropped, 'row')} dropped, whose images "
            "are predicted again"
        )


def _after(journal: Path, images: Iterator[ImageFile | None]) -> Iterator[ImageFile | None]:
    """Return the images that come after those in the journal.

    Raises:
        OutputError: the journal's images are not the first images of ``images``.
    """
    for row in read_journal(journal, first=FIRST):
        image = next((image for image in images if image is not None), None)
        if image is None or row["path"] != str(image):
            raise OutputError(
                f"{journal.parent}: holds an interrupted run over other images ('{row['path']}' where this run has "
                f"'{'nothing' if image is None else image}'); continue that one, choose another "
                f"--output, or remove {journal.name}"
            )
    return images


def _write_overlay(image: ImageFile, prediction: Prediction, folder: Path, index: int, *, style: OverlayStyle) -> None:
    """Write the overlay of an image; the file's name starts with the image's index, so equal names do not collide."""
    from supersimplenet.visualization.overlay import draw_overlay

    folder.mkdir(exist_ok=True)
    target = folder / f"{index:06d}_{short_stem(str(image))}.png"
    with whole_file(target) as temporary:
        draw_overlay(image, prediction, style=style).save(temporary, format="PNG")
