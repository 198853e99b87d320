"""Calibration of a model folder: what it sets, what it refuses, and that everything later goes by it."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import yaml
from networks import with_subspace
from PIL import Image
from sklearn.metrics import roc_auc_score

from supersimplenet import Detector, ModelConfig, SuperSimpleNet, SyntheticConfig, synthesize
from supersimplenet.cli.calibrate import _print_scores
from supersimplenet.cli.main import main
from supersimplenet.datasets.folder import Folder
from supersimplenet.datasets.mvtec import MVTecAD
from supersimplenet.errors import CalibrationError, ConfigError, DataError, ModelFolderError
from supersimplenet.evaluation.calibrate import calibrate
from supersimplenet.evaluation.config import ThresholdConfig
from supersimplenet.evaluation.score_comparison import ScoreComparison, ScoreRow
from supersimplenet.evaluation.set_thresholds import Calibrated, set_thresholds
from supersimplenet.inference.config import ComputeConfig
from supersimplenet.inference.image_records import held_out_samples, read_image_records, read_known_images
from supersimplenet.inference.model_folder import (
    hash_weights,
    read_calibration,
    save_model,
    write_calibration,
)
from supersimplenet.metrics.thresholds import (
    Costs,
    escape_threshold,
    false_alarm_threshold,
    guaranteed_rate,
    rate_upper_bound,
    uniform_upper_bound,
)
from supersimplenet.postprocessing.calibration import UNCALIBRATED, Calibration, verdict
from supersimplenet.prediction.job import predict_to_folder
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.train import train
from supersimplenet.types import ModelScore
from supersimplenet.utils.files import file_sha256
from supersimplenet.utils.formatting import shown_rate

SIZE = (64, 64)


def write_images(folder: Path, count: int, *, brightness: int, photographs: int = 1) -> Path:
    """Noise; the network is not trained, so its scores differ from image to image by no law that matters here."""
    folder.mkdir(parents=True)
    for part in range(count):
        for shot in range(photographs):
            generator = np.random.default_rng([brightness, part, shot])
            spread = generator.integers(20, 120)
            pixels = generator.integers(brightness - 20, brightness + spread, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"part{part:02d}_{shot}.png")
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    write_images(root / "good", 60, brightness=60)
    write_images(root / "bad", 12, brightness=90)
    write_images(root / "twice", 30, brightness=70, photographs=2)
    return root


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=SIZE), seed=1).eval()
    save_model(folder, with_subspace(network), {})
    return folder


def calibrated(model: Path, good: Path, bad: Path | None = None, config: ThresholdConfig | None = None) -> Calibrated:
    return calibrate(model, good=[good], bad=[bad] if bad else [], config=config, compute=ComputeConfig(device="cpu"))


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def scores(model: Path, folder: Path) -> np.ndarray:
    return np.array([p.score_logit for p in Detector.load(model).predict(sorted(folder.iterdir()))])


# --- what is set -------------------------------------------------------------------------------------------------


def test_thresholds_are_the_order_statistics_of_the_scores(model, parts):
    good, bad = scores(model, parts / "good"), scores(model, parts / "bad")
    found = calibrated(model, parts / "good", parts / "bad")
    calibration = found.calibration
    threshold = false_alarm_threshold(good, max_false_alarms=0.05, confidence=0.95)
    # Images in batches and alone differ by rounding.
    assert calibration.threshold_logit == pytest.approx(threshold, abs=1e-5)
    assert sorted(calibration.part_logits) == list(calibration.part_logits)
    assert np.allclose(calibration.part_logits, np.sort(good), atol=1e-5)
    assert (calibration.parts, calibration.images, calibration.bad_parts) == (60, 60, 12)
    escapes = int((bad < threshold).sum())
    assert calibration.escapes == escapes
    assert calibration.max_escapes == rate_upper_bound(escapes, 12, 0.95)
    assert calibration.max_false_alarms == 0.05


def test_photographs_of_a_part_count_once_by_the_worst(model, parts):
    found = calibrate(
        model, good=[parts / "twice"], group_pattern=r"(part\d+)_", config=ThresholdConfig(max_false_alarms=0.1)
    )
    worst = scores(model, parts / "twice").reshape(30, 2).max(1)
    assert (found.calibration.parts, found.calibration.images) == (30, 60)
    assert np.allclose(found.calibration.part_logits, np.sort(worst), atol=1e-5)
    assert "30 good parts in 60 photographs" in found.calibration.guarantee()


def test_few_parts_are_refused_with_what_they_can_guarantee_or_guarantee_it_where_asked(model, parts, tmp_path):
    few = tmp_path / "few"
    shutil.copytree(parts / "good", few, ignore=lambda _, names: names[20:])
    with pytest.raises(CalibrationError, match=r"20 good parts cannot guarantee at most 5 % .* at least 59; .* 14 %"):
        calibrated(model, few)
    assert not (model / "calibration.yaml").exists()
    assert calibrated(model, few, config=ThresholdConfig(lenient=True)).calibration.max_false_alarms == guaranteed_rate(
        20, 0.95
    )


def test_no_more_good_parts_show_a_defect_than_may_be_called_bad(model, parts):
    """60 parts, 5 %: the highest level of all is the pixel threshold, so none of these parts reaches it."""
    calibrated(model, parts / "good")
    detector = Detector.load(model)
    predictions = detector.predict(sorted((parts / "good").iterdir()))
    assert [p.defects for p in predictions] == [()] * 60
    assert [p.verdict for p in predictions] == ["good"] * 60
    lower = replace(detector.calibration, pixel_logit=float(np.median([p.map_max_logit for p in predictions])))
    detector.calibration = replace(lower, min_area_px=1)
    predictions = detector.predict(sorted((parts / "good").iterdir()))
    assert sum(bool(p.regions) for p in predictions) == 30
    assert [p.defects for p in predictions] == [()] * 60  # all are good
    detector.list_all = True
    assert [p.defects for p in detector.predict(sorted((parts / "good").iterdir()))] == [p.regions for p in predictions]


def test_two_guarantees_make_a_grey_zone_where_one_threshold_cannot_hold_both(model, parts):
    config = ThresholdConfig(max_escapes=0.25)
    calibration = calibrated(model, parts / "good", parts / "bad", config).calibration
    bad = scores(model, parts / "bad")
    accept = escape_threshold(bad, max_escapes=0.25, confidence=0.95)
    assert accept < calibration.threshold_logit  # else this data shows nothing
    assert calibration.accept_logit == pytest.approx(accept, abs=1e-5)
    verdicts = [p.verdict for p in Detector.load(model).predict(sorted((parts / "bad").iterdir()))]
    between = (bad >= calibration.accept_logit) & (bad < calibration.threshold_logit)
    assert verdicts.count("unsure") == between.sum() > 0
    assert verdicts.count("good") == calibration.escapes == (bad < accept).sum()


def test_where_both_guarantees_agree_there_is_one_threshold(model, parts):
    """The bad parts score far above the good ones here, by construction."""
    detector = Detector.load(model)
    samples = Folder(good=[parts / "good"], bad=[parts / "bad"], test_fraction=0).samples()
    order = sorted(samples, key=lambda sample: detector.predict(sample.image).score_logit)
    relabelled = [replace(sample, label=int(place >= 60)) for place, sample in enumerate(order)]
    config = ThresholdConfig(max_escapes=0.25)
    found = set_thresholds(detector, relabelled, config, basis="here", weights_sha256="none").calibration
    assert found.accept_logit is None
    assert (found.escapes, found.max_escapes) == (0, 0.25)


def test_costs_take_the_cheapest_threshold_and_guarantee_what_holds_for_any(model, parts):
    costs = Costs(false_alarm=1, escape=5)
    config = ThresholdConfig(costs=costs, bad_share=0.1)
    found = calibrated(model, parts / "good", parts / "bad", config)
    good, bad = scores(model, parts / "good"), scores(model, parts / "bad")
    # A plain search over thresholds between any two scores.
    every = np.sort(np.concatenate([good, bad]))
    tried = [every[0] - 1, *(every[1:] + every[:-1]) / 2, every[-1] + 1]
    price = [0.9 * np.mean(good >= level) + 0.5 * np.mean(bad < level) for level in tried]
    threshold = found.calibration.threshold_logit
    assert 0.9 * np.mean(good >= threshold) + 0.5 * np.mean(bad < threshold) == pytest.approx(min(price))
    expected = [uniform_upper_bound(float(np.mean(good >= threshold)), 60, 0.95)]
    expected += [uniform_upper_bound(float(np.mean(bad < threshold)), 12, 0.95)]
    assert [found.calibration.max_false_alarms, found.calibration.max_escapes] == pytest.approx(expected)
    assert found.calibration.chosen_by == "costs"


def test_the_list_is_known_by_contents_and_groups_whatever_its_order_and_place(model, parts, tmp_path):
    detector, config = Detector.load(model), ThresholdConfig(max_false_alarms=0.1)

    def hash_of(folder: Path, *, backwards: bool = False, pattern: str | None = None) -> str:
        samples = Folder(good=[folder], test_fraction=0, group_pattern=pattern).samples()
        ordered = samples[::-1] if backwards else samples
        return set_thresholds(detector, ordered, config, basis="", weights_sha256="").calibration.list_sha256

    shutil.copytree(parts / "twice", tmp_path / "elsewhere")
    first = hash_of(parts / "twice")
    assert hash_of(tmp_path / "elsewhere", backwards=True) == first
    assert hash_of(parts / "twice", pattern=r"(part\d+)_") != first
    (tmp_path / "elsewhere" / "part00_0.png").unlink()
    assert hash_of(tmp_path / "elsewhere") != first


# --- the file ----------------------------------------------------------------------------------------------------


def test_a_calibration_is_read_as_it_was_written_and_refused_with_other_weights(model, parts):
    written = calibrated(model, parts / "good", parts / "bad").calibration
    assert read_calibration(model) == written  # floats to the last bit
    assert Detector.load(model).calibration == written
    save_model(model, SuperSimpleNet(ModelConfig(backbone="compact", image_size=SIZE), seed=2).eval(), {})
    with pytest.raises(ModelFolderError, match=r"calibration\.yaml: was made for other weights"):
        Detector.load(model)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable as YAML"),
        ("[]", "wanted names with values"),
        ("color: red", "unknown color"),
        ("date: 2026-11-25", "lacks image_score, threshold_logit"),
    ],
)
def test_a_damaged_calibration_is_refused(model, text, message):
    (model / "calibration.yaml").write_text(text)
    with pytest.raises(ModelFolderError, match=message):
        Detector.load(model)


def test_the_score_of_the_calibration_decides(model, parts):
    calibration = calibrated(model, parts / "good").calibration
    assert (calibration.image_score, Detector.load(model).image_score) == ("head", "head")
    write_calibration(model, replace(calibration, image_score="map"))
    detector = Detector.load(model)
    prediction = detector.predict(next((parts / "good").iterdir()))
    assert (detector.image_score, prediction.decides) == ("map", "map")
    assert prediction.score_logit == prediction.map_max_logit
    detector.calibration = calibration  # as if it were loaded with it
    assert detector.image_score == "head"
    detector.calibration = None
    assert detector.image_score == "head"
    with pytest.raises(ConfigError, match="image_score: map, but the calibration is of the head score; leave image_sc"):
        Detector(detector.network, calibration=calibration, image_score="map")


def test_the_score_that_decides_is_chosen_when_calibrating(model, parts):
    """By hand: the threshold of each score is the order statistic of its own scores."""
    settings = (model / "config.yaml").read_bytes()
    predictions = Detector.load(model).predict(sorted((parts / "good").iterdir()))
    bad = Detector.load(model).predict(sorted((parts / "bad").iterdir()))
    for name in get_args(ModelScore):
        found = calibrate(model, good=[parts / "good"], bad=[parts / "bad"], image_score=name)
        scores = [prediction.score_of(name) for prediction in predictions]
        level = false_alarm_threshold(scores, max_false_alarms=0.05, confidence=0.95)
        assert found.calibration.image_score == Detector.load(model).image_score == name
        assert found.calibration.threshold_logit == pytest.approx(level, abs=1e-5)
        assert found.calibration.escapes == sum(prediction.score_of(name) < level for prediction in bad)
        assert np.allclose(np.sort(found.good_logits), np.sort(scores), atol=1e-5)
    last = get_args(ModelScore)[-1]
    again = calibrate(model, good=[parts / "good"]).calibration  # it decides until another one is named
    assert (again.image_score, (model / "config.yaml").read_bytes()) == (last, settings)
    with pytest.raises(ConfigError, match="image_score: 'nose'; this model gives head, map"):
        calibrate(model, good=[parts / "good"], image_score="nose")
    assert read_calibration(model) == again


def test_scores_are_compared_side_by_side(model, parts):
    """This model knows no image that it was trained on: those that calibrate are compared, and the result says so."""
    found = calibrated(model, parts / "good", parts / "bad").comparison
    assert [row.score for row in found.rows] == [*get_args(ModelScore)]
    good = Detector.load(model).predict(sorted((parts / "good").iterdir()))
    bad = Detector.load(model).predict(sorted((parts / "bad").iterdir()))
    for row in found.rows:
        ours, theirs = ([p.score_of(row.score) for p in kind] for kind in (good, bad))
        assert row.auroc == pytest.approx(roc_auc_score([0] * 60 + [1] * 12, ours + theirs))
        assert row.escapes == sum(score < row.threshold_logit for score in theirs)
        assert (row.max_false_alarms, row.unsure) == (0.05, 0)
    assert (found.good_parts, found.bad_parts) == (60, 12)
    assert "not at hand (data: " in found.why_calibrating
    scores = len(found.rows)
    assert found.confidence_after_choice == pytest.approx(1 - 0.05 * scores)
    assert 1 - scores * (1 - found.confidence_to_ask) == pytest.approx(0.95)


def test_without_bad_parts_there_is_nothing_to_compare(model, parts, capsys):
    found = calibrated(model, parts / "good").comparison
    assert (found.good_parts, found.bad_parts) == (0, 0)
    assert {(row.auroc, row.escapes, row.unsure) for row in found.rows} == {(None, None, None)}
    assert main(["calibrate", "--model", str(model), "--good", str(parts / "good"), "--image-score", "map"]) == 0
    said = capsys.readouterr().out
    assert "no bad part is at hand, so nothing here says which score is better; name some with --bad" in said
    assert re.search(r"^map +\S+ +5 % +decides$", said, re.MULTILINE)


def test_a_choice_among_scores_by_their_own_parts_keeps_the_unions_confidence():
    """Simulated: the score with the lowest threshold is taken, of three that are independent and worth the same."""
    rng = np.random.default_rng(0)
    kept = alone = 0
    for _ in range(4000):
        thresholds = [
            false_alarm_threshold(rng.uniform(size=59), max_false_alarms=0.05, confidence=0.95) for _ in range(3)
        ]
        kept += min(thresholds) >= 0.95  # uniform: the false-alarm rate is 1 - threshold
        alone += thresholds[0] >= 0.95
    after = ScoreComparison(
        rows=(None,) * 3, good_parts=59, bad_parts=1, why_calibrating="", confidence=0.95
    ).confidence_after_choice
    assert alone / 4000 == pytest.approx(1 - 0.95**59, abs=0.01)
    assert after == pytest.approx(0.85)
    assert after <= kept / 4000 < 0.88  # independent scores come near to the union bound: 0.9515 cubed is 0.861


def test_the_threshold_itself_is_bad_and_the_number_below_is_not(model, parts):
    calibration = replace(calibrated(model, parts / "good").calibration, threshold_logit=1.0, accept_logit=0.5)
    assert verdict(1.0, calibration) == "bad"
    assert verdict(float(np.nextafter(1.0, 0)), calibration) == verdict(0.5, calibration) == "unsure"
    assert verdict(float(np.nextafter(0.5, 0)), calibration) == "good"
    assert (verdict(0.0, None), verdict(-1e-300, None)) == ("bad", "good")


def test_rates_are_shown_rounded_up():
    assert [shown_rate(rate) for rate in (0.05, 0.0501, 0.13911, 0.001, 1.0)] == [
        "5 %",
        "5.1 %",
        "14 %",
        "0.1 %",
        "100 %",
    ]


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_false_alarms": 0.0}, r"max_false_alarms: 0\.0; wanted above 0 and below 1"),
        ({"confidence": 1.0}, r"confidence: 1\.0"),
        ({"min_area_px": 0}, "min_area_px: 0; wanted at least 1"),
        ({"costs": Costs(false_alarm=1, escape=2), "max_escapes": 0.1}, "give one of the two"),
        ({"bad_share": 0.1}, "bad_share: counts for costs alone"),
    ],
)
def test_settings_that_mean_nothing_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        ThresholdConfig(**values)


@pytest.mark.parametrize("config", [{"max_escapes": 0.1}, {"costs": Costs(false_alarm=1, escape=2)}])
def test_escapes_need_bad_parts(model, parts, config):
    with pytest.raises(CalibrationError, match="needs bad parts, and none were given; name some with --bad"):
        calibrated(model, parts / "good", config=ThresholdConfig(**config))


def test_a_model_not_trained_here_needs_good_parts(model):
    with pytest.raises(CalibrationError, match="was not trained here, so it held out no parts; name good ones"):
        calibrate(model)


def test_unreadable_images_stop_or_are_left_out_and_counted(model, parts, tmp_path):
    good = tmp_path / "good"
    shutil.copytree(parts / "good", good)
    (good / "part00_0.png").write_bytes(b"no image")
    with pytest.raises(Exception, match=r"part00_0\.png: not a readable image"):
        calibrate(model, good=[good])
    found = calibrate(model, good=[good], on_error="skip")
    assert (found.calibration.parts, [failure.path.name for failure in found.failures]) == (59, ["part00_0.png"])


# --- after a training --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("surfaces")
    synthesize(
        root, SyntheticConfig(surfaces=("cast_grain",), size_px=SIZE, train_good=15, test_good=2, test_per_defect=1)
    )
    train(
        MVTecAD(root=root, category="cast_grain"),
        output=root / "model",
        model=ModelConfig(backbone="compact", image_size=SIZE),
        trainer=TrainerConfig(max_steps=1, accelerator="cpu"),
    )
    return root / "model", root / "cast_grain"


def test_a_training_calibrates_with_what_it_held_out(trained):
    model, _ = trained
    detector = Detector.load(model)
    calibration = detector.calibration
    held_out = held_out_samples(model, MVTecAD(root=model.parent, category="cast_grain"), detector.record)
    assert len(held_out) == calibration.parts == 3
    assert calibration.max_false_alarms == guaranteed_rate(3, 0.95)
    assert calibration.basis == "held out of the training"
    expected = [detector.predict(sample.image).score_logit for sample in held_out]
    assert np.allclose(calibration.part_logits, sorted(expected), atol=1e-5)
    # Again by hand, with the same parts.
    again = calibrate(model, config=ThresholdConfig(max_false_alarms=0.7)).calibration
    assert again.list_sha256 == calibration.list_sha256
    assert again.part_logits == calibration.part_logits


@pytest.fixture
def copied(trained, tmp_path) -> tuple[Path, Path]:
    """The model and its dataset in another place."""
    shutil.copytree(trained[0].parent, tmp_path / "copy")
    model = tmp_path / "copy" / "model"
    record = yaml.safe_load((model / "config.yaml").read_text())
    record["data"]["init_args"]["root"] = str(tmp_path / "copy")
    (model / "config.yaml").write_text(yaml.safe_dump(record))
    return model, tmp_path / "copy" / "cast_grain"


def test_held_out_parts_are_those_recorded_by_name_and_content(copied):
    """Other images may come and go, and all may be renamed; a held-out one may not go."""
    model, data = copied
    recorded = Detector.load(model).calibration.list_sha256
    config = ThresholdConfig(max_false_alarms=0.7)
    roles = {image.name: image.role for image in read_image_records(model)}
    good = data / "train" / "good"
    next(path for path in sorted(good.iterdir()) if roles[f"train/good/{path.name}"] == "trained").unlink()
    assert calibrate(model, config=config).calibration.list_sha256 == recorded
    for path in sorted(good.iterdir()):
        path.rename(path.with_name(f"renamed_{path.name}"))
    assert calibrate(model, config=config).calibration.list_sha256 == recorded
    record = yaml.safe_load((model / "config.yaml").read_text())
    held_out_samples(model, MVTecAD(root=data.parent, category="cast_grain"), record)[0].image.unlink()
    with pytest.raises(DataError, match="held out of the training and not there any more: 1 of 3 images"):
        calibrate(model)


def test_a_held_out_part_that_changed_is_refused(copied):
    model, data = copied
    record = yaml.safe_load((model / "config.yaml").read_text())
    held_out = held_out_samples(model, MVTecAD(root=data.parent, category="cast_grain"), record)
    with held_out[1].image.open("ab") as file:
        file.write(b"more")
    with pytest.raises(DataError, match="was held out of the training, and changed since; name good parts"):
        calibrate(model)


def test_the_record_of_images_says_what_each_is(trained):
    model, data = trained
    records = {image.name: image for image in read_image_records(model)}
    files = [*data.rglob("train/good/*.png"), *data.rglob("test/*/*.png")]
    assert set(records) == {path.relative_to(data).as_posix() for path in files}
    for path in files:
        image = records[path.relative_to(data).as_posix()]
        assert image.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        if image.split == "test":
            assert (image.role, image.pixels, image.height) == ("test", "", None)
            continue
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert (image.height, image.width) == pixels.shape[:2]
        assert (image.lowest, image.highest) == (pixels.min(), pixels.max())
        wanted = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).hexdigest()
        assert image.pixels == wanted
    assert [image.role for image in records.values()].count("held-out") == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("held-out", "somewhere"),
        lambda text: text.replace(",train,", ",training,"),
        lambda text: text.replace("name,sha256", "name,hash"),
        lambda text: text[: text.index("\n") + 40],
        lambda text: re.sub(r",\d+,\d+,", ",wide,9,", text, count=1),
    ],
)
def test_a_damaged_record_of_images_is_refused(trained, tmp_path, damage):
    model = Path(shutil.copytree(trained[0], tmp_path / "model"))
    text = (model / "images.csv").read_text()
    assert damage(text) != text
    (model / "images.csv").write_text(damage(text))
    with pytest.raises(ModelFolderError, match=r"images\.csv: damaged .*; bring it back, or train the model again"):
        read_image_records(model)


@pytest.mark.parametrize(
    ("split", "words"), [("train", "the model was trained on it"), ("test", "it is one of the model's test images")]
)
def test_images_that_the_model_was_trained_on_or_is_tested_with_are_refused(trained, parts, tmp_path, split, words):
    model, data = trained
    held_out = {
        sample.image
        for sample in held_out_samples(
            model, MVTecAD(root=model.parent, category="cast_grain"), Detector.load(model).record
        )
    }
    known = sorted(path for path in (data / split / "good").iterdir() if path not in held_out)[0]
    shutil.copytree(parts / "good", tmp_path / "good")
    shutil.copy(known, tmp_path / "good" / "renamed.png")
    shutil.copytree(model, tmp_path / "copied")  # the dataset is not needed for it
    with pytest.raises(DataError, match=rf"renamed\.png: {words}, perhaps under another name"):
        calibrate(tmp_path / "copied", good=[tmp_path / "good"])


def test_held_out_images_and_others_are_not_known(trained, parts, tmp_path):
    model, _ = trained
    known = read_known_images(model)
    record = Detector.load(model).record
    source = MVTecAD(root=model.parent, category="cast_grain")
    held_out = {file_sha256(sample.image) for sample in held_out_samples(model, source, record)}
    splits = {file_sha256(sample.image): sample.split for sample in source.samples()}
    files = {digest: split for digest, split in known.items() if len(digest) == 64}  # the others are of pixels
    assert files == {digest: split for digest, split in splits.items() if digest not in held_out}
    shutil.copytree(model, tmp_path / "copied")
    found = calibrate(tmp_path / "copied", good=[parts / "good"])
    assert found.calibration.parts == 60


@pytest.mark.slow
def test_folders_given_by_mistake_are_refused(model, parts, tmp_path):
    with pytest.raises(DataError, match=r"holds the folder .*bad; name the folder of the good parts alone"):
        calibrated(model, parts)
    order = sorted((parts / "good").iterdir(), key=lambda path: Detector.load(model).predict(path).score_logit)
    for place, path in enumerate(order):  # the lowest scores are called bad
        target = tmp_path / ("low" if place < 20 else "high") / path.name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    with pytest.raises(CalibrationError, match=r"the 20 bad parts score lower than the 40 good ones .* swapped\?"):
        calibrated(model, tmp_path / "high", tmp_path / "low", ThresholdConfig(max_false_alarms=0.1))
    assert not (model / "calibration.yaml").exists()


def test_parts_are_told_apart_as_in_the_training(parts, tmp_path, capsys):
    network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=SIZE), seed=1).eval()
    data = {"class_path": "Folder", "init_args": {"group_pattern": r"(part\d+)_"}}
    save_model(tmp_path, network, {"data": data})
    config = ThresholdConfig(max_false_alarms=0.1)
    assert calibrate(tmp_path, good=[parts / "twice"], config=config).calibration.parts == 30
    assert r"as in the training: --group-pattern '(part\d+)_'" in capsys.readouterr().err


# --- what later goes by it ---------------------------------------------------------------------------------------


def test_predictions_carry_p_values_defects_and_the_calibrated_verdict(model, parts, tmp_path):
    calibrated(model, parts / "good")
    detector = Detector.load(model)
    paths = sorted((parts / "bad").iterdir())
    # Half of the images reach this pixel threshold.
    half = float(np.median([prediction.map_max_logit for prediction in detector.predict(list(paths))]))
    write_calibration(model, replace(detector.calibration, pixel_logit=half, min_area_px=1))
    detector = Detector.load(model)
    detector.list_all = True
    summary = predict_to_folder(detector, paths, tmp_path / "out", model_folder=model, false_discovery_rate=0.5)
    rows = read_table(tmp_path / "out" / "predictions.csv")
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    defects = read_table(tmp_path / "out" / "defects.csv")
    good = np.array(detector.calibration.part_logits)
    for row in rows:
        score = float(row["score_logit"])
        assert row["calibrated"] == "True"
        assert row["verdict"] == ("bad" if score >= detector.calibration.threshold_logit else "good")
        assert float(row["p_value"]) == (1 + (good >= score).sum()) / 61
    # Benjamini and Hochberg by hand: the smallest of m p / rank over all at least as large.
    p = np.array([float(row["p_value"]) for row in rows])
    order = np.argsort(p, kind="stable")
    stepped = np.minimum.accumulate((12 * p[order] / np.arange(1, 13))[::-1])[::-1].clip(max=1)
    assert np.allclose([float(rows[place]["q_value"]) for place in order], stepped)
    assert summary.flagged == (stepped <= 0.5).sum()
    assert sum(int(row["defects"]) for row in rows) == len(defects) == sum(len(line["defects"]) for line in lines) > 0
    first = next(line for line in lines if line["defects"])
    assert {key: "" if value is None else str(value) for key, value in first["defects"][0].items()} == {
        key: value for key, value in next(d for d in defects if d["path"] == first["path"]).items() if key != "path"
    }


def test_a_false_discovery_rate_needs_a_calibration(model, parts, tmp_path):
    with pytest.raises(ConfigError, match="needs p-values, and the model is not calibrated"):
        predict_to_folder(Detector.load(model), [parts], tmp_path / "out", model_folder=model, false_discovery_rate=0.1)


def test_calibrate_and_predict_from_the_command_line(model, parts, tmp_path, capsys):
    def run(*arguments: object, status: int = 0) -> str:
        assert main([str(argument) for argument in arguments]) == status
        captured = capsys.readouterr()
        return captured.out + captured.err

    predict = ["predict", "--model", model, parts / "bad", "--output"]
    assert UNCALIBRATED in run(*predict, tmp_path / "before")
    good, bad = ["--good", parts / "good"], ["--bad", parts / "bad"]
    said = run("calibrate", "--model", model, *good, *bad, "--max-escapes", "25%", "--min-area", 9)
    assert "at most 5 % of good parts are called bad, with 95 % confidence (60 good parts" in said
    assert "at most 25 % of bad parts are called good" in said
    assert "unsure from score" in said
    assert "region of at least 9 px" in said
    assert (model / "calibration.png").stat().st_size > 10_000
    said = run(*predict, tmp_path / "after", "--false-discovery-rate", "20%")
    assert " unsure at threshold " in said
    assert "told from good parts at a false-discovery rate of 20 %" in said
    assert "calibrated: at most 5 % of good parts" in said
    costs = ["--costs", "false-alarm=1,escape=50"]
    said = run("calibrate", "--model", model, *good, *bad, *costs)
    assert "16.7 % of parts are taken to be bad, as here" in said
    assert "expected cost of a part: " in said
    assert "(in place of the one of " in said
    assert "taken to be bad" not in run("calibrate", "--model", model, *good, *bad, *costs, "--bad-share", "2%")
    one_percent = run("calibrate", "--model", model, *good, "--max-false-alarms", "1%", status=1)
    assert "max_false_alarms: 60 good parts cannot guarantee at most 1 %" in one_percent
    assert "at least 299" in one_percent
    both = run("calibrate", "--model", model, *good, *bad, *costs, "--max-false-alarms", "1%", status=2)
    assert "give one of the two" in both


def test_a_guarantee_is_a_sentence_to_sign(model, parts):
    calibration: Calibration = calibrated(model, parts / "good").calibration
    today = calibration.date
    assert calibration.guarantee() == (
        "at most 5 % of good parts are called bad, with 95 % confidence "
        f"(60 good parts, from {parts / 'good'}, {today})"
    )
    assert calibration.weights_sha256 == hash_weights(model)


def test_the_table_of_scores_fits_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    rows = [
        ScoreRow(score=score, threshold_logit=-10.1234, max_false_alarms=0.123, auroc=0.9876, escapes=123, unsure=123)
        for score in ("head", "map", "fused", "subspace", "joint")
    ]
    compared = ScoreComparison(rows=tuple(rows), good_parts=300, bad_parts=999, why_calibrating=None, confidence=0.95)
    _print_scores(compared, "subspace", grey_zone=True)
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.startswith("what each score")
    assert [line.split()[0] for line in lines[:6]] == ["score", "head", "map", "fused", "subspace", "joint"]
    assert lines[4].split() == ["subspace", "-10.1234", "12.3", "%", "0.9876", "123", "of", "999", "123", "decides"]
