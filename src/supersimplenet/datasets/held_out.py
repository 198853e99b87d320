"""Choose the images that a training holds out to calibrate with, and find them again later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supersimplenet.datasets.base import DataSource, relative_names, training_list_hash
from supersimplenet.datasets.masks import without_empty_masks
from supersimplenet.datasets.parts import describe_copies, merge_copies, require_one_label
from supersimplenet.datasets.splits import hold_out
from supersimplenet.datasets.supervision import supervise
from supersimplenet.errors import DataError
from supersimplenet.types import BAD, GOOD, Sample
from supersimplenet.utils.files import file_sha256
from supersimplenet.utils.formatting import counted

HELD_OUT = "held out of the training"
_CHANGED = "name good parts that were not trained on, with --good"


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The images that a training holds out.

    Attributes:
        samples: all training samples, with copies of one image in one group.
        places: positions in the list of the images of held-out parts.
        bad_calibrate: whether the bad images among them calibrate, too; otherwise they are used for nothing.
        copies: a line about copies of images; None where there are none.
        all_fixed: whether an earlier model was trained on every good image.
    """

    samples: list[Sample]
    places: set[int]
    bad_calibrate: bool
    copies: str | None
    all_fixed: bool = False

    def describe(self) -> str | None:
        """Return a line about held-out bad images; None where there are none."""
        bad = sum(self.samples[place].label == BAD for place in self.places)
        if not bad:
            return None
        use = "estimate escapes" if self.bad_calibrate else "are left out, because too few others are there to train on"
        return (
            "too few parts are free of bad images, so whole parts are held out: their "
            f"{counted(len(self.places) - bad, 'good image')} calibrate, their {counted(bad, 'bad image')} {use}"
        )

    def why_none(self, fraction: float) -> str:
        """Return why no image is held out, in words; empty where some are."""
        if self.places:
            return ""
        if fraction == 0:
            return "holdout_fraction is 0"
        good = sum(sample.label == GOOD for sample in self.samples)
        if self.all_fixed:
            return f"the model that this one starts from was trained on each of the {counted(good, 'good image')}"
        return f"{counted(good, 'good image')} of one part: no other part is there to train on"


def choose_held_out(
    samples: Sequence[Sample],
    digests: Mapping[Path, str],
    fraction: float,
    seed: int,
    *,
    fixed: Mapping[int, bool] | None = None,
) -> HeldOut:
    """Choose the images that a training holds out; copies of one image are one part.

    The bad images of held-out parts calibrate, if at least as many bad images are left to train on.

    Args:
        samples: the training samples.
        digests: pixel digest by image; see `find_copies`.
        fraction: share of the good images to hold out; see `hold_out`.
        seed: seed of the choice.
        fixed: see `hold_out`.

    Raises:
        DataError: an image is labelled good in one file and bad in its copy.
    """
    require_one_label(samples, digests)
    parts = merge_copies(samples, digests)
    places = hold_out(parts, fraction, seed, fixed=fixed)
    bad = [place for place, sample in enumerate(parts) if sample.label == BAD]
    bad_held_out = len(places.intersection(bad))
    return HeldOut(
        samples=parts,
        places=places,
        bad_calibrate=len(bad) - bad_held_out >= bad_held_out,
        copies=describe_copies(samples, digests),
        all_fixed=all((fixed or {}).get(place) is False for place, part in enumerate(parts) if part.label == GOOD),
    )


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
    candidates = [sample for sample in samples if sample.split == "train"]
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
                f"{source.name}: held out of the training and not there any more: {len(hashes) - len(found)} of "
                f"{counted(len(hashes), 'image')}; {_CHANGED}"
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
    places = hold_out(training, record["trainer"]["holdout_fraction"], record["seed"], bad_parts=False)
    return [training[place] for place in sorted(places)]


def _by_hash(samples: Sequence[Sample], hashes: set[str]) -> list[Sample]:
    """Return the first sample with each of the hashes."""
    found: dict[str, Sample] = {}
    for sample in samples:
        digest = file_sha256(sample.image)
        if digest in hashes:
            found.setdefault(digest, sample)
    return list(found.values())
