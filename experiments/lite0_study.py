"""Why EfficientNet-Lite0 localises worse than `compact`, told by training images alone.

    python experiments/lite0_study.py --table samples.csv --output runs.jsonl --variant expanded --fold 0/4

Trains on the training split but for one part of its groups and tests on that part, as `supervision_study.py` does,
with feature maps of several kinds: ``compact``; ``plain``, the 40 and 112 channels of strides 8 and 16 after their
linear bottlenecks; ``expanded``, the 240 and 672 channels before these bottlenecks; ``stride4``, ``plain`` with the 24
channels of stride 4 too; ``scaled``, ``plain`` with each channel divided by its standard deviation on training images,
which is noise by channel.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import timm
import torch
from supervision_study import Given, append, hold_out_fold, line_of
from torch import Tensor, nn

from supersimplenet.datasets.table import Table
from supersimplenet.evaluation.evaluate import evaluate
from supersimplenet.model.config import COMPACT, ModelConfig, Recipe
from supersimplenet.model.lite0 import ARCHITECTURE, read_lite0
from supersimplenet.preprocessing.loading import decode_batches
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.train import train
from supersimplenet.types import GOOD, Sample

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # what modules receive


class Lite0(nn.Module):
    """Feature maps of one kind, each channel divided by ``scale``."""

    def __init__(self, variant: str) -> None:
        super().__init__()
        location = {"feature_location": "expansion"} if variant == "expanded" else {}
        indices = (1, 2, 3) if variant == "stride4" else (2, 3)
        self.net = timm.create_model(ARCHITECTURE, features_only=True, out_indices=indices, **location)
        weights = read_lite0()
        self.net.load_state_dict({name: weights[name] for name in self.net.state_dict()})
        channels = self.net.feature_info.channels()
        self.scale = [torch.ones(number) for number in channels]

    def forward(self, image: Tensor) -> list[Tensor]:
        colours = image * STD.view(1, 3, 1, 1) + MEAN.view(1, 3, 1, 1)
        return [m / s.view(1, -1, 1, 1) for m, s in zip(self.net(2 * colours - 1), self.scale, strict=True)]

    @torch.no_grad()
    def measure(self, samples: list[Sample], size_px: tuple[int, int]) -> None:
        """Set the scale to each channel's standard deviation over 64 good training images."""
        good = [s.image for s in samples if s.split == "train" and s.label == GOOD]
        maps: list[list[Tensor]] = [[] for _ in self.scale]
        for batch in decode_batches(good[:: len(good) // 64][:64], size_px=size_px, batch_size=8):
            pixels = torch.from_numpy(batch.pixels).permute(0, 3, 1, 2) / 255
            for kept, m in zip(maps, self.net.eval()(2 * pixels - 1), strict=True):
                kept.append(m)
        self.scale = [torch.cat(kept).std((0, 2, 3)) for kept in maps]
        print([[round(float(f(s)), 2) for f in (torch.min, torch.median, torch.max)] for s in self.scale], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--variant", required=True, choices=("compact", "plain", "expanded", "stride4", "scaled"))
    parser.add_argument("--fold", default="0/4")
    parser.add_argument("--supervision", default="full")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    size_px = (options.size, options.size)
    source = Given()
    source.given = hold_out_fold(Table(path=options.table).samples(), *map(int, options.fold.split("/")))
    net = None if options.variant == "compact" else Lite0(options.variant)
    if net is not None and options.variant == "scaled":
        net.measure(source.samples(), size_px)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        detector = train(
            source,
            output=Path(folder) / "model",
            supervision=options.supervision,
            model=ModelConfig(backbone=COMPACT, image_size=size_px),
            recipe=Recipe(batch_size=8),
            trainer=TrainerConfig(max_steps=options.steps, precision="bfloat16"),
            backbone=net,
        )
    line = {
        **{name: getattr(options, name) for name in ("variant", "fold", "supervision", "steps", "size")},
        "seconds": round(time.monotonic() - begin, 1),
        "plan": detector.record["training"]["plan"],
    }
    append(options.output, json.loads(json.dumps(line)) | line_of(evaluate(detector, source.samples())))


if __name__ == "__main__":
    main()
