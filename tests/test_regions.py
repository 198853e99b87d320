"""Defects smaller than half a position of the map count in training, and are named in a test and in a check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from supersimplenet.datasets.base import DataSource
from supersimplenet.datasets.checks.check import check
from supersimplenet.datasets.regions import Regions, count_lost_regions
from supersimplenet.model.config import LabelRecipe, ModelConfig, Recipe, resolve_recipe
from supersimplenet.preprocessing.geometry import Placement, resize_mask, resize_plane, resize_weights
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.pixel_labels import PixelLabels, read_pixel_labels
from supersimplenet.training.train import train
from supersimplenet.types import BAD, GOOD, Sample

SIDE, MAP = 256, (16, 16)  # a position is 16 px wide, as of an image of 1024 px and a network of 256 px
DOT_PX = 6


class Given(DataSource):
    """Samples as they are given."""

    name = "Given"

    def samples(self) -> list[Sample]:
        return self.given


def recipe(**options: object) -> LabelRecipe:
    return replace(resolve_recipe(Recipe(), "full", variant="jims"), **options)


def sample_of(folder: Path, mask: np.ndarray, ignore: np.ndarray | None = None) -> Sample:
    paths = {"image": folder / "image.png", "mask": folder / "mask.png", "ignore": folder / "ignore.png"}
    Image.fromarray(np.full((*mask.shape, 3), 90, dtype=np.uint8)).save(paths["image"])
    Image.fromarray(mask.astype(np.uint8) * 255).save(paths["mask"])
    if ignore is not None:
        Image.fromarray(ignore.astype(np.uint8) * 255).save(paths["ignore"])
    return Sample(
        image=paths["image"],
        label=BAD,
        split="train",
        defect="dot",
        mask=paths["mask"],
        ignore=None if ignore is None else paths["ignore"],
    )


def dots(*corners: tuple[int, int], side_px: int = DOT_PX) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    for y, x in corners:
        mask[y : y + side_px, x : x + side_px] = True
    return mask


def labels_of(sample: Sample, settings: LabelRecipe | None = None, **options: object) -> PixelLabels:
    labels, failures = read_pixel_labels([sample], settings or recipe(), MAP, **options)
    assert failures == []
    return labels


@pytest.mark.parametrize(("before", "after"), [((48, 40), (12, 10)), ((33, 20), (33, 50)), ((101, 64), (37, 1))])
def test_the_weights_of_a_resize_are_pillow_s(before, after):
    plane = np.random.default_rng(0).random(before).astype(np.float32)
    rows, columns = (resize_weights(*sides) for sides in zip(before, after, strict=True))
    np.testing.assert_allclose(rows @ plane @ columns.T, resize_plane(plane, after), atol=1e-6)
    np.testing.assert_array_equal(resize_weights(before[0], after[0], after[0] - 2, 4)[:2], rows[-2:])
    assert not resize_weights(before[0], after[0], after[0] - 2, 4)[2:].any()


def test_every_dot_keeps_the_position_that_it_covers_best(tmp_path):
    """Widened to 12 px a dot covers at most 37 % of a position of 16 px: all disappeared, and trained as normal."""
    rng = np.random.default_rng(0)
    corners = [(48 * row + int(rng.integers(8, 30)), 48 * column + int(rng.integers(8, 30))) for row in range(5)
               for column in range(5)]  # fmt: skip
    sample = sample_of(tmp_path, dots(*corners))
    labels = labels_of(sample)
    assert labels.small_regions == {0: 25}
    (defective,), (counted,), (weight,) = labels.defective, labels.counted, labels.weight
    assert defective.sum() == 25
    for y, x in corners:
        centre = (y + DOT_PX / 2) / 16, (x + DOT_PX / 2) / 16
        row, column = (int(place) for place in centre)
        assert defective[row, column] or min(abs(c - round(c)) for c in centre) < 0.04  # between two: either
    assert (weight[defective] >= 1).all()
    assert counted[defective].all()
    touched = resize_plane(np.asarray(Image.open(sample.mask)).astype(np.float32), MAP) > 0  # narrower than widened
    assert not (counted.numpy() & touched & ~defective.numpy()).any()
    assert counted.float().mean() > 0.3
    dropped = labels_of(sample, recipe(small_regions="drop"))
    assert (dropped.defective.sum(), dropped.counted.all(), dropped.small_regions) == (0, True, {})


def test_a_region_that_is_large_enough_keeps_the_published_edge(tmp_path):
    sample = sample_of(tmp_path, dots((40, 50), (150, 90), side_px=40))
    kept, dropped = labels_of(sample), labels_of(sample, recipe(small_regions="drop"))
    for name in ("defective", "counted", "weight"):
        assert torch.equal(getattr(kept, name), getattr(dropped, name))
    assert kept.counted.all()


def test_a_dot_beside_a_large_defect_and_flips(tmp_path):
    mask = dots((20, 20), side_px=60) | dots((180, 200))
    labels = labels_of(sample_of(tmp_path, mask))
    large = labels_of(sample_of(tmp_path, dots((20, 20), side_px=60)))
    added = labels.defective[0] & ~large.defective[0]
    assert added.nonzero().tolist() == [[183 // 16, 203 // 16]]
    assert (large.defective[0] & ~labels.defective[0]).sum() == 0
    for axes in ((0,), (1,), (0, 1)):
        flipped = labels.of(torch.tensor([0]), [axes])
        for name in ("defective", "counted", "weight"):
            assert torch.equal(getattr(flipped, name)[0], getattr(labels, name)[0].flip(axes))


def test_an_ignored_dot_stays_ignored(tmp_path):
    ignore = np.zeros((SIDE, SIDE), dtype=bool)
    ignore[:, 128:] = True
    labels = labels_of(sample_of(tmp_path, dots((40, 53), (40, 197)), ignore))
    assert labels.defective[0].nonzero().tolist() == [[2, 3]]
    assert labels.small_regions == {0: 1}
    assert not (labels.counted & labels.ignored).any()
    assert not (labels.defective & labels.ignored).any()


@pytest.mark.parametrize("fit", ["pad", "tiles"])
def test_a_padded_image_and_its_tiles_keep_their_dots(tmp_path, fit):
    """A dot that two tiles show is defective in both; a tile is left out only where nothing in it is."""
    mask = dots((20, 20), side_px=60)
    mask |= dots((30, 150)) | dots((200, 40)) | dots((124, 200))
    scale = 0.25 if fit == "tiles" else 1.0
    size_px = (64, 64) if fit == "pad" else (32, 32)
    preprocessor = Preprocessor(ViewConfig(fit=fit, scale=scale), size_px=size_px)
    size = (size_px[0] // 4, size_px[1] // 4)
    sample = sample_of(tmp_path, mask)
    options = {"preprocessor": preprocessor}
    labels, _ = read_pixel_labels([sample], recipe(), size, **options)
    before, _ = read_pixel_labels([sample], recipe(small_regions="drop"), size, **options)
    assert labels.small_regions == {0: 3}
    grid = preprocessor.lay_out(sample.image, None).grid
    shown = np.zeros((16, 16), dtype=int)
    for tile, place in zip(labels.tiles, labels.place.tolist(), strict=True):
        if place >= 0:
            top, left = (start // 4 for start in grid.corner(tile.number))
            defective = labels.defective[place].numpy()
            shown[top : top + size[0], left : left + size[1]] |= defective[: 16 - top, : 16 - left]
    for row, column in ((2, 9), (12, 2), (7, 12)):
        assert shown[row, column]
    assert shown.sum() - 3 == before.defective.any(0).sum() or fit == "tiles"
    if fit == "tiles":
        assert labels.bad.sum() > before.bad.sum()
        assert 0 < labels.left_out["touched"] < before.left_out["touched"]


def test_regions_that_meet_on_the_map_are_counted_apart():
    mask = dots((100, 100), (100, 112))  # 0.14 of a position each
    on_map = resize_mask(mask, MAP)
    assert len(Regions(mask)) == 2
    assert count_lost_regions(mask, Placement.whole(MAP, mask.shape), on_map) == 2
    mask[100:140, 140:180] = True
    assert count_lost_regions(mask, Placement.whole(MAP, mask.shape), resize_mask(mask, MAP)) == 2
    assert count_lost_regions(mask, Placement.whole(mask.shape, mask.shape), mask) == 0


def test_a_check_names_masks_with_regions_too_small_for_the_map(tmp_path):
    good = [Sample(image=tmp_path / "good.png", label=GOOD, split="train")]
    Image.fromarray(np.full((SIDE, SIDE, 3), 80, dtype=np.uint8)).save(good[0].image)
    bad = sample_of(tmp_path, dots((20, 20), side_px=60) | dots((180, 200)) | dots((180, 100), side_px=1))
    (finding,) = (f for f in check([*good, bad], size_px=(64, 64)).findings if f.code == "mask-vanishes")
    assert finding.images == (bad.image,)
    assert (
        "2 regions smaller than half a position of the map (16x16), trained on as one position each" in finding.message
    )
    assert "without a pixel left" not in finding.message
    assert "mask-vanishes" not in {f.code for f in check([*good, bad], size_px=(256, 256)).findings}
    assert "mask-vanishes" not in {f.code for f in check([*good, bad]).findings}


def test_a_training_says_which_images_have_regions_too_small_for_its_map(tmp_path, capsys):
    samples = []
    for place in range(4):
        folder = tmp_path / str(place)
        folder.mkdir()
        sample = sample_of(folder, dots((40, 53), (90, 120)) if place == 3 else dots())
        Image.fromarray(np.full((SIDE, SIDE, 3), 80 + place, dtype=np.uint8)).save(sample.image)  # no copies
        samples.append(sample if place == 3 else replace(sample, label=GOOD, defect="good", mask=None))
    source = Given()
    source.given = samples
    train(
        source,
        output=tmp_path / "run",
        model=ModelConfig(backbone="compact", image_size=(64, 64)),
        trainer=TrainerConfig(max_steps=1, accelerator="cpu", holdout_fraction=0),
    )
    printed = " ".join(capsys.readouterr().err.split())
    assert "2 defective regions in 1 image smaller than half a position of the map: " in printed
    assert "1 step in 1 epoch of 1 step only 1 step: expect little of this model" in printed
    training = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["training"]
    assert training["small_regions"] == 2
    assert training["label_recipe"]["small_regions"] == "keep"
