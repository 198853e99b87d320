"""Split a dataset anew: seeded, stratified by type, all images of a part in one split. Write the split as a table."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from supersimplenet.datasets.base import relative_names, sort_samples
from supersimplenet.datasets.checks.duplicates import MOST_IMAGES, equal_groups, find_near_duplicates, linked_groups
from supersimplenet.datasets.checks.inspection import Inspection
from supersimplenet.errors import ConfigError, DataError, OutputError
from supersimplenet.preprocessing.images import natural_key
from supersimplenet.types import GOOD, GroupsName, Sample
from supersimplenet.utils.files import whole_file
from supersimplenet.utils.seeding import derive_seed

_COLUMNS = ("image", "split", "label", "defect", "mask", "group", "pixel_labels_known")


def split_samples(samples: Sequence[Sample], *, test_fraction: float = 0.3, seed: int = 0) -> list[Sample]:
    """Pool the samples of both splits and split them anew; all samples of a group go to the same split.

    Groups are taken one after the other, the largest first; the seed decides the order of equally large groups. Each
    group goes to the split that keeps the share of every type closest to the fraction. If a type's images have no
    group, or groups of that type only, its number of test images is off by at most half of its largest group. The
    result depends on the images' paths below their common folder, their types and groups, and the seed. It does not
    depend on the samples' order or on the folder's place.

    Args:
        samples: samples of both splits.
        test_fraction: share of each type for the test split, above 0 and below 1.
        seed: seed of the order of equally large groups.

    Returns:
        The samples, sorted, each with its new split.

    Raises:
        ConfigError: the fraction is not above 0 and below 1.
        DataError: there is no sample, or no good image is left for training.
    """
    if not 0 < test_fraction < 1:
        raise ConfigError(f"test_fraction: {test_fraction}; wanted above 0 and below 1")
    if not samples:
        raise DataError("no sample to split; wanted a dataset with images")
    total = Counter(sample.defect for sample in samples)
    seen, test = Counter[str](), Counter[str]()
    result = []
    for members in _ordered_groups(samples, seed):
        counts = Counter(sample.defect for sample in members)
        seen.update(counts)
        # Squared errors of the types' test counts, without and with this group in the test split.
        without, within = (
            sum(
                (test[type_] + extra * counts[type_] - test_fraction * seen[type_]) ** 2 / total[type_]
                for type_ in counts
            )
            for extra in (0, 1)
        )
        to_test = within < without
        if to_test:
            test.update(counts)
        result += [replace(sample, split="test" if to_test else "train") for sample in members]
    if not any(sample.split == "train" and sample.label == GOOD for sample in result):
        raise DataError("no good image was left for training; lower test_fraction, or name smaller groups")
    return sort_samples(result)


def group_samples(
    samples: Sequence[Sample], groups: GroupsName, inspections: Sequence[Inspection] | None = None
) -> list[Sample]:
    """Return the samples with the groups that a split must keep together.

    Args:
        samples: samples of the dataset.
        groups: ``known``: the groups that the dataset names. ``found``: also groups of images that are equal or seem
            to show one part; they are joined with the named groups, and a joined group has a name such as ``001+014``.
            ``none``: no groups.
        inspections: result of `inspect_samples` for the samples; needed for ``found``.

    Raises:
        DataError: for ``found``, an image cannot be read, or there are more images than can be compared.
    """
    if groups == "known":
        return list(samples)
    if groups == "none":
        return [replace(sample, group=None) for sample in samples]
    assert inspections is not None
    errors = [inspection.image_error for inspection in inspections if inspection.image_error is not None]
    if errors:
        raise DataError(f"{len(errors)} images cannot be compared; the first: {errors[0]}")
    if len(samples) > MOST_IMAGES:
        raise DataError(f"{len(samples):,} images; {MOST_IMAGES:,} can be compared: name groups, or split in parts")
    images = [inspection.image for inspection in inspections if inspection.image is not None]
    near = find_near_duplicates(np.stack([image.fingerprint for image in images])) if images else None
    links = [] if near is None else [(i, j) for i, j in near.pairs.tolist()]
    named = [
        ("", str(place)) if sample.group is None else ("named", sample.group) for place, sample in enumerate(samples)
    ]
    for equal in (*equal_groups([image.digest for image in images]), *equal_groups(named)):
        links += [(equal[0], other) for other in equal[1:]]
    names: dict[int, str | None] = {place: sample.group for place, sample in enumerate(samples)}
    names_of = relative_names(samples)
    for linked in linked_groups(len(samples), links):
        known = sorted({group for place in linked if (group := samples[place].group) is not None})
        first = min((names_of[samples[place].image] for place in linked), key=lambda name: natural_key(Path(name)))
        names.update(dict.fromkeys(linked, "+".join(known) or f"found {first}"))
    return [replace(sample, group=names[place]) for place, sample in enumerate(samples)]


def write_table(samples: Sequence[Sample], path: Path) -> None:
    """Write the samples as a CSV file, which ``--data Table --data.path`` can read.

    If all files are below the table's folder, the paths are relative to it, so the folder can be moved as a whole;
    otherwise they are absolute, so the table can be moved.

    Raises:
        OutputError: the file cannot be written.
    """
    folder = path.absolute().parent
    files = [file.absolute() for s in samples for file in (s.image, s.mask, s.ignore) if file is not None]
    below = all(folder in file.parents for file in files)

    def cell(file: Path | None) -> str:
        if file is None:
            return ""
        return file.absolute().relative_to(folder).as_posix() if below else str(file.absolute())

    extra = [name for name in ("ignore", "mask_any_value") if any(getattr(sample, name) for sample in samples)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*_COLUMNS, *extra])
            for sample in samples:
                mask = None if sample.label == GOOD else sample.mask
                known = sample.label == GOOD or (mask is not None and sample.pixel_labels_known)
                row = [cell(sample.image), sample.split, sample.label, sample.defect, cell(mask)]
                row += [sample.group or "", int(known)]
                rare = {
                    "ignore": cell(sample.ignore),
                    "mask_any_value": int(mask is not None and sample.mask_any_value),
                }
                writer.writerow([*row, *(rare[name] for name in extra)])
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another --output") from error


def _ordered_groups(samples: Sequence[Sample], seed: int) -> list[list[Sample]]:
    names_of = relative_names(samples)
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in sorted(samples, key=lambda sample: names_of[sample.image]):
        key = ("alone", names_of[sample.image]) if sample.group is None else ("group", sample.group)
        groups.setdefault(key, []).append(sample)
    return sorted(
        groups.values(), key=lambda group: (-len(group), derive_seed(seed, "split", names_of[group[0].image]))
    )


def hold_out(samples: Sequence[Sample], fraction: float, seed: int) -> set[int]:
    """Return the indices of the held-out images: whole groups of good images, drawn until the share is reached.

    A group that contains a bad image is never held out.

    Args:
        samples: the training samples.
        fraction: share of the good images to hold out.
        seed: seed of the choice.
    """
    names = relative_names(samples)
    groups: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        groups.setdefault(sample.group or names[sample.image], []).append(index)
    good = {name: indices for name, indices in groups.items() if all(samples[i].label == GOOD for i in indices)}
    order = sorted(good, key=lambda name: derive_seed(seed, "holdout", name))
    wanted = fraction * sum(sample.label == GOOD for sample in samples)
    chosen: set[int] = set()
    for name in order[:-1]:  # at least one group is trained on
        if len(chosen) >= wanted:
            break
        chosen.update(groups[name])
    return chosen
