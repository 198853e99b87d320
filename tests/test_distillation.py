"""Distillation: a small backbone learns the features of a larger one, from pictures without labels."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from supersimplenet.cli.main import main
from supersimplenet.datasets.synthetic import synthesize
from supersimplenet.datasets.synthetic_config import SyntheticConfig
from supersimplenet.distillation import distill as module
from supersimplenet.distillation.config import DistillConfig
from supersimplenet.distillation.distill import distill
from supersimplenet.distillation.pictures import Crops, drawn_texture
from supersimplenet.distillation.quality import measure_quality
from supersimplenet.errors import ConfigError, DataError, TrainingInterruptedError
from supersimplenet.metrics.ranking import auroc
from supersimplenet.model.backbone import build_backbone
from supersimplenet.model.config import ModelConfig
from supersimplenet.model.subspace import pooled_features
from supersimplenet.preprocessing.images import read_image
from supersimplenet.types import Sample

SMALL = {"teacher": "compact", "student": "resnet10t", "batch_size": 4, "crop_px": (64, 96), "generated": 0.5}
STRIDES = (8, 16)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number, size in enumerate([(90, 130), (200, 70), (300, 310)]):
        small = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
        small.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Good and bad parts of one surface."""
    config = SyntheticConfig(surfaces=("cast_grain",), size_px=(64, 64), train_good=4, test_good=3, test_per_defect=1)
    (folder,) = synthesize(tmp_path_factory.mktemp("surface"), config)
    samples = [Sample(image=path, label=0, split="train") for path in sorted((folder / "train" / "good").iterdir())]
    return samples + [
        Sample(image=path, label=int(path.parent.name != "good"), split="test")
        for path in sorted((folder / "test").glob("*/*.png"))
    ]


def test_crops_depend_on_seed_step_and_place_alone(pictures):
    crops = Crops(pictures, largest_px=96, generated=0.5, seed=3)
    sides = {crops.side_px(step, 64) for step in range(60)}
    assert sides == {64, 80, 96}
    found = {(step, place): crops.crop(step, place, 80) for step in (0, 7) for place in range(5)}
    again = Crops(pictures, largest_px=96, generated=0.5, seed=3)
    for (step, place), pixels in reversed(list(found.items())):
        assert (pixels.shape, pixels.dtype) == ((80, 80, 3), np.uint8)
        assert (again.crop(step, place, 80) == pixels).all()
    other = Crops(pictures, largest_px=96, generated=0.5, seed=4)
    assert any((other.crop(step, place, 80) != pixels).any() for (step, place), pixels in found.items())


def test_crops_are_parts_of_the_pictures_where_none_is_drawn(tmp_path):
    """A picture of two colours gives crops whose colours lie on the line between them, whatever the light."""
    plane = np.zeros((120, 100, 3), dtype=np.uint8)
    plane[:, 50:] = (200, 100, 50)
    Image.fromarray(plane).save(tmp_path / "a.png")
    crops = Crops([tmp_path / "a.png"], largest_px=64, generated=0.0, seed=0)
    for place in range(20):
        values = crops.crop(0, place, 64).reshape(-1, 3).astype(float)
        inside = values[((values > 0) & (values < 255)).all(axis=1)]
        offsets = inside - inside.mean(axis=0)
        _, strength, _ = np.linalg.svd(offsets, full_matrices=False)
        assert strength[1] <= 2.0 * np.sqrt(len(inside))  # one direction, and rounding


def test_drawn_textures_have_the_periods_that_are_wanted():
    frequencies = []
    for seed in range(40):
        texture = drawn_texture(128, np.random.default_rng(seed)).astype(float).mean(axis=-1)
        spectrum = np.abs(np.fft.rfft2(texture - texture.mean()))
        y, x = np.unravel_index(spectrum.argmax(), spectrum.shape)
        frequencies.append(np.hypot(min(y, 128 - y), x) / 128)
    assert min(frequencies) < 1 / 25
    assert max(frequencies) > 1 / 6
    assert max(frequencies) < 1 / 2.5


def test_the_student_comes_closer_to_the_teacher_and_can_be_used(pictures, tmp_path):
    config = DistillConfig(**SMALL | {"crop_px": (64, 64), "batch_size": 2}, steps=200)
    found = distill(pictures, tmp_path / "out", config)
    rows = list(csv.DictReader((tmp_path / "out" / "progress.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["100", "200"]
    first, last = ([float(row[f"loss_stride_{stride}"]) for stride in STRIDES] for row in rows)
    assert all(after < before for before, after in zip(first, last, strict=True))
    assert found.explained == pytest.approx([1 - loss for loss in last], abs=1e-5)
    assert found.explained[0] > 0.1  # of noise, nothing could be given
    assert json.loads((tmp_path / "out" / "distillation.json").read_text())["student"] == "resnet10t"
    weights = load_file(found.weights)
    used = build_backbone(ModelConfig(backbone="resnet10t", backbone_weights=found.weights))
    assert all(torch.equal(value, weights[name]) for name, value in used.net.state_dict().items())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "backbone.safetensors",
        "distillation.json",
        "progress.csv",
    ]


def test_a_stopped_one_goes_on_to_the_same_weights(pictures, tmp_path, monkeypatch):
    config = DistillConfig(**SMALL, steps=8)
    whole = distill(pictures, tmp_path / "whole", config)
    take = module._Run._take_step

    def stopped(run, batch):
        if run._step == 5:
            raise KeyboardInterrupt
        take(run, batch)

    with monkeypatch.context() as patch:
        patch.setattr(module._Run, "_take_step", stopped)
        with pytest.raises(TrainingInterruptedError, match="stopped after 5 of 8 steps; go on with"):
            distill(pictures, tmp_path / "stopped", config)
    with pytest.raises(ConfigError, match="holds a distillation; give --resume"):
        distill(pictures, tmp_path / "stopped", config)
    with pytest.raises(ConfigError, match="of other settings"):
        distill(pictures, tmp_path / "stopped", DistillConfig(**SMALL, steps=9), resume=True)
    resumed = distill(pictures, tmp_path / "stopped", config, resume=True)
    wanted, got = load_file(whole.weights), load_file(resumed.weights)
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    with pytest.raises(ConfigError, match="this distillation has ended"):
        distill(pictures, tmp_path / "stopped", config, resume=True)
    with pytest.raises(ConfigError, match="is not there; begin without --resume"):
        distill(pictures, tmp_path / "none", config, resume=True)
    assert not (tmp_path / "none").exists()


def test_a_time_budget_ends_it(tmp_path):
    found = distill([], tmp_path / "out", DistillConfig(**SMALL | {"generated": 1.0}, steps=10**6), time_budget_s=1.0)
    assert 1 <= found.steps < 1000


def test_features_are_measured_as_by_hand(surface):
    backbone = build_backbone(ModelConfig(backbone="compact"))
    found = measure_quality(backbone, STRIDES, surface, size_px=(64, 64))

    def features(sample: Sample) -> np.ndarray:
        pixels = torch.from_numpy(read_image(sample.image, size_px=(64, 64))[None])
        return pooled_features(backbone(pixels), STRIDES)[0].flatten(0, 1).double().numpy()

    good = np.concatenate([features(sample) for sample in surface if sample.split == "train"])
    tested = [sample for sample in surface if sample.split == "test"]
    labels = [sample.label for sample in tested]
    mean = good.mean(axis=0)
    values, directions = np.linalg.eigh(np.cov(good.T, bias=True))
    shares = np.cumsum(values[::-1]) / values.sum()
    out = directions[:, : len(values) - int((shares < 0.99).sum()) - 1]
    nearest, residual = [], []
    for sample in tested:
        own = features(sample)
        squares = (own**2).sum(1)[:, None] + (good**2).sum(1) - 2 * own @ good.T
        nearest.append(np.sqrt(np.maximum(squares, 0)).min(axis=1).max())
        residual.append(np.sort(np.log(np.linalg.norm((own - mean) @ out, axis=1)))[-10:].mean())
    assert found.nearest_neighbour == pytest.approx(auroc(nearest, labels))
    assert found.subspace == pytest.approx(auroc(residual, labels))


def test_a_dataset_without_good_or_bad_parts_is_refused(surface):
    backbone = build_backbone(ModelConfig(backbone="compact"))
    with pytest.raises(DataError, match="4 good training images, 3 good and 0 bad test images"):
        measure_quality(backbone, STRIDES, [sample for sample in surface if sample.label == 0], size_px=(64, 64))


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"steps": 0}, "steps: 0; wanted 1 or more"),
        ({"crop_px": (100, 128)}, "crop_px: 100 to 128; wanted two ascending multiples of 16"),
        ({"crop_px": (128, 64)}, "crop_px: 128 to 64"),
        ({"generated": 1.5}, "generated: 1.5"),
        ({"learning_rate": 0}, "learning_rate: 0"),
        ({"seed": -1}, "seed: -1"),
    ],
)
def test_wrong_settings_are_said(given, wrong):
    with pytest.raises(ConfigError, match=wrong):
        DistillConfig(**given)


def test_without_pictures_all_must_be_drawn(tmp_path):
    with pytest.raises(ConfigError, match="pictures: none were found"):
        distill([], tmp_path / "out", DistillConfig(**SMALL))
    assert not (tmp_path / "out").exists()


def test_from_the_command_line_with_a_table(pictures, surface, tmp_path, capsys):
    rows = [f"{sample.image},{sample.split},{sample.label}" for sample in surface]
    table = tmp_path / "samples.csv"
    table.write_text("\n".join(["image,split,label", *rows]))
    words = ["distill", str(pictures[0].parent), "--measure-on", str(table), "--size", "64"]
    words += ["--distillation.teacher", "compact", "--distillation.student", "resnet10t", "--distillation.steps", "2"]
    words += ["--distillation.crop_px", "[64,64]", "--distillation.batch_size", "2", "--output", str(tmp_path / "out")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    for kind in ("teacher", "student, before", "student, after", "nearest neighbour", "subspace"):
        assert kind in printed
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [row["backbone"] for row in report] == ["teacher", "before", "after"]
    backbone = build_backbone(ModelConfig(backbone="compact"))
    own = measure_quality(backbone, STRIDES, surface, size_px=(64, 64))
    assert report[0]["quality"] == {"nearest_neighbour": own.nearest_neighbour, "subspace": own.subspace}
