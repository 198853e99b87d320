"""Evaluation of a model folder, and the pictures of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from supersimplenet import Detector, ModelConfig, SuperSimpleNet, SyntheticConfig, evaluate, synthesize
from supersimplenet.datasets.mvtec import MVTecAD
from supersimplenet.errors import ConfigError, DataError, ImageError
from supersimplenet.evaluation.evaluate import evaluate_again
from supersimplenet.evaluation.results import write_metrics
from supersimplenet.inference.model_folder import save_model
from supersimplenet.metrics.pixels import region_overlap
from supersimplenet.metrics.ranking import auroc, average_precision, f1_max
from supersimplenet.postprocessing.calibration import UNCALIBRATED, Calibration
from supersimplenet.report.cautions import _of_lost_regions
from supersimplenet.report.findings import evaluate_model
from supersimplenet.types import Sample

SIZE = (64, 64)
NAMES = [
    *("I-AUROC", "AP-det", "I-F1-max"),
    *("seg-I-AUROC", "seg-AP-det", "seg-I-F1-max"),
    *("fused-I-AUROC", "fused-AP-det", "fused-I-F1-max"),
    *("P-AUROC", "AUPRO", "AUPRO@0.05", "AUPRO@0.01", "AP-loc", "P-F1-max"),
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


def test_metrics_are_those_of_the_predictions(model, grain):
    detector = Detector.load(model)
    evaluation = evaluate(detector, grain.samples())
    tested = [sample for sample in grain.samples() if sample.split == "test"]
    assert [outcome.sample for outcome in evaluation.outcomes] == tested
    label = [sample.label for sample in tested]
    score = [p.head_logit for p in detector.predict([sample.image for sample in tested])]
    cases = list(evaluate_again(detector, evaluation.outcomes))
    maps = np.stack([case.prediction.map_logit for case in cases])
    masks = np.stack([case.mask for case in cases])
    assert masks.any(axis=(1, 2)).tolist() == [bool(y) for y in label]
    metrics = evaluation.metrics
    assert list(metrics) == NAMES
    assert metrics["AP-det"].value == pytest.approx(average_precision(score, label), abs=1e-12)
    assert metrics["I-F1-max"].value == pytest.approx(f1_max(score, label), abs=1e-12)
    overlap = replace(metrics["AUPRO"], interval=None, no_interval=None)
    assert overlap == region_overlap(maps, masks, max_false_positive_rate=0.3)
    assert metrics["P-AUROC"].interval is not None
    for name in ("P-AUROC", "AUPRO", "AUPRO@0.05", "AUPRO@0.01", "AP-loc"):
        interval, reason = metrics[name].interval, metrics[name].no_interval
        assert (interval is None) == (reason is not None)
        assert evaluation.summary()["undefined_intervals"].get(name) == reason
        wanted = None if interval is None else [interval.low, interval.high]
        assert evaluation.summary()["intervals_95"][name] == wanted
        assert interval is None or interval.low <= metrics[name].value <= interval.high, name
    assert abs(metrics["P-AUROC"].value - auroc(maps, masks)) <= metrics["P-AUROC"].error_bound
    assert metrics["I-AUROC"].interval.low <= metrics["I-AUROC"].value <= metrics["I-AUROC"].interval.high
    summary = evaluation.summary()
    assert summary["images"] == {"good": 3, "bad": 4, "bad_without_pixel_labels": 0}
    verdicts = [outcome.verdict for outcome in evaluation.outcomes]
    assert summary["false_alarms"] == sum(v == "bad" and not y for v, y in zip(verdicts, label, strict=True))
    assert summary["escapes"] == sum(v == "good" and y for v, y in zip(verdicts, label, strict=True))
    assert summary["calibration"] == UNCALIBRATED


def test_types_and_sizes_of_an_evaluation(model, grain):
    evaluation = evaluate(Detector.load(model), grain.samples())
    outcomes = evaluation.outcomes
    assert [result.defect for result in evaluation.types] == sorted(
        {o.sample.defect for o in outcomes if o.sample.label}
    )
    for result in evaluation.types:
        chosen = [o for o in outcomes if o.sample.label == 0 or o.sample.defect == result.defect]
        labels = [o.sample.label for o in chosen]
        assert result.images == sum(result.verdicts.values()) == sum(labels)
        assert result.metrics["I-AUROC"].value == auroc([o.score_logit for o in chosen], labels)
        assert result.found is None  # no pixel threshold: the model is not calibrated
    assert sum(result.regions for result in evaluation.types) == sum(result.regions for result in evaluation.sizes)
    assert evaluation.summary()["types"].keys() == {result.defect for result in evaluation.types}


def test_native_resolution_measures_the_masks_as_they_are(model, grain):
    """Masks of twice the size: at their own resolution nothing of them is resized, the map is."""
    detector = Detector.load(model)
    for sample in grain.samples():
        for path in (sample.image, sample.mask):
            if path is not None:
                with Image.open(path) as image:
                    image.resize((2 * SIZE[1], 2 * SIZE[0]), Image.Resampling.NEAREST).save(path)
    native = evaluate(detector, grain.samples(), resolution="native")
    assert native.summary()["resolution"] == "native"
    maps, masks = [], []
    for case in evaluate_again(detector, native.outcomes):
        wide = (2 * SIZE[1], 2 * SIZE[0])
        maps.append(np.asarray(Image.fromarray(case.prediction.map_logit).resize(wide, Image.Resampling.BILINEAR)))
        mask = case.sample.mask
        masks.append(np.asarray(Image.open(mask)) > 0 if mask else np.zeros((2 * SIZE[0], 2 * SIZE[1]), bool))
    expected = region_overlap(np.stack(maps), np.stack(masks))
    assert native.metrics["AUPRO"].value == pytest.approx(expected.value, abs=1e-12)
    assert native.metrics["AUPRO"].value != evaluate(detector, grain.samples()).metrics["AUPRO"].value


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
    assert len(evaluation.outcomes) == len(tested) - 1


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


def test_a_mask_that_vanishes_when_resized_is_left_out_of_the_pixel_metrics_and_named(model, grain, tmp_path):
    tested = [sample for sample in grain.samples() if sample.split == "test"]
    detector = Detector.load(model)
    bad = [place for place, sample in enumerate(tested) if sample.mask]
    for place, whole in zip(bad[:2], (False, True), strict=True):  # at four times the size: a mark of a pixel
        sample = tested[place]
        large = (4 * SIZE[1], 4 * SIZE[0])
        with Image.open(sample.image) as image:
            image.resize(large, Image.Resampling.NEAREST).save(tmp_path / f"{place}.png")
        with Image.open(sample.mask) as image:
            mask = np.array(image.convert("L").resize(large, Image.Resampling.NEAREST)) * (not whole)
        mask[1, 1] = 255
        Image.fromarray(mask).save(tmp_path / f"{place}_mask.png")
        tested[place] = replace(sample, image=tmp_path / f"{place}.png", mask=tmp_path / f"{place}_mask.png")
    evaluation = evaluate(detector, tested)
    summary = evaluation.summary()
    assert summary["images"] == {"good": 3, "bad": 4, "bad_without_pixel_labels": 1}
    assert summary["vanishing"] == {
        "regions": 2,
        "images_left_out": [str(tested[bad[1]].image)],
        "images_counted": [str(tested[bad[0]].image)],
    }
    line = evaluation.lost_words()
    assert line.startswith("2 defective regions too small for pixel metrics at ")
    assert "in 2 images" in line
    assert "of 1 image the whole mask vanishes" in line
    assert [caution.text for caution in _of_lost_regions(evaluation)] == [f"{line}."]
    others = evaluate(detector, [sample for place, sample in enumerate(tested) if place != bad[1]])
    assert {name: evaluation.metrics[name].value for name in ("P-AUROC", "AUPRO", "AP-loc")} == {
        name: others.metrics[name].value for name in ("P-AUROC", "AUPRO", "AP-loc")
    }
    native = evaluate(detector, tested, resolution="native")
    assert (native.lost_words(), native.summary()["images"]["bad_without_pixel_labels"]) == (None, 0)


def test_a_damaged_mask_stops_or_is_listed(model, grain):
    tested = [sample for sample in grain.samples() if sample.split == "test"]
    damaged = next(sample for sample in tested if sample.mask)
    damaged.mask.write_bytes(b"")
    with pytest.raises(ImageError, match="empty"):
        evaluate(Detector.load(model), tested)
    evaluation = evaluate(Detector.load(model), tested, on_error="skip")
    assert [entry["path"] for entry in evaluation.summary()["skipped"]] == [str(damaged.image)]


def test_data_without_test_images_and_models_without_data_say_so(model, grain):
    with pytest.raises(DataError, match="the dataset has no test image"):
        evaluate(Detector.load(model), [sample for sample in grain.samples() if sample.split == "train"])
    with pytest.raises(ConfigError, match="was not trained here, so its dataset is not known; name one with --data"):
        evaluate_model(model)


def test_ignored_pixels_are_in_no_score_and_no_metric(model, grain, tmp_path):
    tested = [sample for sample in grain.samples() if sample.split == "test"]
    covered = np.zeros(SIZE, dtype=np.uint8)
    covered[:, SIZE[1] // 2 :] = 255
    Image.fromarray(covered).save(tmp_path / "ignore.png")
    given = [replace(sample, ignore=tmp_path / "ignore.png") for sample in tested]
    detector = Detector.load(model)
    evaluation = evaluate(detector, given)
    kept = covered == 0
    cases = list(evaluate_again(detector, evaluation.outcomes))
    for case in cases:
        assert case.prediction.map_max_logit == case.prediction.map_logit[kept].max()
    maps = np.stack([case.prediction.map_logit for case in cases])[:, kept]
    masks = np.stack([case.mask for case in cases])[:, kept]
    assert masks.any()
    for name, exact in (("P-AUROC", auroc(maps, masks)), ("AP-loc", average_precision(maps, masks))):
        assert abs(evaluation.metrics[name].value - exact) <= evaluation.metrics[name].error_bound

    Image.fromarray(np.full(SIZE, 255, dtype=np.uint8)).save(tmp_path / "ignore.png")
    with pytest.raises(ImageError, match=r"ignore\.png: leaves no pixel of .* to look at"):
        evaluate(detector, given)
    assert len(evaluate(detector, [tested[0], *given[1:]], on_error="skip").failures) == len(given) - 1


@pytest.mark.parametrize("resolution", ["model", "native"])
def test_a_region_is_found_where_a_listed_defect_touches_it(resolution, tmp_path):
    """By a map drawn by hand. Of an image that is called good nothing is found, because nothing is listed."""
    Image.new("RGB", (128, 128), (90, 90, 90)).save(tmp_path / "part.png")
    mask = np.zeros((128, 128), dtype=np.uint8)
    mask[20:40, 20:40] = mask[80:100, 80:100] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    bad = Sample(image=tmp_path / "part.png", label=1, split="test", defect="stain", mask=tmp_path / "mask.png")
    good = replace(bad, label=0, defect="good", mask=None)
    map_logit = np.full(SIZE, -5, dtype=np.float32)
    map_logit[12:18, 12:18] = 1.0  # in the first region
    map_logit[42, 42] = 3.0  # in the second, smaller than the least area

    def predict(image_threshold: float, *, list_all: bool = False) -> int | None:
        network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=SIZE), seed=1)
        detector = Detector(network, calibration=calibration(image_threshold), device="cpu")
        detector.list_all = list_all
        detector.backend.run = lambda pixels, ignored=None: (
            np.repeat(map_logit[None], len(pixels), 0),
            np.zeros(len(pixels), np.float32),
        )
        (result,) = evaluate(detector, [good, bad], resolution=resolution).types
        assert result.regions == 2
        return result.found

    assert predict(0.0) == 1
    assert predict(0.5) == 0
    assert predict(0.5, list_all=True) == 1


def calibration(threshold_logit: float) -> Calibration:
    return Calibration(
        image_score="head",
        threshold_logit=threshold_logit,
        accept_logit=None,
        pixel_logit=0.5,
        min_area_px=4,
        chosen_by="false-alarms",
        max_false_alarms=0.05,
        max_escapes=None,
        confidence=0.95,
        part_logits=(0.0,),
        images=1,
        bad_parts=0,
        escapes=0,
        basis="drawn",
        list_sha256="",
        weights_sha256="",
        date="2026-11-28",
    )
