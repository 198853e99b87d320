"""Split a dataset anew: seeded, stratified by type, all images of a part in one split. Write the split as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from supersimplenet.datasets.base import relative_names, sort_samples
from supersimplenet.datasets.checks.duplicates import MOST_IMAGES, find_near_duplicates
from supersimplenet.datasets.checks.inspection import Inspection, digests_of
from supersimplenet.datasets.parts import merge_copies, merge_parts, require_one_label
from supersimplenet.errors import ConfigError, DataError, OutputError
from supersimplenet.types import GOOD, GroupsName, Sample
from supersimplenet.utils.files import whole_file
from supersimplenet.utils.formatting import counted
from supersimplenet.utils.names import csv_line, label_cell, path_cell
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
    samples: Sequence[Sample],
    groups: GroupsName,
    inspections: Sequence[Inspection] | None = None,
    *,
    digests: Mapping[Path, str] | None = None,
) -> list[Sample]:
    """Return the samples with the groups that a split must keep together; copies of one image always are.

    Args:
        samples: samples of the dataset.
        groups: ``known``: the groups that the dataset names. ``found``: also groups of images that seem to show one
            part; they are joined with the named groups, and a joined group has a name such as ``001+014``. ``none``:
            no named groups.
        inspections: result of `inspect_samples` for the samples; needed for ``found``.
        digests: pixel digests of the images, see `digest_possible_copies`; not needed for ``found``.

    Raises:
        DataError: an image is labelled good in one file and bad in its copy; for ``found``, an image cannot be read, or
            there are more images than can be compared.
    """
    if groups != "found":
        digests = digests or {}
        require_one_label(samples, digests)
        return merge_copies(samples if groups == "known" else [replace(s, group=None) for s in samples], digests)
    assert inspections is not None
    errors = [inspection.image_error for inspection in inspections if inspection.image_error is not None]
    if errors:
        raise DataError(f"{counted(len(errors), 'image')} not readable; the first: {errors[0]}")
    if len(samples) > MOST_IMAGES:
        raise DataError(f"{len(samples):,} images; {MOST_IMAGES:,} can be compared: name groups, or split in parts")
    images = [inspection.image for inspection in inspections if inspection.image is not None]
    digests = digests_of(samples, inspections)
    require_one_label(samples, digests)
    near = find_near_duplicates(np.stack([image.fingerprint for image in images])) if images else None
    links = [] if near is None else [(i, j) for i, j in near.pairs.tolist()]
    return merge_parts(merge_copies(samples, digests), links)


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
        return path_cell(file.absolute().relative_to(folder).as_posix() if below else str(file.absolute()))

    extra = [name for name in ("ignore", "mask_any_value") if any(getattr(sample, name) for sample in samples)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(csv_line([*_COLUMNS, *extra]))
            for sample in samples:
                mask = None if sample.label == GOOD else sample.mask
                known = sample.label == GOOD or (mask is not None and sample.pixel_labels_known)
                row = [cell(sample.image), sample.split, sample.label, label_cell(sample.defect), cell(mask)]
                row += [label_cell(sample.group or ""), int(known)]
                rare = {
                    "ignore": cell(sample.ignore),
                    "mask_any_value": int(mask is not None and sample.mask_any_value),
                }
                file.write(csv_line([*row, *(rare[name] for name in extra)]))
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


def split_in_folds(samples: Sequence[Sample], folds: int, *, seed: int = 0) -> list[int]:
    """Return the fold of each sample, from 0: whole groups, and each fold holds about equal numbers of each type.

    Groups are taken one after the other, the largest first; the seed decides the order of equally large groups. Each
    goes to the fold that has the smallest share of its types so far, and of those the one with the fewest samples.

    Args:
        samples: training samples; copies of one image are in one group.
        folds: number of folds.
        seed: seed of the order.

    Raises:
        DataError: there are too few parts with a good image to give each fold one.
    """
    total = Counter(sample.defect for sample in samples)
    fold_of: dict[Path, int] = {}
    seen = [Counter[str]() for _ in range(folds)]
    good = [0] * folds  # parts with a good image
    for members in _ordered_groups(samples, seed):
        types = Counter(sample.defect for sample in members)
        chosen = min(
            range(folds), key=lambda fold: (sum(seen[fold][t] / total[t] for t in types), seen[fold].total(), fold)
        )
        seen[chosen].update(types)
        good[chosen] += any(sample.label == GOOD for sample in members)
        fold_of |= {sample.image: chosen for sample in members}
    if not all(good) or folds < 2:
        raise DataError(
            f"folds: {sum(good)} parts with a good image for {folds} folds; wanted 2 folds or more, and a part for each"
        )
    return [fold_of[sample.image] for sample in samples]


def hold_out(
    samples: Sequence[Sample],
    fraction: float,
    seed: int,
    *,
    bad_parts: bool = True,
    fixed: Mapping[int, bool] | None = None,
) -> set[int]:
    """Return the indices of the held-out images: whole parts, drawn until the share of the good images is reached.

    Parts without a bad image are drawn first. Only where they do not suffice, parts with bad images follow, and their
    bad images are held out with them. At least one part is trained on.

    Args:
        samples: the training samples; copies of one image are in one group.
        fraction: share of the good images to hold out.
        seed: seed of the choice.
        bad_parts: whether parts with a bad image are drawn; version 0.1 drew none.
        fixed: images by index that an earlier model held out (True) or was trained on (False). Parts with one of the
            latter are never held out, those with one of the former before others, also beyond the share.
    """
    names, fixed = relative_names(samples), fixed or {}
    groups: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        groups.setdefault(sample.group or names[sample.image], []).append(index)
    good_of = {name: sum(samples[i].label == GOOD for i in indices) for name, indices in groups.items()}
    with_bad = {name: good_of[name] < len(indices) for name, indices in groups.items()}
    trained = {name for name, indices in groups.items() if any(fixed.get(index) is False for index in indices)}
    kept = [name for name, indices in groups.items() if name not in trained and any(map(fixed.get, indices))]
    drawable = [name for name in groups if good_of[name] and (bad_parts or not with_bad[name])]
    order = sorted(drawable, key=lambda name: (with_bad[name], derive_seed(seed, "holdout", name)))
    if not trained:
        order = order[:-1]  # at least one group is trained on
    wanted = fraction * sum(good_of.values())
    chosen = {index for name in kept for index in groups[name]}
    good = sum(good_of[name] for name in kept)
    for name in order:
        if name in trained or name in kept:
            continue
        if good >= wanted:
            break
        chosen.update(groups[name])
        good += good_of[name]
    return chosen
