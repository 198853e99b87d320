"""Parts are counted once and stay on one side: copies, splits that never move, held-out images that only calibrate."""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from supersimplenet import Detector, ModelConfig, SuperSimpleNet
from supersimplenet.cli.main import main
from supersimplenet.datasets import parts as parts_module
from supersimplenet.datasets.base import DataSource, sort_samples
from supersimplenet.datasets.folder import Folder
from supersimplenet.datasets.held_out import choose_held_out
from supersimplenet.datasets.parts import (
    describe_copies,
    digest_possible_copies,
    linked_groups,
    merge_copies,
    require_one_label,
)
from supersimplenet.datasets.registry import describe_source, source_from
from supersimplenet.datasets.splits import hold_out
from supersimplenet.datasets.table import Table
from supersimplenet.errors import DataError
from supersimplenet.evaluation import calibrate as calibrate_module
from supersimplenet.evaluation.calibrate import calibrate
from supersimplenet.evaluation.config import ThresholdConfig
from supersimplenet.evaluation.evaluate import evaluate
from supersimplenet.evaluation.gate import gate
from supersimplenet.evaluation.rates import numbers_of
from supersimplenet.evaluation.scored_parts import score_images
from supersimplenet.export import export
from supersimplenet.export.images import quantization_images
from supersimplenet.export.quantization import QuantizationImages
from supersimplenet.inference.image_records import held_out_samples, read_image_records, trained_on
from supersimplenet.inference.model_folder import read_calibration, save_model
from supersimplenet.metrics.thresholds import guaranteed_rate, rate_upper_bound
from supersimplenet.preprocessing import images as images_module
from supersimplenet.preprocessing.preprocessor import Preprocessor
from supersimplenet.report.cautions import find_cautions
from supersimplenet.training import map_shift as map_shift_module
from supersimplenet.training import run as run_module
from supersimplenet.training import subspace_fit
from supersimplenet.training import train as train_module
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.train import train
from supersimplenet.types import BAD, GOOD, Sample

SIZE = (64, 64)
MODEL = ModelConfig(backbone="compact", image_size=SIZE)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 48, 3), dtype=np.uint8))


def photographs(folder: Path, *seeds: int, names: str = "{}.png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        picture(seed).save(folder / names.format(seed))
    return folder


def good_59(folder: Path) -> Path:
    """59 photographs, of which 30 are different: 29 were saved again, as BMP or under another name."""
    photographs(folder, *range(30))
    photographs(folder, *range(15), names="again_{}.bmp")
    for seed in range(15, 29):
        shutil.copy(folder / f"{seed}.png", folder / f"copy_{seed}.png")
    assert len(list(folder.iterdir())) == 59
    return folder


class Given(DataSource):
    """Samples as they are given."""

    name = "given"

    def __init__(self, *given: Sample) -> None:
        self.given = list(given)

    def samples(self) -> list[Sample]:
        return sort_samples(self.given)


def sample(image: Path, label: int = GOOD, split: str = "train", group: str | None = None) -> Sample:
    defect = "bad" if label else "good"
    return Sample(image=image, label=label, split=split, defect=defect, group=group, pixel_labels_known=label == GOOD)


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    save_model(tmp_path / "untrained", SuperSimpleNet(MODEL, seed=1).eval(), {})
    return tmp_path / "untrained"


# --- copies ------------------------------------------------------------------------------------------------------


def test_copies_have_one_digest_in_every_lossless_format(tmp_path, monkeypatch):
    files = [tmp_path / f"a.{suffix}" for suffix in ("png", "bmp", "tif", "webp")]
    for file in files:
        picture(0).save(file, **({"lossless": True} if file.suffix == ".webp" else {}))
    photographs(tmp_path, 1, 2)
    Image.new("RGB", (9, 9)).save(tmp_path / "alone.png")  # the only one of its size
    (tmp_path / "broken.png").write_bytes(b"")
    decoded = []
    monkeypatch.setattr(
        parts_module,
        "read_image",
        lambda path, **options: decoded.append(path) or images_module.read_image(path, **options),
    )
    digests = digest_possible_copies(sorted(tmp_path.iterdir()))
    assert len({digests[file] for file in files}) == 1
    assert len(set(digests.values())) == 3
    assert sorted(decoded) == sorted([*files, tmp_path / "1.png", tmp_path / "2.png"])


def test_copies_join_the_groups_that_they_are_in():
    samples = [sample(Path(f"/d/{i}.png"), group=group) for i, group in enumerate([None, "A", "A", "B", None, None])]
    digests = {s.image: digest for s, digest in zip(samples, "xyxzww", strict=True)}
    assert [s.group for s in merge_copies(samples, digests)] == ["A", "A", "A", "B", "found 4.png", "found 4.png"]
    line = "2 images are copies of others, pixel for pixel, and counted as one part: /d/0.png = /d/2.png, /d/4.png = "
    assert describe_copies(samples, digests) == f"{line}/d/5.png"
    assert merge_copies(samples, {}) == samples
    assert describe_copies(samples, {}) is None
    torn = [*samples[:5], replace(samples[5], label=BAD)]
    with pytest.raises(DataError, match=r"^/d/4\.png: labelled good, and its copy /d/5\.png bad, pixel for pixel the"):
        require_one_label(torn, digests)


def test_links_join_whatever_their_order():
    assert linked_groups(7, [(5, 0), (1, 2), (2, 5)]) == [[0, 1, 2, 5]]


def test_59_photographs_of_30_parts_promise_what_30_can(untrained, tmp_path, capsys):
    good = good_59(tmp_path / "good")
    found = calibrate(untrained, good=[good], config=ThresholdConfig(lenient=True)).calibration
    assert (found.parts, found.images, found.max_false_alarms) == (30, 59, guaranteed_rate(30, 0.95))
    assert "29 images are copies of others, pixel for pixel, and counted as one part: " in capsys.readouterr().err
    # The test, the report's numbers and the gate count likewise.
    photographs(tmp_path / "bad", *range(100, 103))
    shutil.copy(tmp_path / "bad" / "100.png", tmp_path / "bad" / "more.png")
    source = Folder(good=photographs(tmp_path / "train", 200), test_good=good, bad=tmp_path / "bad")
    evaluation = evaluate(Detector.load(untrained, device="cpu"), source.samples())
    rates = numbers_of(evaluation).false_alarms
    assert (rates.parts, numbers_of(evaluation).escapes.parts) == (30, 3)
    assert rates.bound == rate_upper_bound(rates.wrong, 30, 0.95)
    assert sorted(map(len, evaluation.summary()["copies"])) == [2] * 30
    result = gate(evaluation, evaluation)
    assert (result.passed, result.good, result.bad) == (True, 30, 3)
    assert "30 copies of other images counted nowhere" in result.reasons[0]


def test_one_image_with_both_labels_is_refused_or_named(untrained, tmp_path, capsys):
    good = photographs(tmp_path / "good", *range(30))
    bad = photographs(tmp_path / "bad", 3, 50, names="{}.bmp")
    with pytest.raises(DataError, match=r"good/3\.png: labelled good, and its copy .*bad/3\.bmp bad, pixel for pixel"):
        calibrate(untrained, good=[good], bad=[bad], config=ThresholdConfig(lenient=True))
    samples = [sample(path, label) for label, folder in ((GOOD, good), (BAD, bad)) for path in sorted(folder.iterdir())]
    with pytest.raises(DataError, match=r"good/3\.png: labelled good, and its copy"):
        train(Given(*samples), output=tmp_path / "model", model=MODEL, trainer=TrainerConfig(max_steps=1))
    evaluation = evaluate(Detector.load(untrained, device="cpu"), [replace(s, split="test") for s in samples])
    assert "labelled both good and bad, pixel for pixel the same: " in capsys.readouterr().err
    result = gate(evaluation, evaluation)
    assert not result.passed
    assert any("one image both good and bad" in reason and "3.bmp" in reason for reason in result.reasons)


def test_data_split_keeps_copies_on_one_side(tmp_path, capsys):
    good = good_59(tmp_path / "good")
    table = tmp_path / "split.csv"
    for groups in ("known", "none"):
        split = ["data", "split", "--data", "Folder", "--data.good", str(good), "--data.test_fraction", "0"]
        assert main([*split, "--output", str(table), "--groups", groups]) == 0
        assert "29 images are copies of others" in capsys.readouterr().out
        splits = defaultdict(set)
        samples = Table(path=table).samples()
        for s in samples:
            splits[images_module.pixel_digest(images_module.read_image(s.image))].add(s.split)
        assert len(splits) == 30
        assert all(len(both) == 1 for both in splits.values())


# --- splits of one's own folders ---------------------------------------------------------------------------------


def test_a_folder_is_split_as_asked_by_type(tmp_path):
    good = photographs(tmp_path / "good", *range(30))
    for place, defect in enumerate(("dent", "scratch", "stain")):
        photographs(tmp_path / "bad" / defect, *range(100 + 10 * place, 106 + 10 * place))
    source = Folder(good=good, bad=tmp_path / "bad", bad_train_fraction=0.5)
    counts = Counter((s.split, s.defect) for s in source.samples())
    assert counts["test", "good"] == 6  # a fifth
    assert {counts[split, defect] for split in ("train", "test") for defect in ("dent", "scratch", "stain")} == {3}


def test_types_of_one_image_come_to_the_share_together(tmp_path):
    """A half of one is as near to none as to one; all in one split would leave the other without a defect."""
    good = photographs(tmp_path / "good", *range(5))
    for place, defect in enumerate(("dent", "hole", "scratch", "stain")):
        photographs(tmp_path / "bad" / defect, 100 + place)
    source = Folder(good=good, bad=tmp_path / "bad", bad_train_fraction=0.5)
    assert Counter(s.split for s in source.samples() if s.label == 1) == {"train": 2, "test": 2}


def test_a_folder_keeps_copies_on_one_side(tmp_path):
    samples = Folder(good=good_59(tmp_path / "good"), test_fraction=0.5).samples()
    splits = defaultdict(set)
    for s in samples:
        splits[np.asarray(Image.open(s.image)).tobytes()].add(s.split)
    assert all(len(both) == 1 for both in splits.values())
    assert sum(both == {"test"} for both in splits.values()) == 15  # of 30 parts


def test_rule_1_is_the_one_of_version_0_1(tmp_path):
    source = Folder(good=tmp_path, split_rule=1)
    description = describe_source(source)
    assert description["init_args"].pop("split_rule") == 1
    assert source_from(description).split_rule == 1
    assert describe_source(Folder(good=tmp_path))["init_args"]["split_rule"] == 2


def test_recorded_splits_never_move(copied_model):
    """Neither by new images, nor by other names, nor by other shares."""
    model, data = copied_model
    record = yaml.safe_load((model / "config.yaml").read_text())
    assert record["data"]["init_args"]["split_rule"] == 2
    before = {s.image: s.split for s in trained_on(record, model).samples()}
    assert Counter(before.values())["test"] > 2
    photographs(data / "good" / "new", *range(300, 340))
    after = {s.image: s.split for s in trained_on(record, model).samples()}
    assert {image: after[image] for image in before} == before
    new = [split for image, split in after.items() if image not in before]
    tested = sum(split == "test" for image, split in before.items() if data / "good" in image.parents)
    assert Counter(new)["test"] == 14 - tested  # in all a fifth of 68
    for image in list(before):
        moved = image.with_name(f"renamed_{image.name}")
        image.rename(moved)
        before[moved] = before.pop(image)
    after = {s.image: s.split for s in trained_on(record, model).samples()}
    assert {image: after[image] for image in before} == before
    fresh = {s.image: s.split for s in source_from(record["data"]).samples()}
    assert {image: fresh[image] for image in before} != before  # without the record some would move
    held_out = [image for image in read_image_records(model) if image.role == "held-out"]
    assert len(held_out_samples(model, trained_on(record, model), record)) == len(held_out)


# --- after a training --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Twenty good photographs, eight of them twice, and four bad ones."""
    root = tmp_path_factory.mktemp("trained")
    photographs(root / "good", *range(20))
    photographs(root / "good", *range(8), names="again_{}.bmp")
    photographs(root / "bad", *range(100, 104))
    source = Folder(good=root / "good", bad=root / "bad", bad_train_fraction=0.5)
    train(source, output=root / "model", model=MODEL, trainer=TrainerConfig(max_steps=1, accelerator="cpu"))
    return root / "model", root


@pytest.fixture
def copied_model(trained_model, tmp_path) -> tuple[Path, Path]:
    root = Path(shutil.copytree(trained_model[1], tmp_path / "copy"))
    record = yaml.safe_load((root / "model" / "config.yaml").read_text())
    record["data"]["init_args"] |= {"good": [str(root / "good")], "bad": [str(root / "bad")]}
    (root / "model" / "config.yaml").write_text(yaml.safe_dump(record))
    return root / "model", root


def test_a_copy_is_not_held_out_and_trained_on(trained_model):
    model, _ = trained_model
    roles = defaultdict(set)
    for image in read_image_records(model):
        if image.split == "train":
            roles[image.pixels].add(image.role)
    assert all(len(found) == 1 for found in roles.values())
    held_out = sum(found == {"held-out"} for found in roles.values())
    assert read_calibration(model).parts == held_out >= 2


def test_copies_of_one_photograph_give_no_guarantee_and_say_why(tmp_path, capsys):
    folder = photographs(tmp_path / "good", 0)
    for number in range(11):
        shutil.copy(folder / "0.png", folder / f"copy_{number}.png")
    samples = [sample(path) for path in sorted(folder.iterdir())]
    samples.append(sample(photographs(tmp_path / "test", 0) / "0.png", split="test"))
    train(Given(*samples), output=tmp_path / "model", model=MODEL, trainer=TrainerConfig(max_steps=1))
    said = capsys.readouterr().err
    assert "1 test image with the content of a training image, so the test would flatter: test/0.png" in said
    assert "11 images are copies of others" in said
    assert "not calibrated" in said
    assert "no image calibrates: 12 good images of one part" in said
    assert not (tmp_path / "model" / "calibration.yaml").exists()


def test_a_training_image_saved_again_is_no_calibration_part(trained_model, tmp_path):
    model, data = trained_model
    roles = {image.name: image.role for image in read_image_records(model)}
    name = next(name for name in sorted(roles) if roles[name] == "trained" and name.startswith("good"))
    good = photographs(tmp_path / "good", *range(500, 530))
    Image.open(data / name).save(good / "new.tif")
    shutil.copytree(model, tmp_path / "model")
    before = (tmp_path / "model" / "calibration.yaml").read_bytes()
    with pytest.raises(DataError, match=r"new\.tif: the model was trained on it, perhaps under another name"):
        calibrate(tmp_path / "model", good=[good], config=ThresholdConfig(lenient=True))
    assert (tmp_path / "model" / "calibration.yaml").read_bytes() == before


def test_the_test_names_images_that_were_trained_on(trained_model, tmp_path, capsys):
    model, data = trained_model
    roles = {image.name: image.role for image in read_image_records(model)}
    trained = [name for name in sorted(roles) if roles[name] == "trained" and name.startswith("good")]
    good = photographs(tmp_path / "good", 600, 601)
    shutil.copy(data / trained[0], good / "same_file.png")
    Image.open(data / trained[-1]).save(good / "same_pixels.tif")
    arguments = ["--data", "Folder", "--data.good", str(data / "good"), "--data.test_good", str(good)]
    assert main(["test", "--model", str(model), *arguments, "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert "the model was trained on 2 test images, perhaps under another name" in said
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["trained_on"]
    assert sorted(Path(path).name for path in found) == ["same_file.png", "same_pixels.tif"]
    evaluation = evaluate(Detector.load(model, device="cpu"), Folder(good=data / "good", test_good=good).samples())
    cautions = find_cautions(evaluation, numbers_of(evaluation), record={}, findings=[], costs=None)
    assert cautions[0].level == "grave"
    assert "was trained on 2 test images" in cautions[0].text
    assert any("trained on 2 images of the golden set" in reason for reason in gate(evaluation, evaluation).reasons)
    own = evaluate(Detector.load(model, device="cpu"), trained_on(Detector.load(model).record, model).samples())
    assert own.trained_on == []


# --- parts with bad photographs ----------------------------------------------------------------------------------


def every_part_defective(folder: Path, parts: int = 10, good: int = 3) -> list[Sample]:
    samples = []
    for part in range(parts):
        for view in range(good + 1):
            photographs(folder, 10 * part + view)
            samples.append(sample(folder / f"{10 * part + view}.png", int(view == good), group=f"part {part}"))
    return samples


def test_where_every_part_is_defective_whole_parts_are_held_out(tmp_path):
    samples = every_part_defective(tmp_path)
    held = hold_out(samples, 0.2, seed=0)
    assert len(held) == 8  # two parts of four photographs
    assert all({place - place % 4 + view for view in range(4)} <= held for place in held)
    assert hold_out(samples, 0.2, seed=0, bad_parts=False) == set()  # as version 0.1 did
    assert choose_held_out(samples, {}, 0.2, 0).bad_calibrate
    assert not choose_held_out(samples, {}, 0.7, 0).bad_calibrate  # three bad ones are left to train on
    clean = [*samples, *(sample(tmp_path / f"good {i}.png") for i in range(20))]
    held = hold_out(clean, 0.2, seed=0)
    assert all(clean[place].group is None for place in held)  # parts without a bad image suffice
    assert len(held) == 10


@pytest.mark.parametrize("fraction", [0.2, 0.7])
def test_a_training_on_defective_parts_has_a_guarantee(tmp_path, capsys, fraction):
    samples = every_part_defective(tmp_path / "images")
    trainer = TrainerConfig(max_steps=1, accelerator="cpu", holdout_fraction=fraction)
    train(Given(*samples), output=tmp_path / "model", model=MODEL, trainer=trainer)
    said = capsys.readouterr().err
    calibration = read_calibration(tmp_path / "model")
    parts = {0.2: 2, 0.7: 7}[fraction]
    assert (calibration.parts, calibration.images) == (parts, 3 * parts)
    assert calibration.max_escapes is None  # photographs of the same parts set the threshold
    roles = Counter((image.name.endswith("3.png"), image.role) for image in read_image_records(tmp_path / "model"))
    if fraction == 0.2:
        assert "their 6 good images calibrate, their 2 bad images estimate escapes" in said
        assert calibration.bad_parts == 2
        assert f"{calibration.escapes} of 2 bad parts at hand were called good" in calibration.guarantee()
        assert roles == {(False, "held-out"): 6, (True, "held-out"): 2, (False, "trained"): 24, (True, "trained"): 8}
    else:
        assert "their 7 bad images are left out, because too few others are there to train on" in said
        assert calibration.bad_parts == 0
        assert roles == {(False, "held-out"): 21, (True, "left-out"): 7, (False, "trained"): 9, (True, "trained"): 3}


# --- held-out images calibrate, and do nothing else --------------------------------------------------------------


def held_out_digests(model: Path) -> set[str]:
    return {image.pixels for image in read_image_records(model) if image.role == "held-out" and "bad" not in image.name}


def test_nothing_is_chosen_by_held_out_images(trained_model, tmp_path, monkeypatch):
    """Scale of the features, scale of the scores, shift of the map: what they receive, by the pixels of the images."""
    _, data = trained_model
    gathered, received = [], defaultdict(set)

    def gather(*args, **kwargs):
        gathered.append(train_module_gather(*args, **kwargs))
        return gathered[-1]

    def note(module, name, rows_of):
        function = getattr(module, name)

        def noting(*args, **kwargs):
            received[name].update(rows_of(args))
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, noting)

    train_module_gather = run_module.gather_training_set
    monkeypatch.setattr(run_module, "gather_training_set", gather)
    note(run_module, "measure_feature_scale", lambda args: args[1])
    note(subspace_fit, "measure_moments", lambda args: args[1])
    note(train_module, "measure_score_scale", lambda args: [r for rows in args[2] for r in rows])
    note(map_shift_module, "painted_images", lambda args: args[0])
    source = Folder(good=data / "good", bad=data / "bad", bad_train_fraction=0.5)
    train(source, output=tmp_path / "model", model=MODEL, trainer=TrainerConfig(max_steps=1, accelerator="cpu"))
    (training_set,) = gathered
    painted_on = {training_set.facts[path].pixels for path in received.pop("painted_images")}
    held_out = held_out_digests(tmp_path / "model")
    assert len(held_out) >= 2
    for rows in received.values():
        tiles = [training_set.labels.tiles[training_set.source.flip_index.image[row]] for row in rows]
        digests = {training_set.facts[training_set.training[tile.sample].image].pixels for tile in tiles}
        assert len(digests) > 5
        assert not digests & held_out
    assert len(received) == 3
    assert painted_on == digests


def test_scores_are_not_compared_by_held_out_images(trained_model, tmp_path, monkeypatch):
    """What a person chooses the deciding score by: good images that were trained on, and none that calibrates."""
    model, _ = trained_model
    received = []

    def note(detector, samples, **how):
        received.append({pixels_of(sample.image) for sample in samples})
        assert {sample.label for sample in samples} == {0}
        return score_images(detector, samples, **how)

    def pixels_of(path: Path) -> str:
        return images_module.pixel_digest(np.asarray(Image.open(path).convert("RGB")))

    shutil.copytree(model, tmp_path / "model")
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
        (tmp_path / "bad").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "bad" / f"{number}.png")
    monkeypatch.setattr(calibrate_module, "score_images", note)
    config = ThresholdConfig(lenient=True)
    found = calibrate_module.calibrate(tmp_path / "model", bad=[tmp_path / "bad"], config=config).comparison
    (digests,) = received
    trained = {image.pixels for image in read_image_records(model) if image.role == "trained"}
    assert len(digests) > 5
    assert digests <= trained
    assert not digests & held_out_digests(model)
    assert found.why_calibrating is None
    assert (found.good_parts, found.bad_parts) == (len(digests), 3)


def test_int8_is_not_chosen_by_held_out_images(trained_model, monkeypatch):
    model, _ = trained_model
    detector = Detector.load(model, device="cpu")
    read = []
    decode = images_module.decode
    monkeypatch.setattr(images_module, "decode", lambda path, **how: read.append(path) or decode(path, **how))
    chosen = quantization_images(model, detector.record, [], Preprocessor.stretch(SIZE), on_error="stop")
    digests = {images_module.pixel_digest(np.asarray(Image.open(str(path)).convert("RGB"))) for path in read}
    assert len(chosen.labels) == len(read) > 8
    assert 0 < sum(chosen.labels) <= 2
    assert not digests & held_out_digests(model)


@pytest.mark.slow
def test_an_int8_export_reads_no_held_out_image(trained_model, tmp_path, monkeypatch):
    model, _ = trained_model
    read = set()
    decode = images_module.decode
    monkeypatch.setattr(images_module, "decode", lambda path, **how: read.add(str(path)) or decode(path, **how))
    monkeypatch.setattr(
        export, "recalibrate", lambda *arguments, **options: None
    )  # which is what held-out images are for
    export.export_model(model, tmp_path / "f.onnx", file_format="onnx", precision="int8", max_drop=0.9)
    digests = {images_module.pixel_digest(np.asarray(Image.open(path).convert("RGB"))) for path in read}
    assert len(digests) > 8
    assert not digests & held_out_digests(model)


def test_int8_measures_on_images_of_their_own_where_there_are_enough():
    few = QuantizationImages(prepared=[], labels=[0] * 40 + [1] * 3)
    assert few.shares == (range(43), range(43))
    many = QuantizationImages(prepared=[], labels=[0] * 80 + [1] * 5)
    ranges, measured = many.shares
    assert sorted([*ranges, *measured]) == list(range(85))
    assert {many.labels[place] for place in measured} == {many.labels[place] for place in ranges} == {0, 1}
