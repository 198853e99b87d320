"""Set the thresholds of an exported file again, with the same parts and the file's own scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supersimplenet.errors import DataError
from supersimplenet.evaluation.config import ThresholdConfig
from supersimplenet.evaluation.set_thresholds import set_thresholds
from supersimplenet.inference.image_records import held_out_samples, trained_on
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.runtime.predictor import Predictor


def recalibrate(
    model: Path,
    record: Mapping[str, Any],
    calibration: Calibration,
    predictor: Predictor,
    *,
    on_error: OnError = "stop",
) -> tuple[Calibration, str] | None:
    """Set the thresholds again that the held-out images of the training set, from the scores of another computation.

    Args:
        model: the model folder.
        record: its config.yaml.
        calibration: the calibration of the model folder.
        predictor: computes the scores.
        on_error: whether an unreadable image stops, or is left out, after which the calibration is not repeated.

    Returns:
        The calibration and what it changed, in words; None where it cannot be repeated, because its parts are not here
        or were others than the held-out images, or because it needed bad parts, which are not recorded, or models of
        folds, which are not kept.
    """
    needs_more = (
        calibration.chosen_by == "costs" or calibration.max_escapes is not None or calibration.cross is not None
    )
    if needs_more or "training" not in record:
        return None
    try:
        samples = held_out_samples(model, trained_on(record, model), record)
    except DataError:
        return None
    if not samples:
        return None
    found = set_thresholds(
        predictor,
        samples,
        ThresholdConfig(
            max_false_alarms=calibration.max_false_alarms,
            confidence=calibration.confidence,
            min_area_px=calibration.min_area_px if calibration.zones is None else None,
        ),
        zones=calibration.zones,
        basis=calibration.basis,
        weights_sha256=calibration.weights_sha256,
        on_error=on_error,
    ).calibration
    if found.list_sha256 != calibration.list_sha256:
        return None
    assert found.computation is not None  # a file's predictor knows how it computes
    return found, (
        f"set again with the {found.parts} held-out parts in {found.computation.precision}: image threshold "
        f"{calibration.threshold_logit:.4f} -> {found.threshold_logit:.4f}, pixel threshold "
        f"{calibration.pixel_logit:.4f} -> {found.pixel_logit:.4f} logits"
    )
