"""Data source for your own folders of images."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path

from supersimplenet.datasets.base import DataSource, sort_samples
from supersimplenet.datasets.folder_split import FolderSplit, RecordedSplits, SplitRule
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.postprocessing.parts import compile_group_pattern, part_of
from supersimplenet.preprocessing.images import read_mask
from supersimplenet.preprocessing.listing import list_images, natural_key
from supersimplenet.preprocessing.reading import MOST_BITS, BitDepth, ReadConfig
from supersimplenet.types import BAD, GOOD, Sample, Split
from supersimplenet.utils.files import as_paths
from supersimplenet.utils.formatting import counted, few

# Of folders that name no dataset: then a parent does.
_PLAIN_NAMES = ("good", "ok", "normal", "train", "test", "images")
_LABEL_OF = {"good": GOOD, "test_good": GOOD, "bad": BAD, "train_bad": BAD}
MASK_ENDINGS = ("_mask", "_GT", "_gt", "_label", "_seg")
Files = list[tuple[Path, Path]]  # (a given folder, a file at any depth in it)
Place = Callable[[Path, Path], str]


class Folder(DataSource):
    r"""Your own folders of images: good images, and bad images and masks if you have any.

    Each folder is searched at any depth. The defect type of an image is the name of the subfolder of ``bad`` or
    ``train_bad`` that contains it; for an image directly in such a folder, it is the folder's own name. A mask belongs
    to the image with the same stem; the mask's stem may also end in ``_mask``, ``_GT``, ``_gt``, ``_label`` or
    ``_seg``. An image in the same subfolder, or of the defect type that the mask's subfolder names, is preferred to one
    elsewhere, and a bad image to a good one. The mask of a good image must be empty.

    Args:
        good: Folder or folders of good images.
        bad: Folder or folders of bad images. They go to the test split, except for the share bad_train_fraction.
        masks: Folder or folders of pixel masks. The pixel labels of a bad image without a mask are unknown.
        test_good: Folder or folders of good images for the test split. If none is given, a share of the images in good
            is used for the test.
        test_fraction: Share of the images in good that goes to the test split, at least 0 and below 1. The choice
            depends only on the seed, on each image's path below its folder, and on which images are copies of others.
            A model keeps the split of each image: images that are added later move no other one.
        seed: Seed of the random choice of images for the splits.
        train_bad: Folder or folders of bad images for training.
        bad_train_fraction: Share of the images in bad that goes to the training split, from 0 to 1: of each defect type
            the number of parts that is nearest to it. They are chosen in the same way as for test_fraction.
        ignore: Folder or folders of ignore masks, for good or bad images, matched with the images in the same way as
            masks. The pixels that they mark count in no loss and no metric.
        group_pattern: Regular expression with one group, such as '(part\d+)_', that finds the name of the physical
            part in a file's name. All images of one part go to the same split, and the fractions are shares of the
            parts. A part with an image in bad goes to the split of its bad images. Images with equal pixels are one
            part, too.
        mask_suffix: End of the stems of masks and ignore masks after the image's own stem, such as _defect. By default
            those above are found by themselves.
        split_rule: How the shares are drawn. 2: as described. 1: as in version 0.1, each part on its own, so that the
            shares are met on average only.
        bit_depth: Number of bits that count in 16-bit images, such as 12 for values of 0 to 4095, or auto, which takes
            the smallest that holds the values of the training images. By default all 16; a model keeps its own.
        page: Number of the page of TIFF images, from 0. By default the largest; a model keeps its own.
    """

    def __init__(
        self,
        *,
        good: Sequence[Path] | Path,
        bad: Sequence[Path] | Path = (),
        masks: Sequence[Path] | Path = (),
        test_good: Sequence[Path] | Path = (),
        test_fraction: float = 0.2,
        seed: int = 0,
        train_bad: Sequence[Path] | Path = (),
        bad_train_fraction: float = 0.0,
        ignore: Sequence[Path] | Path = (),
        group_pattern: str | None = None,
        mask_suffix: str | None = None,
        split_rule: SplitRule = 2,
        bit_depth: BitDepth | None = None,
        page: int | None = None,
    ) -> None:
        if not 0 <= test_fraction < 1:
            raise ConfigError(f"test_fraction: {test_fraction}; wanted at least 0 and below 1")
        if not 0 <= bad_train_fraction <= 1:
            raise ConfigError(f"bad_train_fraction: {bad_train_fraction}; wanted 0 to 1")
        self.good, self.bad, self.masks, self.test_good = (as_paths(x) for x in (good, bad, masks, test_good))
        self.train_bad, self.ignore = as_paths(train_bad), as_paths(ignore)
        if not self.good:
            raise ConfigError("good: no folder; wanted at least one folder of good images")
        self.test_fraction = test_fraction
        self.seed = seed
        self.bad_train_fraction = bad_train_fraction
        self.group_pattern = group_pattern
        self.mask_suffix = mask_suffix
        self.split_rule = split_rule
        self.set_reading(bit_depth, page)
        self._recorded: RecordedSplits | None = None
        self._part = None if group_pattern is None else compile_group_pattern(group_pattern)
        named = self.good[0].resolve()
        own = next((folder for folder in (named, *named.parents) if folder.name.lower() not in _PLAIN_NAMES), named)
        self.name = f"Folder/{own.name or named.name}"

    def following(self, recorded: RecordedSplits) -> Folder:
        """Return the folder with each recorded image in its recorded split; chance decides new images alone."""
        folder = copy(self)
        folder._recorded = recorded
        return folder

    def samples(self) -> list[Sample]:
        """Return every sample of both splits, sorted.

        Where chance decides, each image whose size another one has is decoded once, to find copies.

        Raises:
            DataError: a folder has no images, a file is in two of the folders, a mask belongs to no image or to
                several, marks something in a good image, group_pattern finds no part in a name, a part was put into
                both splits, or no good image is left for training.
            ImageError: the mask of a good image cannot be read.
        """
        samples, unused = self.survey()
        if unused:
            names = few([path for path, _ in unused])
            raise DataError(
                f"{counted(len(unused), 'mask')} without an image: {names}; {unused[0][1]}; remove them, or add their "
                "images"
            )
        for sample in samples:
            if sample.label == GOOD and sample.mask and self._marks(sample.mask):
                raise DataError(
                    f"{sample.mask}: marks a defect in {sample.image}, which is good; move the image to bad, or remove "
                    "the mask"
                )
        return [replace(sample, mask=None) if sample.label == GOOD else sample for sample in samples]

    def _marks(self, mask: Path) -> bool:
        """Return whether the mask of a good image marks anything; by any value where its range is not known yet."""
        if self.bit_depth == "auto":
            return bool(read_mask(mask, image_size_px=None, any_value=True).any())
        reading = ReadConfig(bit_depth=self.bit_depth or MOST_BITS)
        return bool(read_mask(mask, image_size_px=None, reading=reading).any())

    def survey(self) -> tuple[list[Sample], list[tuple[Path, str]]]:
        """Return the samples, with masks of good ones too, and the masks without an image; see `DataSource.survey`."""
        images = {role: list_files(getattr(self, role)) for role in _LABEL_OF}
        masks, ignore = list_files(self.masks), list_files(self.ignore)
        check_no_overlap({**images, "masks": masks, "ignore": ignore})
        suffixes = MASK_ENDINGS if self.mask_suffix is None else (self.mask_suffix,)
        mask_of = match_masks(images["bad"] + images["train_bad"], masks, suffixes)
        others = [file for file in masks if file[1] not in set(mask_of.values())]
        mask_of |= match_masks(images["good"] + images["test_good"], others, suffixes)
        ignore_of = match_masks([file for files in images.values() for file in files], ignore, suffixes)
        group_of = {image: self._group(image) for files in images.values() for _, image in files}
        samples = [
            Sample(
                image=image,
                label=label,
                split="train",
                defect="good" if label == GOOD else defect_of(folder, image),
                mask=mask_of.get(image),
                pixel_labels_known=label == GOOD or image in mask_of,
                ignore=ignore_of.get(image),
                group=group_of[image],
            )
            for role, label in _LABEL_OF.items()
            for folder, image in images[role]
        ]
        split_of = self._split(samples, images)
        samples = [replace(sample, split=split_of[sample.image]) for sample in samples]
        if not any(sample.label == GOOD and sample.split == "train" for sample in samples):
            raise DataError(
                f"{self.good[0]}: none of {len(images['good']):,} good images is left for training; "
                f"lower test_fraction ({self.test_fraction}), or give test_good"
            )
        wanted = f"wanted the image's stem, with or without {', '.join(suffixes)} (mask_suffix names another)"
        unused = [
            (path, wanted)
            for files, matched in ((masks, mask_of), (ignore, ignore_of))
            for path in sorted({mask for _, mask in files} - set(matched.values()), key=natural_key)
        ]
        return sort_samples(samples), unused

    def _group(self, image: Path) -> str | None:
        if self._part is None:
            return None
        part = part_of(image, self._part)
        if part is None:
            raise DataError(
                f"{image}: group_pattern '{self.group_pattern}' finds no part in its name; change the pattern, or "
                "rename the image"
            )
        return part

    def _split(self, samples: list[Sample], images: dict[str, Files]) -> dict[Path, Split]:
        put: dict[str, Split] = {"test_good": "test", "train_bad": "train"}
        if self.test_good:
            put["good"] = "train"
        if self.bad_train_fraction == 0:
            put["bad"] = "test"
        rule = FolderSplit(
            put=put,
            test_fraction=self.test_fraction,
            bad_train_fraction=self.bad_train_fraction,
            seed=self.seed,
            rule=self.split_rule,
            recorded=self._recorded,
            bit_depth=self.bit_depth,
            page=self.page,
        )
        roles = {image: role for role, files in images.items() for _, image in files}
        names = {image: image.relative_to(folder).as_posix() for files in images.values() for folder, image in files}
        return rule.split(samples, roles, names)


def defect_of(folder: Path, image: Path) -> str:
    """Return the type of an image in a folder of bad ones: the name of its subfolder, or else of the folder."""
    relative = image.relative_to(folder)
    return relative.parts[0] if len(relative.parts) > 1 else folder.resolve().name


def list_files(folders: list[Path]) -> Files:
    """Return every image below each folder, with the folder. For a path to one image, it is the image's own folder.

    Raises:
        DataError: a folder does not exist, or holds no image.
    """
    return [(top if top.is_dir() else top.parent, image) for top in folders for image in list_images(top)]


def check_no_overlap(roles: dict[str, Files]) -> None:
    """Check that no file has two roles.

    Raises:
        DataError: a file is in two of the lists, or twice in one.
    """
    seen: dict[str, str] = {}
    for role, files in roles.items():
        for _, file in files:
            key = os.path.normpath(file.absolute())
            if key in seen:
                raise DataError(f"{file}: found in {seen[key]} and again in {role}; give folders that do not overlap")
            seen[key] = role


def match_masks(images: Files, masks: Files, suffixes: Sequence[str]) -> dict[Path, Path]:
    """Return the mask of each image that has one.

    They are matched by subfolder and stem first, then by type of defect and stem, then by stem among the rest.

    Args:
        images: the images that may have a mask.
        masks: the masks; each has its image's stem, with or without one of the suffixes at the end.
        suffixes: such as ``_mask``.

    Raises:
        DataError: an image has several masks, or a mask fits several images.
    """
    mask_of: dict[Path, Path] = {}
    # Where an image and a mask lie: below the given folders, with the name of the image's own one, anywhere.
    ways: tuple[tuple[Place, Place], ...] = ((_below, _below), (_with_own_name, _below), (_anywhere, _anywhere))
    for place_of_image, place_of_mask in ways:
        taken = set(mask_of.values())
        images_at, masks_at = defaultdict(list), defaultdict(list)
        for folder, image in images:
            if image not in mask_of:
                images_at[place_of_image(folder, image), image.stem].append(image)
        for folder, mask in masks:
            if mask not in taken:
                for stem in {mask.stem, *(mask.stem.removesuffix(suffix) for suffix in suffixes)}:
                    masks_at[place_of_mask(folder, mask), stem].append(mask)
        for key in [key for key in images_at if key in masks_at]:
            if len(images_at[key]) > 1 or len(masks_at[key]) > 1 or masks_at[key][0] in taken:
                raise DataError(
                    f"{images_at[key][0]}: not clear which mask belongs to which image; images {few(images_at[key])}; "
                    f"masks {few(masks_at[key])}; give masks the subfolders and the stems of their images"
                )
            mask_of[images_at[key][0]] = masks_at[key][0]
            taken.add(masks_at[key][0])
    return mask_of


def _below(folder: Path, file: Path) -> str:
    return file.relative_to(folder).parent.as_posix()


def _with_own_name(folder: Path, file: Path) -> str:
    return (Path(folder.name) / file.relative_to(folder).parent).as_posix()


def _anywhere(folder: Path, file: Path) -> str:
    del folder, file
    return ""
