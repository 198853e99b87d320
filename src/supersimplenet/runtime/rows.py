"""A prediction as a row of a table."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from supersimplenet.postprocessing.parts import part_of
from supersimplenet.preprocessing.loading import Failure
from supersimplenet.runtime.predictor import IndexedPrediction

COLUMNS = (
    "path",
    "score",
    "unsure_from",
    "verdict",
    "calibrated",
    "p_value",
    "q_value",
    "defects",
    "score_logit",
    "head_logit",
    "map_max_logit",
    "fused_logit",
    "subspace_logit",
    "joint_logit",
    "zones_logit",
    "part",
    "error",
)
ALIGNMENT_COLUMNS = ("align_shift_px", "align_angle_deg", "align_residual")  # only where images are aligned


def as_row(
    item: IndexedPrediction | Failure,
    *,
    calibrated: bool,
    aligned: bool = False,
    group_pattern: re.Pattern[str] | None = None,
) -> dict[str, Any]:
    """Return a prediction or failure in plain values, by column name; defects as a list, None where unknown.

    Args:
        item: the prediction or failure.
        calibrated: whether thresholds with a guarantee decided.
        aligned: whether images are aligned.
        group_pattern: finds the part's name in a file's name.
    """
    row: dict[str, Any] = dict.fromkeys(columns(aligned=aligned)) | {"calibrated": calibrated}
    file = item.path if isinstance(item, Failure) else item.file
    row["part"] = part_of(file, group_pattern)
    if isinstance(item, Failure):
        return row | {"path": str(file), "error": item.reason}
    prediction = item.prediction
    own = {name: getattr(prediction, name) for name in COLUMNS if hasattr(prediction, name)}
    defects = None if prediction.defects is None else [dataclasses.asdict(defect) for defect in prediction.defects]
    if aligned and prediction.alignment is not None:
        row |= {f"align_{name}": value for name, value in dataclasses.asdict(prediction.alignment).items()}
    return row | own | {"defects": defects}


def columns(*, aligned: bool) -> tuple[str, ...]:
    """Return the names of the columns of a table of predictions."""
    return (*COLUMNS, *(ALIGNMENT_COLUMNS if aligned else ()))
