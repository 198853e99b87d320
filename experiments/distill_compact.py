"""Goes on from the shipped `compact` with a teacher from ../shared, and says what its features are worth then.

    python experiments/distill_compact.py --shared ../shared --output runs/compact --time-budget 1h

The teacher is a pre-activation ResNet-50 up to its third stage; the pictures are photographs of objects and textures.
What the features are worth is measured on the training split of the magnetic tiles, of whose good tiles a quarter, by
group, is held out and ranked with the bad ones, and on the surfaces that the package draws. Add ``--resume`` to go on.
"""

from __future__ import annotations

import argparse
import tarfile
from itertools import pairwise
from pathlib import Path
from zlib import crc32

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from supersimplenet.datasets.mvtec import MVTecAD
from supersimplenet.datasets.synthetic import synthesize
from supersimplenet.datasets.synthetic_config import SyntheticConfig
from supersimplenet.datasets.table import Table
from supersimplenet.distillation.config import DistillConfig
from supersimplenet.distillation.distill import WEIGHTS, distill
from supersimplenet.distillation.report import measure_backbones
from supersimplenet.model.backbone import Backbone, wrap_module
from supersimplenet.preprocessing.listing import list_images
from supersimplenet.training.config import parse_duration
from supersimplenet.types import GOOD, Sample

BLOCKS, CHANNELS = (3, 4, 6), (64, 256, 512, 1024)


class Block(nn.Module):
    """A residual block whose activations come before its convolutions."""

    def __init__(self, channels_in: int, channels: int, stride: int, has_shortcut: bool) -> None:
        super().__init__()
        inner = channels // 4
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm2d(channels_in), nn.BatchNorm2d(inner), nn.BatchNorm2d(inner)
        self.conv1 = nn.Conv2d(channels_in, inner, 1, bias=False)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.conv3 = nn.Conv2d(inner, channels, 1, bias=False)
        self.downsample = nn.Conv2d(channels_in, channels, 1, stride, bias=False) if has_shortcut else None

    def forward(self, image: Tensor) -> Tensor:
        first = F.relu(self.bn1(image))
        shortcut = image if self.downsample is None else self.downsample(first)
        inner = self.conv2(F.relu(self.bn2(self.conv1(first))))
        return self.conv3(F.relu(self.bn3(inner))) + shortcut


class Teacher(nn.Module):
    """The first three stages; returns the maps of the second and third."""

    def __init__(self) -> None:
        super().__init__()
        self.bn0, self.conv0, self.bn1 = nn.BatchNorm2d(3), nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.stages = nn.ModuleList(
            nn.Sequential(*(
                Block(before if number == 0 else after, after, stride if number == 0 else 1, number == 0)
                for number in range(blocks)
            ))
            for blocks, (before, after), stride in zip(BLOCKS, pairwise(CHANNELS), (1, 2, 2), strict=True)
        )  # fmt: skip

    def forward(self, image: Tensor) -> list[Tensor]:
        found = F.max_pool2d(F.relu(self.bn1(self.conv0(self.bn0(image)))), 3, 2, 1)
        maps = []
        for stage in self.stages:
            found = stage(found)
            maps.append(found)
        return maps[1:]


def read_teacher(path: Path) -> Backbone:
    net = Teacher()
    weights = {name: value.float() for name, value in load_file(path).items()}
    missing = net.load_state_dict(weights, strict=False)
    assert not missing.unexpected_keys, missing.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in missing.missing_keys), missing.missing_keys
    return wrap_module(net, (64, 64))


def held_out_tiles(samples: list[Sample]) -> list[Sample]:
    """The training split alone: good tiles of three quarters of the groups, against all others."""
    found = []
    for sample in samples:
        if sample.split == "train":
            is_kept = sample.label == GOOD and crc32(str(sample.group or sample.image).encode()) % 4 > 0
            found.append(Sample(image=sample.image, label=sample.label, split="train" if is_kept else "test"))
    return found


def drawn_surfaces(folder: Path) -> dict[str, list[Sample]]:
    config = SyntheticConfig(train_good=24, test_good=16, test_per_defect=6, seed=7)
    if not folder.is_dir():
        synthesize(folder, config)
    return {name: MVTecAD(root=folder, category=name).samples() for name in config.surfaces}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--time-budget")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-4, help="lower than from random weights")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    teacher = read_teacher(options.shared / "distill" / "teacher_resnet50v2_stage3.safetensors")
    pictures = options.output.with_name(f"{options.output.name}-pictures")
    if not pictures.is_dir():
        with tarfile.open(options.shared / "distill" / "pictures.tar") as archive:
            archive.extractall(pictures, filter="data")
    config = DistillConfig(
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        precision=options.precision,
    )
    if not (options.output / WEIGHTS).is_file():
        distill(
            list_images(pictures),
            options.output,
            config,
            teacher=teacher,
            time_budget_s=None if options.time_budget is None else parse_duration(options.time_budget),
            resume=options.resume,
        )
    tiles = held_out_tiles(Table(path=options.shared / "magnetic_tile" / "samples.csv").samples())
    datasets = {"magnetic tile, training split": tiles}
    datasets |= drawn_surfaces(options.output.with_name(f"{options.output.name}-surfaces"))
    for row in measure_backbones(config, options.output / WEIGHTS, datasets, size_px=(256, 256), teacher=teacher):
        quality = row.quality
        print(f"{row.dataset:32} {row.backbone:8} {quality.nearest_neighbour:.3f} {quality.subspace:.3f}", flush=True)


if __name__ == "__main__":
    main()
