"""One training run: from samples to a model folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from supersimplenet.datasets.base import DataSource, training_list_hash
from supersimplenet.datasets.held_out import HELD_OUT
from supersimplenet.datasets.masks import without_empty_masks
from supersimplenet.datasets.registry import describe_source
from supersimplenet.datasets.supervision import supervise
from supersimplenet.errors import DataError
from supersimplenet.evaluation.set_thresholds import ThresholdConfig, set_thresholds
from supersimplenet.inference.detector import Detector, choose_device
from supersimplenet.inference.model_folder import (
    hash_weights,
    load_preprocessor,
    move_to,
    read_record,
    save_model,
    save_preprocessor,
    write_calibration,
    write_known_images,
    write_record,
)
from supersimplenet.model.backbone import wrap_module
from supersimplenet.model.config import ModelConfig, Recipe, resolve_recipe
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.postprocessing.calibration import UNCALIBRATED, Calibration
from supersimplenet.preprocessing.images import image_size
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig, read_preprocessor
from supersimplenet.training.config import CacheConfig, TrainerConfig, parse_duration
from supersimplenet.training.distributed import start
from supersimplenet.training.features import measure_feature_scale, remove_cache_files
from supersimplenet.training.loop import fit
from supersimplenet.training.module import TrainingModule
from supersimplenet.training.plan import Plan, earlier_run, plan_run, resolve_noise_std
from supersimplenet.training.sampler import EpochBatches
from supersimplenet.training.score_scale import measure_score_scale
from supersimplenet.training.training_set import gather_images
from supersimplenet.types import Sample
from supersimplenet.utils.console import console
from supersimplenet.utils.files import file_sha256
from supersimplenet.utils.serialization import to_plain
from supersimplenet.utils.system import keep_freed_blocks

_FEW_STEPS = 200  # below which a run is said to be too short; the demo's surfaces are learned in about 300


def train(
    data: DataSource,
    *,
    output: str | Path,
    supervision: str = "auto",
    masks: str | float | None = None,
    model: ModelConfig | None = None,
    view: ViewConfig | None = None,
    recipe: Recipe | None = None,
    trainer: TrainerConfig | None = None,
    cache: CacheConfig | None = None,
    seed: int = 0,
    time_budget: str | None = None,
    resume: bool = False,
    on_error: OnError = "stop",
    backbone: nn.Module | None = None,
) -> Detector:
    """Train with whatever labels a data set has, and leave a model folder.

    Args:
        data: the data set; no image of its test split is opened.
        output: the model folder. It must not hold a model, unless ``resume``.
        supervision: ``auto`` uses every label there is, ``unsupervised``, ``weak`` and ``mixed`` fewer of them, and
            ``full`` insists on all; see `supervise`.
        masks: with ``mixed``, how many masks are kept, or which; see `supervise`.
        model: the network's architecture; by default the published one.
        view: how images are brought before it; by default each is resized to its input size.
        recipe: how it is trained; by default as published for the supervision.
        trainer: length and place of the training.
        cache: where the backbone's features are kept.
        seed: decides initial weights, kept masks, order, anomalies and noise.
        time_budget: such as ``15m``: as many epochs as fit, counted from now, at most ``trainer.max_epochs``.
        resume: continue an interrupted run in ``output``; the settings must be the same.
        on_error: what an unreadable training image or mask does: ``stop``, or ``skip`` and report.
        backbone: a module that returns feature maps, instead of the one ``model`` names.

    Returns:
        The trained detector. Where several processes train, each gets it; the first one writes the folder.

    Raises:
        SuperSimpleNetError: of the kind that names the cause, see `supersimplenet.errors`.
    """
    started = time.monotonic()
    keep_freed_blocks()
    folder = Path(output)
    model, recipe = model or ModelConfig(), recipe or Recipe()
    model = replace(model, image_size=model.image_size or data.image_size or model.size_px)
    view_config, trainer, cache = view or ViewConfig(), trainer or TrainerConfig(), cache or CacheConfig()
    settings = {
        "seed": seed,
        "data": describe_source(data),
        "supervision": supervision,
        "masks": None if masks is None else str(masks),
        "view": to_plain(view_config),
        "recipe": to_plain(recipe),
        "trainer": to_plain(trainer),
        "cache": to_plain(cache),
        "time_budget": time_budget,
        "on_error": on_error,
    }
    budget_s = None if time_budget is None else parse_duration(time_budget)
    processes = start(trainer)
    earlier = processes.on_rank_zero(lambda: earlier_run(folder, {**settings, "model": to_plain(model)}, resume=resume))
    samples, empty_masks = without_empty_masks(data.samples())
    supervised = supervise(samples, supervision, masks=masks, seed=seed)
    list_sha256 = training_list_hash(supervised.training)
    if earlier is not None and earlier["training"]["list_sha256"] != list_sha256:
        raise DataError(f"{folder}: the training images changed since this run began; train anew into another --output")
    console().print(supervised.describe())
    if empty_masks:
        console().print(f"of those without a mask, {len(empty_masks)} have an empty one")
    label_recipe = resolve_recipe(
        recipe, supervised.regime, variant=model.variant, own_perlin_threshold=data.perlin_threshold
    )
    network = SuperSimpleNet(
        model, backbone=None if backbone is None else wrap_module(backbone, model.size_px), seed=seed
    )
    device = processes.device or choose_device({"gpu": "cuda"}.get(trainer.accelerator, trainer.accelerator))
    move_to(network, device)
    folder.mkdir(parents=True, exist_ok=True)
    if earlier is None:
        preprocessor = read_preprocessor(
            view_config,
            size_px=model.size_px,
            strides=model.feature_strides,
            drawn_on=image_size(supervised.training[0].image),
        )
        settings["view_files"] = processes.on_rank_zero(lambda: save_preprocessor(folder, preprocessor))
    else:
        settings["view_files"] = earlier.get("view_files", {})
        preprocessor = load_preprocessor(folder, earlier, model)
    try:
        images = gather_images(
            network,
            supervised.training,
            label_recipe,
            preprocessor=preprocessor,
            holdout_fraction=trainer.holdout_fraction,
            seed=seed,
            folder=folder,
            cache=cache,
            on_error=on_error,
            processes=processes,
        )
        source = images.source
        module = TrainingModule(
            network.heads,
            source,
            recipe=recipe,
            labels=images.labels,
            label_recipe=label_recipe,
            seed=seed,
            precision=trainer.precision,
            processes=processes,
        )
        batches = EpochBatches(
            images.good,
            images.bad,
            batch_size=recipe.batch_size,
            seed=seed,
            process=processes.rank,
            processes=processes.count,
        )
        if earlier is None:

            def decide() -> Plan:
                upright = [rows[0] for rows in images.good] + images.held_out
                scale = measure_feature_scale(source, upright)
                module.noise_std = resolve_noise_std(recipe, model, network.backbone, scale)
                return plan_run(module, batches, trainer, scale, budget_s, started)

            plan = processes.on_rank_zero(decide)
        else:
            plan = Plan(**earlier["training"]["plan"])
        module.noise_std = plan.noise_std
        module.total_steps = plan.total_steps
        record: dict[str, Any] = {
            **settings,
            "image_score": label_recipe.image_score,
            "training": {
                "regime": supervised.regime,
                "label_recipe": to_plain(label_recipe),
                "list_sha256": list_sha256,
                **images.counts,
                "bad_images_left_out": supervised.bad_left_out,
                "masks_left_out": supervised.masks_left_out,
                "empty_masks": [str(sample.mask) for sample in empty_masks],
                "skipped": [{"path": str(failure.path), "reason": failure.reason} for failure in images.failures],
                "features": source.placement,
                "plan": to_plain(plan),
            },
        }
        processes.on_rank_zero(lambda: write_record(folder, network, record))
        fit(module, plan, folder, trainer, batches, images.held_out)
        # Not by the held-out images: they calibrate, and a scale of their own would cost the guarantee.
        record["score_scale"] = processes.on_rank_zero(
            lambda: to_plain(measure_score_scale(network, source, images.good_images, images.labels))
        )
    finally:
        remove_cache_files(folder, processes)
    record["training"]["seconds"] = round(time.monotonic() - started, 1)
    held_out = [supervised.training[place] for place in images.held_out_places]
    tested = [sample for sample in samples if sample.split == "test"]
    calibrating = set(held_out)
    # What is in both splits was trained on: the last one counts.
    known = [
        sample for sample in [*tested, *supervised.training] if sample not in calibrating and sample.image.is_file()
    ]
    processes.on_rank_zero(
        lambda: write_known_images(folder, {file_sha256(sample.image): sample.split for sample in known})
    )
    record, calibration = processes.on_rank_zero(
        lambda: _finish(folder, network, record, held_out, preprocessor=preprocessor, device=device, on_error=on_error)
    )
    return Detector.of(network, record, calibration, preprocessor=preprocessor, device=str(device))


def _finish(
    folder: Path,
    network: SuperSimpleNet,
    record: dict[str, Any],
    held_out: Sequence[Sample],
    *,
    preprocessor: Preprocessor,
    device: torch.device,
    on_error: OnError,
) -> tuple[dict[str, Any], Calibration | None]:
    """Write the model folder and calibrate with the held-out images; the folder's record and the calibration."""
    save_model(folder, network, record)
    steps = record["training"]["plan"]["total_steps"]
    if steps < _FEW_STEPS:
        console().print(
            f"only {steps} steps were trained: expect little of this model before some {_FEW_STEPS}; "
            "give it more epochs or time, smaller batches (--recipe.batch_size), or a smaller --model.image_size"
        )
    detector = Detector.of(network, read_record(folder), preprocessor=preprocessor, device=str(device))
    if not held_out:
        console().print(f"{UNCALIBRATED} --good DIR")
        return detector.record, None
    calibration = set_thresholds(
        detector,
        held_out,
        ThresholdConfig(lenient=True),
        basis=HELD_OUT,
        weights_sha256=hash_weights(folder),
        on_error=on_error,
    ).calibration
    write_calibration(folder, calibration)
    console().print(f"calibrated: {calibration.guarantee()}")
    return detector.record, calibration
