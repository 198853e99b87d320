"""Files of the authors' code and of anomalib, imported and compared with the plain network that holds their weights."""

from __future__ import annotations

import dataclasses
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from supersimplenet.benchmark import published_order as plain
from supersimplenet.errors import BackboneError, ModelFolderError, OutputError
from supersimplenet.inference.import_weights import import_weights
from supersimplenet.inference.model_folder import load_model
from supersimplenet.model.config import ModelConfig

CHANNELS = (128, 256)  # of the compact backbone
SIZE = (48, 80)
StateDict = dict[str, Tensor]

# The reference's name of each layer beside theirs, as their public code has it.
OFFICIAL = {
    "adaptor": "feature_adaptor.projection",
    "segmentation.0": "discriminator.seg.0",
    "segmentation.1": "discriminator.seg.1",
    "segmentation.3": "discriminator.seg.3",
    "classification.0": "discriminator.dec_head.0",
    "classification.1": "discriminator.dec_head.1",
    "score": "discriminator.fc_score",
}
ANOMALIB = {
    "adaptor": "adaptor.projection",
    "segmentation.0": "segdec.seg_head.0",
    "segmentation.1": "segdec.seg_head.1",
    "segmentation.3": "segdec.seg_head.3",
    "classification.0": "segdec.cls_conv.0",
    "classification.1": "segdec.cls_conv.1",
    "score": "segdec.cls_fc",
}
ALIGN_CORNERS = {"official": True, "anomalib": False}


def make_reference(variant: str, source: str, channels: tuple[int, int] = CHANNELS, seed: int = 0) -> plain.PlainHeads:
    """The plain heads with every weight and statistic drawn anew, their outputs of size 1."""
    generator = torch.Generator().manual_seed(seed)
    heads = plain.PlainHeads(channels, variant=variant, align_corners=ALIGN_CORNERS[source]).eval()
    with torch.no_grad():
        for name, value in heads.state_dict().items():
            if name.endswith("num_batches_tracked"):
                value.fill_(7)
            elif value.ndim == 1:
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))  # a variance must be positive
            else:
                value.copy_(torch.randn(value.shape, generator=generator) / value[0].numel() ** 0.5)
    return heads


def as_theirs(heads: plain.PlainHeads, names: dict[str, str]) -> StateDict:
    state = {}
    for name, value in heads.state_dict().items():
        layer, parameter = name.rsplit(".", 1)
        state[f"{names[layer]}.{parameter}"] = value
    return state


def write_official(path: Path, heads: plain.PlainHeads) -> None:
    torch.save(as_theirs(heads, OFFICIAL), path)


def write_anomalib(path: Path, heads: plain.PlainHeads) -> None:
    """The state dict of anomalib's torch model, its feature extractor with it."""
    extractor = {"feature_extractor.feature_extractor.conv1.weight": torch.ones(64, 3, 7, 7)}
    torch.save({**extractor, **as_theirs(heads, ANOMALIB)}, path)


def lightning_state(heads: plain.PlainHeads) -> StateDict:
    return {
        "model.feature_extractor.feature_extractor.conv1.weight": torch.ones(64, 3, 7, 7),
        **{f"model.{name}": value for name, value in as_theirs(heads, ANOMALIB).items()},
        "post_processor._image_threshold": torch.tensor(0.5),
        "image_metrics.AUROC.total": torch.zeros(3),
    }


def write_lightning(path: Path, heads: plain.PlainHeads) -> None:
    torch.save({"state_dict": lightning_state(heads), "epoch": 3, "hyper_parameters": {"perlin_threshold": 0.2}}, path)


def write_lightning_state(path: Path, heads: plain.PlainHeads) -> None:
    torch.save(lightning_state(heads), path)


WRITERS = {
    "official": ("official", write_official),
    "anomalib model": ("anomalib", write_anomalib),
    "anomalib checkpoint": ("anomalib", write_lightning),
    "anomalib checkpoint's state dict": ("anomalib", write_lightning_state),
}


def config(variant: str = "jims", **options: Any) -> ModelConfig:
    return ModelConfig(backbone="compact", image_size=SIZE, variant=variant, **options)


def relative_error(value: Tensor, reference: Tensor) -> float:
    return float((value - reference).norm() / reference.norm())


@pytest.mark.parametrize("variant", ["jims", "icpr"])
@pytest.mark.parametrize("kind", WRITERS)
def test_an_imported_model_computes_what_theirs_does(tmp_path, kind, variant):
    source, write = WRITERS[kind]
    reference = make_reference(variant, source)
    write(tmp_path / "theirs.pt", reference)
    # The align_corners of the configuration does not count: the source decides it.
    imported = import_weights(
        tmp_path / "theirs.pt",
        source=source,
        config=config(variant, align_corners=not ALIGN_CORNERS[source]),
        output=tmp_path / "model",
    )
    loaded, record = load_model(tmp_path / "model")
    assert record["imported"] == {"source": source, "file": "theirs.pt"}
    wanted = config(variant, align_corners=ALIGN_CORNERS[source])
    assert loaded.config == dataclasses.replace(wanted, feature_strides=wanted.strides)  # stored as they were resolved
    assert not loaded.training

    pixels = torch.randint(256, (2, *SIZE, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    with torch.no_grad():
        maps = [m.permute(0, 3, 1, 2).double() for m in loaded.backbone(pixels)]
        map_logit, score_logit = reference.double()(maps)
        assert map_logit.std() > 0.1
        for network in (imported, loaded):
            output = network(pixels)
            # float32 sums over up to 9600 products, on the scale of the outputs.
            assert relative_error(output.map_logit, map_logit) < 1e-5
            assert relative_error(output.score_logit, score_logit) < 1e-5
        # The other convention would be noticed.
        reference.align_corners = not reference.align_corners
        assert relative_error(output.map_logit, reference(maps)[0]) > 1e-3


def test_a_safetensors_file_is_read_too(tmp_path):
    reference = make_reference("jims", "anomalib")
    save_file(as_theirs(reference, ANOMALIB), tmp_path / "theirs.safetensors")
    network = import_weights(
        tmp_path / "theirs.safetensors", source="anomalib", config=config(), output=tmp_path / "model"
    )
    for name, value in network.heads.state_dict().items():
        assert torch.equal(value, reference.state_dict()[plain.plain_name(name)].reshape(value.shape))


def test_the_output_may_be_an_empty_folder(tmp_path):
    write_official(tmp_path / "weights.pt", make_reference("jims", "official"))
    (tmp_path / "model").mkdir()
    import_weights(tmp_path / "weights.pt", source="official", config=config(), output=tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.yaml", "model.safetensors"]
    record = yaml.safe_load((tmp_path / "model" / "config.yaml").read_text())
    assert record["model"]["align_corners"] is True
    assert record["backbone"]["origin"] == "package"


def refuse(tmp_path: Path, source: str, file: str = "weights.pt", model: ModelConfig | None = None) -> str:
    """The message of an import that must fail and must leave nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ModelFolderError) as error:
        import_weights(tmp_path / file, source=source, config=model or config(), output=tmp_path / "model")
    assert sorted(tmp_path.rglob("*")) == before
    return str(error.value)


def test_each_missing_weight_is_named(tmp_path):
    state = as_theirs(make_reference("jims", "official"), OFFICIAL)
    removed = ["discriminator.seg.1.running_var", "discriminator.dec_head.0.bias", "discriminator.fc_score.weight"]
    for name in removed:
        del state[name]
    torch.save(state, tmp_path / "weights.pt")
    # 19 in all: three convolutions with bias, one without, two norms of five, a linear layer of two.
    assert refuse(tmp_path, "official") == (
        f"{tmp_path / 'weights.pt'}: lacks 3 of the 19 weights of --source official: {', '.join(removed)}"
    )


def test_a_file_of_something_else_lacks_all(tmp_path):
    torch.save({"conv1.weight": torch.zeros(2)}, tmp_path / "weights.pt")
    message = refuse(tmp_path, "anomalib")
    assert "lacks 19 of the 19 weights of --source anomalib: " in message
    expected = as_theirs(make_reference("jims", "anomalib"), ANOMALIB)
    assert set(message.split("--source anomalib: ")[1].split(", ")) == set(expected)


@pytest.mark.parametrize(("kind", "wrong"), [(k, w) for k in WRITERS for w in ALIGN_CORNERS if w != WRITERS[k][0]])
def test_the_wrong_source_is_answered_with_the_other(tmp_path, kind, wrong):
    source, write = WRITERS[kind]
    write(tmp_path / "weights.pt", make_reference("jims", source))
    message = refuse(tmp_path, wrong)
    assert f"lacks 19 of the 19 weights of --source {wrong}: " in message
    assert message.endswith(f"; it looks like --source {source}")


def test_another_backbones_weights_are_answered_with_the_option(tmp_path):
    write_official(tmp_path / "weights.pt", make_reference("jims", "official", channels=(64, 128)))
    message = refuse(tmp_path, "official")
    assert message.startswith(f"{tmp_path / 'weights.pt'}: weights of another architecture: ")
    assert message.endswith("; name the backbone it was trained with: --model.backbone NAME")
    for misfit in (
        "feature_adaptor.projection.weight (192, 192, 1, 1) where (384, 384) is needed",
        "feature_adaptor.projection.bias (192,) where (384,) is needed",
        "discriminator.seg.0.weight (1024, 192, 1, 1) where (1024, 384) is needed",
        "discriminator.dec_head.0.weight (128, 193, 5, 5) where (128, 385, 5, 5) is needed",
    ):
        assert misfit in message
    assert message.count("is needed") == 4


def test_a_transposed_matrix_does_not_fit(tmp_path):
    """As many numbers, in another shape: they are not to be reshaped into place."""
    state = as_theirs(make_reference("jims", "official"), OFFICIAL)
    state["discriminator.seg.0.weight"] = state["discriminator.seg.0.weight"].transpose(0, 1).contiguous()
    torch.save(state, tmp_path / "weights.pt")
    assert "discriminator.seg.0.weight (384, 1024, 1, 1) where (1024, 384) is needed" in refuse(tmp_path, "official")


@pytest.mark.parametrize("content", ["a folder with a file", "a file"])
def test_an_output_that_is_not_empty_is_left_alone(tmp_path, content):
    write_official(tmp_path / "weights.pt", make_reference("jims", "official"))
    output = tmp_path / "model"
    note = output / "note.txt" if content == "a folder with a file" else output
    note.parent.mkdir(exist_ok=True)
    note.write_text("mine")
    with pytest.raises(OutputError) as error:
        import_weights(tmp_path / "weights.pt", source="official", config=config(), output=output)
    assert str(error.value) == f"{output}: is not an empty folder; choose another --output"
    assert note.read_text() == "mine"
    assert sorted(tmp_path.rglob("*")) == sorted({note, output, tmp_path / "weights.pt"})


class MakesAFolder:
    """An object whose unpickling does something: it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("place", ["alone", "in a checkpoint"])
def test_objects_in_a_file_are_refused_unread(tmp_path, place):
    trace = tmp_path / "it was unpickled"
    state = lightning_state(make_reference("jims", "anomalib"))
    content = {"alone": MakesAFolder(trace), "in a checkpoint": {"state_dict": state, "callback": MakesAFolder(trace)}}
    torch.save(content[place], tmp_path / "weights.pt")
    message = refuse(tmp_path, "anomalib")  # nothing is left behind: no trace either
    assert "holds something else than tensors, and objects are never unpickled here" in message
    assert message.endswith("save its state dict alone: torch.save(model.state_dict(), ...)")
    pickle.loads(pickle.dumps(MakesAFolder(trace)))  # this is what was not done
    assert trace.exists()


def test_a_file_that_is_not_there(tmp_path):
    assert refuse(tmp_path, "official", file="absent.pt").startswith(f"{tmp_path / 'absent.pt'}: no such file")


def test_a_backbone_that_cannot_be_had_leaves_nothing_behind(tmp_path):
    write_official(tmp_path / "weights.pt", make_reference("jims", "official"))
    model = ModelConfig(backbone="resnet18", backbone_weights=tmp_path / "absent.pth", image_size=SIZE)
    with pytest.raises(BackboneError, match=r"absent\.pth: no such file"):
        import_weights(tmp_path / "weights.pt", source="official", config=model, output=tmp_path / "model")
    assert not (tmp_path / "model").exists()
