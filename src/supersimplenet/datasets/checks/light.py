"""Check whether the good training and test images were taken in the same light: compare brightness and contrast."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from supersimplenet.datasets.checks.findings import Finding, Inspected
from supersimplenet.types import GOOD

LEAST_FOR_SPREAD = 10  # images needed for a useful median and spread
_LEAST_SPREAD_LEVELS = 2.0  # grey levels; a smaller spread is raised to this, so that tiny differences are not reported
_LEAST_SHIFT_LEVELS = {"brightness": 5.0, "contrast": 3.0}  # grey levels; smaller shifts are not reported
_TO_STANDARD_DEVIATION = 1.4826  # times the median distance from the median, where values are normally distributed
_WORDS = {"brightness": ("brighter", "darker"), "contrast": ("of more contrast", "of less contrast")}


@dataclass(frozen=True, kw_only=True)
class Light:
    """One property of the light, measured on the good images of both splits.

    Attributes:
        what: ``brightness``, the mean grey level of an image, or ``contrast``, its standard deviation.
        train: median over the training images, in grey levels of 255.
        test: median over the test images, in grey levels of 255.
        spread: median distance of the training images from ``train``, scaled to a standard deviation.
        images: number of images measured in each split, training first.
    """

    what: Literal["brightness", "contrast"]
    train: float
    test: float
    spread: float
    images: tuple[int, int]

    @property
    def shifted(self) -> bool:
        """True if the medians differ by more than training images usually differ from each other."""
        return abs(self.test - self.train) > max(self.spread, _LEAST_SHIFT_LEVELS[self.what])


def measure_light(inspected: Sequence[Inspected]) -> tuple[Light, ...]:
    """Return brightness and contrast of the good images; empty where a split has too few readable ones."""
    good = {
        split: [
            inspection.image
            for sample, inspection in inspected
            if inspection.image and sample.split == split and sample.label == GOOD
        ]
        for split in ("train", "test")
    }
    if min(len(images) for images in good.values()) < LEAST_FOR_SPREAD:
        return ()
    counts = (len(good["train"]), len(good["test"]))
    measured = []
    names: tuple[Literal["brightness", "contrast"], ...] = ("brightness", "contrast")
    for what in names:
        train, spread = middle_and_spread(np.array([getattr(image, what) for image in good["train"]]))
        test, _ = middle_and_spread(np.array([getattr(image, what) for image in good["test"]]))
        measured.append(Light(what=what, train=train, test=test, spread=spread, images=counts))
    return tuple(measured)


def check_light(light: Sequence[Light]) -> Iterator[Finding]:
    """Yield a finding on each shift between training and test images."""
    for measured in light:
        if measured.shifted:
            more, less = _WORDS[measured.what]
            message = (
                f"good test images are {more if measured.test > measured.train else less} than good training images: "
                f"median {measured.what} {measured.test:.0f} against {measured.train:.0f} of 255 (give or take "
                f"{measured.spread:.0f}); train on images under the light of the line, or expect false alarms"
            )
            yield Finding(level="warning", code=f"{measured.what}-shift", message=message)


def middle_and_spread(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the median, and the standard deviation of normally distributed values, estimated without the outliers."""
    middle = float(np.median(values))
    return middle, max(_TO_STANDARD_DEVIATION * float(np.median(np.abs(values - middle))), _LEAST_SPREAD_LEVELS)
