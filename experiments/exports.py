"""Every engine and precision of one model: file size, speed, and what of the model's answers it changes.

    python experiments/exports.py --model runs/parts --data ../shared/magnetic_tile/samples.csv --output exports.json
    python experiments/exports.py --random wide_resnet50_2 --output wide.json     # random weights: for speed alone

Exports the model in each format and precision (a gate that fails is a row with its reason), then lets a process of its
own, which holds nothing but the runtime, predict all test images of the table. Of each:

- MB: of the file.
- network: milliseconds of one image of the network's size, from array to prediction, all cores; median.
- file: the same from an image's file, decoding and resizing included.
- images/s: of `Inspector.predict_files`, from the files, one image a core.
- score, map: largest difference from the model folder by torch in float32, in logits, over all test images.
- flips: verdicts that differ from it.
- I-AUROC: of the score that decides.
- cold start: seconds of `python -m supersimplenet.runtime FILE IMAGE`, from the command to its end; median.

The first row is the model folder itself by torch, in this process. All in one run, one after another.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
KINDS = [
    ("onnx", "fp32"),
    ("openvino", "fp32"),
    ("torch", "fp32"),
    ("onnx", "fp16"),
    ("openvino", "fp16"),
    ("torch", "fp16"),
    ("openvino", "bf16"),
    ("torch", "bf16"),
    ("onnx", "int8"),
    ("openvino", "int8"),
]
COLUMNS = ("MB", "network, ms", "file, ms", "images/s", "score", "map", "flips", "I-AUROC", "cold start, s")


def median_ms(call: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds + 3):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times[3:]))


def look(looks: Any, inspect: Callable[[Any], Any], paths: Sequence[Path], rounds: int) -> Row:
    """Speed and answers of a `Detector` or an `Inspector`."""
    pixels = np.random.default_rng(0).integers(0, 256, (*looks.image_size, 3), dtype=np.uint8)
    row: Row = {
        "network, ms": median_ms(lambda: inspect(pixels), rounds),
        "file, ms": median_ms(lambda: inspect(paths[0]), rounds),
    }
    list(looks.predict_files(paths[:8]))  # compiles for many at once
    start = time.perf_counter()
    predictions = [item.prediction for item in looks.predict_files(paths)]
    row["images/s"] = len(paths) / (time.perf_counter() - start)
    row["score_logit"] = [prediction.score_logit for prediction in predictions]
    row["verdict"] = [prediction.verdict for prediction in predictions]
    row["maps"] = np.stack([prediction.map_logit for prediction in predictions])
    return row


def work(file: Path, listed: Path, rounds: int) -> None:
    """In a process of its own: what the file says and how fast."""
    from supersimplenet.runtime import Inspector

    inspector = Inspector.load(file, trust=True)
    row = look(inspector, inspector.inspect, [Path(line) for line in listed.read_text().splitlines()], rounds)
    np.save(file.with_suffix(".maps.npy"), row.pop("maps"))
    print(json.dumps(row))


def cold_start_s(file: Path, image: Path, rounds: int) -> float:
    command = [sys.executable, "-m", "supersimplenet.runtime", str(file), str(image), "--trust"]
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def compared(row: Row, reference: Row, labels: Sequence[int] | None) -> Row:
    from supersimplenet.metrics.ranking import auroc

    maps, wanted = row.pop("maps"), reference["maps"]
    row["score"] = float(np.abs(np.subtract(row["score_logit"], reference["score_logit"])).max())
    row["map"] = max(float(np.abs(one - other).max()) for one, other in zip(maps, wanted, strict=True))
    row["flips"] = sum(one != other for one, other in zip(row.pop("verdict"), reference["verdict"], strict=True))
    scores = row.pop("score_logit")
    row["I-AUROC"] = None if labels is None else auroc(scores, labels)
    return row


def random_model(backbone: str, folder: Path) -> Path:
    """A model folder of an architecture with random weights, which are kept in it."""
    import timm
    import torch

    from supersimplenet import ModelConfig, SuperSimpleNet
    from supersimplenet.inference.model_folder import save_model

    torch.manual_seed(0)
    weights = folder / "backbone.pt"
    torch.save(timm.create_model(backbone, features_only=True, out_indices=(2, 3)).state_dict(), weights)
    network = SuperSimpleNet(ModelConfig(backbone=backbone, backbone_weights=weights)).eval()
    save_model(folder / "model", network, {})
    return folder / "model"


def test_images(data: Path | None, folder: Path, count: int | None) -> tuple[list[Path], list[int] | None]:
    """The table's test images and their labels; without a table drawn ones, of no use for a ranking."""
    if data is None:
        from supersimplenet import SyntheticConfig, synthesize
        from supersimplenet.preprocessing.listing import list_images

        surface = synthesize(folder / "drawn", SyntheticConfig(surfaces=("cast_grain",), size_px=(512, 512)))[0]
        return list_images(surface / "test")[:count], None
    from supersimplenet import Table

    samples = [sample for sample in Table(path=data).samples() if sample.split == "test"]
    if count is not None:  # spread over both classes
        samples = [samples[round(place)] for place in np.linspace(0, len(samples) - 1, min(count, len(samples)))]
    return [sample.image for sample in samples], [sample.label for sample in samples]


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from supersimplenet import Detector
    from supersimplenet.errors import SuperSimpleNetError
    from supersimplenet.export.export import export_model
    from supersimplenet.export.verification import describe_host

    model = options.model or random_model(options.random, folder)
    paths, labels = test_images(options.data, folder, options.images)
    listed = folder / "images.txt"
    listed.write_text("\n".join(map(str, paths)))
    detector = Detector.load(model, device="cpu")
    reference = look(detector, detector.predict, paths, options.rounds)
    size = sum(path.stat().st_size for path in model.glob("*") if path.is_file())
    first = {"engine": "folder (torch)", "precision": "fp32", "MB": size / 1e6, "cold start, s": None, **reference}
    rows = [compared(dict(first), reference, labels)]
    for engine, precision in KINDS:
        if engine not in options.engines or precision not in options.precisions:
            continue
        print(f"{engine} {precision}", file=sys.stderr, flush=True)
        file = folder / f"{engine}-{precision}"
        row: Row = {"engine": engine, "precision": precision}
        try:
            gate = {"images": paths} if labels is None else {}
            certificate = export_model(
                model, file, file_format=engine, precision=precision, max_drop=options.max_drop, **gate
            ).certificate
        except SuperSimpleNetError as error:
            rows.append({**row, "refused": str(error)})
            continue
        row |= {"MB": file.stat().st_size / 1e6, "measured_drop": certificate.measured_drop}
        command = [sys.executable, __file__, "--work", str(file), str(listed), "--rounds", str(options.rounds)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        row |= json.loads(done.stdout.splitlines()[-1])
        row["maps"] = np.load(file.with_suffix(".maps.npy"), mmap_mode="r")
        row["cold start, s"] = cold_start_s(file, paths[0], options.cold_starts)
        rows.append(compared(row, reference, labels))
        file.with_suffix(".maps.npy").unlink()
    return {"machine": describe_host(), "images": len(paths), "rows": rows}


def table(report: dict[str, Any]) -> str:
    lines = [f"| engine | precision | {' | '.join(COLUMNS)} |", "| --- " * (len(COLUMNS) + 2) + "|"]
    for row in report["rows"]:
        if "refused" in row:
            lines.append(f"| {row['engine']} | {row['precision']} | refused: {row['refused']} |" + " |" * 8)
            continue
        formats = ("{:.1f}", "{:.1f}", "{:.1f}", "{:.1f}", "{:.1e}", "{:.1e}", "{}", "{:.4f}", "{:.2f}")
        cells = ["" if row[name] is None else f.format(row[name]) for name, f in zip(COLUMNS, formats, strict=True)]
        lines.append(f"| {row['engine']} | {row['precision']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="the model folder")
    parser.add_argument("--random", help="a timm backbone with random weights instead")
    parser.add_argument("--data", type=Path, help="table of images, whose test images are predicted")
    parser.add_argument("--images", type=int, help="at most so many of them")
    parser.add_argument("--engines", nargs="+", default=["onnx", "openvino", "torch"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp16", "bf16", "int8"])
    parser.add_argument("--max-drop", type=float, default=0.01)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--cold-starts", type=int, default=5)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--work", type=Path, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        work(*options.work, options.rounds)
        return
    if (options.model is None) == (options.random is None):
        parser.error("give --model or --random")
    with tempfile.TemporaryDirectory() as folder:
        report = measure(options, Path(folder))
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=1))
    print(f"\n{report['images']} images; {report['machine']}\n\n{table(report)}")


if __name__ == "__main__":
    main()
