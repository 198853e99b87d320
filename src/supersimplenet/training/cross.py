"""Calibrate a model folder by models of folds of its own training data."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from supersimplenet.errors import CalibrationError, ConfigError, DataError
from supersimplenet.evaluation.config import ThresholdConfig
from supersimplenet.evaluation.few_parts import FoldScores, folds_rate
from supersimplenet.evaluation.zone_choice import CROSS_WITH_ZONES
from supersimplenet.inference.config import CONFIG_FILE
from supersimplenet.inference.detector import Detector, choose_device
from supersimplenet.inference.image_records import read_image_records, trained_on
from supersimplenet.inference.model_folder import load_model, load_preprocessor, move_to
from supersimplenet.inference.record import model_config
from supersimplenet.metrics.cross_conformal import cross_threshold
from supersimplenet.model.config import Recipe
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.preprocessing.preprocessor import ViewConfig
from supersimplenet.training.config import CacheConfig, TrainerConfig
from supersimplenet.training.distributed import SINGLE_PROCESS
from supersimplenet.training.folds import score_folds, trained_on_samples
from supersimplenet.training.plan import saved_plan
from supersimplenet.training.run import Ready, Run, decide_labels, gather
from supersimplenet.training.training_set import TrainingSet
from supersimplenet.types import GOOD, ScoreName
from supersimplenet.utils.console import console
from supersimplenet.utils.formatting import counted, shown_duration
from supersimplenet.utils.serialization import from_plain


def score_folds_of(
    model: Path,
    folds: int,
    *,
    steps: int | None = None,
    image_score: ScoreName | None = None,
    device: str = "auto",
    config: ThresholdConfig | None = None,
    on_error: OnError = "stop",
) -> FoldScores:
    """Train models of folds of the images that a model was trained on, and return their scores of them.

    The images, their labels and masks must be those of the training. No test image is opened; held-out images are
    scored, not trained on.

    Args:
        model: the model folder, in which the cache of features is kept meanwhile if it needs the disk.
        folds: number of folds.
        steps: number of training steps of each model; by default that of the model's own training.
        image_score: the score that is to decide; by default the one that decides now.
        device: where to compute.
        config: the rate of false alarms, and the smallest defect's area.
        on_error: whether an image that cannot be read stops.

    Raises:
        ConfigError: zones decide, or steps are named for a model without heads.
        CalibrationError: the model was not trained here, held out no image, or has too few good parts for the rate.
        DataError: the training images changed, or are fewer than the folds need.
        SuperSimpleNetError: of the class that names another cause.
    """
    config = config or ThresholdConfig()
    network, record = load_model(model)
    if "training" not in record or "plan" not in record["training"]:
        raise CalibrationError(f"{model}: was not trained here, so no model of a fold can be; leave out --cross")
    if image_score is None:
        image_score = Detector.load(model, device="cpu").image_score
    if image_score == "zones":
        raise ConfigError(CROSS_WITH_ZONES)
    begin = time.monotonic()
    run = _run_of(record, model, on_error)
    ready = Ready(
        network=move_to(network, choose_device(device)),
        preprocessor=load_preprocessor(model, record, network.config),
        device=choose_device(device),
        process_group=SINGLE_PROCESS,
    )
    labels = decide_labels(run, SINGLE_PROCESS, record)
    planned = saved_plan(record, model).total_steps
    if planned == 0 and steps is not None:
        raise ConfigError(f"cross-steps: {model} has no heads that would be trained; leave it out")
    steps = planned if steps is None else steps
    with tempfile.TemporaryDirectory(dir=model, prefix=".folds-") as folder:
        training_set = gather(replace(run, folder=Path(folder)), labels, ready, None)
        _require_same_images(model, record, training_set)
        good = {s.group or s.image for s in trained_on_samples(training_set) if s.label == GOOD}
        rate = folds_rate(len(good), config)
        cross_threshold(np.zeros(len(good)), false_alarms=rate)  # too few parts: said at once
        console().print(f"models of {folds} folds, {counted(steps, 'step')} each")
        scores = score_folds(
            run,
            labels,
            ready,
            training_set,
            folds=folds,
            steps=steps,
            image_score=image_score,
            min_area_px=config.listed_area_px,
            score_good=True,
            on_error=on_error,
        )
    console().print(f"models of folds: {shown_duration(time.monotonic() - begin)}")
    return scores


def _run_of(record: Mapping[str, Any], model: Path, on_error: OnError) -> Run:
    """Return the arguments of the training that wrote a model folder.

    Raises:
        ConfigError: it started from another model, which has seen the parts of every fold.
    """
    if record.get("warm_start") is not None:
        raise ConfigError(
            f"{model}: its training started from another model, which has seen the parts of every fold; --cross needs "
            "a model that was trained without --warm-start"
        )

    def settings(kind: type, name: str) -> Any:
        return from_plain(kind, record.get(name, {}), where=str(model / CONFIG_FILE), name=name)

    return Run(
        data=trained_on(record, model),
        folder=model,
        supervision=record["supervision"],
        masks=record["masks"],
        model=model_config(record, model),
        view=settings(ViewConfig, "view"),
        recipe=settings(Recipe, "recipe"),
        trainer=settings(TrainerConfig, "trainer"),
        cache=settings(CacheConfig, "cache"),
        seed=record["seed"],
        time_budget=None,
        on_error=on_error,
        started=time.monotonic(),
    )


def _require_same_images(model: Path, record: Mapping[str, Any], training_set: TrainingSet) -> None:
    """Refuse other images, labels or masks than those of the training, or others held out.

    Raises:
        CalibrationError: the training held out nothing that could check the thresholds.
        DataError: they differ.
    """
    changed = training_set.list_sha256 != record["training"]["list_sha256"]
    records = read_image_records(model)
    if records is None or not any(image.role == "held-out" for image in records):
        raise CalibrationError(f"{model}: its training held out no image, so nothing would check the thresholds")
    held_out = {training_set.sha256_of(sample.image) for sample in training_set.held_out_samples}
    if changed or held_out != {image.sha256 for image in records if image.role == "held-out"}:
        raise DataError(
            f"{model}: the training images, their labels or masks changed since the training, so models of folds would "
            "not be like it; bring them back, or leave out --cross"
        )
