"""What is trained on: images or tiles of them, their labels, and their features in every view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supersimplenet.datasets.splits import hold_out
from supersimplenet.errors import DataError
from supersimplenet.inference.config import CONFIG_FILE
from supersimplenet.model.config import LabelRecipe
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.preprocessing.loading import Failure, OnError
from supersimplenet.preprocessing.preprocessor import Preprocessor
from supersimplenet.training.config import CacheConfig
from supersimplenet.training.distributed import ProcessGroup
from supersimplenet.training.feature_cache import FLIPS, FeatureSource
from supersimplenet.training.features import feature_shapes, gather_features
from supersimplenet.training.pixel_labels import PixelLabels, read_pixel_labels
from supersimplenet.types import BAD, GOOD, Sample
from supersimplenet.utils.console import console, progress_bar


@dataclass(frozen=True, kw_only=True)
class TrainingImages:
    """What is trained on, as rows of the feature source. A piece is an image, or a tile of one.

    Attributes:
        source: features by row.
        labels: of its pieces.
        good: rows of each good piece's views.
        bad: rows of each bad piece's views.
        good_images: the upright row of each piece of each good image that is trained on.
        held_out: a row of each piece of held-out good images.
        held_out_places: places of these images in the list of training samples.
        counts: for the record: images and, where they were cut, tiles of each kind.
        failures: what could not be read.
    """

    source: FeatureSource
    labels: PixelLabels
    good: list[list[int]]
    bad: list[list[int]]
    good_images: list[list[int]]
    held_out: list[int]
    held_out_places: list[int]
    counts: dict[str, Any]
    failures: list[Failure]


def gather_images(
    network: SuperSimpleNet,
    samples: Sequence[Sample],
    recipe: LabelRecipe,
    *,
    preprocessor: Preprocessor,
    holdout_fraction: float,
    seed: int,
    folder: Path,
    cache: CacheConfig,
    on_error: OnError,
    processes: ProcessGroup,
) -> TrainingImages:
    """Read every image and mask once, and arrange for the features of every view.

    Args:
        network: its backbone computes them.
        samples: of the training.
        recipe: decides the flips and what labels are made of.
        preprocessor: how images are brought before the network.
        holdout_fraction: share of the good images that are held out.
        seed: decides which.
        folder: the model's, for a cache on disk.
        cache: where features are kept.
        on_error: what an unreadable image or mask does.
        processes: that share the work.

    Raises:
        DataError: no good image is left, or bad tiles cannot be told.
        ImageError: an image or mask cannot be read and ``on_error`` is ``stop``.
    """
    (height, width, _), *_ = feature_shapes(network.backbone, preprocessor.size_px)
    labels, unreadable = read_pixel_labels(
        samples, recipe, (2 * height, 2 * width), preprocessor=preprocessor, on_error=on_error
    )
    _report_left_out(labels, samples)
    held_out = hold_out(samples, holdout_fraction, seed)
    flipped = {"none": (), "published": (BAD,), "symmetric": (GOOD, BAD)}[recipe.flips]
    views = [
        len(FLIPS) if (BAD if is_bad else GOOD) in flipped and piece.sample not in held_out else 1
        for piece, is_bad in zip(labels.pieces, labels.bad.tolist(), strict=True)
    ]
    tiles: dict[int, list[int]] = {}
    for piece in labels.pieces:
        tiles.setdefault(piece.sample, []).append(piece.tile)
    with progress_bar() as bar:
        task = bar.add_task("reading images, computing features", total=len(tiles), detail="")
        source, index, failures = gather_features(
            network.backbone,
            [samples[place].image for place in tiles],
            tiles=None if preprocessor.config.fit != "tiles" else list(tiles.values()),
            views=views,
            preprocessor=preprocessor,
            cache=cache,
            folder=folder,
            on_error=on_error,
            processes=processes,
            progress=lambda images: bar.advance(task, images),
        )
    labels = labels.select(index)
    rows = source.views.rows()
    by_label: dict[int, list[list[int]]] = {GOOD: [], BAD: []}
    good_images: dict[int, list[int]] = {}
    for piece, is_bad, of_piece in zip(labels.pieces, labels.bad.tolist(), rows, strict=True):
        if piece.sample in held_out:
            continue
        by_label[BAD if is_bad else GOOD].append(of_piece)
        if samples[piece.sample].label == GOOD:
            good_images.setdefault(piece.sample, []).append(of_piece[0])
    failures = [*unreadable, *failures]
    if failures:
        console().print(f"{len(failures)} images or their masks could not be read: left out; {CONFIG_FILE} lists them")
    if not by_label[GOOD]:
        raise DataError("no good training image is left; give more of them, or a smaller --trainer.holdout_fraction")
    places = dict.fromkeys(piece.sample for piece in labels.pieces)
    held_out_places = [place for place in places if place in held_out]
    return TrainingImages(
        source=source,
        labels=labels,
        good=by_label[GOOD],
        bad=by_label[BAD],
        good_images=list(good_images.values()),
        held_out=[of_piece[0] for piece, of_piece in zip(labels.pieces, rows, strict=True) if piece.sample in held_out],
        held_out_places=held_out_places,
        counts=_count(samples, labels, held_out_places, tiles=preprocessor.config.fit == "tiles"),
        failures=failures,
    )


def _report_left_out(labels: PixelLabels, samples: Sequence[Sample]) -> None:
    """Say which tiles are not trained on.

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


def _count(
    samples: Sequence[Sample], labels: PixelLabels, held_out_places: Sequence[int], *, tiles: bool
) -> dict[str, Any]:
    """What was trained on, for config.yaml."""
    held_out = set(held_out_places)
    trained = [place for place in dict.fromkeys(piece.sample for piece in labels.pieces) if place not in held_out]
    bad = [place for place in trained if samples[place].label == BAD]
    known_pieces = {piece.sample for piece, known in zip(labels.pieces, labels.known.tolist(), strict=True) if known}
    known = sum(place in known_pieces for place in bad)
    counts: dict[str, Any] = {
        "good_images": len(trained) - len(bad),
        "held_out_images": len(held_out_places),
        "bad_with_mask_images": known,
        "bad_without_mask_images": len(bad) - known,
    }
    if tiles:
        kinds = [
            is_bad
            for piece, is_bad in zip(labels.pieces, labels.bad.tolist(), strict=True)
            if piece.sample not in held_out
        ]
        counts["tiles"] = {"good": kinds.count(False), "bad": kinds.count(True), "left_out": labels.left_out}
    return counts
