"""Tiles: where they lie, that their maps fit together, and a training on them."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from supersimplenet import Detector, ModelConfig, Recipe, SuperSimpleNet, TrainerConfig, evaluate, train
from supersimplenet.datasets.base import DataSource
from supersimplenet.errors import DataError
from supersimplenet.export.graph import at_size
from supersimplenet.model.backbone import build_backbone
from supersimplenet.model.config import resolve_recipe
from supersimplenet.postprocessing.postprocessor import PostProcessor
from supersimplenet.prediction.predict import predict_files
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig
from supersimplenet.preprocessing.tiling import TileGrid
from supersimplenet.runtime.backends import FunctionBackend
from supersimplenet.runtime.predictor import Predictor
from supersimplenet.runtime.tiles import Outputs
from supersimplenet.training.config import CacheConfig
from supersimplenet.training.features import gather_features
from supersimplenet.training.pixel_labels import read_pixel_labels
from supersimplenet.types import BAD, GOOD, Sample

TILE = (64, 64)


def make_network(size_px: tuple[int, int], *, align_corners: bool) -> SuperSimpleNet:
    config = ModelConfig(backbone="compact", image_size=size_px, align_corners=align_corners)
    network = SuperSimpleNet(config, seed=1).eval()
    with torch.no_grad():  # statistics that are not the initial ones, so that maps are not nearly flat
        for name, buffer in network.heads.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(2))
    return network


@settings(max_examples=200, deadline=None)
@given(
    size=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    tile=st.sampled_from([(32, 32), (64, 48), (100, 64)]),
    overlap=st.floats(0, 0.75),
)
def test_tiles_cover_the_map_and_their_weights_add_up_to_one(size, tile, overlap):
    grid = TileGrid.of(size, tile, overlap=overlap, step_px=16)
    total = np.zeros(size, dtype=np.float32)
    owned = np.zeros(size, dtype=np.int64)
    for number in range(len(grid)):
        top, left = grid.corner(number)
        assert (top % 16, left % 16) == (0, 0)
        grid.add(total, np.ones(tile, dtype=np.float32), number)
        rows, columns = grid.own(number)
        owned[top + rows.start : top + rows.stop, left + columns.start : left + columns.stop] += 1
    np.testing.assert_allclose(total, 1, rtol=1e-6)
    assert (owned == 1).all()
    for starts, side, wanted in zip((grid.tops, grid.lefts), tile, size, strict=True):
        assert starts[0] == 0
        assert starts[-1] + side >= wanted
        shared = [before + side - start for before, start in pairwise(starts)]
        assert all(px >= min(overlap * side, side - 16) - 1e-9 for px in shared)
        assert not starts[1:] or starts[-1] + side - wanted < 16


@pytest.mark.parametrize("period_px", [16, 48])
def test_tiles_of_a_periodic_texture_have_the_map_of_the_whole(period_px):
    """Where tiles share so much that one hands over to the next beyond the reach of their edges (80 px here).

    The network may not stretch its feature maps from corner to corner (``align_corners``), or what it upscales depends
    on the size of its input: docs/decisions/0017-views.md.
    """
    tile, whole = (256, 256), (448, 448)
    network = make_network(tile, align_corners=False)
    pixels = np.random.default_rng(0).integers(0, 256, (period_px, period_px, 3), dtype=np.uint8)
    image = np.tile(pixels, (28, 28, 1))[: whole[0], : whole[1]]
    preprocessor = Preprocessor(ViewConfig(fit="tiles", tile_overlap=0.75), size_px=tile)
    tiled = Detector(network, device="cpu", preprocessor=preprocessor).predict(image).map_logit
    untiled = Detector(at_size(network, whole), device="cpu").predict(image).map_logit
    assert len(preprocessor.prepare(image).layout.grid) == 16
    assert np.abs(tiled - untiled).max() < 1e-3
    assert np.ptp(untiled) > 0.1  # not for being flat


def blots(pixels: np.ndarray, ignored: np.ndarray | None = None) -> Outputs:
    """In the place of a network: hot where pixels are bright; the score counts them."""
    maps = (pixels[..., 0].astype(np.float32) - 127.5) / 25
    hot = maps > 0 if ignored is None else (maps > 0) & ~ignored
    return Outputs(maps, hot.sum(axis=(1, 2)).astype(np.float32))


def looker(preprocessor: Preprocessor) -> Predictor:
    from test_views import calibration

    return Predictor(
        FunctionBackend(blots, batch_size=3),
        postprocessor=PostProcessor(calibration=calibration(), image_score="map"),
        preprocessor=preprocessor,
    )


def test_a_defect_across_seams_is_one_and_the_score_is_the_highest_tiles():
    image = np.zeros((200, 200, 3), dtype=np.uint8)
    image[95:105, 5:195] = 255  # through each column of tiles
    image[150:154, 150:154] = 255
    preprocessor = Preprocessor(ViewConfig(fit="tiles", tile_overlap=0.25), size_px=TILE)
    (prediction,) = looker(preprocessor).predict([image])
    boxes = sorted((d.left, d.top, d.width, d.height) for d in prediction.defects)
    assert boxes == [(5, 95, 190, 10), (150, 150, 4, 4)]
    tiles = [tile.pixels for tile in preprocessor.prepare(image).tiles()]
    assert prediction.head_logit == max(blots(tile[None])[1][0] for tile in tiles) == 640


def test_tiles_in_which_nothing_counts_are_not_looked_at():
    image = np.full((200, 200, 3), 255, dtype=np.uint8)
    ignored = np.ones((200, 200), dtype=bool)
    ignored[:40, :40] = False
    ignored[100:103, 100:103] = False  # too little for a score, but it is on the map
    preprocessor = Preprocessor(ViewConfig(fit="tiles", tile_overlap=0.25), size_px=TILE)
    seen = preprocessor.prepare(image, ignored)
    tiles = list(seen.tiles())
    assert [tile.number for tile in tiles if tile.scores] == [0]
    assert 1 < len(tiles) < len(seen.layout.grid)
    (prediction,) = looker(preprocessor).predict_prepared([seen], [None])
    assert prediction.head_logit == 40 * 40
    assert len(prediction.defects) == 2
    assert np.array_equal(prediction.ignored, ignored)


def test_an_image_smaller_than_a_tile_is_padded():
    preprocessor = Preprocessor(ViewConfig(fit="tiles"), size_px=TILE)
    (prediction,) = looker(preprocessor).predict([np.full((30, 200, 3), 255, dtype=np.uint8)])
    assert prediction.map_logit.shape == (30, 200)
    assert prediction.head_logit == 30 * 64
    (defect,) = prediction.defects
    assert (defect.left, defect.top, defect.width, defect.height) == (0, 0, 200, 30)


class Given(DataSource):
    """Samples as they are given."""

    name = "Given"

    def samples(self) -> list[Sample]:
        return self.given


def source_of(samples: list[Sample]) -> Given:
    source = Given()
    source.given = samples
    return source


def draw(path: Path, seed: int, *, size_px: tuple[int, int] = (160, 192), dots: int = 0) -> np.ndarray:
    """Soft noise, and a mask of dark dots of 5 px that it has."""
    rng = np.random.default_rng(seed)
    grey = 140 + 90 * ndimage.gaussian_filter(rng.normal(size=size_px), 1.5)
    mask = np.zeros(size_px, dtype=bool)
    for _ in range(dots):
        y, x = (int(rng.integers(8, side - 13)) for side in size_px)
        mask[y : y + 5, x : x + 5] = True
    grey[mask] -= 110
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(path)
    Image.fromarray(mask.astype(np.uint8) * 255).save(path.with_suffix(".mask.png"))
    return mask


def make_samples(folder: Path, *, good: int, bad: int, split: str = "train", seed: int = 0) -> list[Sample]:
    samples = []
    for place in range(good + bad):
        path = folder / f"{split}{place}.png"
        is_bad = place >= good
        draw(path, seed + place, dots=int(is_bad))
        samples.append(
            Sample(
                image=path,
                label=BAD if is_bad else GOOD,
                split=split,
                defect="dot" if is_bad else "good",
                mask=path.with_suffix(".mask.png") if is_bad else None,
                pixel_labels_known=True,
            )
        )
    return samples


def test_labels_of_tiles(tmp_path):
    """A tile is bad where the mask reaches a position of the map in it, good where it is not touched."""
    samples = make_samples(tmp_path, good=1, bad=3)
    samples[3] = replace(samples[3], mask=None, pixel_labels_known=False)
    preprocessor = Preprocessor(ViewConfig(fit="tiles"), size_px=TILE)
    recipe = replace(resolve_recipe(Recipe(), "full", variant="jims"), mask_dilation_px=1, distance_weight=None)
    labels, failures = read_pixel_labels(samples, recipe, (16, 16), preprocessor=preprocessor)
    assert failures == []
    grid = preprocessor.grid((160, 192))
    assert [tile.number for tile in labels.tiles if tile.sample == 0] == list(range(len(grid)))
    assert labels.left_out["of_bad_images_without_mask"] == len(grid)
    touched = 0
    kinds = {(tile.sample, tile.number): bool(bad) for tile, bad in zip(labels.tiles, labels.bad, strict=True)}
    for sample in (1, 2):
        mask = np.asarray(Image.open(samples[sample].mask)) > 0
        for tile in range(len(grid)):
            marked = int(grid.crop(mask, tile).sum())
            kind = kinds.get((sample, tile))
            touched += kind is None
            if marked == 25:
                assert kind is True  # 5 px reach at least one position of 4 px by half
            if marked == 0:
                assert kind in (False, None)  # None where the antialiased edge of a neighbour touches
    assert labels.left_out["touched"] == touched
    assert 0 < sum(kinds.values()) < len(kinds)
    bad_planes = labels.defective[labels.place[labels.bad]]
    assert bad_planes.flatten(1).any(1).all()


def test_bad_images_without_masks_alone_cannot_be_cut(tmp_path):
    samples = [
        replace(sample, mask=None, pixel_labels_known=sample.label == GOOD)
        for sample in make_samples(tmp_path, good=2, bad=2)
    ]
    options = {
        "model": ModelConfig(backbone="compact", image_size=TILE),
        "trainer": TrainerConfig(max_steps=1, accelerator="cpu"),
        "view": ViewConfig(fit="tiles"),
    }
    with pytest.raises(DataError, match="in which of its tiles a defect lies is not known; give masks"):
        train(source_of(samples), output=tmp_path / "run", **options)
    train(source_of(samples), output=tmp_path / "good", supervision="unsupervised", **options)
    record = yaml.safe_load((tmp_path / "good" / "config.yaml").read_text())
    assert record["training"]["tiles"]["bad"] == 0


def test_a_training_on_tiles_leaves_a_folder_that_gives_the_same(tmp_path):
    samples = make_samples(tmp_path / "images", good=6, bad=3)
    roi = np.zeros((160, 192), dtype=np.uint8)
    roi[:100] = 255
    Image.fromarray(roi).save(tmp_path / "roi.png")
    options = {
        "model": ModelConfig(backbone="compact", image_size=TILE),
        "recipe": Recipe(batch_size=4),
        "trainer": TrainerConfig(max_steps=4, accelerator="cpu", holdout_fraction=0.4),
        "view": ViewConfig(fit="tiles", roi=tmp_path / "roi.png"),
    }
    trained = train(source_of(samples), output=tmp_path / "run", **options)
    record = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    training = record["training"]
    assert (training["good_images"], training["held_out_images"], training["bad_with_mask_images"]) == (3, 3, 3)
    grid = trained.preprocessor.grid((160, 192))
    within = sum(grid.corner(tile)[0] < 100 - trained.preprocessor.least_px for tile in range(len(grid)))
    counts = training["tiles"]
    assert counts["good"] + counts["bad"] + counts["left_out"]["touched"] == 6 * within < 6 * len(grid)
    assert trained.calibration.parts == trained.score_scale.images == 3
    loaded = Detector.load(tmp_path / "run", device="cpu")
    for sample in samples[-2:]:
        found, wanted = loaded.predict(sample.image), trained.predict(sample.image)
        assert np.array_equal(found.map_logit, wanted.map_logit)
        assert (found.score_logit, found.verdict) == (wanted.score_logit, wanted.verdict)
        assert found.ignored[100:].all()
        assert all(defect.top < 100 for defect in found.defects)
    # The scale is that of whole images: the same figures as looking at them, but for features in float16.
    held = {sample.image for sample in samples[:6]}
    scores = {path: loaded.predict(path) for path in held}
    head = [p.head_logit for p in scores.values()]
    assert min(head) - 0.3 < loaded.score_scale.head_mean < max(head) + 0.3
    predict_files(tmp_path / "run", [str(samples[0].image)], tmp_path / "out", overlays=True)
    (row,) = csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines())
    assert float(row["score_logit"]) == pytest.approx(loaded.predict(samples[0].image).score_logit, rel=1e-4)
    with Image.open(tmp_path / "out" / "overlays" / "000000_train0.png") as overlay:
        assert overlay.width >= 192


@pytest.mark.parametrize(
    "cache", [CacheConfig(), CacheConfig(memory_gib=0), CacheConfig(memory_gib=0, disk_gib=0)], ids=str
)
def test_each_tile_has_its_own_features(tmp_path, cache):
    paths = [sample.image for sample in make_samples(tmp_path / "images", good=2, bad=0)]
    backbone = build_backbone(ModelConfig(backbone="compact", image_size=TILE))
    preprocessor = Preprocessor(ViewConfig(fit="tiles"), size_px=TILE)
    source, index, _ = gather_features(
        backbone,
        paths,
        tiles=[[0, 5], [3]],
        flip_counts=[1, 4, 1],
        preprocessor=preprocessor,
        cache=cache,
        folder=tmp_path,
    )
    assert index == [0, 1, 2]
    assert source.flip_index.rows() == [[0], [1, 2, 3, 4], [5]]
    for row, image, tile, axes in ((0, 0, 0, ()), (1, 0, 5, ()), (3, 0, 5, (1,)), (5, 1, 3, ())):
        pixels = np.flip(preprocessor.prepare(paths[image]).tile_pixels(tile), axes)
        wanted = backbone(torch.from_numpy(pixels.copy())[None])
        for found, expected in zip(source.features(torch.tensor([row])), wanted, strict=True):
            # float16 keeps 11 bits, half a unit in the last of them is 1 part in 2048.
            torch.testing.assert_close(found.float(), expected, rtol=1 / 2048, atol=1e-5)


@pytest.mark.slow
def test_a_defect_that_stretching_hides_is_found_on_tiles(tmp_path):
    """Dots of 5 px in images of 320 x 384: 1 px at the network's 64 x 64, 5 px in a tile of that size."""
    training = make_samples(tmp_path / "train", good=16, bad=0)
    testing = make_samples(tmp_path / "test", good=12, bad=12, split="test", seed=100)
    for sample in [*training, *testing]:
        seed = int(sample.image.stem.removeprefix(sample.split)) + (100 if sample.split == "test" else 0)
        draw(sample.image, seed, size_px=(320, 384), dots=sample.label)
    auroc, overlap = {}, {}
    for fit in ("stretch", "tiles"):
        detector = train(
            source_of([*training, *testing]),
            output=tmp_path / fit,
            model=ModelConfig(backbone="compact", image_size=TILE),
            recipe=Recipe(batch_size=16, image_score="map"),
            trainer=TrainerConfig(max_steps=150, accelerator="cpu"),
            view=ViewConfig(fit=fit),
        )
        metrics = evaluate(detector, testing, resolution="native").metrics
        auroc[fit], overlap[fit] = metrics["seg-I-AUROC"].value, metrics["AUPRO"].value
    assert auroc["tiles"] > 0.95 > 0.8 > auroc["stretch"]
    assert overlap["tiles"] > 0.9


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_megapixels_need_less_than_two_gibibytes():
    """All of the process: Python, torch, two images side by side, overlays and tables."""
    script = Path(__file__).parents[1] / "experiments" / "tiles.py"
    command = [sys.executable, str(script), "--megapixels", "20", "--images", "2", "--overlap", "0"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    *_, peak_mib, _ = printed.splitlines()[-1].split()
    assert float(peak_mib) < 2048
