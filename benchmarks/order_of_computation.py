"""Time of one training step and of one image's inference: this package's order of computation against the plain one.

    python benchmarks/order_of_computation.py --output results.json

Both run in the same process, in turn, on the same features and the same noise; the ratio is taken pair by pair, so that
a machine whose speed drifts does not favour one. The plain order is the reference of the tests (tests/plain.py).
Weights are random: they do not change the time. What is timed:

- training: forward, loss and backward of the heads on a batch whose features are given, noise drawn anew by each;
- inference: one image from pixels to map and score, backbone included, and the backbone alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import plain

from supersimplenet.model.backbone import Backbone
from supersimplenet.model.folding import FoldedHeads
from supersimplenet.model.heads import Heads
from supersimplenet.model.losses import supersimplenet_loss
from supersimplenet.model.network import anomaly_map
from supersimplenet.model.synthesis import Anomalies, draw_anomalies, perlin_fields

ARCHITECTURES = {"wide_resnet50_2": (512, 1024), "compact": (128, 256)}
THRESHOLD, NOISE_STD = 0.2, 0.1


def build(name: str) -> tuple[Backbone, Heads, plain.PlainHeads]:
    architecture = {"compact": "resnet18"}.get(name, name)
    net = timm.create_model(architecture, features_only=True, out_indices=(2, 3))
    channels = ARCHITECTURES[name]
    backbone = Backbone(net, channels=channels, origin="module").to(memory_format=torch.channels_last)
    heads = Heads(channels, variant="jims", align_corners=True, generator=torch.Generator().manual_seed(0))
    reference = plain.PlainHeads(channels, variant="jims", align_corners=True)
    state = reference.state_dict()
    reference.load_state_dict(
        {plain.plain_name(k): v.reshape(state[plain.plain_name(k)].shape) for k, v in heads.state_dict().items()}
    )
    return backbone, heads, reference


def training_steps(backbone: Backbone, heads: Heads, reference: plain.PlainHeads, size: int, batch: int):
    pixels = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8)
    features = backbone(pixels)
    maps = [f.permute(0, 3, 1, 2).contiguous() for f in features]
    side = 2 * features[0].shape[1]
    generator = torch.Generator().manual_seed(0)
    channels = sum(heads.channels)

    def fast() -> None:
        normal = torch.zeros(batch, side, side, dtype=torch.bool)
        anomalies: Anomalies = draw_anomalies(
            normal, channels=channels, perlin_threshold=THRESHOLD, noise_std=NOISE_STD, generator=generator
        )
        output = heads(features, anomalies, stop_gradient=True)
        supersimplenet_loss(output, anomalies.mask, anomalies.mask.flatten(1).any(1)).backward()
        heads.zero_grad()

    def slow() -> None:
        kept = torch.rand(2 * batch, 1, 1, generator=generator) < 0.5
        mask = (perlin_fields(2 * batch, side, side, generator=generator) > THRESHOLD) & kept
        noise = torch.randn(2 * batch, channels, side, side, generator=generator) * NOISE_STD
        map_logit, score_logit = reference(maps, noise, mask, stop_gradient=True)
        plain.plain_loss(map_logit, score_logit, mask, mask.flatten(1).any(1)).backward()
        reference.zero_grad()

    heads.train()
    reference.train()
    return fast, slow


def inferences(backbone: Backbone, heads: Heads, reference: plain.PlainHeads, size: int):
    pixels = torch.randint(0, 256, (1, size, size, 3), dtype=torch.uint8)
    folded = FoldedHeads(heads.eval())
    reference.eval()

    @torch.no_grad()
    def fast() -> None:
        anomaly_map(folded(backbone(pixels)).map_logit, (size, size))

    @torch.no_grad()
    def slow() -> None:
        maps = [f.permute(0, 3, 1, 2) for f in backbone(pixels)]
        plain.anomaly_map(reference(maps)[0], (size, size))

    @torch.no_grad()
    def alone() -> None:
        backbone(pixels)

    return fast, slow, alone


def seconds(run: Callable[[], None]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def measure(runs: dict[str, Callable[[], None]], rounds: int, warmup: int) -> dict[str, list[float]]:
    for _ in range(warmup):
        for run in runs.values():
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(seconds(run))
    return times


def summarise(times: dict[str, list[float]], images: int) -> dict[str, float]:
    medians = {f"{name}_ms_per_image": 1000 * statistics.median(t) / images for name, t in times.items()}
    ratio = statistics.median(slow / fast for slow, fast in zip(times["plain"], times["fast"], strict=True))
    return {**medians, "plain_over_fast": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8, help="images in a training step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--backbones", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    results = []
    for name in options.backbones:
        backbone, heads, reference = build(name)
        fast, slow = training_steps(backbone, heads, reference, options.size, options.batch)
        times = measure({"fast": fast, "plain": slow}, options.rounds, options.warmup)
        results.append({"backbone": name, "what": "training step", **summarise(times, options.batch)})
        fast, slow, alone = inferences(backbone, heads, reference, options.size)
        times = measure({"fast": fast, "plain": slow, "backbone": alone}, 4 * options.rounds, 2 * options.warmup)
        results.append({"backbone": name, "what": "inference", **summarise(times, 1)})
    report = {
        "machine": {"processor": platform.processor() or platform.machine(), "threads": options.threads},
        "torch": torch.__version__,
        "size": options.size,
        "batch": options.batch,
        "rounds": options.rounds,
        "results": results,
    }
    for result in results:
        print(
            f"{result['backbone']:>16}  {result['what']:<14} fast {result['fast_ms_per_image']:8.1f} ms/image  "
            f"plain {result['plain_ms_per_image']:8.1f} ms/image  ratio {result['plain_over_fast']:.2f}"
            + (
                f"  backbone alone {result['backbone_ms_per_image']:.1f} ms"
                if "backbone_ms_per_image" in result
                else ""
            )
        )
    if options.output:
        options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
