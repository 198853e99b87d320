"""Metrics against hand-computed values, scikit-learn, and a naive loop over every threshold."""

import itertools
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from supersimplenet.errors import MetricError
from supersimplenet.evaluation.metrics import Metric, auroc, average_precision, evaluate_scores, region_overlap

# All of it is float64 arithmetic on exact counts; only the order of summation differs from the references.
EXACT = {"rtol": 0, "atol": 1e-12}
NAMES = [
    *("I-AUROC", "AP-det", "seg-I-AUROC", "seg-AP-det", "fused-I-AUROC", "fused-AP-det"),
    *("P-AUROC", "AUPRO", "AP-loc"),
]


def naive_regions(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """8-connected regions of one mask by flooding."""
    left, regions = {(int(y), int(x)) for y, x in np.argwhere(mask)}, []
    while left:
        region, front = set(), [left.pop()]
        while front:
            y, x = front.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy, dx in itertools.product((-1, 0, 1), repeat=2)} & left
            left -= near
            front += near
        regions.append(region)
    return regions


def naive_region_overlap(maps: np.ndarray, masks: np.ndarray, limit: float, kept: np.ndarray | None = None) -> float:
    """Every threshold in turn, every region in turn, then the area below the polygon up to the limit.

    Normal pixels that are not kept are no false positives; masks hold kept pixels only.
    """
    normal = ~masks if kept is None else ~masks & kept
    regions = [(n, region) for n, mask in enumerate(masks) for region in naive_regions(mask)]
    curve = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        found = maps >= threshold
        rate = (found & normal).sum() / normal.sum()
        overlap = np.mean([np.mean([found[n, y, x] for y, x in region]) for n, region in regions])
        curve.append((float(rate), float(overlap)))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(curve):
        if x0 < limit:
            end = min(x1, limit)
            y_end = y1 if end == x1 else y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            area += (end - x0) * (y0 + y_end) / 2
    return area / limit


def random_maps(seed: int, *, levels: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Small maps with some regions; few levels give heavy ties."""
    rng = np.random.default_rng(seed)
    masks = rng.random((3, 7, 6)) < rng.choice([0.05, 0.2, 0.5])
    masks[0, 0, 0], masks[1, -1, -1] = True, False
    maps = rng.standard_normal(masks.shape) + masks
    return (maps if levels is None else np.round(maps * levels)).astype(np.float32), masks


# --- ranking of images -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "label", "area", "precision"),
    [
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 3 / 4, 1 / 2 * 1 + 1 / 2 * 2 / 3),
        ([1, 2, 3, 4], [0, 0, 1, 1], 1, 1),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0, 1 / 2 * 1 / 3 + 1 / 2 * 2 / 4),
        ([5, 5, 5, 5], [0, 1, 0, 1], 1 / 2, 1 / 2),  # all tied: one threshold, precision is the share of bad ones
        ([2, 2, 1], [1, 0, 0], 3 / 4, 1 / 2),
        ([-np.inf, 0, np.inf], [0, 1, 1], 1, 1),
        ([0.0, -0.0, 1.0], [1, 0, 0], 1 / 4, 1 / 3),  # zero is zero, whatever its sign
        ([1000.0, 1000.00001, 1000.00002], [0, 1, 0], 1 / 2, 1 / 2),
    ],
)
def test_by_hand(score, label, area, precision):
    np.testing.assert_allclose(auroc(score, label), area, **EXACT)
    np.testing.assert_allclose(average_precision(score, np.array(label, dtype=bool)), precision, **EXACT)


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


@given(SCORES)
@settings(deadline=None)
def test_turned_round_the_area_is_the_rest_of_one(pairs):
    score, label = np.array([s for s, _ in pairs]), np.array([y for _, y in pairs])
    np.testing.assert_allclose(auroc(score, label) + auroc(-score, label), 1, **EXACT)
    np.testing.assert_allclose(auroc(score, label) + auroc(score, ~label), 1, **EXACT)


# --- overlap of regions ------------------------------------------------------------------------------------------


def one_row(scores: list[float], mask: list[int]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([[scores]], np.float32), np.array([[mask]], bool)


def test_overlap_by_hand():
    # Normal pixels 6, 4, 2, 0; the region's pixels 5 and 3. Thresholds 6 to 0 give (rate, overlap):
    # (1/4, 0) (1/4, 1/2) (2/4, 1/2) (2/4, 1) (3/4, 1) (1, 1)
    maps, masks = one_row([6, 5, 3, 4, 2, 0], [0, 1, 1, 0, 0, 0])
    for limit, area in [(1.0, 1 / 8 + 1 / 2), (0.5, 1 / 8), (0.3, 0.05 / 2), (0.25, 0), (0.1, 0)]:
        np.testing.assert_allclose(region_overlap(maps, masks, max_false_positive_rate=limit), area / limit, **EXACT)
    assert region_overlap(maps, masks) == region_overlap(maps, masks, max_false_positive_rate=0.3)


def test_overlap_is_interpolated_inside_a_tie():
    # One normal pixel in two shares the region's score: the curve runs from (0, 0) straight to (1/2, 1).
    maps, masks = one_row([1, 1, 0], [1, 0, 0])
    np.testing.assert_allclose(region_overlap(maps, masks, max_false_positive_rate=0.3), 0.6 / 2, **EXACT)


def test_overlap_of_a_constant_map_is_half_the_limit():
    maps, masks = np.zeros((2, 5, 5), np.float32), np.zeros((2, 5, 5), bool)
    masks[0, 1:3, 1:3] = True
    for limit in (0.05, 0.3, 1.0):
        np.testing.assert_allclose(region_overlap(maps, masks, max_false_positive_rate=limit), limit / 2, **EXACT)


def test_overlap_weighs_regions_and_not_pixels():
    masks = np.zeros((1, 10, 10), bool)
    masks[0, :5, :5] = True  # 25 pixels, all found
    masks[0, 9, 9] = True  # one pixel in the corner, scored lowest of all
    maps = np.where(masks, 1.0, 0.0)
    maps[0, 9, 9] = -1.0
    assert region_overlap(maps, masks) == pytest.approx(0.5, abs=1e-12)


def test_overlap_joins_diagonal_neighbours_and_never_two_images():
    # Three pixels in a diagonal are one region (found: 2 of 3); image two repeats the first one's last pixel in place.
    masks = np.zeros((2, 3, 3), bool)
    masks[0][np.eye(3, dtype=bool)] = True
    masks[1, 2, 2] = True
    maps = np.where(masks, 1.0, 0.0)
    maps[0, 0, 0] = -1.0
    # regions: 2/3 and 1 found before any false positive, joined they would be 3/4, 4-connected (2 + 1) / 4
    assert region_overlap(maps, masks) == pytest.approx((2 / 3 + 1) / 2, abs=1e-12)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("levels", [None, 2, 1])
@pytest.mark.parametrize("seed", range(6))
def test_overlap_against_every_threshold_in_turn(seed, levels, limit):
    maps, masks = random_maps(seed, levels=levels)
    expected = naive_region_overlap(maps, masks, limit)
    np.testing.assert_allclose(region_overlap(maps, masks, max_false_positive_rate=limit), expected, **EXACT)


@given(st.integers(0, 10_000), st.sampled_from([None, 1, 3]))
@settings(max_examples=30, deadline=None)
def test_overlap_on_any_monotone_scale(seed, levels):
    maps, masks = random_maps(seed, levels=levels)
    maps = maps.astype(np.float64)
    for scaled in (2 * maps + 1, 1 / (1 + np.exp(-maps / 4))):
        np.testing.assert_allclose(region_overlap(scaled, masks), region_overlap(maps, masks), **EXACT)


def test_overlap_of_perfect_and_of_inverted_maps():
    _, masks = random_maps(0, levels=None)
    assert region_overlap(masks.astype(np.float32), masks) == pytest.approx(1, abs=1e-12)
    assert region_overlap(-masks.astype(np.float32), masks) == 0


# --- what is not defined -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", [auroc, average_precision])
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


def test_overlap_undefined():
    maps, masks = random_maps(0, levels=None)
    for arguments, message in [
        ((maps, np.zeros_like(masks)), "one class only: 0 bad and 126 good"),
        ((maps, np.ones_like(masks)), "one class only: 126 bad and 0 good"),
        ((maps[:0], masks[:0]), "nothing to rank"),
        ((maps[0], masks[0]), r"maps of shape \(7, 6\); wanted \(N, H, W\)"),
        ((maps * np.nan, masks), "126 of 126 scores are not a number"),
    ]:
        with pytest.raises(MetricError, match=message):
            region_overlap(*arguments)
    for limit in (0, -0.1, 1.01, float("nan")):
        with pytest.raises(MetricError, match=r"max_false_positive_rate: .*; wanted above 0 and at most 1"):
            region_overlap(maps, masks, max_false_positive_rate=limit)


# --- all of them -------------------------------------------------------------------------------------------------


@pytest.fixture
def scored():
    """Six images: three bad with masks (one of them empty, as real sets have it), one bad without, two good."""
    rng = np.random.default_rng(3)
    masks = np.zeros((6, 8, 8), bool)
    masks[0, 1:4, 1:4], masks[1, 5:, 5:] = True, True
    maps = (rng.standard_normal(masks.shape) + masks).astype(np.float32)
    return {
        "head_logit": rng.standard_normal(6),
        "map_max_logit": maps.max(axis=(1, 2)),
        "fused_logit": rng.standard_normal(6),
        "label": np.array([1, 1, 1, 1, 0, 0]),
        "maps": maps,
        "masks": masks,
        "has_pixel_labels": np.array([True, True, True, False, True, True]),
    }


def test_evaluate_scores_gives_each_metric_on_what_it_is_for(scored):
    known = scored["has_pixel_labels"]
    maps, masks, label = scored["maps"][known], scored["masks"][known], scored["label"]
    values = {name: metric.value for name, metric in evaluate_scores(**scored).items()}
    assert list(values) == NAMES
    expected = [
        roc_auc_score(label, scored["head_logit"]),
        average_precision_score(label, scored["head_logit"]),
        roc_auc_score(label, scored["map_max_logit"]),
        average_precision_score(label, scored["map_max_logit"]),
        roc_auc_score(label, scored["fused_logit"]),
        average_precision_score(label, scored["fused_logit"]),
        roc_auc_score(masks.ravel(), maps.ravel()),
        naive_region_overlap(maps, masks, 0.3),
        average_precision_score(masks.ravel(), maps.ravel()),
    ]
    np.testing.assert_allclose(list(values.values()), expected, **EXACT)


def test_evaluate_scores_leaves_out_images_without_pixel_labels(scored):
    before = evaluate_scores(**scored)
    scored["maps"][3], scored["masks"][3] = np.nan, True
    assert evaluate_scores(**scored) == before


def test_evaluate_scores_leaves_out_ignored_pixels(scored):
    ignored = np.zeros((6, 8, 8), bool)
    ignored[0, :, 3:], ignored[4, 2] = True, True  # a column of a defect, and a row of a good image
    known = scored["has_pixel_labels"]
    maps, masks, kept = scored["maps"][known], scored["masks"][known], ~ignored[known]
    metrics = evaluate_scores(**scored, ignored=ignored)
    expected = roc_auc_score(masks[kept], maps[kept]), average_precision_score(masks[kept], maps[kept])
    assert (metrics["P-AUROC"].value, metrics["AP-loc"].value) == pytest.approx(expected)
    assert metrics["AUPRO"].value == pytest.approx(naive_region_overlap(maps, masks & kept, 0.3, kept=kept))
    garbled = dict(scored, maps=np.where(ignored, 1e9, scored["maps"]), masks=scored["masks"] ^ ignored)
    assert evaluate_scores(**garbled, ignored=ignored) == metrics


def test_evaluate_scores_leaves_its_arguments_alone(scored):
    copies = {name: value.copy() for name, value in scored.items()}
    evaluate_scores(**scored)
    for name, value in scored.items():
        np.testing.assert_array_equal(value, copies[name])


@pytest.mark.parametrize(
    ("changes", "undefined", "reason"),
    [
        ({"label": np.zeros(6, int)}, NAMES[:6], "one class only: 0 bad and 6 good; wanted at least one of each"),
        (
            {"masks": np.zeros((6, 8, 8), bool)},
            NAMES[6:],
            "one class only: 0 bad and 320 good; wanted at least one of each",
        ),
        ({"has_pixel_labels": np.zeros(6, bool)}, NAMES[6:], "nothing to rank: no image, or none with pixel labels"),
    ],
)
def test_evaluate_scores_says_why_a_metric_is_missing(scored, changes, undefined, reason):
    metrics = evaluate_scores(**scored | changes)
    assert list(metrics) == NAMES
    for name, metric in metrics.items():
        if name in undefined:
            assert metric == Metric(value=None, reason=reason)
        else:
            assert metric.value is not None
            assert metric.reason is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_logit": np.full(6, np.nan)}, "6 of 6 scores are not a number"),
        ({"maps": np.full((6, 8, 8), np.nan)}, "320 of 320 scores are not a number"),
        ({"label": np.array([0, 1])}, r"shapes differ: scores \(6,\), labels \(2,\)"),
        ({"has_pixel_labels": np.array([True])}, r"shapes differ: labels \(6,\), has_pixel_labels \(1,\), maps"),
        (
            {"masks": np.zeros((6, 4, 4), bool)},
            r"maps \(6, 8, 8\), masks \(6, 4, 4\); wanted \(N,\), \(N,\), \(N, H, W\)",
        ),
        ({"maps": np.zeros((6, 64)), "masks": np.zeros((6, 64))}, r"maps of shape \(6, 64\)"),
    ],
)
def test_evaluate_scores_refuses_mistakes(scored, changes, message):
    with pytest.raises(MetricError, match=message):
        evaluate_scores(**scored | changes)


def test_many_maps_take_seconds_and_little_memory():
    # A sixth of 360 maps of 256 x 256, so that the test stays short; both costs grow in step with the pixels.
    rng = np.random.default_rng(0)
    masks = np.zeros((60, 256, 256), bool)
    masks[::2, 50:120, 60:130] = True
    maps = rng.standard_normal(masks.shape, dtype=np.float32)
    label = masks.any(axis=(1, 2))
    tracemalloc.start()
    start = time.perf_counter()
    top = maps.max(axis=(1, 2))
    evaluate_scores(
        head_logit=top,
        map_max_logit=top,
        fused_logit=top,
        label=label,
        maps=maps,
        masks=masks,
        has_pixel_labels=np.ones(60, bool),
    )
    seconds, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 * maps.size  # bytes: at 360 maps 283 MB, a seventh of the 2 GB allowed
    assert seconds < 5  # 0.3 s on an idle core
