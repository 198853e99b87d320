"""The scale of the image scores, measured on good images that were trained on; held-out images only calibrate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor, nn

from supersimplenet.model.config import ScoreWeights
from supersimplenet.model.folded import FoldedMeasures
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.postprocessing.score_scale import ScoreScale
from supersimplenet.training.feature_cache import FeatureSource
from supersimplenet.training.pixel_labels import PixelLabels
from supersimplenet.training.subspace_fit import CrossFit
from supersimplenet.training.training_set import TrainingSet

_BATCH = 8
_MOST_IMAGES = 500
_NAMES = {"map": "map", "head_logit": "head", "subspace_map": "subspace_map", "subspace_logit": "subspace"}


@torch.inference_mode()
def measure_score_scale(
    network: SuperSimpleNet,
    training_set: TrainingSet,
    images: Sequence[Sequence[int]],
    subspaces: CrossFit,
    weights: ScoreWeights,
) -> ScoreScale:
    """Measure mean and standard deviation of the image scores over some images, so that the scores can be added.

    Args:
        network: the trained network.
        training_set: the features, and the pixels that count in no score.
        images: rows of each good image's tiles, one row per tile; at most 500 images are used, evenly spaced. With
            fewer than two images, the scores stay on their own scales. docs/decisions/0014-thresholds.md explains the
            choice of images.
        subspaces: fitted to these images; each is scored by the one that was fitted without it.
        weights: of the joint score and of the shown map.
    """
    every = range(0, len(images), max(1, -(-len(images) // _MOST_IMAGES)))
    if len(every) < 2:
        return ScoreScale(**asdict(weights))
    measures = FoldedMeasures(network)
    of_images: dict[str, list[Tensor]] = {name: [] for name in measures.output_names}
    for fold, subspace in enumerate(subspaces.without):
        members = [images[place] for place in every if subspaces.fold[place] == fold]
        if members:
            measures.subspace = subspace.for_inference(dense=False)
            found = _highest(measures, members, training_set.source, training_set.labels, network.config.size_px)
            for name, values in found.items():
                of_images[name].append(values)
    scale: dict[str, float] = {}
    for name, each in of_images.items():
        scale[f"{_NAMES[name]}_mean"] = float(torch.cat(each).mean())
        scale[f"{_NAMES[name]}_std"] = float(torch.cat(each).std()) or 1.0  # it is 0 where all are copies of one image
    return ScoreScale(images=len(every), **scale, **asdict(weights))


def _highest(
    measures: FoldedMeasures,
    images: Sequence[Sequence[int]],
    source: FeatureSource,
    labels: PixelLabels,
    size_px: tuple[int, int],
) -> dict[str, Tensor]:
    """Return each score of each image, and the maximum of each map, in float64; of several tiles the highest."""
    device = next(measures.buffers()).device
    image_of = torch.cat([torch.full((len(rows),), place) for place, rows in enumerate(images)])
    every_row = torch.tensor([row for rows in images for row in rows])
    found: dict[str, list[Tensor]] = {name: [] for name in measures.output_names}
    for row in torch.split(every_row, _BATCH):
        ignored, counted = _counted(labels, source.flip_index.image[row], size_px)
        ignored = None if ignored is None else ignored.to(device)
        features = [values.to(device, torch.float32) for values in source.features(row)]
        for name, values in zip(found, measures(features, size_px, ignored), strict=True):
            if values.ndim == 3:
                values = values if counted is None else values.masked_fill(~counted.to(device), -torch.inf)
                values = values.amax((1, 2))
            found[name].append(values.cpu())
    lowest = torch.full((len(images),), -torch.inf, dtype=torch.float64)
    return {name: lowest.scatter_reduce(0, image_of, torch.cat(each).double(), "amax") for name, each in found.items()}


def _counted(labels: PixelLabels, places: Tensor, size_px: tuple[int, int]) -> tuple[Tensor | None, Tensor | None]:
    """Return ignored positions (B, h, w) and counted pixels (B, H, W) of some tiles; None where all are plain.

    Where tiles overlap, each pixel counts in only one of them, as in the blended map.
    """
    of_these = labels.of(places, [()] * len(places)).ignored
    own = [labels.tiles[place].own for place in places.tolist()]
    everything = all(part == slice(None) for parts in own for part in parts)
    if everything and not of_these.any():
        return None, None
    counted = torch.zeros(len(places), *size_px, dtype=torch.bool)
    for plane, (rows, columns) in zip(counted, own, strict=True):
        plane[rows, columns] = True
    if not of_these.any():
        return None, counted
    ignored_px = nn.functional.interpolate(of_these[:, None].float(), size=size_px)[:, 0] > 0
    own_and_counted = counted & ~ignored_px
    # A tile whose own region is all ignored counts by its other pixels; a tile without counted pixels was left out.
    none_left = ~own_and_counted.flatten(1).any(1)
    own_and_counted[none_left] = ~ignored_px[none_left]
    return of_these, own_and_counted
