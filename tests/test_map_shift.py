"""The shift of the anomaly map: found where there is one, none where none helps, kept with the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from supersimplenet import Detector, ModelConfig, Recipe, SuperSimpleNet
from supersimplenet.benchmark.protocol import protocol_settings
from supersimplenet.datasets.masks import MaskReader
from supersimplenet.datasets.synthetic import render
from supersimplenet.errors import ConfigError
from supersimplenet.inference.model_folder import load_model, save_model
from supersimplenet.model.backbone import wrap_module
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig
from supersimplenet.training.map_shift import Case, best_shift, choose_map_shift
from supersimplenet.types import GOOD, Sample

SIZE = (128, 128)


def discs(shift_px, *, noise: float, count: int = 12) -> list[Case]:
    """Maps that fall with the distance from a disc's centre, which lies a shift away from the mask's."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:128, :128] + 0.5
    cases = []
    for _ in range(count):
        middle = rng.uniform(40, 80, size=2)
        mask = np.hypot(y - middle[0], x - middle[1]) < rng.uniform(5, 12)
        v, u = 4 * np.mgrid[:32, :32] + 2.0
        heat = -np.hypot(v - middle[0] - shift_px[0], u - middle[1] - shift_px[1]) + noise * rng.normal(size=v.shape)
        cases.append(Case(map_logit=torch.from_numpy(heat)[None], ignored=None, counted=np.ones_like(mask), mask=mask))
    return cases


@pytest.mark.parametrize("shift_px", [(0, 0), (3, 5), (8, 8), (0, 4)])
def test_a_known_shift_is_found(shift_px):
    found = best_shift(discs(shift_px, noise=0.2))
    assert found.shift_px == shift_px
    assert found.painted_images == 12
    if shift_px != (0, 0):
        assert found.gain > 2.5 * found.gain_error > 0


def test_a_gain_within_chance_is_none():
    """Every second disc is shifted one way, every other one the opposite way: no shift helps all."""
    there, back = discs((6, 6), noise=0.2), discs((-6, -6), noise=0.2)
    found = best_shift(there[::2] + back[1::2])
    assert found.shift_px == (0, 0)
    assert found.describe() is None


class _Roughness(nn.Module):
    """A backbone whose one channel says how far a pixel is from its surroundings, moved by some pixels."""

    def __init__(self, moved_px: tuple[int, int]) -> None:
        super().__init__()
        self.moved_px = moved_px

    def forward(self, pixels: Tensor) -> list[Tensor]:
        grey = pixels.mean(dim=1, keepdim=True)
        rough = (grey - F.avg_pool2d(grey, 9, stride=1, padding=4, count_include_pad=False)).abs()
        return [F.avg_pool2d(rough.roll(self.moved_px, dims=(2, 3)), stride) for stride in (4, 8)]


def constructed(moved_px: tuple[int, int]) -> SuperSimpleNet:
    """A network whose map is its first feature, without any training."""
    config = ModelConfig(backbone="compact", image_size=SIZE, align_corners=False)
    network = SuperSimpleNet(config, backbone=wrap_module(_Roughness(moved_px), SIZE)).eval()
    heads = network.heads
    with torch.no_grad():
        for name, value in heads.named_parameters():
            if "norm" not in name:
                value.zero_()
        heads.adaptor.weight.copy_(torch.eye(2))
        heads.hidden.weight[0, 0] = heads.map.weight[0, 0] = 1
    return network


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("good")
    found = []
    for number in range(8):
        pixels, _ = render("printed_pattern", defect=None, size_px=SIZE, rng=np.random.default_rng(number))
        # Only defects are rough: the pattern is faint, and as bright as what lies outside a region of interest.
        smooth = np.array([124, 116, 104]) + (pixels.astype(int) - 150) // 16
        path = folder / f"{number}.png"
        Image.fromarray(smooth.astype(np.uint8)).save(path)
        found.append(Sample(image=path, label=GOOD, split="train"))
    return found


@pytest.mark.parametrize("view", ["stretch", "roi"])
def test_a_networks_shift_is_measured_on_painted_defects(samples, view, capsys):
    roi = np.zeros(SIZE, dtype=bool)
    roi[16:112, 24:120] = True
    preprocessor = Preprocessor.stretch(SIZE)
    if view == "roi":
        preprocessor = Preprocessor(ViewConfig(roi=Path("roi.png")), size_px=SIZE, strides=(4, 8), roi=roi)
    found = choose_map_shift(
        Recipe(), constructed((4, 2)), samples, preprocessor=preprocessor, masks=MaskReader(), seed=0
    )
    assert np.abs(np.subtract(found.shift_px, (4, 2))).max() <= 1
    assert found.painted_images == 16
    assert f"moved up by {found.shift_px[0]} px and left by {found.shift_px[1]} px" in capsys.readouterr().err.replace(
        "\n", " "
    )


def test_no_shift_is_found_where_there_is_none(samples):
    preprocessor = Preprocessor.stretch(SIZE)
    found = choose_map_shift(
        Recipe(), constructed((0, 0)), samples, preprocessor=preprocessor, masks=MaskReader(), seed=0
    )
    assert found.shift_px == (0, 0)
    assert found.painted_images == 16


def test_few_images_tell_nothing_and_the_recipe_may_decide(samples):
    preprocessor = Preprocessor.stretch(SIZE)
    kept = {"preprocessor": preprocessor, "masks": MaskReader(), "seed": 0}
    few = choose_map_shift(Recipe(), constructed((4, 4)), samples[:3], **kept)
    assert (few.shift_px, few.painted_images) == ((0, 0), 6)
    assert choose_map_shift(Recipe(), constructed((4, 4)), [], **kept).shift_px == (0, 0)
    given = choose_map_shift(Recipe(map_shift_px=(1, 7)), constructed((4, 4)), samples, **kept)
    assert (given.shift_px, given.painted_images) == ((1, 7), 0)
    assert protocol_settings("published").recipe.map_shift_px == (0, 0)


@pytest.mark.parametrize("shift_px", [(1, 2, 3), (-1, 0), (0, 9)])
def test_a_shift_that_is_none_is_refused(shift_px):
    with pytest.raises(
        ConfigError, match=r"recipe\.map_shift_px: .*; it must be two whole numbers from 0 to 8, or auto"
    ):
        Recipe(map_shift_px=shift_px)


def test_the_shift_is_kept_with_the_model(tmp_path):
    network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=(64, 64)), seed=1).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    plain = Detector(network, device="cpu").predict(pixels)
    network.map_shift_px = (3, 6)
    save_model(tmp_path, network, {})
    loaded, record = load_model(tmp_path)
    assert loaded.map_shift_px == (3, 6)
    assert record["map_shift_px"] == [3, 6]
    moved = Detector.load(tmp_path, device="cpu").predict(pixels)
    assert (moved.map_logit[:-3, :-6] == plain.map_logit[3:, 6:]).all()
    assert (moved.map_logit[-3:, :-6] == plain.map_logit[-1:, 6:]).all()
    assert moved.head_logit == plain.head_logit
