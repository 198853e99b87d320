"""The first detector of a training, after seconds: the subspace of good images alone, as a model folder of its own."""

from __future__ import annotations

import time
from dataclasses import replace

from supersimplenet.inference.config import INSTANT
from supersimplenet.inference.detector import Detector
from supersimplenet.model.config import SUBSPACE_ALONE
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.training.distributed import SINGLE_PROCESS
from supersimplenet.training.folds import score_bad_of_folds
from supersimplenet.training.output import begin, describe, finish
from supersimplenet.training.plan import Plan
from supersimplenet.training.run import Labels, Ready, Run
from supersimplenet.training.score_scale import measure_score_scale
from supersimplenet.training.subspace_fit import CrossFit
from supersimplenet.training.training_set import TrainingSet
from supersimplenet.utils.console import console
from supersimplenet.utils.formatting import shown_duration
from supersimplenet.utils.serialization import to_plain

_NO_STEPS = Plan(epochs=0, total_steps=0, noise_std=0.0, feature_scale=0.0)


def write_instant(run: Run, labels: Labels, ready: Ready, training_set: TrainingSet, subspaces: CrossFit) -> None:
    """Write the detector of the subspace alone into a subfolder of the run, and say so; the training goes on after.

    It is a finished model folder, the same as a run with ``--trainer.max_epochs 0`` leaves but for the expected
    escapes: this process alone writes it, and it trains no models of folds.
    """
    folder = run.folder / INSTANT
    trainer = replace(run.trainer, max_epochs=0, devices=1, num_nodes=1, escapes_share=0.0)
    of_subspace = replace(run, folder=folder, trainer=trainer, recipe=replace(run.recipe, image_score="auto"))
    train_instant(of_subspace, labels, replace(ready, process_group=SINGLE_PROCESS), training_set, subspaces)
    took = shown_duration(time.monotonic() - run.started)
    console().print(f"a first detector, of the subspace alone, after {took}: {folder}; the training goes on")


def train_instant(run: Run, labels: Labels, ready: Ready, training_set: TrainingSet, subspaces: CrossFit) -> Detector:
    """Write the model folder of a detector of the subspace alone, calibrate it, and return the detector."""
    run.folder.mkdir(parents=True, exist_ok=True)
    network = SuperSimpleNet(run.model, backbone=ready.network.backbone, heads=False).eval()
    network.subspace = subspaces.whole
    ready = replace(ready, network=network)
    labels = replace(labels, recipe=replace(labels.recipe, image_score="subspace"))
    record = describe(run, labels, training_set, _NO_STEPS)
    on_rank_zero = ready.process_group.on_rank_zero
    record["view_files"] = on_rank_zero(lambda: begin(run, labels, ready, training_set, record, None))
    scale = on_rank_zero(
        lambda: measure_score_scale(network, training_set, training_set.good_images, subspaces, SUBSPACE_ALONE)
    )
    folds = on_rank_zero(lambda: score_bad_of_folds(run, labels, ready, training_set, _NO_STEPS))
    record["score_scale"] = to_plain(scale)
    return finish(run, labels, ready, training_set, record, folds)
