"""What pictures show: overlays, and the sheet of findings; values by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_case import make_samples

from supersimplenet import Detector, ModelConfig, SuperSimpleNet, evaluate
from supersimplenet.errors import ConfigError
from supersimplenet.evaluation.cases import EvaluatedImage
from supersimplenet.evaluation.evaluate import evaluate_again
from supersimplenet.evaluation.results import Outcome
from supersimplenet.postprocessing.defects import find_defects
from supersimplenet.preprocessing.geometry import Placement
from supersimplenet.types import Defect, Prediction, Sample
from supersimplenet.visualization.colours import FOUND
from supersimplenet.visualization.contact_sheet import Findings, _name_lines, draw_contact_sheet, group_findings
from supersimplenet.visualization.fonts import font, shortened
from supersimplenet.visualization.overlay import draw_overlay, map_layer, remark_on_map, score_words

SIZE = (64, 64)


def make_prediction(heat: float, *, size_px: tuple[int, int] = SIZE) -> Prediction:
    return Prediction(
        path=None,
        head_logit=heat,
        map_max_logit=heat,
        fused_logit=heat,
        decides="head",
        verdict="bad" if heat >= 0 else "good",
        map_logit=np.full(SIZE, heat, dtype=np.float32),
        placement=Placement.whole(SIZE, size_px),
    )


def make_outcome(score: float, label: int, defect: str = "good", *, verdict: str | None = None) -> Outcome:
    """Bad from 0.5 on."""
    return Outcome(
        sample=Sample(image=Path(f"{defect}.png"), label=label, split="test", defect=defect),
        head_logit=score,
        map_max_logit=score,
        fused_logit=score,
        score_logit=score,
        threshold_logit=0.5,
        verdict=verdict or ("bad" if score >= 0.5 else "good"),
        p_value=None,
        defects=None,
        has_pixel_labels=True,
    )


def test_each_kind_of_finding_has_a_group_of_its_own():
    pits = [make_outcome(score, 1, "pit") for score in (9.0, 8.0, 7.0, 6.0, 5.0, -1.0, -3.0)]
    crack, unsure = make_outcome(2.0, 1, "crack"), make_outcome(0.2, 1, "crack", verdict="unsure")
    alarm, worse, quiet = make_outcome(3.0, 0), make_outcome(4.0, 0), make_outcome(-4.0, 0)
    best, escapes, alarms, others = group_findings([*pits, crack, quiet, alarm, worse, unsure])
    assert (best.cases, best.total) == ([pits[0], crack, *pits[1:4]], 6)  # types in turn
    assert escapes.cases == [pits[6], pits[5]]
    assert alarms.cases == [worse, alarm]
    assert others.cases == [unsure, pits[4], quiet]  # 0.3 on the wrong side, right by 4.5 (both)
    assert [group.title.split(":")[0] for group in (best, escapes, alarms)] == ["Best", "Escapes", "False alarms"]


def test_a_group_without_a_finding_is_left_out_and_a_large_one_says_so():
    quiet = [make_outcome(-1.0 - number, 0) for number in range(9)]
    (others,) = group_findings(quiet)
    assert (others.cases, others.total) == (quiet[:5], 9)
    assert group_findings([]) == []


def test_overlay_is_the_image_where_the_map_is_cold_and_bright_where_it_is_hot(tmp_path):
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((64, 200, 3), 90, dtype=np.uint8)).save(path)
    cold = np.asarray(draw_overlay(path, make_prediction(-6.0, size_px=(64, 200))))
    hot = np.asarray(draw_overlay(path, make_prediction(6.0, size_px=(64, 200))))
    assert cold.shape[1] == hot.shape[1] == 400  # twice as large, nothing beside it
    assert (cold[:128] == 90).all()
    assert hot[64, 200].astype(int).sum() > 500


def test_contact_sheet_has_a_row_of_pictures_for_each_group(tmp_path):
    samples = [sample for sample in make_samples(tmp_path / "data") if sample.split == "test"][::8]
    detector = Detector(SuperSimpleNet(ModelConfig(backbone="compact", image_size=SIZE), seed=1).eval(), device="cpu")
    groups = group_findings(evaluate(detector, samples).outcomes)
    cases = list(evaluate_again(detector, [outcome for group in groups for outcome in group.cases]))
    assert [case.sample for case in cases] == [outcome.sample for group in groups for outcome in group.cases]
    shown = Findings(title="Best", cases=cases[:1], total=1)
    heights = [draw_contact_sheet([shown] * number, "cast grain").height for number in (1, 2, 3)]
    assert heights[2] - heights[1] == heights[1] - heights[0] > 3 * 176
    long = draw_contact_sheet([shown], "a name of many words " * 12)  # is broken into lines, not cut
    assert (long.width, long.height > heights[0]) == (1048, True)
    five = draw_contact_sheet([replace(shown, cases=cases[:1] * 5, total=9)], "cast grain")
    assert five.size == (1048, heights[0])


def test_a_long_name_has_two_lines():
    assert _name_lines("crack/000.png") == ["crack/000.png"]
    start, end = _name_lines("bad/line_2_camera_1_crack_2026.png")
    assert (start + end, end.endswith("_2026.png")) == ("bad/line_2_camera_1_crack_2026.png", True)
    assert font(12).getlength(end) <= 176


def test_a_picture_of_the_sheet_keeps_the_images_proportions(tmp_path):
    path = tmp_path / "strip.png"
    Image.new("RGB", (400, 100), (90, 90, 90)).save(path)
    prediction = replace(make_prediction(-6.0, size_px=(100, 400)), pixel_logit=1.0)
    sample = Sample(image=path, label=0, split="test")
    case = EvaluatedImage(sample=sample, prediction=prediction, mask=np.zeros(SIZE, bool), ignored=None)
    sheet = np.asarray(draw_contact_sheet([Findings(title="Best", cases=[case], total=1)], "strips"))
    assert ((sheet == 90).all(axis=2).sum(axis=1) == 176).sum() == 2 * 44  # image and map, a quarter as high as wide


def make_defect(left: int, top: int, width: int, height: int) -> Defect:
    """A rectangle, twice as far to each side at the pixel threshold as its outline."""
    return Defect(
        left=left - width,
        top=top - height,
        width=3 * width,
        height=3 * height,
        area_px=9 * width * height,
        peak_logit=1,
        centroid_x=left + (width - 1) / 2,
        centroid_y=top + (height - 1) / 2,
        outline_logit=0.75,
        outline_left=left,
        outline_top=top,
        outline_width=width,
        outline_height=height,
        outline_area_px=width * height,
    )


def test_an_overlay_frames_each_defect_around_its_outline(tmp_path):
    """At 360 px, six times as large: lines of 2 px, 2 px beyond the box, with a dark one on each side."""
    Image.new("RGB", (60, 50), (90, 90, 90)).save(tmp_path / "grey.png")
    prediction = replace(make_prediction(-5.0, size_px=(50, 60)), defects=(make_defect(10, 5, 20, 12),))
    overlay = np.asarray(draw_overlay(tmp_path / "grey.png", prediction))
    assert overlay.shape[1] == 360
    frame = np.zeros((300, 360), dtype=bool)
    frame[25:107, 55:185] = True
    frame[29:103, 59:181] = False
    assert np.array_equal((overlay[:300] != 90).any(axis=2), frame)
    line = np.zeros((300, 360), dtype=bool)
    line[26:106, 56:184] = True
    line[28:104, 58:182] = False
    assert np.array_equal((overlay[:300] == FOUND).all(axis=2), line)
    plain = np.asarray(draw_overlay(tmp_path / "grey.png", prediction, style="outline"))
    assert (plain[:300] == 90).all()  # a map that is cold all over has no outline


def test_a_box_at_the_edge_stays_in_the_picture(tmp_path):
    Image.new("RGB", (360, 300), (90, 90, 90)).save(tmp_path / "grey.png")
    prediction = replace(make_prediction(-5.0, size_px=(300, 360)), defects=(make_defect(0, 280, 20, 20),))
    found = (np.asarray(draw_overlay(tmp_path / "grey.png", prediction))[:300] == FOUND).all(axis=2)
    assert (found[:, 0].sum(), found[299].sum()) == (24, 24)


@pytest.mark.parametrize("style", ["heat", "outline"])
def test_an_outline_goes_round_the_half_of_the_height(style, tmp_path):
    """A cone of slope 1 by hand: peak 31 logits above the threshold, so the outline has half the radius."""
    Image.new("RGB", (400, 400), (90, 90, 90)).save(tmp_path / "grey.png")
    y, x = np.mgrid[:100, :100]
    cone = (31 - np.hypot(y - 50, x - 50)).astype(np.float32)
    whole = Placement.whole((100, 100), (400, 400))
    regions = find_defects(cone, pixel_logit=0, min_area_px=4, placement=whole)
    prediction = replace(
        make_prediction(0.0), map_logit=cone, placement=whole, pixel_logit=0.0, min_area_px=4, defects=regions
    )
    picture = np.asarray(draw_overlay(tmp_path / "grey.png", prediction, style=style))[:400]
    y, x = np.nonzero((picture == FOUND).all(axis=2))
    distance = np.hypot(x - 201.5, y - 201.5) / 4
    near = distance < 17  # the box is further out at its corners
    assert near.sum() > 100
    assert distance.min() > 15.5 - 1.5  # a pixel of the map, and the line's width
    assert near.all() == (style == "outline")
    assert ((picture == 90).all(axis=2).mean() > 0.9) == (style == "outline")


def test_what_counts_nowhere_is_hatched(tmp_path):
    Image.new("RGB", (400, 300), (90, 90, 90)).save(tmp_path / "grey.png")
    ignored = np.zeros(SIZE, dtype=bool)
    ignored[:, 32:] = True
    prediction = replace(make_prediction(-6.0, size_px=(300, 400)), ignored=ignored, pixel_logit=0.0)
    picture = np.asarray(draw_overlay(tmp_path / "grey.png", prediction, style="outline"))[:300]
    changed = (picture != 90).any(axis=2)
    assert not changed[:, :200].any()
    assert 0.45 < changed[:, 200:].mean() < 0.55


@pytest.mark.parametrize(("size_px", "wanted"), [((20, 400), (20, 400)), ((400, 20), (1200, 60)), ((5, 7), (260, 364))])
def test_a_small_image_keeps_its_proportions(size_px, wanted, tmp_path):
    Image.new("RGB", size_px[::-1], (90, 90, 90)).save(tmp_path / "grey.png")
    overlay = np.asarray(draw_overlay(tmp_path / "grey.png", make_prediction(-6.0, size_px=size_px)))
    height, width = wanted
    left = (overlay.shape[1] - width) // 2
    assert (overlay[:height, left : left + width] == 90).all()
    assert overlay.shape[1] == max(width, 360)
    assert not (overlay[height:] == 90).all(axis=2).any()


def test_the_words_below_an_overlay():
    prediction = replace(make_prediction(0.0), verdict="unsure", threshold_logit=2.0, accept_logit=0.0)
    assert score_words(replace(prediction, head_logit=2.0)) == "unsure: score 0.500, threshold 0.5, unsure from 0.119"
    assert score_words(make_prediction(0.0)).endswith(", threshold 0, in logits (not calibrated)")
    assert shortened("folder/000.png", font(13), 60, keep="end").endswith("0.png")
    with pytest.raises(ConfigError, match="style: 'red'; wanted one of heat, outline"):
        draw_overlay(np.zeros((8, 8, 3), np.uint8), prediction, style="red")


def test_an_overlay_rings_the_peak_where_no_region_reaches_the_pixel_threshold(tmp_path):
    Image.new("RGB", (400, 160), (90, 90, 90)).save(tmp_path / "grey.png")
    peak = replace(make_defect(96, 60, 1, 1), below_threshold=True)
    prediction = replace(make_prediction(-5.0, size_px=(160, 400)), defects=(peak,))
    overlay = np.asarray(draw_overlay(tmp_path / "grey.png", prediction))
    y, x = np.nonzero((overlay[:160] != 90).any(axis=2))
    distance = np.hypot(x - 96, y - 60)
    assert distance.size > 40
    assert distance.min() >= 160 / 16 - 3  # a ring, not a disc, of a sixteenth of the shorter side
    assert distance.max() <= 160 / 16 + 2


def test_the_colours_of_a_calibrated_model_say_how_far_the_map_is_from_its_threshold():
    """The same logit has the same colour in each picture; at the threshold the opacity steps from 0.2 to 0.6."""
    below = np.nextafter(np.float32(2), np.float32(0))
    # 0; 0.2 * 127 / 128; 0.6; steps 191 and 242 of 128 to 255: 0.6 + 0.2 * (63 and 114) / 127.
    cases = ((-40.0, 0), (below, 51), (2.0, 153), (6.0, 178), (38.0, 199))
    for level, opacity in cases:
        prediction = replace(make_prediction(level), pixel_logit=2.0)
        layer = map_layer(prediction, (10, 12))
        assert set(layer[..., 3].ravel().tolist()) == {opacity}
    assert set(map_layer(make_prediction(2.0), (10, 12))[..., 3].ravel().tolist()) == {round(0.75 * 170)}  # 2 of 3


def test_a_picture_says_where_the_map_shows_what_the_score_does_not_call_bad(tmp_path):
    cone = 10 - np.hypot(*np.mgrid[-50:50, -50:50]).astype(np.float32)
    whole = Placement.whole((100, 100), (400, 400))
    regions = find_defects(cone, pixel_logit=0, min_area_px=4, placement=whole)
    good = replace(make_prediction(-1.0), map_logit=cone, placement=whole, pixel_logit=0.0, min_area_px=4)
    differs = replace(good, defects=(), regions=regions)
    assert remark_on_map(differs) == "The map reaches its threshold, the score does not: the score decides"
    assert remark_on_map(replace(good, defects=(), regions=())) == ""
    assert remark_on_map(replace(differs, verdict="bad", defects=regions)) == ""
    Image.new("RGB", (400, 400), (90, 90, 90)).save(tmp_path / "grey.png")
    heights = [draw_overlay(tmp_path / "grey.png", found).height for found in (replace(differs, regions=()), differs)]
    assert heights[0] < heights[1]
