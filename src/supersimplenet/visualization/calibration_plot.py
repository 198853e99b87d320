"""Plot a calibration: the scores of good and bad parts, the thresholds, and the expected cost of each threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from supersimplenet.evaluation.set_thresholds import Calibrated
from supersimplenet.metrics.thresholds import CostCurve
from supersimplenet.postprocessing.calibration import Calibration

_BLUE, _RED, _INK = "#1a6fb5", "#c5221f", "#202124"
_BARS = 40


def draw_calibration(calibrated: Calibrated, path: Path) -> Path:
    """Write the plot of a calibration as PNG; return the file's path.

    Args:
        calibrated: the result of `calibrate`.
        path: the file to write.
    """
    rows = 1 if calibrated.curve is None else 2
    figure = Figure(figsize=(8, 1 + 2.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(rows, 1, sharex=True))
    _draw_scores(axes[0], calibrated)
    if calibrated.curve is not None:
        _draw_costs(axes[1], calibrated.curve, calibrated.calibration)
    axes[-1].set_xlabel(f"anomaly score of the part ({calibrated.calibration.image_score}), as a logit")
    figure.savefig(path, format="png", dpi=120)  # whatever the name: it may be a temporary one
    return path


def _draw_scores(axes: Axes, calibrated: Calibrated) -> None:
    scores = np.concatenate([calibrated.good_logits, calibrated.bad_logits])
    threshold = calibrated.calibration.threshold_logit
    edges = np.histogram_bin_edges(np.append(scores, threshold), bins=_BARS).tolist()
    axes.hist(calibrated.good_logits, edges, color=_BLUE, alpha=0.75, label=f"good ({calibrated.good_logits.size})")
    if calibrated.bad_logits.size:
        axes.hist(
            calibrated.bad_logits, edges, color=_RED, alpha=0.6, hatch="//", label=f"bad ({calibrated.bad_logits.size})"
        )
    _draw_thresholds(axes, calibrated.calibration)
    axes.set_ylabel("parts")
    axes.legend(frameon=False, fontsize=8, loc="upper right")  # the best place takes seconds to find on a busy machine
    axes.set_title(calibrated.calibration.guarantee().replace("; ", "\n").replace(", with", "\nwith"), fontsize=9)


def _draw_costs(axes: Axes, curve: CostCurve, calibration: Calibration) -> None:
    axes.step(curve.threshold_logit, curve.cost, where="mid", color=_INK, linewidth=1.2)
    at = curve.cheapest
    axes.plot(
        curve.threshold_logit[at], curve.cost[at], "o", color=_RED, label=f"cheapest: {curve.cost[at]:.3g} a part"
    )
    _draw_thresholds(axes, calibration)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("expected cost of a part")
    axes.legend(frameon=False, fontsize=8, loc="upper center")


def _draw_thresholds(axes: Axes, calibration: Calibration) -> None:
    axes.axvline(calibration.threshold_logit, color=_INK, linestyle="--", linewidth=1.2, label="bad from here on")
    if calibration.accept_logit is not None:
        axes.axvline(calibration.accept_logit, color=_INK, linestyle=":", linewidth=1.2, label="unsure from here on")
