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
from supersimplenet.preprocessing.loading import Failure, OnError
from supersimplenet.runtime.predictor import Predictor
from supersimplenet.types import BAD, GOOD, Prediction, Sample, ScoreName

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
        pixels: digest of each image's pixels.
        failures: images that could not be read.
    """

    samples: Sequence[Sample]
    scores: dict[int, dict[ScoreName, float]] = field(default_factory=dict)
    pixels: dict[Path, str] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def places(self, label: int) -> list[int]:
        """Return the places of the images with a label, in the order in which they were predicted."""
        return [place for place in self.scores if self.samples[place].label == label]

    def groups(self, label: int) -> list[str | None]:
        """Return the part of each of these images; copies of one image are one part."""
        part_of = [sample.group for sample in merge_copies(self.samples, self.pixels)]
        return [part_of[place] for place in self.places(label)]

    def of_parts(self) -> dict[ScoreName, PartScores]:
        """Return the scores of the parts by the name of the score, for all scores that the model gives."""
        names = list(next(iter(self.scores.values()), {}))
        return {name: PartScores(good=self._of(name, GOOD), bad=self._of(name, BAD)) for name in names}

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
    each: Callable[[int, Prediction], None] = lambda place, prediction: None,
) -> ScoredImages:
    """Predict images and keep their scores.

    Args:
        detector: the predictor.
        samples: the images, with the parts that they show.
        on_error: whether an unreadable image stops or is skipped.
        progress: called with the number of images done since the last call.
        each: called with each image's place and its prediction.

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
        each(item.index, item.prediction)
    return found
