"""Two evaluations of the same images side by side, and the gate that lets one model take another's place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from supersimplenet.errors import ConfigError, MetricError
from supersimplenet.evaluation.comparison import compare
from supersimplenet.evaluation.gate import gate
from supersimplenet.evaluation.results import Evaluation, Outcome
from supersimplenet.metrics.bootstrap import paired_differences
from supersimplenet.metrics.ranking import auroc, measure, rank, ranked_auroc, ranked_average_precision, ranked_f1_max
from supersimplenet.postprocessing.calibration import Calibration, verdict
from supersimplenet.preprocessing.loading import Failure
from supersimplenet.types import Sample

METRICS = {"I-AUROC": ranked_auroc, "AP-det": ranked_average_precision, "I-F1-max": ranked_f1_max}


def make_calibration(threshold: float = 0.0, accept: float | None = None) -> Calibration:
    return Calibration(
        image_score="head",
        threshold_logit=threshold,
        accept_logit=accept,
        pixel_logit=0.0,
        min_area_px=25,
        chosen_by="false-alarms",
        max_false_alarms=0.05,
        max_escapes=None,
        confidence=0.95,
        part_logits=tuple(np.linspace(-3, -0.1, 59).tolist()),
        images=59,
        bad_parts=0,
        escapes=0,
        basis="made for a test",
        list_sha256="0" * 64,
        weights_sha256="0" * 64,
        date="2026-11-25",
    )


CALIBRATION = make_calibration()


def make_evaluation(
    good: list[float],
    bad: list[float],
    *,
    calibration: Calibration | None = CALIBRATION,
    groups: list[str | None] | None = None,
    failures: list[Failure] | None = None,
) -> Evaluation:
    threshold = 0.0 if calibration is None else calibration.threshold_logit
    labels = [0] * len(good) + [1] * len(bad)
    outcomes = [
        Outcome(
            sample=Sample(
                image=Path(f"parts/{'bad' if label else 'good'}/{place}.png"),
                label=label,
                split="test",
                defect="dent" if label else "good",
                group=None if groups is None else groups[place],
            ),
            head_logit=score,
            map_max_logit=score,
            fused_logit=score,
            score_logit=score,
            threshold_logit=threshold,
            verdict=verdict(score, calibration),
            p_value=None if calibration is None else calibration.p_value(score),
            defects=None,
            has_pixel_labels=False,
        )
        for place, (score, label) in enumerate(zip([*good, *bad], labels, strict=True))
    ]
    found = measure(METRICS, lambda: rank([*good, *bad], labels))
    return Evaluation(
        metrics={f"{prefix}{name}": metric for prefix in ("", "seg-", "fused-") for name, metric in found.items()},
        outcomes=outcomes,
        types=[],
        sizes=[],
        overlap_curve=None,
        failures=failures or [],
        calibration=calibration,
        threshold_logit=threshold,
        image_score="head",
        resolution="model",
        size_px=(64, 64),
    )


def test_rates_changes_and_mcnemar_of_parts_counted_by_hand():
    """Good parts a (two images) and b, bad parts c (two images), d, e; an unsure verdict is no mistake."""
    groups = ["a", "a", "b", "c", "c", "d", "e"]
    grey = make_calibration(threshold=1.0, accept=-1.0)
    first = make_evaluation([-2.0, 2.0, -2.0], [3.0, -3.0, 3.0, 0.0], calibration=grey, groups=groups)
    second = make_evaluation([-2.0, -2.0, -2.0], [3.0, 3.0, -2.0, -2.0], calibration=grey, groups=groups)
    comparison = compare(first, second, names=("new", "old"))
    sides = comparison.sides
    assert [side.name for side in sides] == ["new", "old"]
    assert [(side.false_alarms.wrong, side.false_alarms.parts) for side in sides] == [(1, 2), (0, 2)]
    assert [(side.escapes.wrong, side.escapes.parts) for side in sides] == [(1, 3), (2, 3)]  # c; d and e
    assert [side.unsure for side in sides] == [1, 0]
    # Of 2 in 3, with 95 % confidence: the rate at which 2 or fewer come up in one case of twenty.
    assert stats.binom.cdf(2, 3, sides[1].escapes.bound) == pytest.approx(0.05, abs=1e-12)
    assert [(c.image.name, c.first, c.second) for c in comparison.changes] == [
        ("1.png", "bad", "good"),
        ("4.png", "good", "bad"),
        ("5.png", "bad", "good"),
        ("6.png", "unsure", "good"),
    ]
    assert [change.place for change in comparison.changes] == [1, 4, 5, 6]
    # Only the first is right on d and e, only the second on a and c.
    assert (comparison.only_first_right, comparison.only_second_right) == (2, 2)
    assert comparison.p_value == 1.0


def test_mcnemar_counts_one_sided_disagreement():
    first = make_evaluation([-1.0] * 8, [1.0] * 8)
    second = make_evaluation([1.0] * 6 + [-1.0] * 2, [1.0] * 8)
    comparison = compare(first, second, names=("a", "b"))
    assert (comparison.only_first_right, comparison.only_second_right) == (6, 0)
    assert comparison.p_value == pytest.approx(2 * 0.5**6)


def test_differences_are_those_of_the_deciding_scores():
    rng = np.random.default_rng(3)
    good, bad = rng.normal(0, 1, 40), rng.normal(1, 1, 30)
    worse = rng.normal(0, 1, 30)
    first, second = make_evaluation(good.tolist(), bad.tolist()), make_evaluation(good.tolist(), worse.tolist())
    labels = [0] * 40 + [1] * 30
    differences = {row.name: row for row in compare(first, second, names=("a", "b")).differences}
    assert list(differences) == ["I-AUROC", "AP-det", "I-F1-max"]
    row = differences["I-AUROC"]
    assert row.first == auroc([*good, *bad], labels)
    assert row.second == auroc([*good, *worse], labels)
    wanted = paired_differences([*good, *bad], [*good, *worse], labels, [None] * 70, generator=np.random.default_rng(0))
    assert row.interval == wanted["I-AUROC"]
    assert row.interval.low > 0
    assert row.says == "the first is better"
    turned = {row.name: row for row in compare(second, first, names=("b", "a")).differences}
    assert turned["I-AUROC"].says == "the second is better"
    same = compare(first, first, names=("a", "a"))
    assert [row.says for row in same.differences] == [
        "no difference on these images, which says nothing about others"
    ] * 3
    assert same.changes == ()


def test_an_interval_around_0_leaves_open_which_is_better():
    rng = np.random.default_rng(4)
    good, bad = rng.normal(0, 1, 30), rng.normal(1, 1, 20)
    first = make_evaluation(good.tolist(), bad.tolist())
    second = make_evaluation((good + rng.normal(0, 0.3, 30)).tolist(), (bad + rng.normal(0, 0.3, 20)).tolist())
    row = compare(first, second, names=("a", "b")).differences[0]
    assert row.interval.low < 0 < row.interval.high
    assert row.says == "leaves open which is better"


def test_metrics_that_one_class_leaves_undefined_are_said_to_be():
    one_class = make_evaluation([-1.0, 1.0], [])
    assert {row.says for row in compare(one_class, one_class, names=("a", "b")).differences} == {
        "not defined on these images"
    }


def test_other_images_are_refused_and_the_first_is_named():
    whole = make_evaluation([-1.0, -1.0], [1.0])
    fewer = replace(whole, outcomes=[whole.outcomes[0], whole.outcomes[2]])
    with pytest.raises(MetricError, match=r"^parts/good/1\.png: not there in the first evaluation, good in the second"):
        compare(fewer, whole, names=("a", "b"))
    relabelled = replace(whole.outcomes[1], sample=replace(whole.outcomes[1].sample, label=1))
    other = replace(whole, outcomes=[whole.outcomes[0], relabelled, whole.outcomes[2]])
    with pytest.raises(MetricError, match=r"^parts/good/1\.png: good in the first evaluation, bad in the second"):
        compare(whole, other, names=("a", "b"))
    grouped = make_evaluation([-1.0, -1.0], [1.0], groups=["x", None, None])
    with pytest.raises(MetricError, match=r"^parts/good/0\.png: good in the first .*, good, part x in the second"):
        compare(whole, grouped, names=("a", "b"))


def test_the_order_of_images_does_not_matter():
    first = make_evaluation([-1.0, 2.0], [1.0, -2.0])
    turned = replace(first, outcomes=first.outcomes[::-1])
    assert compare(first, turned, names=("a", "b")).changes == ()


def test_gate_passes_and_says_what_was_checked():
    current = make_evaluation([-1.0, 1.0, -1.0], [1.0, -1.0])
    candidate = make_evaluation([-1.0, -1.0, -1.0], [1.0, 1.0])
    result = gate(candidate, current)
    assert result.passed
    assert result.reasons == [
        "checked 3 good images and 2 bad images: 0 new escapes (0 allowed), 0 new false alarms (0 allowed), 0 "
        "images only the candidate is unsure about, every image readable, the candidate calibrated"
    ]
    assert (result.good, result.bad) == (3, 2)


def test_gate_fails_for_new_mistakes_and_names_them():
    current = make_evaluation([-1.0, 1.0, -1.0], [1.0, -1.0])
    candidate = make_evaluation([1.0, 1.0, -1.0], [-1.0, -1.0])  # 0 and 3 are new, 1 and 4 were wrong before
    result = gate(candidate, current)
    assert not result.passed
    assert result.reasons == [
        "1 new escape, 0 allowed: parts/bad/3.png",
        "1 new false alarm, 0 allowed: parts/good/0.png",
    ]
    assert gate(candidate, current, max_new_escapes=1, max_new_false_alarms=1).passed
    plain = json.loads(json.dumps(result.as_dict()))
    assert plain["passed"] is False
    assert plain["new_escapes"] == ["parts/bad/3.png"]
    assert plain["new_false_alarms"] == ["parts/good/0.png"]
    assert (plain["max_new_escapes"], plain["max_new_false_alarms"]) == (0, 0)
    assert plain["reasons"] == result.reasons


def test_gate_says_what_its_parts_show_about_others():
    """Only a part that the current model finds can newly escape, and only one that passes can newly be rejected."""
    current = make_evaluation([-1.0] * 10 + [1.0] * 5, [1.0] * 8 + [-1.0] * 4)
    candidate = make_evaluation([-1.0] * 9 + [1.0] * 2 + [-1.0] * 4, [1.0] * 8 + [-1.0] * 2 + [1.0] * 2)
    evidence = gate(candidate, current).evidence
    assert (evidence.found, evidence.newly_missed, evidence.passed, evidence.newly_rejected) == (8, 0, 10, 1)
    assert evidence.missed_bound == pytest.approx(1 - 0.05 ** (1 / 8))
    assert evidence.rejected_bound == pytest.approx(
        stats.binomtest(1, 10, alternative="less").proportion_ci(0.95, "exact").high
    )
    assert (evidence.only_candidate_right, evidence.only_current_right) == (6, 1)
    assert evidence.p_value == pytest.approx(stats.binomtest(1, 7).pvalue)
    assert evidence.describe().startswith(
        "of the bad parts that the current model finds, the candidate misses at most 31.3 % (0 of 8 seen), of the good "
        "parts that pass, it calls bad at most 39.5 % (1 of 10 seen), each with 95.0 % confidence"
    )


def test_photographs_of_a_part_are_one_part_of_the_evidence():
    groups = ["a", "a", "b", "c", "c"]
    current = make_evaluation([-1.0, -1.0, -1.0], [1.0, -1.0], groups=groups)  # the part c is found by one view
    candidate = make_evaluation([-1.0, -1.0, -1.0], [-1.0, 1.0], groups=groups)
    evidence = gate(candidate, current).evidence
    assert (evidence.passed, evidence.found, evidence.newly_missed) == (2, 1, 0)


def test_gate_with_a_margin_needs_enough_parts():
    few, enough = (make_evaluation([-1.0] * count, [1.0] * count) for count in (13, 14))
    assert gate(enough, enough, margin=0.2).passed
    result = gate(few, few, margin=0.2)
    assert result.reasons == [
        f"compared by 13 {parts}, 0 with a new mistake: this shows only that the candidate {does} at most 20.6 % of "
        "such parts; for 20.0 %, 14 without a new mistake are needed"
        for parts, does in (("bad parts that the current model finds", "misses"), ("good parts that pass", "calls bad"))
    ]
    with pytest.raises(ConfigError, match="margin: 0; wanted a share"):
        gate(few, few, margin=0.0)


def test_gate_takes_unsure_for_caught_by_the_current_model_and_for_no_mistake_of_the_candidate():
    grey = make_calibration(threshold=1.0, accept=-1.0)
    current = make_evaluation([0.0, -2.0], [0.0, 2.0], calibration=grey)
    escaping = make_evaluation([0.0, -2.0], [-2.0, 2.0], calibration=grey)
    assert gate(escaping, current).new_escapes == [Path("parts/bad/2.png")]
    alarming = make_evaluation([2.0, -2.0], [0.0, 2.0], calibration=grey)
    assert gate(alarming, current).new_false_alarms == [Path("parts/good/0.png")]
    unsure = make_evaluation([0.0, 0.0], [0.0, 0.0], calibration=grey)
    result = gate(unsure, current)
    assert result.passed
    assert result.new_unsure == [Path("parts/good/1.png"), Path("parts/bad/3.png")]
    assert "2 images only the candidate is unsure about" in result.reasons[0]


def test_gate_fails_where_the_candidate_was_trained_on_the_golden_set():
    current = make_evaluation([-1.0, -1.0], [1.0])
    result = gate(current, current, trained_on=[Path("parts/good/1.png")])
    assert not result.passed
    assert result.reasons == [
        "the candidate was trained on 1 image of the golden set, so it proves nothing there: parts/good/1.png"
    ]


def test_gate_fails_for_an_uncalibrated_candidate():
    scores = [-1.0, -1.0], [1.0]
    result = gate(make_evaluation(*scores, calibration=None), make_evaluation(*scores))
    assert not result.passed
    assert len(result.reasons) == 1
    assert result.reasons[0].startswith("the candidate is not calibrated")
    assert gate(make_evaluation(*scores), make_evaluation(*scores, calibration=None)).passed


def test_gate_fails_for_unreadable_images_of_either_and_leaves_them_out():
    whole = make_evaluation([-1.0, -1.0], [1.0])
    failure = Failure(index=1, path=Path("parts/good/1.png"), reason="parts/good/1.png: the file is empty")
    without = replace(whole, outcomes=[whole.outcomes[0], whole.outcomes[2]], failures=[failure])
    for pair in ((whole, without), (without, whole), (without, without)):
        result = gate(*pair)
        assert not result.passed
        assert result.unreadable == [failure.path]
        assert result.reasons == [
            "1 image of the golden set could not be read, so nothing is known of them: parts/good/1.png; the first: "
            "parts/good/1.png: the file is empty"
        ]
        assert (result.good, result.bad) == (1, 1)


@pytest.mark.parametrize(("good", "bad", "kind"), [([-1.0], [], "bad"), ([], [1.0], "good")])
def test_gate_fails_where_the_golden_set_lacks_a_kind(good, bad, kind):
    evaluation = make_evaluation(good, bad)
    result = gate(evaluation, evaluation)
    assert not result.passed
    assert f"no {kind} image" in result.reasons[0]


def test_gate_refuses_other_images_and_limits_below_0():
    evaluation = make_evaluation([-1.0], [1.0])
    with pytest.raises(MetricError, match="the same images"):
        gate(evaluation, make_evaluation([-1.0, -1.0], [1.0]))
    with pytest.raises(ConfigError, match="max_new_escapes: -1"):
        gate(evaluation, evaluation, max_new_escapes=-1)
