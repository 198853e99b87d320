"""Which measure of distance from good images suits best, told by training images alone.

    python experiments/subspace_study.py --table samples.csv --output subspace.jsonl

Each of ``--folds`` parts of the training split's groups is held out once; the measures are fitted to the good images of
the others and ranked on the held-out ones, good and bad. The test split is never opened. All measures follow from one
decomposition of the covariance, so that the features are computed once and a fold takes seconds.

Measures: the residual of the leading directions that explain a share of the variance (``residual``), the same whitened
(``whitened``), the Mahalanobis distance with a shrunken covariance (``mahalanobis``). Features: as the model has them
(``true positions``), brought together as the network does (``corners aligned``), from good images in all four flips
(``flips``), less the mean of each position (``per position``).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from supervision_study import hold_out_fold
from torch import Tensor
from torch.nn import functional as F

from supersimplenet.datasets.masks import read_defects
from supersimplenet.datasets.table import Table
from supersimplenet.metrics.pixels import PixelTally
from supersimplenet.metrics.ranking import auroc, average_precision
from supersimplenet.model.backbone import build_backbone
from supersimplenet.model.config import ModelConfig
from supersimplenet.model.network import anomaly_map
from supersimplenet.model.subspace import HIGHEST, pooled_features
from supersimplenet.preprocessing.geometry import TOUCHED, resize_mask
from supersimplenet.preprocessing.loading import decode_batches
from supersimplenet.training.feature_cache import FLIPS
from supersimplenet.training.subspace_fit import Moments
from supersimplenet.types import GOOD, Sample

SIZE_PX = (256, 256)
STRIDES = [8, 16]
RANKS = (0.95, 0.99, 0.995)
SHRINKAGES = (1e-3, 1e-2, 1e-1)  # shares of the mean variance that are added to each variance


def with_corners_aligned(features: list[Tensor], strides: list[int]) -> Tensor:
    """Pooled features on the first map's grid, positions stretched from corner to corner as the network does."""
    del strides
    pooled = [F.avg_pool2d(f.permute(0, 3, 1, 2), 3, stride=1, padding=1) for f in features]
    size = pooled[0].shape[2:]
    return torch.cat([F.interpolate(m, size=size, mode="bilinear", align_corners=True) for m in pooled], 1).permute(
        0, 2, 3, 1
    )


GRIDS = {"true positions": pooled_features, "corners aligned": with_corners_aligned}


def features_of(samples: list[Sample], backbone: str) -> list[list[Tensor]]:
    """Feature maps (4 views, h_l, w_l, C_l) of each image: as it is and, of good ones, in the other three flips."""
    net = build_backbone(ModelConfig(backbone=backbone, image_size=SIZE_PX)).folded(torch.float32)
    found = []
    for batch in decode_batches([s.image for s in samples], size_px=SIZE_PX, batch_size=8):
        for index, pixels in zip(batch.index, torch.from_numpy(batch.pixels), strict=True):
            views = FLIPS if samples[index].label == GOOD else FLIPS[:1]
            found.append([f.clone() for f in net(torch.stack([pixels.flip(axes) for axes in views]))])
    return found


def measures(
    features: Iterator[Tensor], mean: Tensor, variance: Tensor, direction: Tensor
) -> Iterator[dict[str, Tensor]]:
    """Logarithm of each position's distance (h, w) by each measure, image by image."""
    explained = variance.flip(0).cumsum(0) / variance.sum()
    weights = {}
    for share in RANKS:
        kept = torch.arange(len(variance)) < len(variance) - int((explained < share).sum()) - 1
        weights[f"residual {share}"] = kept.double()
        weights[f"whitened {share}"] = kept / (variance + 1e-3 * variance.mean())
    for shrinkage in SHRINKAGES:
        weights[f"mahalanobis {shrinkage}"] = 1 / (variance + shrinkage * variance.mean())
    stacked = torch.stack(list(weights.values()))
    for values in features:
        squares = ((values - mean) @ direction).square()
        yield dict(zip(weights, ((squares @ stacked.T).clamp_min(1e-12).log() / 2).unbind(-1), strict=True))


def study(samples: list[Sample], features: list[list[Tensor]], kind: str, tallies: set[str]) -> dict[str, dict]:
    """Metrics of each measure on the held-out part, with one kind of features."""
    grid = GRIDS.get(kind, pooled_features)
    good = [i for i, s in enumerate(samples) if s.split == "train" and s.label == GOOD]
    held = [i for i, s in enumerate(samples) if s.split == "test"]
    views = slice(None) if kind == "flips" else slice(1)
    total, products, count = 0, 0, 0
    for i in good:
        values = grid([f[views].double() for f in features[i]], STRIDES)
        moments = Moments.of(values.flatten(0, 2))
        total, products, count = total + values.sum(0), products + moments.products, count + len(values)
    position_mean = total / count  # (h, w, C)
    mean = position_mean if kind == "per position" else position_mean.flatten(0, 1).mean(0).expand_as(position_mean)
    flat = mean.flatten(0, 1)
    covariance = products / (count * len(flat)) - flat.T @ flat / len(flat)
    variance, direction = torch.linalg.eigh(covariance)
    each = (grid([f[:1].double() for f in features[i]], STRIDES)[0] for i in held)
    scores: dict[str, list[dict[str, float]]] = {}
    pixels = {name: PixelTally() for name in tallies}
    for i, found in zip(held, measures(each, mean, variance.clamp_min(0), direction), strict=True):
        defects = None if samples[i].label == GOOD else read_defects(samples[i])
        for name, position in found.items():
            smoothed = anomaly_map(position.float()[None], SIZE_PX)[0]
            highest = position.flatten().topk(HIGHEST).values.mean()
            scores.setdefault(name, []).append(
                {"highest ten": float(highest), "highest smoothed": float(smoothed.max())}
            )
            if name in pixels:
                mask = np.zeros(SIZE_PX, bool) if defects is None else resize_mask(defects, SIZE_PX, at_least=TOUCHED)
                pixels[name].add(smoothed.numpy(), mask, defect=samples[i].defect)
    label = [samples[i].label for i in held]
    result = {}
    for name, values in scores.items():
        result[name] = {
            f"{metric}, {score}": of([v[score] for v in values], label)
            for score in ("highest ten", "highest smoothed")
            for metric, of in (("I-AUROC", auroc), ("AP-det", average_precision))
        }
        if name in pixels:
            found_metrics = pixels[name].metrics()
            result[name] |= {metric: found_metrics[metric].value for metric in ("AP-loc", "AUPRO")}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--backbone", default="compact")
    parser.add_argument("--folds", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    training = [sample for sample in Table(path=options.table).samples() if sample.split == "train"]
    features = features_of(training, options.backbone)
    tallies = {*(f"residual {share}" for share in RANKS), "mahalanobis 0.01", "whitened 0.99"}
    for part in range(options.folds):
        samples = hold_out_fold(training, part, options.folds)
        for kind in (*GRIDS, "flips", "per position"):
            for name, metrics in study(samples, features, kind, tallies).items():
                line = {"fold": part, "features": kind, "measure": name, **metrics}
                with options.output.open("a") as file:
                    file.write(json.dumps(line) + "\n")
            print(part, kind, flush=True)


if __name__ == "__main__":
    main()
