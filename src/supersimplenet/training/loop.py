"""The training loop: progress bar, checkpoints, and a common stop of all processes."""

from __future__ import annotations

import logging
import signal
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.strategies.ddp import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException

from supersimplenet.errors import TrainingInterruptedError
from supersimplenet.training.checkpoints import CHECKPOINT, CheckpointWriter, usable_checkpoint
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.distributed import DDP_TIMEOUT, ProcessGroup
from supersimplenet.training.module import TrainingModule, batch_loader
from supersimplenet.training.plan import Plan
from supersimplenet.training.sampler import EpochBatches
from supersimplenet.utils.console import progress_bar
from supersimplenet.utils.formatting import shown_duration

Batch = tuple[torch.Tensor, torch.Tensor]  # rows, and the data that was read ahead for them
_SMOOTHING = 0.05  # weight of the newest loss in the displayed mean
_SLOWER = 1.25  # times the estimate that was said last, from which another one is said
_TOLD_AFTER_STEPS, _TOLD_AFTER_S = 10, 20.0


class TrainingProgress(Callback):
    """A progress bar over the whole training: loss, images per second, time left.

    Where steps take longer than was measured at the start, it says when the training will end.

    Args:
        plan: the plan of the run.
        deadline: when the time budget ends, in seconds of ``time.monotonic()``; None without a budget.
    """

    def __init__(self, plan: Plan, deadline: float | None = None) -> None:
        self.plan = plan
        self.deadline = deadline
        self.said_s = plan.seconds_per_step  # of a step
        self.bar = progress_bar()
        self.loss: float | None = None
        self.images = self.steps = 0
        self.started = 0.0

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Show the bar, from the step at which a resumed run continues."""
        del module
        self.started = time.monotonic()
        self.bar.start()
        self.task = self.bar.add_task("training", total=self.plan.total_steps, completed=trainer.global_step, detail="")

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: Any,
        batch: tuple[torch.Tensor, ...],
        batch_index: int,
    ) -> None:
        """Advance the bar by one step."""
        del module, batch_index
        loss = float(outputs["loss"])
        self.loss = loss if self.loss is None else self.loss + _SMOOTHING * (loss - self.loss)
        self.images += len(batch[0]) * trainer.world_size
        rate = self.images / max(time.monotonic() - self.started, 1e-9)
        self.bar.update(
            self.task,
            completed=trainer.global_step,
            description=f"epoch {trainer.current_epoch + 1}/{self.plan.epochs}",
            detail=f"loss {self.loss:.3f}  {rate:.1f} images/s",
        )
        self.steps += 1
        if text := self.correction(self.steps, time.monotonic(), self.plan.total_steps - trainer.global_step):
            self.bar.console.print(text)

    def correction(self, steps: int, now: float, left: int) -> str | None:
        """Return a new estimate in words, where a step takes a quarter longer than was said last; None elsewhere.

        Args:
            steps: steps of this process.
            now: the time, in seconds of ``time.monotonic()``.
            left: steps that are left.
        """
        elapsed_s = now - self.started
        if self.said_s is None or steps < _TOLD_AFTER_STEPS or elapsed_s < _TOLD_AFTER_S:
            return None
        step_s = elapsed_s / steps
        if step_s < _SLOWER * self.said_s:
            return None
        self.said_s, left_s = step_s, left * step_s
        text = f"a step takes {step_s:.2g} s, longer than was measured: about {shown_duration(left_s)} left"
        if self.deadline is not None and now + left_s > self.deadline:
            text += f"; the time budget ends {shown_duration(now + left_s - self.deadline)} before"
        return text

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Leave the finished bar on the screen."""
        del trainer, module
        self.bar.stop()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        """Stop the bar, so that the terminal can be used again."""
        del trainer, module, exception
        self.bar.stop()


def fit(
    module: TrainingModule,
    plan: Plan,
    folder: Path,
    trainer: TrainerConfig,
    batches: EpochBatches,
    held_out: Sequence[int],
    *,
    identity: str,
    loggers: Sequence[Logger],
    deadline: float | None = None,
) -> None:
    """Train to the end; continue from the folder's checkpoint where there is one.

    ``deadline`` is when the time budget ends, in seconds of ``time.monotonic()``. It is said where the machine becomes
    too slow for it.

    Raises:
        ModelFolderError: the checkpoints are damaged, or of a run with another ``identity``.
        TrainingInterruptedError: a signal stopped the training.
    """
    checkpoint = usable_checkpoint(folder, identity)
    if checkpoint is not None:
        batches.set_epoch(checkpoint.epochs)  # before worker processes read ahead, which Lightning starts earlier
    size = module.recipe.batch_size
    held_out_batches = [list(held_out[first : first + size]) for first in range(0, len(held_out), size)]
    callbacks: list[Callback] = [
        ModelCheckpoint(
            dirpath=(folder / CHECKPOINT).parent,
            filename=CHECKPOINT.stem,
            every_n_epochs=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
        TrainingProgress(plan, deadline),
        StopAfterStep(module.process_group),
    ]
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    on_interrupt = signal.getsignal(signal.SIGINT)
    with warnings.catch_warnings():
        # Lightning gives advice on worker processes, logging intervals and existing folders. None of it applies here:
        # the loader yields integers, and the checkpoint folder belongs to this run.
        warnings.filterwarnings("ignore", module="lightning")
        fit = L.Trainer(
            max_epochs=plan.epochs,
            accelerator=trainer.accelerator,
            devices=trainer.devices,
            num_nodes=trainer.num_nodes,
            # The statistics of each BatchNorm already cover all processes.
            strategy=DDPStrategy(timeout=DDP_TIMEOUT, broadcast_buffers=False) if trainer.world_size > 1 else "auto",
            gradient_clip_val=module.label_recipe.gradient_clip_norm,
            callbacks=callbacks,
            plugins=[CheckpointWriter(identity)],
            logger=list(loggers),
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,  # `EpochBatches` already divides them
        )
        try:
            fit.fit(
                module,
                train_dataloaders=batch_loader(module.source, batches, num_workers=trainer.num_workers),
                val_dataloaders=batch_loader(module.source, held_out_batches) if held_out else None,
                ckpt_path=None if checkpoint is None else str(checkpoint.path),
                weights_only=True,
            )
        except (SystemExit, SIGTERMException) as stop:  # the first one: by Lightning, after a second Ctrl-C
            raise TrainingInterruptedError(
                f"stopped in epoch {fit.current_epoch + 1} of {plan.epochs}; "
                f"continue with: supersimplenet train --resume --output {folder}"
            ) from stop
        finally:
            if threading.current_thread() is threading.main_thread():  # another one may not
                signal.signal(signal.SIGINT, on_interrupt)  # Lightning leaves Ctrl-C disabled, also for a notebook


class StopAfterStep(Callback):
    """Ends all processes after the same step, once any of them has received Ctrl-C or a termination signal.

    Python raises Ctrl-C between any two instructions, so possibly with a lock held, of the progress bar for one, which
    its own thread then waits for without end. Lightning's handler of SIGTERM informs the other processes from inside
    the handler, possibly during an exchange between them, after which all wait forever. A second signal ends a process
    at once.

    Args:
        process_group: the processes that share the training.
    """

    def __init__(self, process_group: ProcessGroup) -> None:
        self._process_group = process_group
        self._asked = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replace Lightning's signal handlers; Lightning restores the original ones at the end."""
        del trainer, pl_module
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._ask)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End the training if any process was asked to end.

        Raises:
            SIGTERMException: in all processes.
        """
        del trainer, outputs, batch, batch_idx
        asked = self._asked
        if self._process_group.world_size > 1:
            asked = bool(self._process_group.all_reduce(torch.tensor(float(asked), device=pl_module.device)).item())
        if asked:
            raise SIGTERMException

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._asked = True
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
