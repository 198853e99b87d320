"""How often a calibration keeps its guarantee, over many drawn calibrations of known true rates. Prints Markdown.

    python experiments/calibration_simulation.py --draws 10000

- Guarantee: good parts from a distribution, the threshold by `false_alarm_threshold`, the true false-alarm rate at it
  from the distribution itself. *Exact* is what the binomial says for continuous scores, with ties it is more.
- Fused: the score is (head + a map) / 2, a the ratio of both spreads, known beforehand or measured on the calibration
  parts themselves, over the same draws: the difference is what measuring it there costs.
- Photographs: the same with several photographs of each part, counted as parts and counted as photographs.
- Folds: a small model stands for the training, fitted without each fold in turn; a new good part is called bad by the
  models of all folds together (CV+), or by one model of all parts at the threshold of the pooled scores; and 13 more
  parts check that threshold: how often what they sign is true.
- ``--puncc``: instead, p-values against the conformal anomaly detection of puncc. It needs numpy below 2, so an
  environment of its own:

      python -m venv puncc-env
      puncc-env/bin/pip install puncc==0.9.3 "numpy<2" scipy
      PYTHONPATH=src puncc-env/bin/python experiments/calibration_simulation.py --puncc

Two minutes on one core.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
from scipy import stats

from supersimplenet.metrics.cross_conformal import cross_bound, cross_threshold
from supersimplenet.metrics.thresholds import false_alarm_threshold, part_scores, rate_upper_bound
from supersimplenet.postprocessing.calibration import p_values

CONFIDENCE = 0.95
# Parts and the guaranteed rate: the fewest parts that can guarantee it, and more.
SETTINGS = ((29, 0.1), (59, 0.05), (100, 0.05), (150, 0.05), (299, 0.01), (500, 0.01))
DISTRIBUTIONS = {
    "normal": stats.norm(),
    "exponential": stats.expon(),
    "uniform": stats.uniform(),
    "Student's t, 2": stats.t(2),
    "Poisson 1.5 (ties)": stats.poisson(1.5),
}
# Head and map are independent and alike, the map three times as wide; from light to heavy upper tails.
FUSED = {
    "normal": stats.norm(),
    "Gumbel": stats.gumbel_r(),
    "exponential": stats.expon(),
    "log-normal": stats.lognorm(1),
}
MAP_VALUES = 4000  # quantiles that stand for the map's distribution
PARTS, PHOTOGRAPHS = 59, 3
CHECKING = 13  # good parts that check the threshold of folds


def threshold(scores: np.ndarray, rate: float) -> float:
    return false_alarm_threshold(scores, max_false_alarms=rate, confidence=CONFIDENCE)


def exact(parts: int, rate: float) -> float:
    """P(the rate is kept) for continuous scores: of the bound's own rank."""
    rank = int((np.arange(parts) < threshold(np.arange(float(parts)), rate)).sum())
    return float(stats.binom.cdf(rank - 1, parts, 1 - rate))


def guarantee(draws: int, rng: np.random.Generator) -> None:
    print("| scores | good parts | at most | exact | kept | mean rate |\n| --- | --- | --- | --- | --- | --- |")
    for name, distribution in DISTRIBUTIONS.items():
        for parts, rate in SETTINGS:
            found = np.empty(draws)
            for index in range(draws):
                found[index] = threshold(distribution.rvs(size=parts, random_state=rng), rate)
            # P(S >= t); of whole numbers P(S > ceil(t) - 1).
            rates = distribution.sf(np.ceil(found) - 1 if "ties" in name else found)
            of = "at least " if "ties" in name else ""
            kept = (rates <= rate).mean()
            print(f"| {name} | {parts} | {rate:.0%} | {of}{exact(parts, rate):.4f} | {kept:.4f} | {rates.mean():.2%} |")


def spread_std(values: np.ndarray) -> float:
    return float(values.std())


def spread_quartiles(values: np.ndarray) -> float:
    lower, upper = np.quantile(values, [0.25, 0.75])
    return float(upper - lower)


def critical(distribution: Any, rate: float, scales: np.ndarray) -> np.ndarray:
    """The threshold of exactly that false-alarm rate at each scale: of h + scale m, m three times as wide as h."""
    map_max = 3 * distribution.ppf((np.arange(MAP_VALUES) + 0.5) / MAP_VALUES)  # its quantiles, equally likely
    low, high = np.full(len(scales), -50.0), np.full(len(scales), 500.0)
    for _ in range(50):
        middle = (low + high) / 2
        above = distribution.sf(middle[:, None] - scales[:, None] * map_max).mean(axis=1) > rate
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return high / 2


def fused(draws: int, rng: np.random.Generator) -> None:
    print("| head and map | good parts | at most | exact | ratio known | of standard deviations | of quartile ranges |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, distribution in FUSED.items():
        for parts, rate in ((29, 0.1), (59, 0.05), (150, 0.05), (299, 0.01)):
            scales, limits = np.empty((3, draws)), np.empty((3, draws))
            for index in range(draws):
                head, map_max = distribution.rvs(size=(2, parts), random_state=rng) * [[1], [3]]
                scales[:, index] = 1 / 3, *(spread(head) / spread(map_max) for spread in (spread_std, spread_quartiles))
                for column, scale in enumerate(scales[:, index]):
                    limits[column, index] = threshold((head + scale * map_max) / 2, rate)
            grid = np.geomspace(scales.min(), scales.max(), 200)
            kept = limits >= np.interp(scales, grid, critical(distribution, rate, grid))
            columns = " | ".join(f"{share:.4f}" for share in (exact(parts, rate), *kept.mean(axis=1)))
            print(f"| {name} | {parts} | {rate:.0%} | {columns} |", flush=True)


def photographs(draws: int, rng: np.random.Generator) -> None:
    """A part is N(0, 1), each photograph of it adds N(0, spread)."""
    node, weight = np.polynomial.hermite_e.hermegauss(80)
    groups = [str(image // PHOTOGRAPHS) for image in range(PARTS * PHOTOGRAPHS)]

    def rates(limits: list[float], spread: float, count: int) -> np.ndarray:
        below = stats.norm.cdf((np.array(limits)[:, None] - node) / spread) ** count
        return 1 - below @ weight / weight.sum()

    print("| spread of photographs | counted as | kept for parts | kept for photographs |\n| --- | --- | --- | --- |")
    for spread in (0.1, 0.5, 2.0):
        limits: dict[str, list[float]] = {f"{PARTS} parts": [], f"{PARTS * PHOTOGRAPHS} photographs": []}
        for _ in range(draws):
            parts = rng.normal(size=(PARTS, 1))
            scores = (parts + spread * rng.normal(size=(PARTS, PHOTOGRAPHS))).ravel()
            for found, of in zip(limits.values(), (part_scores(scores, groups), scores), strict=True):
                found.append(threshold(of, 0.05))
        for name, found in limits.items():
            kept = [(rates(found, spread, count) <= 0.05).mean() for count in (PHOTOGRAPHS, 1)]
            print(f"| {spread} | {name} | {kept[0]:.4f} | {kept[1]:.4f} |")


def distance(training: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Distance to the mean, in standard deviations."""
    return np.linalg.norm((parts - training.mean(0)) / training.std(0), axis=1)


def residual(training: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """What is left outside the four leading directions."""
    _, _, directions = np.linalg.svd(training - training.mean(0), full_matrices=False)
    left = parts - training.mean(0)
    return np.linalg.norm(left - left @ directions[:4].T @ directions[:4], axis=1)


def fickle(training: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """The more parts a model was fitted on, the higher it scores: models of folds say nothing of the finished one."""
    return len(training) + np.linalg.norm(parts, axis=1) / 100


def folds(draws: int, rng: np.random.Generator) -> None:
    """The rate of each draw is that of 500 new parts."""
    print("| model | good parts | folds | asked | proven | all folds (CV+) | finished model | signed is true |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for model in (distance, residual, fickle):
        for parts, count, rate in ((40, 5, 0.1), (40, 40, 0.1), (55, 5, 0.05)):
            by_folds, by_model, kept = np.empty((3, draws))
            for index in range(draws):
                known, new, check = (rng.normal(size=(size, 10)) for size in (parts, 500, CHECKING))
                fold = rng.permutation(np.arange(parts) % count)
                scores, at_least = np.empty(parts), np.zeros(len(new))
                for number in range(count):
                    inside = fold == number
                    found = model(known[~inside], np.concatenate([known[inside], new]))
                    scores[inside] = found[: inside.sum()]
                    at_least += (scores[inside, None] >= found[inside.sum() :]).sum(0)
                by_folds[index] = ((1 + at_least) / (parts + 1) <= rate).mean()
                limit = cross_threshold(scores, false_alarms=rate)
                by_model[index] = (model(known, new) >= limit).mean()
                signed = rate_upper_bound(int((model(known, check) >= limit).sum()), CHECKING, CONFIDENCE)
                kept[index] = by_model[index] <= signed
            proven = cross_bound(parts, count, false_alarms=rate)
            cells = f"{by_folds.mean():.2%} | {by_model.mean():.2%} | {kept.mean():.4f}"
            print(f"| {model.__name__} | {parts} | {count} | {rate:.0%} | {proven:.1%} | {cells} |", flush=True)


def against_puncc(rng: np.random.Generator) -> None:
    """Its verdict at level a against ours, p-value at most a, with and without ties; they must be the same.

    Levels lie off the multiples of 1 / (n + 1), where its quantile's level is rounded in floating point.
    """
    from deel.puncc.anomaly_detection import SplitCAD
    from deel.puncc.api.prediction import BasePredictor

    class Given(BasePredictor):
        def fit(self, *_: object, **__: object) -> None:
            """Scores are given: nothing to learn."""

        def predict(self, scores: np.ndarray) -> np.ndarray:
            return scores[:, 0]

    compared = different = 0
    for parts in (20, 59, 150, 299):
        for digits in (1, 9):
            calibration, new = np.round(rng.normal(size=parts), digits), np.round(rng.normal(size=2000) + 1, digits)
            detector = SplitCAD(Given(None, is_trained=True), train=False)
            detector.fit(z_calib=calibration[:, None])
            p = p_values(new, calibration)
            for level in (np.arange(1, parts) + 0.5) / (parts + 1):
                different += int((detector.predict(new[:, None], alpha=float(level)) != (p <= level)).sum())
                compared += new.size
    print(f"{compared:,} verdicts compared, {different:,} differ")
    if different:
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10_000, help="calibrations for each row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--puncc", action="store_true", help="compare p-values with puncc instead")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    if options.puncc:
        against_puncc(rng)
        return
    noise = 2 * math.sqrt(0.95 * 0.05 / options.draws)
    print(f"{options.draws:,} draws, {CONFIDENCE:.0%} confidence; two standard deviations are {noise:.4f}\n")
    guarantee(options.draws, rng)
    print("\nFused scores\n")
    fused(options.draws, rng)
    print(f"\n{PARTS} parts of {PHOTOGRAPHS} photographs, at most 5 %\n")
    photographs(options.draws, rng)
    print(f"\nFolds, {max(options.draws // 20, 20):,} draws\n")
    folds(max(options.draws // 20, 20), rng)


if __name__ == "__main__":
    main()
