"""Whether test images were taken in the same light as those trained on: brightness and contrast of the good ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from supersimplenet.datasets.checks.inspection import look_at
from supersimplenet.types import GOOD, Sample, Split

_MOST = 200  # images of a split that are looked at, evenly spaced in the list: medians need no more
_FEWEST = 10  # that tell anything
_LEAST_LEVELS = {"brightness": 5.0, "contrast": 3.0}  # grey levels; a smaller shift is none
_TO_STANDARD_DEVIATION = 1.4826  # times the median distance from the median, where values are normal


@dataclass(frozen=True, kw_only=True)
class Light:
    """One measure of the good images of both splits.

    Attributes:
        what: ``brightness``, the mean grey level of an image, or ``contrast``, its standard deviation.
        train: median over the training images, in grey levels of 255.
        test: likewise, over the test images.
        spread: usual distance of a training image from that median, scaled to a standard deviation.
        images: how many of each split were looked at, training first.
    """

    what: Literal["brightness", "contrast"]
    train: float
    test: float
    spread: float
    images: tuple[int, int]

    @property
    def shifted(self) -> bool:
        """Whether the test images lie off by more than training images usually do from each other."""
        return abs(self.test - self.train) > max(self.spread, _LEAST_LEVELS[self.what])


def measure_light(samples: Sequence[Sample]) -> list[Light]:
    """Brightness and contrast; empty where a split has too few good images that can be read."""
    looks = {split: _looks(samples, split) for split in ("train", "test")}
    if min(len(of_split) for of_split in looks.values()) < _FEWEST:
        return []
    found = []
    for column, what in enumerate(_LEAST_LEVELS):
        train, test = looks["train"][:, column], looks["test"][:, column]
        middle = float(np.median(train))
        found.append(
            Light(
                what=what,  # type: ignore[arg-type]
                train=middle,
                test=float(np.median(test)),
                spread=_TO_STANDARD_DEVIATION * float(np.median(np.abs(train - middle))),
                images=(len(train), len(test)),
            )
        )
    return found


def _looks(samples: Sequence[Sample], split: Split) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """(N, 2), brightness and contrast."""
    good = [
        replace(sample, mask=None, ignore=None) for sample in samples if sample.split == split and sample.label == GOOD
    ]
    places = np.linspace(0, len(good) - 1, min(len(good), _MOST)).round().astype(int).tolist()
    looks = [look.image for look in look_at([good[place] for place in places]) if look.image is not None]
    return np.array([[image.brightness, image.contrast] for image in looks]).reshape(-1, 2)
