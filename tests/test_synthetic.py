"""The synthetic dataset: what is guaranteed of one image, of the folder, and of every message."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from supersimplenet.datasets import synthetic, synthetic_config
from supersimplenet.datasets.drawn_defects import FADE_PX, VISIBLE_LEVELS
from supersimplenet.datasets.synthetic import SyntheticConfig, defects_on, render, synthesize
from supersimplenet.datasets.textures import READ_NOISE_LEVELS, SHOT_VARIANCE_PER_LEVEL, SURFACES, Camera, Scene
from supersimplenet.errors import ConfigError, OutputError

SIZE_PX = (96, 128)
LOUDEST_NOISE_LEVELS = (READ_NOISE_LEVELS**2 + 255 * SHOT_VARIANCE_PER_LEVEL) ** 0.5
EVERY_DEFECT = [(surface, defect) for surface in SURFACES for defect in defects_on(surface)]


def pair(surface, defect, seed, size_px=SIZE_PX):
    """The same part without and with a defect, and the mask."""
    good, empty = render(surface, defect=None, size_px=size_px, rng=np.random.default_rng(seed))
    bad, mask = render(surface, defect=defect, size_px=size_px, rng=np.random.default_rng(seed))
    assert not empty.any()
    return good.astype(int), bad.astype(int), mask


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def small(**options) -> SyntheticConfig:
    defaults = {"surfaces": ("cast_grain",), "size_px": (64, 72), "train_good": 2, "test_good": 1, "test_per_defect": 1}
    return SyntheticConfig(**{**defaults, **options})


@pytest.mark.parametrize(("surface", "defect"), EVERY_DEFECT)
def test_the_defect_changes_the_image_where_the_mask_says_and_nowhere_else(surface, defect):
    for seed in range(3):
        good, bad, mask = pair(surface, defect, seed)
        change = np.abs(bad - good).max(axis=-1)
        away_px = ndimage.distance_transform_edt(~mask)
        assert change[away_px >= FADE_PX].max(initial=0) == 0
        # Both have the same noise. Pinholes that the mask closes may be unchanged, so the bound is on the middle one.
        assert np.median(change[mask]) > 4 * LOUDEST_NOISE_LEVELS
        assert change[mask].mean() > 4 * change[~mask].mean()
        assert 3 <= mask.sum() <= 0.25 * mask.size


@pytest.mark.parametrize(("surface", "defect"), EVERY_DEFECT)
def test_nearly_all_that_can_be_seen_is_in_the_mask(surface, defect):
    good, bad, mask = pair(surface, defect, seed=5)
    seen = np.abs(bad - good).max(axis=-1) >= VISIBLE_LEVELS + 2 * LOUDEST_NOISE_LEVELS
    assert seen.any()
    assert (seen & mask).sum() >= 0.95 * seen.sum()  # what is left are specks smaller than a defect


@pytest.mark.parametrize("surface", SURFACES)
def test_good_images_are_exposed_and_differ_from_part_to_part(surface):
    pictures = []
    for seed in range(4):
        picture, mask = render(surface, defect=None, size_px=SIZE_PX, rng=np.random.default_rng(seed))
        assert picture.dtype == np.uint8
        assert mask.dtype == bool
        assert picture.shape == (*SIZE_PX, 3)
        assert mask.shape == SIZE_PX
        assert not mask.any()
        assert 60 < picture.mean() < 235
        assert ((picture == 0) | (picture == 255)).mean() < 0.05  # neither crushed nor blown out
        pictures.append(picture.astype(int))
    for first, second in itertools.pairwise(pictures):
        # Noise alone, sqrt(2 / pi) * sqrt(2) * its deviation, would make about 2.
        assert np.abs(first - second).mean() > 4


def test_the_noise_is_that_of_the_camera():
    """An even grey, through the camera, has the standard deviation that its constants guarantee."""
    scene = Scene(shape=(128, 128), light_rad=0.0)
    picture = Camera(scene, np.random.default_rng(0)).read_out(np.full((128, 128, 3), 100.0))
    wanted = (READ_NOISE_LEVELS**2 + 100 * SHOT_VARIANCE_PER_LEVEL + 1 / 12) ** 0.5  # 1/12: rounding
    assert picture.mean() == pytest.approx(100, abs=5 * wanted / picture.size**0.5)
    assert picture.std() == pytest.approx(wanted, rel=0.02)  # 4 times 1/sqrt(2 * 49152)


def test_brushed_metal_is_streaked_along_its_rows_and_cast_grain_is_not():
    def roughness(surface):
        picture, _ = render(surface, defect=None, size_px=(128, 128), rng=np.random.default_rng(1))
        grey = ndimage.gaussian_filter(picture.mean(axis=-1), 1.0)  # without most of the noise
        return np.abs(np.diff(grey, axis=0)).mean() / np.abs(np.diff(grey, axis=1)).mean()

    assert roughness("brushed_metal") > 3
    assert 0.5 < roughness("cast_grain") < 2


def test_missing_print_bares_the_card_and_missing_threads_the_dark_below():
    for seed in range(4):
        good, bad, mask = pair("printed_pattern", "missing_pattern", seed)
        assert bad[mask].mean() > good[mask].mean() + 10
        good, bad, mask = pair("woven_cloth", "missing_pattern", seed)
        assert bad[mask].mean() < good[mask].mean() - 10


def test_a_crack_is_dark_and_a_scratch_has_a_bright_and_a_dark_side():
    for seed in range(4):
        good, bad, mask = pair("brushed_metal", "crack", seed)
        assert (bad - good)[mask].mean() < -8
        good, bad, _ = pair("brushed_metal", "scratch", seed)
        change = (bad - good).mean(axis=-1)
        assert change.max() > 9
        assert change.min() < -9


@pytest.mark.parametrize("size_px", [(64, 64), (64, 200), (301, 67), (320, 300)])
def test_every_surface_and_defect_at_odd_sizes(size_px):
    for surface, defect in EVERY_DEFECT[:: 3 if max(size_px) > 200 else 1]:
        picture, mask = render(surface, defect=defect, size_px=size_px, rng=np.random.default_rng(7))
        assert picture.shape == (*size_px, 3)
        assert 0 < mask.sum() < 0.3 * mask.size


def test_render_follows_the_state_of_its_generator():
    rng = np.random.default_rng(3)
    first, _ = render("cast_grain", defect="pit", size_px=(64, 64), rng=rng)
    second, _ = render("cast_grain", defect="pit", size_px=(64, 64), rng=rng)
    again, _ = render("cast_grain", defect="pit", size_px=(64, 64), rng=np.random.default_rng(3))
    assert (first == again).all()
    assert (first != second).any()


def test_a_pattern_can_be_missing_only_where_there_is_one():
    assert defects_on("brushed_metal") == defects_on("cast_grain") == ("scratch", "pit", "stain", "crack")
    assert defects_on("woven_cloth") == defects_on("printed_pattern")
    assert defects_on("woven_cloth") == ("scratch", "pit", "stain", "crack", "missing_pattern")


def test_layout(tmp_path):
    config = small(surfaces=("woven_cloth", "brushed_metal"), train_good=3, test_good=2, test_per_defect=2)
    root = tmp_path / "deep" / "data"
    assert synthesize(root, config) == [root / "woven_cloth", root / "brushed_metal"]
    assert sorted(path.name for path in root.iterdir()) == ["brushed_metal", "woven_cloth"]  # no half-made leftovers
    for surface in config.surfaces:
        wanted = [f"train/good/{index:03d}.png" for index in range(3)]
        wanted += [f"test/good/{index:03d}.png" for index in range(2)]
        for defect in defects_on(surface):
            wanted += [f"test/{defect}/{index:03d}.png" for index in range(2)]
            wanted += [f"ground_truth/{defect}/{index:03d}_mask.png" for index in range(2)]
        assert sorted(digests(root / surface)) == sorted(wanted)
        for name in wanted:
            with Image.open(root / surface / name) as image:
                assert image.size == (72, 64)
                assert image.mode == ("L" if "ground_truth" in name else "RGB")
                if "ground_truth" in name:
                    assert set(np.unique(np.asarray(image))) == {0, 255}
    assert len(set(digests(root).values())) == len(digests(root))  # no image or mask twice


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path):
    for name, seed in [("a", 4), ("b", 4), ("c", 5)]:
        synthesize(tmp_path / name, small(seed=seed))
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    other = digests(tmp_path / "c")
    assert all(other[path] != digest for path, digest in digests(tmp_path / "a").items())


def test_more_images_leave_the_earlier_ones_as_they_were(tmp_path):
    synthesize(tmp_path / "few", small())
    more = small(surfaces=("printed_pattern", "cast_grain"), train_good=4, test_good=3, test_per_defect=2)
    synthesize(tmp_path / "more", more)
    few = digests(tmp_path / "few")
    assert few.items() <= digests(tmp_path / "more").items()
    assert len(few) == 2 + 1 + 2 * 4


def test_the_keys_of_the_random_streams_are_frozen():
    """A renumbered one would change every dataset made before."""
    assert synthetic_config.SURFACE_KEY == {"brushed_metal": 0, "cast_grain": 1, "woven_cloth": 2, "printed_pattern": 3}
    assert synthetic_config.SPLIT_KEY == {"train": 0, "test": 1}
    assert synthetic_config.DEFECT_KEY == {
        "good": 0, "scratch": 1, "pit": 2, "stain": 3, "crack": 4, "missing_pattern": 5,
    }  # fmt: skip
    assert set(synthetic_config.SURFACE_KEY) == set(SURFACES)


def test_an_existing_category_is_left_alone(tmp_path):
    kept = tmp_path / "cast_grain" / "notes.txt"
    kept.parent.mkdir()
    kept.write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError) as caught:
        synthesize(tmp_path, small(surfaces=("brushed_metal", "cast_grain")))
    assert str(caught.value) == (
        f"{tmp_path / 'cast_grain'}: is there already, and not empty; choose another --output or remove it"
    )
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["cast_grain", "notes.txt"]


def test_an_empty_category_folder_is_used(tmp_path):
    (tmp_path / "cast_grain").mkdir()
    synthesize(tmp_path, small())
    assert len(digests(tmp_path / "cast_grain")) == 11


def test_an_output_that_is_a_file(tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("", encoding="utf-8")
    with pytest.raises(OutputError) as caught:
        synthesize(taken, small())
    assert str(caught.value).startswith(f"{taken}: cannot be written (")
    assert str(caught.value).endswith("); choose another --output, or mend the cause")


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "render", stop)
    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path, small())
    assert list(tmp_path.iterdir()) == []


ALL = "brushed_metal, cast_grain, woven_cloth, printed_pattern"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"surfaces": ()}, f"surfaces: found none, wanted at least one of {ALL}"),
        ({"surfaces": ("cast_grain", "glass")}, f"surfaces: found 'glass', wanted one of {ALL}"),
        (
            {"surfaces": ("cast_grain", "cast_grain")},
            "surfaces: found cast_grain, cast_grain, wanted each one once",
        ),
        (
            {"size_px": (63, 256)},
            "size_px: found (63, 256), wanted (height, width), whole numbers of 64 or more",
        ),
        (
            {"size_px": (256,)},
            "size_px: found (256,), wanted (height, width), whole numbers of 64 or more",
        ),
        (
            {"size_px": (256, 99.5)},
            "size_px: found (256, 99.5), wanted (height, width), whole numbers of 64 or more",
        ),
        ({"train_good": 0}, "train_good: found 0, wanted a whole number of 1 or more"),
        ({"test_good": -3}, "test_good: found -3, wanted a whole number of 1 or more"),
        ({"test_per_defect": 1.5}, "test_per_defect: found 1.5, wanted a whole number of 1 or more"),
        ({"train_good": True}, "train_good: found True, wanted a whole number of 1 or more"),
        ({"seed": -1}, "seed: found -1, wanted a whole number of 0 or more"),
    ],
)
def test_config_errors(options, message):
    with pytest.raises(ConfigError) as caught:
        SyntheticConfig(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("surface", "defect", "size_px", "message"),
    [
        ("glass", None, (64, 64), f"surface: found 'glass', wanted one of {ALL}"),
        (
            "cast_grain",
            "missing_pattern",
            (64, 64),
            "defect: found 'missing_pattern', wanted None or, on cast_grain, one of scratch, pit, stain, crack",
        ),
        (
            "cast_grain",
            None,
            (64, 32),
            "size_px: found (64, 32), wanted (height, width), whole numbers of 64 or more",
        ),
    ],
)
def test_render_errors(surface, defect, size_px, message):
    with pytest.raises(ConfigError) as caught:
        render(surface, defect=defect, size_px=size_px, rng=np.random.default_rng(0))
    assert str(caught.value) == message


def test_the_defaults_are_the_documented_ones():
    config = SyntheticConfig()
    assert config.surfaces == tuple(ALL.split(", "))
    assert config.size_px == (256, 256)
    assert (config.train_good, config.test_good, config.test_per_defect, config.seed) == (60, 20, 8, 0)
