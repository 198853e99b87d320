"""The subspace of good images: the plain formula, the fit, and what counts in its score."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from networks import unsettled
from torch import Tensor
from torch.nn import functional as F

from supersimplenet import Detector
from supersimplenet.datasets.folder import Folder
from supersimplenet.datasets.synthetic import synthesize
from supersimplenet.datasets.synthetic_config import SyntheticConfig
from supersimplenet.errors import ConfigError, ModelFolderError
from supersimplenet.inference.image_records import read_image_records
from supersimplenet.inference.model_folder import load_model, save_model
from supersimplenet.model.config import ModelConfig, Recipe
from supersimplenet.model.subspace import HIGHEST, Subspace, ignored_positions, pooled_features
from supersimplenet.postprocessing.score_scale import ScoreScale
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.feature_cache import CachedFeatures, FlipIndex
from supersimplenet.training.pixel_labels import PixelLabels, TrainingTile
from supersimplenet.training.subspace_fit import Moments, fit_subspace, measure_moments
from supersimplenet.training.train import train
from supersimplenet.types import Prediction

CHANNELS = (6, 10)
# Strides 8 and 16 on even, odd and not square images; 4 and 16; equal strides, as of a plain transformer.
SIZES = {
    "even": ((8, 16), (6, 4), (3, 2)),
    "odd": ((8, 16), (5, 3), (3, 2)),
    "far": ((4, 16), (6, 9), (2, 3)),
    "equal": ((14, 14), (5, 4), (5, 4)),
}


def draw_features(size: str, images: int = 3, seed: int = 1) -> tuple[list[int], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    strides, *shapes = SIZES[size]
    maps = [
        torch.rand(images, *shape, channels, generator=generator, dtype=torch.float64)
        for shape, channels in zip(shapes, CHANNELS, strict=True)
    ]
    return list(strides), maps


def plain_features(strides: list[int], maps: list[Tensor]) -> np.ndarray:
    """(B, h, w, C): each map pooled 3x3, read at the pixel of each position of the first map; by loops."""
    height, width = maps[0].shape[1:3]
    found = []
    for step, values in zip(strides, maps, strict=True):
        pooled = F.avg_pool2d(values.permute(0, 3, 1, 2), 3, stride=1, padding=1).permute(0, 2, 3, 1).numpy()
        placed = np.empty((len(values), height, width, values.shape[3]))
        sides = pooled.shape[1:3]
        for y in range(height):
            for x in range(width):
                at = [min(place * strides[0] / step, side - 1) for place, side in zip((y, x), sides, strict=True)]
                (top, down), (left, right) = ((math.floor(p), math.ceil(p)) for p in at)
                v, u = at[0] - top, at[1] - left
                upper = (1 - u) * pooled[:, top, left] + u * pooled[:, top, right]
                lower = (1 - u) * pooled[:, down, left] + u * pooled[:, down, right]
                placed[:, y, x] = (1 - v) * upper + v * lower
        found.append(placed)
    return np.concatenate(found, axis=3)


def plain_fit(features: np.ndarray, explained: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and leading directions (C, rank) of (N, C) features, by a singular value decomposition."""
    mean = features.mean(0)
    _, spread, directions = np.linalg.svd(features - mean, full_matrices=False)
    share = np.cumsum(spread**2) / np.sum(spread**2)
    return mean, directions[: int(np.searchsorted(share, explained)) + 1].T


def fitted(features: Tensor, strides: list[int], explained: float = 0.9) -> Subspace:
    """The subspace in float64, which `fit_subspace` rounds to float32."""
    mean, leading = plain_fit(features.flatten(0, 2).numpy(), explained)
    full, _ = np.linalg.qr(np.concatenate([leading, np.eye(len(mean))], axis=1))
    complement = torch.from_numpy(full[:, leading.shape[1] :])
    return Subspace(torch.from_numpy(mean), complement, torch.tensor(strides))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dense", [False, True])
def test_the_fast_order_is_the_plain_formula(size, dense):
    strides, maps = draw_features(size)
    features = plain_features(strides, maps)
    np.testing.assert_allclose(pooled_features(maps, strides).numpy(), features, rtol=1e-12)

    mean, leading = plain_fit(features.reshape(-1, sum(CHANNELS)), 0.9)
    _, others = draw_features(size, seed=2)
    centred = plain_features(strides, others) - mean
    expected = np.log(np.linalg.norm(centred - centred @ leading @ leading.T, axis=3))

    found = fitted(torch.from_numpy(features), strides).for_inference(dense=dense)(others)
    np.testing.assert_allclose(found.position_logit.numpy(), expected, rtol=0, atol=1e-9)
    highest = np.sort(expected.reshape(len(expected), -1))[:, -HIGHEST:]
    np.testing.assert_allclose(found.score_logit.numpy(), highest.mean(1), rtol=0, atol=1e-9)


def test_fewer_positions_than_ten_are_all_in_the_score():
    strides, maps = [8, 16], [torch.rand(2, 2, 3, CHANNELS[0]).double(), torch.rand(2, 1, 2, CHANNELS[1]).double()]
    subspace = fitted(torch.rand(4, 3, 3, sum(CHANNELS)).double(), strides)
    found = subspace(maps)
    torch.testing.assert_close(found.score_logit, found.position_logit.flatten(1).mean(1))


def test_ignored_positions_count_in_no_score():
    strides, maps = draw_features("even")
    subspace = fitted(pooled_features(maps, strides), strides)
    ignored = torch.zeros(3, 6, 4, dtype=torch.bool)
    ignored[:, :3] = True
    found = subspace(maps, ignored)
    kept = found.position_logit[:, 3:].flatten(1).topk(HIGHEST).values.mean(1)
    torch.testing.assert_close(found.score_logit, kept)
    torch.testing.assert_close(found.position_logit, subspace(maps).position_logit)


def test_a_position_is_ignored_where_a_part_of_it_is_unless_none_would_be_left():
    of_map = torch.zeros(2, 4, 6, dtype=torch.bool)
    of_map[0, 1, 2] = True
    of_map[1] = True
    of_map[1, 3, 5] = False
    found = ignored_positions(of_map)
    assert found[0].nonzero().tolist() == [[0, 1]]
    assert (~found[1]).nonzero().tolist() == [[1, 2]]


def test_the_fit_is_that_of_a_decomposition_and_parts_merge_to_the_whole():
    strides, maps = draw_features("odd", images=6)
    # Correlated channels, as features are, and far from 0, where sums lose digits.
    mix = torch.randn(sum(CHANNELS), sum(CHANNELS), generator=torch.Generator().manual_seed(3)).double() ** 3
    features = torch.from_numpy(plain_features(strides, maps)).flatten(0, 2) @ mix + 100
    mean, leading = plain_fit(features.numpy(), 0.99)

    whole = Moments.of(features)
    merged = Moments.none(sum(CHANNELS))
    for part in torch.split(features, 17):
        merged = merged.merge(Moments.of(part))
    for moments in (whole, merged):
        subspace = fit_subspace(moments, strides)
        torch.testing.assert_close(subspace.mean, torch.from_numpy(mean).float())
        assert subspace.complement.shape == (sum(CHANNELS), sum(CHANNELS) - leading.shape[1])
        away = torch.eye(len(mean), dtype=torch.float64) - torch.from_numpy(leading @ leading.T)
        # The directions themselves may be turned; what they leave of a vector is not. float32 rounds them.
        torch.testing.assert_close((subspace.complement @ subspace.complement.T).double(), away, rtol=0, atol=1e-6)
    for name in ("count", "total", "products"):
        torch.testing.assert_close(getattr(merged, name), getattr(whole, name), rtol=1e-12, atol=0)


def cached(maps: list[Tensor], counts: list[int] | None = None) -> CachedFeatures:
    rows = torch.cat([values.flatten(1) for values in maps], dim=1)
    return CachedFeatures(
        rows, [values.shape[1:] for values in maps], "memory", None if counts is None else FlipIndex.of(counts)
    )


def test_a_fit_sees_the_chosen_rows_alone_without_their_ignored_positions():
    strides, maps = draw_features("even", images=5)
    ignored = torch.zeros(1, 12, 8, dtype=torch.bool)
    ignored[0, :4] = True  # of a tile as it is; its second view is upside down
    nowhere = torch.zeros_like(ignored)
    labels = PixelLabels(
        tiles=tuple(TrainingTile(place, 0, (slice(None), slice(None))) for place in range(2)),
        left_out={},
        bad=torch.zeros(2, dtype=torch.bool),
        place=torch.tensor([-1, 0]),
        defective=nowhere,
        counted=~ignored,
        ignored=ignored,
        weight=None,
    )
    source = cached(maps, [1, 4])  # the first tile has one view, the second four
    moments = measure_moments(source, [0, 1, 2], labels, strides)
    features = pooled_features(maps, strides)
    seen = torch.cat([features[0].flatten(0, 1), features[1, 2:].flatten(0, 1), features[2, :-2].flatten(0, 1)])
    wanted = Moments.of(seen)
    assert moments.count == len(seen)
    torch.testing.assert_close(moments.products, wanted.products, rtol=1e-12, atol=0)


@pytest.mark.parametrize("images", [1, 2])
def test_one_image_suffices(images):
    """Features of fewer positions than channels: the directions in which they do not vary are left out, too."""
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(images, 2, 3, 6, generator=generator), torch.rand(images, 1, 2, 10, generator=generator)]
    subspace = fit_subspace(measure_moments(cached(maps), range(images), None, [8, 16]), [8, 16])
    assert subspace.complement.shape[1] > 16 - 6 * images
    others = [values + 0.3 for values in maps]
    found, own = subspace(others).score_logit, subspace(maps).score_logit
    assert found.isfinite().all()
    assert own.isfinite().all()
    assert (found > own + 1).all()


def test_equal_features_everywhere_leave_every_direction_out():
    features = torch.full((20, 4), 2.1)
    subspace = fit_subspace(Moments.of(features), [8])
    assert subspace.complement.shape == (4, 4)
    seen, other = torch.full((1, 5, 5, 4), 2.1), torch.full((1, 5, 5, 4), 3.1)
    found = [subspace([values]).position_logit[0, 2, 2].item() for values in (seen, other)]
    assert found == pytest.approx([math.log(1e-12) / 2, math.log(2)], abs=1e-3)


SCALE = ScoreScale(
    head_mean=1.0,
    head_std=2.0,
    map_mean=-1.0,
    map_std=0.5,
    subspace_mean=0.25,
    subspace_std=0.125,
    subspace_map_mean=0.5,
    subspace_map_std=0.25,
    head_weight=0.125,
    map_weight=0.375,
    subspace_weight=0.5,
    shown_weight=0.75,
)


def test_joint_score_and_shown_map_by_hand():
    scores = SCALE.scores(3.0, 0.0, 0.5)
    assert scores == {"head": 3.0, "map": 0.0, "fused": 4.0, "subspace": 0.5, "joint": 1 + 2 * (0.125 + 0.75 + 1.0)}
    shown = SCALE.shown_map(np.float32([0, 1]), np.float32([0.5, 1.0]))
    assert shown.tolist() == [0.75 * -1.0, 0.25 * 1 + 0.75 * (-1 + 0.5 * 2)]
    assert shown.dtype == np.float32


def test_a_model_without_a_subspace_has_its_scores_and_its_own_map():
    own = np.float32([0, 1])
    assert SCALE.scores(3.0, 0.0, None) == {"head": 3.0, "map": 0.0, "fused": 4.0}
    assert SCALE.shown_map(own, None) is own
    assert ScoreScale().shown_map(own, own + 1) is own  # the weight is 0 unless a training chose another one


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shown_weight": 1.5}, "shown_weight: 1.5; wanted a number from 0 to 1"),
        ({"head_weight": 0.5}, "head_weight, map_weight, subspace_weight: they add up to 1.5; wanted 1"),
        ({"map_weight": -0.5, "head_weight": 1.0}, "map_weight: -0.5; wanted a finite number, 0 or more"),
        ({"subspace_std": 0.0}, "subspace_std: 0.0; wanted a finite number above 0"),
    ],
)
def test_a_scale_that_makes_no_score_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        ScoreScale(**changes)


def test_a_score_that_the_model_does_not_have_is_named():
    detector = Detector(unsettled((64, 64)), device="cpu", image_score="subspace")
    image = np.zeros((64, 64, 3), np.uint8)
    prediction = detector.predict(image)
    assert prediction.score_logit == prediction.subspace_logit
    detector.network.subspace = None
    without = Detector(detector.network, device="cpu", image_score="joint")
    with pytest.raises(ConfigError, match="image_score: 'joint'; this model gives head, map and fused; choose one"):
        without.predict(image)
    plain = Detector(detector.network, device="cpu").predict(image)
    assert (plain.subspace_logit, plain.joint_logit) == (None, None)
    with pytest.raises(ConfigError, match="subspace score: this model has none; models of earlier versions"):
        plain.score_of("subspace")


def test_an_image_in_tiles_has_the_highest_score_of_its_tiles_and_a_blended_map():
    network = unsettled((64, 64))
    image = np.random.default_rng(0).integers(0, 256, (64, 160, 3), dtype=np.uint8)
    preprocessor = Preprocessor(ViewConfig(fit="tiles"), size_px=(64, 64))
    scale = ScoreScale(head_weight=0, map_weight=0, subspace_weight=1, shown_weight=1)
    detector = Detector(network, device="cpu", preprocessor=preprocessor, score_scale=scale)
    prediction = detector.predict(image)
    tiles = list(preprocessor.prepare(image).tiles())
    each = detector.engine.run(np.stack([tile.pixels for tile in tiles]))
    assert len(tiles) == 3
    assert prediction.subspace_logit == pytest.approx(each.subspace_logit.max(), abs=1e-6)
    assert prediction.map_logit.shape == (64, 160)
    np.testing.assert_allclose(prediction.map_logit[:, :40], each.subspace_map[0][:, :40], rtol=0, atol=1e-6)
    assert prediction.map_max_logit == pytest.approx(each.map.max(), abs=0.5)  # of the network's own map


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    root = tmp_path_factory.mktemp("trained")
    config = SyntheticConfig(surfaces=("cast_grain",), size_px=(64, 64), train_good=14, test_good=1, test_per_defect=1)
    (surface,) = synthesize(root / "data", config)
    bad = next(folder for folder in (surface / "test").iterdir() if folder.name != "good")
    return train(
        Folder(good=surface / "train" / "good", bad=bad),
        output=root / "model",
        supervision="unsupervised",
        model=ModelConfig(backbone="compact", image_size=(64, 64)),
        recipe=Recipe(batch_size=4, image_score="joint"),
        trainer=TrainerConfig(max_steps=1, accelerator="cpu"),
    )


def test_a_training_fits_the_good_images_that_it_trained_on(trained):
    """Against the plain formula over the images whose role says so; the cache holds features in bfloat16."""
    network, folder = trained.network, trained.folder
    records = [record for record in read_image_records(folder) if record.role == "trained"]
    names = {record.name for record in records}
    paths = [p for p in folder.parent.rglob("*.png") if any(str(p).endswith(name) for name in names)]
    assert 5 < len(paths) == len(names) < 14
    prepared = [next(trained.preprocessor.prepare(path).tiles()).pixels for path in sorted(paths)]
    maps = [values.double() for values in network.backbone(torch.from_numpy(np.stack(prepared)))]
    mean, leading = plain_fit(plain_features([8, 16], maps).reshape(-1, 384), 0.99)
    subspace = network.subspace
    torch.testing.assert_close(subspace.mean.double(), torch.from_numpy(mean), rtol=0, atol=2e-3)
    assert abs(384 - subspace.complement.shape[1] - leading.shape[1]) <= 1
    centred = plain_features([8, 16], maps) - mean
    wanted = np.log(np.linalg.norm(centred - centred @ leading @ leading.T, axis=3))
    found = subspace([values.float() for values in maps]).position_logit
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=0.05)


def test_the_scale_of_the_subspace_is_that_of_images_to_which_it_was_not_fitted(trained):
    """Held-out good images, which nothing was fitted to, lie within it: it once was 33 deviations lower."""
    folder, scale = trained.folder, trained.score_scale
    names = {record.name for record in read_image_records(folder) if record.role == "held-out"}
    paths = [p for p in folder.parent.rglob("*.png") if any(str(p).endswith(name) for name in names)]
    found = np.array([prediction.subspace_logit for prediction in trained.predict(sorted(paths))])
    assert len(found) >= 3
    assert abs(found.mean() - scale.subspace_mean) < 2 * scale.subspace_std
    assert scale.subspace_std < 0.3  # not because anything does


def test_a_model_folder_keeps_the_subspace_and_the_joint_score_may_decide(trained):
    loaded = Detector.load(trained.folder, device="cpu")
    assert (loaded.image_score, loaded.score_scale.shown_weight) == ("joint", 0.75)
    for name, values in trained.network.subspace.state_dict().items():
        torch.testing.assert_close(getattr(loaded.network.subspace, name), values, rtol=0, atol=0)
    image = np.random.default_rng(0).integers(0, 256, (80, 70, 3), dtype=np.uint8)
    one, other = trained.predict(image), loaded.predict(image)
    assert scores(one) == pytest.approx(scores(other), abs=1e-6)
    assert one.score_logit == one.joint_logit


def scores(prediction: Prediction) -> list[float]:
    return list(prediction.scores.values())


def test_weights_of_a_subspace_that_cannot_be_are_refused(trained, tmp_path):
    network, _ = load_model(trained.folder)
    network.subspace.stride.copy_(torch.tensor([16, 8]))
    save_model(tmp_path / "a", network, {})
    with pytest.raises(ModelFolderError, match=r"strides of the subspace \[16, 8\]; wanted whole numbers above 0"):
        load_model(tmp_path / "a")
    network.subspace = Subspace(torch.zeros(384), torch.zeros(384, 385), torch.tensor([8, 16]))
    save_model(tmp_path / "b", network, {})
    with pytest.raises(ModelFolderError, match=r"'subspace.complement' is \(384, 385\) float32, the network needs"):
        load_model(tmp_path / "b")
