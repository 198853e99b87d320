"""From PNG files on disk to a model and to a table, as whole processes, against the time of the arithmetic alone.

    python experiments/pipeline.py --output pipeline.json

Runs the command line's own `train` (compact, 256x256, batch 16, seed 0) and then `predict` with that model, on files of
1024x1024 made here (hard links to a few distinct ones, in the page cache). Of each process: wall and CPU seconds,
cores in use (their ratio), peak memory (Linux's VmHWM), and how often an image file was read: a wrapper of a few lines
counts `read_image`. The run fails where an image was read more than once.

- Start-up is the wall of the same command on one image (training: of one step on one image), run before and after; the
  mean. It holds the imports, which are most of a short run. "rest" is the run less start-up, and so less one image.
- The floor is the arithmetic alone: per image, decode + resize + network (training: backbone), each the median of
  `benchmark speed --threads 1`, over the number of cores; for training also each image of each epoch times the measured
  training step with all threads, features given. The stages are measured with the other cores idle: where cores share
  caches, or are two threads of one core, the floor is lower than can be reached. It holds no optimiser, checkpoint,
  log or table. The backbone is timed one image a call, as predict works; training's calls hold eight.
- "line": milliseconds an image of files to predictions in one warm process, as `benchmark speed` measures it.

About four minutes on two cores; the published goal names --epochs 50 and --predicted 1000 (some six minutes more).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH = 16
COUNTING = """
import json, re, sys
from pathlib import Path
from supersimplenet.preprocessing import images

decode, names = images.decode, []

def counted(path, **options):
    names.append(path)  # an append is whole in any thread
    return decode(path, **options)

images.decode = counted
from supersimplenet.cli.main import main

status = main(sys.argv[2:])
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
report = {"reads": len(names), "files_read": len(set(map(str, names))), "peak_mib": int(peak) / 1024}
Path(sys.argv[1]).write_text(json.dumps(report))
sys.exit(status)
"""

Report = dict[str, Any]


def run_process(command: list[str], log: Path) -> Report:
    """Wall and CPU time of one process, the end of whose output is shown where it fails."""
    with log.open("w") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)[-300:]}: status {process.returncode}\n{log.read_text()[-3000:]}")
    cpu = usage.ru_utime + usage.ru_stime
    return {"wall_s": wall, "cpu_s": cpu, "cores_used": cpu / wall}


def run_counted(arguments: list[str], folder: Path) -> Report:
    found = folder / "counted.json"
    report = run_process([sys.executable, "-c", COUNTING, str(found), *arguments], folder / "log.txt")
    return report | json.loads(found.read_text())


def speed(options: argparse.Namespace, folder: Path, *more: str) -> Report:
    """A report of `benchmark speed` at the sizes of this run."""
    found = folder / "speed.json"
    sizes = ["--image_size", str([options.size] * 2), "--file_size", str([options.file_size] * 2)]
    arguments = ["benchmark", "speed", *sizes, "--device", "cpu", "--output", str(found), *more]
    run_process([sys.executable, "-m", "supersimplenet", *arguments], folder / "log.txt")
    report: Report = json.loads(found.read_text())
    return report


def make_files(folder: Path, options: argparse.Namespace) -> None:
    """Folders ``train``, ``predict`` and ``one`` of links to distinct files."""
    import numpy as np

    from supersimplenet.benchmark.config import SpeedConfig
    from supersimplenet.benchmark.speed import _write_files

    made = folder / "made"
    made.mkdir()
    count = min(options.distinct, max(options.trained, options.predicted))
    config = SpeedConfig(file_size=(options.file_size, options.file_size), files=count)
    distinct = _write_files(made, config, np.random.default_rng(0))
    for name, images in (("train", options.trained), ("predict", options.predicted), ("one", 1)):
        (folder / name).mkdir()
        for index in range(images):
            os.link(distinct[index % count], folder / name / f"{index:06d}.png")


def train_arguments(data: Path, output: Path, epochs: int, options: argparse.Namespace) -> list[str]:
    return [
        *("train", "--data", "Folder", "--data.good", str(data), "--data.test_fraction", "0"),
        *("--model.backbone", "compact", "--model.image_size", str([options.size] * 2)),
        *("--recipe.batch_size", str(BATCH), "--trainer.max_epochs", str(epochs), "--trainer.accelerator", "cpu"),
        *("--trainer.holdout_fraction", "0"),
        *("--seed", "0", "--output", str(output)),
    ]


def predict_arguments(model: Path, data: Path, output: Path) -> list[str]:
    return ["predict", "--model", str(model), str(data), "--output", str(output), "--device", "cpu"]


def with_start_up(run: Report, starts: list[Report], floor_s: float, images: int) -> Report:
    """The run beside its floor; raises where an image was not read just once."""
    wall, cpu = (run[key] - sum(start[key] for start in starts) / len(starts) for key in ("wall_s", "cpu_s"))
    report = {
        **run,
        "images": images,
        "reads_per_image": run["reads"] / images,
        "start_up_s": [start["wall_s"] for start in starts],
        "rest_wall_s": wall,
        "rest_cpu_s": cpu,
        "rest_cores_used": cpu / wall,
        "floor_s": floor_s,
        "rest_over_floor": wall / floor_s,
    }
    if not run["reads"] == run["files_read"] == images:
        raise SystemExit(f"{images} images, {run['reads']} reads of {run['files_read']} files: {json.dumps(report)}")
    return report


def measure(options: argparse.Namespace, folder: Path) -> Report:
    cores = len(os.sched_getaffinity(0))
    print("measuring the stages alone", flush=True)
    alone = speed(options, folder, "--threads", "1", "--files", "2")
    together = speed(
        options, folder, "--training", "true", "--batch_size", str(BATCH), "--rounds", "5", "--warmup", "1"
    )
    stages = {name: row["median_ms"] for name, row in alone["stages"].items()}
    step_ms = together["training"]["training step"]["median_ms"]  # an image
    read_ms = stages["decode"] + stages["resize"]
    print("making files", flush=True)
    make_files(folder, options)

    def train(name: str, epochs: int, output: str) -> Report:
        return run_counted(train_arguments(folder / name, folder / output, epochs, options), folder)

    def predict(name: str, output: str) -> Report:
        return run_counted(predict_arguments(folder / "model", folder / name, folder / output), folder)

    print("training", flush=True)
    starts, run = [train("one", 1, "first")], train("train", options.epochs, "model")
    starts.append(train("one", 1, "last"))
    gather_s = (options.trained - 1) * (read_ms + stages["backbone"]) / cores / 1000
    steps_s = (options.epochs * options.trained - 1) * step_ms / 1000
    trained = with_start_up(run, starts, gather_s + steps_s, options.trained)
    print("predicting", flush=True)
    starts, run = [predict("one", "first results")], predict("predict", "results")
    starts.append(predict("one", "last results"))
    network_ms = sum(stages.values()) - read_ms
    floor_s = (options.predicted - 1) * (read_ms + network_ms) / cores / 1000
    predicted = with_start_up(run, starts, floor_s, options.predicted)
    return {
        "machine": {**alone["machine"], "threads": together["machine"]["threads"], "cores": cores},
        "system": platform.platform(),
        "options": {key: value for key, value in vars(options).items() if key != "output"} | {"batch": BATCH},
        "stages_one_thread_ms": stages,
        "training_step_all_threads_ms_per_image": step_ms,
        "line_from_files_ms": 1000 / together["line"]["from_files"],
        "train": {**trained, "floor_parts_s": {"decode, resize, backbone": gather_s, "steps": steps_s}},
        "predict": predicted,
    }


def print_table(report: Report) -> None:
    stages = ", ".join(f"{name} {value:.1f}" for name, value in report["stages_one_thread_ms"].items())
    print(
        f"one thread, ms an image: {stages}\nall threads, ms an image: training step "
        f"{report['training_step_all_threads_ms_per_image']:.1f}, line {report['line_from_files_ms']:.1f}\n"
    )
    heads = ("", "images", "wall s", "CPU s", "cores", "peak MiB", "reads/image", "start s", "rest s", "cores", "floor")
    print("  ".join(f"{head:>11}" for head in (*heads, "rest/floor")))
    for name in ("train", "predict"):
        row = report[name]
        start = sum(row["start_up_s"]) / len(row["start_up_s"])
        cells = [row["wall_s"], row["cpu_s"], row["cores_used"], row["peak_mib"], row["reads_per_image"], start]
        cells += [row["rest_wall_s"], row["rest_cores_used"], row["floor_s"], row["rest_over_floor"]]
        print("  ".join([f"{name:>11}", f"{row['images']:>11}", *(f"{cell:>11.2f}" for cell in cells)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trained", type=int, default=200, help="images to train on")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--predicted", type=int, default=400, help="images to predict")
    parser.add_argument("--distinct", type=int, default=60, help="distinct files among them")
    parser.add_argument("--size", type=int, default=256, help="height and width that the network sees")
    parser.add_argument("--file-size", type=int, default=1024, help="height and width of the files")
    parser.add_argument("--output", type=Path, help="also write the report as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measure(options, Path(folder))
    print_table(report)
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
