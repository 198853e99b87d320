"""Warn where photographs that calibrate seem to show a part more than once: the guarantee counts each as a part.

Photographs that are merely alike are told to people and not joined, because that is a guess; see
docs/decisions/0013-near-duplicates.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from supersimplenet.datasets.base import relative_names
from supersimplenet.datasets.checks.duplicates import MOST_IMAGES, find_near_duplicates
from supersimplenet.datasets.checks.inspection import inspect_samples
from supersimplenet.preprocessing.reading import ReadConfig
from supersimplenet.types import Sample
from supersimplenet.utils.console import progress_bar
from supersimplenet.utils.formatting import few

OF_TRAINING = (
    "see them: supersimplenet data check PATH; tell parts apart: --data.group_pattern, or supersimplenet data split "
    "PATH --groups found --output split.csv, then supersimplenet train split.csv"
)
OF_FOLDERS = "tell parts apart with --group-pattern, and calibrate with parts that were not trained on"


def describe_repeated_parts(
    calibrating: Sequence[Sample], trained_good: Sequence[Sample] = (), *, reading: ReadConfig, advice: str
) -> str | None:
    """Return a warning if images that calibrate seem to show a part that another one, or a trained one, shows, too.

    The images are read again. One that cannot be read is passed over, and copies are no repeated parts: they are joined
    elsewhere.

    Args:
        calibrating: the images that calibrate, with the groups that the user named.
        trained_good: good images that were trained on; groups of theirs do not matter.
        reading: how images are read.
        advice: what to do about it.

    Returns:
        None where nothing is found, or where the user named groups, and so told parts apart.
    """
    if not calibrating or any(sample.group is not None for sample in calibrating):
        return None
    samples = [*calibrating, *trained_good]
    if len(samples) > MOST_IMAGES:
        return f"not searched for parts that were photographed more than once: more than {MOST_IMAGES:,} images"
    with progress_bar() as bar:
        task = bar.add_task("comparing photographs", total=len(samples), detail="")
        inspections = inspect_samples(samples, reading=reading, progress=lambda images: bar.advance(task, images))
    places = [place for place, inspection in enumerate(inspections) if inspection.image is not None]
    images = [inspection.image for inspection in inspections if inspection.image is not None]
    if not images:
        return None
    near = find_near_duplicates(np.stack([image.fingerprint for image in images]))
    pairs = [
        (places[i], places[j])
        for i, j in near.pairs[np.argsort(-near.likeness, kind="stable")].tolist()  # the most alike first
        if places[i] < len(calibrating)  # and so at least one of the two calibrates
        and samples[places[i]].label == samples[places[j]].label
        and images[i].digest != images[j].digest
    ]
    if not pairs:
        return None
    repeated = {place for pair in pairs for place in pair if place < len(calibrating)}
    names = relative_names(samples)
    shown = few([f"{names[samples[i].image]} and {names[samples[j].image]}" for i, j in pairs])
    return (
        f"warning: {len(repeated):,} of the {sum(place < len(calibrating) for place in places):,} photographs that "
        f"calibrate seem to show a part that was photographed more than once ({shown}): the guarantee counts each "
        f"photograph as a part, so do not sign it; {advice}"
    )
