"""How a training of several processes ends before its time: all of them, after the same step."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from supersimplenet.training.processes import Processes


class StopTogether(Callback):
    """Asks after each step whether any process was told to end, by Ctrl-C or a termination signal.

    Lightning's own handler tells the others from inside the signal, amid whatever they exchange just then, and all wait
    for good. A second signal ends a process at once.

    Args:
        processes: that share the training.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._asked = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals over from Lightning, which gives them back at the end."""
        del trainer, pl_module
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._ask)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End where one was asked to.

        Raises:
            SIGTERMException: in all processes.
        """
        del trainer, outputs, batch, batch_idx
        if self._processes.add_up(torch.tensor(float(self._asked), device=pl_module.device)).item():
            raise SIGTERMException

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._asked = True
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
