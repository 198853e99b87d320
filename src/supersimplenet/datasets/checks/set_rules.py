"""Check a dataset as a whole: labels, splits, and repeated photographs of one part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from supersimplenet.datasets.checks.duplicates import MOST_IMAGES, find_near_duplicates
from supersimplenet.datasets.checks.findings import Evidence, Finding, Inspected, together
from supersimplenet.datasets.checks.inspection import ImageInspection
from supersimplenet.datasets.parts import equal_groups, linked_groups
from supersimplenet.types import GOOD, Sample
from supersimplenet.utils.formatting import counted

_FEW_GOOD = 10
_SPLIT_ANEW = "split anew by part: supersimplenet data split PATH --groups found --output split.csv"


def check_labels(samples: Sequence[Sample]) -> Iterator[Finding]:
    """Yield findings if there are too few images for training or for the test."""
    good = sum(sample.split == "train" and sample.label == GOOD for sample in samples)
    if good == 0:
        message = "no good training image; every regime of supervision needs some"
        yield Finding(level="error", code="no-good-training", message=message)
    elif good < _FEW_GOOD:
        message = f"only {counted(good, 'good training image')}; take some dozens of good parts, under the line's light"
        yield Finding(level="warning", code="few-good-training", message=message)
    test = {sample.label for sample in samples if sample.split == "test"}
    if not test:
        yield Finding(level="note", code="no-test", message="no test image; a model can be trained, but not measured")
    elif len(test) == 1:
        only, other = ("good", "bad") if test == {GOOD} else ("bad", "good")
        message = f"all test images are {only}; without {other} ones, no figure says how well both are told apart"
        yield Finding(level="note", code="one-class-test", message=message)


def check_named_groups(samples: Sequence[Sample]) -> Iterator[Finding]:
    """Yield a finding on groups that have images in both splits."""
    members = defaultdict(list)
    for sample in samples:
        if sample.group is not None:
            members[sample.group].append(sample)
    leaking = {name: group for name, group in members.items() if _splits(group) == 2}
    if leaking:
        message = (
            f"{counted(len(leaking), 'group')} in both splits, so that parts seen in training are tested on; "
            "put all images of one part into one split"
        )
        evidence = tuple(together(group, f"group {name}") for name, group in leaking.items())
        yield Finding(level="error", code="group-in-both-splits", message=message, evidence=evidence)


def check_duplicates(inspected: Sequence[Inspected]) -> Iterator[Finding]:
    """Yield findings on images that are equal pixel by pixel."""
    readable = _readable(inspected)
    groups = [[readable[i][0] for i in group] for group in equal_groups([image.digest for _, image in readable])]
    contradicting = [group for group in groups if len({sample.label for sample in group}) == 2]
    if contradicting:
        message = (
            f"{_pictures(contradicting)} labelled both good and bad, pixel for pixel the same; remove the wrong one"
        )
        evidence = tuple(together(group, _labels(group)) for group in contradicting)
        yield Finding(level="error", code="same-image-good-and-bad", message=message, evidence=evidence)
    leaking = [group for group in groups if _splits(group) == 2]
    if leaking:
        message = (
            f"{_pictures(leaking)} in both splits, pixel for pixel the same; the test would flatter: keep one of each"
        )
        evidence = tuple(together(group, _both_splits(group)) for group in leaking)
        yield Finding(level="error", code="duplicate-across-splits", message=message, evidence=evidence)
    repeated = [group for group in groups if _splits(group) == 1]
    if repeated:
        message = f"{_pictures(repeated)} more than once in a split, pixel for pixel the same; keep one of each"
        evidence = tuple(together(group, f"{len(group)} in {group[0].split}") for group in repeated)
        yield Finding(level="warning", code="duplicate-in-split", message=message, evidence=evidence)


def check_near_duplicates(
    inspected: Sequence[Inspected], progress: Callable[[int], None] | None = None
) -> Iterator[Finding]:
    """Yield findings on photographs of one part: across splits, and inside one split if no groups are named."""
    readable = _readable(inspected)
    samples = [sample for sample, _ in readable]
    if len(readable) > MOST_IMAGES:
        message = f"not searched for photographs of one part: more than {MOST_IMAGES:,} images; check parts of the data"
        yield Finding(level="note", code="near-duplicates-not-checked", message=message)
        return
    if not readable:
        return
    near = find_near_duplicates(np.stack([image.fingerprint for _, image in readable]), progress=progress)
    likeness = {(i, j): value for (i, j), value in zip(near.pairs.tolist(), near.likeness.tolist(), strict=True)}
    # Equal images have findings of their own, and images of one group are known to show one part.
    new = {
        (i, j): value
        for (i, j), value in likeness.items()
        if readable[i][1].digest != readable[j][1].digest
        and (samples[i].group is None or samples[i].group != samples[j].group)
    }
    across = {pair: value for pair, value in new.items() if samples[pair[0]].split != samples[pair[1]].split}
    if across:
        evidence = _evidence(across, samples)
        message = (
            f"{counted(len(evidence), 'part')} seemingly photographed for both splits (pairs of images alike but for "
            f"exposure and framing: {len(across):,}); the test would flatter: check, and {_SPLIT_ANEW}"
        )
        yield Finding(level="warning", code="near-duplicate-across-splits", message=message, evidence=evidence)
    inside = {pair: value for pair, value in new.items() if pair not in across}
    if inside and all(sample.group is None for sample in samples):
        evidence = _evidence(inside, samples)
        message = (
            f"{counted(len(evidence), 'part')} seemingly photographed more than once inside a split, and no groups "
            f"are named; to keep them together, {_SPLIT_ANEW}"
        )
        yield Finding(level="note", code="near-duplicate-groups", message=message, evidence=evidence)
    too_alike = sum(alike and sample.group is None for alike, sample in zip(near.too_alike, samples, strict=True))
    if too_alike:
        message = (
            f"{too_alike:,} of {counted(len(readable), 'image')} so much like many others that two photographs of one "
            "part cannot be told from two parts; name the parts in a table's group column where you know them; "
            "if no two photographs show the same part, there is nothing to do"
        )
        yield Finding(level="note", code="too-alike", message=message)


def _evidence(pairs: dict[tuple[int, int], float], samples: Sequence[Sample]) -> tuple[Evidence, ...]:
    """Return a piece of evidence for each group of linked images, the most alike group and pair first."""
    groups = linked_groups(len(samples), pairs)
    of = {i: number for number, group in enumerate(groups) for i in group}
    best: dict[int, tuple[float, tuple[int, int]]] = {}
    for pair, value in pairs.items():
        best[of[pair[0]]] = max(best.get(of[pair[0]], (-1.0, pair)), (value, pair))
    ordered = sorted(range(len(groups)), key=lambda number: (-best[number][0], groups[number]))
    evidence = []
    for number in ordered:
        value, pair = best[number]
        members = [*pair, *(i for i in groups[number] if i not in pair)]
        where = _both_splits([samples[i] for i in members])
        evidence.append(together([samples[i] for i in members], f"likeness {value:.2f}; {where}"))
    return tuple(evidence)


def _readable(inspected: Sequence[Inspected]) -> list[tuple[Sample, ImageInspection]]:
    return [(sample, inspection.image) for sample, inspection in inspected if inspection.image is not None]


def _splits(group: Sequence[Sample]) -> int:
    return len({sample.split for sample in group})


def _both_splits(group: Sequence[Sample]) -> str:
    test = sum(sample.split == "test" for sample in group)
    return f"{len(group) - test} in train, {test} in test" if 0 < test < len(group) else f"in {group[0].split}"


def _labels(group: Sequence[Sample]) -> str:
    return ", ".join(f"{sample.split}/{sample.image.name} is {sample.defect}" for sample in group)


def _pictures(groups: Sequence[Sequence[Sample]]) -> str:
    return counted(len(groups), "picture")
