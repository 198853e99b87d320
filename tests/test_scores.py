"""The score of the tables: from 0 to 1, 0.5 at the threshold; docs/outputs.md."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supersimplenet.types import Prediction, normalised, normalised_map
from supersimplenet.utils.formatting import shown_score

FLOATS = st.floats(min_value=-(2.0**20), max_value=2.0**20, width=32)
LOGITS = st.floats(min_value=-1e6, max_value=1e6)


@given(score=LOGITS, threshold=LOGITS)
def test_a_score_reaches_one_half_exactly_where_it_reaches_the_threshold(score, threshold):
    assert (normalised(score, threshold) >= 0.5) == (score >= threshold)
    assert 0 <= normalised(score, threshold) <= 1


@given(one=LOGITS, other=LOGITS, threshold=LOGITS)
def test_a_higher_score_is_never_lower(one, other, threshold):
    low, high = sorted((one, other))
    assert normalised(low, threshold) <= normalised(high, threshold)


def test_neighbouring_floats_lie_on_their_own_sides():
    for threshold in (-3.7, 0.0, 1e-300, 0.1, 250.0):
        assert normalised(threshold, threshold) == 0.5
        assert normalised(math.nextafter(threshold, -math.inf), threshold) < 0.5


def test_values_by_hand():
    assert normalised(4.0, 1.0) == pytest.approx(0.9525741268224334, rel=1e-15)
    assert normalised(-2.0, 1.0) == pytest.approx(1 - 0.9525741268224334, rel=1e-14)
    assert normalised(1e6, -1e6) == 1.0
    assert normalised(-1e6, 1e6) == 0.0


def prediction(**thresholds: float) -> Prediction:
    scores = {"head_logit": 0.25, "map_max_logit": 0.0, "fused_logit": 0.125, "decides": "head"}
    return Prediction(
        path=None, **scores, verdict="good", map_logit=np.zeros((1, 1), np.float32), placement=None, **thresholds
    )


def test_a_prediction_without_a_threshold_has_no_score_from_0_to_1():
    assert (prediction().score, prediction().unsure_from) == (None, None)
    assert "score=0.250 (a logit)" in repr(prediction())


def test_the_grey_zone_is_on_the_same_scale():
    one = prediction(threshold_logit=1.0, accept_logit=0.25)
    assert one.score == one.unsure_from == normalised(0.25, 1.0) < 0.5


@given(values=st.lists(FLOATS, min_size=1, max_size=40), level=FLOATS)
def test_a_map_reaches_one_half_exactly_where_it_reaches_the_pixel_threshold(values, level):
    """With the neighbours of the threshold, in float32, among the pixels."""
    near = [np.nextafter(np.float32(level), np.float32(side)) for side in (-np.inf, np.inf)]
    map_logit = np.sort(np.array([[*values, level, *near]], dtype=np.float32))
    scaled = normalised_map(map_logit, level)
    assert (scaled.shape, scaled.dtype) == (map_logit.shape, np.float32)
    np.testing.assert_array_equal(scaled >= 0.5, map_logit >= level)
    assert set(scaled[map_logit == np.float32(level)].tolist()) == {0.5}
    assert (np.diff(scaled) >= 0).all()
    assert scaled.min() >= 0
    assert scaled.max() <= 1


@given(value=FLOATS, level=FLOATS)
def test_a_map_and_a_score_follow_one_rule(value, level):
    scaled = normalised_map(np.full((1, 1), value, np.float32), level)
    assert scaled.item() == pytest.approx(normalised(value, level), rel=1e-7, abs=1e-38)  # rounded to float32


def test_a_large_map_is_scaled_in_blocks_that_leave_no_seam():
    map_logit = np.random.default_rng(0).normal(size=(600, 3)).astype(np.float32)
    whole = 1 / (1 + np.exp(0.25 - map_logit.astype(np.float64)))
    np.testing.assert_allclose(normalised_map(map_logit, 0.25), whole, rtol=1e-7)


def test_a_threshold_between_two_floats_counts_as_the_nearer_one_as_for_the_defects():
    level = 0.1  # float32(0.1) lies above it
    map_logit = np.array([[np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(0))]], dtype=np.float32)
    assert (normalised_map(map_logit, level) >= 0.5).tolist() == [[True, False]] == (map_logit >= level).tolist()


@pytest.mark.parametrize(
    ("score", "shown"), [(0.49999, "0.499"), (0.4994, "0.499"), (0.5, "0.500"), (0.50004, "0.500")]
)
def test_a_good_score_never_reads_like_the_threshold(score, shown):
    assert shown_score(score) == shown
