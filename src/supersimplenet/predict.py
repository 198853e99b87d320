"""Predictions of any number of images into files, continued after an interruption without repeating or losing one."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from supersimplenet.data.images import list_images
from supersimplenet.data.loading import Failure, OnError
from supersimplenet.deploy.folder import CALIBRATION_FILE, WEIGHTS_FILE, write_text
from supersimplenet.detector import Detector, Indexed
from supersimplenet.errors import ConfigError, DataError, OutputError
from supersimplenet.evaluation.thresholds import false_discovery
from supersimplenet.records import Defect, Prediction, Verdict

CSV_FILE = "predictions.csv"
JSONL_FILE = "predictions.jsonl"
DEFECTS_FILE = "defects.csv"
COLUMNS = (
    "path",
    "score",
    "verdict",
    "calibrated",
    "p_value",
    "q_value",
    "defects",
    "score_logit",
    "head_logit",
    "map_max_logit",
    "fused_logit",
    "error",
)
_DEFECT_COLUMNS = ("path", *(field.name for field in dataclasses.fields(Defect)))
_JOURNAL = "predictions.partial.jsonl"
_IDENTITY = "predictions.partial.json"
OVERLAYS = "overlays"


@dataclass(frozen=True, kw_only=True)
class PredictionSummary:
    """What a prediction run did.

    Attributes:
        images: images in the list.
        continued: how many of them an earlier, interrupted run had done.
        verdicts: how many are good, unsure and bad.
        flagged: how many were called bad at the false-discovery rate asked for; None where none was.
        failed: how many could not be read; they are rows with an error.
        csv: the table of results.
    """

    images: int
    continued: int
    verdicts: dict[Verdict, int]
    flagged: int | None
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
    false_discovery_rate: float | None = None,
    batch_size: int | None = None,
    on_error: OnError = "stop",
    progress: Callable[[int], None] = lambda images: None,
) -> PredictionSummary:
    """Predict every image and leave ``predictions.csv``, ``defects.csv``, ``predictions.jsonl`` and overlays if wanted.

    Each result is appended to a journal as it comes; the files of the final names appear whole when all are done. A run
    that was interrupted is continued by the same call. Memory does not grow with the number of images.

    Args:
        detector: what predicts.
        paths: the images, in the order of the results.
        output: folder of the results.
        model_folder: the detector's folder; a run is continued only with the same weights.
        overlays: also write each image with its heat map.
        false_discovery_rate: also give each image its p-value adjusted for the number of images, ``q_value``, and
            count those at or below this rate.
        batch_size: images that go through the network together; None for what suits the engine.
        on_error: ``stop`` raises at the first unreadable image, ``skip`` gives it a row with the error.
        progress: called with the number of images done since the last call.

    Raises:
        ImageError: an image cannot be read and ``on_error`` is ``stop``; what was done before it is kept.
        OutputError: the folder holds an interrupted run over other images or of another model.
        ConfigError: a false-discovery rate for a model that is not calibrated.
    """
    if false_discovery_rate is not None and detector.calibration is None:
        raise ConfigError(
            "false_discovery_rate: needs p-values, and the model is not calibrated; run `supersimplenet calibrate`"
        )
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
            lines.write(json.dumps(_row(item, calibrated=detector.calibration is not None)) + "\n")
            lines.flush()
            progress(1)
        os.fsync(lines.fileno())
    verdicts, flagged, failed = _finish(output, journal, false_discovery_rate)
    return PredictionSummary(
        images=len(paths),
        continued=done,
        verdicts=verdicts,
        flagged=flagged,
        failed=failed,
        csv=output / CSV_FILE,
    )


def _check_identity(output: Path, model_folder: Path, *, overlays: bool) -> None:
    """An interrupted run is continued by the same model and options only."""
    files = [path for name in (WEIGHTS_FILE, CALIBRATION_FILE) if (path := model_folder / name).is_file()]
    stats = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    identity = {"files": stats, "overlays": overlays}
    path = output / _IDENTITY
    if (output / _JOURNAL).is_file() and path.is_file() and json.loads(path.read_text(encoding="utf-8")) != identity:
        raise OutputError(
            f"{output}: holds an interrupted run of another model or calibration; continue that one, choose "
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


def _row(item: Indexed | Failure, *, calibrated: bool) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {"calibrated": calibrated}
    if isinstance(item, Failure):
        return row | {"path": str(item.path), "error": item.reason}
    prediction = item.prediction
    own = {name: getattr(prediction, name) for name in COLUMNS if hasattr(prediction, name)}
    defects = None if prediction.defects is None else [dataclasses.asdict(defect) for defect in prediction.defects]
    return row | own | {"defects": defects}


def _finish(
    output: Path, journal: Path, false_discovery_rate: float | None
) -> tuple[dict[Verdict, int], int | None, int]:
    """Turn the journal into the final files; counts of verdicts, of flagged and of failed images."""
    verdicts: dict[Verdict, int] = {"good": 0, "unsure": 0, "bad": 0}
    flagged, failed = 0, 0
    q_values: Iterator[float] = iter(())
    if false_discovery_rate is not None:
        adjusted = false_discovery([row["p_value"] for row in _rows(journal) if row["error"] is None])
        flagged, q_values = int((adjusted <= false_discovery_rate).sum()), iter(adjusted.tolist())
    with (
        _whole_file(output / CSV_FILE) as table_file,
        _whole_file(output / DEFECTS_FILE) as defects_file,
        _whole_file(output / JSONL_FILE) as lines,
    ):
        table = csv.DictWriter(table_file, fieldnames=COLUMNS)
        defects = csv.DictWriter(defects_file, fieldnames=_DEFECT_COLUMNS)
        table.writeheader()
        defects.writeheader()
        for row in _rows(journal):
            if row["error"] is None:
                verdicts[row["verdict"]] += 1
                row["q_value"] = next(q_values, None)
            failed += row["error"] is not None
            lines.write(json.dumps(row) + "\n")
            found = row["defects"]
            defects.writerows({"path": row["path"], **defect} for defect in found or ())
            table.writerow(row | {"defects": None if found is None else len(found)})
    journal.unlink()
    (output / _IDENTITY).unlink()
    return verdicts, None if false_discovery_rate is None else flagged, failed


@contextmanager
def _whole_file(path: Path) -> Iterator[TextIO]:
    """A text file that appears when all of it is written."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        yield file
    temporary.replace(path)


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
