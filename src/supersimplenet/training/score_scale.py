"""The scale of both image scores, measured on good images that were trained on; held-out images only calibrate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from supersimplenet.model.folded import FoldedHeads
from supersimplenet.model.network import SuperSimpleNet, anomaly_map
from supersimplenet.training.feature_cache import FeatureSource
from supersimplenet.training.pixel_labels import PixelLabels
from supersimplenet.types import ScoreScale

_BATCH = 8
_MOST_IMAGES = 500


@torch.inference_mode()
def measure_score_scale(
    network: SuperSimpleNet,
    source: FeatureSource,
    images: Sequence[Sequence[int]],
    labels: PixelLabels | None = None,
) -> ScoreScale:
    """Measure mean and standard deviation of both image scores over some images, so that the scores can be added.

    Args:
        network: the trained network.
        source: features by row.
        images: rows of each good image's tiles, one row per tile; at most 500 images are used, evenly spaced. With
            fewer than two images, the scores stay on their own scales. docs/decisions/0014-thresholds.md explains the
            choice of images.
        labels: labels of the source's tiles, with the pixels that count in no score; None where every pixel counts.
    """
    images = images[:: max(1, -(-len(images) // _MOST_IMAGES))]
    if len(images) < 2:
        return ScoreScale()
    heads = FoldedHeads(network.heads)
    device = heads.map_weight.device
    size_px = network.config.size_px
    image_of = torch.cat([torch.full((len(rows),), place) for place, rows in enumerate(images)])
    every_row = torch.tensor([row for rows in images for row in rows])
    head, peak = [], []
    for row in torch.split(every_row, _BATCH):
        ignored, counted = _counted(labels, source.flip_index.image[row], size_px)
        ignored = None if ignored is None else ignored.to(device)
        output = heads([values.to(device, torch.float32) for values in source.features(row)], ignored)
        maps = anomaly_map(output.map_logit, size_px, ignored, shift_px=network.map_shift_px)
        if counted is not None:
            maps = maps.masked_fill(~counted.to(device), -torch.inf)
        head.append(output.score_logit.cpu())
        peak.append(maps.amax((1, 2)).cpu())
    lowest = torch.full((len(images),), -torch.inf, dtype=torch.float64)
    heads_logit, map_max_logit = (
        lowest.scatter_reduce(0, image_of, torch.cat(values).double(), "amax") for values in (head, peak)
    )
    return ScoreScale(
        head_mean=float(heads_logit.mean()),
        head_std=float(heads_logit.std()) or 1.0,  # the standard deviation is 0 where all are copies of one image
        map_mean=float(map_max_logit.mean()),
        map_std=float(map_max_logit.std()) or 1.0,
        images=len(images),
    )


def _counted(
    labels: PixelLabels | None, places: Tensor, size_px: tuple[int, int]
) -> tuple[Tensor | None, Tensor | None]:
    """Return ignored positions (B, h, w) and counted pixels (B, H, W) of some tiles; None where all are plain.

    Where tiles overlap, each pixel counts in only one of them, as in the blended map.
    """
    if labels is None:
        return None, None
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
