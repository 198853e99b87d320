"""Photographs that calibrate and seem to show a part twice are told, because the guarantee counts each as a part."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from supersimplenet import Detector
from supersimplenet.cli.main import main
from supersimplenet.datasets.checks.check import check
from supersimplenet.datasets.folder import Folder
from supersimplenet.evaluation import repeated_parts
from supersimplenet.evaluation.evaluate import evaluate
from supersimplenet.evaluation.rates import numbers_of
from supersimplenet.evaluation.repeated_parts import describe_repeated_parts
from supersimplenet.inference.image_records import read_image_records
from supersimplenet.preprocessing.reading import FULL_RANGE
from supersimplenet.report.cautions import find_cautions
from supersimplenet.types import GOOD, Sample

SEEM = "seem to show a part that was photographed more than once"
TRAIN = ("--model.backbone=compact", "--model.image_size=[64,64]", "--trainer.max_epochs=0")


def photograph(folder: Path, part: int, shot: int = 0) -> Path:
    """A part with a structure of its own; each shot is a crop of it, shifted by 4 px of 64, in another light."""
    structure = ndimage.gaussian_filter(np.random.default_rng(part).standard_normal((72, 72)), 2.5)
    crop = (structure / structure.std())[4 * shot : 4 * shot + 64, :64]
    path = folder / f"part{part:02d}_{shot}.png"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(110 + 10 * shot + 35 * crop, 0, 255).astype(np.uint8)).save(path)
    return path


def train(good: Path, output: Path, *options: str) -> None:
    source = ["--data", "Folder", f"--data.good={good}", "--data.test_fraction=0.2"]
    assert main(["train", *source, f"--output={output}", *TRAIN, "--trainer.holdout_fraction=0.4", *options]) == 0


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 parts, of which 12 were photographed twice."""
    root = tmp_path_factory.mktemp("repeated")
    for part in range(40):
        for shot in range(2 if part < 12 else 1):
            photograph(root / "good", part, shot)
    return root


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 40 parts, each photographed once."""
    root = tmp_path_factory.mktemp("single")
    for part in range(40):
        photograph(root / "good", part)
    train(root / "good", root / "model")
    return root


def test_a_training_tells_how_many_held_out_photographs_show_a_part_again(repeated, capsys):
    train(repeated / "good", repeated / "model")
    records = [record for record in read_image_records(repeated / "model") if record.split == "train"]
    shots = Counter(record.name.split("_")[0] for record in records)
    held_out = [record.name for record in records if record.role == "held-out"]
    again = [name for name in held_out if shots[name.split("_")[0]] > 1]
    assert 0 < len(again) < len(held_out)
    calibrated, warning = (line for line in capsys.readouterr().err.splitlines() if line.startswith(("calib", "warn")))
    assert f"({len(held_out)} good parts, " in calibrated
    assert warning.startswith(f"warning: {len(again)} of the {len(held_out)} photographs that calibrate {SEEM} (part")
    assert "--data.group_pattern" in warning
    assert main(["calibrate", f"--model={repeated / 'model'}"]) == 0  # the same, again from the record
    assert warning in capsys.readouterr().out.splitlines()


def test_named_groups_tell_the_parts_apart(repeated, capsys):
    train(repeated / "good", repeated / "named", r"--data.group_pattern=(part\d+)_")
    printed = capsys.readouterr().err
    assert "calibrated: " in printed
    assert SEEM not in printed


def test_photographs_of_the_line_are_compared_with_each_other_and_with_those_trained_on(single, capsys):
    """Of 17 photographs, 3 pairs show one part, and two a part that was trained on."""
    new = single / "new"
    for part in range(100, 112):
        photograph(new, part)
    for part in range(100, 103):
        photograph(new, part, 1)
    trained = [r.name for r in read_image_records(single / "model") if r.role == "trained"]
    for name in trained[:2]:
        photograph(new, int(name[4:6]), 1)
    calibrate = ["calibrate", f"--model={single / 'model'}", f"--good={new}"]
    assert main(calibrate) == 0
    assert f"warning: 8 of the 17 photographs that calibrate {SEEM}" in capsys.readouterr().out
    assert main([*calibrate, r"--group-pattern=(part\d+)_"]) == 0
    assert SEEM not in capsys.readouterr().out


def test_parts_that_were_photographed_once_give_no_warning(single, capsys):
    assert main(["calibrate", f"--model={single / 'model'}"]) == 0
    printed = capsys.readouterr().out
    assert "calibrated: " in printed
    assert SEEM not in printed


def test_what_cannot_be_compared_is_passed_over(tmp_path, monkeypatch):
    samples = [Sample(image=photograph(tmp_path, part), label=GOOD, split="train") for part in range(20)]
    samples.append(replace(samples[0], image=photograph(tmp_path, 0, 1)))
    copy = tmp_path / "copy.png"
    copy.write_bytes(samples[5].image.read_bytes())
    samples.append(replace(samples[5], image=copy))  # one part already

    def told() -> str | None:
        return describe_repeated_parts(samples, reading=FULL_RANGE, advice="do so")

    assert told() == (
        f"warning: 2 of the 22 photographs that calibrate {SEEM} (part00_0.png and part00_1.png): the guarantee counts "
        "each photograph as a part, so do not sign it; do so"
    )
    samples[0].image.write_bytes(b"")
    assert told() is None
    monkeypatch.setattr(repeated_parts, "MOST_IMAGES", 21)
    assert told() == "not searched for parts that were photographed more than once: more than 21 images"


def test_the_report_says_that_the_guarantee_counts_photographs(repeated, tmp_path):
    output = tmp_path / "model"
    train(repeated / "good", output)
    detector = Detector.load(output)
    samples = Folder(good=repeated / "good", test_fraction=0.2).samples()
    evaluation = evaluate(detector, samples)
    numbers = numbers_of(evaluation)

    def texts(samples: list[Sample]) -> list[str]:
        findings = check(samples).findings
        found = find_cautions(evaluation, numbers, record=detector.record, findings=findings, costs=None)
        return [caution.text for caution in found if caution.level == "grave"]

    shots = Counter(sample.image.name[:6] for sample in samples if sample.split == "train")
    parts = sum(number > 1 for number in shots.values())
    assert parts > 0
    wanted = f"The guarantee counts each photograph as a part, and training images seem to show {parts} parts more than"
    assert any(text.startswith(wanted) for text in texts(samples))
    named = [replace(sample, group=sample.image.name[:6]) for sample in samples]
    assert not any("The guarantee counts" in text for text in texts(named))
