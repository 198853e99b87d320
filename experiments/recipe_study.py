"""Which settings of the unsupervised recipe suit a backbone, told without a single real defect.

    python experiments/recipe_study.py --table samples.csv --output runs.jsonl --run noise=0.4,perlin=0.2 --run noise=1

Trains on three quarters of the good training images and validates on the rest, whole groups: the images as they are
(good) against the same images with defects painted on (bad), five kinds that a surface suffers and that are no Perlin
noise. Test images and defective ones are never opened. Features are computed once and kept as bfloat16. Each ``--run``
appends a JSON line: its settings, the metrics of each kind and their mean over kinds, and each image's two scores.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.stats import rankdata

from supersimplenet.datasets.table import Table
from supersimplenet.datasets.textures import noise
from supersimplenet.metrics.pixels import region_overlap
from supersimplenet.metrics.ranking import auroc
from supersimplenet.model.backbone import Backbone, build_backbone
from supersimplenet.model.config import ModelConfig, Recipe
from supersimplenet.model.folded import FoldedHeads
from supersimplenet.model.heads import Heads
from supersimplenet.model.layers import resolve_layers
from supersimplenet.model.network import anomaly_map
from supersimplenet.preprocessing.images import read_image
from supersimplenet.training.feature_cache import CachedFeatures
from supersimplenet.training.features import measure_feature_scale
from supersimplenet.training.module import TrainingModule
from supersimplenet.training.sampler import EpochBatches
from supersimplenet.types import GOOD, Sample
from supersimplenet.utils.seeding import derive_seed
from supersimplenet.utils.system import keep_freed_blocks

SIDE_PX = 256
SHAPE = (SIDE_PX, SIDE_PX)
Plane, Pixels, Masks = NDArray[np.float64], NDArray[np.uint8], NDArray[np.bool_]
# Depth of each kind's change in the logarithm of the light, set once with a short training of the default recipe.
DEPTH = {"dot": 0.5, "crack": 0.5, "chip": 0.6, "uneven": 0.5, "fray": 0.15}


@dataclass(frozen=True, kw_only=True)
class Run:
    """Settings of one training; ``noise`` is the noise's standard deviation over that of the features."""

    noise: float = 0.4
    perlin: float = 0.2
    adaptor_lr: float = 1e-4
    heads_lr: float = 2e-4
    batch: int = 8
    epochs: int = 10
    seed: int = 0

    @classmethod
    def parse(cls, text: str) -> Run:
        given = dict(part.split("=") for part in text.split(","))
        return cls(**{key: type(getattr(cls, key))(value) for key, value in given.items()})


def blot(place: Plane, radius: float, ragged: Plane) -> Plane:
    y, x = np.indices(SHAPE)
    return 1 - np.hypot(y - place[0], x - place[1]) / radius + ragged


def paint(kind: str, rng: Generator) -> tuple[Plane, Masks]:
    """A defect as (H, W) logarithm of a gain on the light, about 1 deep before `DEPTH`, and its mask."""
    y, x = np.indices(SHAPE)
    place = rng.uniform(0.12, 0.88, size=2) * SIDE_PX
    if kind == "dot":  # one to three dark dots, 4 to 10 px wide, soft at the rim
        change = np.zeros(SHAPE)
        for _ in range(rng.integers(1, 4)):
            radius = rng.uniform(2, 5)
            change = np.minimum(change, -np.clip((radius + 0.5 - np.hypot(y - place[0], x - place[1])) / 1.5, 0, 1))
            place = np.clip(place + rng.normal(0, 25, size=2), 8, SIDE_PX - 8)
        return change, change < -0.3
    if kind == "crack":  # a dark line, 1 to 2 px wide, 40 to 120 px long, kinked
        steps = int(2 * rng.uniform(40, 120))
        facet = np.cumsum(rng.random(steps) < 0.08)
        heading = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.45, size=steps)[facet]
        path = place + np.cumsum(0.5 * np.stack([np.sin(heading), np.cos(heading)], axis=1), axis=0)
        path = np.rint(path[((path > 0) & (path < SIDE_PX - 1)).all(1)]).astype(int)
        free = ~np.isin(y * SIDE_PX + x, path @ [SIDE_PX, 1])
        inside = np.clip(rng.uniform(0.8, 1.3) - ndimage.distance_transform_edt(free), 0, 1)
        return -inside, inside > 0.2
    if kind == "chip":  # broken off at the border: jagged, flat and grainy, darker or brighter
        place[rng.integers(2)] = rng.choice([0, SIDE_PX - 1])
        inside = blot(place, rng.uniform(9, 26), 0.25 * noise(SHAPE, rng, 2.5)) > 0
        return inside * (0.7 + 0.4 * noise(SHAPE, rng, 1.5)) * rng.choice([-1, -1, 1]), inside
    if kind == "uneven":  # a wide soft change of brightness
        depth = np.clip(blot(place, rng.uniform(35, 75), 0.15 * noise(SHAPE, rng, 25)) / 0.8, 0, 1)
        change = depth**2 * (3 - 2 * depth)
        return change * rng.choice([-1, 1]), change > 0.4
    depth = blot(place, rng.uniform(18, 42), 0.2 * noise(SHAPE, rng, 6))  # fray: a patch whose texture is rough
    return np.clip(depth / 0.3, 0, 1) * noise(SHAPE, rng, rng.uniform(1, 2.5)), depth > 0.1


def split(samples: list[Sample], fraction: float) -> tuple[list[Pixels], list[Pixels]]:
    """Good training images to train on and to hold out, whole groups."""
    good = [(s.group or str(s.image), s.image) for s in samples if s.split == "train" and s.label == GOOD]
    held: set[str] = set()
    for name in sorted({group for group, _ in good}, key=lambda name: derive_seed(0, "study", name)):
        held |= {name} if sum(group in held for group, _ in good) < fraction * len(good) else set()
    pictures = [(group in held, read_image(path, size_px=SHAPE)) for group, path in good]
    return [p for is_held, p in pictures if not is_held], [p for is_held, p in pictures if is_held]


def features(backbone: Backbone, pictures: list[Pixels], size_px: tuple[int, int] = SHAPE) -> CachedFeatures:
    """Features of pictures, resized for the backbone, kept in memory."""
    if size_px != SHAPE:
        pictures = [np.asarray(Image.fromarray(p).resize(size_px[::-1], Image.Resampling.BICUBIC)) for p in pictures]
    batches = [torch.from_numpy(np.stack(pictures[start : start + 8])) for start in range(0, len(pictures), 8)]
    rows = torch.cat([torch.cat([f.flatten(1) for f in backbone(batch)], dim=1).bfloat16() for batch in batches])
    return CachedFeatures(rows, [f.shape[1:] for f in backbone(batches[0][:1])], "memory")


def validation_set(pictures: list[Pixels]) -> tuple[list[Pixels], Masks, NDArray[np.str_]]:
    """The pictures as they are, then once with each kind of defect; masks (N, H, W), and names of the kinds (N,)."""
    shown, masks = list(pictures), [np.zeros(SHAPE, dtype=bool)] * len(pictures)
    for kind, depth in DEPTH.items():
        for index, picture in enumerate(pictures):
            rng = np.random.default_rng(derive_seed(0, "defect", kind, index))
            change, mask = paint(kind, rng)
            gain = np.exp(depth * rng.uniform(0.5, 1.5) * change)
            shown.append(np.clip(np.rint(picture * gain[..., None]), 0, 255).astype(np.uint8))
            masks.append(mask)
    return shown, np.stack(masks), np.repeat(["good", *DEPTH], len(pictures))


def train(run: Run, source: CachedFeatures, channels: tuple[int, ...], scale: float) -> tuple[Heads, int]:
    """Heads trained as the package does it, and the number of steps."""
    recipe = Recipe(batch_size=run.batch, perlin_threshold=run.perlin, adaptor_lr=run.adaptor_lr, heads_lr=run.heads_lr)
    heads = Heads(channels, variant="jims", align_corners=True, generator=torch.Generator().manual_seed(run.seed))
    module = TrainingModule(heads.train(), source, recipe=recipe, seed=run.seed, precision="bfloat16")
    module.noise_std = run.noise * scale
    module.total_steps = run.epochs * -(-len(source.rows) // run.batch)
    chosen = module.configure_optimizers()
    optimizer, schedule = chosen["optimizer"], chosen["lr_scheduler"]["scheduler"]
    batches = EpochBatches([[row] for row in range(len(source.rows))], [], batch_size=run.batch, seed=run.seed)
    step = 0
    for epoch in range(run.epochs):
        batches.set_epoch(epoch)
        for rows in batches:
            optimizer.zero_grad()
            torch.autograd.backward(module.loss(torch.tensor(rows), derive_seed(run.seed, "anomalies", step, 0)))
            optimizer.step()
            schedule.step()
            step += 1
    return heads.eval(), step


@torch.inference_mode()
def validate(heads: Heads, source: CachedFeatures, masks: Masks, kind: NDArray[np.str_]) -> dict[str, Any]:
    """Metrics of each kind of defect against the good images, their mean over kinds, and the images' scores."""
    folded = FoldedHeads(heads)
    outputs = [folded(source.features(index)) for index in torch.arange(len(kind)).split(8)]
    score = torch.cat([output.score_logit for output in outputs]).numpy()
    plane = torch.cat([anomaly_map(output.map_logit, SHAPE) for output in outputs]).numpy()
    peak = plane.reshape(len(plane), -1).max(1)
    ranked = {"I-AUROC": score, "seg-I-AUROC": peak, "ranks-I-AUROC": rankdata(score) + rankdata(peak)}
    result: dict[str, Any] = {}
    for name in DEPTH:
        chosen = (kind == "good") | (kind == name)
        result[name] = {key: auroc(values[chosen], kind[chosen] == name) for key, values in ranked.items()}
        result[name]["P-AUROC"] = auroc(plane[chosen], masks[chosen])
        result[name]["AUPRO"] = region_overlap(plane[chosen], masks[chosen]).value
    result["mean"] = {key: float(np.mean([result[name][key] for name in DEPTH])) for key in result["dot"]}
    return {"metrics": result, "images": {"score": score.tolist(), "map_max": peak.tolist()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--run", type=Run.parse, action="append", help="such as noise=0.8,perlin=0.6,seed=1")
    parser.add_argument("--backbone", default="compact")
    parser.add_argument("--layers", help="such as blocks.5,blocks.8,blocks.11")
    parser.add_argument("--size", type=int, default=SIDE_PX, help="side of the backbone's images, which show 256 px")
    options = parser.parse_args()
    keep_freed_blocks()
    size_px = (options.size, options.size)
    config = ModelConfig(backbone=options.backbone, layers=options.layers, image_size=size_px)
    backbone = build_backbone(resolve_layers(config))
    trained, held = split(Table(path=options.table).samples(), 0.25)
    shown, masks, kind = validation_set(held)
    source, shown_source = features(backbone, trained, size_px), features(backbone, shown, size_px)
    scale = measure_feature_scale(source, range(len(trained)))
    print(f"{len(trained)} images to train on, {len(held)} held out, feature scale {scale:.4f}", flush=True)
    for run in options.run or [Run()]:
        begin = time.monotonic()
        heads, steps = train(run, source, backbone.channels, scale)
        line = {"backbone": options.backbone, "layers": options.layers, "size": options.size}
        line |= {**asdict(run), "scale": scale, "steps": steps, "seconds": round(time.monotonic() - begin, 1)}
        line |= validate(heads, shown_source, masks, kind)
        with options.output.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(run, {key: round(value, 3) for key, value in line["metrics"]["mean"].items()}, flush=True)


if __name__ == "__main__":
    main()
