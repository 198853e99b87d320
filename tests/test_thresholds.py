"""Thresholds against hand-computed values, exact fractions, simulation, and another implementation (MAPIE)."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapie.risk_control import BinaryClassificationController
from scipy import stats

from supersimplenet.cli.common import parse_costs, parse_share
from supersimplenet.errors import CalibrationError, ConfigError
from supersimplenet.metrics.thresholds import (
    Costs,
    cost_curve,
    escape_threshold,
    false_alarm_threshold,
    false_discovery,
    guaranteed_rate,
    part_numbers,
    part_scores,
    parts_needed,
    rate_upper_bound,
    rate_upper_bounds,
    uniform_upper_bound,
)
from supersimplenet.postprocessing.calibration import p_values

DRAWS = 3000
FINITE = st.floats(-50, 50, allow_nan=False).map(lambda value: round(value, 1))


def margin(probability: float, draws: int = DRAWS) -> float:
    """Four standard deviations of a frequency over the draws: one seeded check in 30 000 fails for nothing."""
    return 4 * math.sqrt(probability * (1 - probability) / draws)


def exact_binomial_below(count: int, trials: int, probability: Fraction) -> Fraction:
    """P(Bin(trials, probability) < count) in whole numbers."""
    return sum(
        (math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k) for k in range(count)), Fraction(0)
    )


def rank_of(threshold: float, scores: np.ndarray) -> int:
    """How many scores lie below the threshold."""
    return int((scores < threshold).sum())


# --- parts -------------------------------------------------------------------------------------------------------


def test_a_part_counts_by_its_worst_photograph():
    scores, groups = [1.0, 5.0, 2.0, 7.0, 3.0, 4.0], ["b", None, "a", "b", None, "a"]
    assert part_numbers(groups).tolist() == [0, 1, 2, 0, 3, 2]
    assert part_scores(scores, groups).tolist() == [7, 5, 4, 3]
    assert part_scores(scores, groups, worst="min").tolist() == [1, 5, 2, 3]
    assert part_scores(scores, [None] * 6).tolist() == scores
    # A part whose name looks like a place in the list is not mistaken for an unnamed one.
    assert part_numbers(["1", None, "1"]).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("scores", "groups", "message"),
    [
        ([1.0, 2.0], ["a"], "2 scores, 1 groups; wanted a group"),
        ([], [], r"scores of shape \(0,\); wanted one for each part"),
        ([1.0, math.nan], [None, None], "1 of 2 scores are not finite"),
        ([math.inf, 1.0], [None, None], "1 of 2 scores are not finite"),
    ],
)
def test_scores_that_cannot_be_used_are_refused(scores, groups, message):
    with pytest.raises(CalibrationError, match=message):
        part_scores(scores, groups)


# --- how many parts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "parts"), [(0.1, 29), (0.05, 59), (0.02, 149), (0.01, 299), (0.001, 2995)])
def test_parts_needed_at_95_percent(rate, parts):
    assert parts_needed(rate, 0.95) == parts
    # 0.95 as a fraction of 20ths, so that nothing is rounded.
    miss = 1 - Fraction(str(rate))
    assert miss**parts <= Fraction(1, 20) < miss ** (parts - 1)


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_what_parts_guarantee_they_can_keep(confidence):
    for parts in (*range(1, 400), 2995, 100_000):
        rate = guaranteed_rate(parts, confidence)
        assert parts_needed(rate, confidence) == parts
        # The guarantee is rounded up by 1e-12 of itself, and both sides carry rounding errors of 1e-16 times the parts.
        assert rate == pytest.approx(rate_upper_bound(0, parts, confidence), rel=1e-9)
    scores = np.arange(20.0)
    guarantee = guaranteed_rate(20, confidence)
    assert false_alarm_threshold(scores, max_false_alarms=guarantee, confidence=confidence) == np.nextafter(19.0, 20)
    assert guaranteed_rate(0, confidence) == 1


def test_too_few_parts_say_how_many_and_what_these_can_guarantee():
    with pytest.raises(CalibrationError) as stop:
        false_alarm_threshold(np.arange(20.0), max_false_alarms=0.05, confidence=0.95)
    assert str(stop.value) == (  # 1 - 0.05^(1/20) is 13.9 %, rounded up
        "max_false_alarms: 20 good parts cannot guarantee at most 5 % with 95 % confidence; wanted at least 59; "
        "add parts, or ask for 14 %, which 20 can guarantee"
    )
    with pytest.raises(
        CalibrationError, match=r"max_escapes: 58 bad parts cannot .*; wanted at least 59; .* for 5.1 %"
    ):
        escape_threshold(np.arange(58.0), max_escapes=0.05, confidence=0.95)


@pytest.mark.parametrize(("rate", "confidence"), [(0.0, 0.95), (1.0, 0.95), (0.1, 0.0), (0.1, 1.0), (math.nan, 0.9)])
def test_rates_and_confidences_outside_0_to_1_are_refused(rate, confidence):
    for call in (
        lambda: false_alarm_threshold([1.0], max_false_alarms=rate, confidence=confidence),
        lambda: escape_threshold([1.0], max_escapes=rate, confidence=confidence),
        lambda: parts_needed(rate, confidence),
    ):
        with pytest.raises(ConfigError, match="wanted above 0 and below 1"):
            call()


# --- the two thresholds ------------------------------------------------------------------------------------------


def test_the_smallest_calibration_by_hand():
    # Five parts, at most 50 %, 80 % confidence: P(at most 3 of 5 below the median) is 26/32, so the fourth will do;
    # P(at most 2 of 5) is 16/32, so the third will not.
    scores = [0.3, -2.0, 1.1, 4.0, 0.9]
    threshold = false_alarm_threshold(scores, max_false_alarms=0.5, confidence=0.8)
    assert threshold == np.nextafter(1.1, 2)
    # The mirror image: the second lowest; an escape scores below it.
    assert escape_threshold(scores, max_escapes=0.5, confidence=0.8) == 0.3


def test_the_example_of_the_documentation():
    good = np.array([-4.1, -3.8, -3.6, -3.5, -3.3, -3.2, -3.0, -2.9, -2.7, -2.6, -2.4, -2.2])
    bad = np.array([-2.8, -2.3, -1.0, 0.4, 1.2, 2.0, 2.5, 3.1, 3.3, 4.0, 4.2])
    reject = false_alarm_threshold(good, max_false_alarms=0.25, confidence=0.95)
    accept = escape_threshold(bad, max_escapes=0.25, confidence=0.95)
    assert reject == np.nextafter(-2.2, 0)
    assert accept == -2.8
    assert [int(((scores >= accept) & (scores < reject)).sum()) for scores in (good, bad)] == [4, 2]
    assert p_values(-2.6, good) == 4 / 13


@pytest.mark.parametrize("count", [29, 58, 93, 150, 300])
def test_the_rank_is_the_smallest_that_exact_arithmetic_allows(count):
    scores = np.random.default_rng(count).permutation(count).astype(float)
    for rate, confidence in itertools.product(("1/10", "1/5", "1/2", "9/10"), ("4/5", "19/20")):
        good, wanted = 1 - Fraction(rate), Fraction(confidence)
        arguments = float(Fraction(rate)), float(wanted)
        threshold = false_alarm_threshold(scores, max_false_alarms=arguments[0], confidence=arguments[1])
        rank = rank_of(threshold, scores)
        assert exact_binomial_below(rank, count, good) >= wanted
        assert exact_binomial_below(rank - 1, count, good) < wanted
        # Escapes: k - 1 scores lie below the k-th; P(Bin(n, rate) >= k) is still enough, k + 1 is not.
        lowest = rank_of(escape_threshold(scores, max_escapes=arguments[0], confidence=arguments[1]), scores) + 1
        assert 1 - exact_binomial_below(lowest, count, Fraction(rate)) >= wanted
        assert 1 - exact_binomial_below(lowest + 1, count, Fraction(rate)) < wanted


def test_300_parts_at_1_percent_take_the_highest_score_and_equal_scores_stay_good():
    scores = np.random.default_rng(0).normal(size=300)
    assert false_alarm_threshold(scores, max_false_alarms=0.01, confidence=0.95) == np.nextafter(scores.max(), np.inf)
    tied = np.round(scores)
    threshold = false_alarm_threshold(tied, max_false_alarms=0.01, confidence=0.95)
    assert not (tied >= threshold).any()
    assert (tied >= tied.max()).any()


@given(st.lists(FINITE, min_size=59, max_size=80))
@settings(max_examples=60, deadline=None)
def test_both_thresholds_are_mirror_images(scores):
    mirrored = -false_alarm_threshold(-np.array(scores), max_false_alarms=0.05, confidence=0.95)
    assert escape_threshold(scores, max_escapes=0.05, confidence=0.95) == np.nextafter(mirrored, np.inf)


CONTINUOUS = {"normal": stats.norm(), "exponential": stats.expon(), "uniform": stats.uniform()}
# Whole numbers: most parts share their score with others. 5.1 % is just too many for 5 %.
TIED = {"Poisson": stats.poisson(1.5), "two values": stats.bernoulli(0.051), "one value": stats.bernoulli(0.0)}


def false_alarm_rates(name, count, threshold_of):
    """The true false-alarm rate at the threshold of each of many calibrations."""
    distribution = {**CONTINUOUS, **TIED}[name]
    rng = np.random.default_rng(7)
    thresholds = np.array([threshold_of(draw) for draw in distribution.rvs(size=(DRAWS, count), random_state=rng)])
    # P(S >= t); for whole numbers that is P(S > ceil(t) - 1).
    return distribution.sf(thresholds if name in CONTINUOUS else np.ceil(thresholds) - 1)


@pytest.mark.parametrize("name", [*CONTINUOUS, *TIED])
@pytest.mark.parametrize(("count", "rate"), [(29, 0.1), (100, 0.05), (150, 0.05)])
def test_false_alarms_keep_the_guarantee_in_simulation(name, count, rate):
    rates = false_alarm_rates(
        name, count, lambda draw: false_alarm_threshold(draw, max_false_alarms=rate, confidence=0.95)
    )
    kept = (rates <= rate).mean()
    assert kept >= 0.95 - margin(0.95)
    if name in CONTINUOUS:  # then the rate is a beta variable, whatever the distribution: no more caution than needed
        rank = next(r for r in range(1, count + 1) if stats.binom.cdf(r - 1, count, 1 - rate) >= 0.95)
        exact = stats.binom.cdf(rank - 1, count, 1 - rate)
        assert kept == pytest.approx(exact, abs=margin(exact))


@pytest.mark.parametrize("name", ["normal", "exponential", "uniform"])
def test_one_rank_lower_would_break_the_guarantee(name):
    def one_lower(draw):
        guaranteed = false_alarm_threshold(draw, max_false_alarms=0.05, confidence=0.95)
        return np.nextafter(np.sort(draw)[rank_of(guaranteed, draw) - 2], np.inf)

    rates = false_alarm_rates(name, 100, one_lower)
    assert (rates <= 0.05).mean() < 0.95 - margin(0.95)


def test_a_threshold_on_the_score_itself_would_break_the_guarantee_with_ties():
    def on_it(draw):
        return np.nextafter(false_alarm_threshold(draw, max_false_alarms=0.02, confidence=0.8), -np.inf)

    rates = false_alarm_rates("two values", 100, on_it)
    # At 1 itself the 5.1 % that score 1 are bad.
    assert (rates <= 0.02).mean() < 0.8 - margin(0.8)


@pytest.mark.parametrize("name", [*CONTINUOUS, *TIED])
def test_escapes_keep_the_guarantee_in_simulation(name):
    distribution = {**CONTINUOUS, **TIED}[name]
    draws = distribution.rvs(size=(DRAWS, 60), random_state=np.random.default_rng(11))
    thresholds = np.array([escape_threshold(draw, max_escapes=0.1, confidence=0.9) for draw in draws])
    rates = distribution.cdf(thresholds if name in CONTINUOUS else thresholds - 1)  # P(S < t)
    assert (rates <= 0.1).mean() >= 0.9 - margin(0.9)
    if name in CONTINUOUS:
        above = np.array([np.sort(draw)[rank_of(t, draw) + 1] for t, draw in zip(thresholds, draws, strict=True)])
        assert (distribution.cdf(above) <= 0.1).mean() < 0.9 - margin(0.9)


def part_rate(threshold, photographs, spread):
    """P(highest of the photographs of a part >= threshold): a part is N(0, 1), each photograph adds N(0, spread)."""
    node, weight = np.polynomial.hermite_e.hermegauss(80)
    below = stats.norm.cdf((np.asarray(threshold)[:, None] - node) / spread) ** photographs
    return 1 - below @ weight / weight.sum()


def test_parts_of_several_photographs_keep_the_guarantee_and_photographs_counted_as_parts_do_not():
    rng = np.random.default_rng(3)
    parts, photographs, spread = 59, 3, 0.5
    groups = [f"part{n // photographs}" for n in range(parts * photographs)]
    by_part, by_photograph = [], []
    for _ in range(DRAWS):
        scores = (rng.normal(size=(parts, 1)) + spread * rng.normal(size=(parts, photographs))).ravel()
        by_part.append(false_alarm_threshold(part_scores(scores, groups), max_false_alarms=0.05, confidence=0.95))
        by_photograph.append(false_alarm_threshold(scores, max_false_alarms=0.05, confidence=0.95))
    kept = (part_rate(by_part, photographs, spread) <= 0.05).mean()
    exact = 1 - 0.95**parts
    assert kept == pytest.approx(exact, abs=margin(exact))
    # A line that photographs each part once has fewer false alarms still.
    assert (part_rate(by_part, 1, spread) <= 0.05).mean() >= kept
    # Photographs taken for parts: not even a guarantee about single photographs holds.
    assert (part_rate(by_photograph, 1, spread) <= 0.05).mean() < 0.95 - margin(0.95)


def quartile_range(values):
    lower, upper = np.quantile(values, [0.25, 0.75])
    return upper - lower


def exponential_sum_above(limit, other):
    """P(X + Y >= limit) of exponential variables of mean 1 and ``other``: the integral of one density by the other."""
    excess = (other - 1) / other  # of the rates; near 0 both means are equal and the second term is the limit
    return math.exp(-limit) * (1 + (math.expm1(limit * excess) / excess if excess else limit))


def test_the_sum_of_two_exponential_scores():
    assert exponential_sum_above(0.0, 2.0) == 1
    assert exponential_sum_above(3.0, 1.0) == pytest.approx(stats.gamma.sf(3.0, 2), rel=1e-12)
    by_hand = 2 * math.exp(-3 / 2) - math.exp(-3)  # (b e^(-x/b) - e^(-x)) / (b - 1)
    assert exponential_sum_above(3.0, 2.0) == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize("name", ["normal", "exponential"])
def test_the_scale_of_the_fused_score_measured_on_the_same_parts_costs_little(name):
    # Fused: (head + a map) / 2, a the ratio of their spreads over the calibration parts; independent scores of one
    # distribution, the map three times as wide. The true false-alarm rate at a threshold is known exactly.
    rng, distribution = np.random.default_rng(5), CONTINUOUS[name]
    kept = {"known": 0, "deviations": 0, "quartiles": 0}
    for _ in range(DRAWS):
        head, map_max = distribution.rvs(size=(2, 59), random_state=rng) * [[1], [3]]
        scales = 1 / 3, head.std() / map_max.std(), quartile_range(head) / quartile_range(map_max)
        for way, scale in zip(kept, scales, strict=True):
            threshold = false_alarm_threshold((head + scale * map_max) / 2, max_false_alarms=0.05, confidence=0.95)
            rate = (
                stats.norm.sf(threshold, scale=math.hypot(1, 3 * scale) / 2)
                if name == "normal"
                else exponential_sum_above(2 * threshold, 3 * scale)
            )
            kept[way] += rate <= 0.05
    exact = 1 - 0.95**59
    assert kept["known"] / DRAWS == pytest.approx(exact, abs=margin(exact))
    # Measured, it is no longer quite independent of the parts: docs/decisions/0014-thresholds.md has the figures.
    assert kept["quartiles"] / DRAWS >= 0.94 - margin(0.94)
    assert kept["deviations"] / DRAWS >= 0.92 - margin(0.92)
    if name == "exponential":  # a few high scores widen the spread that scales them down: not what was guaranteed
        assert kept["deviations"] / DRAWS < 0.95 - margin(0.95)


# --- against MAPIE -----------------------------------------------------------------------------------------------


def mapie_controller(scores, thresholds, rate, confidence, method="fixed_sequence"):
    """Its controller of the false-positive rate over given thresholds; one bad part, above all, defines recall."""
    controller = BinaryClassificationController(
        predict_function=lambda values: np.stack([-values, values], axis=1),
        risk="fpr",
        target_level=rate,
        confidence_level=confidence,
        list_predict_params=thresholds,
        fwer_method=method,
    )
    return controller.calibrate(np.append(scores, scores.max() + 10), np.append(np.zeros(len(scores)), 1))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("count", "rate"), [(29, 0.1), (59, 0.05), (94, 0.05), (137, 0.1), (200, 0.02), (299, 0.01)])
def test_mapie_finds_the_same_threshold(count, rate, ties):
    scores = np.random.default_rng(count).normal(size=count)
    scores = np.round(scores, 1) if ties else scores
    candidates = np.nextafter(np.unique(scores), np.inf)
    ours = false_alarm_threshold(scores, max_false_alarms=rate, confidence=0.95)
    theirs = mapie_controller(scores, candidates, rate, 0.95)
    assert theirs.best_predict_param == ours
    # Its p-value of a binary risk is the exact binomial one, the smaller of it and Hoeffding's, which is never less.
    alarms = np.array([(scores >= threshold).sum() for threshold in candidates])
    whole = np.ceil(count * (alarms / count)) == alarms
    exact = stats.binom.cdf(alarms, count, rate)
    np.testing.assert_allclose(theirs.p_values[whole, 0], exact[whole], rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["bonferroni", "bonferroni_holm"])
def test_mapie_is_more_cautious_where_it_corrects_for_the_number_of_thresholds(method):
    # Its default does. The rate falls as the threshold rises, so testing downwards until one fails needs no correction.
    scores = np.random.default_rng(0).normal(size=300)
    theirs = mapie_controller(scores, np.nextafter(np.sort(scores), np.inf), 0.1, 0.95, method).best_predict_param
    ours = false_alarm_threshold(scores, max_false_alarms=0.1, confidence=0.95)
    assert (scores >= ours).sum() == 21  # P(Bin(300, 0.1) <= 21) is 4.5 %, of 22 it is 7.0 %
    assert 0 < (scores >= theirs).sum() < 15


def test_mapie_is_one_part_more_cautious_where_it_rounds():
    # 50 (7 / 50) is a little above 7 in floating point; it takes the next whole number, 8 false alarms, for what was
    # seen. P(Bin(50, 1/4) <= 7) is 4.5 %, so 7 are allowed at 95 %.
    assert exact_binomial_below(8, 50, Fraction(1, 4)) < Fraction(1, 20)
    scores = np.arange(50.0)
    theirs = mapie_controller(scores, np.nextafter(scores, np.inf), 0.25, 0.95).best_predict_param
    ours = false_alarm_threshold(scores, max_false_alarms=0.25, confidence=0.95)
    assert (scores >= ours).sum() == 7
    assert (scores >= theirs).sum() == 6


# --- bounds of a rate --------------------------------------------------------------------------------------------


def test_rate_upper_bound_by_hand_and_by_its_definition():
    # No event in 59: 1 - 0.05^(1/59). One of two: p with (1 - p)^2 + 2 p (1 - p) = 0.05, so p = sqrt(0.95).
    assert rate_upper_bound(0, 59, 0.95) == pytest.approx(1 - 0.05 ** (1 / 59), abs=1e-14)
    assert rate_upper_bound(1, 2, 0.95) == pytest.approx(math.sqrt(0.95), abs=1e-14)
    assert rate_upper_bound(3, 3, 0.95) == 1
    assert rate_upper_bound(0, 0, 0.95) == 1
    bounds = rate_upper_bounds(40, 0.9)
    assert bounds.shape == (41,)
    assert (np.diff(bounds) > 0).all()
    # At the bound, so few events or fewer have a probability of exactly 10 %; the root is found to 1e-13 or so.
    np.testing.assert_allclose(stats.binom.cdf(np.arange(40), 40, bounds[:-1]), 0.1, atol=1e-10)
    assert rate_upper_bound(7, 40, 0.9) == bounds[7]
    with pytest.raises(ConfigError, match="events: 4; wanted 0 to 3"):
        rate_upper_bound(4, 3, 0.95)


def test_uniform_upper_bound_holds_at_all_thresholds_at_once():
    # sqrt(ln 20 / 100) is 0.17308
    assert uniform_upper_bound(0.1, 50, 0.95) == pytest.approx(0.1 + math.sqrt(math.log(20) / 100), abs=1e-15)
    assert uniform_upper_bound(0.9, 50, 0.95) == 1
    draws = np.sort(np.random.default_rng(1).random((DRAWS, 50)), axis=1)
    # At a threshold just above the i-th of n uniform scores the true rate is 1 - x_i, the share (n - i) / n.
    excess = (1 - draws - (np.arange(49, -1, -1) / 50)).max(axis=1)
    kept = (excess <= uniform_upper_bound(0, 50, 0.95)).mean()
    exact = stats.ksone.cdf(uniform_upper_bound(0, 50, 0.95), 50)  # of the one-sided Kolmogorov statistic
    assert 0.95 <= exact < 0.97
    assert kept == pytest.approx(exact, abs=margin(exact))
    for rate, trials, confidence in ((0.1, 50, 0.4), (0.1, 50, 1.0), (1.5, 50, 0.9), (0.1, 0, 0.9)):
        with pytest.raises(ConfigError):
            uniform_upper_bound(rate, trials, confidence)


# --- costs -------------------------------------------------------------------------------------------------------


def test_cost_curve_by_hand():
    curve = cost_curve([0.0, 1.0, 2.0, 2.0], [2.0, 4.0], Costs(false_alarm=1, escape=10), bad_share=0.2)
    assert curve.threshold_logit.tolist() == [0.0, 0.5, 1.5, 3.0, np.nextafter(4.0, 5)]
    assert curve.false_alarm_rate.tolist() == [1, 0.75, 0.5, 0, 0]
    assert curve.escape_rate.tolist() == [0, 0, 0, 0.5, 1]
    # 0.8 FA + 2 Esc
    np.testing.assert_allclose(curve.cost, [0.8, 0.6, 0.4, 1.0, 2.0], atol=1e-15)
    assert curve.cheapest == 2


def test_of_equally_cheap_thresholds_the_middle_one():
    # Good at 1, bad at 2, good at 3, bad at 4, ...: each step up saves one false alarm, or costs one escape.
    good, bad = [1.0, 3.0, 5.0, 7.0], [2.0, 4.0, 6.0, 8.0]
    curve = cost_curve(good, bad, Costs(false_alarm=1, escape=1), bad_share=0.5)
    np.testing.assert_allclose(curve.cost * 8, [4, 3, 4, 3, 4, 3, 4, 3, 4], atol=1e-14)
    assert curve.threshold_logit[curve.cheapest] == 1.5  # single ones, equally cheap: the fewest escapes
    # Tied scores of both kinds cancel out: all are equally cheap, the middle of the five is the third.
    tied = cost_curve([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0], Costs(false_alarm=3, escape=3), bad_share=0.5)
    np.testing.assert_allclose(tied.cost, 1.5, atol=1e-15)
    assert tied.cheapest == 2
    assert tied.threshold_logit[tied.cheapest] == 2.5
    # Of an even number the lower: 4 thresholds, the second.
    even = cost_curve([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], Costs(false_alarm=3, escape=3), bad_share=0.5)
    assert even.cheapest == 1


@given(
    st.lists(FINITE, min_size=1, max_size=12),
    st.lists(FINITE, min_size=1, max_size=12),
    st.floats(0.01, 0.99),
    st.floats(0.1, 100),
)
@settings(max_examples=80, deadline=None)
def test_the_cheapest_threshold_is_no_dearer_than_any_other(good, bad, bad_share, escape):
    curve = cost_curve(good, bad, Costs(false_alarm=1, escape=escape), bad_share=bad_share)

    def cost(threshold):
        alarms, escapes = np.mean(np.array(good) >= threshold), np.mean(np.array(bad) < threshold)
        return (1 - bad_share) * alarms + bad_share * escape * escapes

    np.testing.assert_allclose(curve.cost, [cost(t) for t in curve.threshold_logit], rtol=1e-12)
    others = [*good, *bad, -1000.0, 1000.0, *np.linspace(-60, 60, 50)]
    assert curve.cost[curve.cheapest] <= min(cost(t) for t in others) * (1 + 1e-12) + 1e-15
    assert (np.diff(curve.threshold_logit) > 0).all()


def test_thresholds_between_adjacent_floats_still_tell_them_apart():
    lower = 1.0
    upper = float(np.nextafter(lower, 2))
    curve = cost_curve([lower], [upper], Costs(false_alarm=1, escape=1), bad_share=0.5)
    assert curve.threshold_logit[curve.cheapest] == upper
    assert curve.cost[curve.cheapest] == 0
    far = cost_curve([-1.7e308], [1.7e308], Costs(false_alarm=1, escape=1), bad_share=0.5)
    assert far.threshold_logit[far.cheapest] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("false-alarm=1", "names false-alarm alone"),
        ("false-alarm=1,escape=x", "escape is 'x', no number"),
        ("false-alarm=1,escape=2,escape=3", "'escape=3' in"),
        ("overkill=1,escape=2", "'overkill=1' in"),
        ("false-alarm=0,escape=2", "false-alarm is 0; wanted a finite number above 0"),
        ("false-alarm=1,escape=inf", "escape is inf; wanted a finite"),
        ("false-alarm=1,escape=nan", "escape is nan; wanted a finite"),
        ("", "'' in ''"),
    ],
)
def test_costs_that_are_none(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_costs(text)


def test_costs_and_shares_are_read():
    assert parse_costs("false-alarm=1,escape=50") == Costs(false_alarm=1, escape=50)
    assert parse_costs(" escape = 2.5 , false-alarm = 1e-1 ") == Costs(false_alarm=0.1, escape=2.5)
    for text in ("1%", "1 %", " 0.01", "1.0%"):
        assert parse_share(text, "--max-false-alarms") == 0.01
    for text in ("0", "0%", "1", "100%", "-1%", "120 %", "nan", "nan%", "inf"):
        with pytest.raises(
            ConfigError, match=r"--max-escapes: .*; wanted a share above 0 and below 100 %, such as 1% or"
        ):
            parse_share(text, "--max-escapes")
    assert [parse_share(text, "keep-good", ends=True) for text in ("0", "0 %", "5%", "1.0", "100%")] == [
        0,
        0,
        0.05,
        1,
        1,
    ]
    for text in ("5", " 5.0"):
        with pytest.raises(
            ConfigError, match=rf"keep-good: {text}; wanted a share from 0 to 100 %, such as 5% or 0.05$"
        ):
            parse_share(text, "keep-good", ends=True)
    for text in ("-1", "101%", "nan", "200"):
        with pytest.raises(ConfigError, match=r"; wanted a share from 0 to 100 %, such as 1% or 0.01$"):
            parse_share(text, "keep-good", ends=True)
    for text in ("", "%", "one", "1 percent", "1%%"):
        with pytest.raises(ConfigError, match=r"--bad-share: .* is no share; wanted one such as 1% or 0.01"):
            parse_share(text, "--bad-share")
    with pytest.raises(ConfigError, match="bad_share: 1; wanted"):
        cost_curve([1.0], [2.0], Costs(false_alarm=1, escape=1), bad_share=1)
    with pytest.raises(CalibrationError, match="bad scores of shape"):
        cost_curve([1.0], [], Costs(false_alarm=1, escape=1), bad_share=0.1)


# --- p-values ----------------------------------------------------------------------------------------------------


def test_p_values_by_hand():
    found = p_values([[0.0, 1.0], [2.0, 9.0]], [3.0, 1.0, 2.0, 2.0])
    assert found.tolist() == [[1, 1], [4 / 5, 1 / 5]]  # of 2: three are at least as high, and it itself
    assert p_values(2.5, [3.0, 1.0, 2.0, 2.0]).shape == ()


@given(st.lists(FINITE, min_size=1, max_size=30), st.lists(FINITE, min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_p_values_count(calibration, scores):
    naive = [(1 + sum(c >= s for c in calibration)) / (len(calibration) + 1) for s in scores]
    assert p_values(scores, calibration).tolist() == naive


@pytest.mark.parametrize("name", ["exponential", "Poisson", "one value"])
def test_p_values_of_good_parts_are_not_too_small(name):
    distribution = {**CONTINUOUS, **TIED}[name]
    rng = np.random.default_rng(13)
    # A calibration and one new part each time: then the p-value is exactly uniform on 1/20, 2/20, ... without ties.
    found = np.array([p_values(draw[0], draw[1:]) for draw in distribution.rvs(size=(DRAWS, 20), random_state=rng)])
    for level in np.arange(1, 20) / 20:
        share = (found <= level + 1e-12).mean()
        assert share <= level + margin(level)
        if name in CONTINUOUS:
            assert share >= level - margin(level)


def test_the_false_discovery_rate_is_kept_with_one_calibration_for_all():
    rng, draws, q = np.random.default_rng(17), 2000, 0.1
    shares, naive = [], []
    for _ in range(draws):
        # 200 good parts to calibrate; then 40 good ones and 10 bad ones to judge.
        good, tested = rng.normal(size=200), rng.normal(size=50) + np.repeat([0.0, 3.0], [40, 10])
        p = p_values(tested, good)
        for found, into in ((false_discovery(p) <= q, shares), (p <= q, naive)):
            into.append(found[:40].sum() / max(found.sum(), 1))
    # A share is in [0, 1] and varies by less than 0.15 here: four standard errors are 0.0134.
    tolerance = 4 * np.std(shares) / math.sqrt(draws)
    assert tolerance < 0.0134
    assert np.mean(shares) <= q * 40 / 50 + tolerance
    assert np.mean(naive) > q + 0.05  # not adjusted, it is broken


def test_false_discovery_by_hand():
    # Rising: 0.01 3/1 = 0.03; 0.02 3/2 = 0.03; 0.5 3/3.
    np.testing.assert_allclose(false_discovery([0.02, 0.5, 0.01]), [0.03, 0.5, 0.03], atol=1e-15)
    assert false_discovery([]).shape == (0,)
