"""The published recipe as a Lightning module. All randomness is a pure function of the seed and the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from supersimplenet.errors import TrainingDivergedError
from supersimplenet.inference.config import Precision
from supersimplenet.model.anomalies import draw_anomalies
from supersimplenet.model.config import LabelRecipe, Recipe, resolve_recipe
from supersimplenet.model.heads import Heads
from supersimplenet.model.losses import supersimplenet_loss
from supersimplenet.model.ops import identity
from supersimplenet.training.distributed import SINGLE_PROCESS, ProcessGroup
from supersimplenet.training.feature_cache import FeatureSource
from supersimplenet.training.pixel_labels import BatchLabels, PixelLabels
from supersimplenet.utils.seeding import derive_seed

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig


class TrainingModule(L.LightningModule):
    """Trains the heads on features of good images, and of bad images with whatever labels they have.

    Args:
        heads: the layers that are trained.
        source: features of the training images by row.
        recipe: the optimiser's settings.
        labels: labels of the source's images; None where all are good and none has ignored pixels.
        label_recipe: the settings that depend on the labels; by default those of the recipe for unsupervised training.
        seed: seed of the masks and the noise of every step.
        precision: type of features and noise, and so of the wide matrix multiplications.
        process_group: the processes that share each training batch.

    Attributes:
        noise_std: standard deviation of the feature noise, in feature units. Must be set before the training begins.
        total_steps: number of steps of the training; the milestones of the learning rates are fractions of this number.
            Must be set before the training begins.

    Source: JIMS section 4.2 (implementation details). Differs: cached features of the frozen backbone are reused.
    """

    def __init__(
        self,
        heads: Heads,
        source: FeatureSource,
        *,
        recipe: Recipe,
        labels: PixelLabels | None = None,
        label_recipe: LabelRecipe | None = None,
        seed: int,
        precision: Precision = "float32",
        process_group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.source = source
        self.recipe = recipe
        self.labels = labels
        self.label_recipe = label_recipe or resolve_recipe(recipe, "unsupervised", variant=heads.variant)
        self.noise_std = math.nan
        self.total_steps = 0
        self.seed = seed
        self.precision: Precision = precision
        self.process_group = process_group
        self.feature_type: torch.dtype = getattr(torch, precision)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Return the loss of a batch from `batch_loader`.

        Raises:
            TrainingDivergedError: the loss is not finite.
        """
        del batch_index
        row, read = batch
        loss = self.loss(row, derive_seed(self.seed, "anomalies", self.global_step), read, among=self.process_group)
        sums = self.process_group.all_reduce(torch.stack([loss.detach(), loss.new_tensor(len(row))]))
        whole = sums[0] / self.process_group.world_size
        if not whole.isfinite():  # the same in each process, because ``whole`` is an all-reduced mean
            raise TrainingDivergedError(
                f"the loss of step {self.global_step + 1} is {whole.item()}: the training was stopped, and no model is "
                "written; try smaller learning rates (--recipe.adaptor_lr, --recipe.heads_lr) or --trainer.precision "
                "float32, and another --output"
            )
        self.log("train_loss", whole, on_step=True, on_epoch=True, batch_size=round(sums[1].item()))
        self.log("lr_heads", self.trainer.optimizers[0].param_groups[1]["lr"])
        return loss

    def on_train_batch_end(self, outputs: object, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Stop after the last step. Lightning's own ``max_steps`` is not used: it makes resuming skip steps."""
        del outputs, batch, batch_index
        if self.global_step >= self.total_steps:
            self.trainer.should_stop = True

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Log the loss of held-out good images under synthetic anomalies that are the same after every epoch."""
        row, read = batch
        loss = self.loss(row, derive_seed(self.seed, "holdout anomalies", batch_index), read)
        self.log("holdout_loss", loss, on_epoch=True, batch_size=len(row))

    def loss(
        self, row: Tensor, anomaly_seed: int, read: Tensor | None = None, *, among: ProcessGroup = SINGLE_PROCESS
    ) -> Tensor:
        """Compute the loss of some images, with anomalies drawn from a seed.

        Args:
            row: (B,) int64, rows of the feature source.
            anomaly_seed: seed of masks and noise, together with an image's index in the batch.
            read: the result of `FeatureSource.read` for the rows; None reads the rows now.
            among: the processes that share the batch, each with its own rows, as `EpochBatches` divides them.

        Returns:
            () float; its mean over the processes is the loss of the whole batch.
        """
        row = row.cpu()
        features = [values.to(self.device, self.feature_type) for values in self.source.features(row, read)]
        height, width = (2 * side for side in features[0].shape[1:3])
        labels = self._labels(row, (height, width))
        anomalies = draw_anomalies(
            labels.defective | labels.ignored,
            channels=sum(self.heads.channels),
            perlin_threshold=self.label_recipe.perlin_threshold,
            noise_std=self.noise_std,
            generator=[
                torch.Generator().manual_seed(derive_seed(anomaly_seed, among.rank + among.world_size * place))
                for place in range(len(row))
            ],
            dtype=self.feature_type,
        )
        all_reduce = identity if among.world_size == 1 else among.all_reduce
        output = self.heads(
            features,
            anomalies,
            stop_gradient=self.label_recipe.stop_gradient,
            ignored=labels.ignored if labels.ignored.any() else None,
            all_reduce=all_reduce,
        )
        return supersimplenet_loss(
            output,
            anomalies.mask | labels.defective.repeat(2, 1, 1),
            anomalies.mask.flatten(1).any(1) | labels.bad.repeat(2),
            counted=None if labels.counted.all() else labels.counted.repeat(2, 1, 1),
            weight=None if labels.weight is None else labels.weight.repeat(2, 1, 1),
            all_reduce=all_reduce,
        )

    def _labels(self, row: Tensor, size: tuple[int, int]) -> BatchLabels:
        if self.labels is None:
            return BatchLabels.plain(len(row), size).to(self.device)
        views = self.source.flip_index
        return self.labels.of(views.image[row], views.axes(row)).to(self.device)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return optimiser and schedule as Lightning wants them."""
        optimizer, scheduler = self.build_optimisation()
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def build_optimisation(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
        """Build AdamW with the published learning rates, and the schedule of the steps at which the rates decay."""
        optimizer = build_optimizer(self.heads, self.recipe)
        milestones = [round(fraction * self.total_steps) for fraction in self.recipe.lr_milestones]
        return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=self.recipe.lr_decay)


def build_optimizer(heads: Heads, recipe: Recipe) -> torch.optim.Optimizer:
    """Build AdamW with two groups of weights: adaptor and heads, each with its own learning rate and weight decay."""
    adaptor = list(heads.adaptor.parameters())
    others = [parameter for name, parameter in heads.named_parameters() if not name.startswith("adaptor.")]
    return torch.optim.AdamW(
        [
            {"params": adaptor, "lr": recipe.adaptor_lr, "weight_decay": recipe.adaptor_weight_decay},
            {"params": others, "lr": recipe.heads_lr, "weight_decay": recipe.heads_weight_decay},
        ],
        fused=True,
    )


class _RowBatches(Dataset[tuple[Tensor, Tensor]]):
    """Dataset whose items are batches: the rows, and the data that a worker process can read ahead for them."""

    def __init__(self, source: FeatureSource) -> None:
        self.source = source

    def __getitem__(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        row = torch.tensor(rows)
        return row, self.source.read(row)


def batch_loader(
    source: FeatureSource, batches: Iterable[list[int]], *, num_workers: int = 0
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Return a loader of batches: the rows of each batch, and the result of `FeatureSource.read` for them.

    Args:
        source: the source of the rows.
        batches: rows of each batch: `EpochBatches`, or a list that stays the same.
        num_workers: number of processes that read ahead; 0 reads in this process.
    """
    return DataLoader(_RowBatches(source), sampler=batches, batch_size=None, num_workers=num_workers)
