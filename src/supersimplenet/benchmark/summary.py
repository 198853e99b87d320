"""Compute means and standard deviations over the runs, with the published figures."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supersimplenet.benchmark.journal import METRICS, Line
from supersimplenet.benchmark.published import Published, published_categories, published_figures
from supersimplenet.benchmark.runs import FOLDS
from supersimplenet.preprocessing.listing import natural_key

MEAN = "mean"
_REGIMES = ("unsupervised", "weak", "mixed", "full")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One value of the table.

    Attributes:
        regime: regime of supervision.
        masks: masks as written in the regime, a number or a share; None if not written.
        masks_from: how the masks were chosen.
        category: category of the dataset; ``mean`` for the mean over its categories.
        metric: name of the metric as in metrics.json.
        n: number of seeds that have a value for each category and fold.
        mean: mean over those seeds, as a fraction of 1; None if there is no such seed.
        std: sample standard deviation over those seeds; None for fewer than two seeds.
        published: the paper's figure for the same variant of the network; None if not published.
        anomalib: anomalib's figure for the same variant; None if not published.
    """

    regime: str
    masks: str | None
    masks_from: str | None
    category: str
    metric: str
    n: int
    mean: float | None
    std: float | None
    published: Published | None = None
    anomalib: Published | None = None

    @property
    def supervision(self) -> str:
        """Regime and masks as written on the command line."""
        return written(self.regime, self.masks)

    def difference(self, other: Published | None) -> float | None:
        """Return the mean minus a published mean; None if one of the two is missing."""
        return None if other is None or self.mean is None else self.mean - other.mean


def written(regime: str, masks: str | None) -> str:
    """Return a regime as written on the command line."""
    return regime if masks is None else f"{regime}:{masks}"


def summarise(lines: Sequence[Line]) -> list[Figure]:
    """Return all figures of one benchmark, computed from the lines of its runs.

    A category's value for a seed is the mean over its folds; the dataset's value is the mean over its categories. Mean
    and standard deviation are then taken over the seeds. A seed counts only if each category and fold has a value. A
    published figure stands beside only if every fold was run.

    Returns:
        Figures by regime, the least supervised first; the mean over categories comes first if there are several.
    """
    categories = sorted({line["category"] for line in lines}, key=lambda name: natural_key(Path(name)))
    figures, all_folds = [], has_all_folds(lines)
    for regime, masks, masks_from in _supervisions(lines):
        chosen = [line for line in lines if (line["regime"], line["masks"]) == (regime, masks)]
        shown = [MEAN, *categories] if len(categories) > 1 else categories
        for category in shown:
            over = categories if category == MEAN else [category]
            for metric in METRICS:
                values = _of_seeds(chosen, metric, over, folds={line["fold"] for line in lines})
                if not any(metric in line["metrics"] for line in chosen if line["category"] in over):
                    continue
                figures.append(
                    Figure(
                        regime=regime,
                        masks=masks,
                        masks_from=masks_from,
                        category=category,
                        metric=metric,
                        n=len(values),
                        mean=statistics.fmean(values) if values else None,
                        std=statistics.stdev(values) if len(values) > 1 else None,
                        **(_beside(lines[0], regime, masks, category, metric, categories) if all_folds else {}),
                    )
                )
    return figures


def has_all_folds(lines: Sequence[Line]) -> bool:
    """Return whether every fold of the dataset was run, or it has none: published figures are means over all folds."""
    folds = {line["fold"] for line in lines}
    return folds == {None} or folds == set(FOLDS)


def _supervisions(lines: Sequence[Line]) -> list[tuple[str, str | None, str | None]]:
    """Return each combination of regime, masks and choice of masks, the least supervised first."""
    found: dict[tuple[str, str | None, str | None], list[int]] = {}
    for line in lines:
        place = (line["regime"], line["masks"], line["masks_from"])
        found.setdefault(place, []).append(line["training_images"]["bad_with_mask"])
    return sorted(found, key=lambda place: (_REGIMES.index(place[0]), statistics.fmean(found[place])))


def _of_seeds(lines: Sequence[Line], metric: str, categories: Sequence[str], folds: set[int | None]) -> list[float]:
    """Return a value for each seed that has values for all categories and folds."""
    values = {
        (line["seed"], line["category"], line["fold"]): line["metrics"].get(metric)
        for line in lines
        if line["metrics"].get(metric) is not None
    }
    means = []
    for seed in sorted({line["seed"] for line in lines}):
        wanted = [(seed, category, fold) for category in categories for fold in folds]
        if all(place in values for place in wanted):
            means.append(statistics.fmean(values[place] for place in wanted))  # all categories have equally many folds
    return means


def _beside(
    line: Line, regime: str, masks: str | None, category: str, metric: str, categories: Sequence[str]
) -> dict[str, Any]:
    """Return the published figures. A mean over categories has them only if it is over the published categories."""
    known = published_categories(line["dataset"])
    if category == MEAN and set(categories) != known:
        return {}
    found = published_figures(
        dataset=line["dataset"],
        regime=regime,
        masks=masks,
        category=None if category == MEAN or not known else category,
        metric=metric,
    )
    variant = line["settings"]["model"]["variant"]
    return {"published": found.get(variant), "anomalib": found.get(f"anomalib-{variant}")}
