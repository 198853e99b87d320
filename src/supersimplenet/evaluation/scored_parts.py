"""The scores of parts, by the name of the score: images predicted, copies joined, each part by its worst photograph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from supersimplenet.datasets.masks import read_ignored
from supersimplenet.datasets.parts import merge_copies
from supersimplenet.metrics.thresholds import part_scores
from supersimplenet.postprocessing.defects import level_of_area
from supersimplenet.preprocessing.loading import Failure, OnError
from supersimplenet.runtime.predictor import Predictor
from supersimplenet.types import BAD, GOOD, Sample, ScoreName

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PartScores:
    """One score of good and of bad parts, in logits.

    Attributes:
        good: (parts,) the highest of each good part's photographs.
        bad: (parts,) the lowest of each bad part's photographs; may be empty.
    """

    good: Floats
    bad: Floats


@dataclass(kw_only=True)
class ScoredImages:
    """Images and their scores.

    Attributes:
        samples: the images, of which some may be missing below because they could not be read.
        scores: scores of each image, by its place in ``samples``.
        levels: lowest pixel threshold at which a good image has no defect to list, by its place; empty if not wanted.
        pixels: digest of each image's pixels.
        failures: images that could not be read.
    """

    samples: Sequence[Sample]
    scores: dict[int, dict[ScoreName, float]] = field(default_factory=dict)
    levels: dict[int, float] = field(default_factory=dict)
    pixels: dict[Path, str] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def places(self, label: int) -> list[int]:
        """Return the places of the images with a label, in the order in which they were predicted."""
        return [place for place in self.scores if self.samples[place].label == label]

    def groups(self, label: int) -> list[str | None]:
        """Return the part of each of these images; copies of one image are one part."""
        return [sample.group for sample in self.merged(label)]

    def merged(self, label: int) -> list[Sample]:
        """Return these images, copies of one image in one group."""
        merged = merge_copies(self.samples, self.pixels)
        return [merged[place] for place in self.places(label)]

    def of_parts(self) -> dict[ScoreName, PartScores]:
        """Return the scores of the parts by the name of the score, for all scores that the model gives."""
        names = list(next(iter(self.scores.values()), {}))
        return {name: PartScores(good=self._of(name, GOOD), bad=self._of(name, BAD)) for name in names}

    def part_levels(self) -> Floats:
        """Return (parts,) the highest level of each good part's photographs."""
        values = [self.levels[place] for place in self.places(GOOD)]
        return part_scores(values, self.groups(GOOD)) if values else np.zeros(0)

    def _of(self, name: ScoreName, label: int) -> Floats:
        values = [self.scores[place][name] for place in self.places(label)]
        return (
            part_scores(values, self.groups(label), worst="min" if label == BAD else "max") if values else np.zeros(0)
        )


def score_images(
    detector: Predictor,
    samples: Sequence[Sample],
    *,
    on_error: OnError,
    progress: Callable[[int], None] = lambda images: None,
    min_area_px: int | None = None,
) -> ScoredImages:
    """Predict images and keep their scores.

    Args:
        detector: the predictor.
        samples: the images, with the parts that they show.
        on_error: whether an unreadable image stops or is skipped.
        progress: called with the number of images done since the last call.
        min_area_px: area of the smallest defect, in pixels at the network's input size, for the levels; None for none.
            With zones each has its own.

    Raises:
        ImageError: an image cannot be read and ``on_error`` is ``stop``.
    """
    found = ScoredImages(samples=samples)
    for item in detector.predict_files(
        [sample.image for sample in samples],
        ignored=lambda index: read_ignored(samples[index], reading=detector.preprocessor.reading),
        with_facts=True,
        on_error=on_error,
    ):
        progress(1)
        if isinstance(item, Failure):
            found.failures.append(item)
            continue
        if item.facts is not None:  # never None for a path
            found.pixels[samples[item.index].image] = item.facts.pixels
        found.scores[item.index] = item.prediction.scores
        if min_area_px is None or samples[item.index].label != GOOD:
            continue
        if item.prediction.zones_logit is not None:  # a region is listed where it counts in a zone
            found.levels[item.index] = item.prediction.zones_logit
        else:
            ignored, map_logit = item.prediction.ignored, item.prediction.map_logit
            counted = map_logit if ignored is None else np.where(ignored, map_logit.min(), map_logit)
            found.levels[item.index] = level_of_area(counted, min_area_px)
    return found
