"""The list of defects against maps drawn by hand, and the level of an area against a plain search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.postprocessing.defects import (
    counted_map,
    find_defects,
    find_peak,
    level_of_area,
    listed_defects,
    outline_mask,
    region_mask,
)
from supersimplenet.postprocessing.postprocessor import PostProcessor
from supersimplenet.postprocessing.regions import find_runs
from supersimplenet.preprocessing.geometry import Placement
from supersimplenet.preprocessing.prepared_image import Layout
from supersimplenet.types import Defect


def drawn(*blots: tuple[slice, slice, float]) -> np.ndarray:
    """A map of 8 x 12 at logit -5 with rectangles of other levels."""
    map_logit = np.full((8, 12), -5, dtype=np.float32)
    for rows, columns, level in blots:
        map_logit[rows, columns] = level
    return map_logit


def test_a_defect_has_its_box_area_peak_and_centroid_in_the_images_pixels():
    map_logit = drawn((slice(2, 4), slice(3, 6), 1.5))
    map_logit[3, 5] = 2.5
    (defect,) = find_defects(
        map_logit, pixel_logit=1, min_area_px=1, placement=Placement.whole((8, 12), (80, 60))
    )  # 10 and 5 times as large
    assert (defect.left, defect.top, defect.width, defect.height) == (15, 20, 15, 20)
    assert defect.area_px == 6 * 10 * 5
    assert defect.peak_logit == 2.5
    # Columns 3, 4, 5 cover 15 to 30 px of the image, so pixels 15 to 29: their middle is 22. Rows cover 20 to 40.
    assert (defect.centroid_x, defect.centroid_y) == (22.0, 29.5)


def test_the_outline_lies_halfway_between_threshold_and_peak():
    """Two slopes by hand, threshold 1: peaks 5 and 2, so the levels are 3 and 1.5."""
    map_logit = drawn((slice(1, 6), slice(1, 6), 1.0), (slice(2, 5), slice(2, 5), 2.9), (slice(2, 4), slice(3, 5), 3.0))
    map_logit[2, 3] = 5.0
    map_logit[7, 8:12] = 1.0, 1.5, 2.0, 1.4
    strong, weak = find_defects(map_logit, pixel_logit=1, min_area_px=1, placement=Placement.whole((8, 12), (80, 60)))
    assert (strong.left, strong.top, strong.width, strong.height, strong.area_px) == (5, 10, 25, 50, 25 * 50)
    assert (strong.outline_logit, weak.outline_logit) == (3.0, 1.5)
    box = (strong.outline_left, strong.outline_top, strong.outline_width, strong.outline_height)
    assert (box, strong.outline_area_px) == ((15, 20, 10, 20), 4 * 50)
    assert (weak.outline_left, weak.outline_width, weak.outline_area_px, weak.area_px) == (45, 10, 100, 200)
    wanted = np.zeros((8, 12), dtype=bool)
    wanted[2:4, 3:5] = wanted[7, 9:11] = True
    np.testing.assert_array_equal(outline_mask(map_logit, pixel_logit=1, min_area_px=1), wanted)
    wanted[7] = False  # the weak region has 4 pixels
    np.testing.assert_array_equal(outline_mask(map_logit, pixel_logit=1, min_area_px=5), wanted)
    assert not outline_mask(map_logit, pixel_logit=6, min_area_px=1).any()


def test_two_spots_of_one_region_share_a_level_and_one_box():
    map_logit = drawn((slice(3, 4), slice(1, 11), 0.0))
    map_logit[3, [2, 9]] = 4.0
    map_logit[3, 5] = 1.9
    (defect,) = find_defects(map_logit, pixel_logit=0, min_area_px=1, placement=Placement.whole((8, 12), (8, 12)))
    assert (defect.outline_logit, defect.outline_left, defect.outline_width, defect.outline_area_px) == (2.0, 2, 8, 2)


def test_a_box_covers_its_region_where_the_sizes_do_not_divide():
    (defect,) = find_defects(
        drawn((slice(2, 3), slice(5, 7), 1)), pixel_logit=1, min_area_px=1, placement=Placement.whole((8, 12), (9, 13))
    )
    assert (defect.left, defect.top, defect.width, defect.height) == (5, 2, 3, 2)  # 5.42 to 7.58 and 2.25 to 3.375


def test_regions_touch_at_corners_and_are_listed_by_falling_peak():
    map_logit = drawn((slice(0, 2), slice(0, 2), 1), (slice(2, 3), slice(2, 3), 3), (slice(6, 8), slice(9, 12), 2))
    defects = find_defects(map_logit, pixel_logit=1, min_area_px=1, placement=Placement.whole((8, 12), (8, 12)))
    assert [(defect.peak_logit, defect.area_px) for defect in defects] == [(3, 5), (2, 6)]


def test_the_level_itself_counts_and_small_regions_do_not():
    map_logit = drawn((slice(0, 2), slice(0, 2), 1), (slice(5, 6), slice(5, 8), 2))
    assert len(find_defects(map_logit, pixel_logit=1, min_area_px=4, placement=Placement.whole((8, 12), (8, 12)))) == 1
    assert find_defects(map_logit, pixel_logit=1, min_area_px=5, placement=Placement.whole((8, 12), (8, 12))) == ()
    assert find_defects(map_logit, pixel_logit=2.01, min_area_px=1, placement=Placement.whole((8, 12), (8, 12))) == ()


def test_ignored_pixels_are_no_defect():
    """They come as minus infinity."""
    map_logit = drawn((slice(0, 8), slice(0, 12), 3))
    map_logit[:, 4:] = -np.inf
    (defect,) = find_defects(map_logit, pixel_logit=0, min_area_px=1, placement=Placement.whole((8, 12), (8, 12)))
    assert (defect.width, defect.area_px) == (4, 32)


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10_000), area=st.integers(1, 60), smooth=st.sampled_from([0, 1, 2]), ties=st.booleans())
def test_the_level_of_an_area_is_the_highest_that_lists_a_defect(seed, area, smooth, ties):
    """Against a search over every value of the map. The level may lie above it by the 65 536th part of the range."""
    map_logit = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(7, 9)), smooth).astype(np.float32)
    if ties:
        map_logit = np.round(map_logit)

    def lists(level: float) -> bool:
        return bool(
            find_defects(map_logit, pixel_logit=level, min_area_px=area, placement=Placement.whole((7, 9), (7, 9)))
        )

    exact = max(float(level) for level in np.unique(map_logit) if lists(float(level)))
    level = level_of_area(map_logit, area)
    assert exact <= level <= exact + float(np.ptp(map_logit)) / 65_536 + 1e-6
    assert not lists(float(np.nextafter(np.float32(level), np.float32(np.inf))))


@pytest.mark.parametrize("area", [1, 5, 63, 1000])
def test_a_level_map_reaches_its_level_over_any_area(area):
    assert level_of_area(np.full((7, 9), 1.25, dtype=np.float32), area) == 1.25


@settings(max_examples=300, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    share=st.floats(0, 1),
    smooth=st.sampled_from([0, 1, 3]),
    seed=st.integers(0, 10_000),
)
def test_regions_are_those_of_scipy_with_the_same_numbers(height, width, share, smooth, seed):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), smooth)
    mask = noise >= np.quantile(noise, share)
    wanted, count = ndimage.label(mask, structure=np.ones((3, 3)))
    runs = find_runs(mask)
    found = np.zeros_like(wanted)
    for row, start, stop, region in zip(runs.row, runs.start, runs.stop, runs.region, strict=True):
        found[row, start:stop] = region + 1
    np.testing.assert_array_equal(found, wanted)
    assert runs.regions == count
    np.testing.assert_array_equal(runs.areas(), np.bincount(wanted.ravel(), minlength=count + 1)[1:])


def test_regions_that_wind_are_one():
    """A spiral, whose runs meet again only after many rows; and none, and all."""
    spiral = np.zeros((41, 41), dtype=bool)
    row = column = 20
    for step in range(1, 40):
        for _ in range(2 * step):
            spiral[row, column] = True
            row, column = row + (0, 1, 0, -1)[step % 4], column + (1, 0, -1, 0)[step % 4]
            if not (0 <= row < 41 and 0 <= column < 41):
                break
        else:
            continue
        break
    assert find_runs(spiral).regions == ndimage.label(spiral, np.ones((3, 3)))[1] == 1
    assert find_runs(np.zeros((5, 7), dtype=bool)).regions == 0
    assert find_runs(np.ones((5, 7), dtype=bool)).areas().tolist() == [35]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.3, 0.99), area=st.integers(1, 12))
def test_defects_are_those_of_scipys_measurements(seed, share, area):
    map_logit = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(30, 23)), 1).astype(np.float32)
    level = float(np.quantile(map_logit, share))
    region, count = ndimage.label(map_logit >= level, np.ones((3, 3)))
    numbers = np.arange(1, count + 1)
    found = find_defects(map_logit, pixel_logit=level, min_area_px=area, placement=Placement.whole((30, 23), (30, 23)))
    wanted = []
    for number, box, peak, (y, x) in zip(
        numbers,
        ndimage.find_objects(region),
        ndimage.maximum(map_logit, region, numbers),
        ndimage.center_of_mass(region > 0, region, numbers),
        strict=True,
    ):
        if (region == number).sum() >= area:
            place = (box[1].start, box[0].start, box[1].stop - box[1].start, box[0].stop - box[0].start)
            wanted.append((*place, float((region == number).sum()), float(peak), round(x, 1), round(y, 1)))
    wanted.sort(key=lambda row: -row[5])
    names = ("left", "top", "width", "height", "area_px", "peak_logit", "centroid_x", "centroid_y")
    rows = [tuple(getattr(defect, name) for name in names) for defect in found]
    assert [row[:6] for row in rows] == [row[:6] for row in wanted]
    for row, expected in zip(rows, wanted, strict=True):
        assert row[6:] == pytest.approx(expected[6:], abs=0.1 + 1e-9)  # a tie may be rounded either way


# --- one verdict: what is listed -----------------------------------------------------------------------------------

WHOLE = Placement.whole((8, 12), (80, 60))  # 10 px high, 5 px wide
LAYOUT = Layout(placement=WHOLE, grid=None, ignored=None, least_px=1)
CALIBRATION = Calibration(
    image_score="head",
    threshold_logit=2.0,
    accept_logit=1.0,
    pixel_logit=1.0,
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
LARGE, SMALL, LOW = ((slice(2, 4), slice(3, 6), 1.5), (slice(6, 7), slice(0, 3), 3.0), (slice(0, 8), slice(0, 12), 0.5))


@pytest.mark.parametrize("head_logit", [0.0, 1.0, 2.0], ids=["good", "unsure", "bad"])
@pytest.mark.parametrize("list_all", [False, True])
@pytest.mark.parametrize("blots", [(LARGE,), (LARGE, SMALL), (SMALL,), (LOW,)], ids=["large", "both", "small", "low"])
def test_a_part_has_a_listed_defect_exactly_where_it_is_not_good(head_logit, list_all, blots):
    """The box, the peak or nothing: for each verdict and each kind of map; a region below the least area is none."""
    postprocess = PostProcessor(calibration=CALIBRATION, list_all=list_all)
    prediction = postprocess(drawn(*blots), head_logit, layout=LAYOUT, path=None)
    has_region = LARGE in blots
    assert len(prediction.regions) == has_region
    if prediction.verdict == "good":
        assert prediction.defects == (prediction.regions if list_all else ())
    elif has_region:
        assert prediction.defects == prediction.regions
        assert not prediction.defects[0].below_threshold
    else:
        (peak,) = prediction.defects
        assert (peak.below_threshold, peak.peak_logit) == (True, prediction.map_max_logit)
    uncalibrated = PostProcessor(list_all=list_all)
    none = uncalibrated(drawn(*blots), head_logit, layout=LAYOUT, path=None)
    assert (none.defects, none.regions, none.pixel_logit, none.anomaly_map) == (None, None, None, None)


def test_the_peak_is_one_pixel_of_the_map_and_ignored_pixels_have_none():
    map_logit = drawn((slice(2, 3), slice(3, 4), 0.25), (slice(7, 8), slice(11, 12), 0.75))
    assert find_peak(map_logit, placement=WHOLE) == Defect(
        left=55,
        top=70,
        width=5,
        height=10,
        area_px=50.0,
        peak_logit=0.75,
        centroid_x=57.0,
        centroid_y=74.5,
        below_threshold=True,
        outline_logit=0.75,
        outline_left=55,
        outline_top=70,
        outline_width=5,
        outline_height=10,
        outline_area_px=50.0,
    )
    ignored = np.zeros(map_logit.shape, dtype=bool)
    ignored[7, 11] = True
    peak = find_peak(counted_map(map_logit, ignored), placement=WHOLE)
    assert (peak.left, peak.top, peak.peak_logit) == (15, 20, 0.25)
    level = find_peak(np.full((8, 12), 0.5, np.float32), placement=WHOLE)
    assert (level.left, level.top) == (0, 0)  # of equals the first


def test_the_peak_is_looked_for_where_it_is_listed_alone():
    def refuse() -> Defect:
        raise AssertionError

    region = find_peak(drawn(LARGE), placement=WHOLE)
    assert listed_defects("good", (), refuse) == listed_defects("good", (), refuse, list_all=True) == ()
    assert listed_defects("bad", (region,), refuse) == listed_defects("unsure", (region,), refuse) == (region,)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 0.99), area=st.integers(1, 12))
def test_the_mask_of_regions_is_scipys(seed, share, area):
    map_logit = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(30, 23)), 1).astype(np.float32)
    level = float(np.quantile(map_logit, share))
    region, _ = ndimage.label(map_logit >= level, np.ones((3, 3)))
    large = np.bincount(region.ravel()) >= area
    large[0] = False
    found = region_mask(map_logit, pixel_logit=level, min_area_px=area)
    np.testing.assert_array_equal(found, large[region])
    boxes = find_defects(map_logit, pixel_logit=level, min_area_px=area, placement=Placement.whole((30, 23), (30, 23)))
    assert found.sum() == sum(defect.area_px for defect in boxes)
    wanted = np.zeros_like(found)
    for number in np.flatnonzero(large):
        own = region == number
        peak = map_logit[own].max()
        wanted |= own & (map_logit >= peak - (peak - np.float32(level)) / 2)
    outlined = outline_mask(map_logit, pixel_logit=level, min_area_px=area)
    np.testing.assert_array_equal(outlined, wanted)
    assert outlined.sum() == sum(defect.outline_area_px for defect in boxes)
