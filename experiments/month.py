"""A month of answers: which photographs a person is asked about, and what the model makes of the answers.

    python experiments/month.py --table samples.csv --output month.jsonl --keep months --arms queue random

The training split is the stream. A line begins with 30 good photographs; all others wait without a label, and a person
answers 20 a day, from the labels: good or bad, and for a tenth of the bad ones a mask. After each of ``--answers``
answers the model is trained anew on all labels so far, its threshold is set by the good parts that it held out, and it
chooses what is asked next. The test split is opened for the figures alone. An arm is a way to choose:

    queue      what the station's page Review asks, by the scores of the model so far
    random     any
    highest    the highest score first
    uncertain  the score nearest to the threshold first
    coreset    what is farthest, in the features, from all that is labelled (k-center, greedy)

``all`` is the model of all labels at once. ``--bad-share 0.03`` leaves out bad photographs, as most lines make few.
Each line holds the figures after so many answers; a run that is started again goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from supervision_study import Given

from supersimplenet.datasets.table import Table
from supersimplenet.evaluation.evaluate import evaluate
from supersimplenet.evaluation.results import Evaluation
from supersimplenet.inference.detector import Detector
from supersimplenet.model.config import ModelConfig, Recipe
from supersimplenet.runtime.predictor import IndexedPrediction
from supersimplenet.station.review.queue import WrongVerdicts, by_scores, in_turns
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.train import train
from supersimplenet.types import BAD, GOOD, SCORE_FIELDS, Sample

FIRST = 30
A_DAY = 20
MASKED = 0.1  # of the bad ones
Record = dict[str, Any]


def trained(month: Month, start: Path | None) -> tuple[Detector, Path]:
    """A model of the labels so far, with a threshold by the good parts that it held out; made once for equal labels."""
    options = month.options
    settings = [
        sorted(str(month.stream[place].image) for place in month.labelled),
        options.steps,
        options.size,
        options.warm_steps if start else 0,
        str(start),
    ]
    folder = options.keep / f"{month.seed}-{sha256(json.dumps(settings).encode()).hexdigest()[:12]}"
    if (folder / "calibration.yaml").is_file():
        return Detector.load(folder), folder
    source = Given()
    source.given = month.known()
    steps = options.warm_steps if start else options.steps
    detector = train(
        source,
        output=folder,
        model=ModelConfig(backbone="compact", image_size=(options.size, options.size)),
        recipe=Recipe(batch_size=8),
        trainer=TrainerConfig(max_epochs=steps, max_steps=steps, escapes_share=0, logger="none"),
        seed=month.seed,
        warm_start=start,
    )
    return detector, folder


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """The metrics that the issue asks for, and what passes the guaranteed threshold."""
    names = ("I-AUROC", "AP-det", "P-AUROC", "AUPRO", "AP-loc")
    bad, good = evaluation.counts(BAD), evaluation.counts(GOOD)
    return {name: evaluation.metrics[name].value for name in names if name in evaluation.metrics} | {
        "escapes": bad["good"],
        "bad": sum(bad.values()),
        "false_alarms": good["bad"],
        "good": sum(good.values()),
        "calibrated": evaluation.calibration is not None,
    }


def records_of(detector: Detector, samples: Sequence[Sample]) -> list[Record]:
    """What the station keeps of each photograph."""
    found = []
    for item in detector.predict_files([sample.image for sample in samples]):
        assert isinstance(item, IndexedPrediction)
        prediction = item.prediction
        row = {field: getattr(prediction, field) for field in SCORE_FIELDS.values()}
        found.append({
            "id": str(samples[item.index].image),
            "model": "model",
            "verdict": prediction.verdict,
            "score": prediction.score,
            "score_logit": prediction.score_logit,
            "review": None,
            "row": row,
        })  # fmt: skip
    return found


def farthest(features: NDArray[np.float32], labelled: Sequence[int], waiting: Sequence[int], count: int) -> list[int]:
    """The k-center choice, one after the other. Source: Sener, Savarese, ICLR 2018, algorithm 1."""
    nearest = np.min([np.linalg.norm(features[list(waiting)] - features[place], axis=1) for place in labelled], axis=0)
    chosen = []
    for _ in range(min(count, len(waiting))):
        best = int(np.argmax(nearest))
        chosen.append(waiting[best])
        nearest = np.minimum(nearest, np.linalg.norm(features[list(waiting)] - features[waiting[best]], axis=1))
    return chosen


@torch.inference_mode()
def pooled_features(detector: Detector, samples: Sequence[Sample]) -> NDArray[np.float32]:
    """The mean over the picture of each feature of the backbone, of unit deviation."""
    rows = []
    for sample in samples:
        pixels = torch.from_numpy(detector.preprocessor.prepare(sample.image).pixels[None])
        rows.append(np.concatenate([layer.mean(dim=(2, 3))[0].numpy() for layer in detector.network.backbone(pixels)]))
    found = np.stack(rows)
    return (found - found.mean(axis=0)) / (found.std(axis=0) + 1e-6)


def with_bad_share(stream: list[Sample], share: float, rng: np.random.Generator) -> list[Sample]:
    """The stream with so few bad photographs, drawn by chance, that they are this share of it."""
    bad = [place for place, sample in enumerate(stream) if sample.label == BAD]
    good = len(stream) - len(bad)
    left_out = set(rng.permutation(bad)[round(share / (1 - share) * good) :].tolist())
    return [sample for place, sample in enumerate(stream) if place not in left_out]


class Month:
    """One arm with one seed: what is labelled, what waits."""

    def __init__(self, samples: list[Sample], arm: str, seed: int, options: argparse.Namespace) -> None:
        self.arm, self.seed, self.options = arm, seed, options
        self.stream = [sample for sample in samples if sample.split == "train"]
        self.test = [sample for sample in samples if sample.split == "test"]
        self.rng = np.random.default_rng(seed)
        if options.bad_share is not None:
            self.stream = with_bad_share(self.stream, options.bad_share, np.random.default_rng(seed))
        good = [place for place, sample in enumerate(self.stream) if sample.label == GOOD]
        self.labelled = sorted(self.rng.choice(good, FIRST, replace=False).tolist())
        # Every tenth bad photograph gets a mask, whatever is asked in between: the same for all arms
        bad = [place for place, sample in enumerate(self.stream) if sample.label == BAD]
        self.masked = set(self.rng.permutation(bad)[: round(MASKED * len(bad))].tolist())
        self.features: NDArray[np.float32] | None = None

    @property
    def waiting(self) -> list[int]:
        known = set(self.labelled)
        return [place for place in range(len(self.stream)) if place not in known]

    @property
    def answers(self) -> int:
        return len(self.labelled) - FIRST

    def known(self) -> list[Sample]:
        """The labels so far."""
        found = [self.stream[place] for place in self.labelled]
        kept = [self.stream[place].image for place in self.labelled if place in self.masked]
        weak = [sample.label == BAD and sample.image not in kept for sample in found]
        return [
            replace(sample, mask=None, pixel_labels_known=False) if is_weak else sample
            for sample, is_weak in zip(found, weak, strict=True)
        ]

    def choose(self, detector: Detector, count: int) -> list[int]:
        waiting = self.waiting
        if self.arm in ("random", "all") or count >= len(waiting):
            return self.rng.permutation(waiting)[:count].tolist()
        if self.arm == "coreset":
            if self.features is None:
                self.features = pooled_features(detector, self.stream)
            return farthest(self.features, self.labelled, waiting, count)
        records = records_of(detector, [self.stream[place] for place in waiting])
        order = {record["id"]: place for record, place in zip(records, waiting, strict=True)}
        if self.arm == "highest":
            records.sort(key=lambda record: -record["score_logit"])
        elif self.arm == "uncertain":
            records.sort(key=lambda record: abs(record["score_logit"] - detector.calibration.threshold_logit))
        else:
            answered = records_of(detector, [self.stream[place] for place in self.labelled])
            for record, place in zip(answered, self.labelled, strict=True):
                record["review"] = "bad" if self.stream[place].label == BAD else "good"
            wrong = WrongVerdicts.of(answered)
            chosen = [record for record, _ in in_turns(by_scores(records, [*records, *answered], wrong))]
            records = list({record["id"]: record for record in chosen}.values())
        return [order[record["id"]] for record in records[:count]]


def run(month: Month, done: dict[int, Record], options: argparse.Namespace) -> None:
    """Go on with a month; ``done`` holds its lines so far."""
    targets = [min(target, len(month.stream) - FIRST) for target in options.answers]
    if month.arm == "all":
        targets = [len(month.stream) - FIRST]
        month.labelled = list(range(len(month.stream)))
    detector, before = None, None
    for target in targets:
        if (line := done.get(target)) is not None:
            month.labelled, detector, before = line["labelled"], None, Path(line["model"])
            continue
        if target > month.answers:
            if detector is None:  # the run was started again
                detector, _ = trained(month, None)
            month.labelled = [*month.labelled, *month.choose(detector, target - month.answers)]
        begin = time.monotonic()
        detector, before = trained(month, before if options.warm_steps else None)
        seconds = time.monotonic() - begin
        known = month.known()
        line = {
            "arm": month.arm,
            "seed": month.seed,
            "answers": target,
            "bad_labels": sum(sample.label == BAD for sample in known),
            "masks": sum(sample.mask is not None for sample in known),
            "steps": options.steps,
            "warm_steps": options.warm_steps,
            "size": options.size,
            "bad_share": options.bad_share,
            "seconds": round(seconds, 1),
            **figures(evaluate(detector, month.test)),
            "labelled": month.labelled,
            "model": str(before),
        }
        with options.output.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print({name: value for name, value in line.items() if name not in ("labelled", "model")}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--arms", nargs="+", default=["queue", "random", "all"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--answers", type=int, nargs="+", default=[0, 20, 50, 100, 200, 433], help="after which to train"
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--warm-steps", type=int, default=0, help="steps from the model before; 0: each from scratch")
    parser.add_argument(
        "--keep", type=Path, required=True, help="where the models are left, so that none is made twice"
    )
    parser.add_argument("--bad-share", type=float, help="of the stream; by default all, 29 %% of it")
    parser.add_argument("--size", type=int, default=256, help="height and width of the network's input in px")
    options = parser.parse_args()
    samples = Table(path=options.table).samples()
    lines = [json.loads(line) for line in options.output.open()] if options.output.is_file() else []
    for seed in options.seeds:
        for arm in options.arms:
            done = {line["answers"]: line for line in lines if (line["arm"], line["seed"]) == (arm, seed)}
            run(Month(samples, arm, seed, options), done, options)


if __name__ == "__main__":
    main()
