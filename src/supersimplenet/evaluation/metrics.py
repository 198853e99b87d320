"""Metrics of detection and localisation: exact, over every threshold, in plain numpy.

Scores may be on any monotone scale (logits here), higher is worse; equal scores make one threshold. A metric that is
not defined on what it is given raises MetricError with the reason instead of returning a number that means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from supersimplenet.errors import MetricError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

# Of the published results: the share of normal pixels up to which the per-region overlap is integrated.
MAX_FALSE_POSITIVE_RATE = 0.3


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric's value, or the reason why it has none.

    Attributes:
        value: in [0, 1], None where the metric is not defined.
        reason: why there is no value, None where there is one.
    """

    value: float | None
    reason: str | None = None


def auroc(score: ArrayLike, label: ArrayLike) -> float:
    """Area under the receiver operating characteristic: how often a bad one scores above a good one, ties half.

    Args:
        score: floats of any shape, any monotone scale, higher is worse.
        label: same shape, bool or 0 and 1, 1 is bad.

    Returns:
        float64 in [0, 1].

    Raises:
        MetricError: empty, one class only, a score that is not a number, or shapes that differ.
    """
    return _auroc(_rank(*_checked(score, label)))


def average_precision(score: ArrayLike, label: ArrayLike) -> float:
    """Precision averaged over recall in steps, not interpolated: the sum of (R_n - R_(n-1)) P_n over the thresholds.

    Args:
        score: floats of any shape, any monotone scale, higher is worse.
        label: same shape, bool or 0 and 1, 1 is bad.

    Returns:
        float64 in (0, 1].

    Raises:
        MetricError: empty, one class only, a score that is not a number, or shapes that differ.

    Source: the definition of scikit-learn's ``average_precision_score``. Differs: undefined, not 0 or 1, where there
        is one class only.
    """
    return _average_precision(_rank(*_checked(score, label)))


def region_overlap(
    maps: ArrayLike, masks: ArrayLike, *, max_false_positive_rate: float = MAX_FALSE_POSITIVE_RATE
) -> float:
    """Area under the per-region overlap curve (AUPRO), up to a false-positive rate.

    The overlap is the share of a defective region's pixels at or above the threshold, averaged over all regions of
    all images; a region is 8-connected. The curve is linear between thresholds, at the limit too.

    Args:
        maps: (N, H, W) floats, any monotone scale, higher is worse.
        masks: (N, H, W) bool, True on defective pixels.
        max_false_positive_rate: share of the normal pixels of all images, in (0, 1].

    Returns:
        float64 in [0, 1], divided by ``max_false_positive_rate``.

    Raises:
        MetricError: no defective region, no normal pixel, a score that is not a number, shapes that differ, or a
            limit outside (0, 1].

    Source: Bergmann et al., IJCV 2021, section 5. Differs: none.
    """
    if not 0 < max_false_positive_rate <= 1:
        raise MetricError(f"max_false_positive_rate: {max_false_positive_rate}; wanted above 0 and at most 1")
    scores, defective = _checked(maps, masks)
    _check_three_axes(scores)
    return _region_overlap(_rank(scores, defective, _region_weight(defective)), max_false_positive_rate)


def evaluate_scores(
    *,
    head_logit: ArrayLike,
    map_max_logit: ArrayLike,
    fused_logit: ArrayLike,
    label: ArrayLike,
    maps: ArrayLike,
    masks: ArrayLike,
    has_pixel_labels: ArrayLike,
    ignored: ArrayLike | None = None,
) -> dict[str, Metric]:
    """Every metric of a set of images, in the order in which results are shown.

    ``I-AUROC`` and ``AP-det`` rank the images by the classification head's score, as published results do,
    ``seg-I-AUROC`` and ``seg-AP-det`` by the map's maximum, ``fused-I-AUROC`` and ``fused-AP-det`` by both;
    ``P-AUROC``, ``AUPRO`` (up to 0.3) and ``AP-loc`` rank the pixels of the images that have pixel labels.

    Args:
        head_logit: (N,) floats, the classification head's.
        map_max_logit: (N,) floats, the largest value of each map.
        fused_logit: (N,) floats, both scores in one.
        label: (N,) bool or 0 and 1, 1 is bad.
        maps: (N, H, W) floats; float32 halves the memory.
        masks: (N, H, W) bool, True on defective pixels; not looked at where there are no pixel labels.
        has_pixel_labels: (N,) bool; an image without takes no part in the metrics of pixels.
        ignored: (N, H, W) bool, pixels that take no part in them either; None for none.

    Returns:
        The nine metrics by name. One that is not defined (one class only, say) has no value and says why.

    Raises:
        MetricError: shapes that differ, or a score that is not a number: those are mistakes, not properties of a set.
    """
    head_score, bad = _checked(head_logit, label)
    map_score, _ = _checked(map_max_logit, label)
    fused_score, _ = _checked(fused_logit, label)
    pixel_score, defective, known = np.asarray(maps), np.asarray(masks), np.asarray(has_pixel_labels)
    _check_three_axes(pixel_score)
    _check_binary(known)
    if not bad.shape == known.shape == pixel_score.shape[:1] or pixel_score.shape != defective.shape:
        raise MetricError(
            f"shapes differ: labels {bad.shape}, has_pixel_labels {known.shape}, maps {pixel_score.shape}, "
            f"masks {defective.shape}; wanted (N,), (N,), (N, H, W), (N, H, W)"
        )
    left_out = np.zeros(pixel_score.shape, dtype=bool) if ignored is None else np.asarray(ignored)
    if not known.all():
        known = known.astype(bool)
        pixel_score, defective, left_out = pixel_score[known], defective[known], left_out[known]
    pixel_score, defective = _checked(pixel_score, defective)
    defective = defective & ~left_out
    weight = _region_weight(defective)
    if left_out.any():
        pixel_score, defective = pixel_score[~left_out], defective[~left_out]
    return {
        **_each({"I-AUROC": _auroc, "AP-det": _average_precision}, head_score, bad),
        **_each({"seg-I-AUROC": _auroc, "seg-AP-det": _average_precision}, map_score, bad),
        **_each({"fused-I-AUROC": _auroc, "fused-AP-det": _average_precision}, fused_score, bad),
        **_each(
            {"P-AUROC": _auroc, "AUPRO": _region_overlap, "AP-loc": _average_precision},
            pixel_score,
            defective,
            weight,
        ),
    }


def _each(
    metrics: dict[str, Callable[[_Ranking], float]],
    score: NDArray[Any],
    is_bad: NDArray[np.bool_],
    weight: Floats | None = None,
) -> dict[str, Metric]:
    """Metrics that share one ranking; where there is none, none is defined, and each says why."""
    try:
        ranking = _rank(score, is_bad, weight)
    except MetricError as error:
        return {name: Metric(value=None, reason=str(error)) for name in metrics}
    return {name: Metric(value=metric(ranking)) for name, metric in metrics.items()}


@dataclass(frozen=True, kw_only=True)
class _Ranking:
    """What every curve here is made of: the K distinct scores of the bad ones, falling, and what lies around them.

    Thresholds between two of these change the false positives alone, so this loses nothing, and only the good ones'
    scores (nearly all pixels) need sorting, without their indices.

    Attributes:
        bad_at: (K,) int64, bad ones with exactly this score.
        weight_at: (K,) float64, the sum of their weights; all weights together make 1.
        good_above: (K,) int64, good ones with a higher score.
        good_from: (K,) int64, good ones with this score or a higher one.
        good_total: number of good ones.
    """

    bad_at: NDArray[np.int64]
    weight_at: Floats
    good_above: NDArray[np.int64]
    good_from: NDArray[np.int64]
    good_total: int


def _rank(score: NDArray[Any], is_bad: NDArray[np.bool_], weight: Floats | None = None) -> _Ranking:
    """Rank scores of one shape with their labels; ``weight``, of the bad ones in array order, defaults to equal."""
    if score.size == 0:
        raise MetricError("nothing to rank: no image, or none with pixel labels")
    bad, good = score[is_bad], score[~is_bad]
    if bad.size == 0 or good.size == 0:
        raise MetricError(f"one class only: {bad.size:,} bad and {good.size:,} good; wanted at least one of each")
    good.sort()
    value, index, count = np.unique(bad, return_inverse=True, return_counts=True)
    weights = np.full(bad.size, 1.0 / bad.size) if weight is None else weight
    return _Ranking(
        bad_at=count[::-1].astype(np.int64),
        weight_at=np.bincount(index, weights=weights).astype(np.float64)[::-1],
        good_above=(good.size - np.searchsorted(good, value, side="right"))[::-1].astype(np.int64),
        good_from=(good.size - np.searchsorted(good, value, side="left"))[::-1].astype(np.int64),
        good_total=good.size,
    )


def _auroc(ranking: _Ranking) -> float:
    # In whole numbers, so exact until the one division: twice the pairs in which the bad one is above.
    twice_below = 2 * ranking.good_total - ranking.good_above - ranking.good_from
    pairs = int(ranking.bad_at.sum()) * ranking.good_total
    return int((ranking.bad_at * twice_below).sum()) / (2 * pairs)


def _average_precision(ranking: _Ranking) -> float:
    true_positives = ranking.bad_at.cumsum()
    precision = true_positives / (true_positives + ranking.good_from)
    return float((ranking.bad_at * precision).sum() / true_positives[-1])


def _region_overlap(ranking: _Ranking, limit: float = MAX_FALSE_POSITIVE_RATE) -> float:
    # Each threshold gives two corners: all above it, and all from it on. Between them (ties) the curve is oblique.
    covered = np.append(0.0, ranking.weight_at.cumsum())  # (K + 1,), from 0 to 1
    corners = np.stack([ranking.good_above, ranking.good_from], axis=1).ravel()  # (2K,)
    rate = np.concatenate([[0.0], corners / ranking.good_total, [1.0]])
    overlap = np.repeat(covered, 2)  # (2K + 2,), as rate
    end = int(np.searchsorted(rate, limit, side="right"))  # at least 1: the first rate is 0
    if end < rate.size:
        ahead = (limit - rate[end - 1]) / (rate[end] - rate[end - 1])
        cut = overlap[end - 1] + ahead * (overlap[end] - overlap[end - 1])
        rate, overlap = np.append(rate[:end], limit), np.append(overlap[:end], cut)
    area = (np.diff(rate) * (overlap[1:] + overlap[:-1]) / 2).sum()
    return float(area / limit)


def _region_weight(masks: NDArray[np.bool_]) -> Floats:
    """Weight of each defective pixel in array order: 1 / (pixels of its region x number of regions)."""
    within_image = np.zeros((3, 3, 3), dtype=bool)
    within_image[1] = True  # 8-connected, and never from one image to the next
    region, count = ndimage.label(masks, structure=within_image)
    if count == 0:
        return np.zeros(0)
    region_of_pixel = region[masks]
    pixels = np.bincount(region_of_pixel, minlength=count + 1)
    return 1.0 / (pixels[region_of_pixel] * count)


def _checked(score: ArrayLike, label: ArrayLike) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    scores, labels = np.asarray(score), np.asarray(label)
    if scores.shape != labels.shape:
        raise MetricError(f"shapes differ: scores {scores.shape}, labels {labels.shape}")
    if scores.dtype.kind == "f" and np.isnan(scores).any():
        raise MetricError(f"{int(np.isnan(scores).sum()):,} of {scores.size:,} scores are not a number (NaN)")
    _check_binary(labels)
    return scores, labels.astype(bool, copy=False)


def _check_binary(labels: NDArray[Any]) -> None:
    if labels.dtype != np.bool_ and not np.isin(labels, (0, 1)).all():
        raise MetricError("labels other than 0 and 1; wanted 0 for good and 1 for bad")


def _check_three_axes(maps: NDArray[Any]) -> None:
    if maps.ndim != 3:
        raise MetricError(f"maps of shape {maps.shape}; wanted (N, H, W)")
