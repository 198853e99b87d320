"""The good images that a training held out to calibrate with, and the scale of its scores by those it did not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from supersimplenet.data.sources.base import DataSource, training_list_hash
from supersimplenet.data.supervision import supervise, without_empty_masks
from supersimplenet.errors import DataError
from supersimplenet.model.folding import FoldedHeads
from supersimplenet.model.network import SuperSimpleNet, anomaly_map
from supersimplenet.records import Sample, ScoreScale
from supersimplenet.training.features import FeatureSource
from supersimplenet.training.plan import hold_out

HELD_OUT = "held out of the training"
_BATCH = 8
_MOST_IMAGES = 500


def held_out_samples(source: DataSource, record: Mapping[str, Any]) -> list[Sample]:
    """The good images that a training held out, found again from its data set and its config.yaml.

    Raises:
        DataError: the training images are not those of the training any more.
    """
    samples, _ = without_empty_masks(source.samples())
    training = supervise(samples, record["supervision"], masks=record["masks"], seed=record["seed"]).training
    if training_list_hash(training) != record["training"]["list_sha256"]:
        raise DataError(
            f"{source.name}: the training images changed since the training, so which ones it held out is not known; "
            "name good parts that were not trained on, with --good"
        )
    places = hold_out(training, record["trainer"]["holdout_fraction"], record["seed"])
    return [training[place] for place in sorted(places)]


@torch.inference_mode()
def measure_score_scale(network: SuperSimpleNet, source: FeatureSource, rows: Sequence[int]) -> ScoreScale:
    """Mean and standard deviation of both image scores over some images, so that one can be added to the other.

    Args:
        network: the trained network.
        source: features by row.
        rows: good images, at most some hundred of which are taken, evenly; with fewer than two the scores are left on
            their own scales. See docs/decisions/0014-thresholds.md for which.
    """
    rows = rows[:: max(1, -(-len(rows) // _MOST_IMAGES))]
    if len(rows) < 2:
        return ScoreScale()
    heads = FoldedHeads(network.heads)
    device = heads.map_weight.device
    head, peak = [], []
    for row in torch.split(torch.tensor(list(rows)), _BATCH):
        output = heads([values.to(device, torch.float32) for values in source.features(row)])
        head.append(output.score_logit.cpu())
        peak.append(anomaly_map(output.map_logit, network.config.size_px).amax((1, 2)).cpu())
    heads_logit, map_max_logit = torch.cat(head).double(), torch.cat(peak).double()
    return ScoreScale(
        head_mean=float(heads_logit.mean()),
        head_std=float(heads_logit.std()) or 1.0,  # 0 where all are copies of one image
        map_mean=float(map_max_logit.mean()),
        map_std=float(map_max_logit.std()) or 1.0,
        images=len(rows),
    )
