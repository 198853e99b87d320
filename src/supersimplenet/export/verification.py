"""Verify an exported file: run it in its engine, in a new process, and compare its results with the model's."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from supersimplenet.errors import ExportError
from supersimplenet.runtime.bundle import Certificate, FilePrecision
from supersimplenet.types import Prediction
from supersimplenet.utils.system import available_cores, cpu_name


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far a file's results may differ from the model's: a share of the spread of the model's own values.

    Attributes:
        share: share of the spread (largest minus smallest) of the model's values over all images of the verification.
        least: lower limit of the tolerance in logits, a few rounding errors, for a small spread.
    """

    share: float
    least: float

    def logits(self, values: Sequence[Any]) -> float:
        """Return the tolerance in logits for the model's values, which are numbers or anomaly maps."""
        spread = max(float(np.max(value)) for value in values) - min(float(np.min(value)) for value in values)
        return max(self.least, self.share * spread)


# Logits reach 1 with one model, 20 with another, and rounding errors grow with them: so the limits are relative.
TOLERANCES: dict[FilePrecision, Tolerance] = {
    # 24 significant bits, through some 30 layers; each engine adds in another order
    "fp32": Tolerance(share=1e-4, least=1e-4),
    # weights of 11 significant bits, computed with in 24
    "fp16": Tolerance(share=5e-3, least=5e-3),
    # weights of 8 significant bits; where the CPU computes in bfloat16, all values
    "bf16": Tolerance(share=1e-1, least=5e-2),
    # 256 levels in each layer; --max-drop limits the loss of accuracy, this tolerance only detects broken files
    "int8": Tolerance(share=5e-1, least=1e-1),
}


def verify(
    file: Path,
    images: Sequence[Path],
    expected: Sequence[Prediction],
    *,
    tolerance: Tolerance,
    source: str,
    size_px: tuple[int, int] | None = None,
) -> Certificate:
    """Predict images with an exported file in a new process, and compare the predictions with the model's.

    Args:
        file: the exported file.
        images: image files.
        expected: predictions of the model folder by torch, one for each image.
        tolerance: tolerance for scores and anomaly maps.
        source: where the images came from, in words.
        size_px: (height, width) to use, for a file that leaves its size open.

    Raises:
        ExportError: the file cannot be used, or its results differ by more than the tolerance.
    """
    with tempfile.TemporaryDirectory() as folder:
        about, rows = _inspect(file, images, Path(folder), size_px)
        maps = [np.load(path) for path in sorted(Path(folder).glob("*.npy"))]
    wanted_maps = [prediction.map_logit for prediction in expected]
    for found, wanted in zip(maps, wanted_maps, strict=True):
        if found.shape != wanted.shape:
            raise ExportError(f"{file.name}: gives maps {found.shape}; the model gives {wanted.shape}")
    fields = ("head_logit", "map_max_logit", "subspace_logit", "score_logit")
    names = [name for name in fields if getattr(expected[0], name) is not None]
    scores = np.array([[row[name] for name in names] for row in rows], dtype=np.float64)
    wanted_scores = np.array([[getattr(prediction, name) for name in names] for prediction in expected])
    by_score = np.abs(scores - wanted_scores)
    verdicts = [{row["verdict"]} for row in rows]
    if "verdict" in rows[0]["graph"]:  # other programs take the graph's own score and verdict
        by_graph = [abs(row["graph"]["score_logit"] - one.score_logit) for row, one in zip(rows, expected, strict=True)]
        by_score = np.column_stack([by_score, by_graph])
        verdicts = [{row["verdict"], about["verdicts"][int(row["graph"]["verdict"])]} for row in rows]
    by_map = [np.abs(found.astype(np.float64) - wanted) for found, wanted in zip(maps, wanted_maps, strict=True)]
    map_max = np.array([difference.max() for difference in by_map])  # (images,)
    certificate = Certificate(
        images=len(images),
        source=source,
        score_max_difference=float(by_score.max()),
        score_mean_difference=float(by_score.mean()),
        map_max_difference=float(map_max.max()),
        map_mean_difference=float(np.mean([difference.mean() for difference in by_map])),
        score_tolerance=max(tolerance.logits(column.tolist()) for column in wanted_scores.T),
        map_tolerance=tolerance.logits(wanted_maps),
        verdict_flips=sum(found != {prediction.verdict} for found, prediction in zip(verdicts, expected, strict=True)),
        latency_ms=round(1000 * float(np.median([row["seconds"] for row in rows])), 2),
        host=describe_host(),
        versions={
            "python": platform.python_version(),
            "engine": about["engine_version"],
            **{name: importlib.metadata.version(name) for name in ("supersimplenet", "numpy", "pillow", "simplejpeg")},
        },
        date=date.today().isoformat(),
    )
    # "not <=" instead of ">", so that a difference of NaN fails, too.
    if not certificate.score_max_difference <= certificate.score_tolerance:
        worst = int(np.nan_to_num(by_score.max(axis=1), nan=np.inf).argmax())
        raise ExportError(_failure(file, "score", certificate, images[worst]))
    if not certificate.map_max_difference <= certificate.map_tolerance:
        worst = int(np.nan_to_num(map_max, nan=np.inf).argmax())
        raise ExportError(_failure(file, "map", certificate, images[worst]))
    return certificate


def describe_host() -> dict[str, Any]:
    """Return CPU, cores and operating system of this machine, but not its name."""
    return {"processor": cpu_name(), "cores": available_cores(), "system": platform.platform()}


def _inspect(
    file: Path, images: Sequence[Path], folder: Path, size_px: tuple[int, int] | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    size = [] if size_px is None else ["--size", *map(str, size_px)]
    # The file was just written by this process, so it can be trusted.
    options = [str(file), *map(str, images), "--maps", str(folder), "--about", "--graph", "--trust", *size]
    environment = dict(os.environ) | {"PYTHONWARNINGS": "ignore", "PYTHONIOENCODING": "utf-8:backslashreplace"}
    done = subprocess.run(
        [sys.executable, "-m", "supersimplenet.runtime", *options],
        capture_output=True,
        encoding="utf-8",
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ExportError(f"{file.name}: its engine cannot use it: {reason}")
    about, *rows = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    if len(rows) != len(images):
        raise ExportError(f"{file.name}: gave {len(rows)} results for {len(images)} images")
    return about, rows


def _failure(file: Path, what: str, certificate: Certificate, worst: Path) -> str:
    found = getattr(certificate, f"{what}_max_difference")
    allowed = getattr(certificate, f"{what}_tolerance")
    return (
        f"{file.name}: not what the model is: its {what} is {found:.3g} logits off on {worst.name}, allowed are "
        f"{allowed:.3g}; {certificate.verdict_flips} of {certificate.images} verdicts differ; no file was written"
    )
