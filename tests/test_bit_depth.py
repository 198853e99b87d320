"""Sensor bits: 10 or 12 bits in 16-bit values keep their grey levels, by a range that the training fixes."""

from __future__ import annotations

import base64
import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image
from zoo import HEIGHT, plain_tiff

from supersimplenet import Detector, Folder, ModelConfig, Table, ViewConfig, train
from supersimplenet.cli.main import main
from supersimplenet.datasets.bit_depth import decide_reading, unused_range
from supersimplenet.datasets.checks.check import check
from supersimplenet.datasets.masks import read_defects, read_ignored
from supersimplenet.datasets.parts import digest_possible_copies
from supersimplenet.datasets.splits import hold_out
from supersimplenet.errors import ConfigError, DataError, ImageError, ModelFolderError
from supersimplenet.evaluation.evaluate import evaluate, evaluate_again
from supersimplenet.inference.model_folder import load_preprocessor
from supersimplenet.prediction.inputs import find_inputs
from supersimplenet.preprocessing.decoding import EncodedImage
from supersimplenet.preprocessing.images import prepare_pixels, read_any, read_image, read_mask
from supersimplenet.preprocessing.preprocessor import read_preprocessor
from supersimplenet.preprocessing.reading import ReadConfig
from supersimplenet.report.thumbnails import draw_picture
from supersimplenet.training.config import TrainerConfig
from supersimplenet.types import BAD, GOOD, Sample

SIZE = (64, 64)
TWELVE = ReadConfig(bit_depth=12)
RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)  # each value of 12 bits once
BY_HAND = np.floor(RAMP.astype(np.float64) * 255 / 4095 + 0.5).astype(np.uint8)


def save(path: Path, values: np.ndarray) -> Path:
    """Write 16-bit grey levels as they are, by another library than the package reads them with."""
    assert cv2.imwrite(str(path), values)
    return path


def in_archive(path: Path) -> Path:
    with tarfile.open(path.with_suffix(".tar"), "w") as archive:
        archive.add(path, path.name)
    return path.with_suffix(".tar")


# --- one conversion ----------------------------------------------------------------------------------------------


def test_the_same_twelve_bits_give_the_same_256_levels_from_every_source(tmp_path):
    png = save(tmp_path / "ramp.png", RAMP)
    tifffile.imwrite(tmp_path / "ramp.tif", RAMP, photometric="minisblack")
    (tmp_path / "ramp.pgm").write_bytes(b"P5 64 64 65535\n" + RAMP.astype(">u2").tobytes())
    (member,) = find_inputs([str(in_archive(png))])
    with Image.open(png) as unread, Image.open(png) as loaded:
        loaded.load()
        sources = {
            "png": png,
            "tiff": tmp_path / "ramp.tif",
            "pgm": tmp_path / "ramp.pgm",
            "archive": member,
            "array": RAMP,
            "colours": np.dstack([RAMP] * 3),
            "opened": unread,
            "loaded": loaded,
        }
        found = {name: read_any(image, reading=TWELVE)[0] for name, image in sources.items()}
    for name, pixels in found.items():
        np.testing.assert_array_equal(pixels, np.dstack([BY_HAND] * 3), err_msg=name)
    assert len(np.unique(BY_HAND)) == 256
    assert len(np.unique(read_image(png))) == 17  # without: a sixteenth of the levels


@pytest.mark.parametrize("bits", range(8, 17))
def test_every_value_is_rounded_over_its_range(bits):
    values = np.arange(2**bits, dtype=np.uint16)[None]
    exact = values.astype(np.float64) * 255 / (2**bits - 1)
    found = prepare_pixels(values, reading=ReadConfig(bit_depth=bits))[:, :, 0]
    assert np.abs(found - exact).max() < 0.5
    assert (found.min(), found.max()) == (0, 255)


def test_files_that_say_their_range_keep_it_in_a_dataset_of_ten_bits(tmp_path):
    ten = ReadConfig(bit_depth=10)
    twelve = RAMP[:HEIGHT, :10] * np.uint16(4)
    packed = b"".join(imagecodecs.packints_encode(row, 12) for row in twelve)
    (tmp_path / "12-bits.tif").write_bytes(plain_tiff(packed, bits=(12,), width=10))
    (tmp_path / "12-bits.pgm").write_bytes(b"P5 64 64 4095\n" + RAMP.astype(">u2").tobytes())
    save(tmp_path / "8-bits.png", BY_HAND)
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(read_image(path, reading=ten), read_image(path), err_msg=path.name)
        with Image.open(path) as loaded:
            if path.suffix != ".pgm":  # Pillow scales it, and keeps no note of that
                loaded.load()
                np.testing.assert_array_equal(read_any(loaded, reading=ten)[0], read_image(path), err_msg=path.name)
    np.testing.assert_array_equal(read_image(tmp_path / "12-bits.pgm")[..., 0], BY_HAND)


def test_transparency_has_all_sixteen_bits(tmp_path):
    alpha = np.full((64, 64), 65535, dtype=np.uint16)
    alpha[:, :32] = 0
    path = save(tmp_path / "alpha.png", np.dstack([RAMP] * 3 + [alpha]))
    wanted = np.where(np.arange(64) < 32, 0, BY_HAND)
    np.testing.assert_array_equal(read_image(path, reading=TWELVE)[..., 0], wanted)


@pytest.mark.parametrize("kind", ["file", "array", "PIL", "archive"])
def test_a_value_above_the_range_is_refused_by_name(kind, tmp_path):
    values = RAMP + np.uint16(917)  # 5,012 at most
    path = save(tmp_path / "part.png", values)
    image = {
        "file": lambda: path,
        "array": lambda: values,
        "PIL": lambda: Image.open(path),
        "archive": lambda: EncodedImage("line.tar/part.png", path.read_bytes),
    }[kind]()
    message = r"a value of 5,012 is above the 12 bits \(at most 4,095\) that .* train with --data.bit_depth 13$"
    with pytest.raises(ImageError, match=message) as error:
        read_any(image, reading=TWELVE)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith({"array": "array: ", "archive": "line.tar/part.png: "}.get(kind, f"{path}: "))
    read_any(path if kind == "PIL" else image, reading=ReadConfig(bit_depth=13))


# --- masks and regions of interest -------------------------------------------------------------------------------


def test_masks_are_cut_at_half_of_the_datasets_range(tmp_path):
    twelve = save(tmp_path / "twelve.png", RAMP)
    np.testing.assert_array_equal(read_mask(twelve, image_size_px=None, reading=TWELVE), RAMP >= 2048)
    assert not read_mask(twelve, image_size_px=None).any()
    full = save(tmp_path / "full.png", RAMP * np.uint16(16))  # above the 12 bits: a mask of the whole range
    np.testing.assert_array_equal(read_mask(full, image_size_px=None, reading=TWELVE), RAMP >= 2048)
    eight = save(tmp_path / "eight.png", BY_HAND)
    np.testing.assert_array_equal(read_mask(eight, image_size_px=None, reading=TWELVE), BY_HAND >= 128)


def test_every_reader_of_masks_takes_the_range(tmp_path):
    image, mask = save(tmp_path / "part.png", RAMP), save(tmp_path / "mask.png", np.where(RAMP > 3000, 4095, 0))
    sample = Sample(image=image, label=BAD, split="train", defect="dent", mask=mask, ignore=mask)
    assert read_defects(sample, reading=TWELVE).sum() == 1095
    assert read_ignored(sample, reading=TWELVE).sum() == 1095


def test_region_of_interest_and_reference_have_the_range(tmp_path):
    roi = save(tmp_path / "roi.png", np.where(RAMP > 3000, 4095, 0).astype(np.uint16))
    reference = save(tmp_path / "reference.png", RAMP)
    config = ViewConfig(roi=roi, reference=reference, align="translation")
    made = read_preprocessor(config, size_px=SIZE, reading=TWELVE, strides=(8, 16), drawn_on=SIZE)
    assert made.roi.sum() == 1095
    np.testing.assert_array_equal(made.aligner.reference[..., 0], BY_HAND)


# --- data sets ---------------------------------------------------------------------------------------------------


def values_of(seed: int, highest: int = 3000) -> np.ndarray:
    """Return a part of 12 bits: noise around a grey, as a camera gives it, and its highest value at one pixel."""
    values = np.random.default_rng(seed).normal(1500, 60, SIZE).clip(0, highest).astype(np.uint16)
    values[0, 0] = highest
    return values


def with_defect(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, mask = values.copy(), np.zeros(SIZE, dtype=np.uint16)
    values[20:36, 24:40] = 2900
    mask[20:36, 24:40] = 4095
    return values, mask


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    for name in ("good", "bad", "masks"):
        (root / name).mkdir()
    for number in range(10):
        save(root / "good" / f"{number}.png", values_of(number))
    for number in range(4):
        values, mask = with_defect(values_of(100 + number))
        save(root / "bad" / f"bad-{number}.png", values)
        save(root / "masks" / f"bad-{number}.png", mask)
    return root


def folder(parts: Path, **options: object) -> Folder:
    bad = {"bad": parts / "bad", "masks": parts / "masks", "bad_train_fraction": 0.5}
    return Folder(good=parts / "good", **bad | options)


@pytest.fixture(scope="module")
def model(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("models") / "model"
    train(
        folder(parts, bit_depth="auto"),
        output=output,
        model=ModelConfig(backbone="compact", image_size=SIZE),
        trainer=TrainerConfig(max_epochs=1, accelerator="cpu"),
    )
    return output


@pytest.mark.parametrize(
    ("highest", "bits"), [(200, 8), (255, 8), (256, 9), (1023, 10), (1024, 11), (4095, 12), (40000, 16)]
)
def test_auto_takes_the_next_number_of_bits_of_the_highest_value(highest, bits, tmp_path, capsys):
    images = [save(tmp_path / f"{value}.png", np.array([[0, value]], np.uint16)) for value in (highest // 2, highest)]
    images += [save(tmp_path / "8-bits.png", np.array([[255]], np.uint8)), tmp_path / "missing.png"]
    assert decide_reading(Folder(good=tmp_path, bit_depth="auto"), images).bit_depth == bits
    assert f"the highest is {highest:,}, so {bits} bits count" in capsys.readouterr().err


def test_auto_leaves_eight_bit_images_as_they_are(tmp_path, capsys):
    image = save(tmp_path / "8-bits.png", np.array([[255]], np.uint8))
    assert decide_reading(Folder(good=tmp_path, bit_depth="auto"), [image]) == ReadConfig()
    assert "there is none, so 16 bits count" in capsys.readouterr().err


def test_held_out_images_do_not_decide(tmp_path, capsys):
    good = tmp_path / "good"
    good.mkdir()
    for number in range(10):
        save(good / f"{number}.png", values_of(number, highest=1023))
    data = Folder(good=good, test_fraction=0, bit_depth="auto")
    samples = data.samples()
    chosen = hold_out(samples, TrainerConfig().holdout_fraction, 0)
    assert 0 < len(chosen) < 10
    for place in chosen:
        save(samples[place].image, values_of(place, highest=1700))
    with pytest.raises(ImageError, match="a value of 1,700 is above the 10 bits"):
        train(
            data,
            output=tmp_path / "model",
            model=ModelConfig(backbone="compact", image_size=SIZE),
            trainer=TrainerConfig(max_epochs=1, accelerator="cpu"),
        )
    assert "the highest is 1,023, so 10 bits count" in capsys.readouterr().err


@pytest.mark.parametrize("options", [{"bit_depth": 7}, {"bit_depth": 17}, {"page": -1}])
def test_a_wrong_option_is_refused(options, parts):
    with pytest.raises(ConfigError, match=f"{next(iter(options))}: .*; wanted"):
        folder(parts, **options)
    with pytest.raises(ConfigError, match="; wanted"):
        Table(path=parts / "table.csv", **options)


def test_the_mask_of_a_good_part_is_seen(parts, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    save(masks / "0.png", with_defect(values_of(0))[1])
    for bit_depth in (12, "auto"):
        with pytest.raises(DataError, match=r"marks a defect in .* which is good"):
            Folder(good=parts / "good", masks=masks, bit_depth=bit_depth).samples()


# --- what is said ------------------------------------------------------------------------------------------------


def test_a_quarter_of_the_range_is_the_limit():
    assert unused_range([100, 16384], 16) is None
    assert unused_range([100, 16383], 16) == (
        "no value of the 16-bit images is above 16,383, so at most 65 of 256 grey levels are left of 16 bits; "
        "--data.bit_depth 14 keeps more"
    )
    assert unused_range([1023], 12).endswith("--data.bit_depth 10 keeps more")
    assert unused_range([1024], 12) is None
    assert unused_range([3], 8) is None
    assert unused_range([], 16) is None


def test_the_check_names_option_and_value(parts, tmp_path, capsys):
    options = ["--data", "Folder", "--data.good", str(parts / "good"), "--data.bad", str(parts / "bad")]
    options += ["--data.masks", str(parts / "masks"), "--output", str(tmp_path)]
    assert main(["data", "check", *options]) == 0
    found = {finding["code"]: finding for finding in json.loads((tmp_path / "check.json").read_text())["findings"]}
    assert found["image-range"]["level"] == "warning"
    assert "--data.bit_depth 12 keeps more" in found["image-range"]["message"]
    assert len(found["image-range"]["evidence"]) == 14
    assert {"image-range.png", "mask-faint.png"} <= {path.name for path in tmp_path.iterdir()}
    for bit_depth in ("12", "auto"):
        assert main(["data", "check", *options, "--data.bit_depth", bit_depth]) == 0
        codes = {finding["code"] for finding in json.loads((tmp_path / "check.json").read_text())["findings"]}
        assert not codes & {"image-range", "mask-faint", "mask-empty"}, codes
    assert "the highest is 3,000, so 12 bits count" in capsys.readouterr().err


def test_the_check_names_images_above_the_range(parts):
    samples = folder(parts).samples()
    found = {finding.code: finding for finding in check(samples, reading=ReadConfig(bit_depth=11)).findings}
    assert "above the 11 bits" in found["image-unreadable"].evidence[0].detail


def test_a_training_warns(parts, tmp_path, capsys):
    train(
        Folder(good=parts / "good"),
        output=tmp_path / "model",
        model=ModelConfig(backbone="compact", image_size=SIZE),
        trainer=TrainerConfig(max_epochs=1, accelerator="cpu"),
    )
    assert "no value of the 16-bit images is above 3,000" in capsys.readouterr().err.replace("\n", " ")


# --- the model keeps its range -----------------------------------------------------------------------------------


def test_the_training_fixes_the_range_in_the_model(model):
    record = yaml.safe_load((model / "config.yaml").read_text())
    assert record["reading"] == {"bit_depth": 12, "page": None}
    assert record["data"]["init_args"]["bit_depth"] == "auto"
    assert record["training"]["bad_with_mask_images"] > 0  # 12-bit masks are not empty
    assert Detector.load(model, device="cpu").preprocessor.reading == TWELVE


def test_a_model_of_before_reads_the_full_range(model):
    detector = Detector.load(model, device="cpu")
    before = {name: value for name, value in detector.record.items() if name != "reading"}
    assert load_preprocessor(model, before, detector.network.config).reading == ReadConfig()
    with pytest.raises(ModelFolderError, match=r"config.yaml: reading.bit_depth: 'x'"):
        load_preprocessor(model, before | {"reading": {"bit_depth": "x"}}, detector.network.config)


def test_files_arrays_and_archives_score_alike(model, parts, tmp_path):
    path = Path(shutil.copy(parts / "bad" / "bad-0.png", tmp_path))
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    (member,) = find_inputs([str(in_archive(path))])
    detector = Detector.load(model, device="cpu")
    wanted = detector.predict(path)
    narrow = np.round(values * (255 / 4095)).astype(np.uint8)  # the 8-bit copy of the file
    for image in (values, Image.fromarray(values), member, narrow):
        np.testing.assert_array_equal(detector.predict(image).map_logit, wanted.map_logit)
    with pytest.raises(ImageError, match="above the 12 bits"):
        detector.predict(values * np.uint16(2))


def test_a_prepared_image_carries_its_range_to_other_processes(model):
    detector = Detector.load(model, device="cpu")
    sent = pickle.loads(pickle.dumps(detector.preprocessor.prepare(RAMP)))  # as between processes
    assert sent.layout.reading == TWELVE
    np.testing.assert_array_equal(sent.pixels[..., 0], BY_HAND)


def test_pictures_show_what_the_model_saw(model, parts):
    detector = Detector.load(model, device="cpu")
    path = parts / "good" / "0.png"
    prediction = detector.predict(path)
    brightness = 1500 * 255 / 4095
    for picture in (prediction.overlay(), prediction.overlay(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))):
        wide = np.asarray(picture.convert("L"))[: SIZE[0]]
        assert np.median(wide[:, picture.width // 2 - 20 : picture.width // 2 + 20]) > 0.7 * brightness
    samples = [Sample(image=path, label=GOOD, split="test")]
    (case,) = evaluate_again(detector, evaluate(detector, samples).outcomes)
    photograph = draw_picture(case, None)["photograph"].partition("base64,")[2]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(photograph))).convert("L"))
    assert shown.mean() == pytest.approx(brightness, abs=3)


def test_the_test_counts_masks_of_twelve_bits(model, tmp_path):
    assert main(["test", "--model", str(model), "--output", str(tmp_path), "--device", "cpu"]) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["images"]["bad_without_pixel_labels"] == 0


def test_another_range_than_the_models_is_refused(model, parts, capsys):
    options = ["test", "--model", str(model), "--data", "Folder", "--data.good", str(parts / "good")]
    assert main([*options, "--data.bit_depth", "10"]) == 2
    assert f"data.bit_depth: 10, and {model} was trained with 12; leave it out" in capsys.readouterr().err
    assert main([*options, "--data.page", "1"]) == 2
    assert f"data.page: 1, and {model} was trained with the largest" in capsys.readouterr().err


# --- pages -------------------------------------------------------------------------------------------------------


def test_a_page_of_a_tiff_travels_with_the_model(parts, tmp_path):
    good = tmp_path / "good"
    good.mkdir()
    for number in range(5):
        with tifffile.TiffWriter(good / f"{number}.tif") as file:
            file.write(np.zeros((96, 96), np.uint16), photometric="minisblack")  # the largest page, which says nothing
            file.write(values_of(number), photometric="minisblack")
    train(
        Folder(good=good, bit_depth=12, page=1),
        output=tmp_path / "model",
        model=ModelConfig(backbone="compact", image_size=SIZE),
        trainer=TrainerConfig(max_epochs=1, accelerator="cpu"),
    )
    detector = Detector.load(tmp_path / "model", device="cpu")
    wanted = detector.predict(values_of(0))
    with Image.open(good / "0.tif") as opened:
        for image in (good / "0.tif", opened):
            np.testing.assert_array_equal(detector.predict(image).map_logit, wanted.map_logit)
    assert detector.predict(good / "0.tif").placement.image_size_px == SIZE
    with pytest.raises(ImageError, match="has no page 1, as only a TIFF has pages"):
        detector.predict(parts / "good" / "0.png")


# --- copies ------------------------------------------------------------------------------------------------------


def test_copies_are_found_by_the_bits_that_count(tmp_path):
    near = np.full((8, 8), 100, dtype=np.uint16)  # of 65,535 both would be black
    images = [save(tmp_path / f"{number}.png", near + np.uint16(20 * number)) for number in (0, 1, 1)]
    images[2] = save(tmp_path / "copy.png", near + np.uint16(20))
    for bit_depth in (10, 12, "auto"):
        digests = digest_possible_copies(images, bit_depth=bit_depth)
        assert digests[images[1]] == digests[images[2]] != digests[images[0]], bit_depth
