"""Bad days of a line: what the comparison, the pages and the checks say about wrong answers and other light.

    python experiments/bad_day.py --table samples.csv --folder days --output days.jsonl

The training split becomes a dataset, its model comes into use, and the test split is inspected by a real station. Then,
each from that state: an operator answers for a day with good and bad exchanged (20 parts, and 80); the lamp is dimmer,
and all false calls of it are answered as they should be; masks are drawn over half of the picture. Each day's answers
are gathered, a candidate is trained and compared, as a person or a rule would have it done. A line a day: the
candidate's state, the reasons, what the station's signs say, and the truth: escapes and false alarms of both models on
the rest of the test split, which nobody answered about.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from station_process import StationProcess

from supersimplenet.datasets.splits import write_table
from supersimplenet.datasets.table import Table
from supersimplenet.inference.detector import Detector
from supersimplenet.types import BAD, GOOD, Sample

DAYS = ("swapped 20", "swapped 80", "lamp", "half masks", "right")
LIGHT = 0.6  # of the dimmer lamp


def run(*arguments: str) -> int:
    """Run a command; its lines are printed."""
    command = [sys.executable, "-m", "supersimplenet", *arguments]
    return subprocess.run(command, check=False).returncode


def content_of(sample: Sample, *, dimmed: bool) -> bytes:
    """The bytes of a photograph, or of the same one in the light of the dimmer lamp."""
    if not dimmed:
        return sample.image.read_bytes()
    with Image.open(sample.image) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=np.float64) * LIGHT
    encoded = io.BytesIO()
    Image.fromarray(pixels.round().astype(np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def half_mask(content: bytes) -> bytes:
    """A mask over the left half of a picture."""
    with Image.open(io.BytesIO(content)) as image:
        width, height = image.size
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[:, : width // 2] = 255
    encoded = io.BytesIO()
    Image.fromarray(mask).save(encoded, "PNG")
    return encoded.getvalue()


def the_day(day: str, model: Path, station: Path, parts: Sequence[Sample]) -> dict[str, Any]:
    """Inspect the day's parts and answer about them; what the station then says."""
    with StationProcess({"tiles": model}, folder=station) as process:
        for sample in parts:
            content = content_of(sample, dimmed=day == "lamp")
            kind = "image/png" if day == "lamp" else "image/jpeg"
            answer = process.client.post(
                "/v1/inspect", content=content, params={"name": sample.image.name}, headers={"Content-Type": kind}
            )
            (found,) = answer.raise_for_status().json()["results"]
            is_bad = (sample.label == BAD) != day.startswith("swapped")
            body: dict[str, Any] = {"verdict": "bad" if is_bad else "good"}
            if is_bad and sample.label == BAD:
                body["defect"] = sample.defect
            process.client.post(f"/v1/results/{found['id']}/review", json=body).raise_for_status()
            if day == "half masks" and sample.label == BAD:
                answer = process.client.put(
                    f"/v1/results/{found['id']}/mask", content=half_mask(content), headers={"Content-Type": "image/png"}
                )
                answer.raise_for_status()
        return {
            "signs": [sign["code"] for sign in process.get("/v1/status")["signs"]],
            "rates": process.get("/v1/review/rates"),
            "counts": process.get("/v1/counts"),
        }


def truth(model: Path, samples: Sequence[Sample]) -> dict[str, int]:
    """Escapes and false alarms of a model on parts that nobody answered about."""
    detector = Detector.load(model)
    verdicts = [p.verdict for p in detector.predict([sample.image for sample in samples])]
    pairs = list(zip(verdicts, samples, strict=True))
    return {
        "escapes": sum(verdict == "good" and sample.label == BAD for verdict, sample in pairs),
        "bad": sum(sample.label == BAD for sample in samples),
        "false_alarms": sum(verdict == "bad" and sample.label == GOOD for verdict, sample in pairs),
        "good": sum(sample.label == GOOD for sample in samples),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--days", nargs="+", default=DAYS)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    samples = Table(path=options.table).samples()
    settled = options.folder / "settled"
    if not (settled / "registry" / "0001" / "model" / "calibration.yaml").is_file():
        shutil.rmtree(options.folder, ignore_errors=True)
        write_table([sample for sample in samples if sample.split == "train"], options.folder / "first.csv")
        assert run("datasets", "import", "tiles", str(options.folder / "first.csv"), "--folder", str(settled)) == 0
        train(settled, options)
        assert run("registry", "promote", "1", "--folder", str(settled)) == 0
    test = [sample for sample in samples if sample.split == "test"]
    order = np.random.default_rng(0).permutation(len(test))
    day_parts, rest = [test[place] for place in order[:80]], [test[place] for place in order[80:]]
    for day in options.days:
        station = options.folder / day.replace(" ", "-")
        shutil.rmtree(station, ignore_errors=True)
        shutil.copytree(settled, station)
        first = station / "registry" / "0001" / "model"
        parts = day_parts[:20] if day == "swapped 20" else day_parts
        said = the_day(day, first, station, parts)
        run("datasets", "gather", "tiles", "--product", "tiles", "--folder", str(station))
        status = train(station, options)
        folder = station / "registry" / "0002"
        gate_file = folder / "comparison" / "gate.json"
        gate = json.loads(gate_file.read_text()) if gate_file.is_file() else None
        line = {
            "day": day,
            "status": status,
            **said,
            "passed": None if gate is None else gate["passed"],
            "reasons": None if gate is None else gate["reasons"],
            "evidence": None if gate is None else gate["evidence"],
            "log": (folder / "log.txt").read_text()[-1500:] if gate is None else "",
            "before": truth(first, rest),
            "after": truth(folder / "model", rest) if (folder / "model" / "calibration.yaml").is_file() else None,
        }
        with options.output.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)


def train(station: Path, options: argparse.Namespace) -> int:
    """Train a candidate from the newest version, and compare it."""
    own = (
        f"model.image_size=[{options.size}, {options.size}]",
        f"trainer.max_steps={options.steps}",
        f"trainer.max_epochs={options.steps}",
        "recipe.batch_size=8",
        "model.backbone=compact",
    )
    command = [
        "registry",
        "train",
        "--product",
        "tiles",
        "--dataset",
        "tiles",
        "--threads",
        "1",
        "--time-budget",
        "60m",
    ]
    return run(*command, "--folder", str(station), "--options", *own)


if __name__ == "__main__":
    main()
