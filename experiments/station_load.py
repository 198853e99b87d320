"""How fast a station inspects under load, beside the predictor alone: images a second, latency, CPU time, memory.

Each load comes from wrk (Debian's package), a process of its own. Rounds of the predictor alone stand between those of
the service, because this machine's speed changes. What is compared is CPU time an image: on two cores the client takes
a share of them.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from itertools import cycle, islice
from pathlib import Path

import psutil

LUA = """
local files = {}
for name in io.lines(os.getenv("PICTURES")) do
  local file = io.open(name, "rb"); files[#files + 1] = file:read("*a"); file:close()
end
local turn = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "image/jpeg"
function request()
  turn = turn % #files + 1
  return wrk.format(nil, nil, nil, files[turn])
end
local refused = 0
function done(summary, latency, requests)
  io.write(string.format('{"requests": %d, "seconds": %.3f, "refused": %d, "broken": %d, ',
    summary.requests, summary.duration / 1e6, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
  io.write(string.format('"p50_ms": %.1f, "p95_ms": %.1f, "p99_ms": %.1f, "most_ms": %.1f}\\n',
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
"""
ALONE = """
import json, resource, sys, time
from pathlib import Path
from supersimplenet.prediction.predict import open_model
predictor = open_model(Path(sys.argv[1]))
files = [Path(name) for name in sys.stdin.read().splitlines()]
list(predictor.predict_files(files[:20]))
cpu, wall = time.process_time(), time.monotonic()
number = sum(1 for _ in predictor.predict_files(files))
print(json.dumps({"cpu_ms": 1000 * (time.process_time() - cpu) / number, "per_s": number / (time.monotonic() - wall)}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True, help="a folder of JPEG files")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--queue", type=int, default=64)
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, appended to")
    options = parser.parse_args()
    files = sorted(map(str, options.pictures.rglob("*.jpg")))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "load.lua").write_text(LUA)
        (folder / "pictures").write_text("\n".join(files[:200]))
        with Service(options.model, folder / "station", options.queue) as service:
            service.load(folder, 8, 5)
            for number in range(options.rounds):
                alone = predictor_alone(options.model, files)
                for connections in options.connections:
                    found = service.load(folder, connections, options.seconds)
                    row = {"round": number, "connections": connections, **found, "alone": alone}
                    row["cpu_ratio"] = alone["cpu_ms"] / found["cpu_ms"]
                    print(json.dumps(row), flush=True)
                    with options.output.open("a") as lines:
                        lines.write(json.dumps(row) + "\n")
    rows = [json.loads(line) for line in options.output.read_text().splitlines()]
    for connections in options.connections:
        own = [row for row in rows if row["connections"] == connections]
        middle = {
            name: statistics.median(row[name] for row in own) for name in ("per_s", "cpu_ratio", "p50_ms", "p99_ms")
        }
        print(connections, {name: round(value, 3) for name, value in middle.items()})


class Service:
    """A station in a process of its own."""

    def __init__(self, model: Path, folder: Path, queue: int) -> None:
        command = [sys.executable, "-m", "supersimplenet", "serve", "--model", str(model), "--folder", str(folder)]
        command += ["--port", "0", "--queue", str(queue), "--keep-gib", "2"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self._process.stdout.readline()
        self.address = re.search(r"http://\S+", line)[0]
        self._watched = psutil.Process(self._process.pid)

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=60)

    def load(self, folder: Path, connections: int, seconds: int) -> dict[str, float]:
        before_s, rows = self._cpu_s(), self.rows()
        command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--timeout", "20s"]
        command += ["-s", str(folder / "load.lua"), f"{self.address}/v1/inspect"]
        done = subprocess.run(
            command, env={"PICTURES": str(folder / "pictures")}, capture_output=True, text=True, check=True
        )
        while self._in_work():
            time.sleep(0.1)
        found = json.loads(done.stdout.splitlines()[-1])
        images = self.rows() - rows
        answered = found["requests"] - found["refused"]
        return {
            **found,
            "rows": images,
            "unaccounted": answered - images,  # at most the requests that wrk abandons at its end, with a minus
            "per_s": answered / found["seconds"],
            "cpu_ms": 1000 * (self._cpu_s() - before_s) / images,
            "memory_mib": self._watched.memory_info().rss / (1 << 20),
        }

    def rows(self) -> int:
        counts = self._get("/v1/counts")
        return counts["good"] + counts["unsure"] + counts["bad"]

    def _in_work(self) -> int:
        return self._get("/v1/status")["in_work"]

    def _get(self, path: str) -> dict:
        with urllib.request.urlopen(self.address + path, timeout=20) as answer:
            return json.load(answer)

    def _cpu_s(self) -> float:
        times = self._watched.cpu_times()
        return times.user + times.system


def predictor_alone(model: Path, files: list[str]) -> dict[str, float]:
    names = "\n".join(islice(cycle(files[:200]), 300))
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(model)], input=names, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
