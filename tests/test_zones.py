"""Zones: their file, the score on maps drawn by hand, what is listed; a calibrated model and its exported file."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pages import ROOT, blocks
from PIL import Image
from scipy import ndimage
from station_process import StationProcess

from supersimplenet import Detector, ModelConfig, SuperSimpleNet
from supersimplenet.cli.main import main
from supersimplenet.errors import CalibrationError, ConfigError, DataError, ImageError
from supersimplenet.evaluation.calibrate import calibrate
from supersimplenet.evaluation.config import ThresholdConfig
from supersimplenet.evaluation.few_parts import FoldScores
from supersimplenet.evaluation.zone_choice import require_on_map
from supersimplenet.inference.model_folder import read_calibration, save_model
from supersimplenet.metrics.thresholds import false_alarm_threshold
from supersimplenet.model.config import Recipe
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.postprocessing.defects import find_defects, find_peak, outline_mask, region_mask
from supersimplenet.postprocessing.postprocessor import PostProcessor
from supersimplenet.postprocessing.zone_file import read_zones
from supersimplenet.postprocessing.zones import Elsewhere, Zone, Zones, level_of_zones, zones_on_map
from supersimplenet.preprocessing.geometry import Placement
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig
from supersimplenet.runtime import Inspector
from supersimplenet.types import ZonesOnMap
from supersimplenet.utils.serialization import from_plain, to_plain

# A part of 8 x 12 px: the sealing face are its left four columns, the rim its three upper rows right of them.
FACE = ((0.0, 0.0), (3.0, 0.0), (3.0, 7.0), (0.0, 7.0))
RIM = ((4.0, 0.0), (11.0, 0.0), (11.0, 2.0), (4.0, 2.0))


def zones(
    face: tuple[float, int] = (-1.0, 2), rim: tuple[float, int] = (0.0, 6), elsewhere: tuple[float, int] = (0.5, 1)
) -> Zones:
    """Each zone by margin and least area."""
    return Zones(
        image_size_px=(8, 12),
        zones=(
            Zone(name="sealing face", polygons=(FACE,), margin_logit=face[0], min_area_px=face[1]),
            Zone(name="rim", polygons=(RIM,), margin_logit=rim[0], min_area_px=rim[1]),
        ),
        elsewhere=Elsewhere(margin_logit=elsewhere[0], min_area_px=elsewhere[1]),
    )


WHOLE = Placement.whole((8, 12), (8, 12))


def on_map(of: Zones) -> ZonesOnMap:
    return zones_on_map(of, WHOLE, "map")


def drawn(*blots: tuple[slice, slice, float]) -> np.ndarray:
    map_logit = np.full((8, 12), -5, dtype=np.float32)
    for rows, columns, level in blots:
        map_logit[rows, columns] = level
    return map_logit


# --- where zones lie ---------------------------------------------------------------------------------------------


def test_a_pixel_of_the_map_belongs_to_the_zone_that_covers_most_of_it():
    found = on_map(zones())
    wanted = np.zeros((8, 12), dtype=np.uint8)
    wanted[:, :4] = 1
    wanted[:3, 4:] = 2
    np.testing.assert_array_equal(found.number, wanted)
    assert found.names == (None, "sealing face", "rim")
    assert (found.margins_logit.tolist(), found.min_areas_px.tolist()) == ([0.5, -1.0, 0.0], [1, 2, 6])
    # A map of half the size: its rows 0 and 1 cover rows 0 to 3; of row 1 the rim covers one of two rows, so half.
    half = zones_on_map(zones(), Placement.whole((4, 6), (8, 12)), "map").number
    assert half[:, :2].tolist() == [[1, 1]] * 4
    assert half[0, 2:].tolist() == [2] * 4
    assert half[2:, 2:].tolist() == [[0] * 4] * 2


def test_of_two_that_overlap_the_later_one_lies_above():
    first = Zone(name="first", polygons=(((0, 0), (5, 0), (5, 5), (0, 5)),))
    later = Zone(name="later", polygons=(((3, 3), (7, 3), (7, 7), (3, 7)),))
    number = zones_on_map(Zones(image_size_px=(8, 8), zones=(first, later)), Placement.whole((8, 8), (8, 8)), "").number
    assert [(number == place).sum() for place in (1, 2)] == [36 - 9, 25]
    assert number[4, 4] == 2


@pytest.mark.parametrize(
    ("config", "image_px", "map_px"),
    [
        (ViewConfig(), (80, 120), (32, 32)),  # stretched
        (ViewConfig(fit="pad"), (80, 120), (21, 32)),
        (ViewConfig(fit="tiles"), (80, 120), (80, 120)),
        (ViewConfig(fit="tiles", scale=2.0), (40, 60), (80, 120)),
    ],
    ids=["stretch", "pad", "tiles", "scaled tiles"],
)
def test_zones_lie_where_a_region_of_interest_of_the_same_polygon_lies(config, image_px, map_px):
    """Also on an image of another size than the one drawn on, 80 x 120 px here."""
    polygon = ((0.0, 0.0), (59.0, 0.0), (59.0, 79.0), (0.0, 79.0))  # the left half
    roi = np.zeros((80, 120), dtype=bool)
    roi[:, :60] = True
    prepared = Preprocessor(config, size_px=(32, 32), roi=roi).prepare(np.zeros((*image_px, 3), dtype=np.uint8))
    drawn_on = Zones(image_size_px=(80, 120), zones=(Zone(name="left", polygons=(polygon,)),))
    found = zones_on_map(drawn_on, prepared.layout.placement, "image")
    assert found.number.shape == map_px
    half = map_px[1] // 2
    assert (found.number[:, :half] == 1).all()
    assert not found.number[:, half:].any()
    # A pixel that the outside only touches does not count in the region of interest: at most one column.
    inside = ~prepared.layout.ignored
    assert inside[:, : half - 1].all()
    assert not inside[:, half:].any()


def test_where_images_are_aligned_zones_lie_on_the_reference():
    pytest.importorskip("cv2")
    generator = np.random.default_rng(0)
    reference = np.repeat(np.repeat(generator.integers(0, 255, (16, 24, 3), dtype=np.uint8), 5, axis=0), 5, axis=1)
    preprocessor = Preprocessor(
        ViewConfig(align="translation", reference=Path("reference.png")), size_px=(80, 120), reference=reference
    )
    shifted = np.roll(reference, (6, 10), axis=(0, 1))
    placement = preprocessor.prepare(shifted).layout.placement
    square = Zone(name="square", polygons=(((30, 20), (49, 20), (49, 39), (30, 39)),))
    found = zones_on_map(Zones(image_size_px=(80, 120), zones=(square,)), placement, "image")
    rows, columns = np.nonzero(found.number)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 39, 30, 49)  # on the map, as drawn
    x, y = placement.points_on_image(np.array([30.0]), np.array([20.0]))
    assert (x[0], y[0]) == (pytest.approx(40, abs=0.5), pytest.approx(26, abs=0.5))  # on the image, moved with the part


def test_an_image_of_other_proportions_is_refused():
    with pytest.raises(ImageError, match=r"^a\.png: is 8 x 8 px, the zones were drawn on 8 x 12 px .* proportions"):
        zones_on_map(zones(), Placement.whole((8, 12), (8, 8)), "a.png")


# --- the score ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blots", "wanted"),
    [
        # One pixel on the face is no defect there: of its region, two pixels reach -5 + 1 alone.
        ([(slice(5, 6), slice(1, 2), 9.0)], -4.0),
        # Two pixels are: 2 + 1, and of 3 and 2 the lower decides.
        ([(slice(5, 6), slice(1, 3), 2.0)], 3.0),
        ([(slice(5, 6), slice(1, 2), 3.0), (slice(6, 7), slice(2, 3), 2.0)], 3.0),
        # Elsewhere one pixel is enough, and counts half a logit later.
        ([(slice(5, 6), slice(8, 9), 2.0)], 1.5),
        # Four pixels on the rim are none, so the score is that of what surrounds them, -5 + 1 on the face.
        ([(slice(0, 2), slice(7, 9), 8.0)], -4.0),
        ([(slice(0, 2), slice(7, 10), 8.0)], 8.0),
        # A scratch from the rim on to the back counts there: 2.5 - 0.5 elsewhere, which needs one pixel.
        ([(slice(1, 6), slice(9, 10), 2.5)], 2.0),
        # One that reaches into the face by one pixel, of five in all, counts there at the level at which it touches it.
        ([(slice(4, 5), slice(3, 8), 2.5)], 2.0),
        ([(slice(4, 5), slice(4, 8), 1.0), (slice(4, 5), slice(3, 4), -0.9)], 0.5),
    ],
)
def test_the_score_by_hand(blots, wanted):
    map_logit = drawn(*blots)
    assert level_of_zones(map_logit, on_map(zones())) == pytest.approx(wanted, abs=1e-6)


def test_ignored_pixels_count_in_no_region():
    map_logit = drawn((slice(5, 6), slice(1, 3), 2.0), (slice(7, 8), slice(0, 2), 1.0))
    map_logit[5, 2] = -np.inf
    assert level_of_zones(map_logit, on_map(zones())) == 2.0  # the second, 1 + 1


def test_a_map_without_a_region_that_counts_has_its_lowest_value():
    map_logit = np.full((8, 12), -np.inf, dtype=np.float32)
    map_logit[0, 6], map_logit[0, 8] = 3.0, 4.0
    assert level_of_zones(map_logit, on_map(zones())) == 3.0


MAPS = arrays.arrays(np.float32, (8, 12), elements=st.integers(-6, 6).map(lambda value: np.float32(value / 2)))
DEMANDS = st.tuples(st.integers(-4, 4).map(lambda value: value / 2), st.integers(1, 30))


@given(MAPS)
@settings(max_examples=50, deadline=None)
def test_with_margin_0_and_area_1_the_score_is_the_maximum(map_logit):
    assert level_of_zones(map_logit, on_map(zones((0, 1), (0, 1), (0, 1)))) == map_logit.max()


@given(MAPS, DEMANDS, DEMANDS, DEMANDS)
@settings(max_examples=150, deadline=None)
def test_the_score_against_a_search_of_all_levels(map_logit, face, rim, elsewhere):
    found = on_map(zones(face, rim, elsewhere))
    levelled = map_logit - found.margins_logit[found.number]

    def counts(level: float) -> bool:
        regions, number = ndimage.label(levelled >= level, np.ones((3, 3)))
        return any(
            (regions == region).sum() >= area and (found.number[regions == region] == zone).any()
            for region in range(1, number + 1)
            for zone, area in enumerate(found.min_areas_px)
        )

    levels = [level for level in np.unique(levelled) if counts(level)]
    assert level_of_zones(map_logit, found) == (max(levels) if levels else levelled.min())


# --- what is listed ----------------------------------------------------------------------------------------------


@given(MAPS, DEMANDS, DEMANDS, DEMANDS, st.integers(-6, 6))
@settings(max_examples=100, deadline=None)
def test_a_defect_is_found_exactly_where_the_score_reaches_the_pixel_threshold(map_logit, face, rim, elsewhere, level):
    found = on_map(zones(face, rim, elsewhere))
    options: dict[str, Any] = {"pixel_logit": level / 2, "min_area_px": 1, "zones": found}
    defects = find_defects(map_logit, placement=WHOLE, **options)
    score = level_of_zones(map_logit, found)
    lowest = found.levelled(map_logit).min()
    assert bool(defects) == (score >= level / 2) or score == lowest  # of a map in which nothing ever counts
    region, outline = region_mask(map_logit, **options), outline_mask(map_logit, **options)
    assert region.any() == bool(defects)
    assert not (outline & ~region).any()
    assert sum(defect.area_px for defect in defects) == region.sum()
    assert sum(defect.outline_area_px for defect in defects) == outline.sum()
    assert sorted((defect.peak_logit for defect in defects), reverse=True) == [d.peak_logit for d in defects]


def test_a_defect_names_the_strictest_zone_in_which_it_counts():
    found = on_map(zones())
    map_logit = drawn(
        (slice(1, 2), slice(3, 10), 2.0),  # face and rim, 7 pixels
        (slice(4, 7), slice(9, 11), 3.0),  # elsewhere
        (slice(6, 7), slice(1, 2), 8.0),  # one pixel on the face: none
    )
    by_zone = {d.zone: d for d in find_defects(map_logit, pixel_logit=0, min_area_px=1, placement=WHOLE, zones=found)}
    assert list(by_zone) == [None, "sealing face"]
    assert (by_zone["sealing face"].area_px, by_zone[None].area_px) == (7, 6)
    # Peaks are the map's own; the outline lies halfway between 0 and the peak less the margin, 3 on the face.
    assert (by_zone["sealing face"].peak_logit, by_zone["sealing face"].outline_logit) == (2.0, 1.5)
    assert (by_zone[None].peak_logit, by_zone[None].outline_logit) == (3.0, 1.25)
    assert by_zone["sealing face"].outline_area_px == 7


def test_the_peak_is_that_of_the_region_that_gives_the_score():
    map_logit = drawn((slice(0, 1), slice(8, 9), 9.0), (slice(6, 7), slice(2, 4), -1.0))  # too small on the rim
    map_logit[6, 3] = -0.5
    peak = find_peak(map_logit, placement=WHOLE, zones=on_map(zones()))
    assert (peak.left, peak.top, peak.peak_logit, peak.zone, peak.below_threshold) == (3, 6, -0.5, "sealing face", True)
    assert find_peak(map_logit, placement=WHOLE).peak_logit == 9.0


# --- the file ----------------------------------------------------------------------------------------------------

SQUARE = [[0, 0], [5, 0], [5, 5]]
RIM_ZONE: dict[str, Any] = {"name": "rim", "polygon": SQUARE}
GIVEN: dict[str, Any] = {"image_size_px": [10, 20], "zones": [RIM_ZONE]}


def written(folder: Path, content: object) -> Path:
    path = folder / "zones.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_the_file_is_read_and_stored_in_plain_values(tmp_path):
    content = {
        "image_size_px": [10, 20],
        "zones": [
            {
                "name": "Dichtfläche",
                "polygon": [SQUARE, [[7, 7], [9, 7], [9, 9]]],
                "margin_logit": -1,
                "min_area_px": 4,
            },
            RIM_ZONE,
        ],
        "elsewhere": {"margin_logit": 0.5, "min_area_px": 9},
    }
    found = read_zones(written(tmp_path, content))
    assert [(name, zone.margin_logit, zone.min_area_px) for name, zone in found.each()] == [
        ("Dichtfläche", -1.0, 4),
        ("rim", 0.0, 1),
        ("elsewhere", 0.5, 9),
    ]
    assert [len(zone.polygons) for zone in found.zones] == [2, 1]
    assert found.least_area_px == 1
    assert from_plain(Zones, json.loads(json.dumps(to_plain(found))), where="calibration.yaml") == found
    assert read_zones(written(tmp_path, GIVEN)).elsewhere == Elsewhere()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", r"not JSON \(.*\); wanted zones"),
        ([], r"the file: \[\]; wanted names with values: image_size_px, zones, elsewhere"),
        (GIVEN | {"zone": 1}, "the file: unknown key 'zone'; choose among image_size_px, zones, elsewhere"),
        ({"zones": [RIM_ZONE]}, "the file: lacks image_size_px"),
        (GIVEN | {"image_size_px": [0, 20]}, r"image_size_px: \[0, 20\]; wanted \[height, width\]"),
        (GIVEN | {"image_size_px": 3}, "the file: image_size_px: 3; wanted two whole numbers"),
        (GIVEN | {"zones": []}, "zones: 0 of them; wanted 1 to 50"),
        (GIVEN | {"zones": RIM_ZONE}, "the file: zones: .*; wanted a list"),
        (GIVEN | {"zones": [RIM_ZONE, RIM_ZONE]}, "zones: two are named 'rim'"),
        (GIVEN | {"zones": [{"name": "rim"}]}, "zone 'rim': lacks polygon"),
        (GIVEN | {"zones": [RIM_ZONE | {"margin": 1}]}, "zone 'rim': unknown key 'margin'; choose among name, polygon"),
        (GIVEN | {"zones": [RIM_ZONE | {"name": 3}]}, "zone 1: name: 3; wanted text"),
        (GIVEN | {"zones": [RIM_ZONE | {"name": "a\nb"}]}, r"zone 'a\\nb': name: 'a\\nb'; wanted a line of"),
        (GIVEN | {"zones": [RIM_ZONE | {"name": "elsewhere"}]}, "zone 'elsewhere': name: .*, not 'elsewhere'"),
        (GIVEN | {"zones": [RIM_ZONE | {"polygon": SQUARE[:2]}]}, "zone 'rim': polygon: a polygon of fewer than three"),
        (GIVEN | {"zones": [RIM_ZONE | {"polygon": []}]}, "zone 'rim': polygon: not a polygon"),
        (
            GIVEN | {"zones": [RIM_ZONE | {"polygon": [[0, 0], [21, 0], [5, 5]]}]},
            r"zone 'rim': polygon: the corner \[21, 0\] lies outside the image, which is 20 px wide",
        ),
        (
            GIVEN | {"zones": [RIM_ZONE | {"margin_logit": float("nan")}]},
            "zone 'rim': margin_logit: nan; wanted a finite",
        ),
        (
            GIVEN | {"zones": [RIM_ZONE | {"margin_logit": 101}]},
            "zone 'rim': margin_logit: 101.0; wanted .* -100 to 100",
        ),
        (
            GIVEN | {"zones": [RIM_ZONE | {"min_area_px": 0}]},
            "zone 'rim': min_area_px: 0; wanted a whole number from 1 to",
        ),
        (
            GIVEN | {"zones": [RIM_ZONE | {"min_area_px": 2**40}]},
            "zone 'rim': min_area_px: 1099511627776; wanted a",
        ),
        (GIVEN | {"zones": [RIM_ZONE | {"min_area_px": 2.5}]}, "zone 'rim': min_area_px: 2.5; wanted a whole number"),
        (GIVEN | {"elsewhere": {"name": "x"}}, "elsewhere: unknown key 'name'; choose among margin_logit, min_area_px"),
        (GIVEN | {"elsewhere": {"min_area_px": 0}}, "elsewhere: min_area_px: 0; wanted a whole number from 1 to"),
    ],
)
def test_a_file_that_is_no_zones_is_refused_by_file_zone_and_key(tmp_path, content, message):
    with pytest.raises(DataError, match=rf"zones\.json: {message}"):
        read_zones(written(tmp_path, content))


# --- calibrations ------------------------------------------------------------------------------------------------


def calibration(**changes: Any) -> Calibration:
    values: dict[str, Any] = {
        "image_score": "zones",
        "threshold_logit": 0.0,
        "accept_logit": None,
        "pixel_logit": 0.0,
        "min_area_px": 1,
        "chosen_by": "false-alarms",
        "max_false_alarms": 0.05,
        "max_escapes": None,
        "confidence": 0.95,
        "part_logits": (-1.0,),
        "images": 1,
        "bad_parts": 0,
        "escapes": 0,
        **dict.fromkeys(("basis", "list_sha256", "weights_sha256", "date"), ""),
        "zones": zones(),
    }
    return Calibration(**values | changes)


def test_zones_and_their_score_belong_together():
    assert from_plain(Calibration, to_plain(calibration()), where="calibration.yaml") == calibration()
    for changes in ({"zones": None}, {"image_score": "map"}):
        with pytest.raises(CalibrationError, match=r"zones: .*; wanted zones where they decide, else null"):
            calibration(**changes)
    with pytest.raises(ConfigError, match="image_score: 'zones', and there are no zones"):
        PostProcessor(image_score="zones")


def predicted(map_logit: np.ndarray, of: Calibration) -> Any:
    layout = Preprocessor.stretch((8, 12)).prepare(np.zeros((8, 12, 3), np.uint8)).layout
    return PostProcessor(calibration=of, image_score="zones")(map_logit, 0.0, layout=layout, path=None)


def test_a_defect_below_its_zones_area_is_not_called_bad_and_the_same_one_elsewhere_is():
    on_rim, elsewhere = drawn((slice(0, 2), slice(7, 9), 4.0)), drawn((slice(5, 7), slice(7, 9), 4.0))
    good, bad = predicted(on_rim, calibration()), predicted(elsewhere, calibration())
    assert (good.verdict, good.defects, good.regions, good.zones_logit) == ("good", (), (), -4.0)
    assert (bad.verdict, len(bad.defects), bad.defects[0].zone, bad.zones_logit) == ("bad", 1, None, 3.5)
    assert (bad.score_logit, bad.map_max_logit, bad.defects[0].peak_logit) == (3.5, 4.0, 4.0)
    # 0.5 on the map from 0 to 1 is the pixel threshold of each zone: -1, 0 and 0.5.
    at_zero = predicted(np.zeros((8, 12), np.float32), calibration()).anomaly_map
    assert (at_zero[:, :4] > 0.5).all()
    assert (at_zero[:3, 4:] == 0.5).all()
    assert (at_zero[3:, 4:] < 0.5).all()


def test_a_threshold_set_at_the_station_keeps_the_zones():
    pytest.importorskip("sqlalchemy")
    from supersimplenet.station.thresholds import with_threshold

    assert with_threshold(calibration(), 2.0, at_ms=0) == replace(
        calibration(),
        threshold_logit=2.0,
        chosen_by="hand",
        max_false_alarms=1.0,
        date=with_threshold(calibration(), 2.0, at_ms=0).date,
    )


def test_the_example_of_the_docs_by_hand(tmp_path):
    (example,) = blocks(ROOT / "docs" / "thresholds.md", "json")
    found = zones_on_map(read_zones(written(tmp_path, example)), Placement.whole((128, 128), (1024, 1024)), "map")
    for rows, columns, wanted in (
        (slice(30, 32), slice(30, 33), 3.0),  # 6 px on the sealing face
        (slice(90, 92), slice(90, 93), -4.0),  # 6 px on the back: nothing, so the face's -5 + 1 are the highest
        (slice(90, 93), slice(90, 93), 1.5),
        (slice(0, 5), slice(50, 56), -4.0),  # 30 px on the rim
    ):
        map_logit = np.full((128, 128), -5, dtype=np.float32)
        map_logit[rows, columns] = 2.0
        assert level_of_zones(map_logit, found) == wanted


def test_a_least_area_of_thousands_of_pixels():
    """More than are searched first."""
    map_logit = np.zeros((100, 100), dtype=np.float32)
    map_logit[5:77, 10:80] = 1.0  # 5040 px
    map_logit[8, 20:30] = 9.0
    everywhere = Zone(name="all", polygons=(((0, 0), (100, 0), (100, 100), (0, 100)),), min_area_px=5040)
    for area, wanted in ((5040, 1.0), (5041, 0.0), (10, 9.0), (11, 1.0)):
        of = Zones(image_size_px=(100, 100), zones=(replace(everywhere, min_area_px=area),))
        assert level_of_zones(map_logit, zones_on_map(of, Placement.whole((100, 100), (100, 100)), "")) == wanted


# --- a model -----------------------------------------------------------------------------------------------------

HALVES = {  # of images of 48 x 64 px, on which they are drawn twice as large
    "image_size_px": [96, 128],
    "zones": [
        {"name": "left", "polygon": [[0, 0], [63, 0], [63, 95], [0, 95]], "margin_logit": -0.1, "min_area_px": 30},
        {"name": "=rim", "polygon": [[64, 0], [127, 0], [127, 30], [64, 30]], "min_area_px": 60},
    ],
    "elsewhere": {"margin_logit": 0.2, "min_area_px": 4},
}
GUARANTEE = ThresholdConfig(max_false_alarms=0.2)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise with a bright spot; the network is not trained, so its scores differ by no law that matters here."""
    folder = tmp_path_factory.mktemp("photographs")
    for kind, count in (("good", 30), ("new", 10)):
        (folder / kind).mkdir()
        for number in range(count):
            generator = np.random.default_rng([ord(kind[0]), number])
            pixels = generator.integers(60, 120, (48, 64, 3), dtype=np.uint8)
            top, left = generator.integers(0, 40), generator.integers(0, 56)
            pixels[top : top + 8, left : left + 8] = generator.integers(60, 255)
            Image.fromarray(pixels).save(folder / kind / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def calibrated_model(photographs: Path) -> Path:
    folder = photographs / "model"
    save_model(folder, SuperSimpleNet(ModelConfig(backbone="compact", image_size=(64, 64)), seed=1).eval(), {})
    calibrate(folder, good=photographs / "good", zones=written(photographs, HALVES), config=GUARANTEE)
    return folder


def test_the_guarantee_is_of_the_score_of_the_zones(calibrated_model, photographs):
    detector = Detector.load(calibrated_model, device="cpu")
    found = detector.predict(sorted((photographs / "good").iterdir()))
    scores = np.array([level_of_zones(p.map_logit, p.zones) for p in found])
    assert [p.zones_logit for p in found] == scores.tolist()
    kept = detector.calibration
    threshold = false_alarm_threshold(scores, max_false_alarms=0.2, confidence=0.95)
    assert kept.threshold_logit == pytest.approx(threshold, abs=1e-5)  # in batches and alone images differ by rounding
    np.testing.assert_allclose(kept.part_logits, np.sort(scores), rtol=0, atol=1e-5)
    # Two of 30: with three, a rate of 20 % would be exceeded with more than 5 % probability (binomial, 12.3 %).
    assert sum(p.verdict == "bad" for p in found) == 2
    assert (kept.image_score, kept.min_area_px, kept.max_false_alarms) == ("zones", 4, 0.2)
    assert kept.zones == read_zones(photographs / "zones.json")
    for prediction in found:
        assert bool(prediction.regions) == (prediction.verdict == "bad")
        assert {defect.zone for defect in prediction.regions} <= {"left", "=rim", None}


@pytest.mark.slow
def test_an_exported_file_gives_the_verdicts_and_zones_of_the_folder(calibrated_model, photographs, tmp_path, capsys):
    file = tmp_path / "model.onnx"
    images = [str(photographs / "good"), str(photographs / "new")]
    export = ["export", "--model", str(calibrated_model), "--images", images[0], "--format", "onnx"]
    assert main([*export, "--output", str(file)]) == 0
    tables = []
    for model in (calibrated_model, file):
        output = tmp_path / f"of_{model.name}"
        assert main(["predict", *images, "--model", str(model), "--output", str(output)]) == 0
        rows = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
        tables.append(rows)
        defects = (output / "defects.csv").read_text().splitlines()
        assert defects[0].split(",")[-1] == "zone"
        cells = {defect.split(",")[-1] for defect in defects[1:]}
        assert cells <= {"", "left", "'=rim"}  # no formula of a spreadsheet
        assert len(defects) - 1 == sum(len(row["defects"]) for row in rows) > 0
    for one, other in zip(*tables, strict=True):
        assert one["verdict"] == other["verdict"]
        assert one["zones_logit"] == one["score_logit"] == pytest.approx(other["zones_logit"], abs=1e-4)
        assert [d["zone"] for d in one["defects"]] == [d["zone"] for d in other["defects"]]
    assert {row["verdict"] for row in tables[0]} == {"good", "bad"}
    inspector = Inspector.load(file)
    assert set(inspector.graph_outputs(photographs / "good" / "00.png")) == set(inspector.bundle.outputs)
    assert {"score_logit", "score", "verdict", "defects"}.isdisjoint(inspector.bundle.outputs)
    other = inspector.bundle.make_postprocessor((80, 96))  # as a file of open size has it
    assert (other.calibration, other.image_score, other.zones) == (None, "zones", inspector.calibration.zones)
    capsys.readouterr()
    assert main([*export, "--size", "96", "96", "--output", str(tmp_path / "other.onnx")]) == 2
    assert "size: 96x96; zones decide, and their areas are pixels at 64x64" in capsys.readouterr().err


@pytest.mark.slow
def test_the_station_decides_by_zones_also_with_a_threshold_set_by_hand(
    calibrated_model, photographs, tmp_path, browser
):
    detector = Detector.load(calibrated_model, device="cpu")
    wanted = max(detector.predict(sorted((photographs / "good").iterdir())), key=lambda one: one.score_logit)
    with StationProcess(calibrated_model, folder=tmp_path / "station") as station:
        found = station.inspect(Path(wanted.path).read_bytes(), name="a.png")
        assert (found["verdict"], found["scores"]["zones_logit"]) == (
            "bad",
            pytest.approx(wanted.zones_logit, abs=1e-5),
        )
        assert [defect["zone"] for defect in found["defects"]] == [defect.zone for defect in wanted.defects]
        with browser.new_page() as page:
            page.goto(f"{station.address}/results/{found['id']}")
            table = page.locator("#defects table")
            assert table.locator("th[scope=col]").last.inner_text() == "Zone"
            assert table.locator("td:last-child").all_inner_texts() == [d.zone or "" for d in wanted.defects]
        body = {"threshold_logit": wanted.score_logit + 1}
        assert station.client.put("/v1/products/parts/threshold", json=body).status_code == 200
        again = station.inspect(Path(wanted.path).read_bytes(), name="b.png")
        assert (again["verdict"], again["scores"]) == ("good", found["scores"])
        facts = station.get(f"/v1/models/{again['model']}")["facts"]
        assert facts["calibration"]["zones"] == to_plain(detector.calibration.zones)


def test_zones_stay_until_others_or_another_score_are_named(calibrated_model, photographs, tmp_path, capsys):
    model, good = tmp_path / "model", photographs / "good"
    shutil.copytree(calibrated_model, model)
    before = read_calibration(model)
    assert calibrate(model, good=good, config=GUARANTEE).calibration == before
    assert "zones as before: 'left' and '=rim'" in capsys.readouterr().err
    dropped = calibrate(model, good=good, config=GUARANTEE, image_score="map").calibration
    assert (dropped.image_score, dropped.zones, dropped.min_area_px) == ("map", None, 25)
    assert "zones dropped: 'left' and '=rim'; the map score decides from now on" in capsys.readouterr().err
    assert calibrate(model, good=good, config=GUARANTEE).calibration.image_score == "map"
    plain = Zones(image_size_px=(3, 4), zones=(Zone(name="all", polygons=(((0, 0), (4, 0), (4, 3)),)),))
    found = calibrate(model, good=good, config=GUARANTEE, zones=plain)
    np.testing.assert_array_equal(found.scores["zones"].good, found.scores["map"].good)  # the map is its own here


def test_what_does_not_go_with_zones_is_refused(calibrated_model, photographs, tmp_path, capsys):
    model, good = tmp_path / "model", photographs / "good"
    shutil.copytree(calibrated_model, model)
    call = ["calibrate", "--model", str(model), "--good", str(good)]
    file = str(photographs / "zones.json")
    for options, message in (
        (["--zones", file, "--image-score", "map"], "zones and image-score: the score of the zones decides"),
        (["--zones", file, "--min-area", "9"], "zones and min-area: each zone has its own least area"),
        (["--zones", file, "--cross", "5"], "zones and cross: models of folds"),
    ):
        assert main([*call, *options]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ConfigError, match="min_area_px: with zones each has its own"):
        calibrate(model, good=good, config=replace(GUARANTEE, min_area_px=9))
    scores = np.zeros(30)
    folds = FoldScores(
        folds=2, steps=1, good_logits=scores, good_levels=scores, images=30, bad=(), held_out_logits=(scores, scores)
    )
    with pytest.raises(ConfigError, match="cross: models of folds set the threshold of a score of the whole image"):
        calibrate(model, good=good, folds=folds)
    with pytest.raises(ConfigError, match="image_score: 'map', but with zones their score decides"):
        calibrate(model, good=good, zones=file, image_score="map")
    calibrate(model, good=good, config=GUARANTEE, image_score="map")
    with pytest.raises(ConfigError, match="image_score: 'zones', and there are no zones; name their file"):
        calibrate(model, good=good, image_score="zones")
    with pytest.raises(
        ConfigError, match=r"image_score: zones; it must be one of head, map, fused, subspace, joint, auto"
    ):
        Recipe(image_score="zones")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"polygon": [[0, 0], [0.3, 0], [0, 0.3]]}, "'left': polygon: covers no pixel of the map, which is 64 x 64 px"),
        ({"min_area_px": 4097}, "'left': min_area_px: 4097; the map, which is 64 x 64 px, has fewer pixels"),
        ({"polygon": [[100, 60], [127, 60], [127, 95]]}, "'left': polygon: lies outside the region of interest"),
    ],
)
def test_zones_of_which_the_map_shows_nothing_are_refused(changes, message):
    of_file = Zone(name="left", polygons=(tuple((float(x), float(y)) for x, y in LEFT),))
    polygon = changes.pop("polygon", None)
    if polygon is not None:
        changes["polygons"] = (tuple((float(x), float(y)) for x, y in polygon),)
    roi = np.zeros((48, 64), dtype=bool)
    roi[:, :40] = True
    given = Zones(image_size_px=(96, 128), zones=(replace(of_file, **changes),))
    with pytest.raises(DataError, match=rf"zones\.json: zone {message}"):
        require_on_map(given, Preprocessor(ViewConfig(), size_px=(64, 64), roi=roi), where="zones.json")


LEFT = HALVES["zones"][0]["polygon"]


def test_an_overlay_shows_where_zones_lie(calibrated_model, photographs):
    prediction = Detector.load(calibrated_model, device="cpu").predict(photographs / "good" / "00.png")
    prediction = replace(prediction, defects=())
    with_zones, without = (
        np.asarray(one.overlay(style="outline")).astype(int) for one in (prediction, replace(prediction, zones=None))
    )
    rows, columns = np.nonzero(np.abs(with_zones - without).max(axis=2) > 40)
    height = 48 * 6  # enlarged six times, to 384 px; the strip is below
    assert rows.max() < height
    assert (np.abs(columns - 32 * 6) < 6).sum() > 200  # the line between both halves
    assert not ((rows > 200) & (rows < 260) & (columns > 20) & (columns < 180)).any()  # nor does it hide anything
