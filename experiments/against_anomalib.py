"""Time and memory of this package against anomalib's SuperSimpleNet, after a check that both compute the same.

anomalib is no dependency of this package; it gets an environment of its own (``--no-deps`` because anomalib wants an
older jsonargparse; the command line does not run there, the network does):

    python -m venv anomalib-env
    anomalib-env/bin/pip install anomalib==2.7.0 torch==2.14.1 torchvision==0.29.2
    anomalib-env/bin/pip install --no-deps -e .
    anomalib-env/bin/python experiments/against_anomalib.py --output results.json

Each side runs in a process of its own, because a memory allocator's settings are the process's; they are asked in turn
and the ratio is taken pair by pair, so that a machine whose speed drifts favours neither. float32 on the CPU; random
weights, the same on both sides (they do not change the time): anomalib's, imported as a user imports them. anomalib is
as it comes: default (JIMS) variant, NCHW in memory.

- inference: one image to smoothed map and score. Theirs begins with a normalised float image, ours with uint8 pixels
  and ends with a `Prediction`. Each side's backbone alone stands beside it. Checked first: map and score.
- training step: forward, loss and backward from the backbone's feature maps, each with its own synthesis of anomalies.
  Theirs is the model's own ``forward``, its backbone replaced by the maps; upscaling and pooling, which anomalib counts
  to the feature extractor, are inside as they are in ours, and timed alone too. Checked first, on injected masks and
  noise: the loss and each parameter's gradient, in float32 and, for two images, in float64.
- memory: what the first such step in a fresh process adds to its resident memory at the peak, feature maps included.
  From Linux's VmHWM: ``ru_maxrss`` of a child begins with its parent's peak.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import timm
import torch
from anomalib.models.image.supersimplenet.loss import SSNLoss
from anomalib.models.image.supersimplenet.torch_model import SupersimplenetModel
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from supersimplenet.inference.detector import Detector
from supersimplenet.inference.import_weights import import_weights
from supersimplenet.model.anomalies import Anomalies, draw_anomalies
from supersimplenet.model.config import ModelConfig
from supersimplenet.model.heads import Heads
from supersimplenet.model.losses import supersimplenet_loss
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.utils.system import keep_freed_blocks

ARCHITECTURES = {"wide_resnet50_2": "wide_resnet50_2.tv_in1k", "compact": "resnet18"}
THRESHOLD, NOISE_STD = 0.2, 0.015  # anomalib's
OUTPUT_TOLERANCE = 1e-4  # of a probability: in float32 either side is up to 3e-5 from float64, by the random backbone
# Of loss and gradients, relative. float64: anomalib's labels stay float32, and its cross-entropy rounds accordingly.
# float32: rounding at times moves a maximum or a kink to another pixel, which shows in gradients.
TRAINING_TOLERANCES = {torch.float64: (1e-7, 1e-7), torch.float32: (1e-4, 1e-2)}
NO_GRADIENT = ("adaptor.bias", "hidden.bias", "conv.bias")  # a BatchNorm follows: theirs is rounding around 0


def build_theirs(name: str) -> SupersimplenetModel:
    create = timm.create_model
    with mock.patch("timm.create_model", lambda *args, **options: create(*args, **{**options, "pretrained": False})):
        return SupersimplenetModel(backbone=ARCHITECTURES[name])


@torch.no_grad()
def settle(model: SupersimplenetModel, images: Tensor) -> None:
    """Give each BatchNorm a scale, a shift and statistics, as training would: with 0 and 1 a check would see little."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.1)
    model.feature_extractor.feature_extractor.feature_extractor.train()(images)
    model.train()(images, labels=torch.zeros(len(images)))


def build(name: str, size: int) -> tuple[SupersimplenetModel, SuperSimpleNet]:
    theirs = build_theirs(name)
    settle(theirs, (torch.rand(2, 3, size, size) - 0.45) / 0.225)  # as the images below, for outputs that are no 0 or 1
    with tempfile.TemporaryDirectory() as folder:
        heads, backbone = Path(folder, "anomalib.pt"), Path(folder, "backbone.pt")
        torch.save(theirs.state_dict(), heads)
        torch.save(theirs.feature_extractor.feature_extractor.feature_extractor.state_dict(), backbone)
        config = ModelConfig(backbone=ARCHITECTURES[name], backbone_weights=backbone, image_size=(size, size))
        return theirs.eval(), import_weights(heads, source="anomalib", config=config, output=Path(folder, "imported"))


def require(what: str, difference: Tensor, tolerance: float) -> float:
    if not difference.max() <= tolerance:
        raise SystemExit(f"{what}: differ by {difference.max():.1e}, more than {tolerance:.0e}; nothing was timed")
    return float(difference.max())


def inference(theirs: SupersimplenetModel, ours: SuperSimpleNet, options: argparse.Namespace):
    size, backbone = options.size, ours.backbone
    exact = Detector(ours, device="cpu", engine=options.engine)
    detector = exact
    if options.precision != "float32":  # what is checked is float32: a random backbone magnifies any rounding
        detector = Detector(ours, device="cpu", engine=options.engine, precision=options.precision)
    pixels = torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8)
    image = ((pixels.permute(0, 3, 1, 2) / 255 - backbone.mean) / backbone.std).contiguous()
    runs = {
        "anomalib": torch.inference_mode()(lambda: theirs(image)),
        "ours": lambda: detector.predict(pixels[0].numpy()),
        "anomalib_backbone": torch.inference_mode()(lambda: theirs.feature_extractor.feature_extractor(image)),
        "our_backbone": torch.inference_mode()(lambda: backbone(pixels)),
    }
    wanted, found = runs["anomalib"](), exact.predict(pixels[0].numpy())
    heat, score = torch.from_numpy(found.map_logit).sigmoid(), torch.tensor([found.head_logit]).sigmoid()
    checked = {
        "map_difference": require("maps", (wanted.anomaly_map[0, 0] - heat).abs(), OUTPUT_TOLERANCE),
        "score_difference": require("scores", (wanted.pred_score - score).abs(), OUTPUT_TOLERANCE),
        "map_range": [float(heat.min()), float(heat.max())],
        "score": float(score),
    }
    return runs, checked


def channels_first(features: list[Tensor]) -> list[Tensor]:
    return [feature.permute(0, 3, 1, 2).contiguous() for feature in features]


def their_step(model: SupersimplenetModel, maps: list[Tensor], size: int) -> Callable[[], Tensor]:
    model.train().feature_extractor.feature_extractor.forward = lambda images: dict(enumerate(maps))
    loss, batch = SSNLoss(), len(maps[0])
    image, masks, labels = torch.empty(1, 3, size, size), torch.zeros(batch, size, size), torch.zeros(batch)

    def step() -> Tensor:
        model.zero_grad()
        value = loss(*model(image, masks=masks, labels=labels))
        value.backward()
        return value.detach()

    return step


def our_step(heads: Heads, features: list[Tensor], injected: Anomalies | None = None) -> Callable[[], Tensor]:
    heads.train()
    generator = torch.Generator().manual_seed(0)
    normal = torch.zeros(len(features[0]), *(2 * side for side in features[0].shape[1:3]), dtype=torch.bool)
    drawn = {"channels": sum(heads.channels), "perlin_threshold": THRESHOLD, "noise_std": NOISE_STD}

    def step() -> Tensor:
        heads.zero_grad()
        anomalies = injected or draw_anomalies(normal, **drawn, generator=generator)
        output = heads(features, anomalies, stop_gradient=True)
        value = supersimplenet_loss(output, anomalies.mask, anomalies.mask.flatten(1).any(1))
        value.backward()
        return value.detach()

    return step


def training_differences(theirs: SupersimplenetModel, heads: Heads, features: list[Tensor], size: int):
    """Relative differences of the loss and, in norm, of each parameter's gradient, on the same masks and noise."""
    step = their_step(theirs, channels_first(features), size)
    grid, count = 2 * features[0].shape[1], 2 * len(features[0])
    mask = theirs.anomaly_generator.generate_perlin(count, grid, grid)  # (2B, 1, h, w)
    mask[0, :, : grid // 2] = 1  # one image at least
    noise = torch.randn(count, sum(heads.channels), grid, grid, dtype=features[0].dtype) * NOISE_STD
    given = mock.patch.object(theirs.anomaly_generator, "generate_perlin", return_value=mask)
    with given, mock.patch("torch.normal", return_value=noise):
        wanted = step()
    found = our_step(heads, features, Anomalies.from_dense(mask[:, 0] == 1, noise))()
    parameters = [*theirs.adaptor.parameters(), *theirs.segdec.parameters()]  # in the order of ours
    gradients = [
        (their.grad - our.grad.view_as(their)).norm() / their.grad.norm()
        for their, (name, our) in zip(parameters, heads.named_parameters(), strict=True)
        if name not in NO_GRADIENT
    ]
    return (found / wanted - 1).abs(), torch.stack(gradients)


def training(theirs: SupersimplenetModel, ours: SuperSimpleNet, size: int, batch: int):
    pixels = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8)
    features = [feature.contiguous() for feature in ours.backbone(pixels)]
    checked = {}
    for dtype, tolerances in TRAINING_TOLERANCES.items():
        images = [f[: batch if dtype == torch.float32 else 2].to(dtype) for f in features]
        networks = (copy.deepcopy(network).to(dtype) for network in (theirs, ours.heads))
        differences = training_differences(*networks, images, size)
        for what, difference, tolerance in zip(("losses", "gradients"), differences, tolerances, strict=True):
            checked[f"{what} {dtype}"] = require(f"{what} in {dtype}", difference, tolerance)
    runs = {"anomalib": their_step(theirs, channels_first(features), size), "ours": our_step(ours.heads, features)}
    return {**runs, "anomalib_upscaling": torch.no_grad()(lambda: theirs.feature_extractor(pixels))}, checked


def resident_mib(field: str) -> float:
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def memory_of(side: str, name: str, size: int, batch: int) -> float:
    """MiB; to be called in a fresh process."""
    theirs = build_theirs(name)
    channels = theirs.feature_extractor.feature_extractor.out_dims
    heads = Heads(channels, variant="jims", align_corners=False, generator=torch.Generator().manual_seed(0))
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident_mib("VmRSS")
    sides = [size // stride for stride in (8, 16)]
    if side == "anomalib":
        their_step(theirs, [torch.rand(batch, c, s, s) for s, c in zip(sides, channels, strict=True)], size)()
    else:
        our_step(heads, [torch.rand(batch, s, s, c) for s, c in zip(sides, channels, strict=True)])()
    return resident_mib("VmHWM") - before


def memory(name: str, options: argparse.Namespace) -> dict[str, float]:
    shared = f"--size {options.size} --batch-memory {options.batch_memory} --threads {options.threads}".split()
    command = [sys.executable, "-W", "ignore", __file__, *shared, "--backbones", name, "--memory-of"]
    theirs, ours = (float(subprocess.check_output([*command, side])) for side in ("anomalib", "ours"))
    return {"anomalib_mib": theirs, "ours_mib": ours, "ratio": theirs / ours}


def spread(values: list[float]) -> dict[str, float]:
    points = torch.tensor(values).quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    return dict(zip(("p10", "median", "p90"), points, strict=True))


class Side:
    """One side in a process of its own: a memory allocator is the process's, and each side has what its users have."""

    def __init__(self, side: str, what: str, name: str, options: argparse.Namespace) -> None:
        command = [sys.executable, "-W", "ignore", __file__, "--backbones", name, "--serve", side, what]
        for setting in ("size", "batch_training", "threads", "engine", "precision"):
            command += [f"--{setting.replace('_', '-')}", str(getattr(options, setting))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self, run: str) -> float:
        time.sleep(0.1)  # until the other side's threads, which wait by spinning, have gone to sleep
        self.process.stdin.write(f"{run}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def serve(side: str, what: str, name: str, options: argparse.Namespace) -> None:
    """Time the runs whose names arrive on standard input."""
    kept = mock.patch("supersimplenet.inference.engines.keep_freed_blocks") if side == "anomalib" else nullcontext()
    with kept:
        theirs, ours = build(name, options.size)
        if what == "inference":
            runs, _ = inference(theirs, ours, options)
        else:
            runs, _ = training(theirs, ours, options.size, options.batch_training)
    if side == "ours":
        keep_freed_blocks()  # as `train` and the detector do
    for line in sys.stdin:
        begin = time.perf_counter()
        runs[line.strip()]()
        print(time.perf_counter() - begin, flush=True)


def timed(what: str, runs: list[str], name: str, options: argparse.Namespace, rounds: int, images: int):
    sides = {side: Side(side, what, name, options) for side in ("anomalib", "ours")}
    times: dict[str, list[float]] = {run: [] for run in runs}
    for number in range(rounds + 2):
        for run in runs:
            seconds = sides["anomalib" if run.startswith("anomalib") else "ours"].seconds(run)
            if number >= 2:
                times[run].append(seconds)
    for side in sides.values():
        side.close()
    ratios = [theirs / ours for theirs, ours in zip(times["anomalib"], times["ours"], strict=True)]
    per_image = {f"{name}_ms_per_image": spread([1000 * s / images for s in t]) for name, t in times.items()}
    return {**per_image, "ratio": spread(ratios)}


def compare(name: str, options: argparse.Namespace):
    theirs, ours = build(name, options.size)
    if "inference" in options.only:
        runs, checked = inference(theirs, ours, options)
        yield "inference", checked, timed("inference", list(runs), name, options, 4 * options.rounds, 1)
    if "training" in options.only:
        runs, checked = training(theirs, ours, options.size, options.batch_training)
        yield "training", checked, timed("training", list(runs), name, options, options.rounds, options.batch_training)
    if "memory" in options.only:
        yield "memory of a training step", {}, memory(name, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch-training", type=int, default=8)
    parser.add_argument("--batch-memory", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10, help="training steps; of inference four times as many")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--backbones", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--engine", default="torch", help="of our inference: torch or openvino")
    parser.add_argument("--precision", default="float32", help="of our inference: float32 or bfloat16")
    parts = ("inference", "training", "memory")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--memory-of", choices=("anomalib", "ours"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.serve:
        serve(*options.serve, options.backbones[0], options)
        return
    if options.memory_of:
        print(memory_of(options.memory_of, options.backbones[0], options.size, options.batch_memory))
        return
    results = []
    for name in options.backbones:
        for what, checked, measured in compare(name, options):
            results.append({"backbone": name, "what": what, "checked": checked, "measured": measured})
            print(f"{name}, {what}" + "".join(f", {key} {value}" for key, value in checked.items()))
            for key, value in measured.items():
                columns = value if isinstance(value, dict) else {"": value}
                print(f"    {key:<32}" + "".join(f"{c:>7} {v:9.2f}" for c, v in columns.items()), flush=True)
    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    machine = {"processor": cpu[1] if cpu else platform.machine(), "cores": os.cpu_count()}
    versions = {name: version(name) for name in ("supersimplenet", "anomalib", "torch", "torchvision", "timm")}
    settings = ("size", "batch_training", "batch_memory", "rounds", "threads", "engine", "precision", "backbones")
    report = {"machine": machine, "versions": versions, **{name: getattr(options, name) for name in settings}}
    if options.output:
        options.output.write_text(json.dumps({**report, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
