"""Choose the labels that a training uses: all labels of its samples, or fewer if the user wants fewer."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from supersimplenet.datasets.base import relative_names
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.types import BAD, GOOD, Regime, Sample
from supersimplenet.utils.files import is_file
from supersimplenet.utils.formatting import few
from supersimplenet.utils.seeding import derive_seed
from supersimplenet.utils.text_files import read_lines

SupervisionName = Literal["auto", "unsupervised", "weak", "mixed", "full"]


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """The images and labels that a training uses.

    Attributes:
        regime: regime of supervision.
        training: the training samples that are used, each with only the labels that are used.
        bad_left_out: number of bad training images that the regime does not use.
        masks_left_out: number of masks that the regime does not use.
        bad_in_test: number of bad images in the test split, which no training uses.
    """

    regime: Regime
    training: list[Sample]
    bad_left_out: int = 0
    masks_left_out: int = 0
    bad_in_test: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Number of images of each kind: good, bad with pixel labels, bad without pixel labels."""
        bad = [sample for sample in self.training if sample.label == BAD]
        known = sum(sample.pixel_labels_known for sample in bad)
        return {"good": len(self.training) - len(bad), "bad_with_mask": known, "bad_without_mask": len(bad) - known}

    def describe(self) -> str:
        """Return the regime and the numbers of images as one line of text."""
        counts = self.counts
        text = f"supervision: {self.regime}; {counts['good']} good training images"
        if self.regime != "unsupervised":
            text += f", {counts['bad_with_mask']} bad ones with a mask, {counts['bad_without_mask']} without"
        left_out = [(self.bad_left_out, "bad images"), (self.masks_left_out, "masks")]
        unused = " and ".join(f"{count} {what}" for count, what in left_out if count)
        if unused:
            return f"{text} ({unused} not used)"
        if self.regime == "unsupervised" and self.bad_in_test:
            return f"{text} (all {self.bad_in_test} bad images are in the test split)"
        return text


def supervise(
    samples: Sequence[Sample],
    supervision: str = "auto",
    *,
    masks: str | float | Sequence[str] | None = None,
    seed: int = 0,
) -> Supervision:
    """Choose the regime of supervision: the highest that the training samples' labels allow, or a lower one.

    Args:
        samples: samples of the dataset, as `without_empty_masks` returns them; those of the test split are not used.
        supervision: ``auto`` uses all labels; ``unsupervised`` does not use bad images; ``weak`` uses bad images
            without their masks; ``mixed`` uses some masks; ``full`` requires a mask for each bad image (an empty mask
            is accepted, but gives no pixel labels).
        masks: with ``mixed``, the masks to keep: a number of images (``12``), a share of the images with a mask
            (``0.25``), a file that lists one image on each line (its path, its path from the file's folder, or its
            name), or a list of names as `names_of_masks` returns it. None keeps all masks. With the same seed, a larger
            choice always includes a smaller one.
        seed: seed of the choice of masks.

    Raises:
        DataError: there is no good training image, or labels that the regime needs are missing.
        ConfigError: the regime is unknown, or ``masks`` does not fit it.
    """
    training = [sample for sample in samples if sample.split == "train"]
    bad_in_test = sum(sample.label == BAD for sample in samples) - sum(sample.label == BAD for sample in training)
    good = [sample for sample in training if sample.label == GOOD]
    bad = [sample for sample in training if sample.label == BAD]
    labelled = [sample for sample in bad if _has_mask(sample)]
    if not good:
        raise DataError("no good training image; every regime of supervision needs some")
    if supervision not in ("auto", "unsupervised", "weak", "mixed", "full"):
        raise ConfigError(f"supervision: '{supervision}'; choose auto, unsupervised, weak, mixed or full")
    if masks is not None and supervision != "mixed":
        raise ConfigError(f"masks: given with supervision {supervision}; it belongs to --supervision mixed")
    if supervision == "unsupervised":
        return Supervision(regime="unsupervised", training=good, bad_left_out=len(bad))
    if not bad:
        if supervision != "auto":
            where = f"all {bad_in_test} bad images are in the test split" if bad_in_test else "there is no bad image"
            raise DataError(
                f"supervision: {supervision} needs bad training images, and {where}; give some to the training split "
                "(of Folder: train_bad, or bad_train_fraction)"
            )
        return Supervision(regime="unsupervised", training=good, bad_in_test=bad_in_test)
    without = sum(sample.mask is None for sample in bad)
    if supervision == "full" and without:
        raise DataError(
            f"supervision: full needs a mask for each bad training image, and {without} of {len(bad)} have none; give "
            f"them, or choose {'mixed' if labelled else 'weak'} or auto"
        )
    if supervision == "mixed" and not labelled:
        raise DataError("supervision: mixed needs bad training images with masks; give masks, or choose weak")
    kept = _kept(labelled, masks, seed) if supervision in ("auto", "mixed", "full") else set()
    used = [sample if sample.label == GOOD or sample.image in kept else _without_mask(sample) for sample in training]
    is_full = supervision == "full" or len(kept) == len(bad)
    regime: Regime = "weak" if not kept else "full" if is_full else "mixed"
    return Supervision(regime=regime, training=used, masks_left_out=len(labelled) - len(kept))


def check_masks(masks: str | float | None) -> float | None:
    """Return the number or the share of the masks that are kept; None for all of them, or for a file that lists them.

    Raises:
        ConfigError: neither a number, nor a share, nor a file.
    """
    if masks is None or is_file(str(masks)):
        return None
    try:
        number = float(masks)
    except ValueError as error:
        raise ConfigError(
            f"masks: '{masks}'; wanted a number of images, a share between 0 and 1, or a file that lists images"
        ) from error
    if not (0 < number < 1 or (1 <= number < math.inf and number == int(number))):
        raise ConfigError(f"masks: {masks}; wanted a whole number of images, or a share between 0 and 1")
    return number


def _without_mask(sample: Sample) -> Sample:
    return replace(sample, mask=None, pixel_labels_known=False)


def names_of_masks(samples: Sequence[Sample], supervision: Supervision) -> list[str]:
    """Return the names of the images whose masks are kept; they stay the same when the data are moved."""
    labelled = [sample for sample in samples if _has_mask(sample)]
    names = relative_names(labelled) if labelled else {}
    return sorted(names[sample.image] for sample in supervision.training if _has_mask(sample))


def is_amount(masks: Any) -> bool:
    """Return whether ``masks`` is a number of masks or a share of them, and not a list of images."""
    try:
        float(masks)
    except (TypeError, ValueError):
        return False
    return not Path(str(masks)).is_file()


def _has_mask(sample: Sample) -> bool:
    return sample.split == "train" and sample.label == BAD and sample.pixel_labels_known


def _kept(labelled: Sequence[Sample], masks: str | float | Sequence[str] | None, seed: int) -> set[Path]:
    """Return the images whose masks are kept."""
    if masks is None:
        return {sample.image for sample in labelled}
    if isinstance(masks, Sequence) and not isinstance(masks, str):
        image_of = {name: image for image, name in relative_names(labelled).items()}
        if gone := sorted(set(masks) - set(image_of)):
            raise ConfigError(f"masks: {few(gone)}: no bad training image with a mask has this name; bring them back")
        return {image_of[name] for name in masks}
    number = check_masks(masks)
    if number is None:
        return _listed(labelled, Path(str(masks)))
    count = int(number) if number >= 1 else max(1, round(number * len(labelled)))
    if count > len(labelled):
        raise ConfigError(f"masks: {count} asked for, and {len(labelled)} bad training images have one; ask for fewer")
    names = relative_names(labelled)
    order = sorted(labelled, key=lambda sample: derive_seed(seed, "masks", names[sample.image]))
    return {sample.image for sample in order[:count]}


def _listed(labelled: Sequence[Sample], path: Path) -> set[Path]:
    lines = [line.strip().strip('"') for line in read_lines(path)]
    wanted = [line for line in lines if line and not line.startswith("#")]
    known: dict[str, list[Path]] = {}
    for sample in labelled:
        absolute = sample.image.absolute()
        names = {str(sample.image), str(absolute), os.path.relpath(absolute, path.parent.absolute()), sample.image.name}
        for name in names:
            known.setdefault(name, []).append(sample.image)
    chosen = set()
    for line in wanted:
        found = known.get(os.path.normpath(line)) or known.get(os.path.normpath(line.replace("\\", "/")), [])
        if len(found) != 1:
            what = "names no bad training image with a mask" if not found else f"names {len(found)} images"
            raise ConfigError(f"{path}: '{line}' {what}; write one image's path a line")
        chosen.add(found[0])
    return chosen
