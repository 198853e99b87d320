"""The good images that a training held out to calibrate with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from supersimplenet.datasets.base import DataSource, training_list_hash
from supersimplenet.datasets.masks import without_empty_masks
from supersimplenet.datasets.splits import hold_out
from supersimplenet.datasets.supervision import supervise
from supersimplenet.errors import DataError
from supersimplenet.types import Sample

HELD_OUT = "held out of the training"


def held_out_samples(source: DataSource, record: Mapping[str, Any]) -> list[Sample]:
    """The good images that a training held out, found again from its data set and its config.yaml.

    Raises:
        DataError: the training images are not those of the training any more.
    """
    samples, _ = without_empty_masks(source.samples())
    training = supervise(samples, record["supervision"], masks=record["masks"], seed=record["seed"]).training
    if training_list_hash(training) != record["training"]["list_sha256"]:
        raise DataError(
            f"{source.name}: the training images changed since the training, so which ones it held out is not known; "
            "name good parts that were not trained on, with --good"
        )
    places = hold_out(training, record["trainer"]["holdout_fraction"], record["seed"])
    return [training[place] for place in sorted(places)]
