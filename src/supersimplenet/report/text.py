"""Write numbers and metrics as text; assets/counts.js writes rates and scores in the same way."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from markupsafe import Markup

from supersimplenet.evaluation.results import PREFIXES
from supersimplenet.utils.formatting import few, shown_rate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from supersimplenet.metrics.ranking import Metric
    from supersimplenet.preprocessing.preprocessor import ViewConfig
    from supersimplenet.types import ScoreName

SCORES: dict[ScoreName, str] = {
    "head": "classification head's score",
    "map": "map's maximum",
    "fused": "fused score (mean of the head's and the map's)",
    "subspace": "subspace score (distance from the features of good images)",
    "joint": "joint score (weighted mean of the head's, the map's and the subspace's)",
    "zones": "score of zones (highest level at which a region of the map counts in its zone)",
}
DASH = "\N{EN DASH}"  # in a cell without a value
_UNBROKEN, _ENDING = 20, 8  # letters of a name that stay together; assets/cards.js has the same
_MEANINGS = {
    "I-AUROC": "how often a bad image scores above a good one",
    "AP-det": "share of bad images among those called bad, averaged over all thresholds",
    "I-F1-max": "best balance of both mistakes that any threshold gives",
    "P-AUROC": "how often a defective pixel lies above a normal one",
    "AUPRO": "how much of each defect is covered, up to 30 % false pixels",
    "AUPRO@0.05": "the same, up to 5 % false pixels",
    "AUPRO@0.01": "the same, up to 1 % false pixels",
    "AP-loc": "share of defective pixels among those marked, averaged over all thresholds",
    "P-F1-max": "best balance of missed and false pixels that any threshold gives",
}


def meaning(name: str) -> str:
    """Return the meaning of a metric as a phrase; the prefix of its score is not explained."""
    return _MEANINGS.get(bare(name), "")


def bare(name: str) -> str:
    """Return a metric's name without the prefix of its score: ``I-AUROC`` for ``seg-I-AUROC``."""
    for prefix in PREFIXES.values():
        if prefix and name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def score_of(name: str) -> ScoreName | None:
    """Return the score that a metric is computed from; None for a pixel metric."""
    if bare(name) not in ("I-AUROC", "AP-det", "I-F1-max"):
        return None
    return next((score for score in SCORES if PREFIXES[score] and name.startswith(PREFIXES[score])), "head")


def breakable(name: str) -> Markup:
    """Return the name of a file as HTML that breaks behind ``/``, ``_`` and ``-``, and not within its last piece."""
    *pieces, last = re.split(r"(?<=[/_-])", name)
    if len(last) > _UNBROKEN:  # then at least its ending stays whole
        pieces, last = [*pieces, last[:-_ENDING]], last[-_ENDING:]
    return Markup("").join(Markup("{}<wbr>").format(piece) for piece in pieces) + Markup(
        '<span class="end">{}</span>'
    ).format(last)


def at_most(bound: float) -> str:
    """Return an upper bound as text, rounded up."""
    return shown_rate(min(bound, 1.0))


def certainty(metric: Metric) -> str:
    """Return the interval or the error bound of a metric as text; a dash where no interval is defined."""
    if metric.no_interval is not None:
        return DASH
    if metric.interval is not None:
        return metric.certainty()
    return f"counted in bins: off by at most {_rounded_up(metric.error_bound)}" if metric.error_bound else ""


def missing(metrics: Mapping[str, Metric]) -> list[str]:
    """Return a sentence for each reason why values or intervals are missing; it names them where reasons differ."""
    values: dict[str, list[str]] = {}
    intervals: dict[str, list[str]] = {}
    for name, metric in metrics.items():
        score = score_of(name)
        shown = name if score is None else f"{bare(name)} of {score}"
        if metric.reason is not None:
            values.setdefault(metric.reason, []).append(shown)
        elif metric.no_interval is not None:
            intervals.setdefault(metric.no_interval, []).append(shown)
    return [
        f"{what}, {reason}{f': {few(names)}' if len(found) > 1 else ''}."
        for what, found in (("Undefined", values), ("No interval", intervals))
        for reason, names in found.items()
    ]


def _rounded_up(bound: float) -> str:
    """Return a bound rounded up to one significant digit: ``0.00004`` for 0.0000312."""
    digits = max(0, -math.floor(math.log10(bound)))
    return f"{math.ceil(bound * 10**digits - 1e-9) / 10**digits:.{digits}f}"


def view_words(config: ViewConfig) -> str:
    """Return a phrase that describes how images are prepared; empty where they are only resized."""
    said = []
    if config.fit == "pad":
        said.append("proportions kept, the rest filled")
    if config.fit == "tiles":
        said.append(f"tiles that overlap by {config.tile_overlap:g}, of the image at {config.scale:g} times its size")
    if config.align != "none":
        said.append(f"aligned to a reference ({config.align})")
    if config.roi is not None:
        said.append("a region of interest, beyond which nothing counts")
    return "; ".join(said)
