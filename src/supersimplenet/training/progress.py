"""What a person watching a training run wants to know: how far it is, how fast, how well, how long it will take."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from supersimplenet.terminal import progress_bar

Batch = tuple[torch.Tensor, torch.Tensor]  # rows, and what was read of them

_SMOOTHING = 0.05  # weight of the newest loss in the one that is shown


class TrainingProgress(Callback):
    """A progress bar over the whole training: loss, images a second, time left.

    Args:
        total_steps: steps of the whole run.
        epochs: epochs of the whole run.
    """

    def __init__(self, total_steps: int, epochs: int) -> None:
        self.total_steps = total_steps
        self.epochs = epochs
        self.bar = progress_bar()
        self.loss: float | None = None
        self.images = 0
        self.started = 0.0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Show the bar, where a resumed run left off."""
        del module
        self.started = time.monotonic()
        self.bar.start()
        self.task = self.bar.add_task("training", total=self.total_steps, completed=trainer.global_step, detail="")

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: Any,
        batch: tuple[torch.Tensor, ...],
        batch_index: int,
    ) -> None:
        """Advance the bar by a step."""
        del module, batch_index
        loss = float(outputs["loss"])
        self.loss = loss if self.loss is None else self.loss + _SMOOTHING * (loss - self.loss)
        self.images += len(batch[0]) * trainer.world_size
        rate = self.images / max(time.monotonic() - self.started, 1e-9)
        self.bar.update(
            self.task,
            completed=trainer.global_step,
            description=f"epoch {trainer.current_epoch + 1}/{self.epochs}",
            detail=f"loss {self.loss:.3f}  {rate:.1f} images/s",
        )

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Leave the finished bar on the screen."""
        del trainer, module
        self.bar.stop()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        del trainer, module, exception
        self.bar.stop()
