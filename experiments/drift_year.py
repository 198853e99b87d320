"""How often the station's test of drift alarms in a year without drift, and how soon after a change.

    python experiments/drift_year.py --streams 100 --parts 100000 --output drift.jsonl

Each stream is a year of good parts that are exchangeable, after a calibration with 12, 60 or 300 parts. Beside it, on
the first 5,000 of them, the same bets on p-values from a comparison with the calibration's parts alone, which are not
independent.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from supersimplenet.metrics.drift import DriftTest

ALARM = 1000.0
KNOWN = (12, 60, 300)
DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda draw, number: draw.normal(size=number),
    "heavy tails": lambda draw, number: draw.standard_t(2, size=number),
    "steps": lambda draw, number: np.round(draw.gamma(2.0, size=number), 1),
}


def highest(test: DriftTest, values: np.ndarray) -> float:
    """Return the highest capital over a stream of a year."""
    reached = 1.0
    for value in values:
        test.add(float(value), year_share=1 / len(values))
        reached = max(reached, test.capital)
    return reached


def fixed_highest(known: np.ndarray, values: np.ndarray, seed: int) -> float:
    """Return the highest capital where each value is compared with the known ones alone."""
    test, ordered, lots = DriftTest(seed=seed), np.sort(known), np.random.default_rng(seed)
    larger = len(ordered) - np.searchsorted(ordered, values, "right")
    equal = 1 + np.searchsorted(ordered, values, "right") - np.searchsorted(ordered, values, "left")
    p_values = (larger + lots.random(len(values)) * equal) / (len(ordered) + 1)
    reached = 1.0
    for p in p_values:
        test.bet(float(p), year_share=1 / len(values))
        reached = max(reached, test.capital)
        if reached >= ALARM:
            break
    return reached


def delay(draw: np.random.Generator, known: int, before: int, shift: float, seed: int) -> int | None:
    """Return the number of parts after a change until the alarm; None for none within 20,000."""
    test = DriftTest(seed=seed, known=draw.normal(size=known))
    for value in draw.normal(size=before):
        test.add(float(value), year_share=1e-5)
    for number, value in enumerate(draw.normal(loc=shift, size=20_000), start=1):
        test.add(float(value), year_share=1e-5)
        if test.capital >= ALARM:
            return number
    return None


def main() -> None:
    """Simulate, and append a line for each row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--parts", type=int, default=100_000)
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, appended to")
    options = parser.parse_args()
    with options.output.open("a", encoding="utf-8") as file:

        def write(**row: object) -> None:
            file.write(json.dumps(row) + "\n")
            file.flush()

        for known in KNOWN:
            for shift in (0.5, 1.0, 2.0, 4.0):
                for before in (100, 10_000):
                    draw = np.random.default_rng((known, before, round(10 * shift)))
                    delays = [delay(draw, known, before, shift, seed) for seed in range(20)]
                    write(known=known, before=before, shift=shift, delays=delays)
        for known in KNOWN:
            for number in range(options.streams):
                name = list(DISTRIBUTIONS)[number % len(DISTRIBUTIONS)]
                draw = np.random.default_rng((known, number))
                first, values = (DISTRIBUTIONS[name](draw, size) for size in (known, options.parts))
                online = highest(DriftTest(seed=number, known=first), values)
                fixed = fixed_highest(first, values[:5000], number)
                write(known=known, stream=number, distribution=name, online=online, fixed=fixed)


if __name__ == "__main__":
    main()
