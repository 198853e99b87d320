"""One training run: from samples to a model folder, in named steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from supersimplenet.datasets.base import DataSource, training_list_hash
from supersimplenet.datasets.held_out import HELD_OUT
from supersimplenet.datasets.masks import MaskReader, without_empty_masks
from supersimplenet.datasets.registry import describe_source
from supersimplenet.datasets.supervision import Supervision, is_amount, names_of_masks, supervise
from supersimplenet.errors import DataError
from supersimplenet.evaluation.set_thresholds import ThresholdConfig, set_thresholds
from supersimplenet.inference.config import CONFIG_FILE, WEIGHTS_FILE
from supersimplenet.inference.detector import Detector, choose_device
from supersimplenet.inference.image_records import IMAGES_FILE, as_recorded, write_image_records
from supersimplenet.inference.model_folder import (
    describe_model,
    load_preprocessor,
    move_to,
    save_preprocessor,
    save_weights,
    write_calibration,
    write_yaml,
)
from supersimplenet.model.backbone import wrap_module
from supersimplenet.model.config import LabelRecipe, ModelConfig, Recipe, resolve_recipe
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.postprocessing.calibration import UNCALIBRATED, Calibration
from supersimplenet.preprocessing.decoding import image_size
from supersimplenet.preprocessing.listing import counting
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig, read_preprocessor
from supersimplenet.training.checkpoints import run_identity
from supersimplenet.training.config import CacheConfig, TrainerConfig, parse_duration
from supersimplenet.training.distributed import ProcessGroup, start
from supersimplenet.training.features import measure_feature_scale, remove_cache_files
from supersimplenet.training.loop import fit
from supersimplenet.training.module import TrainingModule
from supersimplenet.training.plan import (
    Plan,
    earlier_run,
    plan_run,
    require_same_view,
    resolve_noise_std,
    saved_plan,
)
from supersimplenet.training.sampler import EpochBatches
from supersimplenet.training.score_scale import measure_score_scale
from supersimplenet.training.training_set import TrainingSet, gather_training_set
from supersimplenet.types import GOOD, Sample
from supersimplenet.utils.console import console
from supersimplenet.utils.files import file_sha256
from supersimplenet.utils.locks import writing_into
from supersimplenet.utils.serialization import to_plain
from supersimplenet.utils.system import keep_freed_blocks


def train(
    data: DataSource,
    *,
    output: str | Path,
    supervision: str = "auto",
    masks: str | float | Sequence[str] | None = None,
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
    """Train with whatever labels a dataset has, and write a model folder.

    Args:
        data: the dataset; no image of its test split is used, and none is decoded but by `Folder` to find copies.
        output: the model folder. It must not hold a model, unless ``resume``.
        supervision: ``auto`` uses every label there is; ``unsupervised``, ``weak`` and ``mixed`` use fewer of them;
            ``full`` requires all of them; see `supervise`.
        masks: with ``mixed``, how many masks are kept, or which ones; see `supervise`.
        model: the network's architecture; by default the published one.
        view: how images are prepared for the network; by default each is resized to the network's input size.
        recipe: how the network is trained; by default as published for the supervision.
        trainer: length, devices and processes of the training.
        cache: where the backbone's features are kept.
        seed: seed of initial weights, kept masks, order, anomalies and noise.
        time_budget: a duration such as ``15m``, counted from now: as many epochs as fit into it are trained, at most
            ``trainer.max_epochs``.
        resume: continue an interrupted run in ``output``. Settings that decide the result must be the same; devices,
            processes, caches, ``on_error`` and the place of the data may change.
        on_error: ``stop`` raises at an unreadable training image or mask; ``skip`` leaves it out and reports it.
        backbone: a module that returns feature maps, used instead of the backbone that ``model`` names.

    Returns:
        The trained detector. Where several processes train, each returns it; rank 0 writes the folder.

    Raises:
        SuperSimpleNetError: of the class that names the cause; see `supersimplenet.errors`.
    """
    keep_freed_blocks()
    run = _Run(
        data=data,
        folder=Path(output),
        supervision=supervision,
        masks=masks,
        model=_with_size(model or ModelConfig(), data),
        view=view or ViewConfig(),
        recipe=recipe or Recipe(),
        trainer=trainer or TrainerConfig(),
        cache=cache or CacheConfig(),
        seed=seed,
        time_budget=time_budget,
        on_error=on_error,
        started=time.monotonic(),
    )
    if run.time_budget is not None:
        parse_duration(run.time_budget)  # a wrong duration raises before anything is started
    process_group = start(run.trainer)
    with ExitStack() as held:

        def lock() -> None:  # rank 0 alone writes
            held.enter_context(writing_into(run.folder))

        process_group.on_rank_zero(lock)
        return _train(run, process_group, backbone, resume=resume)


def _train(run: _Run, process_group: ProcessGroup, backbone: nn.Module | None, *, resume: bool) -> Detector:
    settings = {**run.settings(), "model": to_plain(run.model)}
    earlier = process_group.on_rank_zero(lambda: earlier_run(run.folder, settings, resume=resume))
    if earlier is not None:
        run = replace(run, data=as_recorded(run.data, run.folder))
    labels = _supervise(run, process_group)
    ready = _prepare(run, labels, backbone, process_group, earlier)
    try:
        training_set = _gather(run, labels, ready, earlier)
        module, batches, plan = _plan(run, labels, ready, training_set, earlier)
        record = _record(run, labels, training_set, plan)
        record["view_files"] = process_group.on_rank_zero(
            lambda: _begin(run, labels, ready, training_set, record, earlier)
        )
        fit(module, plan, run.folder, run.trainer, batches, training_set.held_out, identity=run_identity(record))
        # Not measured on the held-out images: they calibrate, and a scale measured on them would break the guarantee.
        scale = process_group.on_rank_zero(
            lambda: measure_score_scale(
                ready.network, training_set.source, training_set.good_images, training_set.labels
            )
        )
    finally:
        remove_cache_files(run.folder, process_group)
    record["score_scale"] = to_plain(scale)
    return _finish(run, labels, ready, training_set, record)


@dataclass(frozen=True, kw_only=True)
class _Run:
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
        }


@dataclass(frozen=True, kw_only=True)
class _Labels:
    """The samples of the dataset, the labels that the training uses, and the numbers of what no sample was made of."""

    samples: list[Sample]
    empty_masks: list[Sample]
    left_out: dict[str, int]
    supervision: Supervision
    recipe: LabelRecipe
    masks: MaskReader


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """The network on its device, and the preprocessor of its images."""

    network: SuperSimpleNet
    preprocessor: Preprocessor
    device: torch.device
    process_group: ProcessGroup


def _with_size(model: ModelConfig, data: DataSource) -> ModelConfig:
    return replace(model, image_size=model.image_size or data.image_size or model.size_px)


def _supervise(run: _Run, process_group: ProcessGroup) -> _Labels:
    """Decide which labels are used, and print the decision."""
    masks = MaskReader()
    with counting(run.on_error) as left_out:
        samples, empty_masks = without_empty_masks(process_group.on_rank_zero(run.data.samples), masks)
    if text := left_out.unsaid():
        console().print(text)
    supervision = supervise(samples, run.supervision, masks=run.masks, seed=run.seed)
    console().print(supervision.describe())
    if empty_masks:
        console().print(f"of those without a mask, {len(empty_masks)} have an empty one")
    recipe = resolve_recipe(
        run.recipe,
        supervision.regime,
        variant=run.model.variant,
        own_perlin_threshold=run.data.perlin_threshold,
    )
    return _Labels(
        samples=samples,
        empty_masks=empty_masks,
        left_out=left_out.counts(),
        supervision=supervision,
        recipe=recipe,
        masks=masks,
    )


def _prepare(
    run: _Run,
    labels: _Labels,
    backbone: nn.Module | None,
    process_group: ProcessGroup,
    earlier: dict[str, Any] | None,
) -> _Ready:
    """Build the network and its preprocessor; a continued run has its own copy of the preprocessor's files."""
    wrapped = None if backbone is None else wrap_module(backbone, run.model.size_px)
    network = SuperSimpleNet(run.model, backbone=wrapped, seed=run.seed)
    accelerator = run.trainer.accelerator
    device = process_group.device or choose_device({"gpu": "cuda"}.get(accelerator, accelerator))
    move_to(network, device)
    run.folder.mkdir(parents=True, exist_ok=True)
    drawn_on = image_size(labels.supervision.training[0].image)
    if earlier is None:
        preprocessor = read_preprocessor(
            run.view, size_px=run.model.size_px, strides=run.model.feature_strides, drawn_on=drawn_on
        )
    else:
        preprocessor = load_preprocessor(run.folder, earlier, run.model)
        require_same_view(run.folder, earlier, run.view, preprocessor, drawn_on=drawn_on)
    return _Ready(network=network, preprocessor=preprocessor, device=device, process_group=process_group)


def _gather(run: _Run, labels: _Labels, ready: _Ready, earlier: dict[str, Any] | None) -> TrainingSet:
    """Read every training image and mask once, and provide the features.

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

    return replace(training_set, list_sha256=ready.process_group.on_rank_zero(hashed))


def _plan(
    run: _Run, labels: _Labels, ready: _Ready, training_set: TrainingSet, earlier: dict[str, Any] | None
) -> tuple[TrainingModule, EpochBatches, Plan]:
    """Decide length and noise of the training; a continued run keeps its earlier decisions."""
    process_group = ready.process_group
    module = TrainingModule(
        ready.network.heads,
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


def _record(run: _Run, labels: _Labels, training_set: TrainingSet, plan: Plan) -> dict[str, Any]:
    """Return the settings of the run and the facts about its training, for config.yaml."""
    settings = run.settings()
    if run.masks is not None and not is_amount(run.masks):
        settings["masks"] = names_of_masks(labels.samples, labels.supervision)  # the file that lists them may change
    return {
        **settings,
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
            "skipped": [{"path": str(failure.path), "reason": failure.reason} for failure in training_set.failures],
            "features": training_set.source.location,
            "plan": to_plain(plan),
        },
    }


def _begin(
    run: _Run,
    labels: _Labels,
    ready: _Ready,
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


def _finish(run: _Run, labels: _Labels, ready: _Ready, training_set: TrainingSet, record: dict[str, Any]) -> Detector:
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
        calibration = _calibrated(run, ready, finished, training_set)
        write_yaml(run.folder / CONFIG_FILE, finished)
        return finished, calibration

    finished, calibration = ready.process_group.on_rank_zero(write)
    detector = Detector.of(
        ready.network, finished, calibration, preprocessor=ready.preprocessor, device=str(ready.device)
    )
    detector.folder = run.folder
    return detector


def _calibrated(run: _Run, ready: _Ready, record: dict[str, Any], training_set: TrainingSet) -> Calibration | None:
    """Calibrate the model folder; return the calibration (None where nothing was held out)."""
    held_out = training_set.held_out_samples
    if not any(sample.label == GOOD for sample in held_out):
        why = training_set.not_held_out or "none of the held-out good images could be read"
        console().print(f"{UNCALIBRATED} --good DIR (no image calibrates: {why})")
        return None
    detector = Detector.of(ready.network, record, preprocessor=ready.preprocessor, device=str(ready.device))
    calibration = set_thresholds(
        detector,
        held_out,
        ThresholdConfig(lenient=True),
        basis=HELD_OUT,
        weights_sha256=record["files"][WEIGHTS_FILE],
        on_error=run.on_error,
    ).calibration
    write_calibration(run.folder, calibration)
    console().print(f"calibrated: {calibration.guarantee()}")
    return calibration
