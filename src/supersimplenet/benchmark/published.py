"""Read the published figures, which are part of the package."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_FILE = "published_results.csv"
_MEAN = "mean"  # the mean over categories, and the only category of a dataset without categories


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published figure.

    Attributes:
        source: ``jims`` or ``icpr`` for the papers, ``anomalib-jims`` or ``anomalib-icpr`` for anomalib.
        mean: mean over the source's runs, as a fraction of 1.
        std: standard deviation over the source's runs; None if the source gives none.
    """

    source: str
    mean: float
    std: float | None


Place = tuple[str, str, str | None, str, str]  # dataset, regime, masks, category, metric


def published_figures(
    *, dataset: str, regime: str, masks: str | None, category: str | None, metric: str
) -> dict[str, Published]:
    """Return the values that the sources publish for one figure.

    Args:
        dataset: name of the data source's class.
        regime: regime of supervision.
        masks: masks of the mixed regime, a number or a share, as in the dataset's split files; None for other regimes.
        category: category of the dataset; None for the mean over its categories, and for a dataset without any.
        metric: name of the metric as in metrics.json.

    Returns:
        Published figures by source; empty if nothing is published.
    """
    return dict(_table().get((dataset, regime, masks, category or _MEAN, metric), {}))


def published_masks(*, dataset: str, metric: str, source: str) -> list[tuple[float, Published]]:
    """Return the published figures of the mixed regime, mean over categories, ascending by number or share of masks."""
    found = [
        (float(place[2] or 0), figures[source])
        for place, figures in _table().items()
        if (place[0], place[1], place[3], place[4]) == (dataset, "mixed", _MEAN, metric) and source in figures
    ]
    return sorted(found, key=lambda pair: pair[0])


def published_datasets() -> set[str]:
    """Return the names of the datasets that results are published for."""
    return {place[0] for place in _table()}


def published_categories(dataset: str) -> set[str]:
    """Return the categories that a dataset's results are published for; empty if it has none."""
    return {place[3] for place in _table() if place[0] == dataset} - {_MEAN}


@cache
def _table() -> Mapping[Place, Mapping[str, Published]]:
    table: dict[Place, dict[str, Published]] = {}
    with (files("supersimplenet.benchmark") / _FILE).open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            masks = row["masks"] or None
            if row["dataset"] == "SensumSODF" and masks == "1":
                masks = "1.0"  # a share; `mixed:1` is one mask
            place = (row["dataset"], row["regime"], masks, row["category"], row["metric"])
            figure = Published(
                source=row["source"], mean=float(row["mean"]), std=float(row["std"]) if row["std"] else None
            )
            table.setdefault(place, {})[figure.source] = figure
    return table
