"""Backbones from the package, from files, from a hub and from the user, by the values of their feature maps."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from supersimplenet.errors import BackboneError
from supersimplenet.model import hub_record
from supersimplenet.model.backbone import Backbone, build_backbone, wrap_module
from supersimplenet.model.config import PUBLISHED_BACKBONE, ModelConfig
from supersimplenet.model.weight_files import read_state_dict
from supersimplenet.utils.journals import row_of

PACKAGED = Path(str(files("supersimplenet.model") / "weights" / "compact.safetensors"))
IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406])
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225])

StateDict = dict[str, Tensor]


def draw_pixels(height: int, width: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (batch, height, width, 3), generator=generator, dtype=torch.uint8)


def normalise(pixels: Tensor, mean: Tensor = IMAGENET_MEAN, std: Tensor = IMAGENET_STD) -> Tensor:
    return ((pixels / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def randomise(net: nn.Module, seed: int = 0) -> nn.Module:
    """Move what starts at 0 or 1 (norms, biases, scales) away from there, so that each weight matters."""
    generator = torch.Generator().manual_seed(seed)
    for value in net.state_dict().values():
        if value.is_floating_point() and value.ndim == 1:
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    return net.eval()


@torch.no_grad()
def maps_of_whole_model(net: nn.Module, image: Tensor, strides: tuple[int, ...]) -> list[Tensor]:
    """Channels last: the last intermediate output of the whole timm model at each stride."""
    intermediates = net.forward_intermediates(image, intermediates_only=True)
    by_width = {m.shape[3]: m.permute(0, 2, 3, 1) for m in intermediates}
    return [by_width[image.shape[3] // stride] for stride in strides]


def assert_same_maps(maps: tuple[Tensor, ...], expected: list[Tensor]) -> None:
    assert len(maps) == len(expected)
    for value, wanted in zip(maps, expected, strict=True):
        assert value.shape == wanted.shape
        # The same float32 operations; only the memory format, and with it the order of the sums, may differ.
        assert ((value - wanted).norm() / wanted.norm()).item() < 1e-5


# --- compact ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compact() -> Backbone:
    return build_backbone(ModelConfig(backbone="compact"))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 70), (33, 47)])
def test_compact_is_the_packaged_resnet18(compact, height, width):
    reference = timm.create_model("resnet18", features_only=True, out_indices=(2, 3)).eval()
    reference.load_state_dict({name: value.float() for name, value in load_file(PACKAGED).items()}, strict=True)
    image = normalise(draw_pixels(height, width))
    with torch.no_grad():
        expected = [m.permute(0, 2, 3, 1) for m in reference(image)]
    maps = compact.features(image)
    for value, wanted in zip(maps, expected, strict=True):
        assert torch.equal(value, wanted)
        assert value.abs().max() > 0.1
    up = [(-(-height // stride), -(-width // stride)) for stride in (8, 16)]  # sizes round up
    assert [tuple(m.shape) for m in maps] == [(2, *up[0], 128), (2, *up[1], 256)]
    assert compact.channels == (128, 256)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 70)])
def test_pixels_are_normalised_by_the_colours_of_imagenet(compact, height, width):
    pixels = draw_pixels(height, width)
    before = pixels.clone()
    assert_same_maps(compact(pixels), list(compact.features(normalise(pixels))))
    assert torch.equal(pixels, before)


def test_pixels_are_normalised_by_the_colours_of_the_model():
    """timm publishes some models for images in [-1, 1]."""
    backbone = build_backbone(ModelConfig(backbone="test_convnext"), with_weights=False)
    half = torch.full((3,), 0.5)
    pixels = draw_pixels(64, 64)
    assert_same_maps(backbone(pixels), list(backbone.features(normalise(pixels, half, half))))


def test_compact_stays_frozen_and_in_eval_mode(compact):
    pixels = draw_pixels(64, 64)
    before = [m.clone() for m in compact(pixels)]
    fingerprint = compact.fingerprint()
    nn.Sequential(compact).train()
    assert not any(module.training for module in compact.modules())
    assert not any(parameter.requires_grad for parameter in compact.parameters())
    after = compact(pixels)
    assert not any(m.requires_grad for m in after)
    assert all(torch.equal(*pair) for pair in zip(after, before, strict=True))
    assert compact.fingerprint() == fingerprint  # no running statistic moved


def test_compact_ends_with_the_last_stage_that_is_used(compact):
    prefixes = {name.split(".")[0] for name in compact.net.state_dict()}
    assert prefixes == {"conv1", "bn1", "layer1", "layer2", "layer3"}
    first = build_backbone(ModelConfig(backbone="compact", feature_strides=(8, 16)))
    assert first.refetchable
    assert first.origin == "package"


def test_the_packaged_weights_are_those_of_the_project(shared_dir):
    assert PACKAGED.read_bytes() == (shared_dir / "backbone" / "compact_resnet18_layer3.safetensors").read_bytes()


# --- weights from a file ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    return randomise(timm.create_model("resnet18"))


@pytest.fixture(scope="module")
def resnet18_states(resnet18) -> dict[str, StateDict]:
    whole = {name: value.clone() for name, value in resnet18.state_dict().items()}
    return {
        "whole": whole,
        "up to layer3": {name: value for name, value in whole.items() if not name.startswith(("layer4", "fc"))},
        "half precision": {name: value.half() if value.is_floating_point() else value for name, value in whole.items()},
        "without counters": {n: value for n, value in whole.items() if not n.endswith("num_batches_tracked")},
    }


def write_weights(folder: Path, state: StateDict, file_format: str) -> Path:
    path = (
        folder / {"safetensors": "weights.safetensors", "torch": "weights.pth", "wrapped": "weights.ckpt"}[file_format]
    )
    if file_format == "safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "epoch": 3} if file_format == "wrapped" else state, path)
    return path


def from_file(path: Path, architecture: str = "resnet18", strides: tuple[int, ...] = (8, 16)) -> Backbone:
    return build_backbone(ModelConfig(backbone=architecture, backbone_weights=path, feature_strides=strides))


@pytest.mark.parametrize("file_format", ["safetensors", "torch", "wrapped"])
@pytest.mark.parametrize("layers", ["whole", "up to layer3"])
def test_a_file_may_hold_more_or_fewer_layers(tmp_path, resnet18, resnet18_states, layers, file_format):
    backbone = from_file(write_weights(tmp_path, resnet18_states[layers], file_format))
    image = normalise(draw_pixels(64, 96))
    assert_same_maps(backbone.features(image), maps_of_whole_model(resnet18, image, (8, 16)))
    assert backbone.origin == "file"
    assert not backbone.refetchable


def test_a_file_may_lack_what_eval_mode_does_not_use(tmp_path, resnet18, resnet18_states):
    backbone = from_file(write_weights(tmp_path, resnet18_states["without counters"], "safetensors"))
    image = normalise(draw_pixels(64, 96))
    assert_same_maps(backbone.features(image), maps_of_whole_model(resnet18, image, (8, 16)))


def test_half_precision_is_read_as_single(tmp_path, resnet18_states):
    backbone = from_file(write_weights(tmp_path, resnet18_states["half precision"], "safetensors"))
    for name, value in backbone.net.state_dict().items():
        wanted = resnet18_states["half precision"][name]
        assert torch.equal(value, wanted.float() if value.is_floating_point() else wanted)


# timm names the parts of a feature extractor in four ways; (name of a part there, name in the whole model).
EXTRACTORS = {
    "test_convnext": ("stages_1", "stages.1"),
    "test_mambaout": ("stages_1", "stages.1"),  # its feature maps come channels last
    "test_efficientnet": ("blocks", "blocks"),
    "efficientvit_b0": ("stem_in_conv", "stem.in_conv"),
    "test_vit": ("model", "blocks"),
}


@pytest.mark.parametrize("architecture", EXTRACTORS)
def test_the_names_of_the_whole_timm_model_are_understood(tmp_path, architecture):
    whole = randomise(timm.create_model(architecture))
    strides = (16,) if architecture == "test_vit" else (8, 16)
    state = {name: value.clone() for name, value in whole.state_dict().items()}
    backbone = from_file(write_weights(tmp_path, state, "safetensors"), architecture, strides)
    here, there = EXTRACTORS[architecture]
    assert any(name.startswith(f"{here}.") for name in backbone.net.state_dict())
    assert any(name.startswith(f"{there}.") for name in state)

    image = normalise(draw_pixels(160, 160, batch=1))
    maps = backbone.features(image)
    assert_same_maps(maps, maps_of_whole_model(whole, image, strides))
    assert tuple(m.shape[3] for m in maps) == backbone.channels


def test_the_names_of_the_feature_extractor_are_understood_too(tmp_path):
    extractor = randomise(timm.create_model("test_convnext", features_only=True, out_indices=(1, 2)))
    state = {name: value.clone() for name, value in extractor.state_dict().items()}
    backbone = from_file(write_weights(tmp_path, state, "safetensors"), "test_convnext")
    image = normalise(draw_pixels(64, 64))
    with torch.no_grad():
        assert_same_maps(backbone.features(image), [m.permute(0, 2, 3, 1) for m in extractor(image)])


def test_real_weights_from_a_file(shared_dir):
    """torchvision's ResNet-18 up to layer3, in half precision, beside timm's own loading of it."""
    path = shared_dir / "backbone" / "resnet18_tv_v1_layer3.safetensors"
    backbone = from_file(path)
    reference = timm.create_model("resnet18", features_only=True, out_indices=(2, 3)).eval()
    reference.load_state_dict({name: value.float() for name, value in load_file(path).items()}, strict=True)
    image = normalise(draw_pixels(64, 64))
    with torch.no_grad():
        assert_same_maps(backbone.features(image), [m.permute(0, 2, 3, 1) for m in reference(image)])
    assert backbone.fingerprint() != build_backbone(ModelConfig(backbone="compact")).fingerprint()


def test_a_file_that_lacks_weights(tmp_path, resnet18_states):
    state = dict(resnet18_states["whole"])
    del state["layer3.0.conv1.weight"]
    path = write_weights(tmp_path, state, "safetensors")
    with pytest.raises(BackboneError) as error:
        from_file(path)
    # conv1, bn1 (5), three stages of two blocks with two convolutions and norms, two downsamplings: 90 in all.
    assert str(error.value) == (
        f"{path}: lacks 1 of the 90 weights the network needs: layer3.0.conv1.weight; "
        "give the weights of this architecture"
    )
    path = write_weights(tmp_path, {"other.weight": torch.ones(1)}, "torch")
    with pytest.raises(BackboneError, match=r"lacks 75 of the 90 .*: conv1.weight, .*, bn1.bias and 72 more; give"):
        from_file(path)


def test_a_file_with_weights_of_other_shapes(tmp_path, resnet18_states):
    state = {**resnet18_states["whole"], "conv1.weight": torch.zeros(64, 1, 7, 7)}
    path = write_weights(tmp_path, state, "safetensors")
    with pytest.raises(BackboneError) as error:
        from_file(path)
    assert str(error.value) == (
        f"{path}: 'conv1.weight' has shape (64, 1, 7, 7), the network needs (64, 3, 7, 7); "
        "these are weights of another architecture"
    )


@pytest.mark.parametrize("name", ["absent.safetensors", "absent.pth", "a_folder"])
def test_a_file_that_is_not_there(tmp_path, name):
    (tmp_path / "a_folder").mkdir()
    with pytest.raises(BackboneError, match=rf"{name}: no such file; give a safetensors file or a state dict"):
        from_file(tmp_path / name)


@pytest.mark.parametrize("kept", [0, 4, 1000, 4_000_000])
def test_a_damaged_safetensors_file(tmp_path, kept):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(PACKAGED.read_bytes()[:kept])
    with pytest.raises(BackboneError, match=r"weights.safetensors: damaged \("):
        from_file(path)


def test_a_damaged_torch_file(tmp_path, resnet18_states):
    path = write_weights(tmp_path, {"conv1.weight": resnet18_states["whole"]["conv1.weight"]}, "torch")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BackboneError, match=r"weights.pth: damaged \("):
        from_file(path)


class MakesAFolder:
    """An object whose unpickling does something: it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("writer", ["torch.save", "pickle.dump", "beside tensors"])
def test_objects_in_a_file_are_refused_unread(tmp_path, writer):
    trace = tmp_path / "it was unpickled"
    path = tmp_path / "weights.pth"
    if writer == "torch.save":
        torch.save(MakesAFolder(trace), path)
    elif writer == "pickle.dump":
        path.write_bytes(pickle.dumps(MakesAFolder(trace), protocol=2))
    else:
        torch.save({"state_dict": {"conv1.weight": torch.zeros(2)}, "config": MakesAFolder(trace)}, path)
    with pytest.raises(
        BackboneError, match=r"objects are never unpickled here .*; save its state dict alone: torch.save"
    ):
        from_file(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(MakesAFolder(trace)))  # this is what was not done
    assert trace.exists()


def test_a_whole_pickled_module_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(
        BackboneError, match=r"model.pt: holds something else than tensors.*torch.save\(model.state_dict"
    ):
        read_state_dict(tmp_path / "model.pt")


@pytest.mark.parametrize(("content", "found"), [([torch.zeros(2)], "list"), ({"epoch": 3}, "dict")])
def test_a_file_without_a_state_dict(tmp_path, content, found):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(BackboneError, match=rf"wanted a state dict, tensors by name; found {found}"):
        read_state_dict(tmp_path / "weights.pth")


# --- what cannot be chosen -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "close"),
    [("wideresnet50_2.tv_in1k", "wide_resnet50_2"), ("resnet19", "resnet18"), ("wide_resnet50", "wide_resnet50_2")],
)
def test_an_unknown_name_is_answered_with_close_ones(name, close):
    with pytest.raises(BackboneError) as error:
        build_backbone(ModelConfig(backbone=name))
    message = str(error.value)
    assert message.startswith(f"model.backbone: '{name}' is neither 'compact' nor a timm model; did you mean ")
    assert close in message.split("did you mean ")[1].split("?")[0].split(", ")
    assert message.endswith("(timm.list_models() names them all)")


def test_a_name_that_is_like_no_other():
    with pytest.raises(BackboneError) as error:
        build_backbone(ModelConfig(backbone="/////"))
    assert str(error.value) == (
        "model.backbone: '/////' is neither 'compact' nor a timm model (timm.list_models() names them all)"
    )


def test_strides_the_model_has_not():
    with pytest.raises(BackboneError) as error:
        build_backbone(ModelConfig(backbone="compact", feature_strides=(8, 64)))
    assert str(error.value) == (
        "model.feature_strides: 'resnet18' has no feature map of stride [64]; it has [2, 4, 8, 16, 32]"
    )


def featureless(pretrained: bool = False, features_only: bool = False, **options: Any) -> nn.Module:
    """A model as older timm versions have them: it refuses to give feature maps."""
    del pretrained, options
    if features_only:
        raise RuntimeError("features_only not implemented for this model.")
    return nn.Identity()


def test_a_model_without_feature_maps():
    timm.models.register_model(featureless)
    with pytest.raises(BackboneError) as error:
        build_backbone(ModelConfig(backbone="featureless"))
    assert str(error.value) == (
        "model.backbone: timm's 'featureless' gives no feature maps: features_only not implemented for this model."
    )


def test_weights_that_timm_does_not_know():
    with pytest.raises(BackboneError, match=r"'resnet18.nonsense'.*: Invalid pretrained tag \(nonsense\) for resnet18"):
        build_backbone(ModelConfig(backbone="resnet18.nonsense"))


def test_compact_takes_no_weights_file():
    with pytest.raises(BackboneError) as error:
        build_backbone(ModelConfig(backbone="compact", backbone_weights=PACKAGED))
    assert str(error.value) == (
        "model.backbone_weights: 'compact' comes with its weights; name a timm model, or drop it"
    )


# --- a module of the user's own --------------------------------------------------------------------------------------


class Pooled(nn.Module):
    """Average colours at strides 8 and 16, the second map with each colour twice."""

    def __init__(self, container: str) -> None:
        super().__init__()
        self.container = container

    def forward(self, image: Tensor) -> Any:
        maps = [nn.functional.avg_pool2d(image, 8), nn.functional.avg_pool2d(image, 16).repeat(1, 2, 1, 1)]
        return {"list": maps, "tuple": tuple(maps), "dict": dict(zip("ab", maps, strict=True))}[self.container]


@pytest.mark.parametrize("container", ["list", "tuple", "dict"])
def test_a_module_of_ones_own(container):
    backbone = wrap_module(Pooled(container), (64, 96))
    assert backbone.channels == (3, 6)
    assert backbone.origin == "module"
    assert not backbone.refetchable
    pixels = draw_pixels(64, 96)
    colours = (pixels / 255 - IMAGENET_MEAN) / IMAGENET_STD  # (2, 64, 96, 3)
    first = colours.view(2, 8, 8, 12, 8, 3).mean(dim=(2, 4))
    second = colours.view(2, 4, 16, 6, 16, 3).mean(dim=(2, 4)).repeat(1, 1, 1, 2)
    for value, wanted in zip(backbone(pixels), (first, second), strict=True):
        torch.testing.assert_close(value, wanted, rtol=0, atol=1e-5)  # float32 means of up to 256 values of size 2


class Returns(nn.Module):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, image: Tensor) -> Any:
        del image
        return self.value


WANTED = "wanted a list, tuple or dict of feature maps, each (B, C, h, w)"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(1, 3, 8, 8), f"returned Tensor; {WANTED}"),
        ([], f"returned list; {WANTED}"),
        ({}, f"returned dict; {WANTED}"),
        ([torch.zeros(1, 3, 8)], f"returned list; {WANTED}"),
        ((torch.zeros(1, 3, 8, 8), "layer3"), f"returned tuple; {WANTED}"),
        (None, f"returned NoneType; {WANTED}"),
        ([torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 8, 8)], "its feature maps must come largest first"),
    ],
)
def test_a_module_that_gives_something_else(value, message):
    with pytest.raises(BackboneError) as error:
        wrap_module(Returns(value), (64, 64))
    assert message in str(error.value)
    assert str(error.value).startswith("backbone Returns: ")


# --- fingerprint -----------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_the_weights_alone(tmp_path, compact):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(PACKAGED.read_bytes())
    again = from_file(path)
    assert again.fingerprint() == compact.fingerprint()
    assert len(bytes.fromhex(again.fingerprint())) == 32


@pytest.mark.parametrize("name", ["layer3.1.conv2.weight", "bn1.running_var"])
def test_the_fingerprint_tells_a_single_value(name):
    backbone = build_backbone(ModelConfig(backbone="compact"))
    before = backbone.fingerprint()
    value = backbone.net.state_dict()[name].view(-1)
    kept = value[-1].item()
    value[-1] = torch.nextafter(value[-1], torch.tensor(9.0))
    assert backbone.fingerprint() != before
    value[-1] = kept
    assert backbone.fingerprint() == before


# --- the hub ---------------------------------------------------------------------------------------------------------

HUB_MODEL = "test_resnet.r160_in1k"
NO_HUB = "http://no-such-host.invalid"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def serve_hub(repository: str, content: bytes) -> Iterator[tuple[str, list[str]]]:
    """A model hub on this machine that holds one file of one repository; its address, and what it was asked for."""
    asked: list[str] = []
    etag = hashlib.sha256(content).hexdigest()

    class Hub(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(f"{self.command} {self.path}")
            found = self.path == f"/{repository}/resolve/main/model.safetensors"
            self.send_response(200 if found else 404)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content) if found else 0))
            if found:
                self.send_header("ETag", f'"{etag}"')
            else:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            if found and self.command == "GET":
                self.wfile.write(content)

        do_GET = do_HEAD = answer  # noqa: N815 (the names http.server calls)

        def log_message(self, *arguments: Any) -> None:
            del arguments

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


BUILD = """
import json, sys, time
from safetensors.torch import save_file
from supersimplenet.errors import BackboneError
from supersimplenet.model.backbone import build_backbone
from supersimplenet.model.config import ModelConfig
from supersimplenet.model.weight_files import read_state_dict

name, output = sys.argv[1:]
started = time.monotonic()
try:
    backbone = build_backbone(ModelConfig(backbone=name))
except BackboneError as error:
    answer = {"error": str(error)}
else:
    save_file(backbone.net.state_dict(), output)
    answer = {"origin": backbone.origin, "channels": backbone.channels}
    answer["fingerprint"] = backbone.fingerprint(counters=False)
print(json.dumps({**answer, "seconds": time.monotonic() - started}))
"""


def build_elsewhere(name: str, *, endpoint: str, home: Path, output: Path) -> dict[str, Any]:
    """Build a backbone in a process of its own: the hub's client reads its settings when it is imported."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.upper().startswith("HF_") and not key.lower().endswith("_proxy")
    }
    environment = {**kept, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", BUILD, name, str(output)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=200)
    answer: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return answer


def test_weights_come_from_the_hub_and_then_from_its_cache(tmp_path, monkeypatch):
    whole = randomise(timm.create_model("test_resnet"))
    state = {name: value.contiguous() for name, value in whole.state_dict().items()}
    with serve_hub(f"timm/{HUB_MODEL}", save(state)) as (endpoint, asked):
        first = build_elsewhere(
            HUB_MODEL, endpoint=endpoint, home=tmp_path / "home", output=tmp_path / "first.safetensors"
        )
    assert f"GET /timm/{HUB_MODEL}/resolve/main/model.safetensors" in asked
    assert (first["origin"], first["channels"]) == ("hub", [48, 192])
    fetched = load_file(tmp_path / "first.safetensors")
    assert {name.split(".")[0] for name in fetched} == {"conv1", "bn1", "layer1", "layer2", "layer3"}
    assert all(torch.equal(value, state[name]) for name, value in fetched.items())

    # The server is stopped, and on this machine not even the hub's name is known.
    second = build_elsewhere(HUB_MODEL, endpoint=NO_HUB, home=tmp_path / "home", output=tmp_path / "second.safetensors")
    assert second["origin"] == "hub"
    assert (tmp_path / "second.safetensors").read_bytes() == (tmp_path / "first.safetensors").read_bytes()
    assert second["seconds"] < 20  # it builds a small model and asks nobody: a second, more on a busy machine

    # Loaded twice, recorded once; the weights are then known in a file, also without BatchNorm's counts.
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    recorded = (tmp_path / "home" / hub_record.RECORD).read_bytes().splitlines(keepends=True)
    assert [row_of(line, first="backbone") for line in recorded] == [
        {"backbone": HUB_MODEL, "sha256": first["fingerprint"]}
    ]
    copied = tmp_path / "copied.safetensors"
    save_file({name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}, copied)
    fingerprint = from_file(copied, "test_resnet").fingerprint(counters=False)
    assert hub_record.is_hub_file(HUB_MODEL, copied, fingerprint)
    assert not hub_record.is_hub_file("resnet18.tv_in1k", copied, fingerprint)
    state["layer1.0.conv1.weight"][0, 0, 0, 0] += 1
    save_file(state, copied)
    assert not hub_record.is_hub_file(HUB_MODEL, copied, from_file(copied, "test_resnet").fingerprint(counters=False))


def test_a_file_is_known_by_the_digits_of_its_hash_in_the_address(tmp_path):
    file = tmp_path / "any name.pth"
    file.write_bytes(b"weights")
    digits = hashlib.sha256(b"weights").hexdigest()[:8]
    assert hub_record.has_stated_hash(file, f"https://example.com/models/resnet18-{digits}.pth")
    assert not hub_record.has_stated_hash(file, "https://example.com/models/resnet18-95faca4d.pth")
    assert not hub_record.has_stated_hash(file, "None")
    # torchvision names the published weights so, and timm keeps the address.
    assert timm.get_pretrained_cfg(PUBLISHED_BACKBONE).url.endswith("/wide_resnet50_2-95faca4d.pth")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]\n{}\nnull\n", b'{"backbone": "x"}\n'])
def test_a_damaged_record_says_nothing_and_is_added_to(tmp_path, monkeypatch, content):
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))
    record = tmp_path / hub_record.RECORD
    record.parent.mkdir()
    record.write_bytes(content)
    assert not hub_record.is_hub_file("x", record, "0" * 64)
    for _ in range(2):
        hub_record.record_fingerprint("x", "0" * 64)
    assert record.read_text(encoding="utf-8", errors="replace").count('"sha256"') == 1
    assert hub_record.is_hub_file("x", record, "0" * 64)


def test_a_hub_that_is_not_there_leaves_three_ways_out(tmp_path):
    answer = build_elsewhere(HUB_MODEL, endpoint=NO_HUB, home=tmp_path / "home", output=tmp_path / "none.safetensors")
    (line,) = answer["error"].splitlines()
    assert line.startswith(f"model.backbone: the weights of '{HUB_MODEL}' could not be fetched from the model hub (")
    assert "Errno" not in line
    ways = line.partition("Three ways out: ")[2]
    assert ways.startswith("1. --model.backbone compact: ")
    assert "; 2. --model.backbone_weights FILE: " in ways
    assert "; 3. on a machine with access, " in ways
    assert "(HF_HOME)" in ways
    # A look-up of the name, which a slow resolver may try twice; the hub's client would retry for most of a minute.
    assert answer["seconds"] < 30


def test_no_hub_is_asked_for_an_architecture_alone(monkeypatch):
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError(f"asked the network: {arguments}, {options}")

    monkeypatch.setattr("socket.getaddrinfo", refuse)
    monkeypatch.setattr("socket.socket.connect", refuse)
    backbone = build_backbone(ModelConfig(backbone=HUB_MODEL), with_weights=False)
    assert backbone.channels == (48, 192)
    assert backbone.refetchable
    assert build_backbone(ModelConfig(backbone="compact")).origin == "package"
