"""The steps of a training run up to its first step: labels, network, features, plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from supersimplenet.datasets.base import DataSource, training_list_hash
from supersimplenet.datasets.defect_sizes import (
    DefectSize,
    NetworkInput,
    describe_limit,
    describe_smallest,
    sizes_of,
    smallest_defect,
)
from supersimplenet.datasets.masks import MaskReader, without_empty_masks
from supersimplenet.datasets.registry import describe_source
from supersimplenet.datasets.supervision import Supervision, supervise
from supersimplenet.errors import DataError, ImageError
from supersimplenet.evaluation.repeated_parts import OF_TRAINING, describe_repeated_parts
from supersimplenet.inference.detector import choose_device
from supersimplenet.inference.model_folder import (
    load_preprocessor,
    move_to,
    read_config_of,
)
from supersimplenet.model.backbone import wrap_module
from supersimplenet.model.config import LabelRecipe, ModelConfig, Recipe, resolve_recipe
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.preprocessing.decoding import image_size
from supersimplenet.preprocessing.listing import counting
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig, read_preprocessor
from supersimplenet.training.config import CacheConfig, TrainerConfig, parse_duration
from supersimplenet.training.distributed import ProcessGroup
from supersimplenet.training.features import measure_feature_scale
from supersimplenet.training.module import TrainingModule
from supersimplenet.training.plan import (
    Plan,
    plan_reading,
    plan_run,
    require_same_view,
    resolve_noise_std,
    saved_plan,
)
from supersimplenet.training.sampler import EpochBatches
from supersimplenet.training.training_set import TrainingSet, gather_training_set
from supersimplenet.training.warm_start import describe_start, read_earlier_images, start_from
from supersimplenet.types import Sample
from supersimplenet.utils.console import console
from supersimplenet.utils.serialization import to_plain

_MEASURED = 100  # most training images whose sizes are read to say what is too small to be seen


@dataclass(frozen=True, kw_only=True)
class Run:
    """The arguments of `train`. ``started`` is the time from which a time budget counts."""

    data: DataSource
    folder: Path
    supervision: str
    masks: str | float | Sequence[str] | None
    model: ModelConfig
    view: ViewConfig
    recipe: Recipe
    trainer: TrainerConfig
    cache: CacheConfig
    seed: int
    time_budget: str | None
    on_error: OnError
    started: float
    warm_start: Path | None = None

    @property
    def deadline(self) -> float | None:
        """When the time budget ends, in seconds of ``time.monotonic()``; None without a budget."""
        return None if self.time_budget is None else self.started + parse_duration(self.time_budget)

    def settings(self) -> dict[str, Any]:
        """Return the settings of the run for config.yaml, in plain values."""
        return {
            "seed": self.seed,
            "data": describe_source(self.data),
            "supervision": self.supervision,
            "masks": str(self.masks) if isinstance(self.masks, str | int | float) else to_plain(self.masks),
            "view": to_plain(self.view),
            "recipe": to_plain(self.recipe),
            "trainer": to_plain(self.trainer),
            "cache": to_plain(self.cache),
            "time_budget": self.time_budget,
            "on_error": self.on_error,
            "warm_start": describe_start(self.warm_start),
        }


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The samples of the dataset, the labels that the training uses, and the numbers of what no sample was made of.

    ``smallest`` is the smallest defect in the masks that are trained on; None without any.
    """

    samples: list[Sample]
    empty_masks: list[Sample]
    left_out: dict[str, int]
    supervision: Supervision
    recipe: LabelRecipe
    masks: MaskReader
    smallest: DefectSize | None = None


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The network on its device, and the preprocessor of its images."""

    network: SuperSimpleNet
    preprocessor: Preprocessor
    device: torch.device
    process_group: ProcessGroup


def decide_labels(run: Run, process_group: ProcessGroup, earlier: dict[str, Any] | None) -> Labels:
    """Decide how files are read and which labels are used, and print the decisions."""
    choose = partial(supervise, supervision=run.supervision, masks=run.masks, seed=run.seed)
    with counting(run.on_error) as left_out:
        samples = process_group.on_rank_zero(run.data.samples)
        plan = partial(plan_reading, run.data, samples, choose, run.trainer.holdout_fraction, run.seed)
        masks = MaskReader(process_group.on_rank_zero(plan) if earlier is None else read_config_of(earlier, run.folder))
        samples, empty_masks = without_empty_masks(samples, masks)
    if text := left_out.unsaid():
        console().print(text)
    supervision = choose(samples)
    console().print(supervision.describe())
    if empty_masks:
        console().print(f"of those without a mask, {len(empty_masks)} have an empty one")
    smallest = process_group.on_rank_zero(lambda: _smallest(run, supervision, masks))
    recipe = resolve_recipe(
        run.recipe, supervision.regime, variant=run.model.variant, own_perlin_threshold=run.data.perlin_threshold
    )
    return Labels(
        samples=samples,
        empty_masks=empty_masks,
        left_out=left_out.counts(),
        supervision=supervision,
        recipe=recipe,
        masks=masks,
        smallest=smallest,
    )


def _smallest(run: Run, supervision: Supervision, masks: MaskReader) -> DefectSize | None:
    """Return the smallest defect in the masks that are trained on; say how the network sees it, or what it can see."""
    seen_by = NetworkInput(run.model.size_px, run.view.fit, run.view.scale)
    smallest = smallest_defect(sizes_of(supervision.training, masks), seen_by)
    if smallest is not None:
        console().print(describe_smallest(smallest, seen_by))
    else:
        images_px = []
        for sample in supervision.training[:: math.ceil(len(supervision.training) / _MEASURED)]:
            with suppress(ImageError):  # an unreadable image stops the training later, or is skipped
                images_px.append(image_size(sample.image, page=masks.reading.page))
        if images_px:
            console().print(describe_limit(images_px, seen_by))
    return smallest


def prepare(
    run: Run,
    labels: Labels,
    backbone: nn.Module | None,
    process_group: ProcessGroup,
    earlier: dict[str, Any] | None,
) -> Ready:
    """Build the network and its preprocessor; a continued run has its own copy of the preprocessor's files."""
    wrapped = None if backbone is None else wrap_module(backbone, run.model.size_px)
    network = SuperSimpleNet(run.model, backbone=wrapped, seed=run.seed, heads=run.trainer.heads)
    if run.warm_start is not None:
        start_from(network, run.warm_start, backbone=backbone)
        console().print(f"starting from the heads of {run.warm_start}")
    accelerator = run.trainer.accelerator
    device = process_group.device or choose_device({"gpu": "cuda"}.get(accelerator, accelerator))
    move_to(network, device)
    run.folder.mkdir(parents=True, exist_ok=True)
    reading = labels.masks.reading
    drawn_on = image_size(labels.supervision.training[0].image, page=reading.page)
    if earlier is None:
        preprocessor = read_preprocessor(
            run.view, size_px=run.model.size_px, reading=reading, strides=network.config.strides, drawn_on=drawn_on
        )
    else:
        preprocessor = load_preprocessor(run.folder, earlier, run.model)
        require_same_view(run.folder, earlier, run.view, preprocessor, drawn_on=drawn_on)
    return Ready(network=network, preprocessor=preprocessor, device=device, process_group=process_group)


def gather(run: Run, labels: Labels, ready: Ready, earlier: dict[str, Any] | None) -> TrainingSet:
    """Read every training image and mask once, provide the features, and compare good images with held-out ones.

    Raises:
        DataError: the images differ from those of the run that is continued.
    """
    training = labels.supervision.training
    training_set = gather_training_set(
        ready.network,
        training,
        labels.recipe,
        preprocessor=ready.preprocessor,
        masks=labels.masks,
        holdout_fraction=run.trainer.holdout_fraction,
        seed=run.seed,
        folder=run.folder,
        cache=run.cache,
        earlier=read_earlier_images(run.warm_start),
        feature_type=None if earlier is None else _feature_type(earlier),
        on_error=run.on_error,
        process_group=ready.process_group,
    )

    def hashed() -> str:
        list_sha256 = training_list_hash(training, training_set.sha256_of)
        if earlier is not None and earlier["training"]["list_sha256"] != list_sha256:
            raise DataError(
                f"{run.folder}: the training images, their labels or masks changed since this run began; train anew "
                "into another --output"
            )
        return list_sha256

    def repeated() -> str | None:
        held_out = {sample.image for sample in training_set.held_out_samples}
        calibrating = [sample for sample in training if sample.image in held_out]  # without the groups of copies
        reading = labels.masks.reading
        return describe_repeated_parts(calibrating, training_set.trained_good, reading=reading, advice=OF_TRAINING)

    on_rank_zero = ready.process_group.on_rank_zero
    return replace(training_set, list_sha256=on_rank_zero(hashed), repeated_parts=on_rank_zero(repeated))


def _feature_type(earlier: dict[str, Any]) -> torch.dtype | None:
    """Return the type of the features that an interrupted run kept; None where it kept none."""
    kept = earlier["training"].get("feature_type", "bfloat16")  # the only one before version 0.2
    return None if kept == "float32" else getattr(torch, kept)


def plan_training(
    run: Run, labels: Labels, ready: Ready, training_set: TrainingSet, earlier: dict[str, Any] | None
) -> tuple[TrainingModule, EpochBatches, Plan]:
    """Decide length and noise of the training; a continued run keeps its earlier decisions."""
    process_group = ready.process_group
    module = TrainingModule(
        ready.network.trained_heads,
        training_set.source,
        recipe=run.recipe,
        labels=training_set.labels,
        label_recipe=labels.recipe,
        seed=run.seed,
        precision=run.trainer.precision,
        process_group=process_group,
    )
    batches = EpochBatches(
        training_set.good,
        training_set.bad,
        batch_size=run.recipe.batch_size,
        seed=run.seed,
        sampling=run.recipe.sampling,
        most_repeats=run.recipe.most_repeats,
        rank=process_group.rank,
        world_size=process_group.world_size,
    )

    def decide() -> Plan:
        # Not of the held-out images, which do nothing but calibrate.
        scale = measure_feature_scale(training_set.source, [rows[0] for rows in training_set.good])
        module.noise_std = resolve_noise_std(run.recipe, run.model, ready.network.backbone, scale)
        budget_s = None if run.time_budget is None else parse_duration(run.time_budget)
        plan = plan_run(module, batches, run.trainer, scale, budget_s, run.started)
        for line in plan.lines(len(batches)):
            console().print(line)
        return plan

    plan = process_group.on_rank_zero(decide) if earlier is None else saved_plan(earlier, run.folder)
    module.noise_std, module.total_steps = plan.noise_std, plan.total_steps
    return module, batches, plan
