"""Folders of one's own as a data set."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from supersimplenet.data.images import list_images, natural_key
from supersimplenet.data.source import DataSource, few, sort_samples
from supersimplenet.errors import ConfigError, DataError
from supersimplenet.records import BAD, GOOD, Sample, Split

_PLAIN_NAMES = ("good", "ok", "normal", "train")  # of a folder of good images: its parent names the part


class Folder(DataSource):
    """Folders of one's own: good images, and bad ones and masks where there are any.

    Each folder is searched at any depth. Bad images go to the test split. The type of a defect is the name of the
    subfolder of ``bad`` that it lies in, or else the name of that folder itself. A mask belongs to the bad image of
    the same stem, with or without ``_mask`` behind it: first to the one in the same subfolder, else wherever it is.

    Args:
        good: Folder or folders of good images.
        bad: Folder or folders of bad images.
        masks: Folder or folders of pixel masks. A bad image without one keeps unknown pixel labels.
        test_good: Folder or folders of good images for the test split. Without any, a share of the good ones is held
            out.
        test_fraction: Share of the good images held out, at least 0 and below 1. Which ones follows from each one's
            name below its folder and the seed alone, so that adding images moves none from one split to the other.
        seed: Another seed holds out other images.
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
    ) -> None:
        if not 0 <= test_fraction < 1:
            raise ConfigError(f"test_fraction: {test_fraction}; wanted at least 0 and below 1")
        self.good, self.bad, self.masks, self.test_good = (_folders(x) for x in (good, bad, masks, test_good))
        if not self.good:
            raise ConfigError("good: no folder; wanted at least one folder of good images")
        self.test_fraction = test_fraction
        self.seed = seed
        named = self.good[0].resolve()
        self.name = f"Folder/{named.parent.name if named.name.lower() in _PLAIN_NAMES else named.name}"

    def samples(self) -> list[Sample]:
        """Every sample of both splits, sorted.

        Raises:
            DataError: a folder without images, a file that stands in two of them, a mask without its image or with
                several, or no good image left for training.
        """
        good, bad, masks, test_good = map(_listed, (self.good, self.bad, self.masks, self.test_good))
        _check_no_overlap({"good": good, "test_good": test_good, "bad": bad, "masks": masks})
        mask_of = _match_masks(bad, masks)
        samples = [Sample(image=image, label=GOOD, split=self._split(folder, image)) for folder, image in good]
        samples += [Sample(image=image, label=GOOD, split="test") for _, image in test_good]
        for folder, image in bad:
            mask, defect = mask_of.get(image), _defect(folder, image)
            known = mask is not None
            samples.append(
                Sample(image=image, label=BAD, split="test", defect=defect, mask=mask, pixel_labels_known=known)
            )
        samples = sort_samples(samples)
        if samples[0].split != "train":
            raise DataError(
                f"{self.good[0]}: none of {len(good):,} good images is left for training; "
                f"lower test_fraction ({self.test_fraction}), or give test_good"
            )
        return samples

    def _split(self, folder: Path, image: Path) -> Split:
        if self.test_good:
            return "train"
        name = image.relative_to(folder).as_posix()
        digest = hashlib.sha256(f"{self.seed}\0{name}".encode()).digest()
        return "test" if int.from_bytes(digest[:8], "big") < self.test_fraction * 2**64 else "train"


def _folders(paths: Sequence[Path] | Path) -> list[Path]:
    if isinstance(paths, (str, os.PathLike)):
        return [Path(paths)]
    return [Path(path) for path in paths]


def _listed(folders: list[Path]) -> list[tuple[Path, Path]]:
    """(folder, image) for each image; of a path to one image, the folder is where it lies."""
    return [(top if top.is_dir() else top.parent, image) for top in folders for image in list_images(top)]


def _defect(folder: Path, image: Path) -> str:
    relative = image.relative_to(folder)
    return relative.parts[0] if len(relative.parts) > 1 else folder.resolve().name


def _check_no_overlap(roles: dict[str, list[tuple[Path, Path]]]) -> None:
    seen: dict[str, str] = {}
    for role, files in roles.items():
        for _, file in files:
            key = os.path.normpath(file.absolute())
            if key in seen:
                raise DataError(f"{file}: found in {seen[key]} and again in {role}; give folders that do not overlap")
            seen[key] = role


def _match_masks(images: list[tuple[Path, Path]], masks: list[tuple[Path, Path]]) -> dict[Path, Path]:
    """Mask of each image that has one: by subfolder and stem first, then by stem among what is left.

    Raises:
        DataError: several masks for an image, several images for a mask, or a mask for no image.
    """
    mask_of: dict[Path, Path] = {}
    for with_subfolder in (True, False):
        taken = set(mask_of.values())
        images_at, masks_at = defaultdict(list), defaultdict(list)
        for folder, image in images:
            if image not in mask_of:
                images_at[_key(folder, image, image.stem, with_subfolder=with_subfolder)].append(image)
        for folder, mask in masks:
            if mask not in taken:
                for stem in {mask.stem, mask.stem.removesuffix("_mask")}:
                    masks_at[_key(folder, mask, stem, with_subfolder=with_subfolder)].append(mask)
        for key in [key for key in images_at if key in masks_at]:
            if len(images_at[key]) > 1 or len(masks_at[key]) > 1 or masks_at[key][0] in taken:
                raise DataError(
                    f"{images_at[key][0]}: not clear which mask belongs to which image; images {few(images_at[key])}; "
                    f"masks {few(masks_at[key])}; give masks the subfolders and the stems of their images"
                )
            mask_of[images_at[key][0]] = masks_at[key][0]
            taken.add(masks_at[key][0])
    unused = sorted({mask for _, mask in masks} - set(mask_of.values()), key=natural_key)
    if unused:
        raise DataError(
            f"{len(unused)} of {len(masks)} masks belong to no bad image: {few(unused)}; "
            f"wanted the image's stem, with or without _mask; remove them, or add their images to bad"
        )
    return mask_of


def _key(folder: Path, file: Path, stem: str, *, with_subfolder: bool) -> tuple[str, str]:
    return (file.relative_to(folder).parent.as_posix() if with_subfolder else "", stem)
