"""Find the held-out images of a training: good images that it did not train on, kept for calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from supersimplenet.datasets.base import DataSource, relative_names, training_list_hash
from supersimplenet.datasets.masks import without_empty_masks
from supersimplenet.datasets.splits import hold_out
from supersimplenet.datasets.supervision import supervise
from supersimplenet.errors import DataError
from supersimplenet.types import GOOD, Sample
from supersimplenet.utils.files import file_sha256

HELD_OUT = "held out of the training"
_CHANGED = "name good parts that were not trained on, with --good"


def find_held_out(source: DataSource, hashes: Mapping[str, str]) -> list[Sample]:
    """Return the held-out images that a training recorded.

    Each image is found by its name and checked by its hash. If images were moved or renamed, all are found by hash.

    Args:
        source: the dataset of the training.
        hashes: SHA-256 of each held-out image, by the image's path below the folder common to the dataset's images.

    Raises:
        DataError: an image does not exist any more, or its content changed.
    """
    samples = source.samples()
    names = relative_names(samples)
    candidates = [sample for sample in samples if sample.split == "train" and sample.label == GOOD]
    by_name = {names[sample.image]: sample for sample in candidates}
    if set(hashes) <= set(by_name):
        found = [by_name[name] for name in hashes]
        changed = [
            name for name, sample in zip(hashes, found, strict=True) if file_sha256(sample.image) != hashes[name]
        ]
        if changed:
            raise DataError(f"{source.name}: {changed[0]} was held out of the training, and changed since; {_CHANGED}")
    else:
        found = _by_hash(candidates, set(hashes.values()))
        if len(found) < len(set(hashes.values())):
            raise DataError(
                f"{source.name}: {len(hashes) - len(found)} of the {len(hashes)} images that the training held out are "
                f"not there any more; {_CHANGED}"
            )
    chosen = {sample.image for sample in found}
    return [sample for sample in samples if sample.image in chosen]


def derive_held_out(source: DataSource, record: Mapping[str, Any]) -> list[Sample]:
    """Return the held-out images of a training with version 0.1, which did not record them: draw them by its seed.

    Args:
        source: the dataset of the training.
        record: content of the model folder's config.yaml.

    Raises:
        DataError: the dataset's training images changed since the training.
    """
    samples, _ = without_empty_masks(source.samples())
    training = supervise(samples, record["supervision"], masks=record["masks"], seed=record["seed"]).training
    if training_list_hash(training) != record["training"]["list_sha256"]:
        raise DataError(
            f"{source.name}: the training images changed since the training, so which ones it held out is not known; "
            f"{_CHANGED}"
        )
    places = hold_out(training, record["trainer"]["holdout_fraction"], record["seed"])
    return [training[place] for place in sorted(places)]


def _by_hash(samples: Sequence[Sample], hashes: set[str]) -> list[Sample]:
    """Return the first sample with each of the hashes."""
    found: dict[str, Sample] = {}
    for sample in samples:
        digest = file_sha256(sample.image)
        if digest in hashes:
            found.setdefault(digest, sample)
    return list(found.values())
