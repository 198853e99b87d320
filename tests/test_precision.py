"""A guarantee is one of a precision: another precision gives other scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from supersimplenet import Detector, ModelConfig, SyntheticConfig, synthesize
from supersimplenet.cli.main import main
from supersimplenet.datasets.mvtec import MVTecAD
from supersimplenet.evaluation.calibrate import calibrate
from supersimplenet.evaluation.config import ThresholdConfig
from supersimplenet.export.export import export_model
from supersimplenet.inference.config import ComputeConfig
from supersimplenet.inference.model_folder import read_calibration, write_calibration
from supersimplenet.metrics.thresholds import false_alarm_threshold
from supersimplenet.runtime import Inspector
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.train import train

NOT_VALID = "not valid: the thresholds were set in fp32, and these scores are computed in bf16"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = SyntheticConfig(size_px=(64, 64), train_good=10, test_good=3, test_per_defect=1)
    return synthesize(tmp_path_factory.mktemp("drawn"), config)[0]


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "model"
    train(
        MVTecAD(root=data.parent, category=data.name),
        output=folder,
        model=ModelConfig(backbone="compact", image_size=(64, 64)),
        trainer=TrainerConfig(max_epochs=1, accelerator="cpu"),
    )
    return folder


def test_the_precision_is_recorded(model):
    computation = read_calibration(model).computation
    assert (computation.engine, computation.precision) == ("torch", "fp32")


def test_in_another_precision_no_guarantee_is_claimed_anywhere(model, data, tmp_path, capsys):
    options = ["--model", str(model), "--device", "cpu", "--precision", "bfloat16"]
    detector = Detector.load(model, device="cpu", precision="bfloat16")
    assert not detector.is_calibrated
    assert detector.calibration.guarantee().startswith(NOT_VALID)
    assert main(["predict", *options, str(data / "test"), "--output", str(tmp_path / "rows")]) == 0
    assert f"guarantee: {NOT_VALID}" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "rows" / "predictions.jsonl").read_text().splitlines()]
    assert {row["calibrated"] for row in rows} == {False}
    assert main(["test", *options]) == 0
    assert json.loads((model / "metrics.json").read_text())["calibration"].startswith(NOT_VALID)
    rate = ["--false-discovery-rate", "10%", "--output", str(tmp_path / "found")]
    assert main(["predict", *options, str(data / "test"), *rate]) == 2
    assert "not calibrated in this precision" in capsys.readouterr().err


def test_a_calibration_in_the_precision_holds_again(model):
    earlier = read_calibration(model)
    try:
        found = calibrate(
            model, compute=ComputeConfig(device="cpu", precision="bfloat16"), config=ThresholdConfig(lenient=True)
        )
        assert found.calibration.computation.precision == "bf16"
        assert Detector.load(model, device="cpu", precision="bfloat16").is_calibrated
        assert not Detector.load(model, device="cpu").is_calibrated
    finally:
        write_calibration(model, earlier)


def test_a_calibration_of_version_0_1_holds_as_before(model):
    old = replace(read_calibration(model), computation=None)
    assert replace(old, applied_to=Detector.load(model, device="cpu", precision="bfloat16").computation).holds


@pytest.mark.slow
def test_an_export_in_another_precision_sets_the_thresholds_again(model, data, tmp_path):
    bundle = export_model(model, tmp_path / "half.onnx", file_format="onnx", precision="fp16")
    inspector = Inspector.load(tmp_path / "half.onnx")
    assert inspector.is_calibrated
    earlier = read_calibration(model)
    assert bundle.calibration.part_logits != earlier.part_logits  # scores of weights in 16 bits
    assert bundle.calibration.list_sha256 == earlier.list_sha256
    assert bundle.calibration.threshold_logit == false_alarm_threshold(
        bundle.calibration.part_logits, max_false_alarms=earlier.max_false_alarms, confidence=0.95
    )
    assert "set again with the 2 held-out parts in fp16: image threshold" in bundle.recalibrated
    image = next((data / "test" / "good").iterdir())
    graph = inspector.graph_outputs(image)
    assert bundle.verdicts[graph["verdict"][0]] == inspector.predict(image).verdict


@pytest.mark.slow
def test_where_the_parts_are_not_there_an_export_says_that_its_guarantee_is_not_valid(model, tmp_path):
    old = read_calibration(model)
    try:
        write_calibration(model, replace(old, list_sha256="0" * 64))  # calibrated with other parts
        bundle = export_model(model, tmp_path / "half.onnx", file_format="onnx", precision="fp16")
        assert bundle.recalibrated is None
        inspector = Inspector.load(tmp_path / "half.onnx")
        assert not inspector.is_calibrated
        assert "set in fp32, and these scores are computed in fp16" in inspector.calibration.guarantee()
    finally:
        write_calibration(model, old)
