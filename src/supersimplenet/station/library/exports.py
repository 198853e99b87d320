"""Writes a version of a dataset as a folder that a training or another tool reads."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from supersimplenet.datasets.splits import write_table
from supersimplenet.errors import DataError, OutputError
from supersimplenet.preprocessing.decoding import image_size
from supersimplenet.preprocessing.images import read_mask
from supersimplenet.station.library.brush import encode_brush
from supersimplenet.station.library.store import LibraryStore
from supersimplenet.station.library.versions import Entry
from supersimplenet.types import BAD, GOOD, Sample
from supersimplenet.utils.files import write_text
from supersimplenet.utils.names import short_stem

ExportFormat = Literal["table", "mvtec", "coco", "label-studio"]
TABLE_FILE, COCO_FILE = "samples.csv", "coco.json"
TASKS_FILE, LABELS_FILE = "tasks.json", "labels.xml"  # of Label Studio: the labels are the settings of a project
UNKNOWN_KIND = "bad"
PART_PATTERN = "^(part-[0-9a-f]{12})_"  # in the name of a picture that calibrates


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export wrote.

    Attributes:
        files: number of pictures.
        left_out: pictures for which the format has no place, by the reason.
    """

    files: int
    left_out: dict[str, int]


def export(entries: Sequence[Entry], store: LibraryStore, form: ExportFormat, output: Path) -> Exported:
    """Write pictures, masks and what is known about them into a folder that is empty or not there.

    ``table`` is read by ``train``: a table of training and golden pictures (split train and test), and those that
    calibrate in ``calibration/good`` and ``calibration/bad``. ``mvtec`` is the same in the layout of MVTec AD.
    ``coco`` and ``label-studio`` hold all pictures with their role.

    Args:
        entries: the pictures of a version.
        store: the library's files.
        form: the format.
        output: the folder.

    Raises:
        OutputError: the folder holds something, or cannot be written.
        DataError: a file of the library is missing.
    """
    with new_folder(output):
        left_out = _WRITERS[form](entries, store, output)
    return Exported(files=len(entries) - sum(left_out.values()), left_out=dict(left_out))


@contextmanager
def new_folder(output: Path) -> Iterator[None]:
    """Make a folder, or take one that is empty; report what cannot be written there.

    Raises:
        OutputError: the folder holds something, or cannot be written.
    """
    try:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise OutputError(f"{output}: is not empty; name a new folder")
        output.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror}); choose another --output") from error


def picture_name(name: str, sha256: str, kind: str) -> str:
    """Return the name of a file for a picture: as it came, and a part of its hash, so that it is unique."""
    return f"{short_stem(name)}-{sha256[:12]}.{kind}"


def file_name(entry: Entry) -> str:
    """Return the name of a picture in an export; see `picture_name`.

    One that calibrates begins with its part, as `PART_PATTERN` finds it: folders have no column for that, and
    photographs of one part count once.
    """
    name = picture_name(entry.name, entry.picture, entry.kind)
    if entry.role != "calibration":
        return name
    return f"part-{hashlib.sha256(entry.group.encode()).hexdigest()[:12]}_{name}"


def kind_of(entry: Entry) -> str:
    """Return the name of the folder or class of a picture: good, or the kind of its defect."""
    if entry.known.label == "good":
        return "good"
    kind = short_stem(entry.known.defect or UNKNOWN_KIND)
    return UNKNOWN_KIND if kind.strip(" .") in ("", "good") else kind  # a bad part is never among the good ones


def _write_table(entries: Sequence[Entry], store: LibraryStore, output: Path) -> Counter[str]:
    samples = []
    for entry in entries:
        calibrates = entry.role == "calibration"
        folder = output / "calibration" / entry.known.label if calibrates else output / "pictures"
        image = _copy(store.picture(entry.picture, entry.kind), folder / file_name(entry))
        if calibrates:
            continue
        mask = (
            None
            if entry.known.mask is None
            else _copy(store.mask(entry.known.mask), output / "masks" / f"{image.stem}.png")
        )
        samples.append(
            Sample(
                image=image,
                label=GOOD if entry.known.label == "good" else BAD,
                split="test" if entry.role == "golden" else "train",
                defect=kind_of(entry),
                mask=mask,
                pixel_labels_known=entry.known.label == "good" or mask is not None,
                group=entry.group,
            )
        )
    write_table(samples, output / TABLE_FILE)
    return Counter()


def _write_mvtec(entries: Sequence[Entry], store: LibraryStore, output: Path) -> Counter[str]:
    left_out: Counter[str] = Counter()
    for entry in entries:
        if entry.role == "golden" and entry.known.label == "bad" and entry.known.mask is None:
            left_out["a bad test picture without a mask"] += 1  # readers of this layout want one for each
            continue
        split = {"train": "train", "golden": "test", "calibration": "calibration"}[entry.role]
        name, kind = file_name(entry), kind_of(entry)
        _copy(store.picture(entry.picture, entry.kind), output / split / kind / name)
        if entry.known.mask is not None:
            stem = Path(name).stem
            folder = output / "ground_truth" / (kind if split == "test" else f"{split}/{kind}")
            _copy(store.mask(entry.known.mask), folder / f"{stem}_mask.png")
    return left_out


def _write_coco(entries: Sequence[Entry], store: LibraryStore, output: Path) -> Counter[str]:
    kinds = sorted({kind_of(entry) for entry in entries if entry.known.label == "bad"})
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, entry in enumerate(entries, start=1):
        path = _copy(store.picture(entry.picture, entry.kind), output / "images" / file_name(entry))
        height, width = image_size(path)
        own = {"label": entry.known.label, "part": entry.group, "role": entry.role}
        images.append({"id": number, "file_name": path.name, "height": height, "width": width, **own})
        if entry.known.label == "bad":
            of_image = _coco_regions(entry, store, (height, width))
            for region in of_image:
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": number, "category_id": 1 + kinds.index(kind_of(entry))}
                    | region
                )
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": kind} for number, kind in enumerate(kinds, start=1)],
    }
    write_text(output / COCO_FILE, json.dumps(content, indent=1))
    return Counter()


def _coco_regions(entry: Entry, store: LibraryStore, size_px: tuple[int, int]) -> list[dict[str, Any]]:
    """Return a region for each part of the mask that hangs together; without a mask, a box of the whole picture."""
    height, width = size_px
    if entry.known.mask is None:
        return [{"bbox": [0, 0, width, height], "area": height * width, "iscrowd": 0}]
    mask = read_mask(store.mask(entry.known.mask), image_size_px=size_px)
    labelled, regions = ndimage.label(mask, structure=np.ones((3, 3), dtype=bool))
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labelled), start=1):
        region = labelled == number
        found.append(
            {
                "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
                "area": int(region.sum()),
                "iscrowd": 1,  # a run-length code
                "segmentation": {"size": [height, width], "counts": _runs(region)},
            }
        )
    assert len(found) == regions
    return found


def _runs(region: NDArray[np.bool_]) -> list[int]:
    """Return the lengths of runs of background and region in turn, column by column."""
    values = np.concatenate([[False], region.ravel(order="F")])
    ends = np.append(np.flatnonzero(np.diff(values)), values.size - 1)
    return [int(length) for length in np.diff(ends, prepend=0)]


def _write_label_studio(entries: Sequence[Entry], store: LibraryStore, output: Path) -> Counter[str]:
    tasks = []
    for entry in entries:
        path = _copy(store.picture(entry.picture, entry.kind), output / "images" / file_name(entry))
        height, width = image_size(path)
        place = {"to_name": "image", "original_width": width, "original_height": height, "image_rotation": 0}
        found: list[dict[str, Any]] = [
            {"type": "choices", "from_name": "label", "value": {"choices": [entry.known.label]}, "to_name": "image"}
        ]
        if entry.known.defect is not None:
            found.append(
                {"type": "textarea", "from_name": "defect", "value": {"text": [entry.known.defect]}, "to_name": "image"}
            )
        if entry.known.mask is not None:
            mask = read_mask(store.mask(entry.known.mask), image_size_px=(height, width))
            brush = {"format": "rle", "rle": encode_brush(mask), "brushlabels": ["defect"]}
            found.append({"type": "brushlabels", "from_name": "mask", "value": brush, **place})
        data = {"image": f"images/{path.name}", "sha256": entry.picture, "part": entry.group, "role": entry.role}
        tasks.append({"data": data, "annotations": [{"result": found}]})
    write_text(output / TASKS_FILE, json.dumps(tasks))
    write_text(output / LABELS_FILE, LABELS)
    return Counter()


LABELS = """<View>
  <Image name="image" value="$image" zoom="true"/>
  <Choices name="label" toName="image" required="true">
    <Choice value="good"/>
    <Choice value="bad"/>
    <Choice value="unusable"/>
  </Choices>
  <TextArea name="defect" toName="image" placeholder="kind of the defect" maxSubmissions="1"/>
  <BrushLabels name="mask" toName="image">
    <Label value="defect" background="#d62728"/>
  </BrushLabels>
</View>
"""
_WRITERS: dict[ExportFormat, Callable[[Sequence[Entry], LibraryStore, Path], Counter[str]]] = {
    "table": _write_table,
    "mvtec": _write_mvtec,
    "coco": _write_coco,
    "label-studio": _write_label_studio,
}


def _copy(source: Path, target: Path) -> Path:
    """Copy a file of the library. No link: whoever edits an exported mask would change the library's."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not source.is_file():
        raise DataError(f"{source}: is missing from the library; restore it from a backup")
    shutil.copyfile(source, target)
    return target
