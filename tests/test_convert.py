"""Annotations of four tools become the same table and the same masks; what cannot be used is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from supersimplenet.cli.main import main
from supersimplenet.datasets.annotations import read_annotations
from supersimplenet.datasets.convert import convert
from supersimplenet.datasets.table import Table
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.preprocessing.images import read_mask
from supersimplenet.types import BAD

SIZE = (40, 60)  # height, width
BOX = (12, 8, 31, 19)  # left, top, right, bottom, the last column and row inside


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Six images: 0 to 3 have no defect, 4 has a rectangle, 5 has one too, and a box of which no pixels are known."""
    folder = tmp_path / "images"
    (folder / "line 2").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(6):
        name = f"line 2/{number}.png" if number == 5 else f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (*SIZE, 3), dtype=np.uint8)).save(folder / name)
    return folder


def rectangle() -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[BOX[1] : BOX[3] + 1, BOX[0] : BOX[2] + 1] = True
    return mask


def corners() -> list[tuple[int, int]]:
    left, top, right, bottom = BOX
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def runs() -> list[int]:
    flat = rectangle().T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    return np.diff([0, *ends, flat.size]).tolist()


def packed(lengths: list[int]) -> str:
    """COCO's compressed code, written from its definition in the C API: differences from the run before the last."""
    text = ""
    for place, length in enumerate(lengths):
        value = length - lengths[place - 2] if place > 2 else length
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != -1 if bits & 16 else value != 0
            text += chr((bits | 32 if more else bits) + 48)
    return text


def coco(folder: Path, outline: object) -> Path:
    names = ["0.png", "1.png", "2.png", "4.png", "line 2/5.png", "gone.png"]
    content = {
        "images": [{"id": i, "file_name": name, "height": 40, "width": 60} for i, name in enumerate(names)],
        "categories": [{"id": 7, "name": "scratch"}, {"id": 9, "name": "dent"}],
        "annotations": [
            {"image_id": 3, "category_id": 7, "segmentation": outline},
            {"image_id": 4, "category_id": 7, "segmentation": outline},
            {"image_id": 4, "category_id": 7, "segmentation": [], "bbox": [1, 1, 5, 5]},
            {"image_id": 5, "category_id": 9, "segmentation": outline},
        ],
    }
    path = folder / "coco.json"
    path.write_text(json.dumps(content))
    return path


def flat() -> list[int]:
    return [value for corner in corners() for value in corner]


def labelme(folder: Path) -> Path:
    shapes = [{"label": "scratch", "shape_type": "polygon", "points": corners()}]
    box = {"label": "scratch", "shape_type": "rectangle", "points": [[1, 1], [6, 6]]}
    for name, of_image in (("0", []), ("4", shapes), ("line 2/5", [*shapes, box]), ("gone", shapes)):
        path = folder / "labelme" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"shapes": of_image, "imageHeight": 40, "imageWidth": 60}))
    return folder / "labelme"


def yolo(folder: Path) -> Path:
    outline = "1 " + " ".join(f"{x / 60:.9f} {y / 40:.9f}" for x, y in corners())
    for name, lines in (("4", [outline]), ("5", [outline, "1 0.5 0.5 0.1 0.1", ""]), ("gone", [outline])):
        path = folder / "yolo" / "labels" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines))
    (folder / "yolo" / "data.yaml").write_text("names: {0: dent, 1: scratch}\n")
    return folder / "yolo" / "labels"


@pytest.mark.parametrize("form", ["coco polygons", "coco runs", "coco packed", "labelme", "yolo"])
def test_each_format_gives_the_same_table_and_masks(images, tmp_path, form):
    if form.startswith("coco"):
        counts = runs() if form == "coco runs" else packed(runs())
        path = coco(tmp_path, [flat()] if form == "coco polygons" else {"size": list(SIZE), "counts": counts})
    else:
        path = {"labelme": labelme, "yolo": yolo}[form](tmp_path)
    converted = convert(images, path, form.split()[0], tmp_path / "out", test_fraction=0.4)
    samples = {s.image.relative_to(images).as_posix(): s for s in Table(path=converted.table).samples()}
    assert samples == {s.image.relative_to(images).as_posix(): s for s in converted.samples}
    assert {name for name, s in samples.items() if s.label == BAD} == {"4.png", "line 2/5.png"}
    assert {s.defect for s in samples.values()} == {"good", "scratch"}
    whole, with_box = samples["4.png"], samples["line 2/5.png"]
    np.testing.assert_array_equal(read_mask(whole.mask, image_size_px=SIZE), rectangle())
    assert (with_box.mask, with_box.pixel_labels_known) == (None, False)
    assert [image.name for image in converted.left_out] == (["3.png"] if form.startswith("coco") else [])
    assert len(converted.unknown) == 1
    assert "gone" in converted.unknown[0]


def test_voc_boxes_tell_that_an_image_is_bad(images, tmp_path, capsys):
    folder = tmp_path / "voc"
    folder.mkdir()
    (folder / "4.xml").write_text(
        "<annotation><filename>4.png</filename><object><name>scratch</name><part><name>hand</name></part><bndbox>"
        "<xmin>3</xmin></bndbox></object><object><name>dent</name></object><object><name>dent</name></object>"
        "</annotation>"
    )
    command = ["data", "convert", "--images", str(images), "--annotations", str(folder), "--format", "voc"]
    assert main([*command, "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "5 good images, 1 bad image, 0 with a mask: 1 dent" in printed
    assert "1 bad image with a box, line or point and so without a mask" in printed
    assert main([*command, "--output", str(tmp_path / "out"), "--classes", "scratch"]) == 0
    assert "1 scratch" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"classes: crack not among the annotations; they have dent, scratch"):
        convert(images, folder, "voc", tmp_path / "out", classes=["crack"])


def test_entities_and_other_attacks_are_refused(images, tmp_path):
    folder = tmp_path / "voc"
    folder.mkdir()
    for encoding in ("utf-8", "utf-16"):
        bomb = '<!DOCTYPE a [<!ENTITY b "lol">]><annotation><object><name>&b;</name></object></annotation>'
        (folder / "4.xml").write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{bomb}'.encode(encoding))
        with pytest.raises(DataError, match=r"4\.xml: it declares a document type"):
            convert(images, folder, "voc", tmp_path / "out")
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"deep\.json: no valid JSON"):
        convert(images, path, "coco", tmp_path / "out")


@pytest.mark.parametrize(
    ("outline", "message"),
    [
        ([[1, 1, 5, 5]], "4.png: a polygon of 2 corners"),
        ([[1, 1, 5, 5, 9]], "zip"),
        ([[1, 1, 5, 5, 1e30, 4]], "4.png: a corner at 1e"),
        ([["a", 1, 5, 5, 9, 9]], "could not convert"),
        ({"size": [40, 60], "counts": [5]}, "4.png: a run-length code of 5 pixels for 2,400"),
        ({"size": [40, 60], "counts": "zz{"}, "wrong character"),
        ({"size": [41, 60], "counts": [5]}, "4.png: annotated at 60 x 41 px, the image is 60 x 40"),
        ({"counts": [5]}, "no entry 'size'"),
    ],
)
def test_an_outline_that_is_none_is_named(images, tmp_path, outline, message):
    path = coco(tmp_path, outline)
    with pytest.raises(DataError, match=r"coco\.json: .*") as caught:
        read_annotations(path, "coco", sorted(images.rglob("*.png")), images)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "export it again" in str(caught.value)
