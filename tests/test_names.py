"""Names of files that hold anything: through every command, into every written file, on every terminal."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from supersimplenet import Detector, Folder, Table
from supersimplenet.cli.main import main
from supersimplenet.datasets.base import relative_names
from supersimplenet.utils.console import console
from supersimplenet.utils.formatting import printable
from supersimplenet.utils.names import label_cell, label_of, name_of, path_cell, short_stem, unicode_text

ODD = [
    b"=1+1.png",
    b"+x.png",
    b"-x.png",
    b"@SUM(A1).png",
    b"\ttab.png",
    b"line\nend.png",
    b"return\r.png",
    b"esc\x1b[31mred\x1b]0;title\x07.png",
    b"not-utf8-\xff\xfe.png",
    b"latin1-\xe9.png",
    "nfc-é.png".encode(),
    "nfd-e\u0301.png".encode(),
    ":100: \U0001f642.png".encode(),
    b"[red]markup[bold] [b.png",
    b"100% %s {0}.png",
    b'it\'s "quoted" \\ back.png',
    "rtl-\u202egnp.png".encode(),
    b"<script>alert(1)<!--.png",
    b"$\\frac$.png",
    b"a_b.png",
    b"A_B.png",
    b"x" * 246 + b".png",
]
GOOD = os.fsdecode(b"good \xff")


def draw(folder: Path, names: list[bytes], seed: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for name in names:
        pixels = rng.integers(90, 130, (40, 40, 3), dtype=np.uint8)
        if b"bad" in os.fsencode(folder):
            pixels[8:20, 8:20] = 250
        Image.fromarray(pixels).save(folder / os.fsdecode(name))


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with odd names, and a model that was trained, calibrated and used on it by real commands."""
    if sys.platform != "linux":
        pytest.skip("other systems refuse such names")
    root = tmp_path_factory.mktemp("odd") / "room [b]\n:100:"
    draw(root / GOOD, ODD, 1)
    draw(root / "bad" / os.fsdecode(b"=cmd\n\xff"), ODD[:6], 2)
    data = ["--data", "Folder", "--data.good", str(root / GOOD), "--data.bad", str(root / "bad")]
    small = ["--model.backbone", "compact", "--model.image_size", "[64,64]", "--trainer.accelerator", "cpu"]
    model, out = str(root / "model"), root / "out"
    assert main(["train", *data, *small, "--trainer.max_steps", "1", "--output", model]) == 0
    assert main(["calibrate", "--model", model, "--max-false-alarms", "50%", "--confidence", "50%"]) == 0
    assert main(["test", "--model", model]) == 0
    assert main(["report", "--model", model, "--output", str(out / "report")]) == 0
    predict = ["predict", "--model", model, str(root / GOOD), str(root / "bad"), "--output", str(out)]
    assert main([*predict, "--overlays", "--format", "csv,jsonl,parquet"]) == 0
    assert main(["data", "split", *data, "--output", str(root / "split.csv")]) == 0
    main(["data", "check", *data, "--output", str(out / "check"), "--size", "64", "64"])
    gate = ["gate", "--candidate", model, "--current", model, "--golden", str(root / "split.csv")]
    assert main([*gate, "--output", str(out / "gate")]) in (0, 1)
    return root


def files_of(room: Path) -> set[str]:
    return {str(path) for folder in (GOOD, "bad") for path in (room / folder).rglob("*.png")}


def cells(table: Path) -> list[list[str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, strict=True))


def test_each_table_leads_back_to_the_files(room):
    out, files = room / "out", files_of(room)
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["path"] for row in rows} == files
    assert {name_of(row[0]) for row in cells(out / "predictions.csv")[1:]} == files
    parquet = pq.read_table(out / "predictions.parquet")
    parquet.validate(full=True)
    assert {name_of(path) for path in parquet["path"].to_pylist()} == files
    assert len(list((out / "overlays").iterdir())) == len(files)


def test_a_split_table_reads_back_and_no_cell_is_a_formula(room):
    split = Table(path=room / "split.csv").samples()
    source = Folder(good=room / GOOD, bad=room / "bad").samples()
    assert {(str(sample.image), sample.defect) for sample in split} == {
        (str(sample.image), sample.defect) for sample in source
    }
    for name in ("split.csv", "out/predictions.csv", "out/defects.csv"):
        for row in cells(room / name):
            for cell in row:
                is_number = cell.lstrip("-").replace(".", "").replace("e-", "").isdigit()
                assert is_number or not cell.startswith(("=", "+", "-", "@", "\t", "\r")), (name, cell)


def test_every_written_text_is_valid_utf8(room):
    written = [path for path in room.rglob("*") if path.suffix in {".csv", ".json", ".jsonl", ".html", ".yaml"}]
    assert len(written) >= 10
    for path in written:
        if path.name != "images.csv":  # of the model folder: names as bytes, see the docs
            path.read_text(encoding="utf-8")
    (html,) = room.rglob("*.html")
    assert "<script>alert" not in html.read_text(encoding="utf-8")
    record = yaml.safe_load((room / "model" / "config.yaml").read_text(encoding="utf-8"))
    assert record["data"]["init_args"]["good"] == [str((room / GOOD).resolve())]
    pyarrow.csv.read_csv(
        room / "out" / "predictions.csv", parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True)
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_no_raw_control_character_reaches_a_terminal(room, encoding):
    command = [sys.executable, "-m", "supersimplenet", "data", "check", "--data", "Folder", "--data.good"]
    done = subprocess.run(
        [*command, str(room / GOOD), "--data.bad", str(room / "bad")],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding, "LANG": "C"},
        check=False,
    )
    text = (done.stdout + done.stderr).decode(encoding)
    assert "Traceback" not in text
    assert done.returncode in (0, 1)
    assert not {character for character in text if character < " " or character == "\u202e"} - {"\n", "\r"}


def test_a_line_stays_a_line_and_a_name_no_markup(capsys):
    console().print(f"{os.fsdecode(ODD[7])} {os.fsdecode(ODD[8])} :100: [red]x[/red] a\nb")
    assert capsys.readouterr().err == (
        "esc\\x1b[31mred\\x1b]0;title\\x07.png not-utf8-\\xff\\xfe.png :100: [red]x[/red] a\\nb\n"
    )
    assert printable("a\u202eb\u2028c\x9bd é\U0001f642") == "a\\u202eb\\u2028c\\x9bd é\U0001f642"


@pytest.mark.parametrize("name", [os.fsdecode(name) for name in ODD])
def test_names_in_files_are_those_of_the_disk(name):
    assert name_of(unicode_text(name)) == name
    assert label_of(label_cell(name)) == name
    assert label_of(label_cell(f"'{name}")) == f"'{name}"
    assert Path(name_of(path_cell(name))) == Path(name)
    assert len(os.fsencode(short_stem(name))) <= 190


def test_long_names_that_begin_alike_stay_apart():
    assert short_stem("x" * 240 + "a.png") != short_stem("x" * 240 + "b.png")
    assert short_stem("part.png") == "part"


def test_a_source_and_a_predictor_show_themselves_in_a_line(room):
    assert repr(Folder(good=room / GOOD)) == f"Folder({Folder(good=room / GOOD).name!r})"
    detector = Detector.load(room / "model", device="cpu")
    assert repr(detector).startswith("Detector(joint score, bad from ")
    assert repr(detector).count("\n") == 0
    assert "of good parts are called bad" in repr(detector)


def test_hashes_take_names_that_are_no_text(tmp_path):
    draw(tmp_path / "good", [b"\xff%d.png" % number for number in range(9)], 3)
    samples = Folder(good=tmp_path / "good").samples()
    assert sorted(relative_names(samples).values()) == [os.fsdecode(b"\xff%d.png" % number) for number in range(9)]
    draw_ = int.from_bytes(hashlib.sha256(b"0\0\xff3.png").digest()[:8], "big")
    (third,) = [sample for sample in samples if sample.image.name.endswith("3.png")]
    assert third.split == ("test" if draw_ < 0.2 * 2**64 else "train")
