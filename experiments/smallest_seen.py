"""How wide a defect must be at the network's input to be seen: ellipses drawn on good photographs. Prints Markdown.

    python experiments/smallest_seen.py --table samples.csv

A detector of the subspace alone is fitted to good training images of half of the parts. On images of the other half,
resized to the network's size, a darker ellipse with soft edges is drawn at a place by chance; I-AUROC of these images
against the same ones without it, by width, length and contrast. The test split is never opened.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from supersimplenet import Detector, Folder, ModelConfig, TrainerConfig, train
from supersimplenet.datasets.table import Table
from supersimplenet.metrics.ranking import auroc
from supersimplenet.types import GOOD

WIDTHS_PX = (1, 1.5, 2, 3, 4, 6, 8)
FINE = 8  # points of a pixel, in each direction


def draw(
    pixels: NDArray[np.float64], width_px: float, length: float, contrast: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the image with a darker ellipse of this width, `length` times as long."""
    side = pixels.shape[0]
    down, across = rng.uniform(40 / 256 * side, 216 / 256 * side, 2)
    angle = rng.uniform(0, np.pi)
    rows, columns = (np.mgrid[0 : side * FINE, 0 : side * FINE] + 0.5) / FINE
    along = (columns - across) * np.cos(angle) + (rows - down) * np.sin(angle)
    off = (rows - down) * np.cos(angle) - (columns - across) * np.sin(angle)
    inside = (along / (width_px * length / 2)) ** 2 + (off / (width_px / 2)) ** 2 <= 1
    share = inside.reshape(side, FINE, side, FINE).mean((1, 3))
    return pixels * (1 - contrast * share[..., None])


def scores(detector: Detector, images: list[NDArray[np.float64]]) -> list[float]:
    """Return the score of each image."""
    found = detector.predict([image.round().astype(np.uint8) for image in images])
    return [prediction.score_logit for prediction in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--backbone", default="compact")
    options = parser.parse_args()
    size = (options.size, options.size)
    good = [sample for sample in Table(path=options.table).samples() if sample.label == GOOD]
    good = [sample for sample in good if sample.split == "train"]
    parts = sorted({sample.group or str(sample.image) for sample in good})
    fitted = set(parts[: (len(parts) + 1) // 2])
    mine, others = [], []
    for sample in good:
        image = Image.open(sample.image).convert("RGB").resize(size, Image.Resampling.BILINEAR)
        (mine if (sample.group or str(sample.image)) in fitted else others).append(image)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "good").mkdir()
        for number, image in enumerate(mine[:80]):
            image.save(Path(folder) / "good" / f"{number:03}.png")
        detector = train(
            Folder(good=Path(folder) / "good", test_fraction=0.0),
            output=Path(folder) / "model",
            model=ModelConfig(backbone=options.backbone, image_size=size),
            trainer=TrainerConfig(max_epochs=0, holdout_fraction=0),
        )
    plain = [np.asarray(image).astype(np.float64) for image in others[:60]]
    before = scores(detector, plain)
    print("| ellipse | " + " | ".join(f"{width} px" for width in WIDTHS_PX) + " |")
    print("| --- |" + " ---: |" * len(WIDTHS_PX))
    for length in (1.0, 8.0):
        for contrast in (0.25, 0.5):
            row = []
            for width in WIDTHS_PX:
                rng = np.random.default_rng(1)
                after = scores(detector, [draw(image, width, length, contrast, rng) for image in plain])
                label = [0] * len(before) + [1] * len(after)
                row.append(f"{auroc([*before, *after], label):.2f}")
            print(f"| {length:g} times as long, {contrast:.0%} darker | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
