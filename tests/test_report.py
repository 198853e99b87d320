"""The report as a file: what stands in it, and what it warns of. How it behaves is in test_report_browser.py."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from report_case import Case, make_case, make_samples, mistakes_at, parts_of
from scipy import stats
from test_compare import make_calibration, make_evaluation

from supersimplenet.datasets.checks.check import check
from supersimplenet.datasets.checks.findings import Evidence, Finding
from supersimplenet.datasets.checks.light import Light, check_light
from supersimplenet.datasets.registry import plain_name
from supersimplenet.errors import ConfigError
from supersimplenet.evaluation.calibrate import ThresholdConfig
from supersimplenet.evaluation.comparison import compare
from supersimplenet.evaluation.evaluate import evaluate, evaluate_again
from supersimplenet.evaluation.few_parts import count_escapes
from supersimplenet.evaluation.rates import nearest_to_wrong, numbers_of
from supersimplenet.metrics.ranking import Metric, auroc
from supersimplenet.metrics.thresholds import Costs
from supersimplenet.preprocessing.loading import Failure
from supersimplenet.report import figures
from supersimplenet.report.cautions import find_cautions
from supersimplenet.report.page import write_page
from supersimplenet.report.text import DASH, at_most, bare, breakable, certainty, meaning, missing, score_of
from supersimplenet.report.thumbnails import draw_picture
from supersimplenet.types import BAD, GOOD, Sample
from supersimplenet.utils.formatting import counted, logit, per_cent, signed
from supersimplenet.visualization.contours import outline, simplify
from supersimplenet.visualization.overlay import blend_map, map_layer


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("report")
    return make_case(folder / "model", make_samples(folder / "data"), config=ThresholdConfig(max_false_alarms=0.5))


def written(path: Path, case: Case, **options) -> str:
    options = {"title": "t", "data_name": "grain", "model_name": "runs/grain", **options}
    light = check(case.samples).light
    write_page(path, evaluation=case.evaluation, detector=case.detector, light=light, **options)
    return path.read_text(encoding="utf-8")


def embedded(html: str, name: str):
    return json.loads(re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', html)[1])


def plain_text(html: str) -> str:
    """What is read without a script."""
    visible = re.sub(r"<(script|style)\b.*?</\1>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", visible)))


@pytest.fixture(scope="module")
def html(case: Case, tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(tmp_path_factory.mktemp("page") / "report.html", case, title="Grain <1> & co")


def test_headline_says_verdicts_rates_and_guarantee(case, html):
    evaluation, text = case.evaluation, plain_text(html)
    alarms, escapes = mistakes_at(evaluation, evaluation.threshold_logit)
    assert 0 < alarms < 8  # or this test shows little
    assert 0 < escapes < 12
    assert "<h1>Grain &lt;1&gt; &amp; co</h1>" in html
    bounds = [
        at_most(stats.binomtest(k, n, alternative="less").proportion_ci(0.95, "exact").high)
        for k, n in ((escapes, 12), (alarms, 8))
    ]
    assert f"{escapes} of 12 bad parts escape" in text
    assert f"{alarms} of 8 good parts" in text
    assert f"at most {bounds[0]} with 95 % confidence" in text
    assert f"at most {bounds[1]})" in text
    assert evaluation.calibration.guarantee() in text
    assert "40 test images, 16 good (8 parts) and 24 bad (12 parts)" in text
    rows = dict(re.findall(r'<tr data-kind="(\w+)">(.*?)</tr>', html, flags=re.DOTALL))
    for kind, label in (("good", GOOD), ("bad", BAD)):
        counts = evaluation.counts(label)
        assert re.findall(r'data-verdict="(\w+)">(\d+)<', rows[kind]) == [
            ("good", str(counts["good"])),
            ("bad", str(counts["bad"])),
        ]


def test_metrics_stand_with_intervals_and_error_bounds(case, html):
    text = plain_text(html)
    deciding = case.evaluation.image_score
    assert f" metric {deciding}, decides " in text
    for name, metric in case.evaluation.metrics.items():
        shown = f"{metric.value:.4f} {certainty(metric)} ".replace("  ", " ")
        assert f" {shown}" in text
        if score_of(name) in (None, deciding):  # the first column
            assert f" {bare(name)} {shown}" in text
        else:
            assert name not in text
    names = re.findall(
        r'<th scope="row">([\w@.-]+)</th>', html[html.index('id="image-metrics"') : html.index('id="types"')]
    )
    assert len(names) == len(set(names)) == 9  # a row each


def test_names_do_not_break_within_their_ending():
    assert breakable("a/b_c.png") == 'a/<wbr>b_<wbr><span class="end">c.png</span>'
    assert breakable(f"crack/{'x' * 30}.png") == f'crack/<wbr>{"x" * 26}<wbr><span class="end">xxxx.png</span>'
    assert breakable("<i>/a.png") == '&lt;i&gt;/<wbr><span class="end">a.png</span>'
    assert breakable("<b>.png") == '<span class="end">&lt;b&gt;.png</span>'


def test_a_folders_name_stands_alone(tmp_path):
    assert plain_name(SimpleNamespace(name="Folder/parts")) == "parts"
    assert plain_name(SimpleNamespace(name="Table/parts")) == "parts"
    assert plain_name(SimpleNamespace(name="MVTecAD/bottle")) == "MVTecAD/bottle"


def test_large_pictures_are_there_where_they_are_larger(case, tmp_path, monkeypatch):
    Image.new("RGB", (1500, 500), (90, 90, 90)).save(tmp_path / "wide.png")
    sample = Sample(image=tmp_path / "wide.png", label=GOOD, split="test")
    seen = next(evaluate_again(case.detector, evaluate(case.detector, [sample]).outcomes))
    picture = draw_picture(seen, case.evaluation.calibration)
    sizes = [
        Image.open(io.BytesIO(base64.b64decode(picture[name].split(",")[1]))).size for name in ("photograph", "large")
    ]
    assert sizes == [(320, 107), (1024, 341)]
    assert draw_picture(seen, None, large=False)["large"] is None


def test_the_file_names_nothing_outside_itself(html):
    without_data = re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "", html)
    assert not re.findall(r"(?:https?:)?//[\w.]+\.\w+", without_data.replace("http://www.w3.org/2000/svg", ""))
    assert not re.findall(r"\b(?:src|href)=\"(?!#)[^\"]+", without_data)
    assert "default-src 'none'" in html
    assert html.count("<script") == html.count("</script") == 3


def test_text_of_the_data_cannot_end_the_script(case, tmp_path):
    outcomes = list(case.evaluation.outcomes)
    evil = "</script><script>alert(1)</script>"
    outcomes[0] = replace(outcomes[0], sample=replace(outcomes[0].sample, group=evil, defect="<b>&"))
    evaluation = replace(case.evaluation, outcomes=outcomes)
    html = written(tmp_path / "r.html", replace_case(case, evaluation), pictures=0)
    assert html.count("<script") == 3
    assert embedded(html, "numbers")["images"][0]["group"] == evil
    assert "<b>&" not in re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)


def replace_case(case: Case, evaluation) -> Case:
    return Case(detector=case.detector, samples=case.samples, evaluation=evaluation)


def test_numbers_come_back_to_the_last_bit(case, html):
    plain, evaluation = embedded(html, "numbers"), case.evaluation
    assert [image["score"] for image in plain["images"]] == [o.score_logit for o in evaluation.outcomes]
    assert plain["threshold"] == evaluation.threshold_logit
    assert plain["goodParts"] == sorted(max(part) for part in parts_of(evaluation, GOOD))
    assert plain["badParts"] == sorted(min(part) for part in parts_of(evaluation, BAD))
    assert plain["goodMargin"] == pytest.approx(np.sqrt(np.log(20) / (2 * 8)))
    assert plain["badMargin"] == pytest.approx(np.sqrt(np.log(20) / (2 * 12)))
    for bounds, parts in ((plain["goodBounds"], 8), (plain["badBounds"], 12)):
        assert bounds[-1] == 1
        for events in range(parts):
            assert stats.binom.cdf(events, parts, bounds[events]) == pytest.approx(0.05)


def test_each_position_of_the_slider_tells_the_images_apart_differently(case):
    numbers = numbers_of(case.evaluation)
    positions = numbers.positions()
    scores = np.array([outcome.score_logit for outcome in case.evaluation.outcomes])
    called_bad = [int((scores >= position).sum()) for position in positions]
    assert called_bad == list(range(len(np.unique(scores)), -1, -1))
    assert numbers.threshold_logit in positions.tolist()
    assert np.all(np.diff(positions) > 0)


def test_positions_between_adjacent_floats_and_of_equal_scores():
    low, high = 1.0, float(np.nextafter(1.0, 2))
    assert numbers_of(make_evaluation([low], [high])).positions().tolist()[1] == high
    same = numbers_of(make_evaluation([1.0], [1.0], calibration=make_calibration(1.0))).positions()
    assert same.tolist() == [1.0, 2.0]  # all are bad from the threshold itself on, none from beyond


def test_pictures_are_those_nearest_to_a_wrong_verdict(case, tmp_path):
    html = written(tmp_path / "r.html", case, pictures=5)
    threshold = case.evaluation.threshold_logit
    margin = [(o.score_logit - threshold) * (1 if o.sample.label else -1) for o in case.evaluation.outcomes]
    assert list(map(int, embedded(html, "pictures"))) == np.argsort(margin, kind="stable")[:5].tolist()
    assert "5 of 40 images have a picture here" in plain_text(html)
    assert len(embedded(html, "numbers")["images"]) == 40
    with pytest.raises(ConfigError, match="pictures: -1"):
        written(tmp_path / "r.html", case, pictures=-1)


def test_a_picture_holds_photograph_heat_and_outlines(case, html):
    drawn = embedded(html, "pictures")
    assert len(drawn) == 40
    bad = next(place for place, o in enumerate(case.evaluation.outcomes) if o.sample.label and o.defects)
    picture = drawn[str(bad)]
    seen = next(evaluate_again(case.detector, [case.evaluation.outcomes[bad]]))
    photograph, heat = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(picture[name].split(",")[1]))), dtype=float)
        for name in ("photograph", "heat")
    )
    original = np.asarray(Image.open(seen.sample.image), dtype=float)
    assert np.abs(photograph - original).mean() < 6  # lossy, of a grainy picture
    opacity = map_layer(seen.prediction, (64, 64))[..., 3]
    assert np.abs(heat[..., 3] - opacity).mean() < 3
    assert picture["truth"] == outline(seen.mask)
    calibration = case.evaluation.calibration
    assert picture["found"].count("M") >= len(case.evaluation.outcomes[bad].defects)
    above = seen.prediction.map_logit >= calibration.pixel_logit
    assert area_within(picture["found"]) == pytest.approx(
        sum(defect.outline_area_px for defect in case.evaluation.outcomes[bad].defects), rel=0.1, abs=2
    )
    assert area_within(outline(above)) >= area_within(picture["found"]) - 1e-9
    assert picture["size"] == [64, 64]


def test_the_page_lists_by_the_verdict_at_its_slider(case, html):
    """It holds all regions and the peak of each image; at the model's threshold its rule gives the model's own list."""
    images, drawn = embedded(html, "numbers")["images"], embedded(html, "pictures")
    names = ("left", "top", "width", "height", "area_px", "peak_logit", "centroid_x", "centroid_y")
    seen = set()
    for image, outcome in zip(images, case.evaluation.outcomes, strict=True):
        bad = image["score"] >= case.evaluation.threshold_logit
        listed = (image["regions"] or [image["peak"]]) if bad else []
        assert listed == [[getattr(defect, name) for name in names] for defect in outcome.defects]
        picture = drawn[str(image["id"])]
        assert (picture["found"] == "") == (not image["regions"])
        assert (picture["peak"] == "") == bool(image["regions"])
        seen.add((bad, bool(image["regions"])))
    assert len(seen) >= 3  # or this test shows little
    ring = next(drawn[str(image["id"])]["peak"] for image in images if not image["regions"])
    image = next(image for image in images if not image["regions"])
    left, y, *arcs = map(float, re.findall(r"-?\d+\.?\d*", ring))
    assert left + arcs[0] == pytest.approx(image["peak"][6] + 0.5, abs=0.11)  # the drawing is as large as the image
    assert y == pytest.approx(image["peak"][7] + 0.5, abs=0.06)
    assert arcs[0] == arcs[1] == 4.0


def area_within(path: str) -> float:
    """By the shoelace formula; holes run the other way round and are taken off."""
    area = 0.0
    for loop in re.findall(r"M([^Z]*)Z", path):
        x, y = np.array(loop.split(), dtype=float).reshape(-1, 2).T
        area += float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    return area


def test_the_heat_layer_laid_over_the_image_is_the_overlay(case):
    seen = next(evaluate_again(case.detector, case.evaluation.outcomes[-1:]))
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    layer = map_layer(seen.prediction, (64, 64)).astype(float)
    blended = pixels + layer[..., 3:] / 255 * (layer[..., :3] - pixels)
    # Colour and opacity are rounded to 8 bits, each by half a level at most.
    assert np.abs(blended - blend_map(pixels, seen.prediction)).max() <= 2


def test_outlines_go_round_regions_holes_and_single_pixels():
    mask = np.zeros((8, 8), dtype=bool)
    assert outline(mask) == ""
    mask[2, 3] = True
    assert sorted(re.findall(r"[\d.]+ [\d.]+", outline(mask))) == ["3 2.5", "3.5 2", "3.5 3", "4 2.5"]
    mask[:] = True
    whole = outline(mask)
    assert whole.count("M") == 1
    assert area_within(whole) == pytest.approx(64 - 4 * 0.125)  # the corners are cut by half a pixel
    mask[3:5, 3:5] = False
    assert outline(mask).count("M") == 2
    assert area_within(outline(mask)) == pytest.approx(64 - 0.5 - (4 - 0.5))
    mask[:] = False
    mask[1, 1] = mask[2, 2] = True  # they touch at a corner
    assert area_within(outline(mask)) == pytest.approx(2 * 0.5)


def test_a_simplified_line_stays_within_the_tolerance():
    x = np.linspace(0, 10, 500)
    points = np.stack([x, np.sin(x)], axis=1)
    thin = simplify(points, 0.01)
    assert len(thin) < 80
    # The tolerance is across the line, which rises by 45 degrees at most.
    assert np.abs(np.interp(x, thin[:, 0], thin[:, 1]) - np.sin(x)).max() <= 0.01 * np.sqrt(2)
    assert thin[0].tolist() == points[0].tolist()
    assert thin[-1].tolist() == points[-1].tolist()


def drawn_line(drawing: str) -> np.ndarray:
    """The points of a figure's curve in the values of its axes."""
    x0, x1, y0, y1 = map(float, re.search(r'data-domain="([^"]+)"', drawing)[1].split())
    left, right, bottom, top = map(float, re.search(r'data-range="([^"]+)"', drawing)[1].split())
    path = re.search(r'class="line" d="M([^"]+)"', drawing)[1]
    points = np.array(path.replace("L", " ").split(), dtype=float).reshape(-1, 2)
    return np.stack(
        [
            x0 + (points[:, 0] - left) / (right - left) * (x1 - x0),
            y0 + (bottom - points[:, 1]) / (bottom - top) * (y1 - y0),
        ],
        axis=1,
    )


def test_curves_enclose_the_area_that_the_metrics_say(case):
    evaluation = case.evaluation
    numbers = numbers_of(evaluation)
    labels = [outcome.sample.label for outcome in evaluation.outcomes]
    area = auroc([outcome.score_logit for outcome in evaluation.outcomes], labels)
    # Half a pixel of 412 by 240, and a line thinned by 0.2 px.
    roc = drawn_line(figures.draw_roc(numbers))
    assert np.trapezoid(roc[:, 1], roc[:, 0]) == pytest.approx(area, abs=0.004)
    precision = drawn_line(figures.draw_precision_recall(numbers))
    assert np.trapezoid(precision[:, 1], precision[:, 0]) == pytest.approx(
        evaluation.metrics["AP-det"].value, abs=0.004
    )
    overlap = drawn_line(figures.draw_overlap(evaluation.overlap_curve))
    assert np.trapezoid(overlap[:, 1], overlap[:, 0]) / 0.3 == pytest.approx(
        evaluation.metrics["AUPRO"].value, abs=0.004
    )
    assert len(overlap) < 300


def test_the_cost_curve_is_the_cost_at_each_threshold():
    numbers = numbers_of(
        make_evaluation([-2.0, -1.0, 0.5], [0.0, 1.0]), costs=Costs(false_alarm=1, escape=10), bad_share=0.1
    )
    line = drawn_line(figures.draw_costs(numbers))
    for threshold, alarms, escapes in (
        (-1.5, 2 / 3, 0),
        (-0.5, 1 / 3, 0),
        (0.25, 1 / 3, 0.5),
        (0.75, 0, 0.5),
        (1.02, 0, 1),
    ):
        cost = 0.9 * alarms + 0.1 * 10 * escapes
        # The line is level there: the points before and after have the same height.
        after = int(np.searchsorted(line[:, 0], threshold))
        assert line[[after - 1, after], 1] == pytest.approx([cost, cost], abs=0.01)
    assert figures.draw_costs(numbers_of(make_evaluation([-1.0], [1.0]))) is None


def test_curves_are_left_out_where_a_kind_is_missing():
    numbers = numbers_of(make_evaluation([-1.0, 1.0], []))
    assert figures.draw_roc(numbers) is None
    assert figures.draw_precision_recall(numbers) is None
    assert figures.draw_overlap(None) is None
    assert "0 bad images" in figures.draw_histogram(numbers)


def cautions_of(evaluation, *, steps=300, smallest=None, findings=(), costs=None) -> list[tuple[str, str]]:
    record = {"training": {"plan": {"total_steps": steps}, "smallest_defect": smallest}}
    record["model"] = {"image_size": [128, 128]}
    numbers = numbers_of(evaluation, costs=costs)
    found = find_cautions(evaluation, numbers, record=record, findings=findings, costs=costs)
    return [(caution.level, caution.text) for caution in found]


def many(score: float, count: int) -> list[float]:
    return [score] * count


def test_a_test_without_flaw_is_warned_of_nothing():
    evaluation = make_evaluation([*many(-1.0, 98), *many(1.0, 2)], many(1.0, 60))
    assert cautions_of(evaluation) == cautions_of(evaluation, steps=0) == []  # 0: a subspace alone


def test_defects_that_are_too_small_for_the_input_are_named():
    evaluation = make_evaluation([*many(-1.0, 98), *many(1.0, 2)], many(1.0, 60))
    ((level, text),) = cautions_of(evaluation, smallest={"width_px": 9.0, "image_px": [640, 640]})
    assert level == "doubt"
    assert text.startswith("In the training, smallest defects: 9 px wide of 640x640; at 128x128 that is 1.8 px, not")
    assert cautions_of(evaluation, smallest={"width_px": 40.0, "image_px": [640, 640]}) == []


def test_a_short_training_is_named():
    evaluation = make_evaluation([*many(-1.0, 98), *many(1.0, 2)], many(1.0, 60))
    ((level, text),) = cautions_of(evaluation, steps=16)
    assert level == "grave"
    assert text.startswith("Trained for only 16 steps: expect little of this model before some 200; give it more")


def test_an_uncalibrated_model_is_said_to_guarantee_nothing(case, tmp_path):
    evaluation = replace(case.evaluation, calibration=None, threshold_logit=0.0)
    html = written(tmp_path / "r.html", replace_case(case, evaluation), pictures=1)
    assert "Not calibrated. No guarantee holds at this threshold." in plain_text(html)
    assert "Guaranteed:" not in plain_text(html)
    assert cautions_of(make_evaluation(many(-1.0, 90), many(1.0, 60), calibration=None)) == []  # said once is enough
    assert embedded(html, "pictures").popitem()[1]["found"] is None


def test_the_escapes_that_were_expected_stand_beside_those_that_were_found(case, html, tmp_path):
    bad = [Sample(image=Path(str(place)), label=BAD, split="train", defect="dent") for place in range(8)]
    expected = count_escapes(bad, [True] * 3 + [False] * 5, basis="8 bad parts that the model was not trained on")
    calibration = replace(case.evaluation.calibration, expected_escapes=expected)
    evaluation = replace(case.evaluation, calibration=calibration)
    text = plain_text(written(tmp_path / "r.html", replace_case(case, evaluation), pictures=1)).replace("\u00a0", " ")
    assert "Expected before this test: 3 of 8 bad parts (37.5 %, 95 % interval 8.5 % to 75.5 %) escape." in text
    assert "These are 8 bad parts that the model was not trained on." in text
    assert "Expected before this test" not in plain_text(html)


@pytest.mark.parametrize(("alarms", "contradicts"), [(9, False), (10, True)])
def test_a_test_that_contradicts_the_guarantee_is_said_to(alarms, contradicts):
    """100 good parts, 5 % guaranteed: P(9 or more) = 6.3 %, P(10 or more) = 2.8 %."""
    assert (stats.binom.sf(alarms - 1, 100, 0.05) < 0.05) == contradicts
    texts = [t for _, t in cautions_of(make_evaluation([*many(-1.0, 100 - alarms), *many(1.0, alarms)], many(1.0, 60)))]
    assert any("contradicts the guarantee" in text for text in texts) == contradicts
    if contradicts:
        assert "false alarms in 10 of 100 good parts (10.0 %), though at most 5 % are guaranteed" in texts[0]
        assert "in at most 2.8 % of tests" in texts[0]


def test_few_parts_and_missing_kinds_are_said():
    few_bad = cautions_of(make_evaluation(many(-1.0, 100), many(1.0, 10)))
    assert few_bad == [
        (
            "doubt",
            "Only 10 bad parts in the test: even without a single escape, up to 25.9 % remain possible "
            "(95 % confidence).",
        )
    ]
    assert ("grave", "No bad test image: the test says nothing of escapes.") in cautions_of(
        make_evaluation(many(-1.0, 100), [])
    )
    few = replace(make_calibration(), part_logits=(-2.0,) * 20, max_false_alarms=0.14)
    (level, text), *_ = cautions_of(make_evaluation(many(-1.0, 100), many(1.0, 60), calibration=few))
    assert level == "doubt"
    assert "20 can guarantee no less than 14 % false alarms. 59 good parts guarantee 5 %, 299 guarantee 1 %" in text


def test_findings_of_weight_are_told_leaks_first_and_notes_left_out():
    evidence = tuple(Evidence(images=(Path(f"data/{i}.png"),), detail="d") for i in range(5))
    findings = [
        Finding(level="warning", code="image-size", message="5 images not 64x64", evidence=evidence),
        Finding(
            level="error", code="duplicate-across-splits", message="2 images in both splits", evidence=evidence[:1]
        ),
        Finding(level="note", code="mask-missing", message="no mask"),
    ]
    evaluation = make_evaluation(many(-1.0, 100), many(1.0, 60))
    found = find_cautions(evaluation, numbers_of(evaluation), record={}, findings=findings, costs=None)
    assert [(caution.level, caution.text) for caution in found] == [
        ("grave", "The data: 2 images in both splits."),
        ("doubt", "The data: 5 images not 64x64."),
    ]
    assert found[1].examples == ("0.png: d", "1.png: d", "2.png: d", "and 2 more")


def test_unreadable_images_are_counted_and_named():
    failure = Failure(index=3, path=Path("a/x.png"), reason="a/x.png: the file is empty")
    evaluation = make_evaluation(many(-1.0, 100), many(1.0, 60), failures=[failure])
    found = find_cautions(evaluation, numbers_of(evaluation), record={}, findings=(), costs=None)
    assert found[0].level == "grave"
    assert found[0].text.startswith("1 test image could not be read")
    assert found[0].examples == ("x.png: the file is empty",)


def test_another_score_that_is_better_by_far_is_named():
    rng = np.random.default_rng(0)
    good, bad = rng.normal(0, 1, 100), rng.normal(0.5, 1, 60)
    evaluation = make_evaluation(good.tolist(), bad.tolist())
    better = [replace(o, map_max_logit=float(o.sample.label)) for o in evaluation.outcomes]
    evaluation = replace(evaluation, outcomes=better)
    evaluation.metrics["seg-I-AUROC"] = replace(evaluation.metrics["I-AUROC"], value=1.0)
    texts = [text for _, text in cautions_of(evaluation) if "Another score" in text]
    assert len(texts) == 1
    assert "the map's maximum has I-AUROC 1.000" in texts[0]


def test_light_is_the_median_brightness_and_contrast_of_good_images(tmp_path):
    samples = []
    for place in range(24):
        split = "train" if place < 12 else "test"
        level, swing = (100 + place % 3, 10) if split == "train" else (100 + place % 3, 30)
        pixels = np.full((8, 8), level, dtype=np.uint8)
        pixels[::2] += swing
        pixels[1::2] -= swing
        path = tmp_path / f"{place}.png"
        Image.fromarray(pixels).save(path)
        samples.append(Sample(image=path, label=GOOD, split=split))
    checked = check(samples)
    brightness, contrast = checked.light
    assert (brightness.what, brightness.train, brightness.test) == ("brightness", 101, 101)
    assert not brightness.shifted
    assert (contrast.train, contrast.test, contrast.images) == (10, 30, (12, 12))
    assert contrast.shifted
    assert check(samples[:15]).light == ()
    evaluation = make_evaluation(many(-1.0, 100), many(1.0, 60))
    shift = [finding for finding in checked.findings if finding.code == "contrast-shift"]
    ((level, text),) = cautions_of(evaluation, findings=shift)
    assert level == "doubt"
    assert "of more contrast than good training images: median contrast 30 against 10 of 255" in text
    darker = Light(what="brightness", train=120.0, test=90.0, spread=8.0, images=(50, 50))
    assert [finding.code for finding in check_light([brightness, darker])] == ["brightness-shift"]


def test_order_is_by_distance_to_a_wrong_verdict_with_a_grey_zone():
    grey = make_calibration(threshold=1.0, accept=-1.0)
    evaluation = make_evaluation([0.5, 3.0, -2.0], [-1.5, 0.0, 4.0], calibration=grey)
    # Margins: 0.5, -2, 3 of the good ones; -0.5, 1, 5 of the bad ones.
    assert nearest_to_wrong(numbers_of(evaluation), evaluation.outcomes) == [1, 3, 0, 4, 2, 5]


def test_a_comparison_stands_in_the_report(case, tmp_path):
    other = make_case(tmp_path / "other", case.samples, seed=2, config=ThresholdConfig(max_false_alarms=0.5))
    comparison = compare(case.evaluation, other.evaluation, names=("new model", "old model"))
    html = written(tmp_path / "r.html", case, comparison=comparison, pictures=0)
    text = plain_text(html)
    assert comparison.changes
    assert f"Images that get another verdict ({len(comparison.changes)})" in text
    assert "first: new model" in text
    for change in comparison.changes:
        assert f'<a href="#image-{change.place}">' in html
    for row in comparison.differences:
        assert row.says in text


def test_unlabelled_pixels_and_undefined_metrics_say_why(case, tmp_path):
    good_only = replace(
        case.evaluation,
        outcomes=[o for o in case.evaluation.outcomes if o.sample.label == GOOD],
        metrics=dict.fromkeys(case.evaluation.metrics, make_evaluation([-1.0], []).metrics["I-AUROC"]),
        types=[],
        sizes=[],
        overlap_curve=None,
    )
    text = plain_text(
        written(tmp_path / "r.html", replace_case(case, good_only), pictures=1, costs=Costs(false_alarm=1, escape=2))
    )
    assert text.count("Undefined, one class only: 0 bad and 1 good; wanted at least one of each.") == 2
    assert text.count("ndefined") == 2  # images, pixels: a sentence each in place of a table
    assert "Intervals:" not in text
    assert "No bad test image: the test says nothing of escapes." in text
    assert "No costs are shown: they need good and bad test images." in text
    assert "not known: no such part in the test" in text


def test_without_masks_no_column_of_regions_and_no_layer_of_marks(case, tmp_path):
    types = case.evaluation.types
    assert len(types) > 1
    undefined = make_evaluation([-1.0], []).metrics["I-AUROC"]

    def without(row):
        return replace(row, regions=0, found=0, metrics={**row.metrics, "AUPRO": undefined, "AP-loc": undefined})

    def table_of(rows):
        outcomes = [
            replace(o, sample=replace(o.sample, mask=None), has_pixel_labels=False) if o.sample.label == BAD else o
            for o in case.evaluation.outcomes
        ]
        changed = replace(case.evaluation, types=rows, sizes=[], outcomes=outcomes)
        html = written(tmp_path / "r.html", replace_case(case, changed), pictures=2)
        assert "marked as defective" not in html
        return plain_text(html[html.index('<table id="types">') : html.index('id="wrong-title"')])

    none = table_of([without(row) for row in types])
    assert "type images escapes I-AUROC" in none
    assert not {"regions", "found", "AUPRO", "AP-loc"} & set(none.split())
    assert "No bad test image has a mask that counts, so no region is counted." in none
    some = table_of([without(types[0]), *types[1:]])
    assert "I-AUROC regions found AUPRO AP-loc" in some
    assert f" {types[0].metrics['I-AUROC'].value:.3f} {' '.join(DASH * 4)} {types[1].defect} " in some
    assert f"{DASH}: no image of the type has a mask that counts." in some
    assert "ndefined" not in some


def test_a_reason_is_one_sentence_and_names_its_metrics_where_there_are_several():
    undefined, exact = Metric(value=None, reason="one class only"), Metric(value=1.0, no_interval="too few parts")
    assert missing({"I-AUROC": Metric(value=0.5), "seg-I-AUROC": Metric(value=0.5)}) == []
    assert missing(dict.fromkeys(["I-AUROC", "seg-I-AUROC"], undefined)) == ["Undefined, one class only."]
    other = replace(exact, no_interval="every bootstrap sample gives the same value")
    assert missing({"I-AUROC": exact, "seg-I-AUROC": exact, "AUPRO": other, "AP-loc": undefined}) == [
        "Undefined, one class only.",
        "No interval, too few parts: I-AUROC of head, I-AUROC of map.",
        "No interval, every bootstrap sample gives the same value: AUPRO.",
    ]
    assert certainty(exact) == DASH


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (per_cent(0.0625), "6.3 %"),
        (at_most(0.0501), "5.1 %"),
        (at_most(1.2), "100 %"),
        (logit(-1.23456), "\N{MINUS SIGN}1.235"),
        (signed(0.01), "+0.010"),
        (counted(1, "part"), "1 part"),
        (counted(2000, "part"), "2,000 parts"),
        (bare("seg-I-AUROC"), "I-AUROC"),
        (score_of("fused-AP-det"), "fused"),
        (score_of("I-AUROC"), "head"),
        (score_of("AUPRO"), None),
        (meaning("seg-AP-det"), meaning("AP-det")),
    ],
)
def test_numbers_in_words(text, wanted):
    assert text == wanted


def test_error_bounds_are_rounded_up(case):
    metric = replace(case.evaluation.metrics["P-AUROC"], interval=None, no_interval=None, error_bound=3.12e-5)
    assert certainty(metric) == "counted in bins: off by at most 0.00004"
