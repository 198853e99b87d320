"""Image AUROC of a plain nearest-neighbour detector on the backbone's features: what the network has to beat.

    python experiments/nearest_neighbour.py --table samples.csv

PatchCore without its coreset: 3x3-pooled layer2 and layer3 features at layer2's resolution; the memory is a seeded
random choice of patches of the good training images; an image's score is its patches' largest distance to it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from supersimplenet.datasets.table import Table
from supersimplenet.metrics.ranking import auroc, average_precision
from supersimplenet.model.backbone import Backbone, build_backbone
from supersimplenet.model.config import ModelConfig
from supersimplenet.preprocessing.loading import decode_batches


def patches(backbone: Backbone, paths: list[Path], size: tuple[int, int]):
    """(h * w, C) pooled features of one image after another."""
    for batch in decode_batches(paths, size_px=size, batch_size=8):
        maps = [f.permute(0, 3, 1, 2) for f in backbone(torch.from_numpy(batch.pixels))]
        pooled = [F.avg_pool2d(m, 3, stride=1, padding=1) for m in maps]
        resized = [F.interpolate(m, size=pooled[0].shape[2:], mode="bilinear") for m in pooled]
        yield from torch.cat(resized, dim=1).flatten(2).transpose(1, 2)


def farthest(image: Tensor, memory: Tensor) -> float:
    return float(torch.cdist(image, memory).amin(1).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--backbone", default="compact")
    parser.add_argument("--backbone-weights", type=Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--patches", type=int, default=10_560)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    size = (options.size, options.size)
    backbone = build_backbone(
        ModelConfig(backbone=options.backbone, backbone_weights=options.backbone_weights, image_size=size)
    )
    samples = Table(path=options.table).samples()
    good = [s.image for s in samples if s.split == "train" and s.label == 0]
    tested = [s for s in samples if s.split == "test"]
    generator = torch.Generator().manual_seed(options.seed)
    each = -(-options.patches // len(good))
    memory = torch.cat(
        [image[torch.randperm(len(image), generator=generator)[:each]] for image in patches(backbone, good, size)]
    )[: options.patches]
    scores = [farthest(image, memory) for image in patches(backbone, [s.image for s in tested], size)]
    labels = [s.label for s in tested]
    print(
        f"{options.backbone}: {len(memory)} patches of {len(good)} good images, {len(tested)} test images: "
        f"I-AUROC {auroc(scores, labels):.3f}, AP-det {average_precision(scores, labels):.3f}"
    )


if __name__ == "__main__":
    main()
