"""Training: the caches agree, a seed decides everything, and a killed run ends as an uninterrupted one."""

from __future__ import annotations

import csv
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import constants
from safetensors.torch import load_file

from supersimplenet import SyntheticConfig, synthesize
from supersimplenet.datasets.base import DataSource, sort_samples
from supersimplenet.datasets.mvtec import MVTecAD
from supersimplenet.datasets.splits import hold_out
from supersimplenet.errors import ConfigError, DataError, ImageError, OutputError
from supersimplenet.model.backbone import Backbone, build_backbone
from supersimplenet.model.config import PUBLISHED_BACKBONE, ModelConfig, Recipe
from supersimplenet.model.heads import Heads
from supersimplenet.model.hub_record import record_fingerprint
from supersimplenet.preprocessing.images import read_image
from supersimplenet.preprocessing.preprocessor import Preprocessor
from supersimplenet.training.config import CacheConfig, TrainerConfig, parse_duration
from supersimplenet.training.feature_cache import CachedFeatures
from supersimplenet.training.features import gather_features, measure_feature_scale
from supersimplenet.training.module import TrainingModule, build_optimizer
from supersimplenet.training.plan import resolve_noise_std
from supersimplenet.training.train import train
from supersimplenet.types import BAD, GOOD, Sample
from supersimplenet.utils.files import file_sha256
from supersimplenet.utils.seeding import derive_seed

SIZE = (64, 64)
MODEL = ModelConfig(backbone="compact", image_size=SIZE)
RECIPE = Recipe(batch_size=4)


@pytest.fixture(scope="session")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("surfaces")
    synthesize(
        root,
        SyntheticConfig(surfaces=("brushed_metal",), size_px=SIZE, train_good=10, test_good=2, test_per_defect=1),
    )
    return root


@pytest.fixture
def metal(surfaces: Path) -> MVTecAD:
    return MVTecAD(root=surfaces, category="brushed_metal")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_one_seed_decides_everything(metal, tmp_path):
    def run(name: str, seed: int) -> dict[str, torch.Tensor]:
        train(
            metal,
            output=tmp_path / name,
            model=MODEL,
            recipe=RECIPE,
            trainer=TrainerConfig(max_epochs=2, accelerator="cpu"),
            seed=seed,
        )
        return weights(tmp_path / name)

    first, again, other = run("first", 0), run("again", 0), run("other", 1)
    assert same(first, again)
    assert not any(torch.equal(first[n], other[n]) for n in first if n.endswith("weight"))


COMMAND = [sys.executable, "-m", "supersimplenet", "train"]


def twelve_epochs(root: Path, output: Path) -> list[str]:
    """The command of a training that is long enough for a signal to come before its end."""
    return [
        *(*COMMAND, "--data", "MVTecAD", "--data.root", str(root), "--data.category", "brushed_metal"),
        *("--model.backbone", "compact", "--model.image_size", "[64,64]", "--recipe.batch_size", "4"),
        *("--trainer.max_epochs", "12", "--trainer.accelerator", "cpu", "--output", str(output)),
    ]


@pytest.fixture(scope="module")
def uninterrupted(surfaces: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], tuple[Path, Path]]:
    """Return the dataset and the model of a training that nothing stopped, supervised or not."""

    @functools.cache
    def run(supervised: bool) -> tuple[Path, Path]:
        folder = tmp_path_factory.mktemp("uninterrupted")
        root = folder / "data"
        shutil.copytree(surfaces, root)
        if supervised:  # a type of defect, with its masks, becomes one of the training split
            defects = (path for path in (root / "brushed_metal" / "test").iterdir() if path.name != "good")
            first = min(defects)
            first.rename(root / "brushed_metal" / "train" / first.name)
        subprocess.run(twelve_epochs(root, folder / "model"), check=True, capture_output=True)
        return root, folder / "model"

    return run


@pytest.mark.parametrize(
    ("stop", "supervised"),
    [
        pytest.param("interrupted", False, marks=pytest.mark.slow),
        pytest.param("killed", True, marks=pytest.mark.slow),
        ("killed", False),
        pytest.param("terminated", False, marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_resumes_to_the_weights_of_an_uninterrupted_one(uninterrupted, tmp_path, stop, supervised):
    root, whole = uninterrupted(supervised)
    stopped = tmp_path / "stopped"
    process = subprocess.Popen(
        twelve_epochs(root, stopped),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job has it ignored
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    )
    checkpoint = stopped / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    signals = {"killed": signal.SIGKILL, "terminated": signal.SIGTERM, "interrupted": signal.SIGINT}
    os.kill(process.pid, signals[stop])
    try:
        _, message = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # it then says where each of its threads is
        pytest.fail(process.communicate()[1])
    assert process.returncode != 0
    assert not (stopped / "model.safetensors").exists()
    if stop != "killed":
        assert f"continue with: supersimplenet train --resume --output {stopped}" in message.replace("\n", " ")

    subprocess.run([*COMMAND, "--resume", "--output", str(stopped)], check=True, capture_output=True)
    assert same(weights(whole), weights(stopped))
    regime = yaml.safe_load((stopped / "config.yaml").read_text())["training"]["regime"]
    assert regime == ("full" if supervised else "unsupervised")


def test_resume_refuses_other_settings_other_images_and_a_finished_run(metal, tmp_path):
    output = tmp_path / "run"
    short = TrainerConfig(max_epochs=1, accelerator="cpu")
    train(metal, output=output, model=MODEL, recipe=RECIPE, trainer=short)
    with pytest.raises(OutputError, match="this training is finished"):
        train(metal, output=output, model=MODEL, recipe=RECIPE, trainer=short, resume=True)
    with pytest.raises(OutputError, match="holds a model or an unfinished run already"):
        train(metal, output=output, model=MODEL, recipe=RECIPE, trainer=short)
    (output / "model.safetensors").unlink()
    differing = r"other settings; differing: seed 0 there, 1 here; recipe.batch_size 4 there, 3 here; leave them"
    with pytest.raises(ConfigError, match=differing):
        train(metal, output=output, model=MODEL, recipe=Recipe(batch_size=3), trainer=short, seed=1, resume=True)
    (metal.root / "brushed_metal" / "train" / "good" / "extra.png").write_bytes(
        (metal.root / "brushed_metal" / "train" / "good" / "000.png").read_bytes()
    )
    try:
        with pytest.raises(DataError, match="the training images, their labels or masks changed since this run began"):
            train(metal, output=output, model=MODEL, recipe=RECIPE, trainer=short, resume=True)
    finally:
        (metal.root / "brushed_metal" / "train" / "good" / "extra.png").unlink()


def test_memory_disk_and_recomputed_features_give_the_same_losses(metal, tmp_path):
    paths = [sample.image for sample in metal.samples() if sample.split == "train"]
    backbone = build_backbone(MODEL)
    caches = {
        "memory": CacheConfig(),
        "disk": CacheConfig(memory_gib=0),
        "recomputed": CacheConfig(memory_gib=10 * 64 * 64 * 3 / 2**30, disk_gib=0),  # only the pixels fit
        "read again": CacheConfig(memory_gib=0, disk_gib=0),
    }
    losses = {}
    for name, cache in caches.items():
        (tmp_path / name).mkdir()
        source, index, failures = gather_features(
            backbone, paths, preprocessor=Preprocessor.stretch(SIZE), cache=cache, folder=tmp_path / name
        )
        assert source.location == {"read again": "recomputed"}.get(name, name)
        assert index == list(range(10))
        assert failures == []
        heads = Heads(backbone.channels, variant="jims", align_corners=True, generator=torch.Generator().manual_seed(0))
        module = TrainingModule(heads, source, recipe=RECIPE, seed=0)
        module.noise_std = 0.05
        optimizer = build_optimizer(heads, RECIPE)
        losses[name] = []
        for step in range(3):
            optimizer.zero_grad()
            loss = module.loss(torch.arange(4) + step, derive_seed(0, step))
            loss.backward()
            optimizer.step()
            losses[name].append(loss.item())
    assert losses["memory"] == losses["disk"]
    # The same float32 features; only the batches they are computed in differ.
    assert losses["recomputed"] == pytest.approx(losses["read again"], rel=1e-6)
    # float16 keeps 11 bits of a feature, so features differ by up to 1 part in 2048; losses average over many of them.
    assert source.dtype == torch.float32
    assert losses["memory"] == pytest.approx(losses["recomputed"], rel=3e-4)


@pytest.mark.parametrize(
    "cache", [CacheConfig(), CacheConfig(memory_gib=0), CacheConfig(memory_gib=0, disk_gib=0)], ids=str
)
def test_each_view_has_the_features_of_the_flipped_image(metal, tmp_path, cache):
    paths = [sample.image for sample in metal.samples() if sample.split == "train"][:3]
    backbone = build_backbone(MODEL)
    read = []
    source, index, _ = gather_features(
        backbone,
        paths,
        flip_counts=[4, 1, 4],
        preprocessor=Preprocessor.stretch(SIZE),
        cache=cache,
        folder=tmp_path,
        progress=read.append,
    )
    assert (index, sum(read)) == ([0, 1, 2], 3)  # each image is decoded once
    assert source.flip_index.rows() == [[0, 1, 2, 3], [4], [5, 6, 7, 8]]
    for row, axes in ((0, ()), (1, (0,)), (2, (1,)), (3, (0, 1)), (4, ()), (7, (1,))):
        image = read_image(paths[[0, 0, 0, 0, 1, 2, 2, 2, 2][row]], size_px=SIZE)
        expected = backbone(torch.from_numpy(np.flip(image, axes).copy())[None])
        for found, wanted in zip(source.features(torch.tensor([row])), expected, strict=True):
            # float16 keeps 11 bits, half a unit in the last of them is 1 part in 2048.
            torch.testing.assert_close(found.float(), wanted, rtol=1 / 2048, atol=1e-5)


def test_disk_cache_is_removed_after_training(metal, tmp_path):
    train(
        metal,
        output=tmp_path / "run",
        model=MODEL,
        recipe=RECIPE,
        trainer=TrainerConfig(max_steps=1, accelerator="cpu"),
        cache=CacheConfig(memory_gib=0),
    )
    record = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert record["training"]["features"] == "disk"
    assert not list((tmp_path / "run").glob("*.cache"))


def test_an_unreadable_training_image_stops_or_is_listed(surfaces, tmp_path):
    root = tmp_path / "damaged"
    synthesize(root, SyntheticConfig(surfaces=("cast_grain",), size_px=SIZE, train_good=5, test_good=1))
    broken = root / "cast_grain" / "train" / "good" / "001.png"
    broken.write_bytes(broken.read_bytes()[:500])
    data = MVTecAD(root=root, category="cast_grain")
    short = TrainerConfig(max_steps=1, accelerator="cpu")
    with pytest.raises(ImageError, match=r"001\.png: truncated"):
        train(data, output=tmp_path / "run", model=MODEL, recipe=RECIPE, trainer=short)
    assert not (tmp_path / "run" / "config.yaml").exists()
    train(data, output=tmp_path / "run", model=MODEL, recipe=RECIPE, trainer=short, on_error="skip")
    record = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]
    assert (record["good_images"], record["held_out_images"]) == (3, 1)
    assert [Path(entry["path"]).name for entry in record["skipped"]] == ["001.png"]


def test_time_budget_sets_epochs_and_schedule_and_is_saved(metal, tmp_path):
    train(
        metal,
        output=tmp_path / "run",
        model=MODEL,
        recipe=RECIPE,
        trainer=TrainerConfig(max_epochs=20, accelerator="cpu", holdout_fraction=0),
        time_budget="6s",
    )
    plan = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]["plan"]
    assert plan["total_steps"] == 3 * plan["epochs"]  # 10 images in steps of 4
    assert 1 <= plan["epochs"] <= 20
    if plan["epochs"] not in (1, 20):  # neither bound was met: the epochs are what fits, and one more would not
        assert plan["epochs"] * 3 * plan["seconds_per_step"] <= 6
    rates = learning_rates(tmp_path / "run")
    assert len(rates) == plan["total_steps"]


def learning_rates(folder: Path) -> list[float]:
    """The heads' rate of each step, from the CSV log's step count and the recipe's schedule in the checkpoint."""
    with (folder / "logs" / "csv" / "version_0" / "metrics.csv").open() as file:
        return [float(row["lr_heads"]) for row in csv.DictReader(file) if row["lr_heads"]]


def test_learning_rates_fall_at_80_and_90_percent(metal, tmp_path):
    train(
        metal,
        output=tmp_path / "run",
        model=MODEL,
        recipe=Recipe(batch_size=10),
        trainer=TrainerConfig(max_epochs=10, accelerator="cpu"),
    )
    expected = [2e-4] * 8 + [0.8e-4] + [0.32e-4]
    assert learning_rates(tmp_path / "run") == pytest.approx(expected)


def test_max_steps_ends_the_run_and_sets_the_schedule(metal, tmp_path):
    train(
        metal,
        output=tmp_path / "run",
        model=MODEL,
        recipe=RECIPE,
        trainer=TrainerConfig(max_steps=5, accelerator="cpu", holdout_fraction=0),
    )
    plan = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]["plan"]
    assert (plan["epochs"], plan["total_steps"]) == (2, 5)
    # 80 % and 90 % of 5 steps both round to 4.
    assert learning_rates(tmp_path / "run") == pytest.approx([2e-4] * 4 + [0.32e-4])


def test_holdout_keeps_whole_groups_out_of_training(metal, tmp_path):
    train(
        metal,
        output=tmp_path / "run",
        model=MODEL,
        recipe=RECIPE,
        trainer=TrainerConfig(max_epochs=2, accelerator="cpu", holdout_fraction=0.3),
    )
    record = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]
    assert (record["good_images"], record["held_out_images"]) == (7, 3)
    with (tmp_path / "run" / "logs" / "csv" / "version_0" / "metrics.csv").open() as file:
        losses = [float(row["holdout_loss"]) for row in csv.DictReader(file) if row["holdout_loss"]]
    assert len(losses) == 2
    assert all(0 < loss < 10 for loss in losses)


def test_holdout_keeps_the_images_of_a_part_together(metal, tmp_path):
    samples = [replace(s, group=f"part {i // 5}") for i, s in enumerate(metal.samples()) if s.split == "train"]
    held = hold_out(samples, 0.3, seed=0)
    assert sorted(held) in ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9])
    assert hold_out(samples, 0.0, seed=0) == set()
    assert len(hold_out(samples, 0.99, seed=0)) == 5  # one part is left to train on


def test_a_run_stopped_before_its_first_checkpoint_keeps_its_plan(metal, tmp_path):
    settings = {
        "output": tmp_path / "run",
        "model": MODEL,
        "recipe": RECIPE,
        "trainer": TrainerConfig(max_epochs=3, accelerator="cpu"),
        "cache": CacheConfig(memory_gib=0),
        "time_budget": "1h",
    }
    train(metal, **settings)
    whole = weights(tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    config = tmp_path / "run" / "config.yaml"
    record = yaml.safe_load(config.read_text())
    record["training"]["plan"]["seconds_per_step"] = 123.0  # measured anew, it would be another
    config.write_text(yaml.safe_dump(record))
    train(metal, **settings, resume=True)
    assert yaml.safe_load(config.read_text())["training"]["plan"]["seconds_per_step"] == 123.0
    assert same(whole, weights(tmp_path / "run"))


def test_noise_follows_the_scale_of_the_features(tmp_path, monkeypatch):
    """Definition: 0.4 times the measured scale; the published 0.015 for the published backbone alone."""
    generator = torch.Generator().manual_seed(0)
    shapes = [torch.Size((4, 4, 2)), torch.Size((2, 2, 6))]
    rows = torch.randn(10, 4 * 4 * 2 + 2 * 2 * 6, generator=generator)
    rows[:, 32:] *= 3
    single = CachedFeatures(rows, shapes, "memory")
    double = CachedFeatures(2 * rows, shapes, "memory")
    scale = measure_feature_scale(single, range(10))
    by_hand = ((2 * rows[:, :32].var(unbiased=False) + 6 * rows[:, 32:].var(unbiased=False)) / 8) ** 0.5
    assert scale == pytest.approx(by_hand.item(), rel=1e-5)  # the reference sums in float32
    assert measure_feature_scale(double, range(10)) == pytest.approx(2 * scale, rel=1e-6)

    def noise(model: ModelConfig, origin: str, recipe: Recipe | None = None) -> float:
        backbone = Backbone(torch.nn.Identity(), channels=(1,), origin=origin)
        return resolve_noise_std(recipe or Recipe(), model, backbone, scale)

    assert noise(ModelConfig(), "hub") == 0.015
    assert noise(ModelConfig(), "file") == noise(ModelConfig(), "module") == pytest.approx(0.4 * scale)
    assert noise(MODEL, "package") == pytest.approx(0.4 * scale)
    assert noise(MODEL, "package", Recipe(noise_std=0.1)) == 0.1

    # The published weights in a file are known by their fingerprint, which the hub's client's folder holds.
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    file = tmp_path / "weights.pth"
    file.write_bytes(b"these would be weights")
    in_file = ModelConfig(backbone="wide_resnet50_2", backbone_weights=file)
    assert noise(in_file, "file") == pytest.approx(0.4 * scale)
    fingerprint = Backbone(torch.nn.Identity(), channels=(1,), origin="file").fingerprint(counters=False)
    record_fingerprint(PUBLISHED_BACKBONE, fingerprint)
    assert noise(in_file, "file") == 0.015
    assert noise(in_file, "module") == noise(MODEL, "package") == pytest.approx(0.4 * scale)


def test_optimizer_has_the_published_rates():
    heads = Heads((2, 3), variant="jims", align_corners=True, generator=torch.Generator())
    adaptor, others = build_optimizer(heads, Recipe()).param_groups
    assert (adaptor["lr"], adaptor["weight_decay"]) == (1e-4, 1e-2)
    assert (others["lr"], others["weight_decay"]) == (2e-4, 1e-5)
    assert {id(p) for p in adaptor["params"]} == {id(p) for p in heads.adaptor.parameters()}
    assert len(adaptor["params"]) + len(others["params"]) == len(list(heads.parameters()))


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("1h30m", 5400), ("1.5h", 5400)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "15", "m", "15 minutes", "-3m", "0s"])
def test_durations_that_are_none(text):
    with pytest.raises(ConfigError, match="write a duration such as 90s, 15m or 1h30m"):
        parse_duration(text)


def test_a_data_set_without_good_training_images_is_refused(tmp_path, metal):
    class OnlyBad(MVTecAD):
        def samples(self):
            return [sample for sample in super().samples() if sample.label == 1]

    source = OnlyBad(root=metal.root, category="brushed_metal")
    with pytest.raises(DataError, match="no good training image"):
        train(source, output=tmp_path / "run", model=MODEL)


def test_training_opens_no_test_image(metal, tmp_path, surfaces):
    """A test image that cannot be read does not disturb the training."""
    root = tmp_path / "data"
    synthesize(root, SyntheticConfig(surfaces=("cast_grain",), size_px=SIZE, train_good=4, test_good=1))
    for image in (root / "cast_grain" / "test").rglob("*.png"):
        image.write_bytes(b"not an image")
    train(
        MVTecAD(root=root, category="cast_grain"),
        output=tmp_path / "run",
        model=MODEL,
        trainer=TrainerConfig(max_steps=1, accelerator="cpu"),
    )


def test_a_module_of_ones_own_as_backbone(metal, tmp_path):
    class Pooled(torch.nn.Module):
        def forward(self, image):
            return [torch.nn.functional.avg_pool2d(image, stride).repeat(1, 4, 1, 1) for stride in (8, 16)]

    from supersimplenet import Detector
    from supersimplenet.errors import ModelFolderError

    trained = train(
        metal,
        output=tmp_path / "run",
        model=ModelConfig(image_size=SIZE),
        recipe=RECIPE,
        trainer=TrainerConfig(max_steps=2, accelerator="cpu"),
        backbone=Pooled(),
    )
    plan = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]["plan"]
    assert plan["noise_std"] == pytest.approx(0.4 * plan["feature_scale"])  # not the published backbone's
    image = metal.samples()[-1].image
    loaded = Detector.load(tmp_path / "run", backbone=Pooled())
    assert loaded.predict(image).score_logit == trained.predict(image).score_logit
    with pytest.raises(ModelFolderError, match=r"pass it: Detector.load\(folder, backbone=module\)"):
        Detector.load(tmp_path / "run")


def test_each_training_file_is_hashed_once_and_decoded_no_more_than_needed(metal, tmp_path, monkeypatch):
    """Images and masks; good images once more to be compared, held-out ones also for both calibrations."""
    from supersimplenet.datasets import base, masks
    from supersimplenet.preprocessing import images
    from supersimplenet.training import training_set

    decoded: list[str] = []
    hashed: list[str] = []

    def decoding(path: object, **how: object) -> object:
        decoded.append(str(path))
        return decode(path, **how)

    def hashing(path: Path) -> str:
        hashed.append(str(path))
        return file_sha256(path)

    decode = images.decode
    monkeypatch.setattr(images, "decode", decoding)
    for module in (base, masks, training_set):
        monkeypatch.setattr(module, "file_sha256", hashing)
    samples = [
        replace(sample, split="train") if sample.label == BAD and sample.image.stem == "000" else sample
        for sample in metal.samples()
    ]

    class Supervised(DataSource):
        name = "supervised"

        def samples(self) -> list[Sample]:
            return sort_samples(samples)

    train(
        Supervised(),
        output=tmp_path / "run",
        model=MODEL,
        recipe=replace(RECIPE, map_shift_px=(0, 0)),  # nothing is painted
        trainer=TrainerConfig(max_epochs=2, accelerator="cpu"),
    )
    trained = [sample for sample in samples if sample.split == "train"]
    counts = Counter(decoded)
    calibrated_with = yaml.safe_load((tmp_path / "run" / "calibration.yaml").read_text())["images"]
    of_good = [counts[str(sample.image)] for sample in trained if sample.label == GOOD]
    assert sorted(of_good) == [2] * (len(of_good) - calibrated_with) + [4] * calibrated_with
    of_bad = [counts[str(sample.image)] for sample in trained if sample.label == BAD]
    assert of_bad == [1] * len(of_bad)
    of_masks = [sample.mask for sample in trained if sample.label == BAD]
    assert [counts[str(mask)] for mask in of_masks] == [1] * len(of_masks)
    assert len(of_masks) > 1
    assert set(hashed) == {str(sample.image) for sample in samples if sample.split == "test"}


@pytest.mark.slow
def test_bfloat16_training_follows_float32(metal, tmp_path):
    """Losses of the first steps, before they may drift apart, to the rounding of bfloat16."""
    losses = {}
    for precision in ("float32", "bfloat16"):
        output = tmp_path / precision
        trainer = TrainerConfig(max_steps=4, accelerator="cpu", precision=precision)
        train(metal, output=output, model=MODEL, recipe=RECIPE, trainer=trainer)
        (table,) = output.glob("logs/csv/version_0/metrics.csv")
        rows = csv.DictReader(table.read_text().splitlines())
        losses[precision] = [float(row["train_loss_step"]) for row in rows if row["train_loss_step"]]
    assert len(losses["float32"]) == 4
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=2e-2)
    assert losses["bfloat16"] != losses["float32"]
