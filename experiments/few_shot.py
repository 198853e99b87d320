"""A detector of one, two, four or eight good images: the subspace alone, and beside heads that are trained on the same.

    python experiments/few_shot.py --table samples.csv --output few.jsonl --images 1 2 4 8 --seeds 0 1 2
    python experiments/few_shot.py --table samples.csv --output few.jsonl --images 1 2 4 8 --seeds 0 --steps 400

Each draw takes images of as many parts of the training split, at random; nothing is held out, so nothing is calibrated.
The test split is predicted whole. A line a draw: metrics of each score over all test images and without the groups
named by ``--without``, of the pixels, and the seconds of training.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from supervision_study import Given

from supersimplenet.datasets.table import Table
from supersimplenet.evaluation.evaluate import evaluate
from supersimplenet.evaluation.results import Outcome
from supersimplenet.metrics.ranking import auroc
from supersimplenet.model.config import ModelConfig, Recipe
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.train import train
from supersimplenet.types import GOOD, SCORE_FIELDS, Sample


def draw(samples: Sequence[Sample], images: int, seed: int) -> list[Sample]:
    """Good training images of as many parts."""
    good = [sample for sample in samples if sample.split == "train" and sample.label == GOOD]
    rng = np.random.default_rng(seed)
    chosen: dict[str, Sample] = {}
    for place in rng.permutation(len(good)):
        chosen.setdefault(good[place].group or str(good[place].image), good[place])
        if len(chosen) == images:
            break
    return list(chosen.values())


def ranking(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """AUROC of each score that the model gives."""
    label = [outcome.sample.label for outcome in outcomes]
    values = {name: [getattr(o, field) for o in outcomes] for name, field in SCORE_FIELDS.items()}
    return {name: auroc(scores, label) for name, scores in values.items() if None not in scores}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=0, help="of the heads; 0 for the subspace alone")
    parser.add_argument("--without", nargs="*", default=[], help="groups of test images to pass over")
    parser.add_argument("--backbone", default="compact")
    options = parser.parse_args()
    samples = Table(path=options.table).samples()
    test = [sample for sample in samples if sample.split == "test"]
    for images in options.images:
        for seed in options.seeds:
            source = Given()
            source.given = [*draw(samples, images, seed), *test]
            length: dict[str, Any] = {"max_epochs": 0} if options.steps == 0 else {"max_epochs": options.steps}
            begin = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                detector = train(
                    source,
                    output=Path(folder) / "model",
                    model=ModelConfig(backbone=options.backbone, image_size=(256, 256)),
                    recipe=Recipe(batch_size=8),
                    trainer=TrainerConfig(precision="bfloat16", holdout_fraction=0, **length),
                    seed=seed,
                )
            seconds = time.monotonic() - begin
            found = evaluate(detector, test)
            kept = [outcome for outcome in found.outcomes if outcome.sample.group not in options.without]
            line = {
                "images": images,
                "seed": seed,
                "steps": options.steps,
                "seconds": round(seconds, 1),
                "I-AUROC": ranking(found.outcomes),
                "I-AUROC without": ranking(kept),
                "pixels": {name: found.metrics[name].value for name in ("P-AUROC", "AUPRO", "AP-loc")},
            }
            with options.output.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)


if __name__ == "__main__":
    main()
