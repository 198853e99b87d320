"""The detector of the subspace of good images alone: at once, and in the first seconds of every training."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file

from supersimplenet import Detector
from supersimplenet.cli.main import main
from supersimplenet.datasets.folder import Folder
from supersimplenet.datasets.synthetic import synthesize
from supersimplenet.datasets.synthetic_config import SyntheticConfig
from supersimplenet.errors import ConfigError, ModelFolderError
from supersimplenet.evaluation.painted_scores import score_painted
from supersimplenet.inference.image_records import read_image_records
from supersimplenet.inference.model_folder import hash_weights, load_model, read_calibration
from supersimplenet.metrics.ranking import auroc
from supersimplenet.model.config import ModelConfig, Recipe
from supersimplenet.runtime import Inspector
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.train import train
from supersimplenet.types import Sample

SIZE = (64, 64)
MODEL = ModelConfig(backbone="compact", image_size=SIZE)
STEPS = TrainerConfig(max_steps=2, accelerator="cpu", holdout_fraction=0.4)
NONE = TrainerConfig(max_epochs=0, accelerator="cpu")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    config = SyntheticConfig(surfaces=("cast_grain",), size_px=SIZE, train_good=20, test_good=6, test_per_defect=3)
    (surface,) = synthesize(root / "data", config)
    shutil.copytree(surface / "train" / "good", root / "good")
    shutil.copytree(surface / "test" / "good", root / "new")
    kinds = sorted(folder for folder in (surface / "test").iterdir() if folder.name != "good")
    for kind in kinds:
        shutil.copytree(kind, root / "bad" / kind.name)
    return root


@pytest.fixture(scope="module")
def instant(parts: Path) -> Detector:
    data = Folder(good=parts / "good", bad=parts / "bad", bad_train_fraction=0.5)
    return train(data, output=parts / "model", model=MODEL, trainer=NONE)


def test_it_tells_good_from_bad_without_a_training_step(instant, parts):
    assert instant.network.heads is None
    assert not (instant.folder / "checkpoints").exists()
    assert not (instant.folder / "logs").exists()
    roles = {record.name: record.role for record in read_image_records(instant.folder)}
    assert list(roles.values()).count("held-out") == 4  # they alone calibrate
    unseen = [path for path in sorted((parts / "bad").rglob("*.png")) if path.name.startswith("00")]
    new = sorted((parts / "new").glob("*.png"))
    predictions = instant.predict([*new, *unseen])
    label = [0] * len(new) + [1] * len(unseen)
    assert auroc([p.score_logit for p in predictions], label) > 0.8
    for prediction in predictions:
        assert prediction.head_logit is prediction.map_max_logit is prediction.fused_logit is None
        assert prediction.score_logit == prediction.subspace_logit
        assert prediction.map_logit.shape == SIZE
        assert (prediction.verdict == "good") == (prediction.score < 0.5)
    with pytest.raises(ConfigError, match=r"head score: this model has none; its heads are not trained \(--trainer"):
        predictions[0].score_of("head")


def test_its_folder_brings_it_back(instant, parts):
    loaded = Detector.load(instant.folder, device="cpu")
    path = next((parts / "new").glob("*.png"))
    assert loaded.predict(path).score_logit == pytest.approx(instant.predict(path).score_logit, abs=1e-6)
    names = set(load_file(instant.folder / "model.safetensors"))
    assert names == {"subspace.mean", "subspace.complement", "subspace.stride"}
    calibration = read_calibration(instant.folder)
    assert (calibration.image_score, calibration.parts) == ("subspace", 4)
    assert calibration.expected_escapes.every.parts > 0
    assert "each by one of 4 models that was not trained on it" in calibration.expected_escapes.basis


def test_the_command_line_uses_it_like_any_other(instant, parts, tmp_path, capsys):
    model = str(instant.folder)
    assert main(["predict", "--model", model, str(parts / "new"), "--output", str(tmp_path / "found")]) == 0
    with (tmp_path / "found" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert {row["head_logit"] for row in rows} == {""}
    assert all(float(row["subspace_logit"]) == float(row["score_logit"]) for row in rows)
    assert main(["test", "--model", model]) == 0
    metrics = json.loads((instant.folder / "metrics.json").read_text())
    assert metrics["subspace-I-AUROC"] > 0.8
    assert not [name for name in metrics if name.startswith(("I-", "seg-", "fused-"))]  # of head, map, and both
    assert main(["report", "--model", model, "--output", str(tmp_path / "report.html")]) == 0
    capsys.readouterr()
    call = ["calibrate", "--model", model, "--cross", "3"]
    assert main([*call, "--cross-steps", "5"]) == 2
    assert "cross-steps: " in capsys.readouterr().err
    assert main([*call, "--max-false-alarms", "5%"]) == 1
    assert "12 good parts in all folds cannot hold 5 % even on average" in capsys.readouterr().err.replace("\n", " ")
    assert main(call) == 0  # where no rate is asked for: the least that they can hold, as in training
    cross = read_calibration(instant.folder).cross
    assert (cross.folds, cross.steps, cross.false_alarms) == (3, 0, pytest.approx(1 / 13))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "openvino", "torch"])
def test_every_export_says_the_same(kind, instant, parts, tmp_path):
    file = tmp_path / f"instant.{'pt2' if kind == 'torch' else kind}"
    assert main(["export", "--model", str(instant.folder), "--format", kind, "--output", str(file)]) == 0
    inspector = Inspector.load(file, trust=True)
    detector = Detector.load(instant.folder, device="cpu")
    for path in sorted((parts / "new").glob("*.png")):
        one, other = inspector.inspect(path), detector.predict(path)
        assert one.score_logit == pytest.approx(other.score_logit, abs=1e-5)
        np.testing.assert_allclose(one.map_logit, other.map_logit, rtol=0, atol=1e-4)
        assert (one.verdict, one.head_logit) == (other.verdict, None)


def test_every_training_leaves_one_before_its_first_step(instant, parts, tmp_path, monkeypatch, capsys):
    """Also where it is stopped then: the folder is finished, the run's own is not."""

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("supersimplenet.training.train.fit", stop)
    data = Folder(good=parts / "good", bad=parts / "bad", bad_train_fraction=0.5)
    with pytest.raises(KeyboardInterrupt):
        train(data, output=tmp_path / "run", model=MODEL, recipe=Recipe(batch_size=4), trainer=TrainerConfig())
    assert f"{tmp_path / 'run' / 'instant'}; the training goes on" in capsys.readouterr().err.replace("\n", " ")
    with pytest.raises(ModelFolderError, match="its training was not finished"):
        load_model(tmp_path / "run")
    found = Detector.load(tmp_path / "run" / "instant", device="cpu")
    assert found.image_score == "subspace"
    paths = sorted((parts / "new").glob("*.png"))
    same = [prediction.score_logit for prediction in instant.predict(paths)]
    assert [prediction.score_logit for prediction in found.predict(paths)] == pytest.approx(same, abs=1e-6)
    again = found.record["trainer"]
    assert (again["max_epochs"], found.record["training"]["plan"]["epochs"]) == (0, 0)


def test_without_a_bad_part_painted_defects_tell_what_the_threshold_costs(parts, tmp_path, capsys):
    """In training, and again in `calibrate`, where they also tell the scores apart; no held-out image is painted on."""
    model = tmp_path / "model"
    train(Folder(good=parts / "good"), output=model, model=MODEL, recipe=Recipe(batch_size=4), trainer=STEPS)
    expected = read_calibration(model).expected_escapes
    assert set(expected.types) == {"scratch", "pit", "stain", "crack"}
    assert expected.every.parts == 18  # two on each of 9 good images
    assert f"expected escapes: {expected.every.escapes} of 18 painted defects" in capsys.readouterr().err
    assert main(["calibrate", "--model", str(model), "--image-score", "subspace"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "AUROC and escapes: 18 painted defects against 9 good parts" in said
    assert "the defects are painted, for want of bad parts that were not trained on: a rough guide" in said
    now = read_calibration(model)
    assert (now.image_score, now.expected_escapes.every.parts) == ("subspace", 18)
    detector = Detector.load(model, device="cpu")
    trained = [parts / "good" / Path(r.name).name for r in read_image_records(model) if r.role == "trained"]
    painted = score_painted(detector, [Sample(image=path, label=0, split="train") for path in sorted(trained)])
    escapes = sum(scores["subspace"] < now.threshold_logit for scores in painted.scores.values())
    assert (now.expected_escapes.every.escapes, now.bad_parts) == (escapes, 0)


@pytest.mark.parametrize("images", [1, 2, 4])
def test_few_good_images_suffice(images, parts, tmp_path):
    for path in sorted((parts / "good").glob("*.png"))[:images]:
        (tmp_path / "good").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "good")
    detector = train(Folder(good=tmp_path / "good"), output=tmp_path / "model", model=MODEL, trainer=NONE)
    assert (detector.calibration is None) == (images == 1)  # of two, one is held out
    new, bad = sorted((parts / "new").glob("*.png")), sorted((parts / "bad").rglob("*.png"))
    label = [0] * len(new) + [1] * len(bad)
    assert auroc([p.score_logit for p in detector.predict([*new, *bad])], label) > 0.7


def test_another_deciding_score_is_refused_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "good").mkdir()
    call = ["train", "--data", "Folder", "--data.good", str(tmp_path / "good"), "--trainer.max_epochs", "0"]
    assert main([*call, "--recipe.image_score", "fused"]) == 2
    assert "recipe.image_score: fused, but --trainer.max_epochs 0 trains no heads" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"recipe\.image_score: head, but"):
        train(Folder(good=tmp_path), output=tmp_path / "m", recipe=Recipe(image_score="head"), trainer=NONE)


def test_a_folder_with_neither_heads_nor_subspace_is_refused(instant, tmp_path):
    shutil.copytree(instant.folder, tmp_path / "model")
    weights, config = tmp_path / "model" / "model.safetensors", tmp_path / "model" / "config.yaml"
    save_file({}, weights)
    record = yaml.safe_load(config.read_text())
    record["files"]["model.safetensors"] = hash_weights(tmp_path / "model")
    config.write_text(yaml.safe_dump(record))
    with pytest.raises(ModelFolderError, match=r"model\.safetensors: holds neither heads nor a subspace"):
        load_model(tmp_path / "model")
