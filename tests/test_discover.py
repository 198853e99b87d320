"""`train PATH`: a dataset found by the names of its folders, or refused with the commands that may be right."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from test_compare import make_calibration

from supersimplenet.cli.common import print_better_guarantee
from supersimplenet.cli.main import main
from supersimplenet.datasets.discover import discover
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.types import BAD, GOOD


def draw(folder: Path, *names: str, marked: bool = False) -> None:
    """Put a photograph of noise into a folder for each name; of masks: a mark in each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        seed = sum(map(ord, str(folder / name)))
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        if marked:
            pixels = np.zeros((40, 48), dtype=np.uint8)
            pixels[4:9, 4:9] = 255
        Image.fromarray(pixels).save(folder / f"{name}.png")


def found(samples) -> dict[tuple[str, int, str], int]:
    """Number of samples by split, label and type."""
    counts: dict[tuple[str, int, str], int] = {}
    for sample in samples:
        key = (sample.split, sample.label, sample.defect)
        counts[key] = counts.get(key, 0) + 1
    return counts


def numbers(count: int, first: int = 0) -> list[str]:
    return [f"{number:03d}" for number in range(first, first + count)]


@pytest.mark.parametrize(("good", "bad", "masks"), [("good", "bad", "masks"), ("OK", "NG", "Ground_Truth")])
def test_good_bad_and_masks(tmp_path, good, bad, masks):
    draw(tmp_path / good, *numbers(10))
    draw(tmp_path / bad / "dent", *numbers(6))
    draw(tmp_path / bad / "pit", *numbers(4))
    draw(tmp_path / masks / "dent", *numbers(6), marked=True)
    draw(tmp_path / masks / "pit", *numbers(2), marked=True)
    dataset = discover(tmp_path)
    assert dataset.lines[0] == (
        f"{tmp_path}: 10 good ({good}); 10 bad: dent 6, pit 4 ({bad}); masks for 8 of these ({masks})"
    )
    samples = dataset.source.samples()
    assert found(samples) == {
        ("train", GOOD, "good"): 8,
        ("train", BAD, "dent"): 3,
        ("train", BAD, "pit"): 2,
        ("test", GOOD, "good"): 2,
        ("test", BAD, "dent"): 3,
        ("test", BAD, "pit"): 2,
    }
    assert all(s.mask == tmp_path / masks / s.defect / s.image.name for s in samples if s.mask is not None)
    assert sum(sample.mask is not None for sample in samples) == 8


def test_a_folder_for_each_type_and_few_bad_images(tmp_path):
    draw(tmp_path / "normal", *numbers(10))
    draw(tmp_path / "scratch", *numbers(3))
    draw(tmp_path / "hole", *numbers(4))  # the same names: the masks' folders tell them apart
    draw(tmp_path / "labels" / "hole", *numbers(4), marked=True)
    (tmp_path / "notes").mkdir()  # without an image
    dataset = discover(tmp_path)
    assert "all bad ones, which are fewer than 8" in dataset.lines[1]
    samples = dataset.source.samples()
    assert found(samples)["test", BAD, "scratch"] == 3
    assert {s.defect: s.mask is not None for s in samples} == {"good": False, "scratch": False, "hole": True}


def test_folders_of_both_splits(tmp_path):
    draw(tmp_path / "train" / "ok", *numbers(6))
    draw(tmp_path / "train" / "defect", *numbers(2, first=10))
    draw(tmp_path / "val" / "ok", *numbers(3, first=20))
    draw(tmp_path / "val" / "defect", *numbers(2, first=30))
    dataset = discover(tmp_path)
    assert dataset.lines[1] == "no masks"
    assert found(dataset.source.samples()) == {
        ("train", GOOD, "good"): 6,
        ("train", BAD, "defect"): 2,
        ("test", GOOD, "good"): 3,
        ("test", BAD, "defect"): 2,
    }


@pytest.mark.parametrize("whole", [True, False])
def test_the_layout_of_mvtec_with_and_without_all_masks(tmp_path, whole):
    draw(tmp_path / "train" / "good", *numbers(5))
    draw(tmp_path / "test" / "good", *numbers(2))
    draw(tmp_path / "test" / "crack", *numbers(3))
    draw(tmp_path / "test" / "hole", *numbers(3))
    for defect in ("crack", "hole"):
        draw(tmp_path / "ground_truth" / defect, *(f"{n}_mask" for n in numbers(3 if whole else 2)), marked=True)
    dataset = discover(tmp_path)
    assert type(dataset.source).__name__ == ("MVTecAD" if whole else "Folder")
    masks = {s.image: s.mask for s in dataset.source.samples() if s.mask}
    assert len(masks) == (6 if whole else 4)
    for image, mask in masks.items():
        assert (mask.parent.name, mask.stem) == (image.parent.name, f"{image.stem}_mask")


def test_folders_between_as_visa_has_them(tmp_path):
    draw(tmp_path / "Data" / "Images" / "Normal", *numbers(5))
    draw(tmp_path / "Data" / "Images" / "Anomaly", *numbers(3, first=50))
    draw(tmp_path / "Data" / "Masks" / "Anomaly", *numbers(3, first=50), marked=True)
    dataset = discover(tmp_path)
    assert dataset.lines[0].endswith("5 good (Normal); 3 bad (Anomaly); masks for all (Masks)")


def test_kolektor_and_tables(tmp_path):
    for split in ("train", "test"):
        draw(tmp_path / "k" / split, "1", "2")
        draw(tmp_path / "k" / split, "1_GT", "2_GT", marked=True)
    assert type(discover(tmp_path / "k").source).__name__ == "KSDD2"
    table = tmp_path / "samples.csv"
    table.write_text("image,split,label\nk/train/1.png,train,good\n")
    assert [sample.image.name for sample in discover(table).source.samples()] == ["1.png"]


def test_nothing_is_dropped_in_silence(tmp_path):
    draw(tmp_path / "parts", "stray")
    draw(tmp_path / "parts" / "good", *numbers(3))
    stray = tmp_path / "parts" / "stray.png"
    assert discover(tmp_path / "parts").lines[0].endswith(f"left out: 1 image beside these folders, such as {stray}")

    draw(tmp_path / "splits" / "train" / "good", *numbers(3))
    for number, split in enumerate(("test", "val")):  # both are for the test
        draw(tmp_path / "splits" / split / "good", *numbers(2, first=10 + 5 * number))
        draw(tmp_path / "splits" / split / "dent", *numbers(1, first=30 + 5 * number))
    draw(tmp_path / "splits" / "ground_truth" / "dent", "030_mask", "035_mask", marked=True)
    samples = discover(tmp_path / "splits").source.samples()
    assert found(samples) == {("train", GOOD, "good"): 3, ("test", GOOD, "good"): 4, ("test", BAD, "dent"): 2}
    assert all(sample.mask is not None for sample in samples if sample.label == BAD)


def test_a_link_to_a_parent_is_no_endless_loop(tmp_path):
    draw(tmp_path / "data" / "good", *numbers(3))
    (tmp_path / "data" / "data").symlink_to(tmp_path / "data")
    with pytest.raises((ConfigError, DataError)):  # the images are found twice
        discover(tmp_path / "data").source.samples()


def unclear(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        discover(path)
    return caught.value


def test_what_is_not_clear_is_refused_with_commands(tmp_path):
    draw(tmp_path / "mixed", *numbers(3))
    error = unclear(tmp_path / "mixed")
    assert "3 images, and nothing says which are good" in str(error)
    assert error.commands[0] == ("if all are good", f"supersimplenet train --data Folder --data.good {tmp_path}/mixed")

    draw(tmp_path / "parts" / "A", *numbers(3))
    draw(tmp_path / "parts" / "B", *numbers(3, first=5))
    error = unclear(tmp_path / "parts")
    assert "holds A, B; none is named good, ok or normal" in str(error)
    assert error.commands[0][0] == "if A holds the good ones"

    draw(tmp_path / "parts" / "good", *numbers(3, first=10))
    draw(tmp_path / "parts" / "bad", *numbers(3, first=20))
    error = unclear(tmp_path / "parts")
    assert "holds good and bad parts, and A, B, whose names say neither" in str(error)
    assert [case for case, _ in error.commands] == ["to leave them out", "if they are bad parts"]

    draw(tmp_path / "splits" / "train", *numbers(3))
    draw(tmp_path / "splits" / "test" / "good", *numbers(3))
    assert "3 images, and nothing says that all are good" in str(unclear(tmp_path / "splits"))

    for split in ("train", "test"):
        draw(tmp_path / "both" / split / "ok", *numbers(3))
        draw(tmp_path / "both" / split / "ng", *numbers(3))
    draw(tmp_path / "both" / "test" / "odd", *numbers(3))
    without, with_them = (command for _, command in unclear(tmp_path / "both").commands)
    assert f"--data.train_bad {tmp_path}/both/train/ng" in without
    assert f"--data.bad {tmp_path}/both/test/ng" in without
    assert f'"{tmp_path}/both/test/odd"' in with_them

    draw(tmp_path / "many" / "bottle" / "train" / "good", *numbers(3))
    assert "holds 1 dataset; name one" in str(unclear(tmp_path / "many"))

    draw(tmp_path / "beside" / "good", *numbers(3))
    draw(tmp_path / "beside" / "bad", *numbers(3), *(f"{n}_mask" for n in numbers(3)))
    assert "000_mask.png: a mask among the images, and 2 more" in str(unclear(tmp_path / "beside"))

    draw(tmp_path / "yolo" / "good", *numbers(3))
    (tmp_path / "yolo" / "labels").mkdir()
    (tmp_path / "yolo" / "labels" / "000.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    assert "no image in it; wanted masks as images" in str(unclear(tmp_path / "yolo"))

    (tmp_path / "empty").mkdir()
    assert "no image in it" in str(unclear(tmp_path / "empty"))
    (tmp_path / "notes.txt").write_text("")
    assert "a file; wanted a folder of photographs, or a table" in str(unclear(tmp_path / "notes.txt"))


def test_the_commands_that_are_offered_are_right(tmp_path, capsys):
    draw(tmp_path / "with space" / "good", *numbers(3))
    draw(tmp_path / "with space" / "bad", *numbers(3, first=20))
    draw(tmp_path / "with space" / "odd, name", *numbers(3, first=10))
    assert main(["train", str(tmp_path / "with space")]) == 2
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith("supersimplenet train: ")
    commands = [line.strip() for line in rest if line.startswith("    ")]
    assert len(commands) == 2
    bad, odd = str(tmp_path / "with space" / "bad"), str(tmp_path / "with space" / "odd, name")
    for command, wanted in zip(commands, (bad, [bad, odd]), strict=True):
        with pytest.raises(SystemExit) as stop:
            main([*shlex.split(command)[1:], "--print_config"])
        assert stop.value.code == 0
        assert yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["bad"] == wanted


def test_train_takes_the_folder_and_what_is_typed_wins(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(Path("parts") / "good", *numbers(10))
    for output in ("runs/parts", "runs/parts-2"):
        assert main(["train", "parts", "--trainer.max_epochs", "0", "--model.image_size", "[64,64]"]) == 0
        said = capsys.readouterr()
        assert "parts: 10 good (good)" in said.err
        assert "--model.backbone=compact --recipe.batch_size=8" in said.err
        assert "max_steps" not in said.err  # a length was typed
        assert f"trained: {output}" in said.out
        assert (  # of eight good images one is held out
            "to sign 10 % or 5 %: 29 or 59 good parts that the model has not seen, "
            f"supersimplenet calibrate --model {output} --good DIR"
        ) in said.out
    with pytest.raises(SystemExit):
        main(["train", "parts", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["trainer"]["max_steps"], printed["time_budget"]) == (800, "15m")
    assert printed["data"]["init_args"]["good"] == "parts/good"
    assert main(["train", "parts", "--data", "Folder", "--data.good", "parts/good"]) == 2
    assert "PATH: parts: the dataset is named already" in capsys.readouterr().err
    assert main(["train", "nowhere"]) == 2
    assert "PATH: nowhere: no such file or folder" in capsys.readouterr().err


def test_options_of_the_dataset_may_be_typed_beside_the_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(Path("parts") / "good", *numbers(10))
    draw(Path("parts") / "bad", *numbers(8))
    call = ["parts", "--data.test_fraction", "0", "--data.bad_train_fraction=0.25", "--print_config"]
    with pytest.raises(SystemExit):
        main(["train", *call])
    printed = capsys.readouterr()
    given = yaml.safe_load(printed.out)["data"]["init_args"]
    assert (given["test_fraction"], given["bad_train_fraction"], given["good"]) == (0, 0.25, "parts/good")
    full = next(line for line in printed.err.splitlines() if line.startswith("the same in full: "))
    again = shlex.split(full.removeprefix("the same in full: supersimplenet "))
    assert "parts" not in again
    with pytest.raises(SystemExit):
        main(again)
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(printed.out) | {"path": None}
    assert main(["data", "check", "parts", "--data.test_fraction", "0", "--output", "check"]) == 0
    assert "data check --data Folder --data.good parts/good" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("typed", [["parts", "--output", "parts"], ["--output", "parts", "parts/"]])
def test_the_command_in_full_keeps_a_value_that_is_the_folders_name(typed, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(Path("parts") / "good", *numbers(10))
    with pytest.raises(SystemExit):
        main(["train", *typed, "--print_config"])
    full = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("the same in full: "))
    assert full.endswith(" --output parts --print_config")


def test_a_folder_is_split_anew_and_the_printed_command_trains_on_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(Path("parts") / "good", *numbers(10))
    draw(Path("parts") / "bad", *numbers(4))
    assert main(["data", "split", "parts", "--output", "split.csv"]) == 0
    train = capsys.readouterr().out.splitlines()[-1].removeprefix("train: supersimplenet ")
    assert train == "train split.csv"
    with pytest.raises(SystemExit):
        main([*train.split(), "--print_config"])
    settings = yaml.safe_load(capsys.readouterr().out)
    assert settings["data"]["init_args"]["path"] == "split.csv"
    assert settings["model"]["backbone"] == "compact"
    assert main(["data", "split", "--output", "split.csv"]) == 2
    assert "data: not given; name a folder of photographs" in " ".join(capsys.readouterr().err.split())


def test_a_training_folder_without_a_test_is_divided_by_chance(tmp_path):
    draw(tmp_path / "slabs" / "train" / "good", *numbers(10))
    draw(tmp_path / "slabs" / "train" / "crack", *numbers(8))
    dataset = discover(tmp_path / "slabs")
    assert "chance divides them" in dataset.lines[1]
    counts = Counter((sample.split, sample.label) for sample in dataset.source.samples())
    assert counts == {("train", 0): 8, ("test", 0): 2, ("train", 1): 4, ("test", 1): 4}


@pytest.mark.parametrize(
    ("good_parts", "advice"),
    [
        (99, "or with the 99 good parts of the training: --trainer.holdout_fraction 0.6 keeps 59 of them out of it"),
        (72, "holdout_fraction 0.41 keeps 29 of them out of it, to sign 10 %"),
        (40, None),
    ],
)
def test_a_training_says_which_of_its_own_parts_would_sign_more(good_parts, advice, capsys):
    calibration = replace(make_calibration(), max_false_alarms=0.182, confidence=0.95)
    print_better_guarantee(calibration, Path("runs/parts"), good_parts)
    said = " ".join(capsys.readouterr().out.split())
    assert ("or with" in said) == (advice is not None)
    assert advice is None or advice in said
