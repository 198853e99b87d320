"""What held-out good images tell at the end of a training: the scale of the image scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from supersimplenet.model.folding import FoldedHeads
from supersimplenet.model.network import SuperSimpleNet, anomaly_map
from supersimplenet.records import ScoreScale
from supersimplenet.training.features import FeatureSource

_BATCH = 8


@torch.inference_mode()
def measure_score_scale(network: SuperSimpleNet, source: FeatureSource, rows: Sequence[int]) -> ScoreScale:
    """Mean and standard deviation of both image scores over some images, so that one can be added to the other.

    Args:
        network: the trained network.
        source: features by row.
        rows: good images that were not trained on; with fewer than two the scores are left on their own scales.
    """
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
