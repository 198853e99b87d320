"""On a GPU, where there is one: the CPU's answers, a training, and a network that cannot be recorded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import unsettled
from torch import Tensor, nn

from supersimplenet import (
    Detector,
    ModelConfig,
    MVTecAD,
    Recipe,
    SuperSimpleNet,
    SyntheticConfig,
    TrainerConfig,
    synthesize,
    train,
)
from supersimplenet.evaluation.evaluate import evaluate
from supersimplenet.model.anomalies import draw_anomalies
from supersimplenet.model.backbone import wrap_module
from supersimplenet.model.losses import supersimplenet_loss
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

SIZE = (64, 96)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (37, *SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("variant", ["jims", "icpr"])
@pytest.mark.parametrize("images", [1, 3, 37])
def test_a_gpu_gives_the_processors_numbers(pixels, images, variant, masked):
    """Batches of 1, of 3 in one of 4, and of 16, 16 and 5 in one of 8; recorded anew for each."""
    network, ignored = unsettled(SIZE, variant), np.zeros((images, *SIZE), dtype=np.bool_)
    ignored[:, :20, :30] = True
    given = (pixels[:images], ignored) if masked else (pixels[:images],)
    wanted = Detector(network, device="cpu").engine.run(*given)
    engine = Detector(network, device="cuda").engine
    for found in (engine.run(*given), engine.run(*given)):  # recorded, and replayed
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)  # sums of 25 * 384 terms in another order


def test_bfloat16_is_near(pixels):
    network = unsettled(SIZE)
    wanted, found = (
        Detector(network, device="cuda", precision=precision).engine.run(pixels).map
        for precision in ("float32", "bfloat16")
    )
    assert 0 < np.abs(found - wanted).max() < 0.1 * wanted.std() + 0.1  # 8 bits, and thousands of terms


class LooksAtValues(nn.Module):
    """Which no graph can do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 8, stride=8), nn.Conv2d(8, 16, 2, stride=2)

    def forward(self, image: Tensor) -> list[Tensor]:
        first = self.first(image)
        if first.abs().max().item() < 0:
            raise AssertionError
        return [first, self.second(first)]


def test_a_network_that_cannot_be_recorded_is_run_as_it_is(pixels):
    torch.manual_seed(0)
    module = wrap_module(LooksAtValues().eval(), SIZE)
    network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=SIZE), backbone=module, seed=3).eval()
    wanted = Detector(network, device="cpu").engine.run(pixels)
    engine = Detector(network, device="cuda").engine
    for found in (engine.run(pixels), engine.run(pixels)):
        for one, other in zip(found[:2], wanted[:2], strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


def test_lanes_of_threads_give_each_file_its_own_answer(tmp_path):
    folder = synthesize(tmp_path, SyntheticConfig(surfaces=("cast_grain",), size_px=(96, 96), test_good=20))[0]
    paths = sorted((folder / "test").rglob("*.png"))
    detector = Detector(unsettled(SIZE), device="cuda")
    alone = [detector.predict(path) for path in paths]
    for item, wanted in zip(detector.predict_files(paths), alone, strict=True):
        assert item.prediction.score_logit == pytest.approx(wanted.score_logit, abs=1e-4)
        np.testing.assert_allclose(item.prediction.map_logit, wanted.map_logit, rtol=0, atol=1e-4)


def test_a_view_of_tiles(tmp_path):
    network = unsettled(SIZE)
    preprocessor = Preprocessor(ViewConfig(fit="tiles"), size_px=SIZE, strides=network.config.strides)
    image = np.random.default_rng(1).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    found, wanted = (
        Detector(network, preprocessor=preprocessor, device=device).predict(image) for device in ("cuda", "cpu")
    )
    np.testing.assert_allclose(found.map_logit, wanted.map_logit, rtol=0, atol=1e-4)


def test_loss_and_gradients_are_the_processors():
    """Of one step, anomalies and all; in float64, where the order of a sum does not show."""
    network = unsettled(SIZE).double().train()
    features = network.backbone.float()(torch.from_numpy(np.zeros((2, *SIZE, 3), dtype=np.uint8)))
    generator = torch.Generator().manual_seed(1)
    features = [torch.randn(f.shape, generator=generator, dtype=torch.float64) for f in features]
    size = (2 * features[0].shape[1], 2 * features[0].shape[2])
    drawn = draw_anomalies(
        torch.zeros(2, *size, dtype=torch.bool),
        channels=sum(network.heads.channels),
        perlin_threshold=0.1,
        noise_std=0.5,
        generator=generator,
        dtype=torch.float64,
    )
    results = []
    for device in ("cpu", "cuda"):
        heads = network.heads.to(device)
        anomalies = type(drawn)(**{name: value.to(device) for name, value in vars(drawn).items()})
        output = heads([f.to(device) for f in features], anomalies, stop_gradient=False)
        loss = supersimplenet_loss(output, anomalies.mask, anomalies.mask.flatten(1).any(1))
        loss.backward()
        results.append([loss.item(), *(p.grad.cpu().clone() for p in heads.parameters())])
        heads.zero_grad()
    (loss, *gradients), (wanted_loss, *wanted) = results
    assert loss == pytest.approx(wanted_loss, rel=1e-10)
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


def test_noise_is_drawn_on_the_gpu_from_the_seed():
    def draw(device: str) -> object:
        return draw_anomalies(
            torch.zeros(8, 32, 32, dtype=torch.bool, device=device),
            channels=16,
            perlin_threshold=0.2,
            noise_std=0.5,
            generator=[torch.Generator().manual_seed(place) for place in range(8)],
        )

    first, again, on_cpu = draw("cuda"), draw("cuda"), draw("cpu")
    assert torch.equal(first.noise, again.noise)
    assert torch.equal(first.mask.cpu(), on_cpu.mask)
    rows = first.noise[: len(first.position)]
    assert rows.std().item() == pytest.approx(0.5, rel=0.03)  # thousands of draws
    assert abs(rows.mean().item()) < 0.02


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_ends_in_a_model_that_ranks_on_both(tmp_path, precision):
    config = SyntheticConfig(surfaces=("cast_grain",), size_px=(128, 128), train_good=24, test_good=12)
    folder = synthesize(tmp_path / "parts", config)[0]
    data = MVTecAD(category=folder.name, root=folder.parent)
    trainer = TrainerConfig(max_steps=300, accelerator="gpu", precision=precision)
    detector = train(
        data,
        output=tmp_path / "model",
        model=ModelConfig(backbone="compact", image_size=(128, 128)),
        recipe=Recipe(batch_size=8),
        trainer=trainer,
    )
    assert detector.device.type == "cuda"
    tested = [sample for sample in data.samples() if sample.split == "test"]
    found = {
        device: evaluate(Detector.load(tmp_path / "model", device=device), tested).metrics["I-AUROC"].value
        for device in ("cuda", "cpu")
    }
    assert found["cuda"] == pytest.approx(found["cpu"], abs=0.02)
    assert found["cuda"] > 0.8  # 24 small images: far from chance is enough here
