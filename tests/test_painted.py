"""Painted defects: what they change, where their masks lie, and on which photographs they are painted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from supersimplenet.datasets.drawn_defects import FADE_PX
from supersimplenet.datasets.painted import KINDS, paint, paint_prepared, painted_images
from supersimplenet.datasets.synthetic import render
from supersimplenet.errors import DataError
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig

SIZE_PX = (96, 128)


def photograph(seed=0, surface="cast_grain", size_px=SIZE_PX):
    return render(surface, defect=None, size_px=size_px, rng=np.random.default_rng(seed))[0]


def painted(pixels, seed, **options):
    found = paint(pixels, np.random.default_rng(seed), **options)
    assert found is not None
    picture, mask, kind = found
    change = np.abs(picture.astype(int) - pixels).max(axis=-1)
    return change, mask, kind


@pytest.mark.parametrize("surface", ["brushed_metal", "woven_cloth"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_marks_the_visible_change_and_nothing_changes_far_from_it(surface, kind):
    for seed in range(3):
        change, mask, drawn = painted(photograph(seed, surface), seed, kind=kind)
        assert drawn == kind
        outside = change[~mask].max(initial=0)
        assert change[ndimage.distance_transform_edt(~mask) >= FADE_PX].max(initial=0) == 0
        assert np.median(change[mask]) > 1.2 * outside  # every pixel outside changes less than is visible
        # What the mask has beside visibly changed pixels are pinholes: closing the changed pixels gives them all.
        closed = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(change > outside, 2)))[2:-2, 2:-2]
        assert not (mask & ~closed).any()
        assert 3 <= mask.sum() <= 0.3 * mask.size


def test_the_same_seed_paints_the_same_and_another_another():
    first, second, third = (paint(photograph(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first[0] == second[0]).all()
    assert (first[1] == second[1]).all()
    assert (first[0] != third[0]).any()


def test_the_photograph_is_not_changed():
    pixels = photograph()
    before = pixels.copy()
    paint(pixels, np.random.default_rng(0))
    assert (pixels == before).all()


def test_a_grey_photograph_stays_grey():
    pixels = np.repeat(photograph()[..., :1], 3, axis=-1)
    picture, _, _ = paint(pixels, np.random.default_rng(3), kind="stain")
    assert (picture == picture[..., :1]).all()
    colour, mask, _ = paint(photograph(surface="printed_pattern"), np.random.default_rng(3), kind="stain")
    changed = colour[mask].astype(int) - photograph(surface="printed_pattern")[mask]
    assert np.abs(changed[:, 0] - changed[:, 2]).mean() > 2


def test_the_contrast_follows_the_photographs_texture():
    """On a coarse surface a defect changes more grey levels than on a faint one, at the same place and shape."""
    noise = np.random.default_rng(0).normal(size=SIZE_PX)
    changes = []
    for deviation in (1.0, 3.0, 9.0):
        grey = np.repeat(np.rint(120 + deviation * noise).astype(np.uint8)[..., None], 3, axis=-1)
        change, mask, _ = painted(grey, 5, kind="stain")
        changes.append(change[mask].mean())
    assert changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_photographs_are_painted_too(level):
    change, mask, _ = painted(np.full((*SIZE_PX, 3), level, dtype=np.uint8), 1)
    assert mask.any()
    assert change[mask].max() >= 6  # 1.5 times the faintest visible change


@pytest.mark.parametrize("size_px", [(32, 32), (64, 300), (301, 67)])
def test_every_kind_at_odd_sizes(size_px):
    pixels = np.random.default_rng(0).integers(90, 130, size=(*size_px, 3)).astype(np.uint8)
    for kind in KINDS:
        change, mask, _ = painted(pixels, 7, kind=kind)
        assert change.shape == mask.shape == size_px
        assert 0 < mask.sum() < 0.5 * mask.size


def test_a_defect_may_begin_at_any_pixel_of_the_border():
    pixels = photograph(size_px=(64, 64))
    corner = np.zeros((64, 64), dtype=bool)
    corner[-3:, -30:] = True
    for seed in range(12):
        _, mask, _ = painted(pixels, seed, kind=KINDS[seed % 4], counted=corner)
        assert mask.any()


def test_only_counted_pixels_change():
    counted = np.zeros(SIZE_PX, dtype=bool)
    counted[20:60, 30:80] = True
    for seed, kind in enumerate(KINDS * 2):
        change, mask, _ = painted(photograph(), seed, kind=kind, counted=counted)
        assert mask.any()
        assert not (mask & ~counted).any()
        assert change[~counted].max() == 0


def test_where_too_little_counts_nothing_is_painted():
    counted = np.zeros(SIZE_PX, dtype=bool)
    assert paint(photograph(), np.random.default_rng(0), counted=counted) is None
    counted[5, 5] = True
    assert paint(photograph(), np.random.default_rng(0), counted=counted) is None


def parts(folder: Path, count: int, size_px=SIZE_PX) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(photograph(number, size_px=size_px)).save(path)
    return paths


VIEWS = {
    "stretch": ViewConfig(),
    "pad": ViewConfig(fit="pad"),
    "tiles": ViewConfig(fit="tiles"),
    "roi": ViewConfig(roi=Path("roi.png")),
    "tiles and roi": ViewConfig(fit="tiles", roi=Path("roi.png")),
}


@pytest.mark.parametrize("view", VIEWS)
def test_every_view(tmp_path, view):
    roi = np.zeros((150, 200), dtype=bool)
    roi[30:120, 50:190] = True
    preprocessor = Preprocessor(VIEWS[view], size_px=(64, 64), roi=roi if "roi" in view else None)
    paths = parts(tmp_path, 2, (150, 200))
    tiles = set()
    for number, found in enumerate(painted_images(paths, 8, preprocessor=preprocessor, seed=0)):
        plain = preprocessor.prepare(paths[number % 2])
        assert found.kind == KINDS[number % 4]
        assert found.prepared.layout.placement == plain.layout.placement
        assert found.mask.shape == plain.pixels.shape[:2]
        assert found.mask.any()
        change = np.abs(found.prepared.pixels.astype(int) - plain.pixels).max(axis=-1)
        assert change[ndimage.distance_transform_edt(~found.mask) >= FADE_PX].max(initial=0) == 0
        own = np.zeros(found.mask.shape, dtype=bool)
        plain.layout.grid.crop(own, found.tile)[:] = True
        assert not (found.mask & ~own).any()
        assert change[~own].max(initial=0) == 0
        if plain.layout.ignored is not None:
            assert not (found.mask & plain.layout.ignored).any()
            assert change[plain.layout.ignored].max() == 0
        tiles.add(found.tile)
    assert (len(tiles) > 2) == ("tiles" in view)


def test_an_aligned_view(tmp_path):
    pytest.importorskip("cv2", reason="needs the extra align")
    reference = photograph(surface="printed_pattern")
    moved = np.roll(reference, (3, -4), axis=(0, 1))
    config = ViewConfig(align="translation", reference=Path("reference.png"))
    preprocessor = Preprocessor(config, size_px=(64, 64), reference=reference)
    prepared = preprocessor.prepare(moved)
    assert prepared.layout.ignored.any()
    found = paint_prepared(prepared, np.random.default_rng(0), kind="pit")
    change = np.abs(found.prepared.pixels.astype(int) - prepared.pixels).max(axis=-1)
    assert change[found.mask].max() > 10
    assert change[prepared.layout.ignored].max() == 0


def test_photographs_are_used_evenly_and_the_order_is_that_of_the_seed(tmp_path, monkeypatch):
    paths = parts(tmp_path, 5)
    preprocessor = Preprocessor.stretch((64, 64))
    read = []
    prepare = preprocessor.prepare
    monkeypatch.setattr(preprocessor, "prepare", lambda path, *mask: read.append(path) or prepare(path, *mask))
    first = list(painted_images(paths, 2, preprocessor=preprocessor, seed=3))
    assert read == [paths[0], paths[2]]
    again = list(painted_images(paths, 2, preprocessor=preprocessor, seed=3))
    other = list(painted_images(paths, 2, preprocessor=preprocessor, seed=4))
    assert all((one.mask == two.mask).all() for one, two in zip(first, again, strict=True))
    assert any((one.mask != two.mask).any() for one, two in zip(first, other, strict=True))
    read.clear()
    assert len(list(painted_images(paths, 12, preprocessor=preprocessor, seed=3))) == 12
    assert [read.count(path) for path in paths] == [3, 3, 2, 2, 2]
    with pytest.raises(DataError, match="no good image to paint defects on"):
        list(painted_images([], 1, preprocessor=preprocessor, seed=0))


def test_on_real_photographs(shared_dir):
    """The contrast of painted defects lies among that of real ones: blowholes change 20 to 130 levels there."""
    paths = sorted((shared_dir / "magnetic_tile" / "train" / "good").glob("*.jpg"))[::40]
    preprocessor = Preprocessor.stretch((128, 128))
    changes = []
    for path, found in zip(paths, painted_images(paths, len(paths), preprocessor=preprocessor, seed=0), strict=True):
        plain = preprocessor.prepare(path).pixels.astype(int)
        assert (found.prepared.pixels == found.prepared.pixels[..., :1]).all()
        changes.append(np.abs(found.prepared.pixels - plain)[found.mask].mean())
    assert 6 < np.median(changes) < 60
