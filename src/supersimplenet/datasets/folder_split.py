"""Splits of one's own folders: drawn by part and type, or read back from the record of a model."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from supersimplenet.datasets.base import relative_names
from supersimplenet.datasets.parts import digest_possible_copies, merge_copies
from supersimplenet.errors import DataError
from supersimplenet.preprocessing.reading import BitDepth
from supersimplenet.types import BAD, GOOD, Sample, Split
from supersimplenet.utils.console import progress_bar
from supersimplenet.utils.files import file_sha256
from supersimplenet.utils.formatting import few

SplitRule = Literal[1, 2]
_MANY = 1000  # from so many images on, the search for copies shows its progress
_TIE = 1e-9  # changes of squared errors that differ by less are equal
_Key = Path | str  # of a part: the name of its group, or its only image


@dataclass(frozen=True, kw_only=True)
class RecordedSplits:
    """The splits that the images of a dataset had when a model was trained.

    Attributes:
        by_name: split by an image's path below the folder common to all images.
        by_sha256: split by the hash of an image's file, for images that were renamed or moved.
    """

    by_name: Mapping[str, Split]
    by_sha256: Mapping[str, Split]

    def of(self, samples: Sequence[Sample]) -> dict[Path, Split]:
        """Return the split of each recorded image; only a file whose name is not recorded is read."""
        names = relative_names(samples)
        found = {}
        for sample in samples:
            split = self.by_name.get(names[sample.image])
            if split is None:
                try:
                    split = self.by_sha256.get(file_sha256(sample.image))
                except DataError:  # who needs the image reports it
                    continue
            if split is not None:
                found[sample.image] = split
        return found


@dataclass(frozen=True, kw_only=True)
class FolderSplit:
    """How the images of a `Folder` are put into splits. An image without a group is a part of its own.

    Attributes:
        put: split of each role whose images the user put there; those of other roles are drawn.
        test_fraction: share of the good parts that goes to the test split.
        bad_train_fraction: share of the parts with an image in ``bad`` that goes to the training split.
        seed: seed of the draw.
        rule: 2: see `Folder`; copies are one part. 1: that of version 0.1, which drew each part on its own.
        recorded: splits that were drawn before; None for none.
        bit_depth: by which copies are found; see `digest_possible_copies`.
        page: likewise.
    """

    put: Mapping[str, Split]
    test_fraction: float
    bad_train_fraction: float
    seed: int
    rule: SplitRule
    recorded: RecordedSplits | None = None
    bit_depth: BitDepth | None = None
    page: int | None = None

    def split(
        self, samples: Sequence[Sample], roles: Mapping[Path, str], names: Mapping[Path, str]
    ) -> dict[Path, Split]:
        """Return the split of each image.

        Args:
            samples: the images; their own splits have no influence.
            roles: the argument of `Folder` that gave each image, such as ``good``.
            names: each image's path below the folder that was given.

        Raises:
            DataError: images of one group were put into both splits.
        """
        parts = _parts(samples)
        for members in parts.values():
            self._require_one_side(members, roles, names)
        recorded = {} if self.recorded is None or self.rule == 1 else self.recorded.of(samples)
        if self.rule == 2 and self._draws(samples, roles, recorded):
            new = [sample.image for sample in samples if sample.image not in recorded]
            parts = _parts(merge_copies(samples, self._digests(new)), samples)
        split_of: dict[Path, Split] = {}
        drawn: dict[_Key, list[Sample]] = {}
        given: dict[_Key, Split] = {}
        for key, members in parts.items():
            put = {self.put[role] for sample in members if (role := roles[sample.image]) in self.put}
            known = {recorded[sample.image] for sample in members if sample.image in recorded}
            if not put:
                drawn[key] = members
            if known or put:
                given[key] = max(known or put)  # where copies were put into both splits: the training's
        chosen = self._draw(drawn, given, roles, names)
        for key, members in parts.items():
            of_part = given.get(key) or ("test" if key in chosen else "train")
            for sample in members:
                split_of[sample.image] = recorded.get(sample.image) or self.put.get(roles[sample.image]) or of_part
        return split_of

    def _draw(
        self,
        parts: Mapping[_Key, list[Sample]],
        given: Mapping[_Key, Split],
        roles: Mapping[Path, str],
        names: Mapping[Path, str],
    ) -> set[_Key]:
        """Return the parts of the test split among those that were not put into a split."""
        number = {key: self._number(_name(members[0], names)) for key, members in parts.items()}
        bad = {key for key, members in parts.items() if any(roles[sample.image] == "bad" for sample in members)}
        good = parts.keys() - bad
        chosen: set[_Key] = set()
        for keys, label, fraction in ((good, GOOD, self.test_fraction), (bad, BAD, 1 - self.bad_train_fraction)):
            if self.rule == 1:
                chosen |= {key for key in keys if number[key] < fraction * 2**64}
                continue
            types = {
                key: {sample.defect for sample in parts[key] if sample.label == label}
                for key in sorted((key for key in parts if key in keys), key=number.__getitem__)
            }
            chosen |= _draw_test(types, fraction, given)
        return chosen

    def _number(self, name: str) -> int:
        """Return a number below 2**64 that follows from the seed and a part's name alone."""
        digest = hashlib.sha256(f"{self.seed}\0{name}".encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big")

    def _draws(self, samples: Sequence[Sample], roles: Mapping[Path, str], recorded: Mapping[Path, Split]) -> bool:
        """Return whether chance decides the split of any image."""
        fractions = {"good": self.test_fraction, "bad": self.bad_train_fraction}
        open_roles = {role for role, fraction in fractions.items() if role not in self.put and 0 < fraction < 1}
        return any(roles[sample.image] in open_roles and sample.image not in recorded for sample in samples)

    def _digests(self, images: Sequence[Path]) -> dict[Path, str]:
        digest = partial(digest_possible_copies, images, bit_depth=self.bit_depth, page=self.page)
        if len(images) < _MANY:
            return digest()
        with progress_bar() as bar:
            task = bar.add_task("looking for copies", total=len(images), detail="")
            return digest(progress=lambda done: bar.advance(task, done))

    def _require_one_side(
        self, members: Sequence[Sample], roles: Mapping[Path, str], names: Mapping[Path, str]
    ) -> None:
        found = {roles[sample.image] for sample in members} & self.put.keys()
        if len({self.put[role] for role in found}) > 1:
            raise DataError(
                f"part {_name(members[0], names)}: stands in train and in test, by its images in {few(sorted(found))}; "
                "put all images of one part into one split"
            )


def _draw_test(parts: Mapping[_Key, Collection[str]], fraction: float, given: Mapping[_Key, Split]) -> set[_Key]:
    """Draw the parts of a test split: of each type the share of its parts that is nearest to the fraction.

    A part joins the test split if the numbers of test parts of its types come nearer to what is wanted. So a part that
    comes to the dataset moves at most the few that were drawn last, and parts of ``given`` never move.

    Args:
        parts: the types of each part, in the order of drawing; a part counts once for each of its types.
        fraction: share of the parts of each type that is wanted, from 0 to 1.
        given: splits of parts that were drawn before.

    Returns:
        The parts of the test split.
    """
    total = Counter(type_ for types in parts.values() for type_ in set(types))
    test = {part for part in parts if given.get(part) == "test"}
    drawn = Counter(type_ for part in test for type_ in set(parts[part]))
    for part, types in parts.items():
        # Change of the types' squared errors that this part would bring.
        change = sum((1 - 2 * (fraction * total[type_] - drawn[type_])) / total[type_] for type_ in set(types))
        # Where either is as near, as with one part of a type at a half, the share of all parts decides.
        wanted = change < -_TIE or (change < _TIE and len(test) < fraction * len(parts))
        if part not in given and wanted:
            test.add(part)
            drawn.update(set(types))
    return test


def _parts(samples: Sequence[Sample], named: Sequence[Sample] | None = None) -> dict[_Key, list[Sample]]:
    """Return the samples of each part; ``named`` are the same samples with the groups that the user named."""
    parts: dict[_Key, list[Sample]] = defaultdict(list)
    for sample, own in zip(samples, named or samples, strict=True):
        parts[sample.image if sample.group is None else sample.group].append(own)
    return parts


def _name(sample: Sample, names: Mapping[Path, str]) -> str:
    return names[sample.image] if sample.group is None else sample.group
