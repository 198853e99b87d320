"""The published recipe as a Lightning module. What is drawn at random is a pure function of the seed and the step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from supersimplenet.model.heads import Heads
from supersimplenet.model.losses import supersimplenet_loss
from supersimplenet.model.recipes import Recipe
from supersimplenet.model.synthesis import draw_anomalies
from supersimplenet.seeds import derive_seed
from supersimplenet.settings import Precision
from supersimplenet.training.features import FeatureSource

if TYPE_CHECKING:
    from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig


class TrainingModule(L.LightningModule):
    """Trains the heads on features of good images.

    Args:
        heads: what is trained.
        source: features of the training images by index.
        recipe: the optimiser's settings and the synthetic anomalies'.
        seed: decides masks and noise of every step.
        precision: type of features and noise, and so of the wide multiplications.

    Attributes:
        noise_std: standard deviation of the feature noise, in feature units. To be set before the training begins.
        total_steps: after which the training ends; the milestones of the learning rates are fractions of it. To be set
            before the training begins.

    Source: JIMS section 4.2 (implementation details). Differs: features of the frozen backbone are not computed anew.
    """

    def __init__(
        self,
        heads: Heads,
        source: FeatureSource,
        *,
        recipe: Recipe,
        seed: int,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.heads = heads
        self.source = source
        self.recipe = recipe
        self.noise_std = math.nan
        self.total_steps = 0
        self.seed = seed
        self.precision: Precision = precision
        self.feature_type: torch.dtype = getattr(torch, precision)

    def training_step(self, index: Tensor, batch_index: int) -> Tensor:
        """Loss of a batch, given by the indices of its images (B,)."""
        del batch_index
        loss = self.loss(index, derive_seed(self.seed, "anomalies", self.global_step, self.global_rank))
        self.log("train_loss", loss, on_step=True, on_epoch=True, batch_size=len(index))
        self.log("lr_heads", self.trainer.optimizers[0].param_groups[1]["lr"])
        return loss

    def on_train_batch_end(self, outputs: object, batch: Tensor, batch_index: int) -> None:
        """Stop after the last step. Lightning's own ``max_steps`` is not used: it makes resuming skip steps."""
        del outputs, batch, batch_index
        if self.global_step >= self.total_steps:
            self.trainer.should_stop = True

    def validation_step(self, index: Tensor, batch_index: int) -> None:
        """Loss of held-out good images under synthetic anomalies that are the same after every epoch."""
        loss = self.loss(index, derive_seed(self.seed, "holdout anomalies", batch_index))
        self.log("holdout_loss", loss, on_epoch=True, batch_size=len(index))

    def loss(self, index: Tensor, anomaly_seed: int) -> Tensor:
        """The loss of some good images, anomalies drawn from a seed.

        Args:
            index: (B,) int64.
            anomaly_seed: decides masks and noise.

        Returns:
            () float.
        """
        features = [values.to(self.device, self.feature_type) for values in self.source.features(index.cpu())]
        height, width = (2 * side for side in features[0].shape[1:3])
        anomalies = draw_anomalies(
            torch.zeros(len(index), height, width, dtype=torch.bool, device=self.device),
            channels=sum(self.heads.channels),
            perlin_threshold=self.recipe.perlin_threshold,
            noise_std=self.noise_std,
            generator=torch.Generator().manual_seed(anomaly_seed),
            dtype=self.feature_type,
        )
        output = self.heads(features, anomalies, stop_gradient=self.recipe.stop_gradient)
        return supersimplenet_loss(output, anomalies.mask, anomalies.mask.flatten(1).any(1))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with the published rates, decayed by steps."""
        optimizer = build_optimizer(self.heads, self.recipe)
        milestones = [round(fraction * self.total_steps) for fraction in self.recipe.lr_milestones]
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=self.recipe.lr_decay)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def build_optimizer(heads: Heads, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW over two groups of weights: the adaptor and the heads, each with its own rate and decay."""
    adaptor = list(heads.adaptor.parameters())
    others = [parameter for name, parameter in heads.named_parameters() if not name.startswith("adaptor.")]
    return torch.optim.AdamW(
        [
            {"params": adaptor, "lr": recipe.adaptor_lr, "weight_decay": recipe.adaptor_weight_decay},
            {"params": others, "lr": recipe.heads_lr, "weight_decay": recipe.heads_weight_decay},
        ],
        fused=True,
    )


class EpochShuffle(Sampler[int]):
    """A new order for each epoch, a pure function of the seed and the epoch, so that a resumed run repeats it.

    Args:
        length: number of images.
        seed: the run's seed.
    """

    def __init__(self, length: int, seed: int) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", self.epoch))
        return iter(torch.randperm(self.length, generator=generator).tolist())


class _Indices(Dataset[int]):
    """The integers of a list: features are fetched by index, on the training process's side."""

    def __init__(self, values: Sequence[int]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, position: int) -> int:
        return self.values[position]


def index_loader(values: Sequence[int], batch_size: int, *, shuffle_seed: int | None = None) -> DataLoader[int]:
    """Batches of indices, in a seeded order that changes each epoch, or as they come.

    Args:
        values: indices into the feature source.
        batch_size: the last batch may be smaller.
        shuffle_seed: the run's seed; None keeps the order.
    """
    sampler = None if shuffle_seed is None else EpochShuffle(len(values), shuffle_seed)
    return DataLoader(_Indices(values), batch_size=batch_size, sampler=sampler)
