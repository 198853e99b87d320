"""One training run: from samples to a model folder."""

from __future__ import annotations

import copy
import logging
import math
import signal
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn

from supersimplenet.data.loading import Failure, OnError
from supersimplenet.data.registry import describe_source
from supersimplenet.data.source import DataSource, training_list_hash
from supersimplenet.deploy.folder import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    move_to,
    read_record,
    save_model,
    to_plain,
    write_record,
)
from supersimplenet.detector import DEFAULT_THRESHOLD, Detector, choose_device
from supersimplenet.errors import ConfigError, DataError, OutputError, TrainingInterruptedError
from supersimplenet.model.backbone import Backbone, wrap_module
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.model.recipes import PUBLISHED_BACKBONE, PUBLISHED_NOISE_STD, ModelConfig, Recipe
from supersimplenet.processor import keep_freed_memory
from supersimplenet.records import GOOD, Sample
from supersimplenet.seeds import derive_seed
from supersimplenet.terminal import console, progress_bar
from supersimplenet.training.config import CacheConfig, TrainerConfig, parse_duration
from supersimplenet.training.features import FeatureSource, gather_features, measure_feature_scale, remove_cache_files
from supersimplenet.training.module import TrainingModule, build_optimizer, index_loader
from supersimplenet.training.progress import TrainingProgress

CHECKPOINT = Path("checkpoints") / "last.ckpt"
# Standard deviation of the noise over that of the features, where the backbone is not the published one. Chosen by
# measurement: docs/decisions/0003-noise-scale.md.
NOISE_PER_FEATURE_SCALE = 0.4
_TIMED_STEPS = 3
_FEW_STEPS = 200  # below which a run is said to be too short; the demo's surfaces are learned in about 300
_BUDGET_SHARE = 0.95  # of a time budget that is planned for: checkpoints, held-out images and saving take the rest


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was decided about a run from its data and its budget, saved so that a resumed run decides the same.

    Attributes:
        epochs: passes over the training images.
        total_steps: steps of the whole run.
        noise_std: standard deviation of the feature noise, in feature units.
        feature_scale: measured standard deviation of the features.
        seconds_per_step: measured where a time budget was given.
    """

    epochs: int
    total_steps: int
    noise_std: float
    feature_scale: float
    seconds_per_step: float | None = None


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
    model: ModelConfig | None = None,
    recipe: Recipe | None = None,
    trainer: TrainerConfig | None = None,
    cache: CacheConfig | None = None,
    seed: int = 0,
    time_budget: str | None = None,
    resume: bool = False,
    on_error: OnError = "stop",
    backbone: nn.Module | None = None,
) -> Detector:
    """Train on the good images of a data set and leave a model folder.

    Args:
        data: the data set; no image of its test split is opened.
        output: the model folder. It must not hold a model, unless ``resume``.
        model: the network's architecture; by default the published one.
        recipe: how it is trained; by default as published, unsupervised.
        trainer: length and place of the training.
        cache: where the backbone's features are kept.
        seed: decides initial weights, order, masks and noise.
        time_budget: such as ``15m``: as many epochs as fit, counted from now, at most ``trainer.max_epochs``.
        resume: continue an interrupted run in ``output``; the settings must be the same.
        on_error: what an unreadable training image does: ``stop``, or ``skip`` and report.
        backbone: a module that returns feature maps, instead of the one ``model`` names.

    Returns:
        The trained detector.

    Raises:
        SuperSimpleNetError: of the kind that names the cause, see `supersimplenet.errors`.
    """
    started = time.monotonic()
    keep_freed_memory()
    folder = Path(output)
    model, recipe = model or ModelConfig(), recipe or Recipe()
    trainer, cache = trainer or TrainerConfig(), cache or CacheConfig()
    settings = {
        "seed": seed,
        "data": describe_source(data),
        "recipe": to_plain(recipe),
        "trainer": to_plain(trainer),
        "cache": to_plain(cache),
        "time_budget": time_budget,
        "on_error": on_error,
    }
    budget_s = None if time_budget is None else parse_duration(time_budget)
    earlier = _earlier_run(folder, {**settings, "model": to_plain(model)}, resume=resume)
    samples = data.samples()
    good = [sample for sample in samples if sample.split == "train" and sample.label == GOOD]
    left_out = sum(sample.split == "train" and sample.label != GOOD for sample in samples)
    if not good:
        raise DataError(f"{data.name}: no good training image; the unsupervised recipe trains on good images")
    list_sha256 = training_list_hash(good)
    if earlier is not None and earlier["training"]["list_sha256"] != list_sha256:
        raise DataError(f"{folder}: the training images changed since this run began; train anew into another --output")
    if left_out:
        console().print(f"{left_out} bad training images are left out: this version trains on good images only")

    network = SuperSimpleNet(
        model, backbone=None if backbone is None else wrap_module(backbone, model.image_size), seed=seed
    )
    device = choose_device({"gpu": "cuda"}.get(trainer.accelerator, trainer.accelerator))
    move_to(network, device)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        source, failures, kept = _gather(network, good, folder=folder, cache=cache, on_error=on_error)
        if failures:
            console().print(f"{len(failures)} images could not be read and are left out; {CONFIG_FILE} lists them")
        held_out = _held_out(kept, trainer.holdout_fraction, seed)
        trained = [index for index in range(len(kept)) if index not in held_out]
        module = TrainingModule(network.heads, source, recipe=recipe, seed=seed, precision=trainer.precision)
        if earlier is None:
            scale = measure_feature_scale(source, len(kept))
            module.noise_std = resolve_noise_std(recipe, model, network.backbone, scale)
            plan = _plan(module, trained, trainer, scale, budget_s, started)
        else:
            plan = Plan(**earlier["training"]["plan"])
            module.noise_std = plan.noise_std
        module.total_steps = plan.total_steps
        record: dict[str, Any] = {
            **settings,
            "threshold": DEFAULT_THRESHOLD,
            "training": {
                "list_sha256": list_sha256,
                "good_images": len(trained),
                "held_out_images": len(held_out),
                "bad_images_left_out": left_out,
                "skipped": [{"path": str(failure.path), "reason": failure.reason} for failure in failures],
                "features": source.placement,
                "plan": to_plain(plan),
            },
        }
        write_record(folder, network, record)
        _fit(module, plan, folder, trainer, trained, sorted(held_out))
    finally:
        remove_cache_files(folder)
    record["training"]["seconds"] = round(time.monotonic() - started, 1)
    save_model(folder, network, record)
    if plan.total_steps < _FEW_STEPS:
        console().print(
            f"only {plan.total_steps} steps were trained: expect little of this model before some {_FEW_STEPS}; "
            "give it more epochs or time, smaller batches (--recipe.batch_size), or a smaller --model.image_size"
        )
    return Detector(network, device=str(device), record=read_record(folder))


def resolve_noise_std(recipe: Recipe, model: ModelConfig, backbone: Backbone, feature_scale: float) -> float:
    """The noise in feature units: as given, as published, or in proportion to the features' scale.

    As published only for the published backbone with its own weights from the hub.
    """
    if recipe.noise_std != "auto":
        return recipe.noise_std
    if model.backbone == PUBLISHED_BACKBONE and backbone.origin == "hub":
        return PUBLISHED_NOISE_STD
    return NOISE_PER_FEATURE_SCALE * feature_scale


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
    differing = [name for name, value in settings.items() if record.get(name) != value]
    if differing:
        raise ConfigError(
            f"{folder}: cannot be resumed with other settings; differing: {', '.join(differing)} "
            f"(see {folder / CONFIG_FILE})"
        )
    return record


def _gather(
    network: SuperSimpleNet, samples: Sequence[Sample], *, folder: Path, cache: CacheConfig, on_error: OnError
) -> tuple[FeatureSource, list[Failure], list[Sample]]:
    with progress_bar() as bar:
        task = bar.add_task("reading images, computing features", total=len(samples), detail="")
        source, index, failures = gather_features(
            network.backbone,
            [sample.image for sample in samples],
            image_size=network.config.image_size,
            cache=cache,
            folder=folder,
            on_error=on_error,
            progress=lambda images: bar.advance(task, images),
        )
    return source, failures, [samples[place] for place in index]


def _held_out(samples: Sequence[Sample], fraction: float, seed: int) -> set[int]:
    """Indices of whole groups, drawn by the seed, until they hold the stated share of the images."""
    groups: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        groups.setdefault(sample.group or str(sample.image), []).append(index)
    order = sorted(groups, key=lambda name: derive_seed(seed, "holdout", name))
    chosen: set[int] = set()
    for name in order[:-1]:  # at least one group is trained on
        if len(chosen) >= fraction * len(samples):
            break
        chosen.update(groups[name])
    return chosen


def _plan(
    module: TrainingModule,
    trained: Sequence[int],
    trainer: TrainerConfig,
    feature_scale: float,
    budget_s: float | None,
    started: float,
) -> Plan:
    steps_per_epoch = math.ceil(len(trained) / module.recipe.batch_size)
    epochs, seconds_per_step = trainer.max_epochs, None
    if budget_s is not None:
        console().print("measuring the time of a step")
        seconds_per_step = _measure_step(module, trained)
        remaining = _BUDGET_SHARE * budget_s - (time.monotonic() - started)
        fitting = int(remaining / (seconds_per_step * steps_per_epoch))
        epochs = min(epochs, max(1, fitting))
        if fitting < 1:
            console().print("the time budget does not hold one epoch; one is trained all the same")
        console().print(
            f"time budget {budget_s:.0f} s: a step takes {seconds_per_step:.2f} s, "
            f"{steps_per_epoch} steps an epoch; number of epochs: {epochs}"
        )
    total_steps = epochs * steps_per_epoch
    if trainer.max_steps != -1 and trainer.max_steps < total_steps:
        total_steps = trainer.max_steps
        epochs = math.ceil(total_steps / steps_per_epoch)
    return Plan(
        epochs=epochs,
        total_steps=total_steps,
        noise_std=module.noise_std,
        feature_scale=feature_scale,
        seconds_per_step=seconds_per_step,
    )


def _measure_step(module: TrainingModule, trained: Sequence[int]) -> float:
    """Median seconds of a training step, on a copy of the heads, so that the measurement trains nothing."""
    trial = TrainingModule(
        copy.deepcopy(module.heads).train(),
        module.source,
        recipe=module.recipe,
        seed=module.seed,
        precision=module.precision,
    ).to(next(module.heads.parameters()).device)
    trial.noise_std = module.noise_std
    optimizer = build_optimizer(trial.heads, module.recipe)
    batch = torch.tensor(list(trained[: module.recipe.batch_size]))
    seconds = []
    for step in range(1 + _TIMED_STEPS):  # the first warms up
        begin = time.monotonic()
        optimizer.zero_grad()
        loss = trial.loss(batch, derive_seed(module.seed, "timing", step))
        torch.autograd.backward(loss)
        optimizer.step()
        loss.item()  # waits for the device
        seconds.append(time.monotonic() - begin)
    return statistics.median(seconds[1:])


def _fit(
    module: TrainingModule,
    plan: Plan,
    folder: Path,
    trainer: TrainerConfig,
    trained: Sequence[int],
    held_out: Sequence[int],
) -> None:
    """Train to the end, from the folder's checkpoint where it has one."""
    recipe, checkpoint = module.recipe, folder / CHECKPOINT
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
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    on_interrupt = signal.getsignal(signal.SIGINT)
    with warnings.catch_warnings():
        # Lightning advises on worker processes, logging intervals and resumed folders; none of it applies here: the
        # loader hands out integers, and the checkpoint folder is the run's own.
        warnings.filterwarnings("ignore", module="lightning")
        fit = L.Trainer(
            max_epochs=plan.epochs,
            accelerator=trainer.accelerator,
            devices=1,
            gradient_clip_val=recipe.gradient_clip_norm,
            callbacks=callbacks,
            plugins=[_WholeCheckpoints()],
            logger=[CSVLogger(folder / "logs", name="csv"), TensorBoardLogger(folder / "logs", name="tensorboard")],
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            fit.fit(
                module,
                train_dataloaders=index_loader(trained, recipe.batch_size, shuffle_seed=module.seed),
                val_dataloaders=index_loader(held_out, recipe.batch_size) if held_out else None,
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
