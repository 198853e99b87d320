"""Which mask belongs to which image, told from their names."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

from supersimplenet.data.images import list_images, natural_key
from supersimplenet.data.sources.base import few
from supersimplenet.errors import DataError

Files = list[tuple[Path, Path]]  # (the folder that was named, a file at any depth in it)


def list_files(folders: list[Path]) -> Files:
    """Every image below each folder; of a path to one image, the folder is where it lies.

    Raises:
        DataError: no such folder, or no image in it.
    """
    return [(top if top.is_dir() else top.parent, image) for top in folders for image in list_images(top)]


def check_no_overlap(roles: dict[str, Files]) -> None:
    """Refuse a file that has two roles.

    Raises:
        DataError: it stands in two of the lists, or twice in one.
    """
    seen: dict[str, str] = {}
    for role, files in roles.items():
        for _, file in files:
            key = os.path.normpath(file.absolute())
            if key in seen:
                raise DataError(f"{file}: found in {seen[key]} and again in {role}; give folders that do not overlap")
            seen[key] = role


def match_masks(images: Files, masks: Files, *, of: str) -> dict[Path, Path]:
    """Mask of each image that has one: by subfolder and stem first, then by stem among what is left.

    Args:
        images: those that may have a mask.
        masks: a mask's stem is its image's, with or without ``_mask`` behind it.
        of: which images these are, for the error message.

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
            f"{len(unused)} of {len(masks)} masks belong to no {of}: {few(unused)}; "
            f"wanted the image's stem, with or without _mask; remove them, or add their images"
        )
    return mask_of


def _key(folder: Path, file: Path, stem: str, *, with_subfolder: bool) -> tuple[str, str]:
    return (file.relative_to(folder).parent.as_posix() if with_subfolder else "", stem)
