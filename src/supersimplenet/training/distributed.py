"""The processes of a training: one per device, on one machine or several, each running the same program.

Lightning starts the processes, or uses those that torchrun or Slurm have started. This happens before anything is read,
so that common work is done only once: rank 0 writes and prints, and the first process of each machine (local rank 0)
computes the features.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies.ddp import DDPStrategy
from torch import Tensor, distributed

from supersimplenet.errors import SuperSimpleNetError, TrainingInterruptedError
from supersimplenet.training.config import TrainerConfig
from supersimplenet.utils import console

T = TypeVar("T")
# How long a process waits for another one; rank 0 may read all images meanwhile. A dead process is noticed at once.
DDP_TIMEOUT = timedelta(days=2)


@dataclass(frozen=True, kw_only=True)
class ProcessGroup:
    """The number of processes, and the place of this process among them.

    Attributes:
        world_size: number of processes, on all machines together.
        rank: number of this process, from 0.
        local_rank: number of this process on its machine, from 0.
        node: number of its machine, from 0.
        device: the device that Lightning gave to this process; None for a single process, which chooses its own.
    """

    world_size: int = 1
    rank: int = 0
    local_rank: int = 0
    node: int = 0
    device: torch.device | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the process that writes and prints."""
        return self.rank == 0

    @property
    def leads(self) -> bool:
        """Whether this is the first process of its machine (local rank 0)."""
        return self.local_rank == 0

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sum the values of all processes in place, without gradient; all must call this method in the same order."""
        if self.world_size > 1:
            distributed.all_reduce(values)
        return values

    def on_rank_zero(self, work: Callable[[], T]) -> T:
        """Run ``work`` on rank 0 alone and return its result, which must be picklable, in every process.

        Raises:
            TrainingInterruptedError: in the other processes, if ``work`` failed on rank 0. Rank 0 raises the original
                error.
        """
        if self.world_size == 1:
            return work()
        made: list[tuple[T | None, str | None]] = [(None, None)]
        failure: BaseException | None = None
        if self.is_first:
            try:
                made = [(work(), None)]
            except BaseException as error:
                failure, made = error, [(None, _shown(error))]
        distributed.broadcast_object_list(made, src=0)
        result, message = made[0]
        if failure is not None:
            raise failure
        if message is not None:
            raise TrainingInterruptedError(f"process {self.rank} ends, because the first one did: {message}")
        return result  # type: ignore[return-value]  # no message: rank 0 has sent a result

    def on_local_rank_zero(self, work: Callable[[], T], then: Callable[[], T]) -> T:
        """Run ``work`` on local rank 0 of each machine; the other processes then run ``then``, which reads its files.

        Raises:
            TrainingInterruptedError: if ``work`` failed in another process. That process raises the original error.
        """
        if self.world_size == 1:
            return work()
        failure: Exception | None = None
        result: T | None = None
        if self.leads:
            try:
                result = work()
            except Exception as error:
                failure = error
        messages: list[str | None] = [None] * self.world_size
        distributed.all_gather_object(messages, None if failure is None else _shown(failure))
        if failure is not None:
            raise failure
        if message := next((message for message in messages if message), None):
            raise TrainingInterruptedError(f"process {self.rank} ends, because another one did: {message}")
        return result if self.leads else then()  # type: ignore[return-value]  # no failure: ``work`` returned a result


SINGLE_PROCESS = ProcessGroup()


def start(config: TrainerConfig) -> ProcessGroup:
    """Start the processes of a training, or find the place of this process among those already started.

    From here on, all processes run the same lines; all but rank 0 are silent.

    Raises:
        ConfigError: see `TrainerConfig`.
    """
    if config.world_size == 1:
        return SINGLE_PROCESS
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=config.accelerator,
        devices=config.devices,
        num_nodes=config.num_nodes,
        strategy=DDPStrategy(timeout=DDP_TIMEOUT),
    )
    fabric.launch()
    if fabric.global_rank:
        console.silence()
    return ProcessGroup(
        world_size=fabric.world_size,
        rank=fabric.global_rank,
        local_rank=fabric.local_rank,
        node=fabric.node_rank,
        device=fabric.device,
    )


def _shown(error: BaseException) -> str:
    return str(error) if isinstance(error, SuperSimpleNetError) else f"{type(error).__name__}: {error}"
