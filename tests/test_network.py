"""The fast order of computation against the plain, published one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from supersimplenet.benchmark import published_order as plain
from supersimplenet.model import ops, resample
from supersimplenet.model.anomalies import Anomalies
from supersimplenet.model.folded import FoldedHeads
from supersimplenet.model.heads import HeadOutput, Heads
from supersimplenet.model.losses import supersimplenet_loss
from supersimplenet.model.network import anomaly_map

CHANNELS = (6, 10)
# Sizes of the two feature maps: even, odd and not square, and a second map that is not half of the first.
SIZES = {"even": ((4, 4), (2, 2)), "odd": ((5, 3), (3, 2)), "uneven": ((3, 6), (1, 4))}
MASKED = {"none": 0.0, "few": 0.1, "half": 0.5, "all": 1.0}


def make_pair(variant: str, align_corners: bool, seed: int = 0) -> tuple[Heads, plain.PlainHeads]:
    """Both implementations in float64 with the same weights, every one of them away from its initial value."""
    generator = torch.Generator().manual_seed(seed)
    fast = Heads(CHANNELS, variant=variant, align_corners=align_corners, generator=generator).double()
    with torch.no_grad():
        for name, value in fast.state_dict().items():
            if "norm" in name and value.is_floating_point():
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    reference = plain.PlainHeads(CHANNELS, variant=variant, align_corners=align_corners).double()
    reference.load_state_dict(
        {
            plain.plain_name(name): value.reshape(reference.state_dict()[plain.plain_name(name)].shape)
            for name, value in fast.state_dict().items()
        }
    )
    return fast, reference


def draw_maps(size: str, batch: int = 3, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.rand(batch, channels, *hw, generator=generator, dtype=torch.float64)
        for channels, hw in zip(CHANNELS, SIZES[size], strict=True)
    ]


def draw_noise(maps: list[Tensor], fraction: float, seed: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    batch, _, height, width = maps[0].shape
    shape = (2 * batch, 2 * height, 2 * width)
    noise = torch.randn(2 * batch, sum(CHANNELS), *shape[1:], generator=generator, dtype=torch.float64)
    return noise, torch.rand(shape, generator=generator) < fraction


def rows(maps: list[Tensor]) -> list[Tensor]:
    return [m.permute(0, 2, 3, 1) for m in maps]


def relative_error(value: Tensor, reference: Tensor) -> float:
    return float(((value - reference).norm() / reference.norm()).detach())


@pytest.fixture(params=["processor", "gpu"])
def order(request, monkeypatch) -> Iterator[str]:
    """How the work is cut: image by image through a CPU's cache, or all at once as on a GPU."""
    resample.resampling.cache_clear()
    if request.param == "gpu":
        for module in (ops, resample):
            monkeypatch.setattr(module, "is_cpu", lambda device: False)
    yield request.param
    resample.resampling.cache_clear()


@pytest.mark.parametrize("masked", MASKED)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("variant", ["jims", "icpr"])
@pytest.mark.usefixtures("order")
def test_training_step_equals_the_plain_one(variant, align_corners, size, masked):
    fast, reference = make_pair(variant, align_corners)
    maps = draw_maps(size)
    noise, mask = draw_noise(maps, MASKED[masked])
    label = mask.flatten(1).any(1)

    output = fast(rows(maps), Anomalies.from_dense(mask, noise), stop_gradient=False)
    supersimplenet_loss(output, mask, label).backward()
    plain_map, plain_score = reference(maps, noise, mask)
    plain.plain_loss(plain_map, plain_score, mask, label).backward()

    assert relative_error(output.map_logit, plain_map) < 1e-9  # float64 rounding through three layers
    assert relative_error(output.score_logit, plain_score) < 1e-9
    expected = dict(reference.named_parameters())
    for name, parameter in fast.named_parameters():
        wanted = expected[plain.plain_name(name)].grad.reshape(parameter.shape)
        if name in ZERO_GRADIENTS[variant]:
            # BatchNorm takes out what a bias before it adds: both sides hold rounding only.
            assert parameter.grad.abs().max() < 1e-12
            assert wanted.abs().max() < 1e-12
        else:
            assert relative_error(parameter.grad, wanted) < 1e-9, name
    for name, buffer in fast.named_buffers():
        torch.testing.assert_close(buffer, dict(reference.named_buffers())[plain.plain_name(name)], rtol=1e-9, atol=0)


# A bias that reaches the loss only through a BatchNorm that subtracts it again. In the ICPR variant the adaptor's bias
# also passes the 5x5 zero padding, which makes it matter at the border.
ZERO_GRADIENTS = {
    "jims": {"adaptor.bias", "hidden.bias", "conv.bias"},
    "icpr": {"hidden.bias", "conv.bias"},
}


@pytest.mark.parametrize("variant", ["jims", "icpr"])
def test_stop_gradient_leaves_the_score_out_of_the_segmentation_head(variant):
    fast, reference = make_pair(variant, align_corners=True)
    maps = draw_maps("odd")
    noise, mask = draw_noise(maps, 0.3)
    output = fast(rows(maps), Anomalies.from_dense(mask, noise), stop_gradient=True)
    plain_map, plain_score = reference(maps, noise, mask, stop_gradient=True)
    (output.map_logit.square().mean() + output.score_logit.sum()).backward()
    (plain_map.square().mean() + plain_score.sum()).backward()
    expected = dict(reference.named_parameters())
    for name in ("adaptor.weight", "hidden.weight", "map.weight", "conv.weight", "score.weight"):
        wanted = expected[plain.plain_name(name)].grad
        assert relative_error(fast.get_parameter(name).grad, wanted.reshape(fast.get_parameter(name).shape)) < 1e-9

    fast.zero_grad()
    fast(rows(maps), Anomalies.from_dense(mask, noise), stop_gradient=True).score_logit.sum().backward()
    touched = {name for name, parameter in fast.named_parameters() if parameter.grad is not None}
    assert "map.weight" not in touched
    assert "conv.weight" in touched


@pytest.mark.parametrize("copies", ["single", "doubled"])
@pytest.mark.usefixtures("order")
def test_training_mode_without_noise_equals_the_plain_one(copies):
    fast, reference = make_pair("jims", align_corners=False)
    maps = draw_maps("odd")
    noise, mask = draw_noise(maps, 0.0)
    anomalies = Anomalies.from_dense(mask, noise) if copies == "doubled" else None
    output = fast(rows(maps), anomalies)
    plain_map, plain_score = reference(maps, *((noise, mask) if copies == "doubled" else ()))
    assert relative_error(output.map_logit, plain_map) < 1e-9
    assert relative_error(output.score_logit, plain_score) < 1e-9


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("variant", ["jims", "icpr"])
def test_eval_and_folded_equal_the_plain_network(variant, align_corners, size):
    fast, reference = make_pair(variant, align_corners)
    maps = draw_maps(size)
    fast.eval()
    reference.eval()
    with torch.no_grad():
        plain_map, plain_score = reference(maps)
        for output in (
            fast(rows(maps)),
            FoldedHeads(fast)(rows(maps)),
            FoldedHeads(fast, dense=True)(rows(maps)),
        ):
            assert relative_error(output.map_logit, plain_map) < 1e-9
            assert relative_error(output.score_logit, plain_score) < 1e-9


@pytest.mark.parametrize("variant", ["jims", "icpr"])
def test_float32_outputs_stay_within_1e_5(variant):
    """On the scale of the outputs: each is a sum of a thousand float32 products."""
    fast, reference = make_pair(variant, align_corners=True)
    maps = draw_maps("odd")
    noise, mask = draw_noise(maps, 0.3)
    single = [m.float() for m in rows(maps)]
    with torch.no_grad():
        expected = reference(maps, noise, mask)
        trained = fast.float()(single, Anomalies.from_dense(mask, noise.float()))
        for value, wanted in zip(trained, expected, strict=True):
            assert relative_error(value.double(), wanted) < 1e-5
        # The running statistics of both moved alike; now the eval network and the folded one.
        fast.eval()
        reference.eval()
        expected = reference(maps)
        for output in (fast(single), FoldedHeads(fast)(single)):
            for value, wanted in zip(output, expected, strict=True):
                assert relative_error(value.double(), wanted) < 1e-5


@pytest.mark.parametrize("variant", ["jims", "icpr"])
def test_bfloat16_features_change_outputs_and_gradients_by_their_rounding_only(variant):
    """Features and noise enter in bfloat16, 8 bits: a relative 2^-9 each, averaged over the products of a sum."""
    fast, reference = make_pair(variant, align_corners=True)
    maps = draw_maps("odd")
    noise, mask = draw_noise(maps, 0.3)
    label = mask.flatten(1).any(1)
    fast.float()
    output = fast([m.bfloat16() for m in rows(maps)], Anomalies.from_dense(mask, noise.bfloat16()))
    supersimplenet_loss(output, mask, label).backward()
    plain_map, plain_score = reference(maps, noise, mask)
    plain.plain_loss(plain_map, plain_score, mask, label).backward()
    assert output.map_logit.dtype == torch.float32
    assert relative_error(output.map_logit.double(), plain_map) < 1e-2
    assert relative_error(output.score_logit.double(), plain_score) < 1e-2
    expected = dict(reference.named_parameters())
    for name in ("adaptor.weight", "hidden.weight", "map.weight", "conv.weight", "score.weight"):
        gradient = fast.get_parameter(name).grad
        wanted = expected[plain.plain_name(name)].grad.reshape(gradient.shape)
        assert relative_error(gradient.double(), wanted) < 1e-1, name  # rounded on both sides, and they cancel


def test_a_batch_equals_its_images_one_by_one():
    fast, _ = make_pair("jims", align_corners=True)
    maps = rows(draw_maps("odd", batch=4))
    folded = FoldedHeads(fast)
    for heads in (fast.eval(), folded):
        together: HeadOutput = heads(maps)
        for index in range(4):
            alone = heads([m[index : index + 1] for m in maps])
            assert relative_error(alone.map_logit, together.map_logit[index : index + 1]) < 1e-12
            assert relative_error(alone.score_logit, together.score_logit[index : index + 1]) < 1e-12


def test_a_training_batch_of_one_equals_the_plain_one():
    fast, reference = make_pair("jims", align_corners=True)
    maps = draw_maps("even", batch=1)
    noise, mask = draw_noise(maps, 0.3)
    output = fast(rows(maps), Anomalies.from_dense(mask, noise))
    assert relative_error(output.map_logit, reference(maps, noise, mask)[0]) < 1e-9


def test_folding_copies_the_weights():
    fast, _ = make_pair("jims", align_corners=True)
    folded = FoldedHeads(fast)
    before = folded.map_weight.clone()
    with torch.no_grad():
        fast.map.weight.zero_()
    assert torch.equal(folded.map_weight, before)


def test_noise_outside_the_mask_changes_nothing():
    fast, _ = make_pair("jims", align_corners=True)
    maps = draw_maps("odd")
    noise, mask = draw_noise(maps, 0.3)
    inside = noise * mask[:, None]
    assert torch.equal(
        fast(rows(maps), Anomalies.from_dense(mask, noise)).map_logit,
        fast(rows(maps), Anomalies.from_dense(mask, inside)).map_logit,
    )


@pytest.mark.parametrize("mode", ["training", "eval"])
def test_empty_rows_beyond_the_noise_change_nothing(mode):
    fast, _ = make_pair("jims", align_corners=True)
    fast.train(mode == "training")
    maps = draw_maps("odd")
    noise, mask = draw_noise(maps, 0.3)
    exact = Anomalies.from_dense(mask, noise)
    padded = replace(exact, noise=torch.cat([exact.noise, torch.zeros(7, sum(CHANNELS), dtype=torch.float64)]))
    outputs, gradients = [], []
    for anomalies in (exact, padded):
        fast.zero_grad()
        output = fast(rows(maps), anomalies)
        supersimplenet_loss(output, mask, mask.flatten(1).any(1)).backward()
        outputs.append(output)
        gradients.append([parameter.grad for parameter in fast.parameters()])
    for one, other in zip(outputs[0], outputs[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("variant", ["jims", "icpr"])
def test_anomalies_in_eval_mode_equal_the_plain_network(variant):
    fast, reference = make_pair(variant, align_corners=True)
    maps = draw_maps("even")
    noise, mask = draw_noise(maps, 0.3)
    with torch.no_grad():
        output = fast.eval()(rows(maps), Anomalies.from_dense(mask, noise))
        plain_map, plain_score = reference.eval()(maps, noise, mask)
    assert relative_error(output.map_logit, plain_map) < 1e-9
    assert relative_error(output.score_logit, plain_score) < 1e-9


@pytest.mark.parametrize("image_size", [(64, 64), (50, 70), (33, 129)])
def test_anomaly_map_equals_resize_and_gaussian_blur(image_size):
    map_logit = torch.randn(2, 9, 13, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # torchvision builds its kernel in float32 steps of the input's type: float64 rounding remains.
    torch.testing.assert_close(
        anomaly_map(map_logit, image_size), plain.anomaly_map(map_logit, image_size), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("shift_px", [(0, 3), (8, 1)])
def test_a_shifted_map_is_the_map_moved_back_with_its_border_extended(shift_px):
    map_logit = torch.randn(2, 9, 13, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows, columns = (
        (torch.arange(size) + shift).clamp(max=size - 1) for size, shift in zip((50, 70), shift_px, strict=True)
    )
    wanted = plain.anomaly_map(map_logit, (50, 70))[:, rows][:, :, columns]
    moved = anomaly_map(map_logit, (50, 70), shift_px=shift_px)
    torch.testing.assert_close(moved, wanted, rtol=1e-9, atol=1e-9)
    ignored = torch.zeros(2, 9, 13, dtype=torch.bool)
    ignored[1, 2:5, 6:] = True
    wanted = anomaly_map(map_logit, (50, 70), ignored)[:, rows][:, :, columns]
    moved = anomaly_map(map_logit, (50, 70), ignored, shift_px=shift_px)
    torch.testing.assert_close(moved, wanted, rtol=1e-9, atol=1e-9)


def test_initial_weights_are_xavier_normal_and_follow_the_seed():
    def heads(seed: int) -> Heads:
        return Heads((128, 256), variant="jims", align_corners=True, generator=torch.Generator().manual_seed(seed))

    first, again, other = heads(0), heads(0), heads(1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.hidden.weight, other.hidden.weight)
    # 384 x 1024 draws: the sample standard deviation is within 1 % of the formula's with near certainty.
    assert first.hidden.weight.std().item() == pytest.approx((2 / (384 + 1024)) ** 0.5, rel=0.01)
    assert first.conv.weight.std().item() == pytest.approx((2 / (25 * (385 + 128))) ** 0.5, rel=0.01)


@pytest.mark.parametrize(("mask", "expected"), [(0, "normal"), (1, "defective")])
def test_the_loss_of_one_kind_of_pixel_only(mask, expected):
    logit = torch.tensor([[[0.25, -2.0]]], dtype=torch.float64)
    target = torch.full((1, 1, 2), bool(mask))
    loss = supersimplenet_loss(HeadOutput(logit, torch.zeros(1, dtype=torch.float64)), target, target[:, 0, 0])
    truncated = {"normal": (0.75 + 0) / 2, "defective": (0.25 + 2.5) / 2}[expected]
    p = torch.sigmoid(logit)
    p_true = p if mask else 1 - p
    focal = float((-((1 - p_true) ** 4) * p_true.log()).mean()) + 0.5**4 * 0.6931471805599453
    assert loss.item() == pytest.approx(truncated + focal, rel=1e-12)
