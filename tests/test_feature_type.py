"""The type in which features are kept, and that held-out images decide neither it nor anything else of the training."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from supersimplenet import ModelConfig, Recipe, SyntheticConfig, synthesize
from supersimplenet.datasets.mvtec import MVTecAD
from supersimplenet.model.backbone import build_backbone, wrap_module
from supersimplenet.preprocessing.preprocessor import Preprocessor
from supersimplenet.training.config import CacheConfig, TrainerConfig
from supersimplenet.training.features import choose_feature_type, gather_features
from supersimplenet.training.train import train

SIZE = (64, 64)
CPU = torch.device("cpu")


class Colours(nn.Module):
    """Mean colours at stride 8, of -2.2 to 2.7, times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, image: Tensor) -> list[Tensor]:
        return [self.factor * nn.functional.avg_pool2d(image, 8)]


@pytest.mark.parametrize(
    ("factor", "kept"),
    [
        (1.0, torch.float16),
        (1500.0, torch.float16),  # 2.64 * 1500 is below a sixteenth of 65504, the largest float16
        (1600.0, torch.bfloat16),
        (1e30, torch.bfloat16),
        (1e-4, torch.float16),
        (1e-5, torch.bfloat16),  # below 6.1e-5, the smallest float16 with all its bits
    ],
)
def test_float16_where_the_range_allows_it(factor, kept):
    assert choose_feature_type(wrap_module(Colours(factor), SIZE), SIZE, CPU) == kept


def test_the_shipped_backbone_fits():
    assert choose_feature_type(build_backbone(ModelConfig(backbone="compact")), SIZE, CPU) == torch.float16


@pytest.mark.parametrize("kept", [torch.float16, torch.bfloat16])
def test_features_are_rounded_once_and_stay_finite(tmp_path, kept):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(tmp_path / "x.png")
    for factor in (1.0, 1e6):
        backbone = wrap_module(Colours(factor), SIZE)
        source, _, _ = gather_features(
            backbone,
            [tmp_path / "x.png"],
            preprocessor=Preprocessor.stretch(SIZE),
            cache=CacheConfig(),
            feature_type=kept,
            folder=tmp_path,
        )
        pixels = torch.from_numpy(np.asarray(Image.open(tmp_path / "x.png")).copy())[None]
        (exact,) = backbone(pixels)
        largest = torch.finfo(kept).max
        (found,) = source.features(torch.tensor([0]))
        assert source.dtype == found.dtype == kept
        assert torch.equal(found, exact.clamp(-largest, largest).to(kept))


def test_held_out_images_decide_nothing_but_thresholds(tmp_path):
    """With other pixels in them: the same scale, noise, type of features, weights and scale of scores."""
    config = SyntheticConfig(surfaces=("brushed_metal",), size_px=SIZE, train_good=8, test_good=1, test_per_defect=1)
    synthesize(tmp_path / "data", config)
    data = MVTecAD(root=tmp_path / "data", category="brushed_metal")
    options = {
        "model": ModelConfig(backbone="compact", image_size=SIZE),
        "recipe": Recipe(batch_size=4),
        "trainer": TrainerConfig(max_steps=2, accelerator="cpu", holdout_fraction=0.3),
    }
    train(data, output=tmp_path / "first", **options)
    with (tmp_path / "first" / "images.csv").open(newline="") as file:
        roles = {row["name"]: row["role"] for row in csv.DictReader(file)}
    held_out = [name for name, role in roles.items() if role == "held-out"]
    assert 0 < len(held_out) < 8
    rng = np.random.default_rng(0)
    for name in held_out:
        (path,) = (sample.image for sample in data.samples() if str(sample.image).endswith(name))
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path)
    train(data, output=tmp_path / "second", **options)

    first, second = (yaml.safe_load((tmp_path / run / "config.yaml").read_text()) for run in ("first", "second"))
    for name in ("feature_scale", "noise_std", "total_steps"):
        assert first["training"]["plan"][name] == second["training"]["plan"][name]
    assert first["training"]["feature_type"] == second["training"]["feature_type"] == "float16"
    assert first["score_scale"] == second["score_scale"]
    weights = [load_file(tmp_path / run / "model.safetensors") for run in ("first", "second")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    thresholds = [Path(tmp_path / run / "calibration.yaml").read_text() for run in ("first", "second")]
    assert thresholds[0] != thresholds[1]
