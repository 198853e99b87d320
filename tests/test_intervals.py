"""Intervals and tests: against scikit-learn with sample weights, exact arithmetic, and simulation."""

import itertools
import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from supersimplenet.errors import MetricError
from supersimplenet.metrics.bootstrap import (
    STATISTICS,
    Interval,
    bootstrap_intervals,
    detection_statistics,
    mcnemar,
    paired_differences,
    proportion_interval,
)
from supersimplenet.metrics.ranking import auroc, average_precision

# Whole-number counts in float64; only the order of summation differs from the references.
EXACT = {"rtol": 0, "atol": 1e-12}


def example(seed: int, count: int, *, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (few digits give ties) and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.3
    labels[:2] = [False, True]
    return np.round(rng.normal(size=count) + labels, digits), labels


# --- the weighted statistics -------------------------------------------------------------------------------------


@pytest.mark.parametrize("digits", [0, 1, 8])
def test_weighted_statistics_are_those_of_scikit_learn(digits):
    scores, labels = example(digits, 60, digits=digits)
    counts = np.random.default_rng(1).multinomial(60, np.full(60, 1 / 60), size=40)
    found = detection_statistics(scores, labels, counts)
    assert list(found) == list(STATISTICS)
    for replicate, weights in enumerate(counts):
        precision, recall, _ = precision_recall_curve(labels, scores, sample_weight=weights)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
        wanted = [
            roc_auc_score(labels, scores, sample_weight=weights),
            average_precision_score(labels, scores, sample_weight=weights),
            f1.max(),
        ]
        np.testing.assert_allclose([found[name][replicate] for name in STATISTICS], wanted, **EXACT)


@pytest.mark.parametrize("digits", [0, 8])
def test_a_count_is_as_many_copies(digits):
    scores, labels = example(3, 30, digits=digits)
    counts = np.random.default_rng(2).integers(0, 4, size=(10, 30))
    found = detection_statistics(scores, labels, counts)
    for replicate, count in enumerate(counts):
        copies, of = np.repeat(scores, count), np.repeat(labels, count)
        f1 = [2 * (of & (copies >= t)).sum() / ((copies >= t).sum() + of.sum()) for t in copies]
        wanted = [auroc(copies, of), average_precision(copies, of), max(f1)]
        np.testing.assert_allclose([found[name][replicate] for name in STATISTICS], wanted, **EXACT)


def test_statistics_by_hand_and_of_one_class():
    # Falling: bad, good, bad, good. Precision at the bad ones 1 and 2/3; F1 2/3 at the first, 4/5 at the third.
    found = detection_statistics([4, 3, 2, 1], [1, 0, 1, 0], [[1, 1, 1, 1], [1, 0, 1, 0], [0, 2, 0, 2], [0, 0, 1, 3]])
    np.testing.assert_allclose(found["I-AUROC"], [3 / 4, np.nan, np.nan, 1], **EXACT)
    np.testing.assert_allclose(found["AP-det"], [(1 + 2 / 3) / 2, np.nan, np.nan, 1], **EXACT)
    np.testing.assert_allclose(found["I-F1-max"], [4 / 5, np.nan, np.nan, 1], **EXACT)
    infinite = detection_statistics([np.inf, np.inf, -np.inf], [1, 0, 0], np.ones((1, 3), int))
    assert infinite["I-AUROC"].tolist() == [3 / 4]


# --- the bootstrap -----------------------------------------------------------------------------------------------


def test_three_parts_by_enumeration():
    # All 27 draws of three parts with their photographs: the interval's ends are quantiles of that distribution.
    scores, labels = np.array([5.0, 2.0, 3.0, 1.0, 4.0]), np.array([1, 1, 0, 0, 0])
    groups = ["a", "a", "b", "b", None]
    of_part = {0: [0, 1], 1: [2, 3], 2: [4]}
    values = []
    for drawn in itertools.product(range(3), repeat=3):
        images = [image for part in drawn for image in of_part[part]]
        if 0 < labels[images].sum() < len(images):
            values.append(auroc(scores[images], labels[images]))
    assert len(values) == 27 - 1 - 8  # part a alone; parts b and c alone
    found = bootstrap_intervals(
        scores, labels, groups, confidence=0.9, replicates=4000, generator=np.random.default_rng(0)
    )["I-AUROC"]
    # The distribution has few values with gaps of probability wider than the noise, so the quantiles are exact.
    assert (found.low, found.high) == (min(values), max(values))
    assert found.replicates == pytest.approx(4000 * 18 / 27, abs=4 * math.sqrt(4000 * 2 / 9))
    assert not found.degenerate


def test_the_interval_repeats_by_its_seed_and_holds_the_figure():
    scores, labels = example(5, 120, digits=2)
    first, again = (
        bootstrap_intervals(scores, labels, [None] * 120, generator=np.random.default_rng(9)) for _ in range(2)
    )
    other = bootstrap_intervals(scores, labels, [None] * 120, generator=np.random.default_rng(10))
    assert first == again
    assert first != other
    figures = detection_statistics(scores, labels, np.ones((1, 120), int))
    for name in STATISTICS:
        assert first[name].low < figures[name][0] < first[name].high
        assert first[name].confidence == 0.95
        wide = bootstrap_intervals(scores, labels, [None] * 120, confidence=0.99, generator=np.random.default_rng(9))
        assert wide[name].low < first[name].low < first[name].high < wide[name].high


def test_photographs_of_one_part_do_not_narrow_the_interval():
    scores, labels = example(6, 80, digits=6)
    alone = bootstrap_intervals(scores, labels, [None] * 80, generator=np.random.default_rng(4))
    groups = [f"part{n}" for n in range(80)] * 4
    four_times = np.tile(scores, 4), np.tile(labels, 4)
    by_part = bootstrap_intervals(*four_times, groups, generator=np.random.default_rng(4))
    by_photograph = bootstrap_intervals(*four_times, [None] * 320, generator=np.random.default_rng(4))
    for name in STATISTICS:
        # Four equal photographs of each part: the same draws of parts give the same figures.
        assert by_part[name].low == pytest.approx(alone[name].low, abs=1e-12)
        assert by_part[name].high == pytest.approx(alone[name].high, abs=1e-12)
        # Drawn one by one they would claim half the width; quantiles of 2000 draws are off by a tenth or so.
        width, claimed = by_part[name].high - by_part[name].low, by_photograph[name].high - by_photograph[name].low
        assert claimed == pytest.approx(width / 2, rel=0.2)


def test_the_interval_covers_the_true_auroc():
    # Bad ones are N(1, 1), good ones N(0, 1): the AUROC of the whole population is P(N(1, 2) > 0) = 0.76025.
    rng, truth, hits, runs = np.random.default_rng(8), 0.5 * (1 + math.erf(0.5)), 0, 200
    labels = np.repeat([False, True], [60, 40])
    for _ in range(runs):
        scores = rng.normal(size=100) + labels
        found = bootstrap_intervals(scores, labels, [None] * 100, confidence=0.9, replicates=300, generator=rng)
        hits += found["I-AUROC"].low <= truth <= found["I-AUROC"].high
    # Nominal 90 %; a percentile interval of 100 images covers a little less. Four standard deviations of 200 runs: 8 %.
    assert 0.82 <= hits / runs <= 0.98


def test_an_interval_without_width_is_marked():
    labels = np.repeat([0, 1], [30, 10])
    perfect = bootstrap_intervals(np.arange(40.0), labels, [None] * 40, generator=np.random.default_rng(0))
    for name in STATISTICS:
        assert perfect[name] == Interval(low=1, high=1, confidence=0.95, replicates=2000, degenerate=True)


def test_resamples_of_one_class_are_counted_and_too_many_refused():
    # One bad part of 10: missing in 0.9^10 = 34.9 % of the resamples.
    scores, labels = np.arange(10.0), np.arange(10) == 4
    found = bootstrap_intervals(scores, labels, [None] * 10, generator=np.random.default_rng(0))
    missing = 0.9**10
    deviation = 4 * math.sqrt(2000 * missing * (1 - missing))
    assert found["AP-det"].replicates == pytest.approx(2000 * (1 - missing), abs=deviation)
    # Few resamples, more than half of which happen to miss it.
    with pytest.raises(MetricError, match=r"resamples hold one class only: the images show 9 good and 1 bad parts"):
        bootstrap_intervals(
            scores, labels, [None] * 10, replicates=20, generator=np.random.default_rng(unlucky_seed(10, 4, 20))
        )


def unlucky_seed(parts: int, bad: int, replicates: int) -> int:
    """The first seed whose resamples leave out the bad part more often than not."""
    for seed in range(1000):
        counts = np.random.default_rng(seed).multinomial(parts, np.full(parts, 1 / parts), size=replicates)
        if (counts[:, bad] == 0).sum() > replicates / 2:
            return seed
    raise AssertionError("no seed")


@pytest.mark.parametrize(
    ("scores", "labels", "groups", "message"),
    [
        ([1.0, 2.0], [0, 0], [None, None], "one class only among 2 images"),
        ([1.0, math.nan], [0, 1], [None, None], "1 of 2 scores are not a number"),
        ([1.0, 2.0], [0, 2], [None, None], "labels other than 0 and 1"),
        ([1.0, 2.0], [0, 1], ["a"], "1 groups of 2 images; wanted one"),
        ([1.0, 2.0], [0, 1, 1], [None, None], r"scores \(2,\), labels \(3,\)"),
        ([], [], [], r"scores \(0,\), labels \(0,\)"),
    ],
)
def test_what_cannot_be_resampled_is_refused(scores, labels, groups, message):
    with pytest.raises(MetricError, match=message):
        bootstrap_intervals(scores, labels, groups, generator=np.random.default_rng(0))


def test_confidence_replicates_and_counts_are_checked():
    generator = np.random.default_rng(0)
    with pytest.raises(MetricError, match="confidence: 1; wanted above 0 and below 1"):
        bootstrap_intervals([1.0, 2.0, 3.0, 4.0], [0, 1, 0, 1], [None] * 4, confidence=1, generator=generator)
    with pytest.raises(MetricError, match="replicates: 0; wanted at least 1"):
        bootstrap_intervals([1.0, 2.0], [0, 1], [None] * 2, replicates=0, generator=generator)
    with pytest.raises(MetricError, match=r"counts \(1, 3\), scores \(2,\)"):
        detection_statistics([1.0, 2.0], [0, 1], [[1, 1, 1]])


@pytest.mark.parametrize("images", [2000, 100_000])
def test_memory_stays_bounded(images):
    scores, labels = example(0, images, digits=9)
    tracemalloc.start()
    bootstrap_intervals(
        scores, labels, [None] * images, replicates=2000 if images == 2000 else 8, generator=np.random.default_rng(0)
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20  # 2000 replicates of 2000 images at once would be 32 MB for each of several arrays


# --- two models --------------------------------------------------------------------------------------------------


def test_paired_differences_are_of_the_same_resamples():
    scores, labels = example(7, 100, digits=6)
    noise = np.random.default_rng(3).normal(size=100)
    second = scores + 0.3 * noise

    def differences(first, other):
        return paired_differences(first, other, labels, [None] * 100, generator=np.random.default_rng(5))

    found = differences(scores, second)
    counts = np.random.default_rng(5).multinomial(100, np.full(100, 1 / 100), size=2000)
    one, two = (detection_statistics(values, labels, counts) for values in (scores, second))
    for name in STATISTICS:
        wanted = np.quantile(one[name] - two[name], [0.025, 0.975])
        np.testing.assert_allclose([found[name].low, found[name].high], wanted, **EXACT)
        # What is common to both cancels: narrower than either alone.
        alone = np.quantile(one[name], [0.025, 0.975])
        assert found[name].high - found[name].low < 0.7 * (alone[1] - alone[0])
    swapped = differences(second, scores)
    for name in STATISTICS:
        np.testing.assert_allclose(
            [swapped[name].low, swapped[name].high], [-found[name].high, -found[name].low], **EXACT
        )
    # The same ranking on another scale: no difference in any resample, and that is said.
    same = differences(scores, np.exp(scores))
    for name in STATISTICS:
        assert (same[name].low, same[name].high, same[name].degenerate) == (0, 0, True)


def test_mcnemar_by_hand():
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 5) == 1
    # 1 of 9: 2 (C(9,0) + C(9,1)) / 2^9
    assert mcnemar(1, 8) == pytest.approx(20 / 512, abs=1e-15)
    assert mcnemar(8, 1) == mcnemar(1, 8)
    assert mcnemar(0, 6) == pytest.approx(2 / 64, abs=1e-15)
    with pytest.raises(MetricError, match="wanted counts"):
        mcnemar(-1, 3)


# --- a proportion ------------------------------------------------------------------------------------------------


def test_proportion_interval_by_its_definition():
    assert proportion_interval(0, 0) == (0, 1)
    assert proportion_interval(0, 10) == (0, pytest.approx(1 - 0.025**0.1, abs=1e-12))
    assert proportion_interval(10, 10) == (pytest.approx(0.025**0.1, abs=1e-12), 1)
    low, high = (Fraction(end) for end in proportion_interval(3, 20, 0.9))

    def at_most(events, rate):
        return float(sum(math.comb(20, k) * rate**k * (1 - rate) ** (20 - k) for k in range(events + 1)))

    # At the upper end so few are improbable, at the lower one so many: 5 % each. The ends are found to 1e-12 or so.
    assert at_most(3, high) == pytest.approx(0.05, abs=1e-10)
    assert 1 - at_most(2, low) == pytest.approx(0.05, abs=1e-10)
    with pytest.raises(MetricError, match="events: 4; wanted 0 to 3"):
        proportion_interval(4, 3)
    with pytest.raises(MetricError, match="confidence: 0; wanted"):
        proportion_interval(1, 3, 0)
