"""One training run: from samples to a model folder."""

from __future__ import annotations

import logging
import signal
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.strategies.ddp import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

from supersimplenet.calibration import UNCALIBRATED, Calibration
from supersimplenet.data.images import image_size
from supersimplenet.data.loading import OnError
from supersimplenet.data.sources.base import DataSource, file_hash, training_list_hash
from supersimplenet.data.sources.registry import describe_source
from supersimplenet.data.supervision import supervise, without_empty_masks
from supersimplenet.data.views import View, ViewConfig, read_view
from supersimplenet.deploy.folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    hash_weights,
    load_view,
    move_to,
    read_record,
    save_model,
    save_view,
    to_plain,
    write_calibration,
    write_known_images,
    write_record,
)
from supersimplenet.detector import Detector, choose_device
from supersimplenet.errors import ConfigError, DataError, OutputError, TrainingInterruptedError
from supersimplenet.evaluation.calibrate import ThresholdConfig, calibrate
from supersimplenet.model.backbone import wrap_module
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.model.recipes import ModelConfig, Recipe, resolve_recipe
from supersimplenet.processor import keep_freed_memory
from supersimplenet.records import Sample
from supersimplenet.terminal import console
from supersimplenet.training.config import CacheConfig, TrainerConfig, parse_duration
from supersimplenet.training.features import (
    measure_feature_scale,
    remove_cache_files,
)
from supersimplenet.training.holdout import HELD_OUT, measure_score_scale
from supersimplenet.training.images import gather_images
from supersimplenet.training.module import TrainingModule, batch_loader
from supersimplenet.training.plan import Plan, plan_run, resolve_noise_std
from supersimplenet.training.processes import PATIENCE, start
from supersimplenet.training.progress import TrainingProgress
from supersimplenet.training.sampler import EpochBatches
from supersimplenet.training.stopping import StopTogether

CHECKPOINT = Path("checkpoints") / "last.ckpt"
_PLACE = ("devices", "num_nodes", "strategy")  # of the trainer's settings, those that change nothing in the result
_FEW_STEPS = 200  # below which a run is said to be too short; the demo's surfaces are learned in about 300


class _WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, also where the system's folder for temporary files is elsewhere."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write beside the target, then rename."""
        target = Path(path)
        temporary = target.with_name(f".{target.name}.part")
        super().save_checkpoint(checkpoint, temporary, storage_options)
        temporary.replace(target)


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
    keep_freed_memory()
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
    earlier = processes.first(lambda: _earlier_run(folder, {**settings, "model": to_plain(model)}, resume=resume))
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
        seen_by = read_view(
            view_config,
            size_px=model.size_px,
            strides=model.feature_strides,
            drawn_on=image_size(supervised.training[0].image),
        )
        settings["view_files"] = processes.first(lambda: save_view(folder, seen_by))
    else:
        settings["view_files"] = earlier.get("view_files", {})
        seen_by = load_view(folder, earlier, model)
    try:
        images = gather_images(
            network,
            supervised.training,
            label_recipe,
            view=seen_by,
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

            plan = processes.first(decide)
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
        processes.first(lambda: write_record(folder, network, record))
        _fit(module, plan, folder, trainer, batches, images.held_out)
        # Not by the held-out images: they calibrate, and a scale of their own would cost the promise.
        record["score_scale"] = processes.first(
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
    processes.first(lambda: write_known_images(folder, {file_hash(sample.image): sample.split for sample in known}))
    record, calibration = processes.first(
        lambda: _finish(folder, network, record, held_out, view=seen_by, device=device, on_error=on_error)
    )
    return Detector.of(network, record, calibration, view=seen_by, device=str(device))


def _finish(
    folder: Path,
    network: SuperSimpleNet,
    record: dict[str, Any],
    held_out: Sequence[Sample],
    *,
    view: View,
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
    detector = Detector.of(network, read_record(folder), view=view, device=str(device))
    if not held_out:
        console().print(f"{UNCALIBRATED} --good DIR")
        return detector.record, None
    calibration = calibrate(
        detector,
        held_out,
        ThresholdConfig(lenient=True),
        basis=HELD_OUT,
        weights_sha256=hash_weights(folder),
        on_error=on_error,
    ).calibration
    write_calibration(folder, calibration)
    console().print(f"calibrated: {calibration.promise()}")
    return detector.record, calibration


def _earlier_run(folder: Path, settings: dict[str, Any], *, resume: bool) -> dict[str, Any] | None:
    """The record of the run to continue; None for a new run."""
    begun = (folder / CONFIG_FILE).is_file()
    if not resume:
        if begun:
            raise OutputError(
                f"{folder}: holds a model or an unfinished run already; choose another --output, remove it, "
                "or continue it with --resume"
            )
        return None
    if not begun:
        return None  # nothing was written before the interruption: the run starts anew
    record = read_record(folder)
    if (folder / WEIGHTS_FILE).is_file():
        raise OutputError(f"{folder}: this training is finished; there is nothing to resume")
    differing = [name for name, value in settings.items() if _deciding(record.get(name)) != _deciding(value)]
    if differing:
        raise ConfigError(
            f"{folder}: cannot be resumed with other settings; differing: {', '.join(differing)} "
            f"(see {folder / CONFIG_FILE})"
        )
    return record


def _deciding(value: Any) -> Any:
    """A group of settings without those that say where it is computed; the trainer's alone has any."""
    return {name: of for name, of in value.items() if name not in _PLACE} if isinstance(value, dict) else value


def _fit(
    module: TrainingModule,
    plan: Plan,
    folder: Path,
    trainer: TrainerConfig,
    batches: EpochBatches,
    held_out: Sequence[int],
) -> None:
    """Train to the end, from the folder's checkpoint where it has one."""
    checkpoint = folder / CHECKPOINT
    size = module.recipe.batch_size
    held_out_batches = [list(held_out[first : first + size]) for first in range(0, len(held_out), size)]
    callbacks: list[Callback] = [
        ModelCheckpoint(
            dirpath=checkpoint.parent,
            filename=checkpoint.stem,
            every_n_epochs=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
        TrainingProgress(plan.total_steps, plan.epochs),
    ]
    if module.processes.count > 1:
        callbacks.append(StopTogether(module.processes))
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    on_interrupt = signal.getsignal(signal.SIGINT)
    with warnings.catch_warnings():
        # Lightning advises on worker processes, logging intervals and resumed folders; none of it applies here: the
        # loader hands out integers, and the checkpoint folder is the run's own.
        warnings.filterwarnings("ignore", module="lightning")
        fit = L.Trainer(
            max_epochs=plan.epochs,
            accelerator=trainer.accelerator,
            devices=trainer.devices,
            num_nodes=trainer.num_nodes,
            # The statistics of each BatchNorm are those of all processes already.
            strategy=DDPStrategy(timeout=PATIENCE, broadcast_buffers=False) if trainer.processes > 1 else "auto",
            gradient_clip_val=module.label_recipe.gradient_clip_norm,
            callbacks=callbacks,
            plugins=[_WholeCheckpoints()],
            logger=[CSVLogger(folder / "logs", name="csv"), TensorBoardLogger(folder / "logs", name="tensorboard")],
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,  # the batches are shared out where they are made
        )
        try:
            fit.fit(
                module,
                train_dataloaders=batch_loader(module.source, batches, num_workers=trainer.num_workers),
                val_dataloaders=batch_loader(module.source, held_out_batches) if held_out else None,
                ckpt_path=str(checkpoint) if checkpoint.is_file() else None,
                weights_only=True,
            )
        except (SystemExit, SIGTERMException) as stop:  # what Lightning makes of Ctrl-C and of a termination signal
            raise TrainingInterruptedError(
                f"stopped in epoch {fit.current_epoch + 1} of {plan.epochs}; "
                f"continue with: supersimplenet train --resume --output {folder}"
            ) from stop
        finally:
            signal.signal(signal.SIGINT, on_interrupt)  # Lightning leaves Ctrl-C ignored, which a notebook would keep
