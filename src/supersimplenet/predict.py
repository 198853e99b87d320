"""Predictions of any number of images into files, continued after an interruption without repeating or losing one."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supersimplenet.data.images import list_images
from supersimplenet.data.loading import Failure, OnError
from supersimplenet.deploy.folder import WEIGHTS_FILE, write_text
from supersimplenet.detector import Detector, Indexed
from supersimplenet.errors import DataError, OutputError
from supersimplenet.records import Prediction

CSV_FILE = "predictions.csv"
JSONL_FILE = "predictions.jsonl"
COLUMNS = ("path", "score", "verdict", "score_logit", "head_logit", "map_max_logit", "fused_logit", "error")
_JOURNAL = "predictions.partial.jsonl"
_IDENTITY = "predictions.partial.json"
OVERLAYS = "overlays"


@dataclass(frozen=True, kw_only=True)
class PredictionSummary:
    """What a prediction run did.

    Attributes:
        images: images in the list.
        continued: how many of them an earlier, interrupted run had done.
        bad: how many are bad, by the threshold.
        failed: how many could not be read; they are rows with an error.
        csv: the table of results.
    """

    images: int
    continued: int
    bad: int
    failed: int
    csv: Path


def find_images(inputs: Sequence[str], *, leave_out: Path | None = None) -> list[Path]:
    """Image files of files, folders (searched at any depth) and glob patterns, each file once, in the given order.

    Args:
        inputs: as typed.
        leave_out: a folder whose files are passed over: the results of an earlier run are no input of the next.

    Raises:
        DataError: an input that is none of these, or holds no image.
    """
    found: dict[Path, None] = {}
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            matches = list_images(path)
        elif path.exists():
            matches = [path]
        else:
            anchor = Path(path.anchor) if path.is_absolute() else Path()
            pattern = str(path.relative_to(path.anchor)) if path.is_absolute() else text
            matches = sorted(anchor.glob(pattern)) if any(c in text for c in "*?[") else []
            matches = [match for match in matches if match.is_file()]
        if leave_out is not None:
            matches = [match for match in matches if leave_out.resolve() not in match.resolve().parents]
        if not matches:
            raise DataError(f"{text}: no such file or folder, and no pattern that matches one; name images to predict")
        found.update(dict.fromkeys(matches))
    return list(found)


def predict_to_folder(
    detector: Detector,
    paths: Sequence[Path],
    output: Path,
    *,
    model_folder: Path,
    overlays: bool = False,
    batch_size: int | None = None,
    on_error: OnError = "stop",
    progress: Callable[[int], None] = lambda images: None,
) -> PredictionSummary:
    """Predict every image and leave ``predictions.csv``, ``predictions.jsonl`` and, if asked for, overlays.

    Each result is appended to a journal as it comes; the files of the final names appear whole when all are done. A run
    that was interrupted is continued by the same call. Memory does not grow with the number of images.

    Args:
        detector: what predicts.
        paths: the images, in the order of the results.
        output: folder of the results.
        model_folder: the detector's folder; a run is continued only with the same weights.
        overlays: also write each image with its heat map.
        batch_size: images that go through the network together; None for what suits the engine.
        on_error: ``stop`` raises at the first unreadable image, ``skip`` gives it a row with the error.
        progress: called with the number of images done since the last call.

    Raises:
        ImageError: an image cannot be read and ``on_error`` is ``stop``; what was done before it is kept.
        OutputError: the folder holds an interrupted run over other images or of another model.
    """
    output.mkdir(parents=True, exist_ok=True)
    journal = output / _JOURNAL
    _check_identity(output, model_folder, overlays=overlays)
    done = _continue_journal(journal, paths)
    progress(done)
    with journal.open("a", encoding="utf-8") as lines:

        def draw(item: Indexed) -> None:
            if overlays:
                _write_overlay(paths[done + item.index], item.prediction, output / OVERLAYS, done + item.index)

        for item in detector.predict_files(paths[done:], batch_size=batch_size, on_error=on_error, then=draw):
            lines.write(json.dumps(_row(item)) + "\n")
            lines.flush()
            progress(1)
        os.fsync(lines.fileno())
    bad, failed = _finish(output, journal)
    return PredictionSummary(images=len(paths), continued=done, bad=bad, failed=failed, csv=output / CSV_FILE)


def _check_identity(output: Path, model_folder: Path, *, overlays: bool) -> None:
    """An interrupted run is continued by the same model and options only."""
    weights = model_folder / WEIGHTS_FILE
    identity = {"weights": [weights.stat().st_size, weights.stat().st_mtime_ns], "overlays": overlays}
    path = output / _IDENTITY
    if (output / _JOURNAL).is_file() and path.is_file() and json.loads(path.read_text(encoding="utf-8")) != identity:
        raise OutputError(
            f"{output}: holds an interrupted run of another model or with other options; continue that one, choose "
            f"another --output, or remove {path.name} and {_JOURNAL}"
        )
    write_text(path, json.dumps(identity))


def _continue_journal(journal: Path, paths: Sequence[Path]) -> int:
    """How many images an interrupted run has done; a line torn by the interruption is cut off.

    Raises:
        OutputError: the journal's images are not the first of ``paths``.
    """
    if not journal.is_file():
        return 0
    whole, done = 0, 0
    with journal.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            named = json.loads(line)["path"]
            if done >= len(paths) or named != str(paths[done]):
                raise OutputError(
                    f"{journal.parent}: holds an interrupted run over other images ('{named}' where this run has "
                    f"'{paths[done] if done < len(paths) else 'nothing'}'); continue that one, choose another "
                    f"--output, or remove {journal.name}"
                )
            whole += len(line)
            done += 1
    os.truncate(journal, whole)
    return done


def _row(item: Indexed | Failure) -> dict[str, Any]:
    if isinstance(item, Failure):
        return dict.fromkeys(COLUMNS) | {"path": str(item.path), "error": item.reason}
    prediction = item.prediction
    return {name: getattr(prediction, name) for name in COLUMNS[:-1]} | {"error": None}


def _finish(output: Path, journal: Path) -> tuple[int, int]:
    """Turn the journal into the final files; counts of bad and failed images."""
    bad = failed = 0
    table = output / f".{CSV_FILE}.part"
    with table.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=COLUMNS)
        writer.writeheader()
        for row in _rows(journal):
            bad += row["verdict"] == "bad"
            failed += row["error"] is not None
            writer.writerow(row)
    table.replace(output / CSV_FILE)
    journal.replace(output / JSONL_FILE)
    (output / _IDENTITY).unlink()
    return bad, failed


def _rows(journal: Path) -> Iterator[dict[str, Any]]:
    with journal.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _write_overlay(path: Path, prediction: Prediction, folder: Path, index: int) -> None:
    """The overlay of an image, named by its place in the list, so that equal names in two folders stay apart."""
    from supersimplenet.drawing import draw_overlay

    folder.mkdir(exist_ok=True)
    target = folder / f"{index:06d}_{path.stem}.png"
    temporary = target.with_name(f".{target.name}.part")
    draw_overlay(path, prediction).save(temporary, format="PNG")
    temporary.replace(target)
