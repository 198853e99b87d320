"""Whether the escapes that are expected come true: resplits of a dataset's training images. Prints Markdown.

    python experiments/expected_escapes.py --table samples.csv --resplits 20
    python experiments/expected_escapes.py --table samples.csv --resplits 20 --steps 200

Only the training split is read. Its features are computed once. For each resplit, 30 % of it (whole parts) is put
aside; the rest is a training with held-out parts, from which the escapes of the threshold are expected as `train` and
``calibrate --cross`` do; then those put aside are counted. Without ``--steps`` the model is a subspace of the features
of good images (what is left of a position outside 99 % of their variance, mean of the ten highest), fitted in a second,
which no bad image enters. With it, heads are trained for that many steps with all labels, and models of folds tell.

For each threshold, that of the held-out parts and that of ``--folds`` folds: expected and counted escapes and false
alarms, and in how many resplits the count lies in the 95 % interval of the expected rate; and, since the parts put
aside are a sample as well, in the range that a second sample of their number would have.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from supersimplenet.datasets.base import DataSource
from supersimplenet.datasets.parts import merge_copies
from supersimplenet.datasets.splits import hold_out, split_in_folds, split_samples
from supersimplenet.datasets.table import Table
from supersimplenet.evaluation.few_parts import BadScore, FoldScores, count_escapes
from supersimplenet.metrics.cross_conformal import cross_threshold
from supersimplenet.metrics.thresholds import part_scores
from supersimplenet.model.config import ModelConfig, Recipe
from supersimplenet.preprocessing.preprocessor import ViewConfig
from supersimplenet.training.config import CacheConfig, TrainerConfig
from supersimplenet.training.distributed import SINGLE_PROCESS
from supersimplenet.training.folds import fit_fold
from supersimplenet.training.run import Labels, Ready, Run, decide_labels, gather, prepare
from supersimplenet.training.training_set import TrainingSet
from supersimplenet.types import BAD, GOOD, Sample

HIGHEST = 10  # positions whose mean is the score of an image
VARIANCE = 0.99


class Given(DataSource):
    """Samples that were put together here."""

    name = "resplits"
    given: Sequence[Sample]

    def samples(self) -> list[Sample]:
        return list(self.given)


@dataclass(frozen=True, kw_only=True)
class Features:
    """Everything that a model of some of the images needs."""

    run: Run
    labels: Labels
    ready: Ready
    training_set: TrainingSet
    samples: list[Sample]  # copies in one group
    row: list[int]  # of the unflipped view of each sample
    steps: int | None

    def scores(self, fitted: Collection[int], wanted: Sequence[int]) -> np.ndarray:
        """Scores of the wanted images by a model that was fitted on some others."""
        if self.steps is None:
            good = [place for place in fitted if self.samples[place].label == GOOD]
            mean, rest = subspace(self.positions(good).reshape(-1, self.positions(good[:1]).shape[-1]))
            residual = np.linalg.norm((self.positions(wanted) - mean) @ rest, axis=-1)
            return np.sort(np.log(residual), axis=1)[:, -HIGHEST:].mean(1)
        detector = fit_fold(
            self.run,
            self.labels,
            self.ready,
            self.training_set,
            left_out=set(range(len(self.samples))) - set(fitted),
            steps=self.steps,
            image_score=self.labels.recipe.image_score,
        )
        return np.array([p.score_logit for p in detector.predict([self.samples[place].image for place in wanted])])

    def positions(self, places: Sequence[int]) -> np.ndarray:
        """(images, positions, channels) of averaged features, the coarser maps brought onto the finest grid."""
        maps = [m.permute(0, 3, 1, 2).float() for m in self.training_set.source.features(self.rows(places))]
        pooled = [torch.nn.functional.avg_pool2d(m, 3, 1, 1, count_include_pad=False) for m in maps]
        size = pooled[0].shape[2:]
        joined = torch.cat([torch.nn.functional.interpolate(m, size, mode="bilinear") for m in pooled], 1)
        return joined.flatten(2).transpose(1, 2).double().numpy()

    def rows(self, places: Sequence[int]) -> torch.Tensor:
        return torch.tensor([self.row[place] for place in places])


def subspace(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and the directions outside the leading ones that hold 99 % of the variance."""
    mean = values.mean(0)
    variance, directions = np.linalg.eigh(np.cov(values.T))
    share = np.cumsum(variance[::-1]) / variance.sum()
    return mean, directions[:, : len(variance) - int(np.searchsorted(share, VARIANCE)) - 1]


def gathered(table: Path, size: int, steps: int | None, folder: Path) -> Features:
    source = Given()
    source.given = [sample for sample in Table(path=table).samples() if sample.split == "train"]
    run = Run(
        data=source,
        folder=folder,
        supervision="auto",
        masks=None,
        model=ModelConfig(backbone="compact", image_size=(size, size)),
        view=ViewConfig(),
        recipe=Recipe(batch_size=8),
        trainer=TrainerConfig(holdout_fraction=0.0, accelerator="cpu"),
        cache=CacheConfig(memory_gib=8),
        seed=0,
        time_budget=None,
        on_error="stop",
        started=time.monotonic(),
    )
    labels = decide_labels(run, SINGLE_PROCESS, None)
    ready = prepare(run, labels, None, SINGLE_PROCESS, None)
    training_set = gather(run, labels, ready, None)
    row_of = {
        training_set.labels.tiles[place].sample: rows[0]
        for place, rows in enumerate(training_set.source.flip_index.rows())
    }
    digests = {path: facts.pixels for path, facts in training_set.facts.items()}
    samples = merge_copies(training_set.training, digests)
    row = [row_of[place] for place in range(len(samples))]
    return Features(
        run=run, labels=labels, ready=ready, training_set=training_set, samples=samples, row=row, steps=steps
    )


def resplit(features: Features, seed: int, folds: int, rate: float) -> dict[str, list[tuple[int, int]]]:
    """For each threshold: expected escapes, counted escapes, counted false alarms, as (events, parts)."""
    place_of = {sample.image: place for place, sample in enumerate(features.samples)}
    split = split_samples(features.samples, test_fraction=0.3, seed=seed)
    aside = [place_of[sample.image] for sample in split if sample.split == "test"]
    rest = [place_of[sample.image] for sample in split if sample.split == "train"]
    of_rest = [features.samples[place] for place in rest]
    held = hold_out(of_rest, 0.2, seed)
    held_out = [rest[place] for place in sorted(held) if of_rest[place].label == GOOD]
    trained = [place for index, place in enumerate(rest) if index not in held]

    def parts(places: Sequence[int], scores: np.ndarray, label: int) -> np.ndarray:
        chosen = [index for index, place in enumerate(places) if features.samples[place].label == label]
        groups = [features.samples[places[index]].group for index in chosen]
        return part_scores(scores[chosen], groups, worst="max" if label == GOOD else "min")

    fold_of = split_in_folds([features.samples[place] for place in trained], folds, seed=seed)
    good, bad, of_held_out = [], [], []
    for fold in range(folds):
        inside = [place for place, its in zip(trained, fold_of, strict=True) if its == fold]
        outside = [place for place, its in zip(trained, fold_of, strict=True) if its != fold]
        scores = features.scores(outside, [*inside, *held_out])
        good.append(parts(inside, scores[: len(inside)], GOOD))
        of_held_out.append(parts(held_out, scores[len(inside) :], GOOD))
        bad += [
            BadScore(sample=features.samples[place], logit=float(score), fold=fold)
            for place, score in zip(inside, scores[: len(inside)], strict=True)
            if features.samples[place].label == BAD
        ]
    pooled = np.concatenate(good)
    folded = FoldScores(
        folds=folds,
        steps=features.steps or 0,
        good_logits=pooled,
        good_levels=pooled,
        images=0,
        bad=bad,
        held_out_logits=of_held_out,
    )
    own = features.scores(trained, [*held_out, *aside])
    of_aside = own[len(held_out) :]
    itself = replace(folded, held_out_logits=[parts(held_out, own[: len(held_out)], GOOD)])
    (split_threshold,) = itself.split_thresholds(max_false_alarms=0.05, confidence=0.95)
    by_fold = folded.split_thresholds(max_false_alarms=0.05, confidence=0.95)
    threshold = cross_threshold(pooled, false_alarms=rate)
    found = {}
    for name, limit, limits in (
        ("held-out parts", split_threshold, by_fold),
        (f"{folds} folds, {rate:.0%}", threshold, [threshold] * folds),
    ):
        expected = count_escapes(
            [score.sample for score in bad], [score.logit < limits[score.fold or 0] for score in bad], basis=""
        ).every
        escapes, alarms = parts(aside, of_aside, BAD) < limit, parts(aside, of_aside, GOOD) >= limit
        found[name] = [(expected.escapes, expected.parts)]
        found[name] += [(int(wrong.sum()), wrong.size) for wrong in (escapes, alarms)]
    return found


def holds(expected: tuple[int, int], counted: tuple[int, int]) -> tuple[bool, bool]:
    """Whether the count lies in the 95 % interval of the rate; and in the range of a second sample (Jeffreys)."""
    events, parts = expected
    interval = stats.binomtest(events, parts).proportion_ci(0.95, "exact")
    second = stats.betabinom(counted[1], events + 0.5, parts - events + 0.5)
    within = second.ppf(0.025) <= counted[0] <= second.ppf(0.975)
    return interval.low <= counted[0] / counted[1] <= interval.high, bool(within)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--resplits", type=int, default=20)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--false-alarms", type=float, default=0.1)
    parser.add_argument("--steps", type=int, help="train heads, with this number of steps")
    parser.add_argument("--size", type=int, default=128, help="side of the network's input, in px")
    options = parser.parse_args()
    found = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        features = gathered(options.table, options.size, options.steps, Path(folder))
        for seed in range(options.resplits):
            for name, counts in resplit(features, seed, options.folds, options.false_alarms).items():
                found[name].append(counts)
                print(seed, name, *(f"{events}/{parts}" for events, parts in counts), flush=True)
    print("\n| threshold of | expected escapes | counted | from, to | false alarms | in the interval | in the range |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, rows in found.items():
        rates = np.array([[events / parts for events, parts in row] for row in rows])
        inside = np.array([holds(row[0], row[1]) for row in rows]).sum(0)
        low, high = rates[:, 1].min(), rates[:, 1].max()
        cells = [f"{rates[:, 0].mean():.1%}", f"{rates[:, 1].mean():.1%}", f"{low:.1%} to {high:.1%}"]
        cells += [f"{rates[:, 2].mean():.1%}", *(f"{count} of {len(rows)}" for count in inside)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
