"""The published protocol: each ingredient against the authors' plain steps, defaults, the list of deviations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch.nn import functional as F

from supersimplenet import Detector
from supersimplenet.benchmark.config import AccuracyConfig
from supersimplenet.benchmark.protocol import default_protocol, deviations, protocol_settings, with_protocol
from supersimplenet.benchmark.published_order import plain_dilation, plain_weight
from supersimplenet.cli.main import main
from supersimplenet.datasets.regions import count_lost_regions
from supersimplenet.errors import ConfigError
from supersimplenet.export.export import export_model
from supersimplenet.inference.import_weights import import_weights
from supersimplenet.inference.model_folder import save_model
from supersimplenet.metrics.anomalib_overlap import ANOMALIB_AUPRO
from supersimplenet.metrics.pixels import PixelTally, region_overlap
from supersimplenet.model.config import ModelConfig, Recipe, resolve_recipe
from supersimplenet.preprocessing.geometry import Placement
from supersimplenet.preprocessing.images import read_image
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig
from supersimplenet.preprocessing.resizing import bilinear_pixels, bilinear_plane, nearest_plane
from supersimplenet.runtime import Inspector
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.pixel_labels import read_pixel_labels
from supersimplenet.types import BAD, Sample
from supersimplenet.utils.serialization import to_plain
from tests.networks import unsettled

SIZE = (64, 96)
BILINEAR = ViewConfig(resize="bilinear")
SIZES = [
    ((1000, 701), (256, 256)),
    ((512, 512), (256, 256)),
    ((640, 230), (640, 232)),
    ((33, 57), (64, 96)),
    ((9, 1), (4, 7)),
]


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (150, 210, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photograph.png")
    return tmp_path / "photograph.png"


def opencv(pixels: np.ndarray, size_px: tuple[int, int], interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    return cv2.resize(pixels, size_px[::-1], interpolation=interpolation)


# --- resizing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_images_are_resized_as_opencv_does(old, new):
    pixels = np.random.default_rng(1).integers(0, 256, (*old, 3), dtype=np.uint8)
    difference = np.abs(bilinear_pixels(pixels, new).astype(int) - opencv(pixels, new).astype(int))
    assert difference.max() <= 1
    assert (
        difference.mean() < 0.02
    )  # OpenCV's vector code leaves the last pixels of a row to code that rounds otherwise


def test_a_resize_by_hand():
    """From 4 pixels to 2: centres 0.5 and 2.5, so the means of the first two and of the last two; to 1: 1.5."""
    row = np.array([[[10], [30], [100], [201]]], dtype=np.uint8)
    assert bilinear_pixels(row, (1, 2)).ravel().tolist() == [20, 151]  # 150.5 is rounded up
    assert bilinear_pixels(row, (1, 1)).ravel().tolist() == [65]  # not the mean of all four, which is 85
    assert nearest_plane(row[..., 0], (1, 3)).ravel().tolist() == [10, 30, 100]  # at 0, 1.33 and 2.67


@pytest.mark.parametrize(("old", "new"), SIZES)
def test_planes_are_resized_as_opencv_and_torch_do(old, new):
    plane = np.random.default_rng(2).random(old, dtype=np.float32)
    assert np.array_equal(nearest_plane(plane, new), opencv(plane, new, cv2.INTER_NEAREST))
    by_torch = F.interpolate(torch.from_numpy(plane)[None, None], size=new, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(bilinear_plane(plane, new), by_torch[0, 0].numpy(), atol=1e-4)  # torch's places: float32


@pytest.mark.parametrize("view", [BILINEAR, ViewConfig(resize="bilinear", fit="tiles", scale=0.5)])
def test_a_file_and_its_pixels_are_resized_alike(photograph, view):
    whole = read_image(photograph)
    preprocessor = Preprocessor(view, size_px=SIZE)
    size_px = SIZE if view.fit == "stretch" else (75, 105)
    for image in (photograph, whole):
        prepared = preprocessor.prepare(image)
        assert np.array_equal(prepared.pixels, bilinear_pixels(whole, size_px))
        assert prepared.layout.placement.resize == "bilinear"
    of_facts = preprocessor.prepare(photograph, with_facts=True)
    assert np.array_equal(of_facts.pixels, prepared.pixels)
    assert of_facts.facts.size_px == (150, 210)
    usual = Preprocessor(replace(view, resize="antialiased"), size_px=SIZE).prepare(photograph).pixels
    assert np.array_equal(usual, read_image(photograph, size_px=size_px))
    assert not np.array_equal(usual, prepared.pixels)


def test_a_resize_that_is_none():
    with pytest.raises(ConfigError, match=r"view\.resize: 'nearest'; choose antialiased, bilinear"):
        ViewConfig(resize="nearest")


# --- masks ------------------------------------------------------------------------------------------------------------


def bad_sample(folder: Path, mask: np.ndarray) -> Sample:
    Image.fromarray(np.zeros((*mask.shape, 3), np.uint8)).save(folder / "bad.png")
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(folder / "mask.png")
    return Sample(image=folder / "bad.png", label=BAD, split="train", mask=folder / "mask.png")


@pytest.mark.parametrize("variant", ["jims", "icpr"])
def test_training_masks_take_the_authors_two_steps(tmp_path, variant):
    """The nearest pixel at the network's input size, then torch's interpolation, defective from one half on."""
    mask = np.zeros((130, 170), bool)
    mask[20:47, 31:80] = mask[90:93, 100:140] = mask[60, 60] = True
    recipe = resolve_recipe(protocol_settings("published").recipe, "full", variant=variant)
    size = (16, 24)
    preprocessor = Preprocessor(BILINEAR, size_px=SIZE)
    labels, _ = read_pixel_labels([bad_sample(tmp_path, mask)], recipe, size, preprocessor=preprocessor)

    def theirs(plane: np.ndarray) -> np.ndarray:
        on_input = torch.from_numpy(opencv(plane.astype(np.float32), SIZE, cv2.INTER_NEAREST))
        return F.interpolate(on_input[None, None], size=size, mode="bilinear", align_corners=False)[0, 0].numpy()

    widened = plain_dilation(mask, 7 if variant == "jims" else 1)
    assert np.array_equal(labels.defective[0].numpy(), theirs(widened) >= 0.5)
    assert labels.counted.all()
    if variant == "jims":
        np.testing.assert_allclose(labels.weight[0].numpy(), theirs(plain_weight(widened)), atol=1e-5)
    else:
        assert labels.weight is None
    averaged, _ = read_pixel_labels([bad_sample(tmp_path, mask)], recipe, size, preprocessor=Preprocessor.stretch(SIZE))
    if variant == "icpr":
        assert not torch.equal(averaged.defective, labels.defective)


def test_one_tile_of_the_whole_image_has_the_labels_of_the_image(tmp_path):
    mask = np.zeros(SIZE, bool)
    mask[9:31, 40:77] = True
    recipe = resolve_recipe(protocol_settings("published").recipe, "full", variant="jims")
    sample = bad_sample(tmp_path, mask)
    plain, padded = (
        read_pixel_labels([sample], recipe, (16, 24), preprocessor=Preprocessor(view, size_px=SIZE))[0]
        for view in (BILINEAR, ViewConfig(resize="bilinear", fit="pad"))
    )
    assert torch.equal(plain.defective, padded.defective)
    torch.testing.assert_close(plain.weight, padded.weight)


def test_test_masks_are_the_nearest_pixels_and_lost_regions_those_that_none_shows():
    mask = np.zeros((64, 64), bool)
    mask[8, 8] = mask[21:23, 21:23] = True  # on a map of every fourth pixel the first is seen, the second is not
    placement = replace(Placement.whole((16, 16), (64, 64)), resize="bilinear")
    on_map = placement.defects_on_map(mask)
    assert np.array_equal(on_map, opencv(mask.astype(np.uint8), (16, 16), cv2.INTER_NEAREST) > 0)
    assert np.argwhere(on_map).tolist() == [[2, 2]]
    assert count_lost_regions(mask, placement, on_map) == 1
    assert not Placement.whole((16, 16), (64, 64)).defects_on_map(mask).any()


# --- a setting of the model -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_official_weights_bring_their_resize_which_travels_to_exports_and_the_runtime(tmp_path, photograph):
    network = unsettled(SIZE)
    names = {"adaptor": "feature_adaptor.projection", "score": "discriminator.fc_score"}
    names |= {"hidden": "discriminator.seg.0", "hidden_norm": "discriminator.seg.1", "map": "discriminator.seg.3"}
    names |= {"conv": "discriminator.dec_head.0", "conv_norm": "discriminator.dec_head.1"}
    theirs = {}
    for name, value in network.heads.state_dict().items():
        layer, parameter = name.split(".")
        theirs[f"{names[layer]}.{parameter}"] = value
    torch.save(theirs, tmp_path / "weights.pt")
    import_weights(tmp_path / "weights.pt", source="official", config=network.config, output=tmp_path / "model")

    by_hand = bilinear_pixels(read_image(photograph), SIZE)
    detector = Detector.load(tmp_path / "model", device="cpu")
    (wanted,) = Detector(network, device="cpu").predict([by_hand])  # of the network's size, so not resized
    (found,) = detector.predict([photograph])
    assert found.head_logit == pytest.approx(wanted.head_logit, abs=1e-5)
    np.testing.assert_allclose(found.map_logit, wanted.map_logit, atol=1e-5)
    (antialiased,) = Detector(network, device="cpu").predict([photograph])
    assert abs(antialiased.head_logit - wanted.head_logit) > 1e-3

    export_model(tmp_path / "model", tmp_path / "model.onnx", file_format="onnx", images=[photograph])
    inspector = Inspector.load(tmp_path / "model.onnx")
    assert inspector.inspect(photograph).head_logit == pytest.approx(wanted.head_logit, abs=1e-4)
    assert inspector.bundle.view["resize"] == "bilinear"
    assert "cv2.INTER_LINEAR" in inspector.bundle.preprocessing["before_the_graph"]


# --- AUPRO ------------------------------------------------------------------------------------------------------------


def plain_anomalib_aupro(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """Its steps, one region and one threshold after the other."""
    regions, total = np.zeros(masks.shape, int), 0
    for number, mask in enumerate(masks):
        found, count = ndimage.label(mask, np.ones((3, 3)))
        regions[number] = np.where(found > 0, found + total, 0)
        total += count

    def roc(score: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(-score, kind="stable")
        last = np.append(np.flatnonzero(np.diff(score[order])), score.size - 1)
        hits = np.cumsum(target[order])[last]
        alarms = 1 + last - hits
        return np.append(0, alarms) / alarms[-1], np.append(0, hits) / hits[-1]

    score, region = maps.ravel(), regions.ravel()
    size = int((roc(score, region > 0)[0] <= limit).sum())
    alarms, hits = np.zeros(size), np.zeros(size)
    for number in range(1, total + 1):
        used = (region == 0) | (region == number)
        rate, overlap = roc(score[used], region[used] == number)
        end = int(np.searchsorted(rate, limit, side="right"))
        new, slope = np.arange(size, dtype=float), None
        if not np.isclose(rate[end - 1], limit):
            slope = (limit - rate[end - 1]) / (rate[end] - rate[end - 1])
            end += 1
        old = np.arange(end) / (end - 1) * (size - 1)
        if slope is not None:
            new[-1] = old[-2] + (old[-1] - old[-2]) * slope
        alarms += np.interp(new, old, rate[:end]) / total
        hits += np.interp(new, old, overlap[:end]) / total
    return float(np.sum(np.diff(alarms) * (hits[1:] + hits[:-1]) / 2) / alarms[-1])


@pytest.mark.parametrize("seed", range(3))
def test_anomalibs_aupro_is_its_plain_steps(seed):
    rng = np.random.default_rng(seed)
    masks = np.zeros((4, 64, 64), bool)
    for mask in masks[:3]:
        for _ in range(3):
            (y, x), (height, width) = rng.integers(0, 40, 2), rng.integers(2, 24, 2)
            mask[y : y + height, x : x + width] = True
    maps = (rng.normal(size=masks.shape) + masks * rng.normal(1.5, 1, (4, 1, 1))).astype(np.float32)
    tally, rest = PixelTally(keep_regions=True), PixelTally(keep_regions=True)
    for place, (one, mask) in enumerate(zip(maps, masks, strict=True)):
        (tally if place < 2 else rest).add(one, mask)
    tally.merge(rest)
    plain = plain_anomalib_aupro(maps, masks)
    assert tally.anomalib_aupro().value == pytest.approx(plain, abs=3e-5)  # bins are 1/2048 of a score wide
    assert abs(region_overlap(maps, masks).value - plain) > 4e-4


def test_anomalibs_aupro_without_a_region_says_why():
    tally = PixelTally(keep_regions=True)
    tally.add(np.zeros((4, 4), np.float32), np.zeros((4, 4), bool))
    assert tally.anomalib_aupro().reason == "0 defective regions, 16 normal pixels; wanted at least one of each"


# --- the protocol -----------------------------------------------------------------------------------------------------


def test_the_published_settings_and_where_they_are_the_default():
    published = protocol_settings("published")
    assert published.trainer == TrainerConfig(holdout_fraction=0)
    assert published.view == ViewConfig(resize="bilinear")
    recipe = {"noise_std": 0.015, "flips": "published", "sampling": "published", "most_repeats": 1}
    assert published.recipe == Recipe(**recipe, small_regions="drop", image_score="head", map_shift_px=(0, 0))
    ours = protocol_settings("ours")
    assert (ours.view, ours.recipe, ours.trainer) == (ViewConfig(), Recipe(), TrainerConfig())
    assert {name: default_protocol(name) for name in ("MVTecAD", "VisA", "KSDD2", "SensumSODF", "Folder", "Table")} == {
        **dict.fromkeys(("MVTecAD", "VisA", "KSDD2", "SensumSODF"), "published"),
        **dict.fromkeys(("Folder", "Table"), "ours"),
    }
    with pytest.raises(ConfigError, match="protocol: 'papers'; choose published, ours"):
        AccuracyConfig(protocol="papers")


PUBLISHED = ["--protocol", "published", "--view.resize", "bilinear", "--recipe.noise_std", "0.015"]
PUBLISHED += ["--recipe.flips", "published", "--recipe.sampling", "published", "--recipe.most_repeats", "1"]
PUBLISHED += ["--recipe.small_regions", "drop", "--recipe.image_score", "head", "--recipe.map_shift_px", "[0, 0]"]
PUBLISHED += ["--trainer.holdout_fraction", "0.0"]


@pytest.mark.parametrize(
    ("typed", "first"),
    [
        (["--data", "KSDD2", "--trainer.holdout_fraction", "0.2"], PUBLISHED),
        (["--data=supersimplenet.datasets.visa.VisA"], PUBLISHED),
        (["--data", "Table"], ["--protocol", "ours"]),
        (["--data", "Table", "--protocol", "published"], PUBLISHED),
        (["--data", "KSDD2", "--protocol=ours"], ["--protocol", "ours"]),
        (["--data", "data.yaml"], []),
        (["--data", "KSDD2", "--protocol", "papers"], []),
    ],
)
def test_the_protocols_options_come_before_those_that_were_typed(typed, first):
    assert with_protocol(typed) == [*first, *typed]


def test_a_protocol_that_cannot_be_told(tmp_path, capsys):
    described = f'{{"class_path": "KSDD2", "init_args": {{"root": "{tmp_path}"}}}}'
    assert main(["benchmark", "accuracy", "--data", described, "--output", str(tmp_path / "out")]) == 2
    assert "protocol: not given, and --data does not name the dataset; say published or ours" in capsys.readouterr().err


def line(dataset: str, regime: str, protocol: str, **changes: object) -> dict:
    settings = {"model": ModelConfig(), **vars(protocol_settings(protocol)), "time_budget": None}
    settings["aupro"] = "anomalib" if protocol == "published" else "exact"
    changed = dict(changes)
    vanishing = changed.pop("vanishing_images", 0)
    for name, value in changed.items():
        group, _, field = name.partition("__")
        settings[group] = replace(settings[group], **{field: value}) if field else value
    size = [640, 232] if dataset == "KSDD2" else [256, 256]
    plain = {"dataset": dataset, "regime": regime, "image_size": size, "vanishing_images": vanishing}
    return {**plain, "settings": to_plain(settings)}


FLIPPED_LATER = "masks of flipped images resized before the flip instead of after it"


@pytest.mark.parametrize(
    ("of_line", "wanted"),
    [
        (line("MVTecAD", "unsupervised", "published"), []),
        (line("Table", "full", "ours"), []),
        (line("VisA", "unsupervised", "published", recipe__perlin_threshold=0.6), []),
        (
            line("VisA", "unsupervised", "published", recipe__perlin_threshold=0.2),
            ["recipe.perlin_threshold 0.2 instead of 0.6"],
        ),
        (line("MVTecAD", "unsupervised", "published", model__variant="icpr", trainer__num_workers=2), []),
        (line("KSDD2", "full", "published"), [FLIPPED_LATER]),
        (line("KSDD2", "weak", "published"), ["weak: good images train the anomaly map instead of only the score"]),
        (
            line("MVTecAD", "unsupervised", "ours"),
            [
                "view.resize antialiased instead of bilinear",
                "recipe.sampling even instead of published",
                "recipe.map_shift_px auto instead of [0, 0]",
                "trainer.holdout_fraction 0.2 instead of 0",
                "AUPRO by every threshold instead of anomalib's way",
            ],
        ),
        (
            line("KSDD2", "full", "ours"),
            [
                "view.resize antialiased instead of bilinear",
                "recipe.flips symmetric instead of published",
                "recipe.sampling even instead of published",
                "recipe.most_repeats 4 instead of 1",
                "recipe.small_regions keep instead of drop",
                "recipe.map_shift_px auto instead of [0, 0]",
                "trainer.holdout_fraction 0.2 instead of 0",
                "AUPRO by every threshold instead of anomalib's way",
            ],
        ),
        (
            line(
                "MVTecAD",
                "unsupervised",
                "published",
                model__backbone="compact",
                recipe__noise_std="auto",
                recipe__batch_size=8,
                recipe__lr_milestones=(0.5,),
                trainer__max_epochs=40,
                time_budget="10m",
                vanishing_images=3,
            ),
            [
                "model.backbone compact instead of wide_resnet50_2.tv_in1k",
                "recipe.batch_size 8 instead of 32",
                "recipe.noise_std auto instead of 0.015",
                "recipe.lr_milestones [0.5] instead of [0.8, 0.9]",
                "trainer.max_epochs 40 instead of 300",
                "time_budget 10m instead of none",
                "3 test images whose mask vanishes in the resize left out of pixel metrics instead of counted as "
                "normal",
            ],
        ),
    ],
)
def test_each_deviation_is_listed(of_line, wanted):
    assert deviations([of_line]) == wanted


def test_runs_of_versions_that_moved_no_map_do_not_deviate_in_it():
    earlier = line("MVTecAD", "unsupervised", "published")
    del earlier["settings"]["recipe"]["map_shift_px"]
    assert deviations([earlier]) == []


def test_a_size_is_a_deviation_unless_it_is_the_datasets_own():
    of_line = line("MVTecAD", "unsupervised", "published", model__image_size=(256, 256))
    assert deviations([of_line]) == []
    other = {**of_line, "image_size": [320, 256]}
    assert deviations([other]) == ["model.image_size 320x256 instead of the dataset's own"]


def test_the_test_command_gives_anomalibs_aupro_beside_the_definition(tmp_path):
    mask = np.zeros((40, 50), bool)
    mask[10:20, 10:30] = True
    sample = replace(bad_sample(tmp_path, mask), split="test")
    Image.fromarray(np.full((40, 50, 3), 90, np.uint8)).save(tmp_path / "good.png")
    rows = [f"{tmp_path / 'good.png'},test,good,", f"{sample.image},test,bad,{sample.mask}"]
    (tmp_path / "parts.csv").write_text("\n".join(["image,split,label,mask", *rows]) + "\n")
    save_model(tmp_path / "model", unsettled(SIZE), {})
    data = ["--data", "Table", "--data.path", str(tmp_path / "parts.csv"), "--device", "cpu"]
    assert main(["test", "--model", str(tmp_path / "model"), *data, "--anomalib-aupro"]) == 0
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert metrics[ANOMALIB_AUPRO] == pytest.approx(metrics["AUPRO"], abs=1e-3)  # of one region it is the same
    assert main(["test", "--model", str(tmp_path / "model"), *data]) == 0
    assert ANOMALIB_AUPRO not in json.loads((tmp_path / "model" / "metrics.json").read_text())
