"""A training that starts from an earlier model: from its heads, with its held-out parts still held out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from supersimplenet import SyntheticConfig, synthesize
from supersimplenet.cli.main import main
from supersimplenet.datasets.folder import Folder
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.evaluation.calibrate import calibrate
from supersimplenet.inference.detector import Detector
from supersimplenet.inference.image_records import read_image_records, read_known_images
from supersimplenet.inference.record import read_record
from supersimplenet.model.config import ModelConfig, Recipe
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.cross import score_folds_of
from supersimplenet.training.train import train

SIZE = (64, 64)
MODEL = ModelConfig(backbone="compact", image_size=SIZE)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twenty good photographs."""
    root = tmp_path_factory.mktemp("parts")
    config = SyntheticConfig(surfaces=("brushed_metal",), size_px=SIZE, train_good=20, test_good=1, test_per_defect=1)
    synthesize(root, config)
    return sorted((root / "brushed_metal" / "train" / "good").iterdir())


def folder_of(folder: Path, photographs: list[Path]) -> Folder:
    folder.mkdir()
    for photograph in photographs:
        (folder / photograph.name).write_bytes(photograph.read_bytes())
    return Folder(good=[folder], test_fraction=0.0)


def begin(source: Folder, output: Path, *, epochs: int = 1, **options: object) -> Detector:
    return train(
        source,
        output=output,
        model=MODEL,
        recipe=Recipe(batch_size=4),
        trainer=TrainerConfig(max_epochs=epochs, accelerator="cpu", logger="none", escapes_share=0),
        **options,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def first(parts: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of ten of them."""
    folder = tmp_path_factory.mktemp("first")
    begin(folder_of(folder / "good", parts[:10]), folder / "model")
    return folder / "model"


def roles(model: Path) -> dict[str, str]:
    return {record.name: record.role for record in read_image_records(model) or ()}


def test_it_starts_from_the_heads_of_the_earlier_model(parts, first, tmp_path):
    """With rates of nearly nothing, they are the same at the end."""
    earlier = Detector.load(first).network.trained_heads
    train(
        folder_of(tmp_path / "good", parts),
        output=tmp_path / "model",
        model=MODEL,
        recipe=Recipe(batch_size=4, adaptor_lr=1e-30, heads_lr=1e-30),
        trainer=TrainerConfig(max_epochs=1, accelerator="cpu", logger="none", escapes_share=0),
        warm_start=first,
    )
    found = dict(Detector.load(tmp_path / "model").network.trained_heads.named_parameters())
    assert all(torch.equal(found[name], value) for name, value in earlier.named_parameters())
    assert read_record(tmp_path / "model")["warm_start"]["path"] == str(first)


def test_held_out_parts_stay_held_out_and_no_trained_one_ever_calibrates(parts, first, tmp_path):
    before = roles(first)
    assert sorted(before.values()) == ["held-out"] * 2 + ["trained"] * 8
    for seed in range(2):  # whatever a seed would draw
        output = tmp_path / f"model{seed}"
        begin(folder_of(tmp_path / f"good{seed}", parts), output, warm_start=first, seed=seed)
        after = roles(output)
        assert {name: after[name] for name in before} == before
        assert sum(role == "held-out" for role in after.values()) == 4  # a fifth of twenty


def test_what_only_the_earlier_model_has_seen_is_remembered(parts, first, tmp_path):
    """A threshold by it would guarantee nothing."""
    second, third = tmp_path / "second", tmp_path / "third"
    begin(folder_of(tmp_path / "new", parts[10:]), second, warm_start=first)
    begin(folder_of(tmp_path / "newer", parts[10:]), third, warm_start=second)
    for model in (second, third):
        assert [role for name, role in roles(model).items() if role == "earlier"] == ["earlier"] * 8
        known = read_known_images(model) or {}
        seen_before = [r for r in read_image_records(first) or () if r.role == "trained"]
        assert all(known[record.sha256] == known[record.pixels] == "train" for record in seen_before)
    seen = tmp_path / "seen"
    folder_of(seen, [first.parent / "good" / name for name, role in roles(first).items() if role == "trained"])
    with pytest.raises(DataError, match="trained"):
        calibrate(third, good=seen)


def test_a_part_in_another_file_is_the_same_part(parts, first, tmp_path):
    """Equal pixels, other bytes."""
    from PIL import Image

    trained = next(name for name, role in roles(first).items() if role == "trained")
    source = folder_of(tmp_path / "good", parts[10:])
    with Image.open(first.parent / "good" / trained) as image:
        image.save(tmp_path / "good" / "copy.png", compress_level=1)
    for seed in range(2):
        begin(source, tmp_path / f"model{seed}", epochs=1, warm_start=first, seed=seed)
        assert roles(tmp_path / f"model{seed}")["copy.png"] == "trained"


def test_without_a_new_good_part_nothing_calibrates_and_the_reason_is_said(parts, first, tmp_path, capsys):
    trained = [first.parent / "good" / name for name, role in roles(first).items() if role == "trained"]
    detector = begin(folder_of(tmp_path / "good", trained), tmp_path / "model", warm_start=first)
    assert detector.calibration is None
    text = " ".join(capsys.readouterr().err.split())
    assert "the model that this one starts from was trained on each of the 8 good images" in text


def test_what_cannot_be_started_from_is_refused(parts, first, tmp_path):
    source = folder_of(tmp_path / "good", parts)
    with pytest.raises(ConfigError, match=r"model\.variant"):
        train(
            source,
            output=tmp_path / "other",
            model=ModelConfig(backbone="compact", image_size=SIZE, variant="icpr"),
            warm_start=first,
        )
    with pytest.raises(ConfigError, match=r"max_epochs 0 trains no heads"):
        begin(source, tmp_path / "instant", epochs=0, warm_start=first)
    begin(source, tmp_path / "subspace", epochs=0)
    with pytest.raises(ConfigError, match="subspace alone"):
        begin(source, tmp_path / "from", warm_start=tmp_path / "subspace")
    command = ["train", "--data", "Folder", "--data.good", str(tmp_path / "good"), "--output", str(tmp_path / "none")]
    assert main([*command, "--warm-start", str(tmp_path / "nowhere")]) == 2


def test_cross_needs_a_model_from_scratch(parts, first, tmp_path):
    begin(folder_of(tmp_path / "good", parts), tmp_path / "model", warm_start=first)
    with pytest.raises(ConfigError, match="without --warm-start"):
        score_folds_of(tmp_path / "model", 2)
