"""Whether a station's memory stays level: an hour of pictures with sinks, its size every ten seconds.

Pictures come at a steady rate, below what the machine can do, so that other programs may run beside it. Results go to a
webhook and to tables of a day. At the end: memory, open files and threads in the sixth minute and in the last one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from station_process import StationProcess

SETTLED_MIN = 5.0


def main() -> None:
    """Send pictures for the time, and print what was measured."""
    from test_station_sinks import Webhooks

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True, help="a folder of PNG files")
    parser.add_argument("--folder", type=Path, required=True, help="of the station; new")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--per-second", type=float, default=2.0)
    options = parser.parse_args()
    contents = [path.read_bytes() for path in sorted(options.pictures.rglob("*.png"))]
    webhooks = Webhooks()
    sinks = [
        {"name": "hook", "kind": "webhook", "url": f"http://127.0.0.1:{webhooks.port}/results"},
        {"name": "tables", "kind": "files", "folder": str(options.folder.with_name(f"{options.folder.name}-tables"))},
    ]
    samples = []
    sent, refused = 0, 0
    with StationProcess(options.model, folder=options.folder, setup={"sinks": sinks}) as station:
        process = psutil.Process(station.process.pid)
        began = time.monotonic()
        next_sample = 0.0
        while (passed := time.monotonic() - began) < options.minutes * 60:
            if passed >= next_sample:
                samples.append(
                    {
                        "minute": passed / 60,
                        "mib": process.memory_info().rss / (1 << 20),
                        "files": process.num_fds(),
                        "threads": process.num_threads(),
                    }
                )
                next_sample += 10
            answer = station.client.post(
                "/v1/inspect", content=contents[sent % len(contents)], headers={"Content-Type": "image/png"}
            )
            sent += 1
            refused += answer.status_code != 200
            time.sleep(max(0.0, began + sent / options.per_second - time.monotonic()))
        rows = sum(station.get("/v1/counts").values())
    first = [each for each in samples if SETTLED_MIN <= each["minute"] < SETTLED_MIN + 1]
    last = [each for each in samples if each["minute"] >= options.minutes - 1]
    found = {
        name: {
            "sixth_minute": statistics.median(each[name] for each in first),
            "last_minute": statistics.median(each[name] for each in last),
        }
        for name in ("mib", "files", "threads")
    }
    most = max(each["mib"] for each in samples)
    print(
        json.dumps(
            {
                "sent": sent,
                "refused": refused,
                "rows": rows,
                "delivered": len(set(webhooks.ids)),
                "most_mib": most,
                **found,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
