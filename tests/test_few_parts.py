"""Few parts: thresholds of cross-calibration, what is proven, who sees what, and the escapes that are expected."""

from __future__ import annotations

import csv
import math
import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy import stats

from supersimplenet import Detector, ModelConfig
from supersimplenet.cli.main import main
from supersimplenet.datasets.splits import split_in_folds
from supersimplenet.datasets.table import Table
from supersimplenet.errors import CalibrationError, ConfigError, DataError, ModelFolderError
from supersimplenet.evaluation.calibrate import calibrate
from supersimplenet.evaluation.config import ThresholdConfig
from supersimplenet.evaluation.few_parts import (
    BadScore,
    FoldScores,
    count_escapes,
    cross_calibrated,
    with_expected_escapes,
)
from supersimplenet.evaluation.scored_parts import PartScores
from supersimplenet.evaluation.set_thresholds import Calibrated
from supersimplenet.inference.image_records import read_image_records
from supersimplenet.inference.model_folder import load_model, read_calibration
from supersimplenet.metrics.cross_conformal import cross_bound, cross_threshold
from supersimplenet.metrics.thresholds import false_alarm_threshold, guaranteed_rate, rate_interval, rate_upper_bound
from supersimplenet.model.config import Recipe
from supersimplenet.postprocessing.calibration import Calibration, p_values
from supersimplenet.preprocessing import images as images_module
from supersimplenet.training import cross as cross_module
from supersimplenet.training import folds as folds_module
from supersimplenet.training import plan as plan_module
from supersimplenet.training import run as run_module
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.plan import plan_folds
from supersimplenet.training.train import train
from supersimplenet.types import BAD, GOOD, Sample

SIZE = (64, 64)
MODEL = ModelConfig(backbone="compact", image_size=SIZE)
STEPS = 3


# --- the rule ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("digits", [1, 9])
@pytest.mark.parametrize(("parts", "rate"), [(19, 0.05), (20, 0.05), (55, 0.05), (9, 0.1), (30, 0.21), (3, 0.5)])
def test_a_part_reaches_the_threshold_where_its_p_value_is_at_most_the_rate(parts, rate, digits):
    rng = np.random.default_rng(parts)
    scores = np.round(rng.normal(size=parts), digits)
    threshold = cross_threshold(rng.permutation(scores), false_alarms=rate)
    for new in (*scores, *np.round(rng.normal(size=200), digits)):
        p = (1 + sum(score >= new for score in scores)) / (parts + 1)
        assert (new >= threshold) == (p <= rate)


def test_too_few_parts_for_an_average_are_refused():
    assert cross_threshold(np.arange(19.0), false_alarms=0.05) == np.nextafter(18.0, np.inf)
    with pytest.raises(CalibrationError, match=r"18 good parts .* wanted at least 19; add parts, or ask for 5\.26 %"):
        cross_threshold(np.arange(18.0), false_alarms=0.05)
    with pytest.raises(ConfigError):
        cross_threshold(np.arange(18.0), false_alarms=1.0)


def test_what_is_proven_of_folds():
    """By hand: jackknife+ (theorem 1 of Barber et al.), and both terms of theorem 4."""
    assert cross_bound(40, 40, false_alarms=0.05) == pytest.approx(0.1)
    assert cross_bound(60, 5, false_alarms=0.05) == pytest.approx(2 * (0.05 * 61 + 4) / 65)
    vovk = 2 * 0.05 + 2 * (1 - 0.05) * (1 - 1 / 5) / (60 / 5 + 1)  # the form of the papers
    assert cross_bound(60, 5, false_alarms=0.05) == pytest.approx(vovk)
    assert cross_bound(60, 20, false_alarms=0.05) == pytest.approx(0.1 + (1 - 20 / 60) / 21)
    assert cross_bound(61, 20, false_alarms=0.05) == pytest.approx(2 * (0.05 * 62 + 19) / 81)  # folds differ in size
    assert cross_bound(4, 2, false_alarms=0.5) == 1.0
    for folds in (1, 5):
        with pytest.raises(ConfigError, match="wanted 2 to 4"):
            cross_bound(4, folds, false_alarms=0.1)


# --- simulations: a small algorithm stands for the training ------------------------------------------------------

PARTS, FOLDS, RATE = 40, 5, 0.1


def smooth(training: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Distance to the mean of the training parts, in their standard deviations."""
    return np.linalg.norm((parts - training.mean(0)) / training.std(0), axis=1)


def fickle(training: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """The more parts a model was trained on, the higher it scores."""
    return len(training) + np.linalg.norm(parts, axis=1) / 100


def once(algorithm, rng: np.random.Generator, calibrations: int) -> tuple[int, int]:
    """Count the calibrations in which a new part is called bad: by all models of folds, and by a model of all parts."""
    by_folds = by_model = 0
    for _ in range(calibrations):
        parts = rng.normal(size=(PARTS + 1, 8))
        known, new = parts[:PARTS], parts[PARTS:]
        fold = np.arange(PARTS) % FOLDS
        scores, at_least = np.empty(PARTS), 0
        for number in range(FOLDS):
            inside = fold == number
            found = algorithm(known[~inside], np.concatenate([known[inside], new]))
            scores[inside] = found[:-1]
            at_least += int((found[:-1] >= found[-1]).sum())
        by_folds += (1 + at_least) / (PARTS + 1) <= RATE
        by_model += algorithm(known, new)[0] >= cross_threshold(scores, false_alarms=RATE)
    return by_folds, by_model


@pytest.mark.parametrize("algorithm", [smooth, fickle])
def test_parts_scored_by_all_folds_are_called_bad_as_rarely_as_is_proven(algorithm):
    calibrations = 1500
    by_folds, by_model = once(algorithm, np.random.default_rng(5), calibrations)
    proven = cross_bound(PARTS, FOLDS, false_alarms=RATE)
    # With a true rate of what is proven, more than this comes up once in ten thousand seeds.
    assert by_folds <= stats.binom.ppf(0.9999, calibrations, proven)
    if algorithm is smooth:  # where models are alike, the model itself keeps the rate that was asked for
        assert by_model <= stats.binom.ppf(0.9999, calibrations, RATE)
        assert by_model >= stats.binom.ppf(0.0001, calibrations, RATE / 2)
    else:  # where they are not, nothing holds for it: so this rate is not signed
        assert by_model == calibrations


def fold_scores(good: np.ndarray, **changes: object) -> FoldScores:
    values = {
        "folds": FOLDS,
        "steps": 7,
        "good_logits": good,
        "good_levels": good,
        "images": good.size,
        "bad": (),
        "held_out_logits": (),
    }
    return FoldScores(**values | changes)  # type: ignore[arg-type]


def by_hand(good: np.ndarray, bad: np.ndarray | None = None) -> Calibrated:
    """The calibration of given scores by themselves."""
    bad = np.zeros(0) if bad is None else bad
    rate = guaranteed_rate(good.size, 0.95)
    calibration = Calibration(
        image_score="fused",
        threshold_logit=false_alarm_threshold(good, max_false_alarms=rate, confidence=0.95),
        accept_logit=None,
        pixel_logit=1.0,
        min_area_px=25,
        chosen_by="false-alarms",
        max_false_alarms=rate,
        max_escapes=None,
        confidence=0.95,
        part_logits=tuple(np.sort(good).tolist()),
        images=good.size,
        bad_parts=bad.size,
        escapes=0,
        basis="held out",
        list_sha256="0",
        weights_sha256="0",
        date="2026-11-28",
    )
    scores = {calibration.image_score: PartScores(good=good, bad=bad)}
    return Calibrated(calibration=calibration, scores=scores, curve=None, failures=[])


@pytest.mark.parametrize("shift", [-0.8, 0.0])
def test_what_is_signed_holds_with_its_confidence_whatever_the_models_of_folds_score(shift):
    """Shifted: the models of folds score too low, so their threshold is wrong; what is signed is true all the same."""
    rng, draws = np.random.default_rng(3), 1500
    kept = 0
    for _ in range(draws):
        found = cross_calibrated(
            by_hand(rng.normal(size=13)),
            fold_scores(rng.normal(size=40) + shift),
            ThresholdConfig(max_false_alarms=RATE),
        ).calibration
        kept += stats.norm.sf(found.threshold_logit) <= found.max_false_alarms
    assert kept >= stats.binom.ppf(0.0001, draws, 0.95)


# --- what is stored and said ------------------------------------------------------------------------------------


def test_the_folds_set_the_thresholds_and_the_held_out_parts_sign():
    rng = np.random.default_rng(0)
    own, folds = np.append(rng.normal(size=12), 9.0), rng.normal(size=40)
    bad = np.array([0.0, 5.0, 6.0])
    found = cross_calibrated(by_hand(own, bad), fold_scores(folds), ThresholdConfig(max_false_alarms=RATE))
    calibration = found.calibration
    threshold = np.nextafter(np.sort(folds)[36], np.inf)  # ceil(0.9 * 41) = 37
    assert calibration.threshold_logit == threshold
    assert calibration.pixel_logit > np.float32(np.sort(folds)[36])
    wrong = int((own >= threshold).sum())
    assert wrong >= 1
    assert calibration.max_false_alarms == rate_upper_bound(wrong, 13, 0.95)
    assert (calibration.escapes, calibration.max_escapes) == (1, rate_upper_bound(1, 3, 0.95))
    assert calibration.part_logits == tuple(np.sort(folds))
    assert calibration.method == "cross"
    assert found.split is not None
    assert found.split.threshold_logit > 9
    assert found.split.method == "split"
    assert calibration.p_value(0.3) == p_values(0.3, folds)
    signed, average = calibration.guarantee(), calibration.on_average()
    assert f"with 95 % confidence ({wrong} of 13 good parts called bad, held out, 2026-11-28)" in signed
    assert "average" not in signed
    assert "10.0 %" not in signed
    assert average is not None
    assert "about 10.0 % of good parts are called bad, on average over calibrations" in average
    proven = math.ceil(1000 * cross_bound(40, 5, false_alarms=RATE) - 1e-9) / 10
    assert f"proven is at most {proven:g} %, and only for a part that all 5 of them score" in average
    assert found.split.on_average() is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folds": 1}, r"calibration\.yaml: cross\.folds: 1"),
        ({"proven": 0.0}, r"cross\.proven: 0\.0"),
        ({"checked_false_alarms": 14}, r"cross\.checked_false_alarms: 14"),
    ],
)
def test_a_damaged_cross_calibration_is_refused(model, change, message):
    found = cross_calibrated(by_hand(np.arange(13.0)), fold_scores(np.arange(40.0)), ThresholdConfig())
    (model / "calibration.yaml").write_text(yaml.safe_dump(plain_with(found.calibration, change)))
    with pytest.raises(ModelFolderError, match=message):
        read_calibration(model)


def plain_with(calibration: Calibration, change: dict[str, object]) -> dict[str, object]:
    from supersimplenet.utils.serialization import to_plain

    plain = to_plain(calibration)
    return plain | {"cross": plain["cross"] | change}


@pytest.mark.parametrize("config", [{"max_escapes": 0.1}, {"max_false_alarms": 0.01}])
def test_folds_set_one_threshold_and_need_enough_parts(config):
    with pytest.raises(CalibrationError, match=r"leave out one of the two|wanted at least 99"):
        cross_calibrated(by_hand(np.arange(13.0)), fold_scores(np.arange(40.0)), ThresholdConfig(**config))


# --- expected escapes -------------------------------------------------------------------------------------------


def bad(name: str, defect: str, group: str | None = None) -> Sample:
    return Sample(image=Path(name), label=BAD, defect=defect, split="train", group=group)


def test_escapes_are_counted_by_part_and_by_type():
    samples = [
        bad("1", "crack"),
        bad("2", "crack"),
        bad("3", "dent", "a"),
        bad("4", "dent", "a"),
        bad("5", "crack", "a"),
    ]
    found = count_escapes(samples, [True, False, False, True, False], basis="here")
    low, high = rate_interval(2, 3, 0.95)
    assert (found.every.escapes, found.every.parts, found.every.low, found.every.high) == (2, 3, low, high)
    assert {name: (count.escapes, count.parts) for name, count in found.types.items()} == {
        "crack": (1, 3),
        "dent": (1, 1),
    }
    assert low == pytest.approx(stats.binomtest(2, 3).proportion_ci(0.95, "exact").low)
    assert high == pytest.approx(stats.binomtest(2, 3).proportion_ci(0.95, "exact").high)
    first, *others = found.lines()
    assert first == "expected escapes: 2 of 3 bad parts (66.7 %, 95 % interval 9.4 % to 99.2 %): here"
    assert others[1] == "  dent   1 of 1 bad part (100.0 %, 95 % interval 2.5 % to 100.0 %)"


def test_the_model_of_a_fold_has_the_threshold_that_the_held_out_parts_set_for_it():
    """The same score escapes in one fold and not in the other; and the folds' own threshold is one for all."""
    own = np.arange(13.0)
    scores = fold_scores(
        np.arange(40.0),
        folds=2,
        bad=[BadScore(sample=bad(str(fold), "crack"), logit=50.0, fold=fold) for fold in (0, 1)],
        held_out_logits=[own, own + 100],
    )
    split = with_expected_escapes(by_hand(own), folds=scores).calibration
    assert (split.expected_escapes.every.escapes, split.expected_escapes.every.parts) == (1, 2)
    assert "2 bad parts of the training, each by one of 2 models of 7 steps that was not trained" in next(
        split.expected_escapes.lines()
    )
    cross = cross_calibrated(by_hand(own), scores, ThresholdConfig())
    assert cross.calibration.expected_escapes.every.escapes == 0
    assert cross.split.expected_escapes.every.escapes == 1


def test_the_share_of_the_training_decides_folds_and_steps():
    assert plan_folds(1599, 0.25) is None
    assert plan_folds(1600, 0.25) == (2, 200)
    assert plan_folds(3200, 0.25) == (4, 200)
    assert plan_folds(8000, 0.25) == (4, 500)
    assert plan_folds(8000, 0.0) is None


# --- folds ------------------------------------------------------------------------------------------------------


def test_folds_hold_whole_parts_and_about_as_many_of_each_type():
    samples = [
        Sample(image=Path(f"/d/{part}_{shot}.png"), label=GOOD, defect="good", split="train", group=f"p{part}")
        for part in range(20)
        for shot in range(1 + part % 3)
    ]
    samples += [bad(f"/d/crack{i}.png", "crack") for i in range(11)] + [
        bad(f"/d/dent{i}.png", "dent") for i in range(4)
    ]
    fold_of = split_in_folds(samples, 4, seed=1)
    assert len({(sample.group, fold) for sample, fold in zip(samples, fold_of, strict=True) if sample.group}) == 20
    counts = Counter((sample.defect, fold) for sample, fold in zip(samples, fold_of, strict=True))
    assert {counts["dent", fold] for fold in range(4)} == {1}
    assert {counts["crack", fold] for fold in range(4)} == {2, 3}
    assert {counts["good", fold] for fold in range(4)} <= {9, 10, 11}
    again = split_in_folds(samples[::-1], 4, seed=1)
    assert again[::-1] == fold_of
    with pytest.raises(DataError, match="3 parts with a good image for 4 folds"):
        split_in_folds([*samples[:4], *samples[40:]], 4)


# --- a model folder ---------------------------------------------------------------------------------------------


def write_table(root: Path) -> Path:
    """18 good parts, two of them in two photographs, one photograph twice; ten bad ones of two types; a test split."""
    rng = np.random.default_rng(11)
    rows = []

    def add(name: str, split: str, defect: str, group: str, pixels: np.ndarray | None = None) -> np.ndarray:
        pixels = rng.integers(60, 200, (64, 64, 3), dtype=np.uint8) if pixels is None else pixels
        Image.fromarray(pixels).save(root / name)
        label = "good" if defect == "good" else "bad"
        rows.append((name, split, label, defect, "", group, "1" if label == "good" else "0"))
        return pixels

    for part in range(18):
        add(f"good{part}.png", "train", "good", f"g{part}")
    add("good0_again.png", "train", "good", "g0")
    copied = add("good18.png", "train", "good", "")
    add("good18_copy.png", "train", "good", "", copied)
    for part in range(10):
        add(f"bad{part}.png", "train", ("crack", "dent")[part % 2], f"b{part}")
    for part in range(2):
        add(f"test{part}.png", "test", ("good", "crack")[part], f"t{part}")
    table = root / "table.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("image", "split", "label", "defect", "mask", "group", "pixel_labels_known"), *rows]
        )
    return table


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("few")
    train(
        Table(path=write_table(root)),
        output=root / "model",
        model=MODEL,
        recipe=Recipe(batch_size=6),
        trainer=TrainerConfig(max_steps=STEPS, accelerator="cpu"),
    )
    return root


@pytest.fixture
def copied(trained, tmp_path) -> Path:
    root = Path(shutil.copytree(trained, tmp_path / "copy"))
    record = yaml.safe_load((root / "model" / "config.yaml").read_text())
    record["data"]["init_args"] |= {"path": str(root / "table.csv"), "root": str(root)}
    (root / "model" / "config.yaml").write_text(yaml.safe_dump(record))
    return root


def names_of(model: Path, role: str) -> set[str]:
    return {image.name for image in read_image_records(model) if image.role == role}


def test_a_model_of_no_fold_is_the_trained_model_to_the_bit(copied):
    """Same steps, rates, clipping, noise and images as the training with Lightning; then also the same scale."""
    model = copied / "model"
    network, record = load_model(model)
    run = cross_module._run_of(record, model, "stop")
    labels = run_module.decide_labels(run, cross_module.SINGLE_PROCESS, record)
    ready = run_module.prepare(run, labels, None, cross_module.SINGLE_PROCESS, record)
    training_set = run_module.gather(run, labels, ready, record)
    fold = folds_module.fit_fold(
        run, labels, ready, training_set, left_out=(), steps=STEPS, image_score=record["image_score"]
    )
    for name, values in network.heads.state_dict().items():
        assert torch.equal(fold.network.heads.state_dict()[name], values), name
    assert fold.postprocessor.score_scale == Detector.load(model).postprocessor.score_scale


def test_who_sees_what(copied, monkeypatch):
    """Models of folds are trained on neither a held-out image nor one of their fold; no test image is opened."""
    model, seen, scored, gathered, opened = copied / "model", [], [], [], set()
    gather, loss, score = cross_module.gather, folds_module.TrainingModule.loss, folds_module.score_images
    measure_feature, measure_score = folds_module.measure_feature_scale, folds_module.measure_score_scale
    decode, fit = images_module.decode, folds_module.fit_fold

    def name_rows(rows) -> set[str]:
        ((training_set),) = gathered
        places = training_set.source.flip_index.image[torch.as_tensor(list(rows))].tolist()
        return {training_set.training[training_set.labels.tiles[place].sample].image.name for place in places}

    monkeypatch.setattr(cross_module, "gather", lambda *a: gathered.append(gather(*a)) or gathered[-1])
    monkeypatch.setattr(folds_module, "fit_fold", lambda *a, **k: seen.append(defaultdict(set)) or fit(*a, **k))

    def noting(function, name, rows_of):
        def note(*args, **kwargs):
            seen[-1][name] |= name_rows(rows_of(args))
            return function(*args, **kwargs)

        return note

    monkeypatch.setattr(folds_module.TrainingModule, "loss", noting(loss, "loss", lambda a: a[1].tolist()))
    monkeypatch.setattr(folds_module, "measure_feature_scale", noting(measure_feature, "noise", lambda a: a[1]))
    monkeypatch.setattr(
        folds_module,
        "measure_score_scale",
        noting(measure_score, "scale", lambda a: [r for rows in a[2] for r in rows]),
    )
    monkeypatch.setattr(
        folds_module,
        "score_images",
        lambda detector, samples, **k: scored.append({s.image.name for s in samples}) or score(detector, samples, **k),
    )
    monkeypatch.setattr(
        images_module, "decode", lambda path, **how: opened.add(Path(str(path)).name) or decode(path, **how)
    )
    config = ThresholdConfig(max_false_alarms=0.1)
    scores = cross_module.score_folds_of(model, 3, steps=4, device="cpu", config=config)
    held_out, trained_on = names_of(model, "held-out"), names_of(model, "trained")
    folds = scored[::2]
    assert scored[1::2] == [held_out] * 3
    assert set().union(*folds) == trained_on
    assert sum(map(len, folds)) == len(trained_on)
    for of_fold, by_name in zip(folds, seen, strict=True):
        assert set(by_name) == {"loss", "noise", "scale"}
        for name, images in by_name.items():
            assert len(images) >= 5, name
            assert images <= trained_on - of_fold, name
        assert len({"good0.png", "good0_again.png"} & of_fold) != 1
        assert len({"good18.png", "good18_copy.png"} & of_fold) != 1
    assert not opened & names_of(model, "test")
    parts = len({name.removesuffix(".png").split("_")[0] for name in trained_on if name.startswith("good")})
    assert scores.good_logits.size == parts
    assert len(scores.bad) == 10
    assert [logits.size for logits in scores.held_out_logits] == [19 - parts] * 3


@pytest.mark.slow
def test_cross_calibration_from_the_command_line(copied, capsys):
    model = copied / "model"
    own = Detector.load(model).predict([copied / name for name in sorted(names_of(model, "held-out"))])
    call = ["calibrate", "--model", str(model), "--cross", "3", "--cross-steps", "2", "--max-false-alarms", "10%"]
    assert main([*call, "--device", "cpu"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    calibration = read_calibration(model)
    assert calibration.method == "cross"
    assert (calibration.cross.folds, calibration.cross.steps) == (3, 2)
    assert calibration.threshold_logit == cross_threshold(calibration.part_logits, false_alarms=0.1)
    parts = {name.removesuffix(".png").split("_")[0] for name in names_of(model, "held-out")}
    assert calibration.cross.checked_parts == len(parts)
    wrong = {
        Path(prediction.path).stem.split("_")[0]
        for prediction in own
        if prediction.score_logit >= calibration.threshold_logit
    }
    assert calibration.cross.checked_false_alarms == len(wrong)
    assert f"calibrated: {calibration.guarantee()}" in said
    assert f"not to be signed: {calibration.on_average()}" in said
    assert f"the {len(parts)} parts that check it would alone set logit" in said
    assert calibration.expected_escapes.every.parts == 10
    assert {name: count.parts for name, count in calibration.expected_escapes.types.items()} == {"crack": 5, "dent": 5}
    assert " ".join("\n".join(calibration.expected_escapes.lines()).split()) in said
    detector = Detector.load(model, device="cpu")
    prediction = detector.predict(copied / "bad1.png")
    assert prediction.p_value == calibration.p_value(prediction.score_logit)
    assert (prediction.verdict == "bad") == (prediction.score_logit >= calibration.threshold_logit)
    assert not list(model.glob(".folds-*"))


@pytest.mark.parametrize("damage", ["changed", "gone", "few", "imported"])
def test_models_of_folds_need_the_images_of_the_training(copied, damage, capsys):
    model, call = copied / "model", ["--cross", "3", "--cross-steps", "1"]
    if damage == "changed":
        Image.new("RGB", (64, 64)).save(copied / "bad3.png")
        wanted = "the training images, their labels or masks changed"
    elif damage == "gone":
        (copied / "good3.png").unlink()
        wanted = "good3.png"
    elif damage == "few":
        wanted = "wanted at least 19; add parts"
    else:
        record = yaml.safe_load((model / "config.yaml").read_text())
        del record["training"], record["data"]
        (model / "config.yaml").write_text(yaml.safe_dump(record))
        wanted = "was not trained here"
    call += ["--max-false-alarms", "5%" if damage == "few" else "10%"]
    before = (model / "calibration.yaml").read_bytes()
    assert main(["calibrate", "--model", str(model), *call]) == 1
    assert wanted in " ".join(capsys.readouterr().err.split())
    assert (model / "calibration.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cross", "1"], "cross: 1; wanted 2 folds or more"),
        (["--cross-steps", "5"], "cross-steps: belongs to --cross"),
        (["--cross", "5", "--max-escapes", "5%"], "cross and max-escapes"),
        (["--cross", "5", "--costs", "false-alarm=1,escape=9"], "cross and costs"),
        (["--cross", "5", "--engine", "openvino"], "cross and engine"),
    ],
)
def test_wrong_calls(trained, options, message, capsys):
    assert main(["calibrate", "--model", str(trained / "model"), *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_training_says_how_many_bad_parts_will_escape(trained, tmp_path, monkeypatch, capsys):
    """With labels by models of folds; without, by the model itself, which never saw a bad part."""
    monkeypatch.setattr(plan_module, "FEW_STEPS", 1)
    scored = []
    score = folds_module.score_images
    monkeypatch.setattr(
        folds_module,
        "score_images",
        lambda detector, samples, **k: scored.append({s.image.name for s in samples}) or score(detector, samples, **k),
    )
    source, trainer = Table(path=trained / "table.csv"), TrainerConfig(max_steps=8, accelerator="cpu")
    recipe = Recipe(batch_size=6)
    train(source, output=tmp_path / "weak", model=MODEL, recipe=recipe, trainer=trainer)
    found = read_calibration(tmp_path / "weak")
    held_out = names_of(tmp_path / "weak", "held-out")
    assert [images & held_out for images in scored] == [set(), held_out] * 2
    assert {name for images in scored[::2] for name in images} == {f"bad{part}.png" for part in range(10)}
    assert found.expected_escapes.every.parts == 10
    assert "models of 1 step" in found.expected_escapes.basis
    assert "expected escapes" in capsys.readouterr().err
    train(source, output=tmp_path / "good", supervision="unsupervised", model=MODEL, recipe=recipe, trainer=trainer)
    detector = Detector.load(tmp_path / "good", device="cpu")
    unseen = detector.predict([trained / f"bad{part}.png" for part in range(10)])
    escapes = sum(prediction.score_logit < detector.calibration.threshold_logit for prediction in unseen)
    expected = detector.calibration.expected_escapes
    assert (expected.every.escapes, expected.every.parts) == (escapes, 10)
    assert expected.basis == "10 bad parts that the model was not trained on"
    again = calibrate(tmp_path / "good", config=replace(ThresholdConfig(), max_false_alarms=0.6)).calibration
    assert again.expected_escapes.every.parts == 10
    assert trainer.escapes_share == 0.25
    with pytest.raises(ConfigError, match="escapes_share"):
        TrainerConfig(escapes_share=1.5)
