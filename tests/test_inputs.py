"""Where images of `predict` come from: each source gives the same pixels, in a stated order, each once."""

from __future__ import annotations

import csv
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from supersimplenet import Detector
from supersimplenet.cli.main import main
from supersimplenet.errors import ConfigError, DataError, ImageError, OutputError
from supersimplenet.prediction.inputs import find_inputs
from supersimplenet.prediction.job import predict_to_folder
from supersimplenet.prediction.tables import parse_formats
from supersimplenet.prediction.watch import Arrivals
from supersimplenet.preprocessing.decoding import EncodedImage
from supersimplenet.preprocessing.images import read_image
from supersimplenet.preprocessing.loading import map_in_threads
from supersimplenet.preprocessing.preprocessor import Preprocessor

SIZE = (64, 64)
NAMES = [f"{number}.png" for number in range(1, 12)]  # natural order: 10 after 9


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index, name in enumerate(NAMES):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def pixels_of(images) -> list[np.ndarray]:
    return [read_image(image) for image in images if image is not None]


def same(found: list[np.ndarray], wanted: list[np.ndarray]) -> bool:
    return len(found) == len(wanted) and all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.fixture
def expected(photographs: Path) -> list[np.ndarray]:
    return [read_image(photographs / name) for name in NAMES]


def archive(photographs: Path, path: Path, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as shard:
        for name in NAMES:
            shard.add(photographs / name, arcname=f"line/{name}")
            content = b'{"camera": 1}'
            note = tarfile.TarInfo(f"line/{name}.json")
            note.size = len(content)
            shard.addfile(note, io.BytesIO(content))
    return path


@pytest.mark.parametrize(("suffix", "mode"), [(".tar", "w"), (".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar", "w:xz")])
def test_a_tar_archive_gives_its_images_in_its_own_order(photographs, expected, tmp_path, suffix, mode):
    shard = archive(photographs, tmp_path / f"shard{suffix}", mode)
    images = list(find_inputs([str(shard)]))
    assert [str(image) for image in images] == [f"{shard}/line/{name}" for name in NAMES]
    assert same(pixels_of(reversed(images)), expected[::-1])  # readers need not be called in order


def test_a_damaged_archive_is_named(tmp_path):
    (tmp_path / "shard.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(DataError, match=r"shard\.tar: not a readable tar archive"):
        list(find_inputs([str(tmp_path / "shard.tar")]))


@pytest.mark.parametrize("form", ["plain", "hub", "nameless"])
def test_a_table_gives_its_images(photographs, expected, tmp_path, form):
    content = [(photographs / name).read_bytes() for name in NAMES]
    columns = {"path": NAMES, "image": content, "camera": [1] * len(NAMES)}
    if form == "hub":
        columns = {"image": [{"bytes": b, "path": n} for b, n in zip(content, NAMES, strict=True)]}
    if form == "nameless":
        columns = {"image": content}
    table = tmp_path / "table.parquet"
    pq.write_table(pa.table(columns), table, row_group_size=4)
    images = list(find_inputs([str(table)]))
    names = [f"{table}/{number}" for number in range(11)] if form == "nameless" else NAMES
    assert [str(image) for image in images] == names
    assert same(pixels_of(images), expected)


def test_a_table_without_images_and_one_that_is_none_are_refused(tmp_path):
    pq.write_table(pa.table({"picture": [b"x"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"other\.parquet: has the columns picture; wanted a column image"):
        list(find_inputs([str(tmp_path / "other.parquet")]))
    pq.write_table(pa.table({"image": ["a.png"]}), tmp_path / "paths.parquet")
    with pytest.raises(DataError, match="column image holds str"):
        list(find_inputs([str(tmp_path / "paths.parquet")]))
    (tmp_path / "none.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"none\.parquet: not a readable Parquet file"):
        list(find_inputs([str(tmp_path / "none.parquet")]))


def test_a_list_names_files_folders_and_archives(photographs, expected, tmp_path):
    shard = archive(photographs, tmp_path / "shard.tar")
    listed = tmp_path / "list.txt"
    listed.write_text(f"{photographs / '3.png'}\n\n{photographs}\r\n{shard}\n{photographs / '3.png'}")
    inputs = find_inputs([str(photographs / "1.png")], list_file=listed)
    assert inputs.total is None
    assert same(pixels_of(inputs), [expected[0], expected[2], *expected, *expected, expected[2]])
    with pytest.raises(DataError, match=r"list: no such file nowhere\.txt"):
        find_inputs([], list_file=Path("nowhere.txt"))


def test_plain_inputs_are_counted_and_come_once(photographs):
    inputs = find_inputs([str(photographs), str(photographs / "1*.png")])
    assert inputs.total == 11
    assert [path.name for path in inputs] == NAMES
    with pytest.raises(DataError, match="no input; name images to predict"):
        find_inputs([])


def test_a_url_gives_what_a_path_gives(photographs, expected, tmp_path):
    shard = archive(photographs, tmp_path / "shard.tar")
    for url in (f"file://{photographs}", f"file://{photographs}/*.png", f"file://{shard}"):
        assert same(pixels_of(find_inputs([url])), expected), url
    with pytest.raises(DataError, match="file:///nowhere: no such file or folder"):
        find_inputs(["file:///nowhere"])
    with pytest.raises(DataError, match="abacus://x: cannot be reached"):
        find_inputs(["abacus://x"])


def test_bytes_and_files_are_read_one_way(photographs, tmp_path):
    path = photographs / "1.png"
    content = path.read_bytes()
    preprocessor = Preprocessor.stretch(SIZE)
    assert np.array_equal(
        preprocessor.prepare(EncodedImage("a", lambda: content)).pixels, preprocessor.prepare(path).pixels
    )

    def fail() -> bytes:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(ImageError, match=r"s3://x: cannot be read \(Permission denied\)"):
        read_image(EncodedImage("s3://x", fail))
    with pytest.raises(ImageError, match=r"a: empty \(0 bytes\)"):
        read_image(EncodedImage("a", bytes))
    with pytest.raises(ImageError, match=r"a: truncated"):
        read_image(EncodedImage("a", lambda: content[:-200]))


def test_what_has_come_is_handed_out_before_more_is_waited_for(photographs):
    """Batches of 4 and many in flight: a source that pauses after 3 images gets 3 results before it is asked again."""
    handed_out: list[int] = []

    def source():
        for round_ in range(3):
            for name in NAMES[:3]:
                yield photographs / name
            yield None
            assert len(handed_out) == 3 * (round_ + 1)

    for batch in map_in_threads(
        lambda b: b, source(), threads=2, preprocessor=Preprocessor.stretch(SIZE), batch_size=4
    ):
        handed_out.extend(batch.index)
    assert handed_out == list(range(9))


def predict(model: Path, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "supersimplenet", "predict", "--model", str(model), *map(str, arguments)]


def read_table(output: Path) -> list[dict[str, str]]:
    with (output / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_standard_input_is_worked_on_as_it_comes(model, photographs, tmp_path):
    """The second line is written only once the first one's result is there."""
    output = tmp_path / "out"
    process = subprocess.Popen(
        predict(model, "-", "--output", output), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    journal = output / "predictions.partial.jsonl"
    deadline = time.monotonic() + 60
    for number, name in enumerate(NAMES[:3], start=1):
        process.stdin.write(f"{photographs / name}\n".encode())
        process.stdin.flush()
        while not (journal.exists() and journal.read_bytes().count(b"\n") == number):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    process.stdin.close()
    assert process.wait(60) == 0
    assert [Path(row["path"]).name for row in read_table(output)] == NAMES[:3]


def test_formats_hold_the_same_rows(model, photographs, tmp_path):
    detector, output = Detector.load(model), tmp_path / "out"
    (photographs / "4.png").write_bytes(b"")
    images = find_inputs([str(photographs)])
    summary = predict_to_folder(
        detector, images, output, model_folder=model, formats=("csv", "jsonl", "parquet"), on_error="skip"
    )
    assert summary.table == output / "predictions.csv"
    stored, read = pq.read_table(output / "predictions.parquet").to_pylist(), read_table(output)
    assert [row["path"] for row in stored] == [row["path"] for row in read] == [str(photographs / n) for n in NAMES]
    assert [row["score_logit"] for row in stored] == [
        float(row["score_logit"]) if row["score_logit"] else None for row in read
    ]
    assert "4.png: empty" in stored[3]["error"]
    predict_to_folder(
        detector, find_inputs([str(photographs / "1.png")]), output, model_folder=model, formats=("parquet",)
    )
    assert [path.name for path in output.iterdir()] == ["predictions.parquet"]  # nothing of the earlier run is left


def test_formats_are_parsed():
    assert parse_formats("parquet, csv") == ("csv", "parquet")
    with pytest.raises(ConfigError, match="format: 'xml'; choose among csv, jsonl, parquet"):
        parse_formats("csv,xml")


def test_a_watched_folder_gives_each_file_when_it_is_whole(photographs, tmp_path):
    folder, stop = tmp_path / "line", threading.Event()
    folder.mkdir()
    shutil.copy(photographs / "10.png", folder)
    shutil.copy(photographs / "2.png", folder)
    (folder / "copied.png").write_bytes(b"first half")
    images = iter(Arrivals(folder, every_s=0.01, stop=stop))
    assert next(images) is None  # sizes are seen for the first time
    with (folder / "copied.png").open("ab") as file:
        file.write(b", second half")
    assert [next(images) for _ in range(2)] == [folder / "2.png", folder / "10.png"]
    assert next(images) is None
    assert next(images) == folder / "copied.png"
    assert next(images) is None
    (folder / "copied.png").write_bytes(b"once more, and longer than it was before")
    given = [next(images) for _ in range(3)]
    assert given.count(folder / "copied.png") == 1  # it changed, so it is another picture
    assert set(given) == {None, folder / "copied.png"}
    stop.set()
    assert next(images, "the end") in (None, "the end")


def test_a_watched_folder_is_predicted_until_a_signal_and_then_on(model, photographs, tmp_path):
    folder, output = tmp_path / "line", tmp_path / "out"
    folder.mkdir()
    shutil.copy(photographs / "1.png", folder)
    command = predict(model, "--watch", folder, "--output", output)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    journal = output / "predictions.partial.jsonl"

    def wait_for(lines: int) -> None:
        deadline = time.monotonic() + 60
        while not (journal.exists() and journal.read_bytes().count(b"\n") == lines):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    wait_for(1)
    shutil.copy(photographs / "2.png", folder)
    wait_for(2)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 0
    assert [Path(row["path"]).name for row in read_table(output)] == ["1.png", "2.png"]
    shutil.copy(photographs / "3.png", folder)
    detector = Detector.load(model)
    summary = predict_to_folder(
        detector, Arrivals(folder, every_s=0.05, until_s=0.2), output, model_folder=model, on_error="skip"
    )
    assert (summary.images, summary.continued) == (3, 2)
    assert [Path(row["path"]).name for row in read_table(output)] == ["1.png", "2.png", "3.png"]
    with pytest.raises(OutputError, match="holds a run over the watched folder"):
        predict_to_folder(detector, [photographs / "1.png"], output, model_folder=model)


def test_an_unreadable_file_of_a_watched_folder_is_looked_at_again_once_it_changed(model, photographs, tmp_path):
    folder, output = tmp_path / "line", tmp_path / "out"
    folder.mkdir()
    whole = (photographs / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    detector = Detector.load(model)

    def run() -> list[tuple[str, bool]]:
        arrivals = Arrivals(folder, every_s=0.05, until_s=0.2)
        predict_to_folder(detector, arrivals, output, model_folder=model, on_error="skip")
        return [(Path(row["path"]).name, not row["error"]) for row in read_table(output)]

    assert run() == [("1.png", False)]
    assert run() == [("1.png", False)]  # as it was
    (folder / "1.png").write_bytes(whole)
    assert run() == [("1.png", False), ("1.png", True)]
    assert run() == [("1.png", False), ("1.png", True)]


def test_options_that_contradict_each_other_are_refused(model, photographs, tmp_path, capsys):
    base = ["predict", "--model", str(model), "--output", str(tmp_path / "out")]
    for more, message in (
        (["--watch", str(photographs), str(photographs)], "not both"),
        (["--watch-for", "10m", str(photographs)], "give --watch"),
        (["--watch", str(tmp_path / "nowhere")], "--watch: "),
        (["--watch", str(photographs), "--watch-for", "soon"], "watch-for: 'soon'; write a duration"),
        ([], "name images to predict"),
        (["--format", "xml", str(photographs)], "format: 'xml'"),
    ):
        assert main([*base, *more]) == 2
        assert message in capsys.readouterr().err
