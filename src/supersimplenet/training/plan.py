"""Decisions before a training begins: its length, the strength of its noise, and whether it continues a run."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from supersimplenet.datasets.base import DataSource
from supersimplenet.datasets.bit_depth import decide_reading
from supersimplenet.datasets.held_out import choose_held_out
from supersimplenet.datasets.parts import digest_possible_copies
from supersimplenet.datasets.supervision import Supervision, is_amount
from supersimplenet.errors import ConfigError, OutputError
from supersimplenet.inference.config import CONFIG_FILE
from supersimplenet.inference.record import FEW_STEPS, is_finished, read_record, too_few_steps
from supersimplenet.model.backbone import Backbone
from supersimplenet.model.config import PUBLISHED_BACKBONE, PUBLISHED_NOISE_STD, ModelConfig, Recipe
from supersimplenet.model.hub_record import is_hub_file
from supersimplenet.preprocessing.images import read_image
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig, read_roi
from supersimplenet.preprocessing.reading import FULL_RANGE, ReadConfig
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.module import TrainingModule, build_optimizer
from supersimplenet.training.sampler import EpochBatches
from supersimplenet.types import Sample
from supersimplenet.utils.console import console
from supersimplenet.utils.formatting import counted, differences, shown_duration
from supersimplenet.utils.seeding import derive_seed
from supersimplenet.utils.serialization import from_plain

# Standard deviation of the noise divided by that of the features, for every backbone but the published one. Chosen by
# measurement: docs/decisions/0003-noise-scale.md.
NOISE_PER_FEATURE_SCALE = 0.4
_TIMED_STEPS = 3
_BUDGET_SHARE = 0.95  # share of a time budget for training steps; checkpoints, held-out images and saving take the rest
# Settings that may change when a run is continued: they change nothing in the result, or, as the labels that `masks`
# lists and the files of `view`, their content is compared instead.
_FREE = (
    *("cache", "on_error", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.num_workers"),
    *("trainer.escapes_share", "trainer.logger"),
)
_FEWEST_FOLDS, _MOST_FOLDS = 2, 4  # of the models that tell how many bad parts will escape


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Decisions about a run that depend on its data and its time budget; saved, so that a resumed run reuses them.

    Attributes:
        epochs: number of passes over the training images; 0 where no heads are trained.
        total_steps: number of steps of the whole run.
        noise_std: standard deviation of the feature noise, in feature units.
        feature_scale: measured standard deviation of the features.
        seconds_per_step: measured duration of a step; None for a short run without a time budget.
    """

    epochs: int
    total_steps: int
    noise_std: float
    feature_scale: float
    seconds_per_step: float | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "total_steps"):
            if getattr(self, name) < (1 if self.epochs else 0):
                raise ConfigError(f"{name}: {getattr(self, name)}; it must be at least 1")
        if self.epochs and self.noise_std <= 0:
            raise ConfigError(f"noise_std: {self.noise_std}; it must be more than 0")

    def lines(self, steps_per_epoch: int) -> Iterator[str]:
        """Yield the length of the run in words, and a warning where it is too short."""
        seconds = None if self.seconds_per_step is None else self.total_steps * self.seconds_per_step
        yield (
            f"{counted(self.total_steps, 'step')} in {counted(self.epochs, 'epoch')} of "
            f"{counted(steps_per_epoch, 'step')}" + ("" if seconds is None else f", about {shown_duration(seconds)}")
        )
        if text := too_few_steps(self.total_steps):
            yield text


def plan_folds(total_steps: int, share: float) -> tuple[int, int] | None:
    """Return number and steps of the models of folds that tell how many bad parts will escape; None for none.

    Each has at least 200 steps, for a model of fewer says little of the one that is finished; more steps are shared by
    up to 4 of them, of which each is trained on 3 in 4 of the bad parts. Without heads there are 4, of no steps.

    Args:
        total_steps: steps of the training.
        share: share of these that may be spent.
    """
    if total_steps == 0:
        return _MOST_FOLDS, 0
    folds = min(_MOST_FOLDS, int(share * total_steps) // FEW_STEPS)
    return None if folds < _FEWEST_FOLDS else (folds, int(share * total_steps) // folds)


def plan_reading(
    data: DataSource,
    samples: Sequence[Sample],
    choose: Callable[[Sequence[Sample]], Supervision],
    holdout_fraction: float,
    seed: int,
) -> ReadConfig:
    """Decide how the images of a dataset are read; held-out ones, which do nothing but calibrate, have no say in it.

    Args:
        data: the dataset.
        samples: its samples.
        choose: chooses those that are trained on.
        holdout_fraction: share of the good images that are held out.
        seed: seed of the choice of the held-out images.
    """
    if data.bit_depth != "auto":
        return decide_reading(data, ())
    training = choose(samples).training
    digests = digest_possible_copies([sample.image for sample in training], bit_depth="auto", page=data.page)
    held_out = choose_held_out(training, digests, holdout_fraction, seed).places
    return decide_reading(data, [sample.image for place, sample in enumerate(training) if place not in held_out])


def saved_plan(record: Mapping[str, Any], folder: Path) -> Plan:
    """Return the plan of an interrupted run from its config.yaml."""
    return from_plain(Plan, record["training"]["plan"], where=str(folder / CONFIG_FILE), name="training.plan")


def resolve_noise_std(recipe: Recipe, model: ModelConfig, backbone: Backbone, feature_scale: float) -> float:
    """Return the noise in feature units: as given, as published, or in proportion to the features' scale.

    The published value is used only for the published backbone with its own weights, from the hub or a file.
    """
    if recipe.noise_std != "auto":
        return recipe.noise_std
    file, published = model.backbone_weights, False
    if backbone.origin == "hub":
        published = model.backbone == PUBLISHED_BACKBONE
    elif backbone.origin == "file" and file is not None:
        published = is_hub_file(PUBLISHED_BACKBONE, file, backbone.fingerprint(counters=False))
    if published:
        return PUBLISHED_NOISE_STD
    return NOISE_PER_FEATURE_SCALE * feature_scale


def plan_run(
    module: TrainingModule,
    batches: EpochBatches,
    trainer: TrainerConfig,
    feature_scale: float,
    budget_s: float | None,
    started: float,
) -> Plan:
    """Plan epochs and steps: as configured, or as many as fit into a time budget that is counted from ``started``."""
    steps_per_epoch = len(batches)
    epochs = trainer.max_epochs
    most_steps = epochs * steps_per_epoch
    if trainer.max_steps != -1:
        most_steps = min(most_steps, trainer.max_steps)
    seconds_per_step = None
    if budget_s is not None or most_steps >= FEW_STEPS:  # a shorter run would spend too much of itself on measuring
        console().print("measuring the time of a step")
        seconds_per_step = _measure_step(module, next(iter(batches)))
    if budget_s is not None:
        assert seconds_per_step is not None
        remaining = _BUDGET_SHARE * budget_s - (time.monotonic() - started)
        fitting = int(remaining / (seconds_per_step * steps_per_epoch))
        epochs = min(epochs, max(1, fitting))
        if fitting < 1:
            console().print("the time budget does not hold one epoch; one is trained all the same")
        console().print(
            f"time budget {budget_s:.0f} s: a step takes {seconds_per_step:.2f} s, "
            f"{counted(steps_per_epoch, 'step')} an epoch; number of epochs: {epochs}"
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


def _measure_step(module: TrainingModule, rows: Sequence[int]) -> float:
    """Measure the median seconds of a training step, on a copy of the heads, so that the measurement trains nothing."""
    trial = TrainingModule(
        copy.deepcopy(module.heads).train(),
        module.source,
        recipe=module.recipe,
        labels=module.labels,
        label_recipe=module.label_recipe,
        seed=module.seed,
        precision=module.precision,
    ).to(next(module.heads.parameters()).device)
    trial.noise_std = module.noise_std
    optimizer = build_optimizer(trial.heads, module.recipe)
    batch = torch.tensor(rows)
    seconds = []
    for step in range(1 + _TIMED_STEPS):  # the first step warms up
        begin = time.monotonic()
        optimizer.zero_grad()
        loss = trial.loss(batch, derive_seed(module.seed, "timing", step))
        torch.autograd.backward(loss)
        optimizer.step()
        loss.item()  # waits for the device
        seconds.append(time.monotonic() - begin)
    return statistics.median(seconds[1:])


def earlier_run(folder: Path, settings: dict[str, Any], *, resume: bool) -> dict[str, Any] | None:
    """Return the record of the run to continue; None for a new run.

    Raises:
        OutputError: the folder holds a run and ``resume`` is false, or the run is finished.
        ConfigError: a setting differs that decides the result; the message names it with both values.
    """
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
    if is_finished(folder, record):
        raise OutputError(f"{folder}: this training is finished; there is nothing to resume")
    differing = differences(_deciding({name: record.get(name) for name in settings}), _deciding(settings))
    if differing:
        raise ConfigError(
            f"{folder}: cannot be resumed with other settings; differing: {'; '.join(differing)}; leave them out, or "
            "train anew into another --output"
        )
    return record


def _deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that decide the result, without the places of files: those are compared by content."""
    found = {}
    for name, value in settings.items():
        if name == "masks" and value is not None and not is_amount(value):
            found[name] = "a list"
        elif name not in _FREE:
            found[name] = _without_places(value, name)
    return found


def _without_places(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return {
            key: _without_places(inner, f"{name}.{key}") for key, inner in value.items() if f"{name}.{key}" not in _FREE
        }
    if isinstance(value, list):
        return [_without_places(inner, name) for inner in value]
    is_place = isinstance(value, str) and (Path(value).is_absolute() or name in ("view.roi", "view.reference"))
    return "a file or folder" if is_place else value


def require_same_view(
    folder: Path, earlier: Mapping[str, Any], view: ViewConfig, own: Preprocessor, *, drawn_on: tuple[int, int]
) -> None:
    """Compare the region of interest and the reference of a continued run, its own copies, with the files named now.

    Args:
        folder: the run's folder.
        earlier: its config.yaml.
        view: names the files.
        own: the run's preprocessor.
        drawn_on: see `read_preprocessor`.

    Raises:
        ConfigError: a named file has another content.
        DataError: another file is named than when the run began, and cannot be read.
    """
    reference = None if own.aligner is None else own.aligner.reference
    size_px = drawn_on if reference is None else (reference.shape[0], reference.shape[1])
    for name, path, kept in (("roi", view.roi, own.roi), ("reference", view.reference, reference)):
        if path is None or kept is None or (str(path) == earlier["view"][name] and not path.is_file()):
            continue
        is_own = path.parent == folder  # written by this package, in 8 bits
        reading = FULL_RANGE if is_own else own.reading
        named = read_roi(path, size_px, reading=reading) if name == "roi" else read_image(path, reading=reading)
        if not np.array_equal(named, kept):
            raise ConfigError(
                f"view.{name}: {path} is not the file with which the run in {folder} began; name the run's own copy, "
                f"{folder / name}.png, or train anew into another --output"
            )
