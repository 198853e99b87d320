"""Metrics of images against hand-computed values and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from supersimplenet.errors import MetricError
from supersimplenet.metrics.ranking import (
    Metric,
    auroc,
    average_precision,
    f1_max,
    measure,
    rank,
    ranked_auroc,
    ranked_f1_max,
)

# All of it is float64 arithmetic on exact counts; only the order of summation differs from the references.
EXACT = {"rtol": 0, "atol": 1e-12}


def best_f1(label, score):
    """The largest F1 of scikit-learn's curve."""
    precision, recall, _ = precision_recall_curve(label, score)
    with np.errstate(invalid="ignore"):
        return np.nanmax(2 * precision * recall / (precision + recall))


@pytest.mark.parametrize(
    ("score", "label", "area", "precision", "f1"),
    [
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 3 / 4, 1 / 2 * 1 + 1 / 2 * 2 / 3, 4 / 5),
        ([1, 2, 3, 4], [0, 0, 1, 1], 1, 1, 1),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0, 1 / 2 * 1 / 3 + 1 / 2 * 2 / 4, 2 / 3),
        (
            [5, 5, 5, 5],
            [0, 1, 0, 1],
            1 / 2,
            1 / 2,
            2 / 3,
        ),  # all tied: one threshold, precision is the share of bad ones
        ([2, 2, 1], [1, 0, 0], 3 / 4, 1 / 2, 2 / 3),
        ([-np.inf, 0, np.inf], [0, 1, 1], 1, 1, 1),
        ([0.0, -0.0, 1.0], [1, 0, 0], 1 / 4, 1 / 3, 1 / 2),  # zero is zero, whatever its sign
        ([1000.0, 1000.00001, 1000.00002], [0, 1, 0], 1 / 2, 1 / 2, 2 / 3),
    ],
)
def test_by_hand(score, label, area, precision, f1):
    np.testing.assert_allclose(auroc(score, label), area, **EXACT)
    np.testing.assert_allclose(average_precision(score, np.array(label, dtype=bool)), precision, **EXACT)
    np.testing.assert_allclose(f1_max(score, label), f1, **EXACT)


@pytest.mark.parametrize("levels", [None, 20, 3, 1])
@pytest.mark.parametrize("seed", range(5))
def test_against_scikit_learn(seed, levels):
    rng = np.random.default_rng(seed)
    label = rng.random(400) < rng.choice([0.02, 0.3, 0.9])
    label[:2] = True, False
    score = rng.standard_normal(400) + label
    if levels is not None:
        score = np.round(score * levels / 3)
    np.testing.assert_allclose(auroc(score, label), roc_auc_score(label, score), **EXACT)
    np.testing.assert_allclose(average_precision(score, label), average_precision_score(label, score), **EXACT)
    np.testing.assert_allclose(f1_max(score, label), best_f1(label, score), **EXACT)


def test_shape_and_type_do_not_matter():
    rng = np.random.default_rng(0)
    score, label = rng.integers(0, 9, (4, 5, 6)), rng.integers(0, 2, (4, 5, 6))
    for kind in (np.float16, np.float32, np.int64):
        assert auroc(score.astype(kind), label) == auroc(score.ravel().tolist(), label.ravel().astype(bool))
        assert type(average_precision(score.astype(kind), label.astype(float))) is float


SCORES = st.lists(st.tuples(st.integers(-50, 50), st.booleans()), min_size=2, max_size=60).filter(
    lambda pairs: len({label for _, label in pairs}) == 2
)


@given(SCORES)
@settings(deadline=None)
def test_any_monotone_scale_gives_the_same(pairs):
    score, label = np.array([s for s, _ in pairs], float), np.array([y for _, y in pairs])
    for scaled in (3 * score - 7, score**3, 1 / (1 + np.exp(-score / 10)), score.astype(np.float32)):
        assert auroc(scaled, label) == auroc(score, label)
        assert average_precision(scaled, label) == average_precision(score, label)
        assert f1_max(scaled, label) == f1_max(score, label)


@given(SCORES)
@settings(deadline=None)
def test_turned_round_the_area_is_the_rest_of_one(pairs):
    score, label = np.array([s for s, _ in pairs]), np.array([y for _, y in pairs])
    np.testing.assert_allclose(auroc(score, label) + auroc(-score, label), 1, **EXACT)
    np.testing.assert_allclose(auroc(score, label) + auroc(score, ~label), 1, **EXACT)


@pytest.mark.parametrize("metric", [auroc, average_precision, f1_max])
@pytest.mark.parametrize(
    ("score", "label", "message"),
    [
        ([], [], "nothing to rank"),
        ([1.0, 2.0], [0, 0], "one class only: 0 bad and 2 good; wanted at least one of each"),
        ([1.0, 2.0], [1, 1], "one class only: 2 bad and 0 good"),
        ([1.0, np.nan, np.nan], [0, 1, 1], r"2 of 3 scores are not a number \(NaN\)"),
        ([1.0, 2.0], [0, 1, 1], r"shapes differ: scores \(2,\), labels \(3,\)"),
        ([1.0, 2.0], [0, 2], "labels other than 0 and 1; wanted 0 for good and 1 for bad"),
        ([1.0, 2.0], [0, np.nan], "labels other than 0 and 1"),
    ],
)
def test_undefined(metric, score, label, message):
    with pytest.raises(MetricError, match=message):
        metric(score, label)


def test_counts_beyond_64_bits_are_exact():
    """The pairs of 10^11 pixels of either kind are 10^22; the areas of two levels by hand."""
    from supersimplenet.metrics.ranking import Ranking

    many = 10**11
    ranking = Ranking(
        bad_at=np.array([many - 1, 1]),
        weight_at=np.array([0.5, 0.5]),
        good_above=np.array([0, many]),
        good_from=np.array([0, many]),
        good_total=many,
    )
    assert ranked_auroc(ranking).value == (many - 1) / many


def test_metrics_of_one_ranking_are_undefined_together_and_say_why():
    metrics = {"I-AUROC": ranked_auroc, "I-F1-max": ranked_f1_max}
    reason = "one class only: 0 bad and 2 good; wanted at least one of each"
    assert measure(metrics, lambda: rank([1.0, 2.0], [0, 0])) == dict.fromkeys(
        metrics, Metric(value=None, reason=reason)
    )
    assert measure(metrics, lambda: rank([1.0, 2.0], [0, 1])) == dict.fromkeys(metrics, Metric(value=1.0))
