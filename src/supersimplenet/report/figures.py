"""Draw the report's figures as SVG, so that the page shows them even without a script.

The page's script moves the marks of the threshold. For this, each figure holds its data range and its pixel range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from supersimplenet.evaluation.rates import Numbers
from supersimplenet.metrics.ranking import MAX_FALSE_POSITIVE_RATE, overlap_curve, rank
from supersimplenet.utils.formatting import MINUS
from supersimplenet.visualization.contours import simplify

Floats = NDArray[np.float64]
_WIDTH, _HEIGHT = 480, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 14, 14, 46
_BARS = 40
_THIN_PX = 0.2  # largest error of a simplified curve, less than the thickness of its line


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The axes of a figure: they convert data values to positions in px."""

    x: tuple[float, float]
    y: tuple[float, float]

    def across(self, value: Floats | float) -> Floats:
        """Return the distance of x values from the left edge, in px."""
        low, high = self.x
        return _LEFT + (np.asarray(value) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def down(self, value: Floats | float) -> Floats:
        """Return the distance of y values from the upper edge, in px."""
        low, high = self.y
        return _HEIGHT - _BOTTOM - (np.asarray(value) - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def path(self, x: Floats, y: Floats) -> str:
        """Return the SVG path through points, simplified without a visible difference."""
        points = simplify(np.stack([self.across(x), self.down(y)], axis=1), _THIN_PX)
        return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points.tolist())


def draw_histogram(numbers: Numbers) -> Markup:
    """Draw the histogram of scores: good images upwards, bad images downwards, each with its own scale."""
    positions = numbers.positions()
    frame = Frame(x=(float(positions[0]), float(positions[-1])), y=(-1.0, 1.0))
    edges = np.linspace(*frame.x, _BARS + 1)
    middle = float(frame.down(0.0))
    parts = [_x_axis(frame, "anomaly score of the image (logit)")]
    for kind, scores, sign in (("good", numbers.good_images, 1), ("bad", numbers.bad_images, -1)):
        counts, _ = np.histogram(scores, edges)
        highest = max(int(counts.max()), 1)
        for count, left, right in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            if count:
                end = float(frame.down(0.92 * sign * count / highest))
                x, width = float(frame.across(left)), float(frame.across(right) - frame.across(left))
                parts.append(
                    f'<rect class="bar {kind}" x="{x + 0.5:.1f}" y="{min(middle, end):.1f}" '
                    f'width="{width - 1:.1f}" height="{abs(end - middle):.1f}"/>'
                )
        y = frame.down(sign * 0.5)
        parts.append(f'<text class="kind {kind}" x="{_LEFT - 8}" y="{y:.0f}" text-anchor="end">{kind}</text>')
        parts.append(f'<text class="axis" x="{_LEFT - 8}" y="{y + 15:.0f}" text-anchor="end">max {highest}</text>')
    parts.append(f'<path class="zero" d="M{_LEFT} {middle:.1f}H{_WIDTH - _RIGHT}"/>')
    parts.append(_threshold_lines(frame, numbers))
    label = (
        f"Histogram of scores: {numbers.good_images.size} good images above the line, "
        f"{numbers.bad_images.size} bad images below it, with the threshold."
    )
    return _figure("histogram", frame, parts, label)


def draw_roc(numbers: Numbers) -> Markup | None:
    """Draw the ROC curve of the images; return None where all images are good or all bad."""
    if not numbers.good_images.size or not numbers.bad_images.size:
        return None
    frame = Frame(x=(0.0, 1.0), y=(0.0, 1.0))
    false_rate, true_rate = overlap_curve(rank(*_scores_and_labels(numbers)))
    return _curve(
        "roc",
        frame,
        frame.path(false_rate, true_rate),
        ("share of good images called bad", "share of bad images called bad"),
        "ROC curve with the working point at the threshold.",
        numbers,
    )


def draw_precision_recall(numbers: Numbers) -> Markup | None:
    """Draw the precision-recall curve of the images; return None where all images are good or all bad."""
    if not numbers.good_images.size or not numbers.bad_images.size:
        return None
    frame = Frame(x=(0.0, 1.0), y=(0.0, 1.0))
    ranking = rank(*_scores_and_labels(numbers))
    found = ranking.bad_at.cumsum()
    recall = np.append(0.0, found / found[-1])
    precision = found / (found + ranking.good_from)
    # Steps without interpolation, like the metric: each precision holds from the previous recall to its own recall.
    return _curve(
        "precision-recall",
        frame,
        frame.path(np.repeat(recall, 2)[1:-1], np.repeat(precision, 2)),
        ("share of bad images called bad", "share of bad among those called bad"),
        "Precision-recall curve with the working point at the threshold.",
        numbers,
    )


def draw_overlap(curve: tuple[Floats, Floats] | None) -> Markup | None:
    """Draw the mean overlap of defective regions over the share of normal pixels marked; return None if undefined."""
    if curve is None:
        return None
    limit = MAX_FALSE_POSITIVE_RATE
    rate, overlap = curve
    frame = Frame(x=(0.0, limit), y=(0.0, 1.0))
    inside = rate < limit
    x, y = np.append(rate[inside], limit), np.append(overlap[inside], np.interp(limit, rate, overlap))
    return _curve(
        "overlap",
        frame,
        frame.path(x, y),
        ("share of normal pixels marked", "mean share of each defect marked"),
        f"Per-region overlap (PRO) curve up to {limit:.0%} of the normal pixels.",
        None,
    )


def draw_costs(numbers: Numbers) -> Markup | None:
    """Draw the expected cost of a part over the threshold, with the cheapest threshold; return None without costs."""
    curve = numbers.costs
    if curve is None:
        return None
    positions = numbers.positions()
    frame = Frame(x=(float(positions[0]), float(positions[-1])), y=(0.0, float(curve.cost.max()) * 1.05 or 1.0))
    # The cost is constant between two scores of parts, up to and including the higher score.
    changes = np.unique(np.concatenate([numbers.good_parts, numbers.bad_parts]))
    x = np.concatenate([[frame.x[0]], np.repeat(changes, 2), [frame.x[1]]])
    at = float(curve.threshold_logit[curve.cheapest])
    cost = float(curve.cost[curve.cheapest])
    parts = [
        _x_axis(frame, "threshold of the anomaly score (logit)"),
        _y_axis(frame, "expected cost of a part"),
        f'<path class="line" d="{frame.path(x, np.repeat(curve.cost, 2))}"/>',
        f'<circle class="cheapest" cx="{frame.across(at):.1f}" cy="{frame.down(cost):.1f}" r="5"/>',
        _threshold_lines(frame, numbers),
    ]
    label = f"Expected cost of a part over the threshold; cheapest, {cost:.3g}, at {at:.3f}."
    return _figure("costs", frame, parts, label)


def _curve(name: str, frame: Frame, path: str, axes: tuple[str, str], label: str, numbers: Numbers | None) -> Markup:
    parts = [_x_axis(frame, axes[0]), _y_axis(frame, axes[1]), f'<path class="line" d="{path}"/>']
    if numbers is not None:
        for which, level in _levels(numbers):
            false = float((numbers.good_images >= level).mean())
            found = float((numbers.bad_images >= level).mean())
            called = int((numbers.good_images >= level).sum() + (numbers.bad_images >= level).sum())
            precise = float((numbers.bad_images >= level).sum()) / called if called else None
            x, y = (false, found) if name == "roc" else (found, precise)
            place = "" if y is None else f'cx="{frame.across(x):.1f}" cy="{frame.down(y):.1f}"'
            parts.append(f'<circle class="point {which}" data-point="{which}" {place} r="5.5"/>')
    return _figure(name, frame, parts, label)


def _figure(name: str, frame: Frame, parts: Sequence[str], label: str) -> Markup:
    domain = " ".join(repr(value) for value in (*frame.x, *frame.y))
    edges = f"{_LEFT} {_WIDTH - _RIGHT} {_HEIGHT - _BOTTOM} {_TOP}"
    return Markup(  # safe: it holds numbers and texts of this module only, no text from outside
        f'<svg class="figure" data-figure="{name}" data-domain="{domain}" data-range="{edges}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    )


def _x_axis(frame: Frame, title: str) -> str:
    y = _HEIGHT - _BOTTOM
    ticks = "".join(
        f'<path class="tick" d="M{x:.1f} {y}v4"/><text class="axis" x="{x:.1f}" y="{y + 17}" '
        f'text-anchor="middle">{_number(value)}</text>'
        for value, x in _ticks(frame.x, frame.across)
    )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return (
        f'<path class="frame" d="M{_LEFT} {y}H{_WIDTH - _RIGHT}"/>{ticks}'
        f'<text class="title" x="{middle:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">{title}</text>'
    )


def _y_axis(frame: Frame, title: str) -> str:
    ticks = "".join(
        f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/><text class="axis" x="{_LEFT - 6}" '
        f'y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>'
        for value, y in _ticks(frame.y, frame.down)
    )
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    return (
        f'{ticks}<text class="title" transform="translate(13 {middle:.0f}) rotate(-90)" '
        f'text-anchor="middle">{title}</text>'
    )


def _ticks(limits: tuple[float, float], place: Callable[[float], Floats]) -> list[tuple[float, float]]:
    low, high = limits
    slack = 1e-9 * (high - low)
    values = np.asarray(MaxNLocator(5).tick_values(low, high)).tolist()
    return [(value, float(place(value))) for value in values if low - slack <= value <= high + slack]


def _threshold_lines(frame: Frame, numbers: Numbers) -> str:
    lines = ""
    for which, level in _levels(numbers):
        x = float(frame.across(level))
        lines += f'<path class="threshold own" d="M{x:.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>'
        lines += (
            f'<path class="threshold now {which}" data-line="{which}" d="M0 {_TOP}V{_HEIGHT - _BOTTOM}" '
            f'transform="translate({x:.1f} 0)"/>'
        )
    return lines


def _levels(numbers: Numbers) -> list[tuple[str, float]]:
    levels = [("reject", numbers.threshold_logit)]
    return levels if numbers.accept_logit >= numbers.threshold_logit else [("accept", numbers.accept_logit), *levels]


def _scores_and_labels(numbers: Numbers) -> tuple[Floats, NDArray[np.int64]]:
    scores = np.concatenate([numbers.good_images, numbers.bad_images])
    return scores, np.repeat([0, 1], [numbers.good_images.size, numbers.bad_images.size])


def _number(value: float) -> str:
    return f"{value:.10g}".replace("-", MINUS)
