"""Time and memory of the streaming AUPRO against anomalib's, on the same maps, after both gave the same value.

In the environment of experiments/against_anomalib.py:

    anomalib-env/bin/python experiments/region_overlap.py --maps 1000 --size 640 232 --rounds 3

Each side runs in a process of its own, in turn. A map comes as a model would give it, one after another, is handed to
the metric and forgotten; only the metric's own calls are timed. Memory is what they add to the process at its peak
(Linux's VmHWM over VmRSS before the first map), so what a metric keeps counts and what the maps' maker needs does not.
Ours computes AUPRO at three limits, P-AUROC, AP-loc and P-F1-max with their error bounds in the same time.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage


def maps(count: int, size: tuple[int, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Smooth noise in logits, and one to three round defects in each fourth map, most of them seen by the map."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[: size[0], : size[1]]
    for index in range(count):
        coarse = generator.normal(-2, 1.5, (size[0] // 8 + 1, size[1] // 8 + 1))
        map_logit = ndimage.zoom(coarse, 8, order=1)[: size[0], : size[1]].astype(np.float32)
        map_logit += generator.normal(0, 0.01, size).astype(np.float32)
        mask = np.zeros(size, dtype=bool)
        for _ in range(generator.integers(1, 4) if index % 4 == 0 else 0):
            y, x, radius = generator.integers(0, size[0]), generator.integers(0, size[1]), generator.integers(3, 40)
            mask |= (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        map_logit[mask] += np.float32(generator.normal(3, 2))
        yield map_logit, mask


def memory_mib(name: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(rf"{name}:\s+(\d+)", status)[1]) / 1024


def ours(count: int, size: tuple[int, int]) -> dict:
    from supersimplenet.metrics.pixels import PixelTally

    return measured(PixelTally(), lambda tally, scores, mask: tally.add(scores, mask), finish_ours, count, size)


def finish_ours(tally):
    metrics = tally.metrics()
    return metrics["AUPRO"].value, metrics["AUPRO"].error_bound


def theirs(count: int, size: tuple[int, int]) -> dict:
    import torch
    from anomalib.metrics.aupro import _AUPRO

    def add(metric, scores, mask):
        metric.update(torch.from_numpy(scores)[None], torch.from_numpy(mask)[None].int())

    return measured(_AUPRO(), add, lambda metric: (float(metric.compute()), None), count, size)


def measured(metric, add, finish, count: int, size: tuple[int, int]) -> dict:
    warm = type(metric)()
    for scores, mask in maps(4, (64, 64)):
        add(warm, scores, mask)
    finish(warm)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak so far is forgotten
    before = memory_mib("VmRSS")
    seconds = 0.0
    for scores, mask in maps(count, size):
        begin = time.perf_counter()
        add(metric, scores, mask)
        seconds += time.perf_counter() - begin
    begin = time.perf_counter()
    value, bound = finish(metric)
    seconds += time.perf_counter() - begin
    return {"value": value, "bound": bound, "seconds": seconds, "memory_mib": memory_mib("VmHWM") - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=int, default=1000)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 232))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=("ours", "theirs"))
    options = parser.parse_args()
    if options.side:
        print(json.dumps({"ours": ours, "theirs": theirs}[options.side](options.maps, tuple(options.size))))
        return
    results = {"ours": [], "theirs": []}
    for _ in range(options.rounds):
        for side, found in results.items():
            command = [sys.executable, __file__, "--side", side, "--maps", str(options.maps)]
            command += ["--size", *map(str, options.size)]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(run.stdout.splitlines()[-1]))
            print(side, found[-1], flush=True)
    value, other = results["ours"][0], results["theirs"][0]
    difference = abs(value["value"] - other["value"])
    print(f"\n{options.maps} maps of {options.size[0]}x{options.size[1]}\n")
    print("| | ours | anomalib's | ratio |\n| --- | --- | --- | --- |")
    for name, unit in (("seconds", "s"), ("memory_mib", "MiB")):
        mine, its = ([run[name] for run in results[side]] for side in ("ours", "theirs"))
        ratio = statistics.median(b / a for a, b in zip(mine, its, strict=True))
        print(f"| {name} | {statistics.median(mine):.1f} {unit} | {statistics.median(its):.1f} {unit} | {ratio:.1f} |")
    print(f"| AUPRO | {value['value']:.6f} ± {value['bound']:.1e} | {other['value']:.6f} | {difference:.1e} apart |")
    # Theirs adds up 148 million shares in float32, so it is good to some 1e-5 itself.
    assert difference <= value["bound"] + 1e-5, "both should compute the same"


if __name__ == "__main__":
    main()
