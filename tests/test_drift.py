"""The test of drift: silent where nothing changes, whatever the distribution, and soon loud where something does."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from supersimplenet import ModelConfig, SuperSimpleNet
from supersimplenet.inference.model_folder import save_model
from supersimplenet.metrics.drift import DriftTest, History
from supersimplenet.station.config import StationConfig
from supersimplenet.station.inspection import Picture
from supersimplenet.station.signs import signs_of
from supersimplenet.station.station import Station


def test_ranks_are_those_of_a_sort():
    values = np.concatenate([np.random.default_rng(0).normal(size=300), [0.0, 0.0, -0.0, 1e30, -1e-30]])
    history = History()
    for number, value in enumerate(values, start=1):
        larger, equal = history.add(float(value))
        before = values[:number].astype(np.float32)
        step = abs(value) * 2**-9  # values nearer than that may have one key
        assert (before > value + step).sum() <= larger <= (before > value - step).sum()
        assert 1 <= equal <= (np.abs(before - value) <= 2 * step).sum()
        assert larger + equal <= number == history.number
    assert history.middle() == pytest.approx(np.median(values), abs=0.02)
    assert History.of_plain(history.plain()).add(0.25) == history.add(0.25)


@pytest.mark.parametrize("draw", [lambda r: r.normal(), lambda r: r.standard_cauchy(), lambda r: r.integers(3) / 2])
def test_p_values_are_uniform_and_independent_whatever_the_distribution(draw):
    values = np.random.default_rng(1)
    p = []
    for seed in range(40):  # short streams, whose first values are compared with few
        test = DriftTest(seed=seed, known=[float(draw(values)) for _ in range(5)])
        p.append([test.add(float(draw(values))) for _ in range(50)])
    assert stats.kstest(np.ravel(p), "uniform").pvalue > 0.001
    assert abs(np.corrcoef(np.ravel(np.array(p)[:, 1:]), np.ravel(np.array(p)[:, :-1]))[0, 1]) < 4 / np.sqrt(40 * 49)


def test_the_capital_is_a_martingale():
    ends = []
    for seed in range(2000):
        test, draw = DriftTest(seed=seed), np.random.default_rng((seed, 1))
        for p in draw.random(8):
            test.bet(float(p), year_share=0.1)
        ends.append(test.capital)
    assert np.mean(ends) == pytest.approx(1.0, abs=4 * np.std(ends) / np.sqrt(len(ends)))


def test_few_known_values_give_no_alarm_where_a_fixed_comparison_gives_many():
    online, fixed = [], []
    for seed in range(12):
        draw = np.random.default_rng((seed, 2))
        known, values = np.sort(draw.normal(size=12)), draw.normal(size=1500)
        alarm, bets = DriftTest(seed=seed, known=known), DriftTest(seed=seed)
        highest = [0.0, 0.0]
        for value in values:
            alarm.add(float(value))
            bets.bet(float((np.sum(known > value) + draw.random()) / 13))
            highest = [max(highest[0], alarm.capital), max(highest[1], bets.capital)]
        online.append(highest[0] >= 1000)
        fixed.append(highest[1] >= 1000)
    assert sum(online) == 0
    assert sum(fixed) >= 4  # of 12: the p-values of a fixed set are not independent


@pytest.mark.parametrize(("shift", "most"), [(1.0, 250), (-3.0, 60)])
def test_a_change_is_found_soon_also_after_a_long_time(shift, most):
    draw = np.random.default_rng(3)
    test = DriftTest(seed=3, known=draw.normal(size=20))
    for value in draw.normal(size=3000):
        test.add(float(value), year_share=1e-5)
    assert test.capital < 10
    test = DriftTest.of_plain(test.plain(), seed=4)  # as after a restart of the station
    needed = next(
        n for n in range(1, 5000) if test.add(draw.normal() + shift, year_share=1e-5) and test.capital >= 1000
    )
    assert needed <= most
    assert (test.recent_above > 0.6) == (shift > 0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drift") / "model"
    network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=(64, 64)), seed=7).eval()
    folder.mkdir()
    save_model(folder, network, {})
    return folder


def part(draw: np.random.Generator, brightness: float) -> bytes:
    pixels = np.clip(draw.normal(brightness, 20, (64, 64, 3)) + draw.normal(0, 3), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_a_light_that_grows_dim_is_said_and_survives_a_restart(model, tmp_path):
    draw = np.random.default_rng(5)
    with Station({"parts": model}, StationConfig(folder=tmp_path, reserve_mib=0), say=print) as station:
        wait_for_parts(station, [part(draw, 120) for _ in range(60)])
        (state,) = station.drift.states
        assert (state.drifted_at, state.parts) == (None, 60)
    with Station({"parts": model}, StationConfig(folder=tmp_path, reserve_mib=0), say=print) as station:
        assert station.drift.states[0].parts == 60
        wait_for_parts(station, [part(draw, 80) for _ in range(60)])
        (state,) = station.drift.states
        assert state.drifted_at is not None
        brightness = {feature.name: feature for feature in state.changed}["brightness"]
        assert brightness.above < 0.3  # darker
        assert brightness.before == pytest.approx(120, abs=25)
        assert brightness.recent == pytest.approx(80, abs=25)
        assert [sign.code for sign in signs_of(station)].count("drift") == 1
        station.drift.accept(station.models.of("parts"))
        (state,) = station.drift.states
        assert (state.drifted_at, state.parts, state.changed) == (None, 0, [])


def wait_for_parts(station: Station, contents: list[bytes]) -> None:
    for content in contents:
        (future,) = station.inspections.submit([Picture(content=content, name="a.png", source="test")], *station.models)
        record = future.result(60).record
        assert record["verdict"] == "good"
