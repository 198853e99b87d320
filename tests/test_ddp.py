"""A training on several processes is the training on one: the same batches, noise, statistics, loss and gradients."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from supersimplenet import SyntheticConfig, synthesize
from supersimplenet.errors import ConfigError
from supersimplenet.training.config import TrainerConfig

# One step on the images of a process, in float64: its loss, gradients and running statistics.
STEP = """
import sys
import torch, torch.distributed as dist
from supersimplenet.model.heads import Heads
from supersimplenet.model.losses import supersimplenet_loss
from supersimplenet.model.ops import identity
from supersimplenet.model.anomalies import draw_anomalies
from supersimplenet.training.distributed import ProcessGroup

rank, world, store, output = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
process_group = ProcessGroup(world_size=world, rank=rank, local_rank=rank)
all_reduce = identity if world == 1 else process_group.all_reduce
generator = torch.Generator().manual_seed(0)
images, size = 5, (16, 12)
features = [
    torch.randn(images, *shape, generator=generator).double() for shape in ((8, 6, 4), (4, 3, 6))
]
defective = torch.rand(images, *size, generator=generator) < 0.1
ignored = torch.rand(images, *size, generator=generator) < 0.2
counted = torch.rand(images, *size, generator=generator) < 0.8
counted[3] = False  # an image whose pixel labels are unknown
weight = torch.rand(images, *size, generator=generator).double()
bad = torch.tensor([False, True, False, True, False])
own = slice(rank, None, world)
results = {}
for variant in ("jims", "icpr"):
    heads = Heads((4, 6), variant=variant, align_corners=True, generator=torch.Generator().manual_seed(1))
    heads = heads.double().train()
    anomalies = draw_anomalies(
        defective[own], channels=10, perlin_threshold=0.2, noise_std=0.5, dtype=torch.float64,
        generator=[torch.Generator().manual_seed(100 + place) for place in range(images)][own],
    )
    output_ = heads([f[own] for f in features], anomalies, ignored=ignored[own], all_reduce=all_reduce)
    loss = supersimplenet_loss(
        output_, anomalies.mask | defective[own].repeat(2, 1, 1), anomalies.mask.flatten(1).any(1) | bad[own].repeat(2),
        counted=counted[own].repeat(2, 1, 1), weight=weight[own].repeat(2, 1, 1), all_reduce=all_reduce,
    )
    loss.backward()
    found = {"loss": loss.detach()} | {name: p.grad for name, p in heads.named_parameters()}
    for values in found.values():  # what DDP does with gradients
        dist.all_reduce(values)
        values /= world
    found |= {name: values.double() for name, values in heads.named_buffers()}
    results[variant] = found
if rank == 0:
    torch.save(results, output)
dist.destroy_process_group()
"""

# Features that one process computes and both map; the other cannot read an image.
GATHER = """
import sys
from pathlib import Path
import torch, torch.distributed as dist
from supersimplenet.preprocessing.preprocessor import Preprocessor
from supersimplenet.model.backbone import build_backbone
from supersimplenet.model.config import ModelConfig
from supersimplenet.training.config import CacheConfig
from supersimplenet.training.features import gather_features, remove_cache_files
from supersimplenet.training.distributed import ProcessGroup

rank, store, folder, output = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
process_group = ProcessGroup(world_size=2, rank=rank, local_rank=rank)
preprocessor = Preprocessor.stretch((64, 64))
if rank == 1:
    preprocessor.prepare = None
backbone = build_backbone(ModelConfig(backbone="compact", image_size=(64, 64)))
paths = sorted(folder.iterdir())
for cache in (CacheConfig(), CacheConfig(memory_gib=100_000 / 2**30, disk_gib=0)):
    source, index, failures = gather_features(
        backbone, paths, flip_counts=[4, 1, 1, 4], preprocessor=preprocessor, cache=cache, folder=output,
        on_error="skip",
        process_group=process_group,
    )
    found = source.features(torch.arange(len(source.flip_index.image)))
    torch.save((source.location, index, [f.reason for f in failures], found), output / f"{rank}-{cache.disk_gib}.pt")
    dist.barrier()
    remove_cache_files(output, process_group)
    dist.barrier()
dist.destroy_process_group()
"""


def run_processes(script: str, count: int, *arguments: object) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", script, str(rank), *map(str, arguments)])
        for rank in range(count)
    ]
    assert [process.wait(120) for process in processes] == [0] * count


@pytest.mark.slow
def test_a_step_of_two_processes_is_that_of_one(tmp_path):
    """Three images and two: loss, gradients and running statistics to rounding in float64."""
    for world in (1, 2):
        run_processes(STEP, world, world, tmp_path / f"store{world}", tmp_path / f"{world}.pt")
    by_world = [torch.load(tmp_path / f"{world}.pt") for world in (1, 2)]
    for variant in ("jims", "icpr"):
        alone, shared = (results[variant] for results in by_world)
        assert alone.keys() == shared.keys()
        assert alone["loss"] > 0.1
        for name, values in alone.items():
            torch.testing.assert_close(shared[name], values, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_features_are_computed_once_and_shared(tmp_path):
    synthesize(tmp_path, SyntheticConfig(surfaces=("cast_grain",), size_px=(64, 64), train_good=4, test_good=1))
    folder = tmp_path / "cast_grain" / "train" / "good"
    (folder / "001.png").write_bytes(b"no image")
    output = tmp_path / "out"
    output.mkdir()
    run_processes(GATHER, 2, tmp_path / "store", folder, output)
    for disk_gib, location in ((32.0, "disk"), (0, "recomputed")):
        first, second = (torch.load(output / f"{rank}-{disk_gib}.pt") for rank in range(2))
        assert first[:2] == second[:2] == (location, [0, 2, 3])
        assert "001.png: not a readable image" in second[2][0]
        assert all(torch.equal(a, b) for a, b in zip(first[3], second[3], strict=True))
        assert len(first[3][0]) == 4 + 1 + 4
    assert not list(output.glob("*.cache*"))


def test_settings_of_devices_are_checked():
    assert TrainerConfig(devices=2, num_nodes=3, strategy="ddp").world_size == 6
    with pytest.raises(ConfigError, match=r"trainer\.devices: 0; it must be at least 1"):
        TrainerConfig(devices=0)
    with pytest.raises(ConfigError, match=r"trainer\.strategy: 'fsdp'; choose auto, ddp"):
        TrainerConfig(strategy="fsdp")


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("surfaces")
    config = SyntheticConfig(
        surfaces=("brushed_metal",), size_px=(64, 64), train_good=10, test_good=2, test_per_defect=1
    )
    synthesize(root, config)
    category = root / "brushed_metal"  # a type of defect, with its masks, becomes one of the training split
    defect = sorted(path for path in (category / "test").iterdir() if path.name != "good")[0]
    defect.rename(category / "train" / defect.name)
    return root


def command(root: Path, output: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "supersimplenet", "train", "--data", "MVTecAD", "--data.root", str(root)),
        *("--data.category", "brushed_metal", "--model.backbone", "compact", "--model.image_size", "[64,64]"),
        *("--recipe.batch_size", "5", "--trainer.accelerator", "cpu", "--output", str(output), *more),
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def losses(folder: Path) -> list[float]:
    with (folder / "logs" / "csv" / "version_0" / "metrics.csv").open() as file:
        return [float(row["train_loss_step"]) for row in csv.DictReader(file) if row["train_loss_step"]]


@pytest.mark.slow
def test_a_run_on_two_processes_is_that_on_one(surfaces, tmp_path):
    printed = {}
    for devices in ("1", "2"):
        output = tmp_path / devices
        run = command(surfaces, output, "--trainer.devices", devices, "--trainer.max_epochs", "3")
        done = subprocess.run(run, check=True, capture_output=True, text=True, env=environment(), timeout=240)
        printed[devices] = done.stdout.replace(str(output), "OUTPUT")
        record = yaml.safe_load((output / "config.yaml").read_text())
        assert record["training"]["features"] == {"1": "memory", "2": "disk"}[devices]
        assert not list(output.glob("*.cache*"))
    assert printed["1"] == printed["2"]  # one of them speaks
    one, two = (losses(tmp_path / devices) for devices in ("1", "2"))
    assert len(one) == len(two) > 2
    # float32 sums in another order.
    assert two == pytest.approx(one, rel=1e-5)
    first, second = (load_file(tmp_path / devices / "model.safetensors") for devices in ("1", "2"))
    for weights in (first, second):  # the directions may be turned: what they leave of a vector is not
        directions = weights["subspace.complement"]
        weights["subspace.complement"] = directions @ directions.T
    for name, values in first.items():
        # AdamW moves a weight by about its rate a step, also where the gradient is nothing but rounding, as that of a
        # bias is which the normalisation takes out again: ten steps of 2e-4 at most; the running mean follows it.
        torch.testing.assert_close(second[name], values, rtol=1e-3, atol=4e-3)


@pytest.mark.slow
def test_a_killed_run_on_two_processes_leaves_none_behind_and_resumes_on_one(surfaces, tmp_path):
    whole, output = tmp_path / "whole", tmp_path / "killed"
    length = ("--trainer.max_epochs", "40")
    subprocess.run(command(surfaces, whole, *length), check=True, capture_output=True, env=environment())
    run = command(surfaces, output, *length, "--trainer.devices", "2")
    process = subprocess.Popen(run, env=environment(), stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (output / "checkpoints" / "last.ckpt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while any_of_group(process.pid):
        assert time.monotonic() < deadline + 60
        time.sleep(0.1)
    resumed = subprocess.run(
        [*run, "--resume", "--trainer.devices", "1"], check=True, capture_output=True, env=environment(), text=True
    )
    assert "trained" in resumed.stdout
    first = json.loads(json.dumps(yaml.safe_load((output / "config.yaml").read_text())["training"]["plan"]))
    assert first == yaml.safe_load((whole / "config.yaml").read_text())["training"]["plan"]


def any_of_group(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("told", ["first", "second"])
def test_a_signal_to_either_process_ends_both_after_the_same_step(surfaces, tmp_path, told):
    output = tmp_path / "run"
    run = command(surfaces, output, "--trainer.max_epochs", "400", "--trainer.devices", "2")
    first = subprocess.Popen(run, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not (output / "checkpoints" / "last.ckpt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    running = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    group = [pid for pid in running if pid_group(pid) == first.pid]
    second = min(pid for pid in group if pid != first.pid)
    os.kill(first.pid if told == "first" else second, signal.SIGTERM)
    _, said = first.communicate(timeout=120)
    assert first.returncode == 1
    assert "TrainingInterruptedError: stopped in epoch" in said
    assert "continue with: supersimplenet train --resume" in said
    while any_of_group(first.pid):
        assert time.monotonic() < deadline + 60
        time.sleep(0.1)


def pid_group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


@pytest.mark.slow
def test_an_error_in_the_first_process_ends_the_other(surfaces, tmp_path):
    root = tmp_path / "damaged"
    shutil.copytree(surfaces, root)
    (root / "brushed_metal" / "train" / "good" / "003.png").write_bytes(b"no image")
    run = command(root, tmp_path / "run", "--trainer.devices", "2")
    done = subprocess.run(run, capture_output=True, text=True, env=environment(), timeout=120)
    assert done.returncode == 1
    assert "ImageError" in done.stderr
    assert "003.png: not a readable image" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "config.yaml").exists()
