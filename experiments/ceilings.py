"""Counted multiply-adds and bytes of each stage of one image's inference, against what this machine can do at best.

    python experiments/ceilings.py --backbone wide_resnet50_2 --output ceilings.json

Ceilings are measured here: multiply-adds a second of a large product through the package's own `pointwise`, bytes a
second of a large copy (read and written). A stage's floor is the larger of its multiply-adds and its bytes, each at its
ceiling; bytes count weights, inputs and outputs once, so a stage whose intermediate values leave the cache is above its
floor by as much. Weights are random: they do not change the time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from supersimplenet.model.axes import TAPS
from supersimplenet.model.backbone import build_backbone
from supersimplenet.model.config import ModelConfig
from supersimplenet.model.folded import FoldedNetwork
from supersimplenet.model.heads import CONV, HIDDEN, convolve_map, output_size, pool, project, project_hidden
from supersimplenet.model.network import SuperSimpleNet, anomaly_map
from supersimplenet.model.ops import pointwise
from supersimplenet.model.resample import resampling, upscale, upscale_taps
from supersimplenet.utils.system import keep_freed_blocks


def median_seconds(run: Callable[[], object], rounds: int) -> float:
    times = []
    for round_number in range(rounds + 3):
        begin = time.perf_counter()
        run()
        if round_number >= 3:
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


def ceilings(dtype: torch.dtype, rounds: int) -> dict[str, float]:
    rows, columns, channels = 4096, 2048, 1024
    values, weight = torch.randn(rows, channels).to(dtype), torch.randn(columns, channels).to(dtype)
    source = torch.empty(1 << 28, dtype=torch.uint8)
    target = torch.empty_like(source)
    return {
        "gmac_per_second": rows * columns * channels / median_seconds(lambda: pointwise(values, weight), rounds) / 1e9,
        "gbyte_per_second": 2 * len(source) / median_seconds(lambda: target.copy_(source), rounds) / 1e9,
    }


def stages(network: SuperSimpleNet, dtype: torch.dtype) -> dict[str, tuple[float, float, Callable[[], object]]]:
    """Multiply-adds, bytes and the stage itself, for one image."""
    folded = FoldedNetwork(network, dtype=dtype).eval()
    heads, image_size = folded.measures.heads, folded.image_size
    pixels = torch.randint(0, 256, (1, *image_size, 3), dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        features = folded.backbone(pixels)
    size = output_size(features)
    area = size[0] * size[1]
    hidden_maps, tap_maps = project(features, heads.hidden_weight), project(features, heads.tap_weight)
    hidden = upscale(hidden_maps, size, heads.align_corners)
    response = upscale_taps(tap_maps, size, heads.align_corners)
    map_logit = project_hidden(hidden.clone(), heads.map_weight)

    def sparse(maps: list[torch.Tensor], taps: int, channels: int) -> float:
        operators = [
            resampling((m.shape[1], m.shape[2]), size, heads.align_corners, taps, 1, m.device, m.dtype) for m in maps
        ]
        return sum(len(o.columns.index) * channels * taps + len(o.rows.index) * channels for o in operators)

    def products(width: int) -> float:
        return sum(f.shape[1] * f.shape[2] * f.shape[3] * width for f in features)

    def size_bytes(*tensors: torch.Tensor) -> float:
        return sum(t.numel() * t.element_size() for t in tensors)

    weights = list(folded.backbone.net.parameters())
    height, width = image_size
    return {
        "backbone": (
            counter.get_total_flops() / 2,
            size_bytes(*weights, *features, pixels),
            lambda: folded.backbone(pixels),
        ),
        "hidden: matrix": (
            products(HIDDEN),
            size_bytes(heads.hidden_weight, *features, *hidden_maps),
            lambda: project(features, heads.hidden_weight),
        ),
        "hidden: upscale": (
            sparse(hidden_maps, 1, HIDDEN),
            size_bytes(*hidden_maps, hidden),
            lambda: upscale(hidden_maps, size, heads.align_corners),
        ),
        "hidden: activate, project": (
            area * HIDDEN,
            size_bytes(hidden),
            lambda: project_hidden(hidden, heads.map_weight),
        ),
        "5x5: matrices of the taps": (
            products(TAPS * TAPS * CONV),
            size_bytes(heads.tap_weight, *features, *tap_maps),
            lambda: project(features, heads.tap_weight),
        ),
        "5x5: upscale, sum taps": (
            sparse(tap_maps, TAPS, CONV),
            size_bytes(*tap_maps, response),
            lambda: upscale_taps(tap_maps, size, heads.align_corners),
        ),
        "5x5: channel of the map": (
            area * TAPS * TAPS * CONV,
            size_bytes(response),
            lambda: convolve_map(map_logit, heads.map_kernel),
        ),
        "pooling": (area * CONV, size_bytes(response), lambda: pool(response.flatten(1, 2))),
        "map to image size": (
            height * area + height * size[1] * width,
            4 * (area + height * width),
            lambda: anomaly_map(map_logit, image_size),
        ),
        "whole network": (0, 0, lambda: folded(pixels)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="compact")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_blocks()
    config = ModelConfig(backbone=options.backbone, image_size=(options.size, options.size))
    network = SuperSimpleNet(config, backbone=build_backbone(config, with_weights=options.backbone == "compact")).eval()
    with torch.inference_mode():
        limits = ceilings(getattr(torch, options.precision), options.rounds)
        rows = []
        for name, (macs, size, run) in stages(network, getattr(torch, options.precision)).items():
            floor = max(macs / limits["gmac_per_second"], size / limits["gbyte_per_second"]) / 1e6
            measured = 1000 * median_seconds(run, options.rounds)
            rows.append(
                {"stage": name, "mmac": macs / 1e6, "mbyte": size / 1e6, "floor_ms": floor, "measured_ms": measured}
            )
    total = rows[-1]
    for column in ("mmac", "mbyte", "floor_ms"):
        total[column] = sum(row[column] for row in rows[:-1])
    print(
        f"{options.backbone}, {options.size} px, {options.precision}, {options.threads} threads; ceilings: "
        f"{limits['gmac_per_second']:.0f} G multiply-adds/s, {limits['gbyte_per_second']:.0f} GB/s\n"
        "| stage | M multiply-adds | MB | floor, ms | measured, ms | measured / floor |\n|---|---|---|---|---|---|"
    )
    for row in rows:
        print(
            f"| {row['stage']} | {row['mmac']:.0f} | {row['mbyte']:.1f} | {row['floor_ms']:.2f} | "
            f"{row['measured_ms']:.2f} | {row['measured_ms'] / row['floor_ms']:.1f} |"
        )
    if options.output:
        options.output.write_text(json.dumps({"ceilings": limits, "stages": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
