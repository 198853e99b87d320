"""Convert annotations into what a training reads: a table of images, and a mask for each bad image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from supersimplenet.datasets.annotations import AnnotationFormat, Region, read_annotations
from supersimplenet.datasets.splits import split_samples, write_table
from supersimplenet.errors import ConfigError, DataError, OutputError
from supersimplenet.preprocessing.decoding import image_size
from supersimplenet.preprocessing.listing import list_images
from supersimplenet.types import BAD, GOOD, Sample
from supersimplenet.utils.files import whole_file
from supersimplenet.utils.formatting import counted, few

TABLE_FILE, MASKS_FOLDER = "samples.csv", "masks"


@dataclass(frozen=True, kw_only=True)
class Converted:
    """The result of a conversion.

    Attributes:
        table: the table that was written.
        samples: its samples.
        left_out: images that the annotations do not list; they are in no row.
        unknown: names in the annotations to which there is no image.
    """

    table: Path
    samples: list[Sample]
    left_out: list[Path]
    unknown: list[str]


def convert(
    images: Path,
    annotations: Path,
    form: AnnotationFormat,
    output: Path,
    *,
    classes: Sequence[str] | None = None,
    test_fraction: float = 0.3,
    seed: int = 0,
) -> Converted:
    """Write a table of the images and a mask for each bad one.

    An image is bad if it has a region of one of the classes, else good. Its type is the class of most of its regions.
    If all its regions are outlines, it gets a mask; a box, a line or a point tells that the image is bad, not which
    pixels are, so an image with one of these gets none.

    Args:
        images: folder of the images.
        annotations: the JSON file of COCO, or the folder of the files of each image.
        form: format of the annotations.
        output: folder for the table and the masks.
        classes: classes that count as defects; None for all.
        test_fraction: share of each type for the test split.
        seed: seed of the split.

    Raises:
        ConfigError: a class does not occur.
        DataError: files are missing or not as the format wants, or a class is called good.
        ImageError: an image cannot be read.
        OutputError: a file cannot be written.
    """
    listed = list_images(images)
    found = read_annotations(annotations, form, listed, images)
    known = sorted({region.label for regions in found.regions.values() for region in regions})
    missing = sorted(set(classes or ()) - set(known))
    if missing:
        raise ConfigError(f"classes: {few(missing)} not among the annotations; they have {', '.join(known) or 'none'}")
    samples = []
    for image, all_regions in found.regions.items():
        regions = [region for region in all_regions if classes is None or region.label in classes]
        samples.append(_sample(image, regions, images, output))
    if not samples:
        raise DataError(f"{annotations}: lists none of the {len(listed):,} images in {images}; check both")
    samples = split_samples(samples, test_fraction=test_fraction, seed=seed)
    table = output / TABLE_FILE
    write_table(samples, table)
    left_out = [image for image in listed if image not in found.regions]
    return Converted(table=table, samples=samples, left_out=left_out, unknown=found.unknown)


def draw_mask(regions: Sequence[Region], size_px: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask (height, width) of some regions with outlines; each pixel that an outline crosses is in it."""
    height, width = size_px
    mask = np.zeros(size_px, dtype=bool)
    image = Image.new("1", (width, height))
    draw = ImageDraw.Draw(image)
    for region in regions:
        for polygon in region.polygons:
            draw.polygon(polygon, fill=1, outline=1)
        if region.runs is not None:
            inside = np.repeat(np.arange(len(region.runs)) % 2 == 1, region.runs)
            mask |= inside.reshape(width, height).T
    mask |= np.asarray(image)
    return mask


def _sample(image: Path, regions: Sequence[Region], images: Path, output: Path) -> Sample:
    if not regions:
        return Sample(image=image, label=GOOD, split="train")
    ((defect, _), *_) = sorted(
        Counter(region.label for region in regions).items(), key=lambda item: (-item[1], item[0])
    )
    if defect in ("good", ""):
        raise DataError(f"{image}: a region of class '{defect}'; name the classes that are defects with --classes")
    mask = None
    if all(region.is_outline for region in regions):
        mask = _write_mask(draw_mask(regions, image_size(image)), image, images, output)
    return Sample(image=image, label=BAD, split="train", defect=defect, mask=mask, pixel_labels_known=mask is not None)


def _write_mask(mask: NDArray[np.bool_], image: Path, images: Path, output: Path) -> Path:
    name = image.relative_to(images) if images.is_dir() else Path(image.name)
    path = output / MASKS_FOLDER / f"{name}.png"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            Image.fromarray(mask.astype(np.uint8) * 255).save(temporary, format="PNG")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another --output") from error
    return path


def summary(converted: Converted) -> list[str]:
    """Return what was converted, and what was left out, as lines of text."""
    bad = [sample for sample in converted.samples if sample.label == BAD]
    masks = sum(sample.mask is not None for sample in bad)
    types = Counter(sample.defect for sample in bad)
    lines = [
        f"{counted(len(converted.samples) - len(bad), 'good image')}, {counted(len(bad), 'bad image')}, {masks} with a "
        f"mask: {', '.join(f'{count} {defect}' for defect, count in sorted(types.items())) or 'no defect'}"
    ]
    if masks < len(bad):
        lines.append(f"{counted(len(bad) - masks, 'bad image')} with a box, line or point and so without a mask")
    if converted.left_out:
        lines.append(
            f"left out: {counted(len(converted.left_out), 'image')} that the annotations do not list: "
            f"{few(converted.left_out)}"
        )
    if converted.unknown:
        lines.append(f"without an image: {counted(len(converted.unknown), 'annotation')}: {few(converted.unknown)}")
    return lines
