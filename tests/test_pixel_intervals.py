"""Intervals of the pixel metrics are those of an exact bootstrap over parts, from tallies of at most 32 kB."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from supersimplenet.errors import MetricError
from supersimplenet.metrics import part_tallies
from supersimplenet.metrics.bootstrap import Interval
from supersimplenet.metrics.part_tallies import INTERVAL_METRICS, MOST_BYTES, PartTally, pixel_intervals
from supersimplenet.metrics.pixels import PixelTally
from supersimplenet.metrics.ranking import Metric

SIZE = (32, 32)
REPLICATES = 150


def made(parts: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Maps and masks: a third of the parts has one or two defects, some of them found well and some hardly."""
    rng = np.random.default_rng(seed)
    pairs = []
    for part in range(parts):
        mask = np.zeros(SIZE, dtype=bool)
        if part % 3 == 0:
            for _ in range(int(rng.integers(1, 3))):
                y, x = rng.integers(2, 24, 2)
                mask[y : y + int(rng.integers(2, 7)), x : x + int(rng.integers(2, 7))] = True
        noise = ndimage.gaussian_filter(rng.normal(size=SIZE), 1.5) * 4 - 3
        pairs.append(((noise + mask * rng.uniform(0.5, 5)).astype(np.float32), mask))
    return pairs


def tallied(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[PixelTally, list[PartTally]]:
    tally = PixelTally()
    return tally, [tally.add(*pair) for pair in pairs]


def values_of(tally: PixelTally) -> dict[str, float]:
    return {name: metric.value for name, metric in tally.metrics().items() if metric.value is not None}


def test_intervals_are_those_of_the_exact_bootstrap():
    pairs = made(24)
    tally, parts = tallied(pairs)
    found = pixel_intervals(parts, values_of(tally), replicates=REPLICATES, generator=np.random.default_rng(3))
    assert tuple(found) == INTERVAL_METRICS
    generator = np.random.default_rng(3)
    drawn: dict[str, list[float]] = {name: [] for name in INTERVAL_METRICS}
    for start in range(0, REPLICATES, 100):
        size = min(100, REPLICATES - start)
        for counts in generator.multinomial(24, np.full(24, 1 / 24), size=size):
            whole = PixelTally()
            for (map_logit, mask), count in zip(pairs, counts, strict=True):
                for _ in range(count):
                    whole.add(map_logit, mask)
            for name, metric in whole.metrics().items():
                if name in drawn:
                    drawn[name].append(metric.value)
    for name in INTERVAL_METRICS:
        low, high = np.quantile(drawn[name], [0.025, 0.975])
        error = 5e-3 if name == "AP-loc" else 2e-3  # the few pixels at the highest scores share bins
        assert (found[name].low, found[name].high) == pytest.approx((low, high), abs=error), name
        assert high - low > 10 * error, name


def test_tallies_merge_and_are_small(monkeypatch):
    pairs = made(6)
    _, parts = tallied(pairs)
    stacked = [np.concatenate([pair[place] for pair in pairs[3:5]]) for place in (0, 1)]
    (together,) = tallied([(stacked[0], stacked[1])])[1]
    merged = parts[3].merge(parts[4])
    for name in ("bins", "normal", "defective", "overlap"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(together, name))
    assert merged.regions == together.regions == parts[3].regions
    assert together.normal.sum() + together.defective.sum() == 2 * SIZE[0] * SIZE[1]
    assert together.overlap.sum() == pytest.approx(together.regions)

    rng = np.random.default_rng(0)
    wild = (np.exp(rng.uniform(-60, 60, (200, 200))) * rng.choice([-1, 1], (200, 200))).astype(np.float32)
    mask = np.zeros((200, 200), dtype=bool)
    mask[::2] = True
    (tally,) = tallied([(wild, mask)])[1]
    assert tally.nbytes <= MOST_BYTES
    assert tally.bits < part_tallies.PART_BITS
    assert (tally.normal.sum(), tally.defective.sum()) == (20_000, 20_000)
    monkeypatch.setattr(part_tallies, "_MOST_LEVELS", 100)  # fewer levels than bins: nearly the same intervals
    tally, parts = tallied(made(24))
    coarse = pixel_intervals(parts, values_of(tally), replicates=100, generator=np.random.default_rng(3))
    monkeypatch.undo()
    fine = pixel_intervals(parts, values_of(tally), replicates=100, generator=np.random.default_rng(3))
    for name in INTERVAL_METRICS:
        assert (coarse[name].low, coarse[name].high) == pytest.approx((fine[name].low, fine[name].high), abs=0.02)


def test_an_interval_that_says_nothing_is_none_with_its_reason():
    degenerate = Interval(low=1.0, high=1.0, confidence=0.95, replicates=10, degenerate=True)
    metric = Metric(value=1.0).with_interval(degenerate)
    assert (metric.interval, metric.no_interval) == (None, "every bootstrap sample gives the same value")
    assert metric.certainty() == "not defined: every bootstrap sample gives the same value"
    assert Metric(value=0.9).with_interval(None, "one class only").certainty() == "not defined: one class only"
    assert Metric(value=None, reason="no bad image").with_interval(None, "one class only").no_interval is None
    wide = Interval(low=0.25, high=1.0, confidence=0.95, replicates=10, degenerate=False)
    assert Metric(value=0.9).with_interval(wide).certainty() == "0.250 to 1.000"
    tally, parts = tallied(made(4))
    options = {"values": values_of(tally), "replicates": 100, "generator": np.random.default_rng(0)}
    with pytest.raises(MetricError, match="1 parts with a defective region; wanted at least 2"):
        pixel_intervals(parts[:3], **options)
    assert set(pixel_intervals([*parts, *[PartTally()] * 60], **options)) == set(INTERVAL_METRICS)
