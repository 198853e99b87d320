"""What suits each regime of supervision, told by training images alone; and what a detector makes of a type of defect
that it was never shown.

    python experiments/supervision_study.py --table samples.csv --output runs.jsonl --fold 0/4 --supervision weak
    python experiments/supervision_study.py --table samples.csv --output runs.jsonl --leave-out crack
    python experiments/supervision_study.py --table samples.csv --output runs.jsonl --leave-out crack --fold 0/4
    python experiments/supervision_study.py --table samples.csv --output runs.jsonl --model bench/runs/*/model

``--fold I/N`` trains on the training split but for the I-th of N parts of its groups, and tests on that part: the test
split is never opened. ``--leave-out TYPE`` trains on the whole training split but for one type of defect, and tests on
the test split, type by type; with ``--fold`` on that part of the training split instead. ``--model`` tests on the test
split with models that are trained already, as they are and without the test images of parts that were trained on under
another name (``--without GROUP``). Each appends a line: settings, metrics of each image score by type, every image's
scores, from which other ways to fuse can be tried, and the metrics of the pixels with several shares of the subspace in
the anomaly map.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from supersimplenet.datasets.base import DataSource
from supersimplenet.datasets.table import Table
from supersimplenet.evaluation.evaluate import evaluate
from supersimplenet.evaluation.results import Evaluation, Outcome
from supersimplenet.inference.detector import Detector
from supersimplenet.metrics.ranking import auroc, average_precision
from supersimplenet.model.config import ModelConfig, Recipe
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.train import train
from supersimplenet.types import BAD, GOOD, SCORE_FIELDS, Sample
from supersimplenet.utils.seeding import derive_seed

SHARES = (0.25, 0.5)  # of the subspace in the anomaly map, beside the model's own share
PIXELS = ("P-AUROC", "AUPRO", "AP-loc")


class Given(DataSource):
    """Samples that were put together here."""

    name = "study"
    given: Sequence[Sample]

    def samples(self) -> list[Sample]:
        return list(self.given)


def hold_out_fold(samples: list[Sample], part: int, parts: int) -> list[Sample]:
    """The training split alone, the groups of one part as its test split; parts hold like numbers of each type."""
    training = [sample for sample in samples if sample.split == "train"]
    types: dict[str, set[str]] = {}
    for sample in training:
        types.setdefault(sample.group or str(sample.image), set()).add(sample.defect)
    held: set[str] = set()
    for kind in sorted({tuple(sorted(kinds)) for kinds in types.values()}):
        alike = [name for name, kinds in types.items() if tuple(sorted(kinds)) == kind]
        alike.sort(key=lambda name: derive_seed(0, "fold", name))
        held |= set(alike[part::parts])
    return [replace(s, split="test") if (s.group or str(s.image)) in held else s for s in training]


def leave_out(samples: list[Sample], defect: str) -> list[Sample]:
    """Both splits, without the training images of a type."""
    return [sample for sample in samples if sample.split == "test" or sample.defect != defect]


def by_type(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """AUROC and AP of each score, of each type against all good images, and of all types."""
    good = [outcome for outcome in outcomes if outcome.sample.label == GOOD]
    bad = [outcome for outcome in outcomes if outcome.sample.label == BAD]
    result = {}
    for name in ["all", *sorted({outcome.sample.defect for outcome in bad})]:
        chosen = good + [outcome for outcome in bad if name in ("all", outcome.sample.defect)]
        label = [outcome.sample.label for outcome in chosen]
        result[name] = {"images": float(sum(label))}
        for score, attribute in SCORE_FIELDS.items():
            values = [getattr(outcome, attribute) for outcome in chosen]
            result[name][f"{score} AUROC"] = auroc(values, label)
            result[name][f"{score} AP"] = average_precision(values, label)
    return result


def line_of(evaluation: Evaluation) -> dict[str, Any]:
    """Metrics, by type too, and every image's scores."""
    return {
        "metrics": {name: metric.value for name, metric in evaluation.metrics.items()},
        "by_type": by_type(evaluation.outcomes),
        "images": [
            {"image": str(outcome.sample.image), "defect": outcome.sample.defect}
            | {name: getattr(outcome, name) for name in SCORE_FIELDS.values()}
            for outcome in evaluation.outcomes
        ],
    }


def with_shares(detector: Detector, samples: Sequence[Sample]) -> dict[str, Any]:
    """Metrics of the pixels by share of the subspace in the anomaly map."""
    found = {}
    for share in SHARES:
        scale = replace(detector.score_scale, shown_weight=share)
        other = Detector(
            detector.network,
            image_score=detector.image_score,
            score_scale=scale,
            preprocessor=detector.preprocessor,
        )
        metrics = evaluate(other, samples).metrics
        found[str(share)] = {name: metrics[name].value for name in PIXELS}
    return found


def append(path: Path, line: dict[str, Any]) -> None:
    """Add a line to the results and print the gist of it."""
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    gist = {name: round(value or 0, 3) for name, value in line["metrics"].items()}
    print({name: value for name, value in line.items() if not isinstance(value, dict | list)}, gist, flush=True)


def look(models: Sequence[Path], samples: list[Sample], without: Sequence[str], output: Path) -> None:
    """A line for each trained model, on the test split without the images of some groups."""
    given = [sample for sample in samples if sample.group not in without]
    for folder in models:
        evaluation = evaluate(Detector.load(folder), given)
        append(output, {"model": str(folder), "without": list(without), **line_of(evaluation)})


def study(options: argparse.Namespace, samples: list[Sample]) -> None:
    """Train once and look once."""
    source = Given()
    if options.fold:
        part, parts = map(int, options.fold.split("/"))
        samples = hold_out_fold(samples, part, parts)
    source.given = leave_out(samples, options.leave_out) if options.leave_out else samples
    names = ("fold", "leave_out", "supervision", "masks", "flips", "steps", "batch", "backbone", "seed")
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        detector = train(
            source,
            output=options.keep or Path(folder) / "model",
            supervision=options.supervision,
            masks=options.masks,
            model=ModelConfig(backbone=options.backbone, image_size=(256, 256)),
            recipe=Recipe(batch_size=options.batch, flips=options.flips),
            trainer=TrainerConfig(max_steps=options.steps, precision="bfloat16"),
            seed=options.seed,
        )
    line = {
        **{name: getattr(options, name) for name in names},
        "regime": detector.record["training"]["regime"],
        "seconds": round(time.monotonic() - begin, 1),
        "score_scale": detector.record["score_scale"],
    }
    line |= {**line_of(evaluate(detector, source.samples()))}
    append(options.output, {**line, "shares": with_shares(detector, source.samples())})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--fold", help="such as 0/4; without, tests on the test split")
    parser.add_argument("--leave-out", help="a type of defect")
    parser.add_argument("--model", type=Path, nargs="+", help="model folders, to test as they are")
    parser.add_argument("--keep", type=Path, help="where to leave the model folder; by default it is removed")
    parser.add_argument("--without", nargs="*", default=[], help="groups of test images to pass over, with --model")
    parser.add_argument("--supervision", default="auto")
    parser.add_argument("--masks", help="with mixed, as for the train command")
    parser.add_argument("--flips", default="symmetric", choices=("none", "published", "symmetric"))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--backbone", default="compact")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    samples = Table(path=options.table).samples()
    if options.model:
        look(options.model, samples, options.without, options.output)
    else:
        study(options, samples)


if __name__ == "__main__":
    main()
