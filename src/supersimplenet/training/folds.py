"""Models of folds: each is trained as the model was, without the parts of its fold, on the features that are cached."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from supersimplenet.datasets.parts import merge_copies
from supersimplenet.datasets.splits import split_in_folds
from supersimplenet.errors import DataError, TrainingDivergedError
from supersimplenet.evaluation.config import ThresholdConfig
from supersimplenet.evaluation.few_parts import BadScore, FoldScores, bad_scores
from supersimplenet.evaluation.scored_parts import Floats, score_images
from supersimplenet.inference.detector import Detector
from supersimplenet.inference.model_folder import move_to
from supersimplenet.model.config import SCORE_WEIGHTS, SUBSPACE_ALONE
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.training.features import measure_feature_scale
from supersimplenet.training.module import TrainingModule
from supersimplenet.training.plan import Plan, plan_folds, resolve_noise_std
from supersimplenet.training.run import Labels, Ready, Run
from supersimplenet.training.sampler import EpochBatches
from supersimplenet.training.score_scale import measure_score_scale
from supersimplenet.training.subspace_fit import fit_to_images
from supersimplenet.training.training_set import TrainingSet
from supersimplenet.types import BAD, GOOD, Sample, ScoreName
from supersimplenet.utils.console import console, progress_bar
from supersimplenet.utils.formatting import counted
from supersimplenet.utils.seeding import derive_seed

_ENOUGH_BAD = 20  # held-out bad images that tell without models of folds how many escape


def score_folds(
    run: Run,
    labels: Labels,
    ready: Ready,
    training_set: TrainingSet,
    *,
    folds: int,
    steps: int,
    image_score: ScoreName,
    min_area_px: int,
    score_good: bool,
    on_error: OnError,
) -> FoldScores:
    """Train a model without each fold of the parts that are trained on, and score the fold with it.

    No model of a fold is trained on a held-out image: the held-out parts are scored by each, so that they can set its
    threshold, as they set that of the model.

    Args:
        run: the training.
        labels: its samples and labels.
        ready: its backbone and preprocessor; its heads are not used.
        training_set: its features.
        folds: number of folds.
        steps: number of training steps of each model.
        image_score: the score that decides.
        min_area_px: smaller regions are no defects.
        score_good: whether good parts are scored too, which sets thresholds; bad ones alone tell escapes.
        on_error: whether an image that cannot be read any more stops.

    Raises:
        DataError: there are fewer parts than folds.
        TrainingDivergedError: a loss is not finite.
    """
    samples = trained_on_samples(training_set)
    fold_of = split_in_folds(samples, folds, seed=run.seed)
    held_out = [sample for sample in training_set.held_out_samples if sample.label == GOOD]
    place_of = {sample.image: place for place, sample in enumerate(training_set.training)}
    good: list[Floats] = []
    levels: list[Floats] = []
    images = 0
    bad: list[BadScore] = []
    held_out_logits = []
    with progress_bar() as bar:
        task = bar.add_task("models of folds", total=folds * max(steps, 1), detail="")
        for fold in range(folds):
            members = [sample for sample, its_fold in zip(samples, fold_of, strict=True) if its_fold == fold]
            detector = fit_fold(
                run,
                labels,
                ready,
                training_set,
                left_out={place_of[sample.image] for sample in members},
                steps=steps,
                image_score=image_score,
                progress=lambda done: bar.advance(task, done),
            )
            wanted = [sample for sample in members if score_good or sample.label == BAD]
            scored = score_images(detector, wanted, min_area_px=min_area_px, on_error=on_error)
            bad += bad_scores(scored, image_score, fold=fold)
            if score_good:
                good.append(scored.of_parts()[image_score].good)
                levels.append(scored.part_levels())
                images += len(scored.places(GOOD))
            of_held_out = score_images(detector, held_out, on_error=on_error)
            held_out_logits.append(of_held_out.of_parts()[image_score].good)
    return FoldScores(
        folds=folds,
        steps=steps,
        good_logits=np.concatenate(good or [np.zeros(0)]),
        good_levels=np.concatenate(levels or [np.zeros(0)]),
        images=images,
        bad=bad,
        held_out_logits=held_out_logits,
    )


def score_bad_of_folds(
    run: Run, labels: Labels, ready: Ready, training_set: TrainingSet, plan: Plan
) -> FoldScores | None:
    """Score the bad images that are trained on by models that are not, in a share of the training's time.

    Returns:
        The scores; None where no bad image is trained on, where nothing calibrates, where enough bad parts are held out
        to tell the same, or where the share does not suffice, which is printed.
    """
    bad = [sample for sample in trained_on_samples(training_set) if sample.label == BAD]
    calibrates = any(sample.label == GOOD for sample in training_set.held_out_samples)
    bad_held_out = sum(sample.label == BAD for sample in training_set.held_out_samples)
    if not bad or not calibrates or bad_held_out >= _ENOUGH_BAD or run.trainer.escapes_share == 0:
        return None
    planned = (
        None
        if run.time_budget is not None and plan.total_steps
        else plan_folds(plan.total_steps, run.trainer.escapes_share)
    )
    try:
        if planned is not None:
            folds, steps = planned
            length = f", {counted(steps, 'step')} each" if steps else ""  # without heads they take none
            console().print(f"how many bad parts will escape: {folds} models of folds{length}")
            return score_folds(
                run,
                labels,
                ready,
                training_set,
                folds=folds,
                steps=steps,
                image_score=labels.recipe.image_score,
                min_area_px=ThresholdConfig().listed_area_px,
                score_good=False,
                on_error=run.on_error,
            )
        why = "the time budget is spent" if run.time_budget is not None else "the training is too short for it"
    except (DataError, TrainingDivergedError) as error:  # the model is trained: this must not lose it
        why = str(error)
    console().print(
        f"how many bad parts will escape is not known ({why}): supersimplenet calibrate --cross 5 --model "
        f"{shlex.quote(str(run.folder))} tells, by models of folds"
    )
    return None


def trained_on_samples(training_set: TrainingSet) -> list[Sample]:
    """Return the images that a model was trained on, copies of one image in one group; none is held out."""
    kept_out = {sample.image for sample in (*training_set.held_out_samples, *training_set.left_out)}
    merged = merge_copies(training_set.training, {path: facts.pixels for path, facts in training_set.facts.items()})
    return [sample for sample in merged if sample.image in training_set.facts and sample.image not in kept_out]


def fit_fold(
    run: Run,
    labels: Labels,
    ready: Ready,
    training_set: TrainingSet,
    *,
    left_out: Collection[int],
    steps: int,
    image_score: ScoreName,
    progress: Callable[[int], None] = lambda steps: None,
) -> Detector:
    """Train a model on all training images but some; whatever is fitted on training images is fitted here anew.

    That is: the noise, by the scale of the features; the heads, from the same initial weights; the subspace; the scale
    of the scores.

    Args:
        run: the training.
        labels: its labels.
        ready: its backbone and preprocessor.
        training_set: its features.
        left_out: places of the images, in ``training_set.training``, that are not trained on.
        steps: number of steps; the learning rates decay at the same fractions of them. Without heads none is made.
        image_score: the score that decides.
        progress: called with the number of steps done since the last call.
    """
    source = training_set.source

    def kept(images: Sequence[list[int]]) -> list[list[int]]:
        tile_of = (training_set.labels.tiles[source.flip_index.image[rows[0]]] for rows in images)
        return [rows for rows, tile in zip(images, tile_of, strict=True) if tile.sample not in left_out]

    good, bad, good_images = (kept(rows) for rows in (training_set.good, training_set.bad, training_set.good_images))
    heads = ready.network.heads is not None
    network = SuperSimpleNet(run.model, backbone=ready.network.backbone, seed=run.seed, heads=heads)
    network.map_shift_px = ready.network.map_shift_px  # painted defects told it, not the parts of the fold
    move_to(network, ready.device)
    if heads:
        _fit_heads_of_fold(run, labels, ready, training_set, network, good, bad, steps=steps, progress=progress)
    else:
        progress(1)
    subspaces = fit_to_images(network, training_set, good_images, seed=run.seed)
    network.subspace = subspaces.whole
    weights = SCORE_WEIGHTS[labels.supervision.regime] if heads else SUBSPACE_ALONE
    return Detector(
        network,
        image_score=image_score,
        score_scale=measure_score_scale(network, training_set, good_images, subspaces, weights),
        preprocessor=ready.preprocessor,
        device=str(ready.device),
    )


def _fit_heads_of_fold(
    run: Run,
    labels: Labels,
    ready: Ready,
    training_set: TrainingSet,
    network: SuperSimpleNet,
    good: list[list[int]],
    bad: list[list[int]],
    *,
    steps: int,
    progress: Callable[[int], None],
) -> None:
    module = TrainingModule(
        network.trained_heads,
        training_set.source,
        recipe=run.recipe,
        labels=training_set.labels,
        label_recipe=labels.recipe,
        seed=run.seed,
        precision=run.trainer.precision,
    ).to(ready.device)
    scale = measure_feature_scale(training_set.source, [rows[0] for rows in good])
    module.noise_std = resolve_noise_std(run.recipe, run.model, network.backbone, scale)
    module.total_steps = steps
    batches = EpochBatches(
        good,
        bad,
        batch_size=run.recipe.batch_size,
        seed=run.seed,
        sampling=run.recipe.sampling,
        most_repeats=run.recipe.most_repeats,
    )
    fit_heads(module, batches, progress=progress)


def fit_heads(
    module: TrainingModule, batches: EpochBatches, *, progress: Callable[[int], None] = lambda steps: None
) -> None:
    """Train the heads of a module for its number of steps, in this process alone: the same steps as `fit`, bit by bit.

    Raises:
        TrainingDivergedError: a loss is not finite.
    """
    heads = module.heads.train()
    optimizer, schedule = module.build_optimisation()
    clip = module.label_recipe.gradient_clip_norm
    for step, rows in zip(range(module.total_steps), _endless(batches), strict=False):
        optimizer.zero_grad()
        loss = module.loss(torch.tensor(rows), derive_seed(module.seed, "anomalies", step))
        if not loss.isfinite():
            raise TrainingDivergedError(
                f"a model of a fold: the loss of step {step + 1} is {loss.item()}; try smaller learning rates "
                "(--recipe.adaptor_lr, --recipe.heads_lr) or --trainer.precision float32"
            )
        torch.autograd.backward(loss)
        if clip is not None:
            nn.utils.clip_grad_norm_(heads.parameters(), clip)
        optimizer.step()
        schedule.step()
        progress(1)
    heads.eval()


def _endless(batches: EpochBatches) -> Iterator[list[int]]:
    epoch = 0
    while True:
        batches.set_epoch(epoch)
        yield from batches
        epoch += 1
