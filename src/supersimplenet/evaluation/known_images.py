"""Recognise test images by their content: copies of one another, and images that the model was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from supersimplenet.datasets.parts import describe_copies, find_copies, merge_copies
from supersimplenet.evaluation.results import Evaluation, Outcome
from supersimplenet.inference.image_records import read_known_images
from supersimplenet.types import Sample
from supersimplenet.utils.console import console
from supersimplenet.utils.formatting import counted, few


def join_copies(outcomes: Sequence[Outcome]) -> tuple[list[Outcome], list[list[Path]]]:
    """Return the outcomes with copies of one image in one part, and the images of each group of copies."""
    samples, digests = _content(outcomes)
    joined = [
        outcome if sample.group == outcome.sample.group else replace(outcome, merged=sample.group)
        for outcome, sample in zip(outcomes, merge_copies(samples, digests), strict=True)
    ]
    return joined, [[samples[place].image for place in group] for group in find_copies(samples, digests)]


def find_trained_on(outcomes: Sequence[Outcome], model: Path | None) -> list[Path]:
    """Return the images that a model was trained on, by the content of their files or by their pixels.

    Args:
        outcomes: the outcomes of the images.
        model: the model folder; None, or a folder without a record of its images, gives none.
    """
    known = (None if model is None else read_known_images(model)) or {}
    return [
        outcome.sample.image
        for outcome in outcomes
        if "train" in (known.get(outcome.sha256), known.get(outcome.pixels))
    ]


def warn_of_known_images(evaluation: Evaluation) -> None:
    """Print which test images are copies, labelled both good and bad, or known to the model from its training."""
    samples, digests = _content(evaluation.outcomes)
    copies = describe_copies(samples, digests)
    if copies is not None:
        console().print(copies)
    for group in both_labels(evaluation):
        console().print(f"labelled both good and bad, pixel for pixel the same: {few(group)}", style="bold red")
    if evaluation.trained_on:
        console().print(
            f"the model was trained on {counted(len(evaluation.trained_on), 'test image')}, perhaps under another "
            f"name, so the figures flatter it: {few(evaluation.trained_on)}",
            style="bold red",
        )


def both_labels(evaluation: Evaluation) -> list[Sequence[Path]]:
    """Return the groups of copies that are labelled good in one file and bad in another."""
    label = {outcome.sample.image: outcome.sample.label for outcome in evaluation.outcomes}
    return [group for group in evaluation.copies if len({label[image] for image in group}) > 1]


def _content(outcomes: Sequence[Outcome]) -> tuple[list[Sample], dict[Path, str]]:
    return [outcome.sample for outcome in outcomes], {outcome.sample.image: outcome.pixels for outcome in outcomes}
