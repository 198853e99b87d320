"""Datasets out of the library and into it: tables, MVTec AD's layout, COCO and Label Studio, pixel for pixel."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from station_records import result

from supersimplenet.datasets.convert import convert
from supersimplenet.datasets.discover import discover
from supersimplenet.datasets.masks import read_defects
from supersimplenet.datasets.mvtec import read_layout
from supersimplenet.datasets.table import Table
from supersimplenet.errors import DataError, OutputError
from supersimplenet.station.library.brush import decode_brush, encode_brush
from supersimplenet.station.library.exports import export, file_name, kind_of
from supersimplenet.station.library.imports import import_samples
from supersimplenet.station.library.label_studio import import_answers, read_tasks
from supersimplenet.station.library.store import LibraryStore
from supersimplenet.station.library.versions import Entry, Known, entries, version
from supersimplenet.station.review.answers import asked_about
from supersimplenet.station.storage.database import open_database
from supersimplenet.station.storage.recorder import insert_results
from supersimplenet.station.storage.results import find
from supersimplenet.types import BAD

SIZE = (12, 16)


def mask_of(seed: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    generator = np.random.default_rng(seed)
    for _ in range(2):
        top, left = generator.integers(0, 8, 2)
        mask[top : top + 3, left : left + 4] = True
    return mask


@pytest.fixture
def engine(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'station.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def store(tmp_path) -> LibraryStore:
    return LibraryStore(tmp_path)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of 20 good parts and 12 bad ones with a mask each, 3 bad ones without."""
    root = tmp_path / "parts"
    for number in range(35):
        kind = "good" if number < 20 else "crack" if number < 32 else "stain"
        (root / kind).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / kind / f"{number:03}.png")
        if kind == "crack":
            (root / "masks" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask_of(number)).save(root / "masks" / kind / f"{number:03}.png")
    lines = ["image,split,label,defect,mask"]
    for path in sorted(root.glob("[!m]*/*.png")):
        kind, mask = path.parent.name, root / "masks" / path.parent.name / path.name
        own = mask.relative_to(root) if mask.is_file() else ""
        lines.append(f"{path.relative_to(root)},train,{int(kind != 'good')},{kind},{own}")
    (root / "samples.csv").write_text("\n".join(lines))
    return root


@pytest.fixture
def held(engine, store, folder):
    """The entries of the dataset that the folder became."""
    found = import_samples(engine, store, Table(path=folder / "samples.csv"), dataset="parts", who="anna")
    assert (found.taken, found.left_out, found.version.number) == (35, {}, 1)
    with engine.connect() as connection:
        return entries(connection, version(connection, "parts"))


def test_each_kind_is_found_in_every_role_and_again_is_no_change(engine, store, folder, held):
    roles = Counter((entry.known.defect or "good", entry.role) for entry in held)
    assert [roles["good", role] for role in ("train", "calibration", "golden")] == [14, 4, 2]
    assert sum(roles["crack", role] for role in ("train", "calibration", "golden")) == 12
    assert roles["crack", "train"] >= 7
    again = import_samples(engine, store, Table(path=folder / "samples.csv"), dataset="parts", who="anna")
    assert again.version is None


def test_a_table_that_was_exported_is_read_with_its_masks_and_parts(store, held, tmp_path):
    found = export(held, store, "table", tmp_path / "out")
    assert (found.files, found.left_out) == (35, {})
    samples = {sample.image.name: sample for sample in Table(path=tmp_path / "out" / "samples.csv").samples()}
    wanted = {file_name(entry): entry for entry in held if entry.role != "calibration"}
    assert samples.keys() == wanted.keys()
    for name, entry in wanted.items():
        sample = samples[name]
        assert (sample.split == "test") == (entry.role == "golden")
        assert (sample.label == BAD) == (entry.known.label == "bad")
        assert sample.group == entry.group
        assert hashlib.sha256(sample.image.read_bytes()).hexdigest() == entry.picture
        if entry.known.defect == "crack":
            assert np.array_equal(read_defects(sample), mask_of(int(entry.name[:3])))
        if entry.known.defect == "stain":
            assert not sample.pixel_labels_known
    calibrating = {path.name for path in (tmp_path / "out" / "calibration").rglob("*.png")}
    assert calibrating == {file_name(entry) for entry in held if entry.role == "calibration"}
    with pytest.raises(OutputError, match=r"out: is not empty; name a new folder"):
        export(held, store, "table", tmp_path / "out")


def test_the_layout_of_mvtec_is_read_and_says_what_it_has_no_place_for(engine, store, held, tmp_path):
    found = export(held, store, "mvtec", tmp_path / "out")
    unmarked = sum(entry.role == "golden" and entry.known.defect == "stain" for entry in held)
    assert found.left_out == ({"a bad test picture without a mask": unmarked} if unmarked else {})
    samples = read_layout(tmp_path / "out", advice="")
    assert len(samples) == sum(entry.role != "calibration" for entry in held) - unmarked
    marked = [sample for sample in samples if sample.defect == "crack"]
    assert marked
    for sample in marked:
        assert np.array_equal(read_defects(sample), mask_of(int(sample.image.name[:3])))


def test_coco_that_was_exported_is_converted_back_pixel_for_pixel(store, held, tmp_path):
    export(held, store, "coco", tmp_path / "out")
    back = convert(tmp_path / "out" / "images", tmp_path / "out" / "coco.json", "coco", tmp_path / "back")
    assert len(back.samples) == 35
    for sample in back.samples:
        number = int(sample.image.name.split("_")[-1][:3])  # one that calibrates begins with its part
        assert sample.defect == ("good" if number < 20 else "crack" if number < 32 else "stain")
        if sample.defect == "crack":
            assert np.array_equal(read_defects(sample), mask_of(number))
        if sample.defect == "stain":
            assert sample.mask is None  # a box of the whole picture: a weak label


def test_a_picture_on_both_sides_of_a_split_is_golden_alone(engine, store, folder):
    lines = (folder / "samples.csv").read_text().splitlines()
    lines[0] += ",group"
    lines[1:] = [f"{line},part {number}" for number, line in enumerate(lines[1:])]
    lines[3] = lines[3].replace(",train,", ",test,")
    (folder / "good" / "copy.png").write_bytes((folder / lines[3].split(",")[0]).read_bytes())
    (folder / "samples.csv").write_text("\n".join([*lines, "good/copy.png,train,0,good,,part 99"]))
    found = import_samples(engine, store, Table(path=folder / "samples.csv"), dataset="parts", who="anna")
    assert (found.taken, found.left_out) == (35, {})  # the copy is the same picture
    with engine.connect() as connection:
        roles = Counter(entry.role for entry in entries(connection, version(connection, "parts")))
    assert roles["golden"] == 1
    assert roles["calibration"] > 0


def test_a_dataset_of_published_layout_is_imported(engine, store, folder, held, tmp_path):
    export(held, store, "mvtec", tmp_path / "out")
    other = open_database(f"sqlite:///{tmp_path / 'other.db'}")
    source = discover(tmp_path / "out").source
    found = import_samples(other, LibraryStore(tmp_path / "other"), source, dataset="again", who="ben")
    assert found.left_out == {}
    assert found.taken == len(source.samples())
    other.dispose()


@pytest.mark.parametrize("size_px", [(1, 1), (3, 5), (40, 60), (130, 200)])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_a_brush_of_label_studio_comes_back_pixel_for_pixel(size_px, share):
    mask = np.random.default_rng(3).random(size_px) < share
    code = encode_brush(mask)
    assert all(0 <= byte <= 255 for byte in code)
    assert np.array_equal(decode_brush(code, size_px), mask)


def test_a_brush_that_label_studio_wrote_is_read():
    """Runs of single values, and lengths of other sizes than ours, packed by hand."""
    # 8 values (2 pixels), 8 bits each, lengths of 1, 2, 3, 4 bits; a run of 4 zeros, then 4 values one by one
    bits = f"{8:032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (1, 2, 3, 4))
    bits += "1" + "01" + f"{3:02b}" + f"{0:08b}"
    bits += "0" + "10" + f"{3:03b}" + "".join(f"{value:08b}" for value in (10, 20, 30, 255))
    bits += "0" * (-len(bits) % 8)
    code = [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]
    assert decode_brush(code, (1, 2)).tolist() == [[False, True]]
    with pytest.raises(DataError, match="rle: of 2 pixels, the picture has 2 x 2"):
        decode_brush(code, (2, 2))
    with pytest.raises(DataError, match="rle: it ends after 4 of 8 values"):
        decode_brush(code[:-2], (1, 2))
    with pytest.raises(DataError, match="too short for a brush"):
        decode_brush([1, 2], (1, 2))
    with pytest.raises(DataError, match="whole numbers from 0 to 255"):
        decode_brush(["a"], (1, 2))


def test_answers_from_label_studio_are_those_of_a_person(engine, store, held, tmp_path):
    export(held, store, "label-studio", tmp_path / "out")
    tasks = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert len(tasks) == 35
    bad = next(task for task in tasks if "crack" in json.dumps(task["annotations"]))
    good = next(task for task in tasks if '"good"' in json.dumps(task["annotations"]))
    rows = []
    for task in (bad, good):
        row = result(picture=task["data"]["sha256"])
        rows.append(row | {"row": row["row"] | {"height": SIZE[0], "width": SIZE[1]}})
    insert_results(engine, rows)
    skipped = {"data": bad["data"], "annotations": [{"was_cancelled": True, "result": []}]}
    (tmp_path / "answers.json").write_text(json.dumps([bad, good, tasks[-1], skipped]))
    found = import_answers(engine, store, tmp_path / "answers.json", who="anna")
    assert (found.answers, found.unknown, found.unlabelled) == (2, 1, 1)
    bad["data"]["reason"] = "random"
    (tmp_path / "asked.json").write_text(json.dumps([bad]))
    import_answers(engine, store, tmp_path / "asked.json", who="anna")
    assert asked_about(engine, [row["id"] for row in rows], reason="random") == {rows[0]["id"]}
    first, second = (find(engine, row["id"]) for row in rows)
    assert (first["review"], first["reviewed_by"], first["review_defect"]) == ("bad", "anna", "crack")
    name = Path(bad["data"]["image"]).name
    kept = np.asarray(Image.open(io.BytesIO(store.mask(first["review_mask"]).read_bytes())))
    assert np.array_equal(kept == 255, mask_of(int(name.split("_")[-1][:3])))
    assert (second["review"], second["review_mask"]) == ("good", None)
    for broken, wanted in (
        ('{"a": 1}', "wanted a list of tasks"),
        ('[{"annotations": [{"result": [{"type": "choices"}]}]}]', "task 1: KeyError: 'value'"),
        (json.dumps([{**bad, "annotations": [{"result": [{"type": "choices", "value": {"choices": ["x"]}}]}]}]), "'x'"),
    ):
        (tmp_path / "broken.json").write_text(broken)
        with pytest.raises(DataError, match=wanted):
            read_tasks(tmp_path / "broken.json")


@pytest.mark.parametrize(
    ("defect", "kind"), [("good", "bad"), ("..", "bad"), ("", "bad"), (None, "bad"), ("dent", "dent")]
)
def test_a_bad_part_is_never_in_a_folder_of_good_ones_or_outside(defect, kind):
    known = Known(label="bad", defect=defect)
    entry = Entry(picture="a" * 64, kind="png", name="a.png", group="g", role="train", known=known)
    assert kind_of(entry) == kind
