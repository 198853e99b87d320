"""Label Studio: the review queue as its tasks, and what people labelled there as their answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, select

from supersimplenet.errors import DataError
from supersimplenet.station.access import audit
from supersimplenet.station.library.brush import decode_brush
from supersimplenet.station.library.exports import LABELS, LABELS_FILE, TASKS_FILE, new_folder, picture_name
from supersimplenet.station.library.store import LibraryStore
from supersimplenet.station.review.answers import add_answer
from supersimplenet.station.review.opinions import AnswerName, AskedName, Said
from supersimplenet.station.review.queue import Asked
from supersimplenet.station.storage.database import writing
from supersimplenet.station.storage.pictures import PictureStore
from supersimplenet.station.storage.schema import RESULTS
from supersimplenet.utils.documents import read_json
from supersimplenet.utils.files import write_text

_ANSWERS: dict[str, AnswerName] = {"good": "good", "bad": "bad", "unusable": "unusable"}
_MOST_BYTES = 1 << 30
_ADVICE = "export from Label Studio as JSON"


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What a person labelled.

    Attributes:
        sha256: of the picture's bytes.
        answer: what the part is.
        defect: kind of the defect; None where it was not said.
        mask: (H, W) what was painted; None for nothing.
        asked: why the review queue had asked; None for a task that is not from it.
    """

    sha256: str
    answer: AnswerName
    defect: str | None
    mask: NDArray[np.bool_] | None
    asked: AskedName | None


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What an import of answers did.

    Attributes:
        answers: number of results that have a new answer.
        unknown: pictures of which the station has no result.
        unlabelled: tasks without an annotation.
    """

    answers: int
    unknown: int
    unlabelled: int


def import_answers(engine: Engine, store: LibraryStore, tasks: Path, *, who: str) -> Answered:
    """Add the answers of a file of Label Studio's export (JSON) about results of the station.

    A task is known by ``data.sha256``, which `export` and ``review export`` write. Each result that shows the picture
    gets the answer; the person's earlier ones are replaced.

    Args:
        engine: the database.
        store: the library's files, where masks are kept.
        tasks: the file.
        who: name of the person.

    Raises:
        DataError: the file is no such export, or an annotation cannot be read; then no answer is added.
    """
    labelled, unlabelled = read_tasks(tasks)
    answers = unknown = 0
    with writing(engine) as connection:
        audit.lock(connection)
        for each in labelled:
            found = _results_of(connection, each)
            mask = None if each.mask is None or not found else store.add_mask(each.mask)
            unknown += not found
            for result in found:
                said = Said(answer=each.answer, defect=each.defect, mask=mask, asked=each.asked)
                add_answer(connection, result, said, who=who)
                answers += 1
        details = {"file": tasks.name, "answers": answers}
        audit.append(connection, who=who, what="import answers", details=details)
    return Answered(answers=answers, unknown=unknown, unlabelled=unlabelled)


def write_queue(asked: Sequence[Asked], pictures: PictureStore, output: Path) -> int:
    """Write parts that a person is asked about as tasks of Label Studio; return their number.

    Args:
        asked: the parts.
        pictures: the station's pictures.
        output: a new folder, for pictures, tasks.json and labels.xml.

    Raises:
        OutputError: the folder holds something, or cannot be written.
    """
    with new_folder(output):
        tasks = []
        for each in asked:
            record = each.record
            path = pictures.picture(record["picture"], record["kind"])
            if not path.is_file():  # removed meanwhile
                continue
            name = picture_name(record["name"], record["picture"], record["kind"])
            (output / "images").mkdir(exist_ok=True)
            shutil.copyfile(path, output / "images" / name)
            about = {"reason": each.reason, "verdict": record["verdict"], "score": record["score"]}
            tasks.append({"data": {"image": f"images/{name}", "sha256": record["picture"], **about}})
        write_text(output / TASKS_FILE, json.dumps(tasks))
        write_text(output / LABELS_FILE, LABELS)
    return len(tasks)


def read_tasks(path: Path) -> tuple[list[Labelled], int]:
    """Return what was labelled in a file of Label Studio's export, and the number of tasks without an annotation.

    Raises:
        DataError: see `import_answers`.
    """
    tasks = read_json(path, advice=_ADVICE, max_bytes=_MOST_BYTES)
    if not isinstance(tasks, list):
        raise DataError(f"{path}: wanted a list of tasks; {_ADVICE}")
    found = []
    unlabelled = 0
    for number, task in enumerate(tasks, start=1):
        try:
            labelled = _labelled(task)
        except (DataError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = error if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
            raise DataError(f"{path}: task {number}: {reason}; {_ADVICE}") from error
        if labelled is None:
            unlabelled += 1
        else:
            found.append(labelled)
    return found, unlabelled


def _labelled(task: Mapping[str, Any]) -> Labelled | None:
    annotations = [each for each in task.get("annotations", ()) if not each.get("was_cancelled")]
    if not annotations:
        return None
    parts = annotations[-1]["result"]
    choices = [choice for each in parts if each["type"] == "choices" for choice in each["value"]["choices"]]
    masks = list(_masks(parts))
    if not choices and not masks:
        return None
    if choices and choices[-1] not in _ANSWERS:
        raise DataError(f"choice '{choices[-1]}'; wanted good, bad or unusable")
    answer = _ANSWERS[choices[-1]] if choices else "bad"
    mask = np.logical_or.reduce(masks) if masks and answer == "bad" else None
    texts = [text for each in parts if each["type"] == "textarea" for text in each["value"]["text"]]
    defect = texts[-1].strip()[:100] or None if texts and answer == "bad" else None
    reason = task["data"].get("reason")
    asked = reason if reason in get_args(AskedName) else None
    return Labelled(sha256=str(task["data"]["sha256"]), answer=answer, defect=defect, mask=mask, asked=asked)


def _masks(parts: list[Mapping[str, Any]]) -> Iterator[NDArray[np.bool_]]:
    for each in parts:
        if each["type"] == "brushlabels":
            size_px = int(each["original_height"]), int(each["original_width"])
            mask = decode_brush(each["value"]["rle"], size_px)
            if mask.any():
                yield mask


def _results_of(connection: Connection, labelled: Labelled) -> list[str]:
    c = RESULTS.c
    rows = connection.execute(select(c.id, c.name, c.row).where(c.picture == labelled.sha256).order_by(c.id)).all()
    for row in rows:
        size_px = row.row["height"], row.row["width"]
        if labelled.mask is not None and labelled.mask.shape != size_px:
            drawn = "{} x {}".format(*labelled.mask.shape)
            wanted = "{} x {}".format(*size_px)
            raise DataError(f"{row.name}: the mask is {drawn} px (height x width), the picture {wanted}")
    return [row.id for row in rows]
