"""A score that is not finite is never a verdict; nothing that is loaded holds a number that is not one."""

from __future__ import annotations

import csv
import math
import shutil
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
import yaml
from onnx import numpy_helper
from safetensors.torch import load_file, save_file
from test_runtime import BUNDLE, CALIBRATION, write

from supersimplenet import Detector, Folder, ModelConfig, Recipe, SyntheticConfig, TrainerConfig, synthesize, train
from supersimplenet.cli.main import main
from supersimplenet.errors import CalibrationError, ConfigError, ImageError, ModelFolderError, TrainingDivergedError
from supersimplenet.postprocessing.score_scale import ScoreScale
from supersimplenet.preprocessing.loading import Failure
from supersimplenet.runtime import Inspector
from supersimplenet.runtime.bundle import read_bundle

FIXTURES = Path(__file__).parent / "fixtures" / "version_0_1"
IMAGES = sorted((FIXTURES / "images").iterdir())


@pytest.fixture
def model(tmp_path) -> Path:
    return Path(shutil.copytree(FIXTURES / "plain", tmp_path / "model"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("weight", ["heads.map.weight", "heads.score.bias", "heads.hidden_norm.running_var"])
def test_a_model_with_such_a_weight_is_not_loaded(model, weight, value):
    tensors = load_file(model / "model.safetensors")
    tensors[weight].view(-1)[0] = value
    save_file(tensors, model / "model.safetensors")
    with pytest.raises(ModelFolderError, match=rf"{weight} are not all finite; copy the file again"):
        Detector.load(model)


@pytest.mark.parametrize(("value", "shown"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_an_image_with_such_a_score_is_an_error_and_no_verdict(value, shown, on_error, tmp_path, capsys):
    """An exported file whose weights changed: only its scores tell."""
    network = onnx.load(FIXTURES / "plain.onnx")
    (bias,) = [w for w in network.graph.initializer if w.name.endswith("score_bias")]
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) * 0 + value, bias.name))
    onnx.save(network, tmp_path / "damaged.onnx")
    inspector = Inspector.load(tmp_path / "damaged.onnx")
    with pytest.raises(ImageError, match=rf"0\.png: the head score is {shown}, which is no verdict"):
        inspector.predict(IMAGES[0])
    command = ["predict", "--model", str(tmp_path / "damaged.onnx"), *map(str, IMAGES), "--on-error", on_error]
    status = main([*command, "--output", str(tmp_path / "out")])
    if on_error == "stop":
        assert status == 1
        assert "which is no verdict" in capsys.readouterr().err
        return
    assert status == 0
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows] == [""] * len(IMAGES)
    assert all(f"the head score is {shown}, which is no verdict" in row["error"] for row in rows)


def test_only_the_image_itself_is_left_out_of_its_batch(tmp_path):
    """One map of three is not finite: the other two keep their verdicts."""

    class Backend:
        bundle = BUNDLE
        batch_size = 1

        def prepare(self, size_px):
            pass

        def run(self, pixels, ignored=None):
            maps = pixels.mean(axis=3).astype("float32")
            maps[maps == 7] = math.nan
            return maps, maps.max(axis=(1, 2)) * 0 + 1

        def version(self):
            return "none"

    inspector = Inspector(Backend())
    seen = [inspector.preprocessor.prepare(_grey(level)) for level in (20, 7, 250)]
    first, second, third = inspector.predict_prepared(seen, [None] * 3, on_error="skip")
    assert (first.verdict, third.verdict) == ("good", "bad")
    assert isinstance(second, Failure)
    assert "the head score is nan" in second.reason
    with pytest.raises(ImageError, match="array: the head score is nan"):
        inspector.predict_prepared(seen, [None] * 3)


def _grey(level: int):
    import numpy as np

    return np.full((64, 96, 3), level, dtype=np.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold_logit": math.nan}, "threshold_logit: nan; wanted a finite number"),
        ({"threshold_logit": "high"}, "threshold_logit: 'high'; wanted a finite number"),
        ({"accept_logit": math.inf}, "accept_logit: inf"),
        ({"accept_logit": 201.0}, "accept_logit: 201.0; wanted a finite number, at most threshold_logit, or null"),
        ({"pixel_logit": -math.inf}, "pixel_logit: -inf"),
        ({"min_area_px": 0}, "min_area_px: 0; wanted a whole number of 1 or more"),
        ({"max_false_alarms": 1.5}, "max_false_alarms: 1.5; wanted a rate above 0, at most 1"),
        ({"max_escapes": math.nan}, "max_escapes: nan"),
        ({"confidence": 1.0}, "confidence: 1.0; wanted above 0, below 1"),
        ({"part_logits": (1.0, math.nan)}, r"part_logits.*: .*nan.*; wanted .*finite number"),
        ({"part_logits": ()}, "part_logits: "),
        ({"images": 2}, "images: 2; wanted at least the number of parts"),
        ({"escapes": 1}, "escapes: 1; wanted a whole number, at most bad_parts"),
        ({"image_score": "best"}, "image_score: 'best'; wanted head, map, fused, subspace, joint or zones"),
        ({"date": None}, "date: None; wanted text"),
    ],
)
def test_no_calibration_holds_what_no_calibration_has(change, message, model, tmp_path):
    with pytest.raises(CalibrationError, match=message):
        replace(CALIBRATION, **change)
    path = model / "calibration.yaml"
    content = yaml.safe_load(path.read_text()) | {
        name: list(value) if isinstance(value, tuple) else value for name, value in change.items()
    }
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ModelFolderError, match=rf"calibration\.yaml: {message}"):
        Detector.load(model)
    text = BUNDLE.as_json().replace('"threshold_logit": 200.0', '"threshold_logit": NaN')
    with pytest.raises(ModelFolderError, match=r"here: calibration\.threshold_logit: nan"):
        read_bundle(text, where="here")


@pytest.mark.parametrize(
    ("name", "value"), [("head_mean", math.nan), ("map_std", 0.0), ("head_std", math.inf), ("images", -1)]
)
def test_no_score_scale_holds_what_no_scale_has(name, value, model):
    with pytest.raises(ConfigError, match=f"{name}: {value}"):
        ScoreScale(**{name: value})
    path = model / "config.yaml"
    record = yaml.safe_load(path.read_text())
    record["score_scale"][name] = value
    path.write_text(yaml.safe_dump(record))
    with pytest.raises(ModelFolderError, match=rf"config\.yaml: score_scale\.{name}: {value}"):
        Detector.load(model)


def test_an_unknown_deciding_score_is_refused(model, tmp_path):
    (model / "calibration.yaml").unlink()
    path = model / "config.yaml"
    path.write_text(path.read_text().replace("image_score: fused", "image_score: best"))
    with pytest.raises(
        ModelFolderError, match=r"config\.yaml: image_score: 'best'; wanted head, map, fused, subspace or joint"
    ):
        Detector.load(model)
    file = write(tmp_path / "drawn.onnx", replace(BUNDLE, image_score="best", calibration=None))
    with pytest.raises(
        ModelFolderError, match=r"drawn\.onnx: image_score: 'best'; wanted head, map, fused, subspace, joint or zones"
    ):
        Inspector.load(file)


def test_a_training_that_diverges_stops_and_leaves_no_finished_model(tmp_path, monkeypatch):
    parts = synthesize(
        tmp_path, SyntheticConfig(surfaces=("cast_grain",), size_px=(64, 64), train_good=8, test_good=1)
    )[0]
    options = {
        "output": tmp_path / "model",
        "model": ModelConfig(backbone="compact", image_size=(64, 64)),
        "recipe": Recipe(batch_size=4, heads_lr=1e30, adaptor_lr=1e30),
        "trainer": TrainerConfig(max_steps=20, accelerator="cpu"),
    }
    with pytest.raises(TrainingDivergedError, match=r"the loss of step \d+ is (nan|inf): the training was stopped"):
        train(Folder(good=parts / "train" / "good"), **options)
    assert not (tmp_path / "model" / "model.safetensors").exists()
    with pytest.raises(ModelFolderError, match="its training was not finished"):
        Detector.load(tmp_path / "model")


def test_a_network_with_such_weights_is_not_saved(tmp_path):
    from networks import unsettled

    from supersimplenet.inference.model_folder import save_model

    network = unsettled((64, 64))
    with torch.no_grad():
        network.heads.score.bias.fill_(math.nan)
    with pytest.raises(ModelFolderError, match=r"the weights heads\.score\.bias are not all finite"):
        save_model(tmp_path / "model", network, {})
    assert not (tmp_path / "model").exists()
