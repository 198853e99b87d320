"""Scores of images of known label, as thresholds are set from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from supersimplenet.datasets.masks import read_ignored
from supersimplenet.datasets.parts import describe_copies, merge_copies, require_one_label
from supersimplenet.metrics.thresholds import part_scores
from supersimplenet.postprocessing.defects import level_of_area
from supersimplenet.preprocessing.loading import Failure, OnError
from supersimplenet.runtime.predictor import Predictor
from supersimplenet.types import BAD, GOOD, Sample

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores of some images; copies of one image are in one group.

    Attributes:
        samples: the images that could be read.
        logits: (N,) score of each.
        levels: (N,) of a good image the lowest pixel threshold at which no defect is listed; NaN for a bad one.
        pixels: pixel digest of each image.
        copies: a line about copies of images; None where there are none.
        failures: images that could not be read.
    """

    samples: list[Sample]
    logits: Floats
    levels: Floats
    pixels: dict[Path, str]
    copies: str | None
    failures: list[Failure]

    @property
    def good(self) -> NDArray[np.int64]:
        """Places of the good images."""
        return np.flatnonzero([sample.label == GOOD for sample in self.samples])

    @property
    def bad(self) -> NDArray[np.int64]:
        """Places of the bad images."""
        return np.flatnonzero([sample.label == BAD for sample in self.samples])

    def groups(self, places: NDArray[np.int64]) -> list[str | None]:
        """Return the part of each of some images."""
        return [self.samples[place].group for place in places]

    def good_parts(self, values: Floats) -> Floats:
        """Return the highest value of each good part."""
        return part_scores(values[self.good], self.groups(self.good)) if self.good.size else np.zeros(0)

    def bad_parts(self) -> Floats:
        """Return the lowest score of each bad part."""
        return part_scores(self.logits[self.bad], self.groups(self.bad), worst="min") if self.bad.size else np.zeros(0)


def score_images(
    detector: Predictor,
    samples: Sequence[Sample],
    *,
    min_area_px: int,
    on_error: OnError = "stop",
    progress: Callable[[int], None] = lambda images: None,
) -> Scored:
    """Predict images of known label.

    Args:
        detector: the predictor; its calibration has no influence.
        samples: good and bad images.
        min_area_px: smaller regions are no defects, in pixels at the network's input size.
        on_error: whether an unreadable image stops or is left out.
        progress: called with the number of images done since the last call.

    Raises:
        DataError: an image is labelled good and its copy bad.
        ImageError: an image cannot be read and ``on_error`` is ``stop``.
    """
    logits = np.full(len(samples), np.nan)
    levels = np.full(len(samples), np.nan)
    pixels: dict[Path, str] = {}
    read, failures = [], []
    for item in detector.predict_files(
        [sample.image for sample in samples],
        ignored=lambda index: read_ignored(samples[index], reading=detector.preprocessor.reading),
        with_facts=True,
        on_error=on_error,
    ):
        progress(1)
        if isinstance(item, Failure):
            failures.append(item)
            continue
        sample = samples[item.index]
        read.append(item.index)
        if item.facts is not None:  # never None for a path
            pixels[sample.image] = item.facts.pixels
        logits[item.index] = item.prediction.score_logit
        if sample.label == GOOD:
            ignored, map_logit = item.prediction.ignored, item.prediction.map_logit
            counted = map_logit if ignored is None else np.where(ignored, map_logit.min(), map_logit)
            levels[item.index] = level_of_area(counted, min_area_px)
    require_one_label(samples, pixels)
    merged = merge_copies(samples, pixels)
    places = sorted(read)
    return Scored(
        samples=[merged[place] for place in places],
        logits=logits[places],
        levels=levels[places],
        pixels=pixels,
        copies=describe_copies(samples, pixels),
        failures=failures,
    )
