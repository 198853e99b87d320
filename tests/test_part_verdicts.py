"""A part seen in several photographs has one verdict, that of the worst: in tables, summary, program and Python."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_runtime import BUNDLE, CALIBRATION, grey, write

from supersimplenet import Detector, Folder, ModelConfig
from supersimplenet.cli.main import main
from supersimplenet.errors import ConfigError, OutputError
from supersimplenet.metrics.thresholds import part_scores
from supersimplenet.postprocessing.calibration import verdict
from supersimplenet.postprocessing.parts import PartVerdict, part_of, part_verdicts, pattern_in
from supersimplenet.prediction.inputs import find_inputs
from supersimplenet.prediction.job import PredictionSummary, predict_to_folder
from supersimplenet.prediction.tables import write_parts
from supersimplenet.prediction.watch import Arrivals
from supersimplenet.runtime import Inspector
from supersimplenet.runtime.__main__ import main as runtime
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.train import train
from supersimplenet.types import normalised

PATTERN = r"(part\d+)_"
FORMATS = ("csv", "jsonl", "parquet")
# The drawn network's score is the grey level; bad from 200 on, unsure from 150 on, good parts 10, 20, 30 and 160.
LEVELS = {
    "part1_a.png": 25,
    "part1_b.png": 155,
    "part2_a.png": 5,
    "part3_a.png": 12,
    "part3_b.png": None,  # no image
    "part4_a.png": None,
    "part4_b.png": 250,
    "part5_a.png": None,
    "spare.png": 25,
    "part2_b.png": 250,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = {"class_path": "Folder", "init_args": {"group_pattern": PATTERN}}
    return write(tmp_path_factory.mktemp("model") / "drawn", replace(BUNDLE, config={"data": data}))


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "line"
    folder.mkdir()
    for name, level in LEVELS.items():
        if level is None:
            (folder / name).write_bytes(b"no image")
        else:
            Image.fromarray(grey(level)).save(folder / name)
    return [folder / name for name in LEVELS]


def predict(model: Path, images: object, output: Path, **options: object) -> PredictionSummary:
    options = {"group_pattern": PATTERN, "formats": FORMATS, "on_error": "skip", "batch_size": 2, **options}
    return predict_to_folder(Inspector.load(model), images, output, model_folder=model, **options)


def parts_of(output: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (output / "parts.jsonl").read_text().splitlines()]


def contents(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.iterdir())}


def test_verdicts_by_hand_in_any_order(model, photographs):
    readable = [path for path in photographs if LEVELS[path.name] is not None]
    predictions = Inspector.load(model).predict(readable)
    for some in itertools.permutations(predictions, 3):
        for part in part_verdicts(some, PATTERN):
            own = [p for p in some if part_of(p.path, re.compile(PATTERN)) == part.part]
            worst = max(own, key=lambda p: p.score_logit)
            found = (part.verdict, part.score_logit, part.score, part.p_value, part.path)
            assert found == (worst.verdict, worst.score_logit, worst.score, worst.p_value, worst.path)
            assert (part.photographs, part.failed, part.error) == (len(own), 0, None)
    found = {part.part: (part.verdict, part.p_value) for part in part_verdicts(predictions, PATTERN)}
    assert found == {
        "part1": ("unsure", 2 / 5),
        "part2": ("bad", 1 / 5),
        "part3": ("good", 4 / 5),
        "part4": ("bad", 1 / 5),
        None: ("good", 3 / 5),
    }
    arrays = [replace(prediction, path=None) for prediction in predictions]
    assert [part.photographs for part in part_verdicts(arrays, PATTERN)] == [1] * len(arrays)
    assert part_verdicts([]) == []


def test_a_good_part_is_a_false_alarm_by_the_rule_of_the_calibration():
    """The report counts by `part_scores`: a good part by its highest score."""
    levels, groups = [25.0, 155.0, 250.0, 5.0, 12.0], ["a", "a", "b", "b", None]
    rows = [
        {"part": part, "path": str(place), "verdict": verdict(level, CALIBRATION), "score": None, "p_value": None}
        | {"score_logit": level, "error": None}
        for place, (level, part) in enumerate(zip(levels, groups, strict=True))
    ]
    worst = part_scores(levels, groups, worst="max")
    assert [part.score_logit for part in part_verdicts(rows)] == worst.tolist() == [155, 250, 12]
    assert [part.verdict for part in part_verdicts(rows)] == [verdict(score, CALIBRATION) for score in worst]


def test_the_tables_of_parts(model, photographs, tmp_path):
    summary = predict(model, photographs, tmp_path / "out")
    parts = parts_of(tmp_path / "out")
    named = [(p["part"], p["verdict"], p["p_value"], p["photographs"], p["failed"]) for p in parts]
    assert named == [
        ("part1", "unsure", 2 / 5, 2, 0),
        ("part2", "bad", 1 / 5, 2, 0),
        ("part3", None, 4 / 5, 2, 1),  # what could not be read may be bad
        ("part4", "bad", 1 / 5, 2, 1),
        ("part5", None, None, 1, 1),
        (None, "good", 3 / 5, 1, 0),
    ]
    deciding = ["part1_b.png", "part2_b.png", "part3_a.png", "part4_b.png", "part5_a.png", "spare.png"]
    assert [Path(p["path"]).name for p in parts] == deciding
    for part, name in zip(parts, deciding, strict=True):
        if LEVELS[name] is None:
            assert (part["score"], part["score_logit"]) == (None, None)
        else:
            assert part["score_logit"] == pytest.approx(LEVELS[name], rel=1e-6)
            assert part["score"] == normalised(part["score_logit"], 200.0)
    failing = [None, None, "part3_b.png", "part4_a.png", "part5_a.png", None]
    assert [p["error"] and Path(p["error"].split(":")[0]).name for p in parts] == failing
    with (tmp_path / "out" / "parts.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {name: "" if value is None else str(value) for name, value in part.items()} for part in parts
        ]
    assert pq.read_table(tmp_path / "out" / "parts.parquet").to_pylist() == parts
    counts = summary.parts
    assert counts is not None
    assert (counts.parts, counts.photographs, counts.unnamed, counts.unknown) == (6, 10, 1, 2)
    assert counts.verdicts == {"good": 1, "unsure": 1, "bad": 2}
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [row["part"] for row in rows] == [None if "spare" in name else name[:5] for name in LEVELS]
    # A later run that knows no parts leaves no table of them behind.
    assert predict(model, photographs, tmp_path / "out", group_pattern=None).parts is None
    assert not list((tmp_path / "out").glob("parts*"))


def test_the_false_discovery_rate_is_that_of_parts(model, photographs, tmp_path):
    """Benjamini and Hochberg by hand over the p-values 2, 1, 4, 1 and 3 fifths; a part without one is not counted."""
    summary = predict(model, photographs, tmp_path / "out", false_discovery_rate=0.5)
    q_values = {"part1": 2 / 3, "part2": 1 / 2, "part3": 4 / 5, "part4": 1 / 2, "part5": None, None: 3 / 4}
    assert {part["part"]: part["q_value"] for part in parts_of(tmp_path / "out")} == {
        part: None if q is None else pytest.approx(q) for part, q in q_values.items()
    }
    assert summary.flagged == 2
    for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines():
        row = json.loads(line)
        q_value = None if row["error"] else q_values[row["part"]]
        assert row["q_value"] == (None if q_value is None else pytest.approx(q_value))


@pytest.mark.parametrize("journal_of", ["this version", "version 0.1"])
def test_an_interrupted_run_ends_in_the_same_files(model, photographs, tmp_path, journal_of):
    predict(model, photographs, tmp_path / "whole")
    output, done = tmp_path / "out", 0

    def stop(images: int) -> None:
        nonlocal done
        done += images
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(model, photographs, output, progress=stop)
    assert not (output / "parts.csv").exists()
    with pytest.raises(OutputError, match=r"group_pattern \(part\\d\+\)_ there, part\(\\d\+\)_ here"):
        predict(model, photographs, output, group_pattern=r"part(\d+)_")
    if journal_of == "version 0.1":
        journal = output / "predictions.partial.jsonl"
        rows = [json.loads(line) for line in journal.read_text().splitlines()]
        kept = [{name: value for name, value in row.items() if name not in ("part", "crc32")} for row in rows]
        journal.write_text("".join(json.dumps(row) + "\n" for row in kept))
    assert predict(model, photographs, output).continued == 4
    if journal_of == "version 0.1":  # its lines have their own order
        assert parts_of(output) == parts_of(tmp_path / "whole")
        assert (output / "predictions.csv").read_bytes() == (tmp_path / "whole" / "predictions.csv").read_bytes()
    else:
        assert contents(output) == contents(tmp_path / "whole")


def test_of_a_watched_image_that_changed_the_last_state_counts(model, tmp_path):
    line = tmp_path / "line"
    line.mkdir()
    (line / "part1_a.png").write_bytes(b"half")
    Image.fromarray(grey(25)).save(line / "part1_b.png")

    def watch() -> list[dict[str, object]]:
        predict(model, Arrivals(line, every_s=0.01, until_s=0.05), tmp_path / "out")
        return parts_of(tmp_path / "out")

    (part,) = watch()
    assert (part["verdict"], part["photographs"], part["failed"]) == (None, 2, 1)
    Image.fromarray(grey(155)).save(line / "part1_a.png")
    (part,) = watch()
    assert (part["verdict"], part["photographs"], part["failed"]) == ("unsure", 2, 0)


@pytest.mark.parametrize("column", ["part", "group"])
def test_a_table_of_images_names_its_parts(model, photographs, tmp_path, column):
    content = [photographs[place].read_bytes() for place in (0, 1, 8, 8)]
    names = ["part1_1.png", "part2_1.png", "part3_1.png", "4.png"]
    table = {"path": names, "image": content, column: ["=A", "=A", None, None]}
    pq.write_table(pa.table(table), tmp_path / "table.parquet")
    inputs = find_inputs([str(tmp_path / "table.parquet")])
    summary = predict(model, inputs, tmp_path / "out", group_pattern=None)
    assert [(p["part"], p["verdict"]) for p in parts_of(tmp_path / "out")] == [
        ("=A", "unsure"),
        (None, "good"),
        (None, "good"),
    ]
    assert summary.parts is not None
    assert summary.parts.unnamed == 2
    assert "'=A,unsure" in (tmp_path / "out" / "parts.csv").read_text()  # no spreadsheet computes it
    predict(model, find_inputs([str(tmp_path / "table.parquet")]), tmp_path / "out")
    assert [p["part"] for p in parts_of(tmp_path / "out")] == ["=A", "part3", None]


def test_names_of_any_bytes(tmp_path):
    part = PartVerdict(part="\udcff", verdict=None, score=None, p_value=None, score_logit=None, path="\udcff_1.png")
    write_parts(tmp_path, FORMATS, [part])
    assert pq.read_table(tmp_path / "parts.parquet").to_pylist()[0]["part"] == r"\udcff"
    assert (tmp_path / "parts.csv").read_text(encoding="utf-8").splitlines()[1].startswith(r"\udcff,,")
    assert parts_of(tmp_path)[0]["part"] == "\udcff"


def test_the_command_knows_the_models_pattern(model, photographs, tmp_path, capsys):
    base = ["predict", "--model", str(model), str(photographs[0].parent), "--on-error", "skip", "--output"]
    assert main([*base, str(tmp_path / "own"), "--false-discovery-rate", "50%"]) == 0
    said = capsys.readouterr()
    assert rf"parts are told apart as in the training: --group-pattern '{PATTERN}'" in said.err
    lines = said.out.splitlines()
    assert "6 parts in 10 photographs: 2 bad, 1 unsure, 2 without a verdict (a photograph could not be read)" in lines
    assert "1 photograph of no known part: each counts as a part of its own" in lines
    assert any(line.startswith("1.67 photographs a part here, 1 in the calibration: ") for line in lines)
    assert any(line.startswith("2 parts are told from good parts at a false-discovery rate of 50 %") for line in lines)
    assert lines[-1].endswith("predictions.csv, defects.csv, predictions.jsonl, parts.csv, parts.jsonl")
    assert main([*base, str(tmp_path / "other"), "--group-pattern", r"part(\d+)"]) == 0
    assert "told apart" not in capsys.readouterr().err
    assert [part["part"] for part in parts_of(tmp_path / "other")] == ["1", "2", "3", "4", "5", None]
    assert main([*base, str(tmp_path / "none"), "--group-pattern", "none"]) == 0
    assert " parts in " not in capsys.readouterr().out
    assert not list((tmp_path / "none").glob("parts*"))
    assert main([*base, str(tmp_path / "wrong"), "--group-pattern", "part"]) == 2
    assert "group_pattern: 'part' has 0 groups; wanted one" in capsys.readouterr().err


def test_the_runtime_program_prints_the_part(model, photographs, capsys):
    images = [str(path) for path in photographs[:5]]
    for pattern, wanted in (
        ([], ["part1", "part1", "part2", "part3", "part3"]),
        (["--group-pattern", r"_(.)\."], ["a", "b", "a", "a", "b"]),
        (["--group-pattern", "none"], [None] * 5),
    ):
        assert runtime([str(model), *images, "--on-error", "skip", *pattern]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["part"] for row in rows] == wanted
    assert runtime([str(model), *images, "--group-pattern", "("]) == 2
    assert "group_pattern: '(' is no regular expression" in capsys.readouterr().err


@pytest.mark.parametrize("config", [{}, {"data": None}, {"data": ["x"]}, {"data": {"init_args": {"group_pattern": 5}}}])
def test_a_model_without_a_pattern(config):
    assert pattern_in(config) is None


def test_part_of_takes_the_files_name_alone():
    pattern = re.compile(PATTERN)
    assert part_of("part7_/shard.tar/part12_a.png", pattern) == "part12"
    assert part_of("s3://bucket/part7_/1.png", pattern) is None
    assert part_of("part12_a.png", None) is None
    with pytest.raises(ConfigError, match="has 2 groups"):
        part_verdicts([], "(a)(b)")


def test_a_model_trained_with_a_pattern(tmp_path, capsys):
    good = tmp_path / "good"
    good.mkdir()
    for part, shot in itertools.product(range(10), range(2)):
        Image.fromarray(grey(100 + 5 * part + shot)).save(good / f"part{part:02d}_{shot}.png")
    source = Folder(good=good, group_pattern=PATTERN)
    options = {"model": ModelConfig(backbone="compact", image_size=(64, 64))}
    train(source, output=tmp_path / "model", trainer=TrainerConfig(max_epochs=1, accelerator="cpu"), **options)
    detector = Detector.load(tmp_path / "model", device="cpu")
    assert detector.group_pattern == PATTERN
    capsys.readouterr()
    line = tmp_path / "line"
    line.mkdir()
    for name in ("part01_0.png", "part01_1.png", "part02_0.png"):
        shutil.copy(good / name, line)
    assert main(["predict", "--model", str(tmp_path / "model"), str(line), "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "2 parts in 3 photographs: " in said
    assert "photographs a part here" not in said  # two in the calibration
    first, second = parts_of(tmp_path / "out")
    rows = [json.loads(text) for text in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert first["score_logit"] == max(row["score_logit"] for row in rows[:2])
    assert second["score_logit"] == rows[2]["score_logit"]
    assert math.isfinite(first["score_logit"])
