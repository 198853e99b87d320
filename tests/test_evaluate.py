"""Evaluation of a model folder, and the pictures of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from supersimplenet import Detector, ModelConfig, SuperSimpleNet, SyntheticConfig, evaluate, synthesize
from supersimplenet.apps import evaluate_model
from supersimplenet.data.sources.mvtec import MVTecAD
from supersimplenet.deploy.folder import save_model
from supersimplenet.drawing import choose_cases, draw_contact_sheet, draw_overlay
from supersimplenet.errors import ConfigError, DataError, ImageError
from supersimplenet.evaluation.evaluate import Case, Evaluation, write_metrics
from supersimplenet.evaluation.metrics import Metric, auroc, average_precision, region_overlap
from supersimplenet.records import Prediction, Sample

SIZE = (64, 64)
NAMES = [
    *("I-AUROC", "AP-det", "seg-I-AUROC", "seg-AP-det", "fused-I-AUROC", "fused-AP-det"),
    *("P-AUROC", "AUPRO", "AP-loc"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, SuperSimpleNet(ModelConfig(backbone="compact", image_size=SIZE), seed=1).eval(), {})
    return folder


@pytest.fixture
def grain(tmp_path: Path) -> MVTecAD:
    config = SyntheticConfig(surfaces=("cast_grain",), size_px=SIZE, train_good=1, test_good=3, test_per_defect=1)
    synthesize(tmp_path / "data", config)
    return MVTecAD(root=tmp_path / "data", category="cast_grain")


def make_case(score: float, label: int, defect: str = "good", heat: float = -3.0) -> Case:
    values = np.full(SIZE, heat, dtype=np.float32)
    return Case(
        sample=Sample(image=Path(f"{defect}.png"), label=label, split="test", defect=defect),
        prediction=Prediction(
            path=None,
            head_logit=score,
            map_max_logit=heat,
            fused_logit=score,
            decides="head",
            verdict="bad" if score >= 0 else "good",
            map_logit=values,
        ),
        mask=np.zeros(SIZE, dtype=bool),
    )


def test_metrics_are_those_of_the_predictions(model, grain):
    detector = Detector.load(model)
    evaluation = evaluate(detector, grain.samples())
    tested = [sample for sample in grain.samples() if sample.split == "test"]
    assert [case.sample for case in evaluation.cases] == tested
    label = [sample.label for sample in tested]
    score = [p.head_logit for p in detector.predict([sample.image for sample in tested])]
    maps = np.stack([case.prediction.map_logit for case in evaluation.cases])
    masks = np.stack([case.mask for case in evaluation.cases])
    assert masks.any(axis=(1, 2)).tolist() == [bool(y) for y in label]
    metrics = evaluation.metrics
    assert list(metrics) == NAMES
    assert metrics["AP-det"].value == pytest.approx(average_precision(score, label), abs=1e-12)
    assert metrics["AUPRO"].value == pytest.approx(region_overlap(maps, masks, max_false_positive_rate=0.3))
    summary = evaluation.summary()
    assert summary["images"] == {"good": 3, "bad": 4, "bad_without_pixel_labels": 0}
    verdicts = [case.prediction.verdict for case in evaluation.cases]
    assert summary["false_alarms"] == sum(v == "bad" and not y for v, y in zip(verdicts, label, strict=True))
    assert summary["escapes"] == sum(v == "good" and y for v, y in zip(verdicts, label, strict=True))


def test_metrics_file_has_the_names_of_the_papers_and_null_with_a_reason(model, grain, tmp_path):
    good_only = [sample for sample in grain.samples() if sample.label == 0]
    path = write_metrics(evaluate(Detector.load(model), good_only), tmp_path, data={"class_path": "MVTecAD"})
    content = json.loads(path.read_text())
    assert path.name == "metrics.json"
    assert list(content)[: len(NAMES)] == NAMES
    assert all(content[name] is None for name in NAMES)
    assert set(content["undefined"]) == set(NAMES)
    assert "bad" in content["undefined"]["I-AUROC"]


def test_a_bad_image_without_mask_counts_for_images_and_not_for_pixels(model, grain):
    samples = grain.samples()
    without = [
        Sample(image=s.image, label=1, split="test", defect=s.defect, pixel_labels_known=False) if s.label else s
        for s in samples
    ]
    evaluation = evaluate(Detector.load(model), without)
    assert evaluation.summary()["images"]["bad_without_pixel_labels"] == 4
    assert evaluation.metrics["I-AUROC"].value == evaluate(Detector.load(model), samples).metrics["I-AUROC"].value
    assert evaluation.metrics["AUPRO"].value is None


def test_unreadable_test_images_stop_or_are_listed(model, grain):
    tested = [sample for sample in grain.samples() if sample.split == "test"]
    tested[1].image.write_bytes(b"")
    with pytest.raises(ImageError, match="empty"):
        evaluate(Detector.load(model), tested)
    evaluation = evaluate(Detector.load(model), tested, on_error="skip")
    assert [entry["path"] for entry in evaluation.summary()["skipped"]] == [str(tested[1].image)]
    assert len(evaluation.cases) == len(tested) - 1


def test_an_empty_mask_of_a_bad_image_is_no_pixel_label(model, grain):
    """Counted as all normal, a defect that was found would lower the metrics of pixels."""
    tested = [sample for sample in grain.samples() if sample.split == "test"]
    detector = Detector.load(model)
    emptied = next(sample for sample in tested if sample.mask)
    Image.new("L", SIZE).save(emptied.mask)
    evaluation = evaluate(detector, tested)
    assert evaluation.summary()["images"] == {"good": 3, "bad": 4, "bad_without_pixel_labels": 1}
    others = evaluate(detector, [sample for sample in tested if sample is not emptied])
    assert evaluation.metrics["AUPRO"].value == others.metrics["AUPRO"].value


def test_a_damaged_mask_stops_or_is_listed(model, grain):
    tested = [sample for sample in grain.samples() if sample.split == "test"]
    damaged = next(sample for sample in tested if sample.mask)
    damaged.mask.write_bytes(b"")
    with pytest.raises(ImageError, match="empty"):
        evaluate(Detector.load(model), tested)
    evaluation = evaluate(Detector.load(model), tested, on_error="skip")
    assert [entry["path"] for entry in evaluation.summary()["skipped"]] == [str(damaged.image)]


def test_data_without_test_images_and_models_without_data_say_so(model, grain):
    with pytest.raises(DataError, match="the data set has no test image"):
        evaluate(Detector.load(model), [sample for sample in grain.samples() if sample.split == "train"])
    with pytest.raises(ConfigError, match="was not trained here, so its data set is not known; name one with --data"):
        evaluate_model(model)


def test_best_findings_take_turns_over_the_defect_types_and_worst_are_the_wrongest():
    pits = [make_case(score, 1, "pit") for score in (5.0, 4.0, -1.0)]
    crack = make_case(1.0, 1, "crack")
    false_alarm, quiet = make_case(2.0, 0), make_case(-4.0, 0)
    best, worst = choose_cases([*pits, crack, quiet, false_alarm], 2)
    assert best == [pits[0], crack]
    assert worst == [false_alarm, pits[2]]


def test_overlay_is_the_image_where_the_map_is_cold_and_bright_where_it_is_hot(tmp_path):
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((64, 200, 3), 90, dtype=np.uint8)).save(path)
    cold = np.asarray(draw_overlay(path, make_case(-3.0, 0, heat=-6.0).prediction))
    hot = np.asarray(draw_overlay(path, make_case(3.0, 1, heat=6.0).prediction))
    assert (cold[:64, cold.shape[1] // 2 - 100 : cold.shape[1] // 2 + 100] == 90).all()
    assert hot[32, hot.shape[1] // 2].astype(int).sum() > 500


def test_contact_sheet_shows_each_half(model, grain):
    evaluation = evaluate(Detector.load(model), grain.samples())
    sheet = draw_contact_sheet(evaluation, "cast grain")
    assert sheet.width > 300
    only_good = Evaluation(
        metrics={"I-AUROC": Metric(value=None, reason="x")},
        cases=[case for case in evaluation.cases if case.sample.label == 0],
        failures=[],
        threshold=0.5,
        image_score="head",
    )
    assert draw_contact_sheet(only_good, "cast grain").height < sheet.height


def test_ignored_pixels_are_in_no_score_and_no_metric(model, grain, tmp_path):
    tested = [sample for sample in grain.samples() if sample.split == "test"]
    covered = np.zeros(SIZE, dtype=np.uint8)
    covered[:, SIZE[1] // 2 :] = 255
    Image.fromarray(covered).save(tmp_path / "ignore.png")
    given = [replace(sample, ignore=tmp_path / "ignore.png") for sample in tested]
    detector = Detector.load(model)
    evaluation = evaluate(detector, given)
    kept = covered == 0
    for case in evaluation.cases:
        assert case.prediction.map_max_logit == case.prediction.map_logit[kept].max()
    maps = np.stack([case.prediction.map_logit for case in evaluation.cases])[:, kept]
    masks = np.stack([case.mask for case in evaluation.cases])[:, kept]
    assert masks.any()
    assert evaluation.metrics["P-AUROC"].value == pytest.approx(auroc(maps, masks), abs=1e-12)
    assert evaluation.metrics["AP-loc"].value == pytest.approx(average_precision(maps, masks), abs=1e-12)

    Image.fromarray(np.full(SIZE, 255, dtype=np.uint8)).save(tmp_path / "ignore.png")
    with pytest.raises(ImageError, match=r"ignore\.png: leaves no pixel of .* to look at"):
        evaluate(detector, given)
    assert len(evaluate(detector, [tested[0], *given[1:]], on_error="skip").failures) == len(given) - 1
