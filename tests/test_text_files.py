"""Lists and tables as other systems write them: read, or refused with what to do."""

from __future__ import annotations

import io
import json
import os
import random
from pathlib import Path

import hostile_archives as hostile
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import touch

from supersimplenet.datasets.supervision import supervise
from supersimplenet.datasets.table import Table
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.prediction.inputs import find_inputs
from supersimplenet.preprocessing.preprocessor import read_roi
from supersimplenet.types import BAD, GOOD, Sample
from supersimplenet.utils.text_files import (
    arriving_lines,
    existing_path,
    read_lines,
    read_text,
    separator_of,
    yes_or_no,
)

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom"]


def encoded(text: str, encoding: str) -> bytes:
    if encoding.endswith("-bom"):
        return ("\ufeff" + text).encode(encoding.removesuffix("-bom"))
    return text.encode(encoding)


def lines_of(*blocks: bytes) -> list[str | None]:
    return list(arriving_lines(blocks, name="list"))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_in_any_blocks(tmp_path, encoding, end):
    names = ["a b.png", "Prüfung\u4e00/1.png", "'x'.png", "\U0001f600.png"]
    content = encoded(end + end.join(names) + end + end, encoding)
    for size in (1, 2, 3, 7, 1000):
        blocks = [content[first : first + size] for first in range(0, len(content), size)]
        assert [line for line in lines_of(*blocks) if line] == names
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    assert list(read_lines(path)) == names
    assert read_text(path).split() == "\n".join(names).split()


def test_a_short_line_is_given_before_more_is_waited_for():
    lines = arriving_lines(iter([b"a\n", b"b", b"\n"]), name="list")
    assert next(lines) == "a"
    assert next(lines) is None
    assert list(lines) == [None, "b", None]


def test_bytes_that_are_no_text_stay_names():
    assert lines_of(b"\xff.png\n\xef\xbb") == [os.fsdecode(b"\xff.png"), None, os.fsdecode(b"\xef\xbb")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.png\n".encode("utf-16-le"), "list, line 1: a NUL character; wanted UTF-8 text with one name a line"),
        (b"a.png\nb.png\0c.png", "list, line 2: a NUL character"),
        (b"\xff\xfea\0.", "list: not whole UTF-16-LE text"),
        (b"a" * 100_000, "list, line 1: longer than 65,536 characters"),
    ],
)
def test_lines_that_are_no_names_are_refused(content, message):
    with pytest.raises(DataError, match=message):
        lines_of(content)
    with pytest.raises(DataError, match=message):
        lines_of(*(content[first : first + 99] for first in range(0, len(content), 99)))


def test_a_stream_without_a_line_end_is_not_collected():
    blocks = iter(lambda: b"x" * 1000, b"")
    with pytest.raises(DataError, match="longer than"):
        list(arriving_lines(blocks, name="standard input"))


def test_a_path_is_found_as_it_is_written_or_as_windows_writes_it(tmp_path):
    touch(tmp_path, "sub/a b.png", "sub\\c.png", '"q".png', " d.png", "sub/c.png")
    found = {
        "sub/a b.png": "sub/a b.png",
        "sub\\a b.png": "sub/a b.png",
        '"sub\\a b.png"': "sub/a b.png",
        ' "sub/a b.png" ': "sub/a b.png",
        "sub\\c.png": "sub\\c.png",  # a name of its own here
        '"q".png': '"q".png',
        " d.png": " d.png",
        "sub\\gone.png": "sub\\gone.png",
        "sub/../sub/c.png": "sub/../sub/c.png",
    }
    for text, name in found.items():
        assert existing_path(text, tmp_path) == tmp_path / name
    assert existing_path(str(tmp_path / "sub") + "\\c.png") == Path(str(tmp_path / "sub") + "\\c.png")
    (tmp_path / "caf\u00e9.png").touch()
    assert existing_path("caf\u00e9.png", tmp_path) == tmp_path / "caf\u00e9.png"
    ansi = os.fsdecode("caf\u00e9.png".encode("cp1252"))
    with pytest.raises(DataError, match=r"'caf\\xe9\.png' is not UTF-8 text, .*; save the list as UTF-8"):
        existing_path(ansi, tmp_path)
    (tmp_path / ansi).touch()
    assert existing_path(ansi, tmp_path) == tmp_path / ansi


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_list_from_windows_gives_its_images(tmp_path, monkeypatch, encoding):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "Teile/1.png", "Teile/2 \u00fc.png", "more/3.png")
    listed = tmp_path / "list.txt"
    listed.write_bytes(encoded('Teile\\1.png\r\n"Teile\\2 \u00fc.png"\r\n\r\nmore\r\n', encoding))
    wanted = [Path("Teile/1.png"), Path("Teile/2 \u00fc.png"), Path("more/3.png")]
    assert list(find_inputs([], list_file=listed)) == wanted
    with listed.open("rb") as stdin:
        assert [image for image in find_inputs(["-"], stdin=stdin) if image is not None] == wanted


def test_a_list_that_is_no_regular_file_or_no_text_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="list: no such file"):
        find_inputs([], list_file=tmp_path / "pipe")
    with pytest.raises(DataError, match=r"pipe: cannot be read \(a named pipe, not a regular file\)"):
        list(read_lines(tmp_path / "pipe"))
    listed = tmp_path / "list.txt"
    listed.write_bytes("Pr\u00fcf.png\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"'Pr\\xfcf\.png' is not UTF-8 text"):
        list(find_inputs([], list_file=listed))


@pytest.mark.parametrize("seed", range(12))
def test_a_table_from_any_program_gives_the_same_samples(tmp_path, seed):
    touch(tmp_path, "Teile/a.png", "Teile/b \u00fc.png", "m.png")
    draw = random.Random(seed)
    slash = draw.choice("/\\")
    true, bad, test = (
        draw.choice(["TRUE", "True", "1", "yes"]),
        draw.choice(["Bad", "1"]),
        draw.choice(["test", "TEST"]),
    )
    rows = [
        ["image", "split", "label", "mask", "group", "mask_any_value"],
        [f"Teile{slash}a.png", "train", "0", "", "009", ""],
        [f"Teile{slash}b \u00fc.png", test, bad, "m.png", "a;b,c", true],
    ]
    path = tmp_path / "t.csv"
    path.write_bytes(hostile.encoded_table(rows, draw))
    assert Table(path=path).samples() == [
        Sample(image=tmp_path / "Teile" / "a.png", label=GOOD, split="train", group="009"),
        Sample(
            image=tmp_path / "Teile" / "b \u00fc.png",
            label=BAD,
            split="test",
            defect="bad",
            mask=tmp_path / "m.png",
            mask_any_value=True,
            group="a;b,c",
        ),
    ]


def test_a_table_that_names_its_separator(tmp_path):
    touch(tmp_path, "a.png")
    path = tmp_path / "t.csv"
    path.write_text("sep=;\nimage;split;label\na.png;train;good\n")
    assert len(Table(path=path).samples()) == 1
    assert separator_of("a\tb,c\td\n1,2,3,4") == ("\t", "a\tb,c\td\n1,2,3,4")
    assert separator_of("image\na.png")[0] == ","


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "image,split,label\nPr\u00fcf.png,train,0\n".encode("cp1252"),
            r"t\.csv, line 2: not UTF-8 text \(.*\); save it",
        ),
        ("image,split,label\n".encode("utf-16-le"), r"t\.csv, line 1: a NUL character; save it as UTF-8"),
        (b"image,split,label\na.png,train,WAHR\n", "label: 'WAHR'; wanted 0, 1, good or bad"),
        (b"\xff\xfeimage", r"t\.csv, line 1: not UTF-16-LE text"),
    ],
)
def test_tables_that_are_refused(tmp_path, content, message):
    touch(tmp_path, "a.png")
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        Table(path=tmp_path / "t.csv").samples()


def test_a_small_table_cannot_fill_the_memory(tmp_path, monkeypatch):
    path = tmp_path / "t.parquet"
    long = pa.array(["x" * (1 << 20)]).take(pa.array([0] * 64))
    pq.write_table(pa.table({"image": long, "split": ["train"] * 64, "label": ["0"] * 64}), path)
    del long
    with pytest.raises(DataError, match=r"t\.parquet: a cell of 1,048,576 bytes; at most 32,768 are read"):
        Table(path=path).samples()
    monkeypatch.setattr("supersimplenet.datasets.table._MAX_ROWS", 5)
    pq.write_table(pa.table({name: pa.nulls(6, pa.string()) for name in ("image", "split", "label")}), path)
    with pytest.raises(DataError, match=r"t\.parquet: 6 rows; at most 5 are read"):
        Table(path=path).samples()


def test_truth_values():
    assert [yes_or_no(text) for text in ("true", "TRUE", "Yes", "1")] == [True] * 4
    assert [yes_or_no(text) for text in ("false", "FALSE", "nO", "0")] == [False] * 4
    with pytest.raises(ValueError, match="'WAHR'; wanted true, false, yes, no, 1 or 0"):
        yes_or_no("WAHR")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_file_of_masks_and_a_polygon(tmp_path, encoding):
    touch(tmp_path, "good/a.png", "bad/b \u00fc.png", "bad/c.png", "m.png")
    samples = [Sample(image=tmp_path / "good/a.png", label=GOOD, split="train")]
    samples += [
        Sample(image=tmp_path / "bad" / name, label=BAD, split="train", defect="bad", mask=tmp_path / "m.png")
        for name in ("b \u00fc.png", "c.png")
    ]
    chosen = tmp_path / "masks.txt"
    chosen.write_bytes(encoded('# these\r\n"bad\\b \u00fc.png"\r\n', encoding))
    with_masks = [s.image.name for s in supervise(samples, "mixed", masks=str(chosen)).training if s.mask]
    assert with_masks == ["b \u00fc.png"]
    chosen.write_bytes(encoded("gone.png\n", encoding))
    with pytest.raises(ConfigError, match=r"'gone\.png' names no bad training image"):
        supervise(samples, "mixed", masks=str(chosen))
    polygon = tmp_path / "roi.json"
    polygon.write_bytes(encoded(json.dumps([[1, 1], [3, 1], [3, 3]]), encoding))
    assert read_roi(polygon, (5, 5)).sum() == 6
    polygon.write_bytes(io.BytesIO(b"[" * 100_000).getvalue())
    with pytest.raises(DataError, match=r"roi\.json: not a polygon"):
        read_roi(polygon, (5, 5))
