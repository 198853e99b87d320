"""Streaming pixel metrics against hand-computed values, scikit-learn, torchmetrics and a loop over every threshold."""

import itertools
import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score
from test_metrics import best_f1
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from supersimplenet.errors import MetricError
from supersimplenet.metrics.pixels import BIN_BITS, PIXEL_METRICS, SIZE_EDGES, PixelTally, region_overlap
from supersimplenet.metrics.ranking import Metric, overlap_curve, rank, ranked_auroc

# Counts are whole numbers; only the order of summation differs from the references.
EXACT = {"rtol": 0, "atol": 1e-12}
LIMITS = {"AUPRO": 0.3, "AUPRO@0.05": 0.05, "AUPRO@0.01": 0.01}


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


def tally_of(
    maps: np.ndarray, masks: np.ndarray, *, ignored: np.ndarray | None = None, **options: object
) -> PixelTally:
    tally = PixelTally(**options)
    for place, (scores, mask) in enumerate(zip(maps, masks, strict=True)):
        tally.add(scores, mask, ignored=None if ignored is None else ignored[place])
    return tally


def random_maps(seed: int, *, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Small maps with some regions, corners and borders among them; few levels give heavy ties."""
    rng = np.random.default_rng(seed)
    masks = rng.random((3, 7, 6)) < rng.choice([0.05, 0.2, 0.5])
    masks[0, 0, 0], masks[1, -1, -1] = True, False
    maps = rng.standard_normal(masks.shape) + masks
    return (maps if levels is None else np.round(maps * levels)).astype(np.float32), masks


def exact_metrics(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    label, score = masks.ravel(), maps.ravel()
    return {
        "P-AUROC": roc_auc_score(label, score),
        "AP-loc": average_precision_score(label, score),
        "P-F1-max": best_f1(label, score),
        **{name: naive_region_overlap(maps, masks, limit) for name, limit in LIMITS.items()},
    }


def assert_within_bounds(metrics: dict[str, Metric], exact: dict[str, float]) -> None:
    assert metrics.keys() == exact.keys()
    for name, metric in metrics.items():
        assert abs(metric.value - exact[name]) <= metric.error_bound + 1e-12, (name, metric, exact[name])


# --- overlap of regions by hand ----------------------------------------------------------------------------------


def one_row(scores: list[float], mask: list[int]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([[scores]], np.float32), np.array([[mask]], bool)


def test_overlap_by_hand():
    # Normal pixels 6, 4, 2, 0; the region's pixels 5 and 3. Thresholds 6 to 0 give (rate, overlap):
    # (1/4, 0) (1/4, 1/2) (2/4, 1/2) (2/4, 1) (3/4, 1) (1, 1)
    maps, masks = one_row([6, 5, 3, 4, 2, 0], [0, 1, 1, 0, 0, 0])
    for limit, area in [(1.0, 1 / 8 + 1 / 2), (0.5, 1 / 8), (0.3, 0.05 / 2), (0.25, 0), (0.1, 0)]:
        metric = region_overlap(maps, masks, max_false_positive_rate=limit)
        np.testing.assert_allclose(metric.value, area / limit, **EXACT)
        assert metric.error_bound == pytest.approx(0, abs=1e-15)  # each score has a bin of its own
    assert region_overlap(maps, masks) == region_overlap(maps, masks, max_false_positive_rate=0.3)


def test_overlap_is_interpolated_inside_a_bin_and_the_bound_covers_both_ways_through_it():
    # One normal pixel in two shares the region's bin: the curve runs from (0, 0) straight to (1/2, 1). Up to 0.3 it
    # may be all 0 (the normal one is above) or all 1 (the region is).
    maps, masks = one_row([1, 1, 0], [1, 0, 0])
    metric = region_overlap(maps, masks, max_false_positive_rate=0.3)
    np.testing.assert_allclose(metric.value, 0.6 / 2, **EXACT)
    np.testing.assert_allclose(metric.error_bound, 0.7, **EXACT)


def test_overlap_of_a_constant_map_is_half_the_limit():
    maps, masks = np.zeros((2, 5, 5), np.float32), np.zeros((2, 5, 5), bool)
    masks[0, 1:3, 1:3] = True
    for limit in (0.05, 0.3, 1.0):
        value = region_overlap(maps, masks, max_false_positive_rate=limit).value
        np.testing.assert_allclose(value, limit / 2, **EXACT)


def test_overlap_weighs_regions_and_not_pixels():
    masks = np.zeros((1, 10, 10), bool)
    masks[0, :5, :5] = True  # 25 pixels, all found
    masks[0, 9, 9] = True  # one pixel in the corner, scored lowest of all
    maps = np.where(masks, 1.0, 0.0).astype(np.float32)
    maps[0, 9, 9] = -1.0
    assert region_overlap(maps, masks).value == pytest.approx(0.5, abs=1e-12)


def test_overlap_joins_diagonal_neighbours_and_never_two_images():
    # Three pixels in a diagonal are one region (found: 2 of 3); image two repeats the first one's last pixel in place.
    masks = np.zeros((2, 3, 3), bool)
    masks[0][np.eye(3, dtype=bool)] = True
    masks[1, 2, 2] = True
    maps = np.where(masks, 1.0, 0.0).astype(np.float32)
    maps[0, 0, 0] = -1.0
    # regions: 2/3 and 1 found before any false positive, joined they would be 3/4, 4-connected (2 + 1) / 4
    assert region_overlap(maps, masks).value == pytest.approx((2 / 3 + 1) / 2, abs=1e-12)


def test_overlap_of_perfect_and_of_inverted_maps():
    _, masks = random_maps(0)
    assert region_overlap(masks.astype(np.float32), masks).value == pytest.approx(1, abs=1e-12)
    assert region_overlap(-masks.astype(np.float32), masks).value == 0


# --- all of them against other implementations -------------------------------------------------------------------


@pytest.mark.parametrize("levels", [None, 2, 1])
@pytest.mark.parametrize("seed", range(6))
def test_against_scikit_learn_and_every_threshold_in_turn(seed, levels):
    maps, masks = random_maps(seed, levels=levels)
    assert_within_bounds(tally_of(maps, masks).metrics(), exact_metrics(maps, masks))


@pytest.mark.parametrize("seed", range(3))
def test_where_bins_tell_all_scores_apart_nothing_differs(seed):
    """Whole numbers below 2048 each have a bin: ties of scores are then ties of bins."""
    rng = np.random.default_rng(seed)
    maps = rng.integers(-2000, 2000, (3, 9, 8)).astype(np.float32)
    masks = rng.random(maps.shape) < 0.3
    metrics = tally_of(maps, masks).metrics()
    for name, exact in exact_metrics(maps, masks).items():
        assert metrics[name].value == pytest.approx(exact, abs=1e-12), name


@pytest.mark.parametrize("seed", range(3))
def test_against_torchmetrics(seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((4, 40, 30)) < 0.1
    maps = (rng.standard_normal(masks.shape) + masks).astype(np.float32)
    metrics = tally_of(maps, masks).metrics()
    # torchmetrics takes scores outside [0, 1] for logits and squeezes them; these are squeezed beforehand.
    squeezed = torch.from_numpy(maps).double().sigmoid().flatten()
    label = torch.from_numpy(masks).int().flatten()
    # It adds up in float32: a part in 10^7 of each of 4 800 terms.
    for name, reference in (("P-AUROC", binary_auroc), ("AP-loc", binary_average_precision)):
        assert abs(metrics[name].value - float(reference(squeezed, label))) <= metrics[name].error_bound + 1e-6


HARD_SCORES = st.one_of(
    st.integers(-3, 3).map(float),  # tied
    st.floats(width=32, allow_nan=False),  # anything, infinities and the smallest numbers too
    st.integers(0, 4).map(lambda step: float(np.float32(1000) + np.float32(step) * np.spacing(np.float32(1000)))),
    st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38]),
)


@given(st.data(), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_no_input_breaks_the_bounds(data, height, width):
    """Tied, constant, one pixel wide, at the border, within one bin: never further off than stated."""
    count = 2 * height * width
    shape = (2, height, width)
    maps = np.array(data.draw(st.lists(HARD_SCORES, min_size=count, max_size=count)), np.float32).reshape(shape)
    masks = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count))).reshape(shape)
    metrics = tally_of(maps, masks).metrics()
    if masks.all() or not masks.any():
        assert all(metric.value is None and "one class only" in metric.reason for metric in metrics.values())
        return
    # scikit-learn takes no infinities: a number beyond all of float32 stands for them.
    wide = np.nan_to_num(maps.astype(np.float64), posinf=1e39, neginf=-1e39)
    assert_within_bounds(metrics, exact_metrics(wide, masks))


def test_the_bound_is_reached_where_a_bin_hides_the_order():
    """Two neighbouring floats, the bad one above or below: half a pair each way for AUROC, the bound exactly."""
    low = np.float32(1000)
    maps, masks = one_row([np.nextafter(low, np.float32(2000)), low], [1, 0])
    above, below = tally_of(maps, masks).metrics(), tally_of(maps, ~masks).metrics()
    assert above["P-AUROC"].value == below["P-AUROC"].value == 0.5
    assert above["P-AUROC"].error_bound == 0.5
    assert (above["AP-loc"].value, above["AP-loc"].error_bound) == (0.5, 0.5)
    assert above["P-F1-max"].value + above["P-F1-max"].error_bound == 1.0
    # The bound that is stated grows where bins are coarser, and shrinks where they are finer.
    maps, masks = random_maps(1)
    bounds = [
        tally_of(maps.repeat(9, 1).repeat(9, 2), masks.repeat(9, 1).repeat(9, 2), bin_bits=bits) for bits in (18, 24)
    ]
    coarse, fine = (tally.metrics()["P-AUROC"].error_bound for tally in bounds)
    assert coarse >= fine


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=50))
@settings(max_examples=200, deadline=None)
def test_bins_keep_the_order_of_scores(scores):
    values = np.array([sorted(scores)], np.float32)
    tally = PixelTally(bin_bits=18)
    bins = []
    for value in values[0]:
        tally.normal[:] = 0
        tally.add(np.array([[value]], np.float32), np.zeros((1, 1), bool))
        bins.append(int(np.flatnonzero(tally.normal)[0]))
    assert bins == sorted(bins)
    assert len({bins[place] for place in np.flatnonzero(values[0] == 0)}) <= 1  # 0 and -0


# --- streams -----------------------------------------------------------------------------------------------------


def test_any_way_of_sharing_the_maps_out_gives_the_same(tmp_path):
    rng = np.random.default_rng(5)
    masks = rng.random((12, 16, 9)) < 0.2
    maps = (rng.standard_normal(masks.shape) + masks).astype(np.float32)
    whole = tally_of(maps, masks)
    parts = [tally_of(maps[part::3], masks[part::3]) for part in range(3)]
    merged = pickle.loads(pickle.dumps(parts[2]))  # as another process would send it
    merged.merge(parts[0])
    merged.merge(parts[1])
    for name, metric in merged.metrics().items():
        # Weights of regions are added up in another order.
        assert metric.value == pytest.approx(whole.metrics()[name].value, abs=1e-12)
    assert merged.regions() == whole.regions()
    np.testing.assert_array_equal(merged.normal, whole.normal)
    with pytest.raises(MetricError, match="bin_bits: 18 cannot be merged into 20"):
        whole.merge(PixelTally(bin_bits=18))


def test_memory_does_not_grow_with_the_number_of_maps():
    rng = np.random.default_rng(0)
    mask = np.zeros((256, 256), bool)
    mask[50:120, 60:130] = True
    maps = [rng.standard_normal((256, 256), dtype=np.float32) for _ in range(3)]

    def held_after(images: int) -> int:
        tracemalloc.start()
        tally = PixelTally()
        for place in range(images):
            tally.add(maps[place % 3], mask if place % 2 else ~mask & False)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return held

    few, many = held_after(6), held_after(60)
    assert many < few + 1e5  # bytes; the same three maps give no bin that the first six had not
    assert many < 12e6  # 8.4 MB of bins of normal pixels, and those of defective ones


def test_types_and_sizes_of_defects_are_told_apart():
    rng = np.random.default_rng(2)
    tally = PixelTally()
    masks = np.zeros((3, 50, 50), bool)
    masks[0, 0, 0] = True  # 1 px of 2500: the smallest class
    masks[0, 10:20, 10:20] = True  # 4 %
    masks[1, 10:30, 10:30] = True  # 16 %: the largest
    maps = rng.standard_normal(masks.shape).astype(np.float32)
    maps[0, 15, 15] = 6.0  # found
    maps[1][masks[1]] = 4.0  # not found
    for place, defect in enumerate(["scratch", "dent", "good"]):
        tally.add(maps[place], masks[place], defect=defect, listed=maps[place] >= 5)
    assert tally.regions() == (3, 1)
    assert tally.regions(defect="scratch") == (2, 1)
    assert tally.regions(defect="dent") == (1, 0)
    assert [tally.regions(size=size)[0] for size in range(len(SIZE_EDGES) + 1)] == [1, 0, 1, 1]
    normal = maps[~masks]
    for chosen, of in [({"defect": "dent"}, masks[1]), ({"size": 2}, None)]:
        bad = maps[1][of] if of is not None else maps[0, 10:20, 10:20].ravel()
        score = np.concatenate([normal, bad])
        label = np.repeat([0, 1], [normal.size, bad.size])
        metric = tally.metrics(**chosen)["P-AUROC"]
        assert abs(metric.value - roc_auc_score(label, score)) <= metric.error_bound + 1e-12
    assert tally.metrics(defect="stain")["AUPRO"].reason.startswith("one class only: 0 bad")


def test_ignored_pixels_are_left_out_of_regions_too():
    rng = np.random.default_rng(3)
    masks = rng.random((3, 7, 6)) < 0.4
    maps = (rng.standard_normal(masks.shape) + masks).astype(np.float32)
    ignored = rng.random(masks.shape) < 0.3
    kept = ~ignored
    metrics = tally_of(maps, masks, ignored=ignored).metrics()
    exact = {
        "P-AUROC": roc_auc_score(masks[kept], maps[kept]),
        "AP-loc": average_precision_score(masks[kept], maps[kept]),
        "P-F1-max": best_f1(masks[kept], maps[kept]),
        **{name: naive_region_overlap(maps, masks & kept, limit, kept=kept) for name, limit in LIMITS.items()},
    }
    assert_within_bounds(metrics, exact)
    garbled = np.where(ignored, np.float32(1e9), maps)
    assert tally_of(garbled, masks ^ ignored, ignored=ignored).metrics() == metrics


def test_the_curve_runs_from_nothing_to_all():
    maps, masks = random_maps(4)
    rate, overlap = overlap_curve(tally_of(maps, masks).ranking())
    assert (rate[0], overlap[0]) == (0, 0)
    assert (rate[-1], overlap[-1]) == pytest.approx((1, 1), abs=1e-12)
    assert (np.diff(rate) >= 0).all()
    assert (np.diff(overlap) >= 0).all()


def test_an_exact_ranking_and_the_bins_agree():
    maps, masks = random_maps(5)
    exact, binned = ranked_auroc(rank(maps, masks)), tally_of(maps, masks).metrics()["P-AUROC"]
    assert exact.error_bound == 0
    assert abs(exact.value - binned.value) <= binned.error_bound


# --- what is not defined, and mistakes ---------------------------------------------------------------------------


def test_undefined_metrics_say_why():
    maps, masks = random_maps(0)
    for tally, reason in [
        (tally_of(maps, np.zeros_like(masks)), "one class only: 0 bad and 126 good; wanted at least one of each"),
        (tally_of(maps, np.ones_like(masks)), "one class only: 126 bad and 0 good; wanted at least one of each"),
        (PixelTally(), "nothing to rank: no image, or none with pixel labels"),
    ]:
        assert tally.metrics() == dict.fromkeys(PIXEL_METRICS, Metric(value=None, reason=reason))


def test_mistakes_are_refused():
    maps, masks = random_maps(0)
    for arguments, message in [
        ((maps[0], masks[0, :, :-1]), r"map \(7, 6\), mask \(7, 5\), ignored None; wanted \(H, W\) of each"),
        ((maps, masks), r"map \(3, 7, 6\)"),
        ((maps[0].astype(np.float64), masks[0]), "map of float64, mask of bool; wanted float32 and bool"),
        ((maps[0], masks[0].astype(np.uint8)), "mask of uint8"),
        ((maps[0] * np.float32("nan"), masks[0]), "42 of 42 scores are not a number"),
    ]:
        with pytest.raises(MetricError, match=message):
            PixelTally().add(*arguments)
    for bits in (17, 25):
        with pytest.raises(MetricError, match=r"bin_bits: .*; wanted 18 to 24"):
            PixelTally(bin_bits=bits)
    for limit in (0, -0.1, 1.01, float("nan")):
        with pytest.raises(MetricError, match=r"max_false_positive_rate: .*; wanted above 0 and at most 1"):
            region_overlap(maps, masks, max_false_positive_rate=limit)
    with pytest.raises(MetricError, match=r"maps \(7, 6\), masks \(7, 6\); wanted \(N, H, W\) of both"):
        region_overlap(maps[0], masks[0])
    assert 2**BIN_BITS >= 2**18
