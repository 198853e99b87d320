"""The training set: images or tiles of images, their labels, and the features of each of their views."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from supersimplenet.datasets.base import relative_names
from supersimplenet.datasets.bit_depth import unused_range
from supersimplenet.datasets.held_out import choose_held_out
from supersimplenet.datasets.masks import MaskReader
from supersimplenet.datasets.splits import hold_out
from supersimplenet.errors import DataError
from supersimplenet.inference.config import CONFIG_FILE
from supersimplenet.inference.image_records import ImageRecord, Role
from supersimplenet.model.config import LabelRecipe
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.preprocessing.images import ImageFacts
from supersimplenet.preprocessing.loading import Failure, OnError
from supersimplenet.preprocessing.preprocessor import Preprocessor
from supersimplenet.training.config import CacheConfig
from supersimplenet.training.distributed import ProcessGroup
from supersimplenet.training.feature_cache import FLIPS, FeatureSource
from supersimplenet.training.features import feature_shapes, gather_features
from supersimplenet.training.pixel_labels import PixelLabels, read_pixel_labels
from supersimplenet.training.warm_start import EarlierImages
from supersimplenet.types import BAD, GOOD, Sample
from supersimplenet.utils.console import console, progress_bar
from supersimplenet.utils.files import file_sha256
from supersimplenet.utils.formatting import counted, few


@dataclass(frozen=True, kw_only=True)
class TrainingSet:
    """The training set, as rows of the feature source; a training tile is a whole image, or a tile of one.

    Attributes:
        source: features by row.
        labels: labels of the source's training tiles.
        good: rows of each good tile's views.
        bad: rows of each bad tile's views.
        good_images: the row of the unflipped view of each tile of each good image that is trained on.
        held_out: the row of the unflipped view of each tile of the good held-out images.
        held_out_samples: the held-out images, with the groups that hold copies together.
        left_out: bad images of held-out parts that do not calibrate either.
        not_held_out: why no image was held out, in words; empty where some were.
        counts: for config.yaml: numbers of images of each kind and, where images were cut, of tiles.
        failures: images that could not be read.
        training: all samples of the training.
        facts: facts about each image file that could be read, on the rank that read it.
        masks: reads the masks.
        list_sha256: hash of the images and masks.
        earlier: the images of the model that this one starts from.
        repeated_parts: a warning that held-out images seem to show a part more than once; None for no reason to warn.
    """

    source: FeatureSource
    labels: PixelLabels
    good: list[list[int]]
    bad: list[list[int]]
    good_images: list[list[int]]
    held_out: list[int]
    held_out_samples: list[Sample]
    left_out: list[Sample]
    not_held_out: str
    counts: dict[str, Any]
    failures: list[Failure]
    training: Sequence[Sample]
    facts: Mapping[Path, ImageFacts] = field(default_factory=dict)
    masks: MaskReader = field(default_factory=MaskReader)
    list_sha256: str = ""
    earlier: EarlierImages = field(default_factory=EarlierImages)
    repeated_parts: str | None = None

    @property
    def trained_good(self) -> list[Sample]:
        """The good images that are trained on, in the order of ``good_images``."""
        return self.samples_of(self.good_images)

    def samples_of(self, images: Sequence[Sequence[int]]) -> list[Sample]:
        """Return the samples of some images, each given by the rows of its tiles."""
        tiles, of_row = self.labels.tiles, self.source.flip_index.image
        return [self.training[tiles[int(of_row[rows[0]])].sample] for rows in images]

    def sha256_of(self, path: Path) -> str:
        """Return the hash of an image or mask; only a file that was not read as an image is read again.

        Raises:
            DataError: the file cannot be read.
        """
        facts = self.facts.get(path)
        return self.masks.sha256(path) if facts is None else facts.sha256

    def image_records(self, samples: Sequence[Sample]) -> list[ImageRecord]:
        """Return the rows of images.csv, one for each image; print which test images equal training images.

        Args:
            samples: samples of the dataset, both splits; an image of the test split is hashed, not decoded.
        """
        names = relative_names(samples)
        trained = {sample.image for sample in self.training}
        roles: dict[Path, Role] = dict.fromkeys((sample.image for sample in self.held_out_samples), "held-out")
        roles |= dict.fromkeys((sample.image for sample in self.left_out), "left-out")
        records = {}
        for sample in samples:
            path = sample.image
            if sample.split == "test":
                role: Role = "test"
            elif path in trained:
                role = roles.get(path) or ("trained" if path in self.facts else "skipped")
            else:  # a bad image that an unsupervised training does not use
                role = "unused"
            if path.is_file() and not (role == "test" and path in records):
                records[path] = self._record(names[path], path, sample, role)
        _report_test_copies(records.values())
        return [*records.values(), *self.earlier.others(records.values())]

    def _record(self, name: str, path: Path, sample: Sample, role: Role) -> ImageRecord:
        facts = self.facts.get(path)
        if facts is None:
            return ImageRecord(name=name, sha256=file_sha256(path), split=sample.split, role=role)
        return ImageRecord(
            name=name,
            sha256=facts.sha256,
            pixels=facts.pixels,
            height=facts.size_px[0],
            width=facts.size_px[1],
            lowest=facts.lowest,
            highest=facts.highest,
            split=sample.split,
            role=role,
        )


def gather_training_set(
    network: SuperSimpleNet,
    samples: Sequence[Sample],
    recipe: LabelRecipe,
    *,
    preprocessor: Preprocessor,
    masks: MaskReader,
    holdout_fraction: float,
    seed: int,
    folder: Path,
    cache: CacheConfig,
    feature_type: torch.dtype | None,
    on_error: OnError,
    process_group: ProcessGroup,
    earlier: EarlierImages,
) -> TrainingSet:
    """Read every image and mask once, and provide the features of every view.

    Args:
        network: the network whose backbone computes the features.
        samples: the training samples.
        recipe: decides the flips and how labels are made.
        preprocessor: prepares images for the network.
        masks: reads the masks.
        holdout_fraction: share of the good images that are held out.
        seed: seed of the choice of the held-out images.
        folder: the model folder, for a cache on disk.
        cache: where features are kept.
        feature_type: see `gather_features`.
        on_error: ``stop`` raises at an unreadable image or mask, ``skip`` reports it.
        process_group: the processes that share the work.
        earlier: the images of the model that this one starts from.

    Raises:
        DataError: no good image is left, or it is not known which tiles are bad.
        ImageError: an image or mask cannot be read and ``on_error`` is ``stop``.
    """
    (height, width, _), *_ = feature_shapes(network.backbone, preprocessor.size_px)
    labels, unreadable = read_pixel_labels(
        samples, recipe, (2 * height, 2 * width), preprocessor=preprocessor, masks=masks, on_error=on_error
    )
    _report_labels(labels, samples, tiles=preprocessor.config.fit == "tiles")
    held_out = hold_out(  # of copies, nothing is known yet
        samples, holdout_fraction, seed, fixed=_fixed(samples, lambda path: (file_sha256(path),), earlier)
    )
    numbers: dict[int, list[int]] = {}  # numbers of the tiles of each image
    for tile in labels.tiles:
        numbers.setdefault(tile.sample, []).append(tile.number)
    facts: dict[Path, ImageFacts] = {}
    with progress_bar() as bar:
        task = bar.add_task("reading images, computing features", total=len(numbers), detail="")
        source, index, failures = gather_features(
            network.backbone,
            [samples[place].image for place in numbers],
            tiles=None if preprocessor.config.fit != "tiles" else list(numbers.values()),
            flip_counts=_flip_counts(labels, recipe, held_out),
            preprocessor=preprocessor,
            cache=cache,
            feature_type=feature_type,
            folder=folder,
            on_error=on_error,
            process_group=process_group,
            progress=lambda images: bar.advance(task, images),
            facts=facts,
        )
    highest = (fact.highest for fact in facts.values() if fact.range_open)
    if warning := unused_range(highest, preprocessor.reading.bit_depth):
        console().print(warning)
    failures = [*unreadable, *failures]
    if failures:
        console().print(
            f"left out, because the image or its mask cannot be read: {few([failure.path for failure in failures])}; "
            f"{CONFIG_FILE} in the model folder lists all"
        )
    labels = labels.select(index)
    read = {path: (fact.sha256, fact.pixels) for path, fact in facts.items()}
    fixed = _fixed(samples, lambda path: read.get(path, ()), earlier)
    digests = {path: fact.pixels for path, fact in facts.items()}
    chosen = process_group.on_rank_zero(lambda: choose_held_out(samples, digests, holdout_fraction, seed, fixed=fixed))
    for line in (chosen.copies, chosen.describe()):
        if line is not None:
            console().print(line)
    held_out, unread = chosen.places, {failure.path for failure in failures}
    kept = [chosen.samples[place] for place in sorted(held_out) if samples[place].image not in unread]
    return TrainingSet(
        source=source,
        labels=labels,
        **_rows(source, labels, samples, held_out),
        held_out_samples=[s for s in kept if s.label == GOOD or chosen.bad_calibrate],
        left_out=[s for s in kept if s.label == BAD and not chosen.bad_calibrate],
        not_held_out=chosen.why_none(holdout_fraction),
        counts=_count(samples, labels, held_out, tiles=preprocessor.config.fit == "tiles"),
        failures=failures,
        training=samples,
        facts=facts,
        masks=masks,
        earlier=earlier,
    )


def _fixed(
    samples: Sequence[Sample], hashes: Callable[[Path], Iterable[str]], earlier: EarlierImages
) -> dict[int, bool]:
    """Return by place which images the earlier model held out (True) or was trained on (False); nothing without one."""
    if not earlier.trained:
        return {}
    found = ((place, earlier.stays_held_out(*hashes(sample.image))) for place, sample in enumerate(samples))
    return {place: stays for place, stays in found if stays is not None}


def _flip_counts(labels: PixelLabels, recipe: LabelRecipe, held_out: set[int]) -> list[int]:
    """Return the number of views of each tile that are trained on."""
    flipped = {"none": (), "published": (BAD,), "symmetric": (GOOD, BAD)}[recipe.flips]
    return [
        len(FLIPS) if (BAD if is_bad else GOOD) in flipped and tile.sample not in held_out else 1
        for tile, is_bad in zip(labels.tiles, labels.bad.tolist(), strict=True)
    ]


def _rows(source: FeatureSource, labels: PixelLabels, samples: Sequence[Sample], held_out: set[int]) -> dict[str, Any]:
    """Return the rows of a `TrainingSet`, by field name.

    Raises:
        DataError: no good image is left to train on.
    """
    by_label: dict[int, list[list[int]]] = {GOOD: [], BAD: []}
    good_images: dict[int, list[int]] = {}
    upright_held_out = []
    for tile, is_bad, rows in zip(labels.tiles, labels.bad.tolist(), source.flip_index.rows(), strict=True):
        if tile.sample in held_out:
            if samples[tile.sample].label == GOOD:
                upright_held_out.append(rows[0])
            continue
        by_label[BAD if is_bad else GOOD].append(rows)
        if samples[tile.sample].label == GOOD:
            good_images.setdefault(tile.sample, []).append(rows[0])
    if not by_label[GOOD]:
        raise DataError("no good training image is left; give more of them, or a smaller --trainer.holdout_fraction")
    return {
        "good": by_label[GOOD],
        "bad": by_label[BAD],
        "good_images": list(good_images.values()),
        "held_out": upright_held_out,
    }


def _report_test_copies(records: Collection[ImageRecord]) -> None:
    training = {image.sha256 for image in records if image.split == "train"}
    copies = [image.name for image in records if image.split == "test" and image.sha256 in training]
    if copies:
        console().print(
            f"{counted(len(copies), 'test image')} with the content of a training image, so the test would flatter: "
            f"{few(copies)}",
            style="bold red",
        )


def _report_labels(labels: PixelLabels, samples: Sequence[Sample], *, tiles: bool) -> None:
    """Print which tiles are not trained on, and which images have regions that are too small for the map.

    Raises:
        DataError: bad images are to be trained on, and no tile is bad.
    """
    without_mask, touched = labels.left_out["of_bad_images_without_mask"], labels.left_out["touched"]
    if without_mask:
        images = sum(sample.label == BAD and not sample.pixel_labels_known for sample in samples)
        if not labels.bad.any():
            raise DataError(
                f"view.fit: tiles of {images} bad training images, none with a mask: in which of its tiles a defect "
                "lies is not known; give masks, take another view.fit, or --supervision unsupervised"
            )
        console().print(
            f"{without_mask} tiles of {images} bad images without a mask are left out: which are bad is not known"
        )
    if touched:
        console().print(f"{touched} tiles that a defect merely touches are left out")
    if labels.small_regions:
        small = [samples[place].image for place in labels.small_regions]
        finer = "a larger --view.scale" if tiles else "a larger --model.image_size, or tiles (--view.fit tiles)"
        console().print(
            f"{counted(sum(labels.small_regions.values()), 'defective region')} in {counted(len(small), 'image')} "
            f"smaller than half a position of the map: {few(small)}; each is trained on as one position, its edge "
            f"counts in no loss; {finer} shows more of them"
        )


def _count(samples: Sequence[Sample], labels: PixelLabels, held_out: set[int], *, tiles: bool) -> dict[str, Any]:
    """Return the numbers of images and tiles that are trained on, for config.yaml."""
    readable = dict.fromkeys(tile.sample for tile in labels.tiles)
    trained = [place for place in readable if place not in held_out]
    bad = [place for place in trained if samples[place].label == BAD]
    bad_held_out = sum(place in held_out and samples[place].label == BAD for place in readable)
    known_tiles = {tile.sample for tile, known in zip(labels.tiles, labels.known.tolist(), strict=True) if known}
    known = sum(place in known_tiles for place in bad)
    counts: dict[str, Any] = {
        "good_images": len(trained) - len(bad),
        "held_out_images": len(readable) - len(trained) - bad_held_out,
        "bad_with_mask_images": known,
        "bad_without_mask_images": len(bad) - known,
        "small_regions": sum(labels.small_regions.values()),
    }
    if bad_held_out:
        counts["bad_of_held_out_parts_images"] = bad_held_out
    if tiles:
        kinds = [
            is_bad
            for tile, is_bad in zip(labels.tiles, labels.bad.tolist(), strict=True)
            if tile.sample not in held_out
        ]
        counts["tiles"] = {"good": kinds.count(False), "bad": kinds.count(True), "left_out": labels.left_out}
    return counts
