"""Many machines give what one gives: the same predictions in order, also when a worker is lost; metrics add up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from supersimplenet import SyntheticConfig, synthesize
from supersimplenet.cli.main import main

pytest.importorskip("ray", reason="needs the extra ray")

SIZE = (64, 64)

# Two nodes of a core each, on this machine. argv: command, model, and its arguments.
NODES = """
import json, os, signal, sys
from pathlib import Path
from supersimplenet.prediction.ray_cluster import Cluster, connect
import ray
from ray.cluster_utils import Cluster as Nodes

nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1})
nodes.add_node(num_cpus=1)
nodes.wait_for_nodes()
command, model, *rest = sys.argv[1:]
if command == "predict":
    import psutil
    from supersimplenet.prediction.inputs import find_inputs
    from supersimplenet.prediction.job import predict_to_folder
    from supersimplenet.inference.config import ComputeConfig

    killed = []

    def progress(images):
        # Some way through, a worker that holds the model and one that reads die without a word.
        if not killed and images:
            progress.done += images
            if progress.done >= 60:
                own = psutil.Process().children(recursive=True)
                named = {p.pid: " ".join(p.as_dict(["cmdline"])["cmdline"] or ()) for p in own}
                workers = [pid for pid, name in named.items() if "MapBatches(_Worker)" in name]
                readers = [pid for pid, name in named.items() if "MapBatches(Reader)" in name]  # maybe done already
                killed.extend(workers[:1] + readers[:1])
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)

    progress.done = 0
    cluster = Cluster(Path(model), ComputeConfig(engine="ray", address=nodes.address))
    summary = predict_to_folder(
        cluster, find_inputs([rest[0]]), Path(rest[1]), model_folder=Path(model), on_error="skip", progress=progress
    )
    print(json.dumps({"images": summary.images, "failed": summary.failed, "killed": killed}))
else:
    from supersimplenet.report.findings import evaluate_model
    from supersimplenet.datasets.mvtec import MVTecAD
    from supersimplenet.inference.config import ComputeConfig

    data = MVTecAD(root=Path(rest[0]), category="brushed_metal")
    for place in (ComputeConfig(device="cpu"), ComputeConfig(device="cpu", engine="ray", address=nodes.address)):
        evaluate_model(Path(model), data=data, output=Path(rest[1]) / place.engine, compute=place)
ray.shutdown()
nodes.shutdown()
"""


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for index in range(70):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:03d}.png")
    (folder / "041.png").write_bytes(b"no image")
    return folder


def predict(model: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "supersimplenet", "predict", "--model", str(model), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=240)


def contents(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.iterdir())}


@pytest.mark.slow
def test_a_cluster_writes_what_one_machine_writes(model, photographs, tmp_path):
    """To the byte: a worker computes on one thread, as each lane does."""
    common = [photographs, "--on-error", "skip", "--format", "csv,jsonl,parquet", "--output"]
    predict(model, *common, tmp_path / "one", "--device", "cpu")
    done = predict(model, *common, tmp_path / "many", "--engine", "ray", "--workers", "1")
    assert "70 images" in done.stdout
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_what_a_cluster_cannot_do_is_refused(model, photographs, tmp_path, capsys):
    base = ["predict", "--model", str(model), "--output", str(tmp_path / "out")]
    for more, message in (
        ([str(photographs), "--engine", "ray", "--overlays"], "engine: ray brings back no maps"),
        (["--watch", str(photographs), "--engine", "ray"], "needs all names at once"),
        ([str(photographs), "--workers", "2"], "give --engine ray"),
        ([str(photographs), "--engine", "ray", "--workers", "0"], "workers: 0; it must be at least 1"),
    ):
        assert main([*base, *more]) == 2
        assert message in capsys.readouterr().err


def on_nodes(folder: Path, *arguments: object) -> str:
    """What the script prints; into a file, because Ray's own processes inherit a pipe and keep it open."""
    command = [sys.executable, "-W", "ignore", "-c", NODES, *map(str, arguments)]
    with (folder / "printed.txt").open("w") as printed, (folder / "said.txt").open("w") as said:
        done = subprocess.run(command, stdout=printed, stderr=said, timeout=540)
    assert done.returncode == 0, (folder / "said.txt").read_text()[-3000:]
    return (folder / "printed.txt").read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_worker_of_two_nodes_costs_nothing(model, photographs, tmp_path):
    many = tmp_path / "many"
    many.mkdir()
    for index in range(350):
        (many / f"{index:04d}.png").hardlink_to(photographs / f"{index % 70:03d}.png")
    predict(model, many, "--on-error", "skip", "--device", "cpu", "--output", tmp_path / "one")
    printed = on_nodes(tmp_path, "predict", model, many, tmp_path / "nodes")
    summary = json.loads(next(line for line in printed.splitlines() if line.startswith("{")))  # Ray prints too
    assert (summary["images"], summary["failed"]) == (350, 5)
    assert summary["killed"]
    assert contents(tmp_path / "nodes") == contents(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_metrics_of_two_nodes_add_up(model, tmp_path):
    synthesize(
        tmp_path,
        SyntheticConfig(surfaces=("brushed_metal",), size_px=SIZE, train_good=1, test_good=60, test_per_defect=20),
    )
    on_nodes(tmp_path, "test", model, tmp_path, tmp_path / "out")
    one, many = (json.loads((tmp_path / "out" / e / "metrics.json").read_text()) for e in ("torch", "ray"))
    assert one["images"]["good"] == 60  # three parts
    assert many == one
