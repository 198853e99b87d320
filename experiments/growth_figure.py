"""The figure of growth.py: small multiples, time on the left and memory on the right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

Row = dict[str, Any]
COLORS = {"inference": "#1f6fb4", "training step": "#d1662b", "predict": "#1f6fb4", "training cache": "#d1662b"}
MIN_MIB = 1.0  # what a logarithmic axis shows of less


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one kind along one variable, and by which power of it time and memory would grow in proportion."""

    what: str
    along: str
    fixed: dict[str, int]
    label: str
    time_power: float
    memory_power: float

    def rows(self, rows: list[Row]) -> list[Row]:
        wanted = {"what": self.what, **self.fixed}
        mine = [r for r in rows if self.along in r["point"] and all(r["point"].get(k) == v for k, v in wanted.items())]
        return sorted(mine, key=lambda row: row["point"][self.along])


def panels(threads: int) -> list[tuple[str, str, str, list[Series]]]:
    """Name and unit of the horizontal axis, unit of time, series; a row of the figure each."""

    def series(
        what: str, along: str, label: str, time_power: float, memory_power: float, *, every: int = threads, **fixed: int
    ) -> Series:
        at = fixed if along == "threads" else {**fixed, "threads": every}
        return Series(what=what, along=along, fixed=at, label=label, time_power=time_power, memory_power=memory_power)

    ms, s = "ms an image", "seconds per 1000 images"
    return [
        (
            "image size",
            "height and width, pixels",
            ms,
            [
                series("inference", "size_px", "inference, batch 1", 2, 2, batch=1),
                series("training step", "size_px", "training step, batch 2", 2, 2, batch=2),
            ],
        ),
        (
            "batch",
            "images in a batch",
            ms,
            [
                series("inference", "batch", "inference, 256 px", 0, 0, size_px=256),
                series("training step", "batch", "training step, 128 px", 0, 1, size_px=128),
            ],
        ),
        (
            "threads",
            "threads",
            ms,
            [
                series("inference", "threads", "inference, 256 px, batch 1", -1, 0, size_px=256, batch=1),
                series("training step", "threads", "training step, 256 px, batch 8", -1, 0, size_px=256, batch=8),
            ],
        ),
        (
            "number of files",
            "image files (64 px to the network)",
            s,
            [
                series("predict", "images", "predict, file to table", 0, 0),
                series("training cache", "images", "training cache, file to features", 0, 1),
            ],
        ),
    ]


def draw(rows: list[Row], path: Path, *, threads: int) -> None:
    plots = panels(threads)
    figure, axes = plt.subplots(len(plots), 2, figsize=(10, 3.1 * len(plots) + 0.6), dpi=100, layout="constrained")
    figure.get_layout_engine().set(hspace=0.06)
    figure.suptitle(
        f"How cost grows: backbone compact, torch, float32, on {threads} thread(s) of a CPU unless stated\n"
        "dashed: growth in proportion to the work; dotted: what the training cache itself holds",
        fontsize=11,
    )
    for (time_axis, memory_axis), (against, along, unit, series) in zip(axes, plots, strict=True):
        for one in series:
            mine = one.rows(rows)
            if mine:
                draw_one(time_axis, one, mine, seconds, one.time_power)
                draw_one(memory_axis, one, mine, added_mib, one.memory_power)
        time_axis.set_title(f"Time against {against}: {unit}", fontsize=10)
        memory_axis.set_title(f"Memory against {against}: MiB added at the peak", fontsize=10)
        for axis in (time_axis, memory_axis):
            finish(axis, along)
        time_axis.legend(fontsize=9, frameon=False)
    figure.savefig(path)
    plt.close(figure)


def seconds(row: Row) -> float:
    return float(row["ms_per_image"] if "ms_per_image" in row else row["seconds_per_1000"])


def added_mib(row: Row) -> float:
    return max(MIN_MIB, float(row["peak_mib"] - row["resting_mib"]))


def draw_one(axis: Axes, series: Series, rows: list[Row], value: Callable[[Row], float], power: float) -> None:
    color = COLORS[series.what]
    along = [row["point"][series.along] for row in rows]
    values = [value(row) for row in rows]
    axis.plot(along, values, "o-", color=color, markersize=4, linewidth=1.5, label=series.label)
    if value is added_mib and "cache_mib" in rows[0]:
        axis.plot(along, [row["cache_mib"] for row in rows], ":", color=color, linewidth=1.5)
    else:
        expected = [values[0] * (x / along[0]) ** power for x in along]
        axis.plot(along, expected, "--", color=color, linewidth=1, alpha=0.55)
    axis.annotate(
        f"{values[-1]:,.3g}" if values[-1] < 100 else f"{values[-1]:,.0f}",
        (along[-1], values[-1]),
        xytext=(6, 0),
        textcoords="offset points",
        color=color,
        fontsize=9,
        va="center",
    )


def finish(axis: Axes, along: str) -> None:
    """Logarithmic, a tick at each measured place, and no values of an axis that runs over less than a decade lost."""
    axis.set_xscale("log", base=10)
    axis.set_yscale("log")
    places = sorted({float(x) for line in axis.lines for x in line.get_xdata()})
    axis.set_xticks(places)
    axis.xaxis.set_minor_locator(NullLocator())
    plain = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axis.xaxis.set_major_formatter(plain)
    low, high = axis.get_ylim()
    middle = (low * high) ** 0.5
    if high < 8 * low:  # at least most of a decade, so that noise looks small
        axis.set_ylim(middle / 8**0.5, middle * 8**0.5)
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 1000 * low else (1.0,)))
    axis.yaxis.set_major_formatter(plain)
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.margins(x=0.12)
    axis.set_xlabel(along, fontsize=9)
    axis.tick_params(labelsize=9)
    axis.grid(visible=True, alpha=0.25, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
