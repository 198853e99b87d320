"""Plain vision transformers as backbones: several blocks at one stride, any size that fits the patch, every engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from supersimplenet import Detector, ModelConfig, SuperSimpleNet, SyntheticConfig, synthesize
from supersimplenet.benchmark import published_order as plain
from supersimplenet.cli.train import command
from supersimplenet.datasets.mvtec import MVTecAD
from supersimplenet.errors import BackboneError, ConfigError
from supersimplenet.export.export import export_model
from supersimplenet.inference.model_folder import load_model, save_model
from supersimplenet.model.anomalies import Anomalies
from supersimplenet.model.backbone import Backbone, build_backbone
from supersimplenet.model.config import Recipe
from supersimplenet.model.heads import Heads
from supersimplenet.model.layers import pretrained_settings, resolve_layers
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig
from supersimplenet.runtime import Inspector
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.train import train

TINY = "test_vit"  # of timm: 6 blocks of 64 channels, patches of 16 px, a class token, trained at 160 px
SIZE = (64, 96)


def draw_image(size_px: tuple[int, int], batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, *size_px, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def disturbed(net: nn.Module) -> nn.Module:
    """Move what starts at 0 or is small away from there, so that each weight matters."""
    generator = torch.Generator().manual_seed(0)
    for name, value in net.state_dict().items():
        if value.ndim == 1 or name.endswith(("pos_embed", "cls_token", "reg_token")):
            value.add_(0.2 * torch.randn(value.shape, generator=generator))
    return net.eval()


def architecture_alone(name: str, size_px: tuple[int, int], **options: object) -> Backbone:
    config = ModelConfig(backbone=name, image_size=size_px, **options)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # timm draws initial weights from torch's own generator
        backbone = build_backbone(config, with_weights=False)
    disturbed(backbone.net)
    return backbone


@torch.no_grad()
def reference_maps(backbone: Backbone, name: str, blocks: list[int], image: Tensor) -> Tensor:
    """timm's own maps: a model made for one size, whose position embeddings timm resampled as it loads a checkpoint."""
    whole = timm.create_model(name, img_size=tuple(image.shape[2:]), num_classes=0).eval()
    state = {key.removeprefix("model."): value for key, value in backbone.net.state_dict().items()}
    missing, unexpected = whole.load_state_dict(checkpoint_filter_fn(state, whole), strict=False)
    assert (unexpected, [key for key in missing if "norm" not in key and "pool" not in key]) == ([], [])
    return torch.cat(whole.forward_intermediates(image, indices=blocks, intermediates_only=True), dim=1)


@pytest.mark.parametrize(
    ("name", "size_px", "blocks"),
    [
        (TINY, (160, 160), [2, 3, 5]),
        (TINY, SIZE, [2, 3, 5]),
        ("test_vit3", (96, 64), [3, 5, 8]),  # a register token, no class token
        ("vit_small_patch14_reg4_dinov2.lvd142m", (252, 252), [5, 8, 11]),  # class and register tokens
        pytest.param("vit_small_patch14_dinov2.lvd142m", (252, 252), [5, 8, 11], marks=pytest.mark.slow),
        pytest.param("vit_small_patch14_dinov2.lvd142m", (518, 518), [5, 8, 11], marks=pytest.mark.slow),
        pytest.param("vit_small_patch14_reg4_dinov2.lvd142m", (518, 518), [5, 8, 11], marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_maps_are_those_of_timm_at_every_size(name, size_px, blocks):
    backbone = architecture_alone(name, size_px)
    image = draw_image(size_px)
    expected = reference_maps(backbone, name, blocks, image).permute(0, 2, 3, 1)
    folded = backbone.folded(torch.float32, size_px)
    for net in (backbone, folded):
        (joined,) = net.features(image)  # one map: nothing has to be upscaled from one block to another
        assert joined.shape == expected.shape
        torch.testing.assert_close(joined, expected, rtol=0, atol=1e-5)
    assert backbone.channels == (expected.shape[-1],)


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3.lvd1689m", "eva02_tiny_patch14_224"])
@torch.no_grad()
def test_rotary_positions_follow_the_size_too(name):
    stride = 16 if "16" in name else 14
    size_px = (4 * stride, 6 * stride)
    backbone = architecture_alone(name, size_px)
    whole = timm.create_model(name, dynamic_img_size=True, num_classes=0).eval()
    state = {key.removeprefix("model."): value for key, value in backbone.net.state_dict().items()}
    whole.load_state_dict(state, strict=False)
    image = draw_image(size_px)
    maps = whole.forward_intermediates(image, indices=[5, 8, 11], intermediates_only=True)
    expected = torch.cat(maps, dim=1).permute(0, 2, 3, 1)
    for net in (backbone, backbone.folded(torch.float32, size_px)):
        torch.testing.assert_close(net.features(image)[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "side", "stride", "mean"),
    [
        ("vit_small_patch14_dinov2.lvd142m", 518, 14, 0.485),
        ("vit_small_patch14_reg4_dinov2.lvd142m", 518, 14, 0.485),
        ("vit_small_patch16_dinov3.lvd1689m", 256, 16, 0.485),
        ("vit_base_patch16_siglip_224.webli", 224, 16, 0.5),
        ("vit_base_patch16_siglip_256.v2_webli", 256, 16, 0.5),
    ],
)
def test_each_model_has_its_own_size_and_colours(name, side, stride, mean):
    """By timm's own record; of 12 blocks, those at the half, three quarters and the end of the depth."""
    config = resolve_layers(ModelConfig(backbone=name))
    assert config.size_px == (side, side)
    assert config.layers == ("blocks.5", "blocks.8", "blocks.11")
    assert config.strides == (stride,)
    assert pretrained_settings(name).mean[0] == mean
    assert resolve_layers(config) == config


def test_given_layers_decide():
    config = resolve_layers(ModelConfig(backbone=TINY, layers="blocks.4, blocks.1", image_size=SIZE))
    assert (config.layers, config.strides) == (("blocks.1", "blocks.4"), (16,))
    assert resolve_layers(ModelConfig(backbone=TINY, feature_strides=(16,), image_size=SIZE)).layers is None
    one = architecture_alone(TINY, SIZE, feature_strides=(16,))  # as before there were layers: the last block
    last = architecture_alone(TINY, SIZE, layers="blocks.5")
    assert torch.equal(one.features(draw_image(SIZE))[0], last.features(draw_image(SIZE))[0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"layers": "blocks.2,blocks.6"},
            BackboneError,
            "model.layers: 'test_vit' has no layer blocks.6; it has blocks.0, blocks.1, blocks.2, blocks.3, blocks.4, "
            "blocks.5",
        ),
        (
            {"layers": ("blocks.2",), "feature_strides": (8,)},
            ConfigError,
            "model.layers and model.feature_strides: blocks.2 of 'test_vit' have the strides [16], not [8]; give one "
            "of the two",
        ),
        (
            {"image_size": (64, 100)},
            ConfigError,
            "model.image_size: 64x100 px; 'test_vit' takes multiples of 16 px a side, such as 64x96 or 64x112",
        ),
        (
            {"feature_strides": (8, 16)},
            BackboneError,
            "model.feature_strides: 'test_vit' has no feature map of stride [8]; it has [16]",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(options, error, message):
    with pytest.raises(error) as raised:
        resolve_layers(ModelConfig(backbone=TINY, **options))
    assert str(raised.value) == message


@pytest.mark.parametrize("typed", ["layer2,layer3", "[layer2, layer3]"])
def test_layers_on_the_command_line(typed):
    parser = command().parser
    model = parser.instantiate(parser.parse_args(["--model.layers", typed])).model
    assert model.layer_names == ("layer2", "layer3")
    assert resolve_layers(replace(model, backbone="compact")).layers == ("layer2", "layer3")


@pytest.mark.parametrize("layers", [(), "", ("layer2", "layer2"), "layer2,"])
def test_names_are_given_once_each(layers):
    with pytest.raises(ConfigError, match=r"model\.layers: .*; give one or more names, each once, such as layer2,laye"):
        ModelConfig(layers=layers)


@pytest.mark.parametrize("variant", ["jims", "icpr"])
def test_one_joined_map_is_the_plain_order_of_several(variant):
    """Blocks of one size, upscaled, concatenated and pooled as published: their concatenation, upscaled once."""
    generator = torch.Generator().manual_seed(1)
    maps = [torch.rand(2, channels, 3, 5, generator=generator, dtype=torch.float64) for channels in (4, 4, 6)]
    fast = Heads((14,), variant=variant, align_corners=True, generator=generator).double()
    reference = plain.PlainHeads((4, 4, 6), variant=variant, align_corners=True).double()
    shapes = reference.state_dict()
    reference.load_state_dict(
        {
            plain.plain_name(name): value.reshape(shapes[plain.plain_name(name)].shape)
            for name, value in fast.state_dict().items()
        }
    )
    noise = torch.randn(4, 14, 6, 10, generator=generator, dtype=torch.float64)
    mask = torch.rand(4, 6, 10, generator=generator) < 0.3
    output = fast([torch.cat(maps, dim=1).permute(0, 2, 3, 1)], Anomalies.from_dense(mask, noise))
    plain_map, plain_score = reference(maps, noise, mask)
    # float64 through three layers.
    torch.testing.assert_close(output.map_logit, plain_map, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(output.score_logit, plain_score, rtol=1e-9, atol=1e-9)


# --- from training to exported files ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("surfaces")
    synthesize(
        root,
        SyntheticConfig(surfaces=("brushed_metal",), size_px=SIZE, train_good=6, test_good=2, test_per_defect=1),
    )
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_file(
        {name: value.contiguous() for name, value in disturbed(timm.create_model(TINY)).state_dict().items()}, file
    )
    return file


@pytest.fixture(scope="module")
def trained(surfaces, weights, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "vit"
    train(
        MVTecAD(root=surfaces, category="brushed_metal"),
        output=folder,
        model=ModelConfig(backbone=TINY, backbone_weights=weights, image_size=SIZE),
        recipe=Recipe(batch_size=4),
        trainer=TrainerConfig(max_steps=3, accelerator="cpu"),
    )
    return folder


@pytest.fixture(scope="module")
def photographs(surfaces) -> list[Path]:
    return sorted(surfaces.rglob("test/**/*.png"))


def test_a_trained_model_is_loaded_with_its_layers(trained, photographs, weights):
    """What a later version would choose by default does not matter: the layers are in config.yaml."""
    record = yaml.safe_load((trained / "config.yaml").read_text())
    assert record["model"]["layers"] == ["blocks.2", "blocks.3", "blocks.5"]
    assert record["model"]["feature_strides"] == [16]
    assert record["training"]["plan"]["noise_std"] == pytest.approx(0.4 * record["training"]["plan"]["feature_scale"])
    assert record["training"]["feature_type"] == "float16"
    weights_file = trained / "model.safetensors"
    assert weights_file.is_file()
    (prediction,) = Detector.load(trained, device="cpu").predict(photographs[:1])
    assert prediction.map_logit.shape == SIZE
    assert np.isfinite(prediction.map_logit).all()


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["onnx", "openvino"])
def test_exported_files_give_the_same(file_format, trained, photographs, tmp_path):
    file = tmp_path / f"vit.{file_format}"
    bundle = export_model(trained, file, file_format=file_format, images=photographs)
    assert bundle.strides == (16,)
    found = Inspector.load(file, trust=True).predict(photographs)
    for one, other in zip(found, Detector.load(trained, device="cpu").predict(photographs), strict=True):
        # Another engine adds some hundred float32 products in another order.
        np.testing.assert_allclose(one.map_logit, other.map_logit, rtol=0, atol=2e-5)
        assert one.score_logit == pytest.approx(other.score_logit, abs=2e-5)


def test_another_size_must_fit_the_patch(trained, photographs, tmp_path):
    with pytest.raises(ConfigError, match=r"100x96 px; 'test_vit' takes multiples of 16 px a side, such as 96x96 or "):
        export_model(trained, tmp_path / "x.onnx", file_format="onnx", size_px=(100, 96), images=photographs)
    with pytest.raises(ConfigError, match="takes multiples of 16 px"):
        SuperSimpleNet(ModelConfig(backbone=TINY, image_size=(64, 100)), backbone=architecture_alone(TINY, SIZE))


def test_tiles_begin_at_multiples_of_the_patch():
    config = resolve_layers(ModelConfig(backbone="vit_small_patch14_dinov2", image_size=(252, 252)))
    preprocessor = Preprocessor(ViewConfig(fit="tiles"), size_px=config.size_px, strides=config.strides)
    grid = preprocessor.grid((600, 700))
    assert len(grid) > 4
    assert all(start % 14 == 0 for start in (*grid.tops, *grid.lefts))


# --- layers of a convolutional network, beside strides ----------------------------------------------------------------


def test_layers_and_strides_of_a_resnet_are_the_same(tmp_path):
    by_stride = SuperSimpleNet(ModelConfig(backbone="compact", image_size=(64, 64)), seed=1).eval()
    by_name = SuperSimpleNet(
        ModelConfig(backbone="compact", image_size=(64, 64), layers="layer2,layer3"), seed=1
    ).eval()
    assert by_name.config.strides == by_stride.config.strides == (8, 16)
    assert by_name.backbone.fingerprint() == by_stride.backbone.fingerprint()
    pixels = torch.randint(256, (1, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(by_name(pixels).map_logit, by_stride(pixels).map_logit)
    save_model(tmp_path / "named", by_name, {})
    network, record = load_model(tmp_path / "named")
    assert record["model"]["layers"] == ["layer2", "layer3"]
    assert network.config.layers == ("layer2", "layer3")
    # A folder of before: it has strides, and no layers.
    save_model(tmp_path / "old", by_stride, {})
    path = tmp_path / "old" / "config.yaml"
    content = yaml.safe_load(path.read_text())
    del content["model"]["layers"]
    path.write_text(yaml.safe_dump(content))
    network, _ = load_model(tmp_path / "old")
    with torch.no_grad():
        assert torch.equal(network(pixels).map_logit, by_stride(pixels).map_logit)


def test_an_early_layer_alone():
    backbone = build_backbone(ModelConfig(backbone="compact", layers="layer1"))
    (only,) = backbone(torch.zeros(1, 64, 64, 3, dtype=torch.uint8))
    assert only.shape == (1, 16, 16, 64)
