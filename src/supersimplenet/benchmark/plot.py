"""Plot the average precision over the number of masks, for detection and for localisation."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patheffects import withStroke

from supersimplenet.benchmark.journal import Line
from supersimplenet.benchmark.published import published_categories, published_masks
from supersimplenet.benchmark.summary import MEAN, Figure, has_all_folds
from supersimplenet.utils.files import whole_file

PANELS = {"AP-det": "Detection: AP of images, by the head", "AP-loc": "Localisation: AP of pixels"}
_INK, _GREY = "#000000", "#808080"
_TOP = 102.0  # per cent; the axis ends just above the largest possible value
_LABEL_GAP = 0.1  # share of the axis; the labels of closer points would overlap


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Values of a metric over the number of masks.

    Attributes:
        masks: numbers of masks, or shares of the bad training images that have a mask; ascending.
        mean: mean values in per cent.
        std: standard deviations in per cent; None where there is none.
    """

    masks: list[float]
    mean: list[float]
    std: list[float | None]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The data in the plot of one metric.

    Attributes:
        here: results of the regimes weak, mixed and full.
        published: the paper's results for the regime mixed; empty if there are none.
        unsupervised: result without any bad image, in per cent; None if there is no such run.
    """

    here: Curve
    published: Curve
    unsupervised: float | None


def masks_are_shares(lines: Sequence[Line]) -> bool:
    """Return whether masks are counted as shares: if published so, or if runs of one regime differ in their number."""
    published = [masks for masks, _ in published_masks(dataset=lines[0]["dataset"], metric="AP-loc", source="jims")]
    if published:
        return published[-1] == 1
    counts: dict[tuple[str, str | None], set[int]] = {}
    for line in lines:
        counts.setdefault((line["regime"], line["masks"]), set()).add(line["training_images"]["bad_with_mask"])
    return any(len(found) > 1 for found in counts.values())


def prepare_panel(lines: Sequence[Line], figures: Sequence[Figure], metric: str) -> Panel:
    """Return the points of a metric for the dataset as a whole."""
    whole = MEAN if any(figure.category == MEAN for figure in figures) else figures[0].category
    chosen = [f for f in figures if f.metric == metric and f.category == whole and f.mean is not None]
    here = sorted(
        (_masks(lines, f), 100 * f.mean, None if f.std is None else 100 * f.std)
        for f in chosen
        if f.regime != "unsupervised" and f.mean is not None
    )
    unsupervised = [100 * f.mean for f in chosen if f.regime == "unsupervised" and f.mean is not None]
    dataset, variant = lines[0]["dataset"], lines[0]["settings"]["model"]["variant"]
    known = published_categories(dataset)
    of_whole = has_all_folds(lines) and (not known or {line["category"] for line in lines} == known)
    published = published_masks(dataset=dataset, metric=metric, source=variant) if of_whole else []
    return Panel(
        here=Curve(masks=[p[0] for p in here], mean=[p[1] for p in here], std=[p[2] for p in here]),
        published=Curve(
            masks=[masks for masks, _ in published],
            mean=[100 * figure.mean for _, figure in published],
            std=[None if figure.std is None else 100 * figure.std for _, figure in published],
        ),
        unsupervised=unsupervised[0] if unsupervised else None,
    )


def draw(lines: Sequence[Line], figures: Sequence[Figure], path: Path, *, title: str) -> bool:
    """Draw AP-det and AP-loc over the number of masks, one plot above the other, so that they fit on a phone.

    Returns:
        False if nothing was drawn, because all runs are unsupervised.
    """
    panels = {metric: prepare_panel(lines, figures, metric) for metric in PANELS}
    panels = {metric: panel for metric, panel in panels.items() if panel.here.masks}
    if not panels:
        return False
    canvas = Canvas(figsize=(6, 0.7 + 3.6 * len(panels)), dpi=150, layout="constrained")
    canvas.suptitle(title, fontsize=13)
    axes = canvas.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axis, (metric, panel) in zip(axes, panels.items(), strict=True):
        _draw_panel(axis, panel)
        axis.set_title(f"{PANELS[metric]}, %", fontsize=12, loc="left")
    axes[-1].set_xlabel(
        "share of bad training images with a mask" if masks_are_shares(lines) else "bad training images with a mask",
        fontsize=12,
    )
    with whole_file(path) as temporary:
        canvas.savefig(temporary, format="png")
    return True


def _masks(lines: Sequence[Line], figure: Figure) -> float:
    images = [
        line["training_images"] for line in lines if (line["regime"], line["masks"]) == (figure.regime, figure.masks)
    ]
    if not masks_are_shares(lines):
        return float(images[0]["bad_with_mask"])
    return statistics.fmean(i["bad_with_mask"] / (i["bad_with_mask"] + i["bad_without_mask"]) for i in images)


def _draw_panel(axis: Axes, panel: Panel) -> None:
    _draw_curve(axis, panel.published, "s--", _GREY, "white", "published")
    _draw_curve(axis, panel.here, "o-", _INK, _INK, "here")
    if panel.unsupervised is not None:
        axis.axhline(panel.unsupervised, color=_INK, linestyle=":", linewidth=1.2, label="here, good images only")
    _label_points(axis, panel)
    axis.margins(x=0.08, y=0.22)
    axis.set_ylim(top=min(_TOP, axis.get_ylim()[1]))
    axis.tick_params(labelsize=11)
    axis.grid(visible=True, alpha=0.3, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axis.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda place: (labels[place] != "here", place))
    axis.legend([handles[i] for i in order], [labels[i] for i in order], fontsize=11, frameon=False, loc="best")


def _label_points(axis: Axes, panel: Panel) -> None:
    """Write the values on the side away from the published line; for close points only the first and the last value."""
    here, published = panel.here, panel.published
    gap = _LABEL_GAP * (here.masks[-1] - here.masks[0])
    labelled: list[float] = []
    for masks, mean, std in zip(here.masks, here.mean, here.std, strict=True):
        crowded = bool(labelled) and min(masks - labelled[-1], here.masks[-1] - masks) < gap
        if crowded and masks != here.masks[-1]:
            continue
        labelled.append(masks)
        other = float(np.interp(masks, published.masks, published.mean)) if published.masks else -1.0
        side = 1 if mean >= other else -1
        text = axis.annotate(
            f"{mean:.1f}",
            (masks, mean + side * (std or 0.0)),
            xytext=(0, 8 * side),
            textcoords="offset points",
            ha="center",
            va="bottom" if side > 0 else "top",
            fontsize=11,
        )
        text.set_path_effects([withStroke(linewidth=3, foreground="white")])


def _draw_curve(axis: Axes, curve: Curve, style: str, color: str, face: str, label: str) -> None:
    if not curve.masks:
        return
    spread = [0.0 if std is None else std for std in curve.std]
    axis.errorbar(
        curve.masks,
        curve.mean,
        yerr=spread if any(spread) else None,
        fmt=style,
        color=color,
        markerfacecolor=face,
        markersize=7,
        linewidth=1.8,
        capsize=4,
        label=label,
    )
