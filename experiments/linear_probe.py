"""How much of where defects are lies in a backbone's features: a linear probe of the masks, on training images alone.

    python experiments/linear_probe.py --table samples.csv --kind compact --kind plain --kind expanded --kind stride4

Least squares from the upscaled, pooled features (64 by 64 positions at 256 px) to the masks of three quarters of the
groups of the training split, tested on the rest: all bad images and every third good one. The kinds are those of
`lite0_study.py`. No noise, no training, no test image.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from lite0_study import MEAN, STD, Lite0
from supervision_study import hold_out_fold
from torch import Tensor
from torch.nn import functional as F

from supersimplenet.datasets.table import Table
from supersimplenet.metrics.ranking import auroc, average_precision
from supersimplenet.model.backbone import build_backbone
from supersimplenet.model.config import COMPACT, ModelConfig
from supersimplenet.preprocessing.images import read_image, read_mask
from supersimplenet.types import GOOD, Sample

SIDE_PX, GRID = 256, 64
RIDGE = 1e-4  # of each channel's own sum of squares


def mask_of(sample: Sample) -> Tensor:
    """(GRID * GRID,) bool."""
    if sample.mask is None:
        return torch.zeros(GRID * GRID, dtype=torch.bool)
    mask = torch.from_numpy(read_mask(sample.mask, image_size_px=None).astype(np.float32))
    return (F.interpolate(mask[None, None], size=(GRID, GRID), mode="area") > 0.5).flatten()


class Rows:
    """Features of an image by position, (GRID * GRID, C + 1), the last column ones."""

    def __init__(self, kind: str) -> None:
        self.compact = build_backbone(ModelConfig(backbone=COMPACT)).folded(torch.float32) if kind == COMPACT else None
        self.lite0 = None if kind == COMPACT else Lite0(kind).eval()

    @torch.no_grad()
    def __call__(self, sample: Sample) -> Tensor:
        pixels = torch.from_numpy(read_image(sample.image, size_px=(SIDE_PX, SIDE_PX)).copy())[None]
        if self.compact is not None:
            maps = [m.permute(0, 3, 1, 2) for m in self.compact(pixels)]
        else:
            maps = self.lite0(((pixels / 255 - MEAN) / STD).permute(0, 3, 1, 2))
        upscaled = [F.interpolate(m, size=(GRID, GRID), mode="bilinear", align_corners=True) for m in maps]
        pooled = [F.avg_pool2d(m, 3, 1, 1) for m in upscaled]
        return torch.cat([*pooled, torch.ones(1, 1, GRID, GRID)], dim=1)[0].flatten(1).T


def probe(kind: str, samples: list[Sample]) -> str:
    """Fit on the training part, and return the metrics of the other part in words."""
    rows, products, responses = Rows(kind), None, None
    for sample in samples:
        if sample.split == "train":
            x, y = rows(sample), mask_of(sample).float()
            first = products is None
            products = (x.T @ x).double() if first else products + (x.T @ x).double()
            responses = (x.T @ y).double() if first else responses + (x.T @ y).double()
    weight = torch.linalg.solve(products + RIDGE * products.diagonal().diag(), responses).float()
    tested = [sample for sample in samples if sample.split == "test"]
    scores = torch.stack([rows(sample) @ weight for sample in tested])
    masks = torch.stack([mask_of(sample) for sample in tested])
    flat, truth = scores.flatten().numpy(), masks.flatten().numpy()
    image = auroc(scores.amax(1).tolist(), [sample.label for sample in tested])
    return (
        f"{kind}: {len(weight) - 1} channels, {len(tested)} images, AP-loc {average_precision(flat, truth):.3f}, "
        f"P-AUROC {auroc(flat, truth):.3f}, I-AUROC {image:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--kind", action="append", required=True)
    parser.add_argument("--fold", default="0/4")
    options = parser.parse_args()
    samples = hold_out_fold(Table(path=options.table).samples(), *map(int, options.fold.split("/")))
    good = [sample for sample in samples if sample.label == GOOD]
    chosen = [sample for sample in samples if sample.label != GOOD] + good[::3]
    for kind in options.kind:
        print(probe(kind, chosen), flush=True)


if __name__ == "__main__":
    main()
