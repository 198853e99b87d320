"""One training run: from samples to a model folder, in named steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from torch import nn

from supersimplenet.datasets.base import DataSource
from supersimplenet.errors import ConfigError
from supersimplenet.inference.detector import Detector
from supersimplenet.inference.image_records import as_recorded
from supersimplenet.model.config import SCORE_WEIGHTS, ModelConfig, Recipe
from supersimplenet.model.layers import resolve_layers
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.preprocessing.preprocessor import ViewConfig
from supersimplenet.training.checkpoints import run_identity
from supersimplenet.training.config import CacheConfig, TrainerConfig, parse_duration
from supersimplenet.training.distributed import ProcessGroup, start
from supersimplenet.training.features import remove_cache_files
from supersimplenet.training.folds import score_bad_of_folds
from supersimplenet.training.instant import train_instant, write_instant
from supersimplenet.training.loggers import Loggers
from supersimplenet.training.loop import fit
from supersimplenet.training.map_shift import choose_map_shift
from supersimplenet.training.output import begin, describe, finish
from supersimplenet.training.plan import earlier_run
from supersimplenet.training.run import Run, decide_labels, gather, plan_training, prepare
from supersimplenet.training.score_scale import measure_score_scale
from supersimplenet.training.subspace_fit import fit_to_training_set
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
    warm_start: str | Path | None = None,
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
        warm_start: a model folder whose heads the training starts from, instead of random ones. What that model was
            trained on is trained on again, and what it held out stays held out.
        backbone: a module that returns feature maps, used instead of the backbone that ``model`` names.

    Returns:
        The trained detector. Where several processes train, each returns it; rank 0 writes the folder.

    Raises:
        SuperSimpleNetError: of the class that names the cause; see `supersimplenet.errors`.
    """
    keep_freed_blocks()
    run = Run(
        data=data,
        folder=Path(output),
        supervision=supervision,
        masks=masks,
        model=_resolved(model or ModelConfig(), data, backbone),
        view=view or ViewConfig(),
        recipe=recipe or Recipe(),
        trainer=trainer or TrainerConfig(),
        cache=cache or CacheConfig(),
        seed=seed,
        time_budget=time_budget,
        on_error=on_error,
        started=time.monotonic(),
        warm_start=None if warm_start is None else Path(warm_start),
    )
    if run.time_budget is not None:
        parse_duration(run.time_budget)  # a wrong duration raises before anything is started
    run.trainer.require_score(run.recipe.image_score)
    run.trainer.require_loggers()
    if run.warm_start is not None and not run.trainer.heads:
        raise ConfigError("warm_start: trainer.max_epochs 0 trains no heads; leave one of the two out")
    process_group = start(run.trainer)
    with ExitStack() as held:

        def lock() -> None:  # rank 0 alone writes
            held.enter_context(writing_into(run.folder))

        process_group.on_rank_zero(lock)
        loggers = held.enter_context(Loggers(run.trainer.loggers, run.folder))
        return _train(run, process_group, loggers, backbone, resume=resume)


def _train(
    run: Run, process_group: ProcessGroup, loggers: Loggers, backbone: nn.Module | None, *, resume: bool
) -> Detector:
    settings = {**run.settings(), "model": to_plain(run.model)}
    earlier = process_group.on_rank_zero(lambda: earlier_run(run.folder, settings, resume=resume))
    if earlier is not None:
        run = replace(run, data=as_recorded(run.data, run.folder))
    process_group.on_rank_zero(loggers.connect)  # a server that is not there is found before an image is read
    labels = decide_labels(run, process_group, earlier)
    ready = prepare(run, labels, backbone, process_group, earlier)
    try:
        training_set = gather(run, labels, ready, earlier)
        # Nothing of this is fitted or measured on the held-out images: they calibrate, and what they choose breaks the
        # guarantee.
        subspaces = fit_to_training_set(ready.network, training_set, seed=run.seed, process_group=process_group)
        if not run.trainer.heads:
            detector = train_instant(run, labels, ready, training_set, subspaces)
            process_group.on_rank_zero(lambda: loggers.finish(detector, training_set.held_out_samples))
            return detector
        process_group.on_rank_zero(lambda: write_instant(run, labels, ready, training_set, subspaces))
        module, batches, plan = plan_training(run, labels, ready, training_set, earlier)
        record = describe(run, labels, training_set, plan)
        record["view_files"] = process_group.on_rank_zero(
            lambda: begin(run, labels, ready, training_set, record, earlier)
        )
        process_group.on_rank_zero(loggers.begin)
        fit(
            module,
            plan,
            run.folder,
            run.trainer,
            batches,
            training_set.held_out,
            identity=run_identity(record),
            loggers=loggers.of_lightning(),
            deadline=run.deadline,
        )
        shift = process_group.on_rank_zero(
            lambda: choose_map_shift(
                run.recipe,
                ready.network,
                training_set.trained_good,
                preprocessor=ready.preprocessor,
                masks=training_set.masks,
                seed=run.seed,
            )
        )
        ready.network.map_shift_px = shift.shift_px
        ready.network.subspace = subspaces.whole
        scale = process_group.on_rank_zero(
            lambda: measure_score_scale(
                ready.network,
                training_set,
                training_set.good_images,
                subspaces,
                SCORE_WEIGHTS[labels.supervision.regime],
            )
        )
        folds = process_group.on_rank_zero(lambda: score_bad_of_folds(run, labels, ready, training_set, plan))
    finally:
        remove_cache_files(run.folder, process_group)
    record["score_scale"] = to_plain(scale)
    record["training"]["map_shift"] = to_plain(shift)
    detector = finish(run, labels, ready, training_set, record, folds)
    process_group.on_rank_zero(lambda: loggers.finish(detector, training_set.held_out_samples))
    return detector


def _resolved(model: ModelConfig, data: DataSource, backbone: nn.Module | None) -> ModelConfig:
    """Return the settings of the network with layers, strides and size filled in."""
    if backbone is None:
        model = resolve_layers(model)
    elif model.layers is not None:
        raise ConfigError("model.layers: a module of your own gives its feature maps itself; leave layers out")
    size_px = model.image_size or data.image_size or model.size_px
    return replace(model, feature_strides=model.strides, image_size=size_px)
