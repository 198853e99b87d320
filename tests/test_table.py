"""Tables of images: columns, cells, and what cannot be."""

from collections import Counter
from pathlib import Path

import pyarrow
import pytest
from layouts import touch
from pyarrow import parquet

from supersimplenet.datasets.table import Table
from supersimplenet.errors import DataError
from supersimplenet.types import BAD, GOOD, Sample

HEADER = "image,split,label,defect,mask,group,pixel_labels_known\n"


def table(root: Path, text: str, name: str = "samples.csv") -> Path:
    path = root / name
    path.write_text(text)
    return path


@pytest.fixture
def files(tmp_path):
    return touch(tmp_path, "a.png", "b.png", "c.png", "m.png")


def test_table_csv(files):
    text = HEADER + "b.png,test,bad,scratch,m.png,010,\nc.png,test,1,,,,\na.png,train,0,,,009,true\n"
    assert Table(path=table(files, text)).samples() == [
        Sample(image=files / "a.png", label=GOOD, split="train", group="009"),
        Sample(image=files / "b.png", label=BAD, split="test", defect="scratch", mask=files / "m.png", group="010"),
        Sample(image=files / "c.png", label=BAD, split="test", defect="bad", pixel_labels_known=False),
    ]


def test_table_required_columns_suffice_in_any_order(files):
    samples = Table(path=table(files, "label,image,split\ngood,a.png,train\n")).samples()
    assert samples == [Sample(image=files / "a.png", label=GOOD, split="train")]


def test_table_text_stays_text(files):
    text = HEADER + "a.png,train,0,,,009,\nb.png,test,1,007,m.png,1e3,\nc.png,test,1,NA,,null,\n"
    samples = Table(path=table(files, text)).samples()
    assert [(s.defect, s.group) for s in samples] == [("good", "009"), ("007", "1e3"), ("NA", "null")]


def test_table_a_mask_can_be_left_unused(files):
    text = HEADER + "a.png,train,0,,,,\nb.png,test,1,,m.png,,false\n"
    sample = Table(path=table(files, text)).samples()[1]
    assert sample.mask == files / "m.png"
    assert not sample.pixel_labels_known


def test_table_second_masks_and_how_a_mask_is_read(files):
    text = "image,split,label,mask,ignore,mask_any_value\na.png,train,0,,c.png,\nb.png,test,1,m.png,c.png,true\n"
    assert Table(path=table(files, text)).samples() == [
        Sample(image=files / "a.png", label=GOOD, split="train", ignore=files / "c.png"),
        Sample(image=files / "b.png", label=BAD, split="test", defect="bad", mask=files / "m.png",
               mask_any_value=True, ignore=files / "c.png"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("b.png,test,0,,gone.png,", r"row 3: ignore: .*gone\.png: no such file"),
        ("b.png,test,1,m.png,,perhaps", "row 3: mask_any_value: 'perhaps'; wanted true, false, yes, no, 1 or 0"),
        ("b.png,test,1,,,1", "row 3: mask_any_value: true without a mask; give the mask, or leave it empty"),
    ],
)
def test_table_second_masks_that_cannot_be(files, row, message):
    path = table(files, "image,split,label,mask,ignore,mask_any_value\na.png,train,0,,,\n" + row + "\n")
    with pytest.raises(DataError, match=rf"^{path}, {message}"):
        Table(path=path).samples()


def test_table_parquet_gives_what_csv_gives(files):
    columns = {
        "image": ["a.png", "b.png"],
        "split": ["train", "test"],
        "label": [0, 1],
        "mask": [None, "m.png"],
        "group": pyarrow.array(["009", "010"]).dictionary_encode(),
        "pixel_labels_known": [None, True],
    }
    parquet.write_table(pyarrow.table(columns), files / "s.parquet")
    text = "image,split,label,mask,group,pixel_labels_known\na.png,train,0,,009,\nb.png,test,1,m.png,010,True\n"
    from_parquet = Table(path=files / "s.parquet").samples()
    assert from_parquet == Table(path=table(files, text)).samples()
    assert from_parquet[0].group == "009"


def test_table_root(files, tmp_path_factory):
    path = table(tmp_path_factory.mktemp("lists"), f"image,split,label\na.png,train,0\n{files / 'b.png'},test,0\n")
    assert [s.image for s in Table(path=path, root=files).samples()] == [files / "a.png", files / "b.png"]
    with pytest.raises(
        DataError, match=rf"row 2: image: {path.parent}/a\.png: no such file; correct the path, or root"
    ):
        Table(path=path).samples()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("gone.png,test,0,,,,", r"row 3: image: .*gone\.png: no such file; correct the path, or root \("),
        (",test,0,,,,", "row 3: image: empty; wanted a path"),
        ("b.png,,0,,,,", "row 3: split: ''; wanted train or test"),
        ("b.png, test,0,,,,", "row 3: split: ' test'; wanted train or test"),
        ("b.png,test,,,,,", "row 3: label: ''; wanted 0, 1, good or bad"),
        ("b.png,test,2,,,,", "row 3: label: '2'; wanted 0, 1, good or bad"),
        ("b.png,test,0,scratch,,,", "row 3: defect: 'scratch' with label 0; correct one of them"),
        ("b.png,test,bad,good,,,", "row 3: defect: 'good' with label bad; correct one of them"),
        ("b.png,test,0,,m.png,,", "row 3: mask: given for a good image; leave it empty, or label the image bad"),
        ("b.png,test,1,,gone.png,,", r"row 3: mask: .*gone\.png: no such file"),
        ("b.png,test,1,,m.png,,maybe", "row 3: pixel_labels_known: 'maybe'; wanted true, false, yes, no, 1 or 0"),
        ("b.png,test,0,,,,0", "row 3: pixel_labels_known: false for a good image"),
        ("b.png,test,1,,,,1", "row 3: pixel_labels_known: true for a bad image without a mask"),
        ("./a.png,train,0,,,,", r"row 3: image \./a\.png is in row 2 too; keep one"),
        (
            "b.png,test,0,,,009,",
            "groups that stand in train and in test: 009; put all images of one part into one split",
        ),
        ("b.png,test", "not a readable CSV table"),
    ],
)
def test_table_rows_that_cannot_be(files, row, message):
    path = table(files, HEADER + "a.png,train,0,,,009,\n" + row + "\n")
    with pytest.raises(DataError, match=rf"^{path}[,:] .*{message}"):
        Table(path=path).samples()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a readable CSV table"),
        ("image,split\na.png,train\n", "no column label; found image, split"),
        (
            "image,split,label,lable,x\na.png,train,0,0,0\n",
            "unknown columns lable, x; known are image, split, label, def",
        ),
        ("image|split|label\na.png|train|0\n", r"unknown columns image\|split\|label; known are"),
        (
            "image,image,split,label\na.png,b.png,train,0\n",
            "a column stands twice: image, image, split, label; keep one",
        ),
        ("image,split,label\n", "no row; wanted a row for each image"),
    ],
)
def test_tables_that_cannot_be(files, text, message):
    path = table(files, text)
    with pytest.raises(DataError, match=rf"^{path}: {message}"):
        Table(path=path).samples()


def test_table_missing_or_not_parquet(files):
    with pytest.raises(DataError, match=r"gone\.csv: no such file; check the path of the table"):
        Table(path=files / "gone.csv").samples()
    with pytest.raises(DataError, match=r"x\.parquet: not a readable Parquet table"):
        Table(path=table(files, "image,split,label\n", "x.parquet")).samples()


def test_table_parquet_counts_rows_from_one(files):
    parquet.write_table(pyarrow.table({"image": ["a.png"], "split": ["train"], "label": [2]}), files / "s.parquet")
    with pytest.raises(DataError, match=r"s\.parquet, row 1: label: '2'"):
        Table(path=files / "s.parquet").samples()


def test_magnetic_tile(shared_dir):
    samples = Table(path=shared_dir / "magnetic_tile" / "samples.csv").samples()
    counts = Counter((sample.split, sample.label) for sample in samples)
    assert counts == {("train", GOOD): 330, ("train", BAD): 133, ("test", GOOD): 192, ("test", BAD): 103}
    groups = {split: {s.group for s in samples if s.split == split} for split in ("train", "test")}
    assert not groups["train"] & groups["test"]
    assert "009" in groups["test"]  # and not 9
    assert all(s.pixel_labels_known and (s.mask is not None) == (s.label == BAD) for s in samples)
    assert {s.defect for s in samples} == {"good", "blowhole", "break", "crack", "fray", "uneven"}


def test_a_leak_between_the_splits_of_real_data_is_found(shared_dir, tmp_path):
    text = (shared_dir / "magnetic_tile" / "samples.csv").read_text().splitlines()
    leaky = [line.replace(",test,", ",train,") if i % 5 == 0 else line for i, line in enumerate(text)]
    path = table(tmp_path, "\n".join(leaky) + "\n")
    with pytest.raises(
        DataError, match=r"groups that stand in train and in test: .* and \d+ more; put all images of one part"
    ):
        Table(path=path, root=shared_dir / "magnetic_tile").samples()
