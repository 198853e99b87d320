"""Check the files of a dataset one by one: images, masks, sizes, brightness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from supersimplenet.datasets.bit_depth import unused_range
from supersimplenet.datasets.checks.findings import Evidence, Finding, Inspected, each
from supersimplenet.datasets.checks.inspection import MaskInspection, map_size
from supersimplenet.datasets.checks.light import LEAST_FOR_SPREAD, middle_and_spread
from supersimplenet.types import BAD, GOOD, Sample
from supersimplenet.utils.formatting import counted, few, shown_size

_LONG = 3.0  # length divided by width; a square network size strongly distorts longer images
_DISTORTED = 2.0
_FEW_ODD = 0.1  # a different size is probably a mistake if at most this share of the images has it
_MOST_DEFECTIVE = 0.5  # a mask that marks more than this share of the image seems to be inverted
_OUTLIER_Z = 6.0


def check_images(inspected: Sequence[Inspected], size_px: tuple[int, int] | None) -> Iterator[Finding]:
    """Yield findings on images that cannot be read, and on unusual sizes and proportions.

    Args:
        inspected: the samples, each with the result of its inspection.
        size_px: (height, width) of the network's input; None where it is not known.
    """
    broken = [
        (sample, inspection.image_error) for sample, inspection in inspected if inspection.image_error is not None
    ]
    if broken:
        message = f"{counted(len(broken), 'image')} that cannot be read; export again, or remove"
        yield Finding(level="error", code="image-unreadable", message=message, evidence=each(broken))
    sized = [(sample, inspection.image.size_px) for sample, inspection in inspected if inspection.image is not None]
    sizes = Counter(size for _, size in sized).most_common()
    if len(sizes) > 1:
        usual, _ = sizes[0]
        odd = [(sample, shown_size(size)) for sample, size in sized if size != usual]
        if len(odd) <= _FEW_ODD * len(sized):
            message = (
                f"{counted(len(odd), 'image')} not {shown_size(usual)} (height x width) like the other "
                f"{len(sized) - len(odd):,}: {_listed_sizes(sizes[1:])}; make sure they show the same view, at the "
                "same scale"
            )
            yield Finding(level="warning", code="image-size", message=message, evidence=each(odd))
        else:
            low, high = (tuple(int(side) for side in f([s for _, s in sized], axis=0)) for f in (np.min, np.max))
            message = (
                f"images have {len(sizes)} sizes, {low[0]} to {high[0]} px high and {low[1]} to {high[1]} px wide; "
                f"each is resized to the network's size, so a defect's scale differs from image to image"
            )
            yield Finding(level="note", code="image-size", message=message)
    yield from _check_shapes(inspected, size_px)


def check_range(inspected: Sequence[Inspected], bits: int) -> Iterator[Finding]:
    """Yield a finding on 16-bit images whose values stay within a quarter of the range of so many bits."""
    highest = [
        (sample, inspection.image.highest)
        for sample, inspection in inspected
        if inspection.image is not None and inspection.image.highest is not None
    ]
    if message := unused_range((value for _, value in highest), bits):
        evidence = each((sample, f"highest value {value:,}") for sample, value in highest)
        yield Finding(level="warning", code="image-range", message=message, evidence=evidence)


def check_masks(inspected: Sequence[Inspected], size_px: tuple[int, int] | None) -> Iterator[Finding]:
    """Yield findings on masks that are missing, cannot be used, or are probably wrong."""
    broken = [(sample, inspection.mask_error) for sample, inspection in inspected if inspection.mask_error is not None]
    sized = [(sample, error) for sample, error in broken if ": the mask is " in error]
    unreadable = [case for case in broken if case not in sized]
    if unreadable:
        message = f"{counted(len(unreadable), 'mask')} that cannot be read; export again, or remove"
        yield Finding(level="error", code="mask-unreadable", message=message, evidence=each(unreadable))
    if sized:
        message = f"{counted(len(sized), 'mask')} not of the image's size; export both at one size"
        yield Finding(level="error", code="mask-size", message=message, evidence=each(sized))
    ignoring = [
        (sample, inspection.ignore_error) for sample, inspection in inspected if inspection.ignore_error is not None
    ]
    if ignoring:
        message = f"{counted(len(ignoring), 'ignore mask')} that cannot be used; mend, or remove"
        yield Finding(level="error", code="ignore-unusable", message=message, evidence=each(ignoring))
    missing = [(sample, "") for sample, _ in inspected if sample.label == BAD and sample.mask is None]
    if missing:
        message = (
            f"{counted(len(missing), 'bad image')} without a mask: of use for telling good from bad, not for showing "
            "where; draw masks for some of them if the map matters"
        )
        yield Finding(level="note", code="mask-missing", message=message, evidence=each(missing))
    yield from _check_marks(inspected, size_px)


def check_orphans(orphans: Sequence[tuple[Path, str]]) -> Iterator[Finding]:
    """Yield a finding on masks that belong to no image."""
    if orphans:
        message = f"{counted(len(orphans), 'mask')} without an image; {orphans[0][1]}: rename, remove, or add the image"
        evidence = tuple(Evidence(images=(path,)) for path, _ in orphans)
        yield Finding(level="error", code="mask-orphan", message=message, evidence=evidence)


def check_brightness(inspected: Sequence[Inspected]) -> Iterator[Finding]:
    """Yield findings on images of unusual brightness or contrast in their split."""
    for what, code in (("brightness", "brightness-outlier"), ("contrast", "contrast-outlier")):
        outliers = []
        for split in ("train", "test"):
            of_split = [
                (sample, inspection.image)
                for sample, inspection in inspected
                if inspection.image and sample.split == split
            ]
            values = np.array([getattr(image, what) for _, image in of_split])
            if len(values) < LEAST_FOR_SPREAD:
                continue
            middle, spread = middle_and_spread(values)
            z = (values - middle) / spread
            outliers += [
                (of_split[i][0], f"{what} {values[i]:.0f}; usual in {split}: {middle:.0f} give or take {spread:.0f}")
                for i in np.flatnonzero(np.abs(z) > _OUTLIER_Z)
            ]
        if outliers:
            message = (
                f"{counted(len(outliers), 'image')} far off the {what} of the others; check whether light, exposure or "
                "the part is another, and leave out of training what the line will not see"
            )
            yield Finding(level="warning", code=code, message=message, evidence=each(outliers))


def _check_shapes(inspected: Sequence[Inspected], size_px: tuple[int, int] | None) -> Iterator[Finding]:
    shaped = [(sample, inspection.image.size_px) for sample, inspection in inspected if inspection.image is not None]
    if size_px is None:
        shaped.sort(key=lambda case: -max(case[1]) / min(case[1]))
        long = [(sample, shown_size(size)) for sample, size in shaped if max(size) > _LONG * min(size)]
        if long:
            message = (
                f"{counted(len(long), 'image')} more than {_LONG:g} times as long as wide; a square network size "
                "distorts them: choose --model.image_size of about their shape, or use tiles (--view.fit tiles)"
            )
            yield Finding(level="warning", code="image-shape", message=message, evidence=each(long))
        return
    stretched = [(sample, size, (size[0] * size_px[1]) / (size[1] * size_px[0])) for sample, size in shaped]
    stretched = sorted(((sample, size, max(s, 1 / s)) for sample, size, s in stretched), key=lambda case: -case[2])
    distorted = [
        (sample, f"{shown_size(size)}, {times:.1f} times") for sample, size, times in stretched if times > _DISTORTED
    ]
    if distorted:
        message = (
            f"{counted(len(distorted), 'image')} stretched more than {_DISTORTED:g} times in one direction at "
            f"{shown_size(size_px)}; choose --model.image_size of about their shape"
        )
        yield Finding(level="warning", code="image-shape", message=message, evidence=each(distorted))


def _check_marks(inspected: Sequence[Inspected], size_px: tuple[int, int] | None) -> Iterator[Finding]:
    """Yield findings on the marked regions of the usable masks."""
    masks = [(sample, inspection.mask) for sample, inspection in inspected if inspection.mask is not None]
    bad = [(sample, mask) for sample, mask in masks if sample.label == BAD]
    marking = [(sample, mask) for sample, mask in bad if mask.marked_fraction > 0]
    contradicting = [(s, f"{m.marked_fraction:.1%} marked") for s, m in masks if s.label == GOOD and m.marked_fraction]
    if contradicting:
        message = (
            f"{counted(len(contradicting), 'image')} labelled good with a mask that marks a defect; label the image "
            "bad, or remove its mask"
        )
        yield Finding(level="error", code="mask-of-good", message=message, evidence=each(contradicting))
    empty = [(sample, "") for sample, mask in bad if mask.marked_fraction == 0 and mask.levels == (0,)]
    if empty:
        message = (
            f"{counted(len(empty), 'bad image')} with an empty mask; trained on as bad without pixel labels: draw "
            "the defect, or label the image good if there is none"
        )
        yield Finding(level="warning", code="mask-empty", message=message, evidence=each(empty))
    faint = [(s, f"grey levels {_few_levels(m.levels)}") for s, m in bad if not m.marked_fraction and m.levels != (0,)]
    if faint:
        message = (
            f"{counted(len(faint), 'mask')} reading as empty though something is in it: a pixel counts as defective "
            "from 128 of 255, and all are below; write defects as 255"
        )
        yield Finding(level="warning", code="mask-faint", message=message, evidence=each(faint))
    soft = [(s, m) for s, m in marking if not s.mask_any_value and set(m.levels) - {0, max(m.levels)}]
    grey = [(sample, f"grey levels {_few_levels(mask.levels)}") for sample, mask in soft]
    if grey:
        message = (
            f"{counted(len(grey), 'mask')} with levels between nothing and full, as soft edges or JPEG leave them; "
            "from 128 of 255 they count as defective, class numbers would not"
        )
        yield Finding(level="note", code="mask-levels", message=message, evidence=each(grey))
    large = [(s, f"{m.marked_fraction:.1%} marked") for s, m in marking if m.marked_fraction > _MOST_DEFECTIVE]
    if large:
        message = (
            f"{counted(len(large), 'mask')} marking more than half of the image; inverted? Defects are white, "
            "the rest black"
        )
        yield Finding(level="warning", code="mask-inverted", message=message, evidence=each(large))
    if size_px is not None:
        yield from _check_small(marking, size_px)


def _check_small(marking: Sequence[tuple[Sample, MaskInspection]], size_px: tuple[int, int]) -> Iterator[Finding]:
    """Yield a finding on masks that vanish at the network's input size, or have regions too small for its map."""
    small = [(sample, mask) for sample, mask in marking if mask.vanishes or mask.small_regions]
    if not small:
        return
    vanishing = sum(mask.vanishes for _, mask in small)
    message = f"{counted(len(small), 'mask')} with defects too small at {shown_size(size_px)}: "
    if vanishing:
        message += f"{counted(vanishing, 'mask')} without a pixel left, which no metric of pixels counts; "
    regions = sum(mask.small_regions for _, mask in small)
    if regions:
        message += (
            f"{counted(regions, 'region')} smaller than half a position of the map ({shown_size(map_size(size_px))}), "
            "trained on as one position each; "
        )
    message += "choose a larger --model.image_size, or use tiles (--view.fit tiles)"
    details = [
        (sample, f"{counted(mask.small_regions, 'region')}, {mask.marked_fraction:.3%} of the image marked")
        for sample, mask in small
    ]
    yield Finding(level="warning", code="mask-vanishes", message=message, evidence=each(details))


def _listed_sizes(sizes: Sequence[tuple[tuple[int, int], int]]) -> str:
    return few([f"{count} of {shown_size(size)}" for size, count in sizes])


def _few_levels(levels: tuple[int, ...]) -> str:
    if len(levels) <= 5:
        return ", ".join(str(level) for level in levels)
    return f"{', '.join(str(level) for level in levels[:3])} ... {levels[-1]} ({len(levels)} of them)"
