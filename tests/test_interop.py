"""Weights of the authors' code and of anomalib give the plain network's outputs here."""

from __future__ import annotations

from pathlib import Path

import plain
import pytest
import torch

from supersimplenet.deploy.folder import load_model
from supersimplenet.deploy.interop import import_weights
from supersimplenet.errors import ModelFolderError, OutputError
from supersimplenet.model.recipes import ModelConfig

SIZE = (64, 96)
THEIRS = {
    "official": {
        "adaptor": "feature_adaptor.projection",
        "segmentation": "discriminator.seg",
        "classification": "discriminator.dec_head",
        "score": "discriminator.fc_score",
    },
    "anomalib": {
        "adaptor": "adaptor.projection",
        "segmentation": "segdec.seg_head",
        "classification": "segdec.cls_conv",
        "score": "segdec.cls_fc",
    },
}


def make_reference(source: str, variant: str = "jims") -> plain.PlainHeads:
    """The plain network in the source's convention, every weight drawn."""
    torch.manual_seed(0)
    reference = plain.PlainHeads((128, 256), variant=variant, align_corners=source == "official").eval()
    with torch.no_grad():
        for name, value in reference.state_dict().items():
            if "running" in name:
                value.uniform_(0.5, 1.5)
    return reference


def their_state(source: str, reference: plain.PlainHeads) -> dict[str, torch.Tensor]:
    renamed = {}
    for name, value in reference.state_dict().items():
        module, _, rest = name.partition(".")
        renamed[f"{THEIRS[source][module]}.{rest}"] = value
    return renamed


@pytest.mark.parametrize("variant", ["jims", "icpr"])
@pytest.mark.parametrize("wrapping", ["plain", "prefixed", "checkpoint"])
@pytest.mark.parametrize("source", ["official", "anomalib"])
def test_imported_weights_give_the_plain_networks_outputs(tmp_path, source, wrapping, variant):
    reference = make_reference(source, variant)
    content = their_state(source, reference)
    if wrapping != "plain":
        content = {f"model.{name}": value for name, value in content.items()}
        content["model.feature_extractor.layer1.weight"] = torch.zeros(3)
        content["image_metrics.threshold"] = torch.tensor(0.5)
    torch.save({"state_dict": content, "epoch": 3} if wrapping == "checkpoint" else content, tmp_path / "weights.pt")
    config = ModelConfig(backbone="compact", image_size=SIZE, variant=variant)
    import_weights(tmp_path / "weights.pt", source=source, config=config, output=tmp_path / "model")

    network, record = load_model(tmp_path / "model")
    assert record["imported"] == {"source": source, "file": "weights.pt"}
    pixels = torch.randint(0, 256, (2, *SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        output = network(pixels)
        maps = [f.permute(0, 3, 1, 2) for f in network.backbone(pixels)]
        map_logit, score_logit = reference(maps)
    # float32 in another order of sums, relative to the size of the outputs
    assert (output.map_logit - map_logit).norm() / map_logit.norm() < 1e-5
    assert (output.score_logit - score_logit).norm() / score_logit.norm() < 1e-5


@pytest.fixture
def official(tmp_path: Path) -> Path:
    torch.save(their_state("official", make_reference("official")), tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def attempt(file: Path, source: str = "official", **options: object) -> None:
    config = ModelConfig(**{"backbone": "compact", "image_size": SIZE, **options})
    import_weights(file, source=source, config=config, output=file.parent / "model")


def test_missing_weights_are_all_listed(official):
    content = torch.load(official, weights_only=True)
    del content["discriminator.seg.1.running_mean"], content["discriminator.fc_score.bias"]
    torch.save(content, official)
    with pytest.raises(ModelFolderError, match="lacks 2 of the") as error:
        attempt(official)
    assert "discriminator.seg.1.running_mean, discriminator.fc_score.bias" in str(error.value)
    assert not (official.parent / "model").exists()


def test_the_other_source_is_suggested(official):
    with pytest.raises(ModelFolderError, match="it looks like --source official"):
        attempt(official, source="anomalib")


def test_weights_for_another_backbone_name_the_option(official):
    with pytest.raises(ModelFolderError, match=r"weights of another architecture: .* --model\.backbone NAME"):
        attempt(official, feature_strides=(8,))


def test_a_folder_with_something_in_it_is_refused(official):
    (official.parent / "model").mkdir()
    (official.parent / "model" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not an empty folder; choose another --output"):
        attempt(official)


class Trap:
    """Would create a file where it was unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_objects_are_never_unpickled(tmp_path):
    torch.save({"state_dict": Trap(tmp_path / "sprung")}, tmp_path / "weights.pt")
    with pytest.raises(ModelFolderError, match="objects are never unpickled here"):
        attempt(tmp_path / "weights.pt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(("content", "message"), [(None, "no such file"), ([1, 2], "wanted a state dict")])
def test_what_is_no_state_dict_is_refused(tmp_path, content, message):
    if content is not None:
        torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ModelFolderError, match=message):
        attempt(tmp_path / "weights.pt")
