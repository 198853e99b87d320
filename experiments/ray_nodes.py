"""How the rate of `predict --engine ray` grows from one node to two, both on this machine, a core each.

    python experiments/ray_nodes.py --model runs/parts --images ../shared/magnetic_tile --count 1500

Counted from the first result to the last, so without the start of the workers. The rows of both must be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path


def measure(options: argparse.Namespace) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster as Nodes

    from supersimplenet.inference.config import ComputeConfig
    from supersimplenet.prediction.ray_cluster import Cluster
    from supersimplenet.preprocessing.listing import list_images
    from supersimplenet.runtime.rows import as_row

    nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1})
    for _ in range(options.nodes - 1):
        nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    distinct = list_images(options.images)
    paths = [distinct[index % len(distinct)] for index in range(options.count)]
    began = time.monotonic()
    cluster = Cluster(options.model, ComputeConfig(engine="ray", address=nodes.address, workers=options.nodes))
    first, rows = 0.0, []
    for item in cluster.predict_files(paths):
        first = first or time.monotonic()
        rows.append(as_row(item, calibrated=False))
    last = time.monotonic()
    found = {
        "nodes": options.nodes,
        "images_per_second": round((len(rows) - 1) / (last - first), 1),
        "seconds_to_the_first": round(first - began, 1),
        "rows": hash(json.dumps(rows)),
    }
    print(json.dumps(found), flush=True)
    ray.shutdown()
    nodes.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--nodes", type=int, default=0, help="measure with that many alone")
    options = parser.parse_args()
    if options.nodes:
        measure(options)
        return
    found = []
    for nodes in (1, 2):
        command = [sys.executable, "-W", "ignore", __file__, "--model", options.model, "--images", options.images]
        command += ["--count", str(options.count), "--nodes", str(nodes)]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        with Path(os.devnull).open("w") as nowhere:
            done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=nowhere, env=environment, text=True)
            assert done.stdout is not None
            found.append(json.loads(done.stdout.readline()))
            done.wait()
        print({name: value for name, value in found[-1].items() if name != "rows"}, flush=True)
    assert found[0]["rows"] == found[1]["rows"]
    growth = found[1]["images_per_second"] / found[0]["images_per_second"]
    print(f"two nodes: {growth:.2f} times the rate of one; the rows are equal")


if __name__ == "__main__":
    main()
