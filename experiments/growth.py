"""How time and memory grow with image size, batch, threads and number of images: compact, torch, float32, on a CPU.

    python experiments/growth.py --output growth.jsonl --plot growth.png

Each point is measured in a process of its own, so that its peak memory (Linux's VmHWM) is its own, and appended to
--output: the same command continues after an interruption, and only draws when all points are there. Random pixels and
untrained heads: they do not change the time. Peaks stand beside what the process held just before its first call.

- inference: the engine's ``run`` on pixels in memory; training step: forward, loss and backward of the heads on given
  features, as `supersimplenet benchmark speed` times it. Medians after a warm-up call, per image.
- predict: a folder of small PNG files to a table, as the command does after loading the model (listing included).
- training cache: `gather_features` with its default limits; what the cache itself takes stands beside the peak.
  Both after a warm-up on a few of the files. The files are hard links to 20 distinct ones, in the page cache.

About five minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

SIZES_PX, TRAINED_SIZES_PX = (128, 256, 512, 1024, 2048), (128, 256, 512)
BATCHES, IMAGES = (1, 2, 4, 8, 16, 32, 64), (100, 1000, 10_000)
FILE_PX, FILES_SIZE_PX, DISTINCT_FILES = 96, 64, 20
MIN_ROUNDS, MAX_ROUNDS = 3, 50

Point = dict[str, Any]


def points(options: argparse.Namespace) -> list[Point]:
    """Every point once; a series of the figure picks its own."""
    most = max(options.threads)

    def computed(what: str, size: int, batch: int, threads: int) -> Point:
        return {"what": what, "size_px": size, "batch": batch, "threads": threads}

    found = [computed("inference", size, 1, most) for size in SIZES_PX]
    found += [computed("training step", size, 2, most) for size in TRAINED_SIZES_PX]
    found += [computed("inference", 256, batch, most) for batch in BATCHES]
    found += [computed("training step", 128, batch, most) for batch in BATCHES]
    found += [computed("inference", 256, 1, threads) for threads in options.threads]
    found += [computed("training step", 256, 8, threads) for threads in options.threads]
    for what in ("predict", "training cache"):
        found += [{"what": what, "images": n, "size_px": FILES_SIZE_PX, "threads": most} for n in IMAGES]
    unique = list({json.dumps(point): point for point in found}.values())
    limits = {"size_px": options.max_size, "batch": options.max_batch, "images": options.max_images}
    return [p for p in unique if all(p.get(name, 0) <= limit for name, limit in limits.items())]


def peak_mib() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def resting_mib() -> float:
    """Resident memory now; the peak begins anew from it (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


def measure(point: Point, seconds: float) -> dict[str, float]:
    """What a child process does."""
    import torch

    from supersimplenet.utils.system import keep_freed_blocks

    keep_freed_blocks()  # as every command does
    torch.set_num_threads(point["threads"])
    if "images" not in point:
        return measure_calls(point, seconds)
    with tempfile.TemporaryDirectory() as folder:
        return measure_files(point, Path(folder))


def measure_calls(point: Point, seconds: float) -> dict[str, float]:
    import numpy as np
    import torch

    from supersimplenet.benchmark.config import SpeedConfig
    from supersimplenet.benchmark.speed import _network, _training_steps
    from supersimplenet.inference.detector import Detector

    config = SpeedConfig(image_size=(point["size_px"],) * 2, batch_size=point["batch"])
    network = _network(config)
    pixels = np.random.default_rng(0).integers(0, 256, (point["batch"], *config.image_size, 3), dtype=np.uint8)
    if point["what"] == "inference":
        detector = Detector(network, device="cpu")
        call: Callable[[], object] = partial(detector.engine.run, pixels)
    else:
        call = _training_steps(network, pixels, config, torch.device("cpu"))["training step"]
    resting = resting_mib()
    call()
    times: list[float] = []
    while len(times) < MIN_ROUNDS or (sum(times) < seconds and len(times) < MAX_ROUNDS):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    low, median, high = (1000 * np.quantile(times, (0.1, 0.5, 0.9)) / point["batch"]).tolist()
    spread = {"ms_per_image": median, "p10_ms": low, "p90_ms": high, "rounds": len(times)}
    return {**spread, "resting_mib": resting, "peak_mib": peak_mib()}


def measure_files(point: Point, folder: Path) -> dict[str, float]:
    import numpy as np

    from supersimplenet.benchmark.config import SpeedConfig
    from supersimplenet.benchmark.speed import _network, _write_files
    from supersimplenet.inference.detector import Detector
    from supersimplenet.inference.model_folder import save_model
    from supersimplenet.prediction.inputs import find_images
    from supersimplenet.prediction.job import predict_to_folder
    from supersimplenet.preprocessing.preprocessor import Preprocessor
    from supersimplenet.training.config import CacheConfig
    from supersimplenet.training.features import gather_features

    made, linked, model = (folder / name for name in ("made", "linked", "model"))
    made.mkdir()
    linked.mkdir()
    config = SpeedConfig(
        file_size=(FILE_PX, FILE_PX), files=DISTINCT_FILES, image_size=(point["size_px"],) * 2, device="cpu"
    )
    distinct = _write_files(made, config, np.random.default_rng(0))
    for index in range(point["images"]):
        os.link(distinct[index % len(distinct)], linked / f"{index:06d}.png")
    network = _network(config)
    if point["what"] == "predict":
        save_model(model, network, {})
        detector = Detector.load(model, device="cpu")
    resting = resting_mib()
    extra: dict[str, float] = {}

    def predict(files: Path, output: Path) -> None:
        begin = time.perf_counter()
        paths = find_images([str(files)], leave_out=output)
        extra["listing_seconds"] = time.perf_counter() - begin
        predict_to_folder(detector, paths, output, model_folder=model)

    def cache(files: Path, output: Path) -> None:
        output.mkdir()
        kept, _, _ = gather_features(
            network.backbone,
            sorted(files.iterdir()),
            preprocessor=Preprocessor.stretch(config.image_size),
            cache=CacheConfig(),
            folder=output,
        )
        extra["cache_mib"] = kept.rows.nbytes / (1 << 20)

    run = predict if point["what"] == "predict" else cache
    run(made, folder / "warm-up")
    begin = time.perf_counter()
    run(linked, folder / "output")
    seconds = time.perf_counter() - begin
    memory = {"resting_mib": resting, "peak_mib": peak_mib()}
    return {"seconds_per_1000": 1000 * seconds / point["images"], **extra, **memory}


def read(output: Path) -> list[dict[str, Any]]:
    """Whole lines; one torn by an interruption is measured again."""
    lines = output.read_text().splitlines() if output.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def run_all(options: argparse.Namespace) -> None:
    wanted = points(options)
    done = [row["point"] for row in read(options.output)]
    if options.output.is_file():
        options.output.write_text("".join(json.dumps(row) + "\n" for row in read(options.output)))
    for number, point in enumerate(wanted, 1):
        if point in done:
            continue
        command = [sys.executable, __file__, "--point", json.dumps(point), "--seconds", str(options.seconds)]
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row = {"point": point, **json.loads(child.stdout.splitlines()[-1])}
        with options.output.open("a") as lines:
            lines.write(json.dumps(row) + "\n")
        print(f"{number}/{len(wanted)}  {json.dumps(row)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="JSON lines, continued where they end")
    parser.add_argument("--plot", type=Path, help="also draw the figure (PNG)")
    parser.add_argument("--seconds", type=float, default=2.0, help="timed of each point, at least three calls")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, nargs="+", default=[1 << n for n in range(cores.bit_length())])
    parser.add_argument("--max-size", type=int, default=max(SIZES_PX), help="leave out larger images, in pixels")
    parser.add_argument("--max-batch", type=int, default=max(BATCHES))
    parser.add_argument("--max-images", type=int, default=max(IMAGES))
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point is not None:
        print(json.dumps(measure(options.point, options.seconds)))
        return
    if options.output is None:
        parser.error("--output: not given; name a file of JSON lines")
    run_all(options)
    if options.plot is not None:
        from growth_figure import draw

        draw(read(options.output), options.plot, threads=max(options.threads))


if __name__ == "__main__":
    main()
