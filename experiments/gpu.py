"""Check and time everything that a GPU does, in one call of at most six minutes: run it wherever a GPU is at hand.

    python experiments/gpu.py --output gpu                  # WideResNet-50-2 and compact, random weights, no network
    python experiments/gpu.py --output gpu --small          # the same sections, tiny, to try the script on a CPU

Equality comes first: the device against the CPU, and the fast order of operations against the published one. Then a
whole training, start-up included; a training step beside the published order; single images and batches, in float32
and bfloat16. Each section runs in a process of its own with a share of the time, and its result is saved when it ends,
so that a section that hangs or fails costs the others nothing. `report.json` in the output folder holds them all.

The exit status is 1 where a section failed, was stopped, or found results that differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Report = dict[str, Any]
BUDGET_S = 360.0


@dataclass(frozen=True)
class Case:
    """What the sections run on.

    Attributes:
        backbones: with random weights; the last is the larger.
        size: height and width in pixels.
        batch: images in a large call and in a training step.
        rounds: timed repetitions.
        images: trained on in the whole training.
        epochs: of it.
    """

    backbones: tuple[str, ...] = ("compact", "wide_resnet50_2")
    size: int = 256
    batch: int = 32
    rounds: int = 20
    images: int = 220
    epochs: int = 300


SMALL = Case(backbones=("compact",), size=64, batch=2, rounds=2, images=12, epochs=2)


def machine(case: Case) -> Report:
    """Return what the machine is."""
    import torch

    from supersimplenet import __version__
    from supersimplenet.utils.system import available_cores, cpu_name

    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else "none: on the CPU",
        "memory_gib": torch.cuda.mem_get_info()[1] / (1 << 30) if cuda else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "supersimplenet": __version__,
        "cpu": cpu_name(),
        "cores": available_cores(),
        "case": vars(case),
    }


def equality(case: Case) -> Report:
    """Return the largest differences of scores and maps: device and CPU, bfloat16 and float32, both orders.

    Random images and weights. Anomaly maps and scores are compared as logits, divided by their standard deviation over
    the images on the CPU.
    """
    import numpy as np
    import torch

    from supersimplenet.benchmark.speed import published_inference
    from supersimplenet.inference.detector import Detector
    from supersimplenet.model.backbone import build_backbone
    from supersimplenet.model.config import ModelConfig
    from supersimplenet.model.network import SuperSimpleNet

    device = "cuda" if torch.cuda.is_available() else "cpu"
    pixels = np.random.default_rng(0).integers(0, 256, (4, case.size, case.size, 3), dtype=np.uint8)
    # float32: sums of some thousand products in another order; bfloat16 keeps 8 bits, and only a wrong result, not a
    # rounded one, moves a value by half the spread of all.
    limits = {f"{device} float32": 1e-3, f"{device} bfloat16": 0.5, "published order": 1e-3}
    report: Report = {"limits": limits, "equal": True}
    for name in case.backbones:
        config = ModelConfig(backbone=name, image_size=(case.size, case.size))
        network = SuperSimpleNet(config, backbone=build_backbone(config, with_weights=name == "compact")).eval()
        outputs = {}
        for key, where, precision in (
            ("cpu", "cpu", "float32"),
            (f"{device} float32", device, "float32"),
            (f"{device} bfloat16", device, "bfloat16"),
        ):
            maps, scores, *_ = Detector(network, device=where, precision=precision).engine.run(pixels)
            outputs[key] = np.asarray(maps, np.float64), np.asarray(scores, np.float64)
        published = published_inference(network.cpu(), pixels, torch.device("cpu"))()
        outputs["published order"] = tuple(values.double().numpy() for values in published)
        rows = {}
        for key, (maps, scores) in outputs.items():
            if key != "cpu":
                rows[key] = {
                    "map": float(np.abs(maps - outputs["cpu"][0]).max() / outputs["cpu"][0].std()),
                    "score": float(np.abs(scores - outputs["cpu"][1]).max() / max(outputs["cpu"][0].std(), 1e-12)),
                }
                report["equal"] &= max(rows[key].values()) <= limits[key]
        report[name] = rows
    return report


def inference(case: Case) -> Report:
    """Return the times of an image alone and of a batch, in each precision, beside the published order."""
    return {
        f"{backbone} {precision} batch {batch}": _speed(case, backbone, precision=precision, batch_size=batch)
        for backbone in case.backbones
        for precision in ("float32", "bfloat16")
        for batch in (1, case.batch)
    }


def training_step(case: Case) -> Report:
    """Return the time of a training step of the heads beside the published order, in each precision."""
    return {
        f"{backbone} {precision}": _speed(case, backbone, precision=precision, batch_size=case.batch, training=True)
        for backbone in case.backbones
        for precision in ("float32", "bfloat16")
    }


def whole_training(case: Case) -> Report:
    """Return the seconds of `supersimplenet train` as a process, and its lines; random weights are given as a file."""
    from safetensors.torch import save_file

    from supersimplenet.model.backbone import build_backbone
    from supersimplenet.model.config import ModelConfig

    name = case.backbones[-1]
    report: Report = {"backbone": name, "images": case.images, "epochs": case.epochs}
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, "-m", "supersimplenet"]
        make = ["data", "synthesize", "--output", f"{folder}/data", "--surfaces", "[cast_grain]", "--test_good", "1"]
        make += ["--size_px", f"[{max(case.size, 64)},{max(case.size, 64)}]", "--train_good", str(case.images)]
        subprocess.run([*program, *make, "--test_per_defect", "1"], check=True, capture_output=True)
        train = ["train", "--data", "Folder", "--data.good", f"{folder}/data/cast_grain/train/good"]
        train += ["--model.backbone", name, "--model.image_size", f"[{case.size},{case.size}]"]
        if name != "compact":
            config = ModelConfig(backbone=name, image_size=(case.size, case.size))
            weights = build_backbone(config, with_weights=False).state_dict()
            save_file({key: value.contiguous() for key, value in weights.items()}, f"{folder}/weights.safetensors")
            train += ["--model.backbone_weights", f"{folder}/weights.safetensors"]
        train += ["--trainer.max_epochs", str(case.epochs), "--output", f"{folder}/model"]
        begin = time.perf_counter()
        done = subprocess.run([*program, *train], capture_output=True, text=True, check=False)
        report["seconds"] = time.perf_counter() - begin
        report["said"] = (done.stdout + done.stderr).splitlines()[-5:]
        if done.returncode:
            raise RuntimeError(" / ".join(report["said"]))
    return report


# In this order, with the share of the time that each may take; what one leaves is there for those after it.
SECTIONS: dict[str, tuple[Callable[[Case], Report], float]] = {
    "machine": (machine, 0.1),
    "equality": (equality, 0.2),
    "whole_training": (whole_training, 0.5),
    "training_step": (training_step, 0.3),
    "inference": (inference, 1.0),
}


def _speed(case: Case, backbone: str, **options: Any) -> Report:
    import torch

    from supersimplenet.benchmark.config import SpeedConfig
    from supersimplenet.benchmark.speed import benchmark_speed

    size = (case.size, case.size)
    config = SpeedConfig(backbone=backbone, image_size=size, file_size=size, files=2 * case.batch, **options)
    report = benchmark_speed(
        SpeedConfig(**{**vars(config), "rounds": case.rounds, "compare": "plain", "warmup": min(case.rounds, 5)})
    )
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    kept = ("calls", "training", "line", "peak_gpu_memory_mib")
    return {key: report[key] for key in kept if key in report}


def run_section(name: str, case: Case, file: Path) -> None:
    """Run one section in this process and save its result."""
    begin = time.perf_counter()
    try:
        result = {"status": "done", **SECTIONS[name][0](case)}
    except Exception as error:  # whatever it is, the other sections go on
        result = {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    file.write_text(json.dumps({**result, "section_s": time.perf_counter() - begin}, indent=1))


def main() -> int:
    """Run the sections one after the other, print and save what they found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the report")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds in all")
    parser.add_argument("--small", action="store_true", help="tiny networks and few images, to try the script")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="some sections alone")
    parser.add_argument("--section", choices=SECTIONS, help=argparse.SUPPRESS)  # of a process that this one starts
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.section:
        run_section(options.section, SMALL if options.small else Case(), options.output / f"{options.section}.json")
        return 0
    source = str(Path(__file__).parents[1] / "src")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    end = time.monotonic() + options.budget
    report: Report = {}
    for name in options.only:
        file = options.output / f"{name}.json"
        file.unlink(missing_ok=True)
        command = [sys.executable, __file__, "--output", str(options.output), "--section", name]
        limit = min(SECTIONS[name][1] * options.budget, end - time.monotonic())
        try:
            if limit <= 0:
                report[name] = {"status": "no time was left"}
                continue
            subprocess.run(
                [*command, *(["--small"] if options.small else [])], env=environment, timeout=limit, check=False
            )
            report[name] = (
                json.loads(file.read_text()) if file.is_file() else {"status": "failed", "error": "no result"}
            )
        except subprocess.TimeoutExpired:
            report[name] = {"status": f"stopped after {limit:.0f} s"}
        finally:
            (options.output / "report.json").write_text(json.dumps(report, indent=1))
            print(_shown(name, report[name]), flush=True)
    whole = all(section["status"] == "done" and section.get("equal", True) for section in report.values())
    return 0 if whole else 1


def _shown(name: str, section: Report) -> str:
    """Return a section as lines of text: every number with the path to it."""
    lines = [f"== {name}: {section['status']}"]

    def add(path: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{path} {key}".strip(), inner)
        elif path != "status":
            lines.append(f"  {path}: {value:.4g}" if isinstance(value, float) else f"  {path}: {value}")

    add("", section)
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
