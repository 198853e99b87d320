"""What a training run writes: files to continue by at its start, and the model folder at its end."""

from __future__ import annotations

import time
from typing import Any

from supersimplenet.datasets.held_out import HELD_OUT
from supersimplenet.datasets.supervision import is_amount, names_of_masks
from supersimplenet.evaluation.config import ThresholdConfig
from supersimplenet.evaluation.few_parts import FoldScores, score_unseen_bad, with_expected_escapes
from supersimplenet.evaluation.painted_scores import score_painted, with_painted_escapes
from supersimplenet.evaluation.set_thresholds import set_thresholds
from supersimplenet.inference.config import CONFIG_FILE, WEIGHTS_FILE
from supersimplenet.inference.detector import Detector
from supersimplenet.inference.image_records import IMAGES_FILE, write_image_records
from supersimplenet.inference.model_folder import (
    describe_model,
    save_preprocessor,
    save_weights,
    write_calibration,
    write_yaml,
)
from supersimplenet.postprocessing.calibration import UNCALIBRATED, Calibration
from supersimplenet.training.plan import Plan
from supersimplenet.training.run import Labels, Ready, Run
from supersimplenet.training.training_set import TrainingSet
from supersimplenet.types import GOOD
from supersimplenet.utils.console import console
from supersimplenet.utils.files import file_sha256
from supersimplenet.utils.serialization import to_plain


def describe(run: Run, labels: Labels, training_set: TrainingSet, plan: Plan) -> dict[str, Any]:
    """Return the settings of the run and the facts about its training, for config.yaml."""
    settings = run.settings()
    if run.masks is not None and not is_amount(run.masks):
        settings["masks"] = names_of_masks(labels.samples, labels.supervision)  # the file that lists them may change
    return {
        **settings,
        "reading": to_plain(labels.masks.reading),
        "image_score": labels.recipe.image_score,
        "training": {
            "regime": labels.supervision.regime,
            "label_recipe": to_plain(labels.recipe),
            "list_sha256": training_set.list_sha256,
            **training_set.counts,
            "bad_images_left_out": labels.supervision.bad_left_out,
            "masks_left_out": labels.supervision.masks_left_out,
            "empty_masks": [str(sample.mask) for sample in labels.empty_masks],
            "left_out": labels.left_out,
            "smallest_defect": None if labels.smallest is None else to_plain(labels.smallest),
            "skipped": [{"path": str(failure.path), "reason": failure.reason} for failure in training_set.failures],
            "features": training_set.source.location,
            "feature_type": str(training_set.source.dtype).removeprefix("torch."),
            "plan": to_plain(plan),
        },
    }


def begin(
    run: Run,
    labels: Labels,
    ready: Ready,
    training_set: TrainingSet,
    record: dict[str, Any],
    earlier: dict[str, Any] | None,
) -> dict[str, str]:
    """Write the files by which the run can be continued; return the hashes of the preprocessor's files."""
    hashes = save_preprocessor(run.folder, ready.preprocessor) if earlier is None else earlier.get("view_files", {})
    write_image_records(run.folder, training_set.image_records(labels.samples))  # a continued run keeps its splits
    begun = describe_model(ready.network, {**record, "view_files": hashes}, files=None)
    write_yaml(run.folder / CONFIG_FILE, begun)
    return hashes


def finish(
    run: Run,
    labels: Labels,
    ready: Ready,
    training_set: TrainingSet,
    record: dict[str, Any],
    folds: FoldScores | None,
) -> Detector:
    """Write the model folder, calibrate with the held-out images, and return the detector.

    config.yaml comes last: before it is there, the folder says that it is not finished, and a continued run writes the
    other files again.
    """
    record["training"]["seconds"] = round(time.monotonic() - run.started, 1)

    def write() -> tuple[dict[str, Any], Calibration | None]:
        write_image_records(run.folder, training_set.image_records(labels.samples))
        files = {
            WEIGHTS_FILE: save_weights(run.folder, ready.network),
            IMAGES_FILE: file_sha256(run.folder / IMAGES_FILE),
        }
        finished = describe_model(ready.network, record, files=files)
        calibration = _calibrated(run, labels, ready, finished, training_set, folds)
        write_yaml(run.folder / CONFIG_FILE, finished)
        return finished, calibration

    finished, calibration = ready.process_group.on_rank_zero(write)
    detector = Detector.of(
        ready.network, finished, calibration, preprocessor=ready.preprocessor, device=str(ready.device)
    )
    detector.folder = run.folder
    return detector


def _calibrated(
    run: Run,
    labels: Labels,
    ready: Ready,
    record: dict[str, Any],
    training_set: TrainingSet,
    folds: FoldScores | None,
) -> Calibration | None:
    """Calibrate the model folder; return the calibration (None where nothing was held out)."""
    held_out = training_set.held_out_samples
    if not any(sample.label == GOOD for sample in held_out):
        why = training_set.not_held_out or "none of the held-out good images could be read"
        console().print(f"{UNCALIBRATED} --good DIR (no image calibrates: {why})")
        return None
    detector = Detector.of(ready.network, record, preprocessor=ready.preprocessor, device=str(ready.device))
    config = ThresholdConfig(lenient=True)
    calibrated = set_thresholds(
        detector,
        held_out,
        config,
        basis=HELD_OUT,
        weights_sha256=record["files"][WEIGHTS_FILE],
        on_error=run.on_error,
    )
    unseen = score_unseen_bad(
        detector,
        labels.samples,
        {sample.image for sample in training_set.training},
        image_score=calibrated.calibration.image_score,
        on_error="skip",
    )
    calibrated = with_expected_escapes(calibrated, folds=folds, others=unseen)
    if calibrated.calibration.expected_escapes is None and run.trainer.escapes_share > 0 and not training_set.bad:
        painted = score_painted(detector, training_set.trained_good, seed=run.seed)
        calibrated = with_painted_escapes(calibrated, painted)
    calibration = calibrated.calibration
    write_calibration(run.folder, calibration)
    console().print(f"calibrated: {calibration.guarantee()}")
    if training_set.repeated_parts is not None:
        console().print(training_set.repeated_parts, style="bold red")
    if calibration.expected_escapes is not None:
        console().print(*calibration.expected_escapes.lines(), sep="\n")
    return calibration
