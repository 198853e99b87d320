"""Colours of pictures, as people with deuteranopia and protanopia see them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from supersimplenet.visualization.colours import (
    BLUE,
    CALIBRATED,
    FOUND,
    GREY,
    TRUTH,
    UNCALIBRATED,
    VERMILION,
    MapColours,
    blended,
)

# Machado, Oliveira and Fernandes, IEEE TVCG 15, 2009: severity 1.0, for linear RGB.
SEEN = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
GREYS = range(40, 221, 20)  # of photographs


def lab(colours: np.ndarray, seen: str) -> np.ndarray:
    """CIE L*a*b* (..., 3) of sRGB colours from 0 to 255 (..., 3), as they are seen."""
    share = np.asarray(colours, dtype=float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ SEEN[seen].T, 0, 1) @ TO_XYZ.T / TO_XYZ.sum(axis=1)
    cubic = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(cubic, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def apart(one: object, other: object, seen: str) -> float:
    """Distance of two colours, CIE 1976; about 2 is just visible."""
    return float(np.linalg.norm(lab(np.array(one), seen) - lab(np.array(other), seen)))


def shown(level: int, table: MapColours) -> np.ndarray:
    """The 256 colours of the map over a grey, (256, 3)."""
    grey = np.full((1, 256, 3), level, dtype=np.uint8)
    return blended(grey, np.arange(256, dtype=np.uint8)[None], table)[0]


def test_the_simulation_keeps_greys_and_white():
    for seen in SEEN:
        assert lab(np.array([255, 255, 255]), seen) == pytest.approx([100, 0, 0], abs=0.1)
        assert lab(np.array([119, 119, 119]), seen) == pytest.approx([50, 0, 0], abs=0.3)


@pytest.mark.parametrize("seen", SEEN)
def test_verdicts_are_told_apart(seen):
    assert min(apart(one, other, seen) for one, other in itertools.combinations((BLUE, GREY, VERMILION), 2)) > 35
    assert apart(BLUE, VERMILION, seen) > 60


@pytest.mark.parametrize("seen", SEEN)
@pytest.mark.parametrize("grey", GREYS)
def test_what_reaches_the_threshold_is_hot_and_what_does_not_is_quiet(grey, seen):
    colours = shown(grey, CALIBRATED)
    away = np.array([apart(colour, (grey,) * 3, seen) for colour in colours])
    assert away[:128].max() < 16
    assert away[128:].min() > 34
    assert away[128:].min() > 2 * away[:128].max()
    assert apart(colours[127], colours[128], seen) > 40


@pytest.mark.parametrize("seen", SEEN)
def test_lines_stand_out_from_the_map_and_from_each_other(seen):
    assert apart(FOUND, TRUTH, seen) > 30
    hottest = [apart(FOUND, colour, seen) for grey in GREYS for colour in shown(grey, CALIBRATED)[128:]]
    assert min(hottest) > 60


@pytest.mark.parametrize("seen", SEEN)
def test_the_scale_grows_lighter(seen):
    for colours in (CALIBRATED.colours[128:], UNCALIBRATED.colours):
        assert (np.diff(lab(colours, seen)[:, 0]) > -0.3).all()
    for table in (CALIBRATED, UNCALIBRATED):
        assert (np.diff(table.opacities) >= 0).all()
