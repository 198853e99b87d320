"""Measure the speed of this machine: each stage from the file to the verdict alone, and many images in parallel."""

from __future__ import annotations

import copy
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from supersimplenet.benchmark import published_order
from supersimplenet.benchmark.config import SpeedConfig
from supersimplenet.inference.detector import Detector
from supersimplenet.inference.model_folder import load_model
from supersimplenet.model.anomalies import draw_anomalies
from supersimplenet.model.backbone import build_backbone
from supersimplenet.model.config import ModelConfig
from supersimplenet.model.losses import supersimplenet_loss
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.preprocessing.images import prepare_pixels, read_image
from supersimplenet.utils.serialization import to_plain
from supersimplenet.utils.system import cpu_name, keep_freed_blocks, peak_memory_mib

COLUMNS = ("median_ms", "p10_ms", "p90_ms")
_NOISE_STD, _PERLIN_THRESHOLD = 0.1, 0.2  # for the timed training step


def benchmark_speed(config: SpeedConfig) -> dict[str, Any]:
    """Time every stage of a prediction, from the file to the result; see `SpeedConfig`.

    Returns:
        ``config`` and ``machine``; ``stages``: milliseconds per image (median, 10th and 90th percentile) of each stage
        alone; ``calls``: the same for whole calls, timed in turn with the calls that they are compared with; ``line``:
        images per second for many images in several threads, from memory and from files; ``peak_memory_mib`` of the
        process.

    Raises:
        ConfigError: the engine or the device is not available.
    """
    keep_freed_blocks()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    network = _network(config)
    detector = Detector(network, device=config.device, engine=config.engine, precision=config.precision)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (config.batch_size, *network.config.size_px, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        files = _write_files(Path(folder), config, generator)
        full = read_image(files[0])
        stages: dict[str, Callable[[], object]] = {
            "decode": lambda: read_image(files[0]),
            "resize": lambda: prepare_pixels(full, size_px=network.config.size_px),
        }
        network_stages = detector.engine.stages(pixels)
        per_image = dict.fromkeys(stages, 1) | dict.fromkeys(network_stages, config.batch_size)
        calls: dict[str, Callable[[], object]] = {"whole network": lambda: detector.engine.run(pixels)}
        if config.compare == "plain":
            calls["plain network"] = published_inference(network, pixels, detector.device)
        report: dict[str, Any] = {
            "config": to_plain(replace(config, image_size=network.config.size_px)),
            "machine": _machine(detector),
            "stages": _summaries(_timed({**stages, **network_stages}, config), per_image),
            "calls": _compare(calls, config),
            "line": {
                "from_memory": _in_memory(detector, pixels, config.files),
                "from_files": _from_files(detector, files),
            },
        }
    if config.training:
        report["training"] = _compare(_training_steps(network, pixels, config, detector.device), config)
    report["peak_memory_mib"] = peak_memory_mib()
    if detector.device.type == "cuda":
        report["peak_gpu_memory_mib"] = torch.cuda.max_memory_allocated() / (1 << 20)
    return report


def _network(config: SpeedConfig) -> SuperSimpleNet:
    if config.model is not None:
        return load_model(config.model)[0]
    settings = ModelConfig(backbone=config.backbone, image_size=config.image_size)
    network = SuperSimpleNet(settings, backbone=build_backbone(settings, with_weights=config.backbone == "compact"))
    return network.eval()


def _write_files(folder: Path, config: SpeedConfig, generator: np.random.Generator) -> list[Path]:
    """Write PNG files of a smooth surface with grain, which compress about as well as photographs; return the paths."""
    height, width = config.file_size
    small = generator.normal(128, 30, (height // 32 + 2, width // 32 + 2, 3))
    smooth = np.asarray(Image.fromarray(small.clip(0, 255).astype(np.uint8)).resize((width, height)))
    paths = []
    for index in range(config.files):
        grain = generator.normal(0, 4, (height, width, 1))
        paths.append(folder / f"{index:04d}.png")
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(paths[-1], compress_level=3)
    return paths


def measure(runs: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int) -> dict[str, list[float]]:
    """Return the seconds of each run, timed in turn (A B A B ...), so that a drift of the machine's speed favours none.

    Args:
        runs: functions to time, by name.
        rounds: number of timed calls of each function.
        warmup: number of calls before them that are not timed.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_number in range(warmup + rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                torch.cuda.synchronize()
            if round_number >= warmup:
                times[name].append(time.perf_counter() - begin)
    return times


def _timed(runs: Mapping[str, Callable[[], object]], config: SpeedConfig) -> dict[str, list[float]]:
    return measure(runs, rounds=config.rounds, warmup=config.warmup)


def _summaries(times: Mapping[str, list[float]], images: Mapping[str, int]) -> dict[str, dict[str, float]]:
    return {
        name: dict(zip(COLUMNS, (1000 * np.quantile(t, (0.5, 0.1, 0.9)) / images[name]).tolist(), strict=True))
        for name, t in times.items()
    }


def _compare(runs: Mapping[str, Callable[[], object]], config: SpeedConfig) -> dict[str, dict[str, float]]:
    """Compare each run with the first run, by the median of their ratios in each round."""
    times = _timed(runs, config)
    rows = _summaries(times, dict.fromkeys(times, config.batch_size))
    first, *others = times
    for name in others:
        ratios = [slow / fast for slow, fast in zip(times[name], times[first], strict=True)]
        rows[name]["times_the_first"] = statistics.median(ratios)
    return rows


def _in_memory(detector: Detector, pixels: NDArray[np.uint8], images: int) -> float:
    """Return the images per second when several threads call the engine in parallel."""
    calls = -(-images // len(pixels))
    with detector.engine.worker_threads() as threads, ThreadPoolExecutor(threads) as pool:
        list(pool.map(detector.engine.run, [pixels] * threads))  # warm-up of each thread
        begin = time.perf_counter()
        list(pool.map(detector.engine.run, [pixels] * calls))
        return calls * len(pixels) / (time.perf_counter() - begin)


def _from_files(detector: Detector, files: list[Path]) -> float:
    list(detector.predict_files(files[: len(files) // 4]))
    begin = time.perf_counter()
    count = sum(1 for _ in detector.predict_files(files))
    return count / (time.perf_counter() - begin)


def _training_steps(
    network: SuperSimpleNet, pixels: NDArray[np.uint8], config: SpeedConfig, device: torch.device
) -> dict[str, Callable[[], object]]:
    """Return training steps to time: new anomalies, forward pass, loss and backward pass of the heads, no backbone."""
    network.train()
    features = [f.to(device) for f in network.backbone.cpu()(torch.from_numpy(pixels))]
    heads = network.trained_heads.to(device)
    dtype: torch.dtype = getattr(torch, config.precision)
    size = (2 * features[0].shape[1], 2 * features[0].shape[2])
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        anomalies = draw_anomalies(
            torch.zeros(len(pixels), *size, dtype=torch.bool, device=device),
            channels=sum(heads.channels),
            perlin_threshold=_PERLIN_THRESHOLD,
            noise_std=_NOISE_STD,
            generator=generator,
            dtype=dtype,
        )
        output = heads([f.to(dtype) for f in features], anomalies, stop_gradient=True)
        supersimplenet_loss(output, anomalies.mask, anomalies.mask.flatten(1).any(1)).backward()  # type: ignore[no-untyped-call]
        heads.zero_grad()

    steps: dict[str, Callable[[], object]] = {"training step": step}
    if config.compare == "plain":
        reference = published_heads(network).to(device)
        maps = [f.permute(0, 3, 1, 2).contiguous() for f in features]

        def plain_step() -> None:
            anomalies = draw_anomalies(
                torch.zeros(len(pixels), *size, dtype=torch.bool, device=device),
                channels=1,
                perlin_threshold=_PERLIN_THRESHOLD,
                noise_std=_NOISE_STD,
                generator=generator,
            )
            mask = anomalies.mask
            noise = torch.randn(len(mask), sum(heads.channels), *size, device=device) * _NOISE_STD
            output = reference.train()(maps, noise, mask, stop_gradient=True)
            map_logit, score_logit = output
            loss = published_order.plain_loss(map_logit, score_logit, mask, mask.flatten(1).any(1))
            torch.autograd.backward(loss)
            reference.zero_grad()

        steps["plain training step"] = plain_step
    return steps


def published_inference(
    network: SuperSimpleNet, pixels: NDArray[np.uint8], device: torch.device
) -> Callable[[], tuple[Tensor, Tensor]]:
    """Return a function that computes anomaly maps and scores of the images in the published order, on a device."""
    reference = published_heads(network).eval().to(device)
    backbone = copy.deepcopy(network.backbone).to(device)

    @torch.no_grad()
    def run() -> tuple[Tensor, Tensor]:
        maps = [f.permute(0, 3, 1, 2) for f in backbone(torch.from_numpy(pixels).to(device))]
        map_logit, score_logit = reference(maps)
        return published_order.anomaly_map(map_logit, network.config.size_px).cpu(), score_logit.cpu()

    return run


def published_heads(network: SuperSimpleNet) -> published_order.PlainHeads:
    """Return the heads in the published order of operations, with the network's weights."""
    config = network.config
    reference = published_order.PlainHeads(
        network.trained_heads.channels, variant=config.variant, align_corners=config.align_corners
    )
    shapes = {name: value.shape for name, value in reference.state_dict().items()}
    own = {published_order.plain_name(name): value.cpu() for name, value in network.trained_heads.state_dict().items()}
    reference.load_state_dict({name: value.reshape(shapes[name]) for name, value in own.items()})
    return reference


def _machine(detector: Detector) -> dict[str, Any]:
    return {
        "processor": cpu_name(),
        "device": torch.cuda.get_device_name(detector.device) if detector.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "supersimplenet": version("supersimplenet"),
    }
