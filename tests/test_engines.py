"""The engines: one network, the same numbers, alone and in lanes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from networks import unsettled
from PIL import Image
from torch import nn

from supersimplenet.benchmark import published_order as plain
from supersimplenet.errors import ConfigError
from supersimplenet.inference.detector import Detector
from supersimplenet.inference.engines import build_engine
from supersimplenet.model.config import ModelConfig
from supersimplenet.model.network import SuperSimpleNet, anomaly_map
from supersimplenet.runtime.predictor import IndexedPrediction

SIZE = (64, 96)


@pytest.fixture(scope="module")
def network() -> SuperSimpleNet:
    return unsettled(SIZE)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, *SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected(network, pixels) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        output = network(torch.from_numpy(pixels))
        return anomaly_map(output.map_logit, SIZE).numpy(), output.score_logit.numpy()


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("variant", ["jims", "icpr"])
def test_an_engine_gives_the_networks_numbers(engine, variant, pixels):
    network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=SIZE, variant=variant), seed=1).eval()
    network.map_shift_px = (2, 5) if variant == "icpr" else (0, 0)
    with torch.no_grad():
        output = network(torch.from_numpy(pixels))
        wanted_maps = anomaly_map(output.map_logit, SIZE, shift_px=network.map_shift_px).numpy()
        wanted_scores = output.score_logit.numpy()
    maps, scores, *none = Detector(network, device="cpu", engine=engine).engine.run(pixels)
    assert none == [None, None]
    # Folding reorders float32 sums of a thousand terms.
    np.testing.assert_allclose(maps, wanted_maps, rtol=0, atol=1e-5)
    np.testing.assert_allclose(scores, wanted_scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", ["torch", pytest.param("openvino", marks=pytest.mark.slow)])
@pytest.mark.parametrize("variant", ["jims", pytest.param("icpr", marks=pytest.mark.slow)])
def test_ignored_pixels_count_in_no_score(engine, variant, pixels):
    """Against the plain formula: pooled over the positions that no ignored pixel touches, smoothed over them alone."""
    network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=SIZE, variant=variant), seed=1).eval()
    ignored = np.zeros((5, *SIZE), dtype=bool)
    ignored[1, 10:30, 40:70] = ignored[2, :, 50:] = ignored[4, 7, 9] = True
    touched = torch.from_numpy(ignored.reshape(5, SIZE[0] // 4, 4, SIZE[1] // 4, 4).any(axis=(2, 4)))
    reference = plain.PlainHeads(network.backbone.channels, variant=variant, align_corners=True).eval()
    reference.load_state_dict(
        {
            plain.plain_name(name): value.reshape(reference.state_dict()[plain.plain_name(name)].shape)
            for name, value in network.heads.state_dict().items()
        }
    )
    with torch.no_grad():
        features = network.backbone(torch.from_numpy(pixels))
        map_logit, wanted_scores = reference([f.movedim(-1, 1) for f in features], ignored=touched)
        share = plain.anomaly_map((~touched).float(), SIZE)
        smooth = plain.anomaly_map(map_logit * ~touched, SIZE) / share
    detector = Detector(network, device="cpu", engine=engine, image_score="map")
    maps, scores, *_ = detector.engine.run(pixels, ignored)
    np.testing.assert_allclose(scores, wanted_scores.numpy(), rtol=0, atol=1e-5)
    near = share.numpy() > 0.01  # elsewhere hardly anything is left to divide by
    np.testing.assert_allclose(maps[near], smooth.numpy()[near], rtol=0, atol=1e-4)
    assert near[~ignored].all()
    masks = [None, *ignored[1:3], None, ignored[4]]
    seen = [detector.preprocessor.prepare(image, mask) for image, mask in zip(pixels, masks, strict=True)]
    predictions = detector.predict_prepared(seen, [None] * 5)
    assert [p.map_max_logit for p in predictions] == [
        float(np.where(mask, -np.inf, values).max()) for mask, values in zip(ignored, maps, strict=True)
    ]
    # What lies under an ignored part of a picture may shine through where the network looks further than a pixel, and
    # nowhere else; without any, nothing changes.
    np.testing.assert_array_equal(maps[[0, 3]], detector.engine.run(pixels[[0, 3]], ignored[[0, 3]])[0])


@pytest.mark.parametrize(
    ("engine", "masked"),
    [("torch", False), ("torch", True), ("openvino", False), pytest.param("openvino", True, marks=pytest.mark.slow)],
)
def test_an_engine_gives_the_subspaces_numbers(engine, masked, network, pixels):
    ignored = np.zeros((5, *SIZE), dtype=bool)
    ignored[1, 10:30, 40:70] = ignored[2, :, 50:] = ignored[4, 7, 9] = masked
    hidden = torch.from_numpy(ignored.reshape(5, SIZE[0] // 8, 8, SIZE[1] // 8, 8).any(axis=(2, 4)))
    with torch.no_grad():
        distance = network.subspace(network.backbone(torch.from_numpy(pixels)), hidden)
        wanted = anomaly_map(distance.position_logit, SIZE, hidden)
    found = Detector(network, device="cpu", engine=engine).engine.run(pixels, *([ignored] * masked))
    np.testing.assert_allclose(found.subspace_map, wanted.numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.subspace_logit, distance.score_logit.numpy(), rtol=0, atol=1e-5)
    assert np.ptp(found.subspace_logit) > 0.001


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_bfloat16_moves_logits_by_its_rounding_only(engine, network, pixels, expected):
    found = Detector(network, device="cpu", engine=engine, precision="bfloat16").engine.run(pixels)
    # 8 bits through some twenty layers; the maps spread over about one logit here.
    assert np.abs(found.map - expected[0]).max() < 0.05
    assert np.abs(found.head_logit - expected[1]).max() < 0.05
    exact = Detector(network, device="cpu").engine.run(pixels)
    assert np.abs(found.subspace_map - exact.subspace_map).max() < 0.05
    assert np.abs(found.subspace_logit - exact.subspace_logit).max() < 0.02


@pytest.mark.parametrize("engine", ["torch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_files_in_lanes_equal_single_images_in_their_order(engine, network, pixels, tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(len(pixels))]
    for path, values in zip(paths, pixels, strict=True):
        Image.fromarray(values).save(path)
    detector = Detector(network, device="cpu", engine=engine)
    threads = torch.get_num_threads()
    done: list[int] = []
    items = list(detector.predict_files(paths * 3, then=lambda item: done.append(item.index)))
    assert torch.get_num_threads() == threads
    assert sorted(done) == [item.index for item in items] == list(range(15))
    for item in items:
        assert isinstance(item, IndexedPrediction)
        alone = detector.predict(paths[item.index % 5])
        assert item.prediction.path == alone.path
        # One thread or two may add in another order.
        np.testing.assert_allclose(item.prediction.map_logit, alone.map_logit, rtol=0, atol=1e-5)
        assert item.prediction.head_logit == pytest.approx(alone.head_logit, abs=1e-5)


@pytest.mark.parametrize("engine", ["torch", pytest.param("openvino", marks=pytest.mark.slow)])
def test_the_stages_are_parts_of_the_whole(engine, network, pixels):
    stages = Detector(network, device="cpu", engine=engine).engine.stages(pixels[:1])
    assert next(iter(stages)) == "backbone"
    for run in stages.values():
        run()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "abacus"}, "engine: 'abacus'; choose torch or openvino"),
        ({"precision": "float8"}, "precision: 'float8'; choose float32 or bfloat16"),
        ({"engine": "openvino", "device": "meta"}, "engine: openvino computes on the CPU, not on 'meta'"),
    ],
)
def test_what_cannot_compute_is_refused_by_name(options, message, network):
    with pytest.raises(ConfigError, match=message):
        Detector(network, **options)


def test_a_backbone_that_cannot_be_traced_is_used_as_it_is(pixels):
    class Hesitant(nn.Module):
        """SupportsPredict at its values before it computes, which torch.fx cannot follow."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, stride=8, padding=1)
            self.norm = nn.BatchNorm2d(8)

        def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
            features = self.norm(self.conv(image if image.sum() > 0 else -image))
            return [features, nn.functional.avg_pool2d(features, 2)]

    from supersimplenet.model.backbone import wrap_module

    config = ModelConfig(image_size=SIZE)
    network = SuperSimpleNet(config, backbone=wrap_module(Hesitant(), SIZE)).eval()
    with torch.no_grad():
        output = network(torch.from_numpy(pixels))
    scores = Detector(network, device="cpu").engine.run(pixels).head_logit
    np.testing.assert_allclose(scores, output.score_logit.numpy(), rtol=0, atol=1e-5)


def test_loading_a_model_disturbs_no_thread_that_computes(network, pixels):
    # torch.fx replaces Module.__call__ for the whole process while it traces
    device = torch.device("cpu")
    wanted = build_engine(network, name="torch", device=device, precision="float32")
    expected = wanted.run(pixels).map
    stop, found = threading.Event(), []

    def compute() -> None:
        while not stop.is_set():
            found.append(wanted.run(pixels).map)

    with ThreadPoolExecutor(2) as pool:
        computing = [pool.submit(compute) for _ in range(2)]
        others = [build_engine(network, name="torch", device=device, precision="float32") for _ in range(8)]
        stop.set()
        for future in computing:
            future.result()
    assert len(found) >= 2
    for values in (*found, *(other.run(pixels).map for other in others)):
        np.testing.assert_allclose(values, expected, atol=1e-4)
    # None was left as it is, which would only be slower.
    assert all(isinstance(other.network.backbone.net, torch.fx.GraphModule) for other in others)
