"""The processes of a training: one a device, on one machine or several, each running the same program.

Lightning starts them, or takes those that torchrun or Slurm have started. That happens before anything is read, so that
what need not be done by each is done once: the first process of all writes and prints, the first one of each machine
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
# How long one waits for another. The first reads all images meanwhile; one that dies is noticed at once.
DDP_TIMEOUT = timedelta(days=2)


@dataclass(frozen=True, kw_only=True)
class ProcessGroup:
    """How many there are, and which one this is.

    Attributes:
        world_size: how many processes there are, on all machines.
        rank: this one's number, from 0.
        local_rank: its number on its machine, from 0.
        node: its machine's number, from 0.
        device: what Lightning gave it; None where it is alone, and chooses itself.
    """

    world_size: int = 1
    rank: int = 0
    local_rank: int = 0
    node: int = 0
    device: torch.device | None = None

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes and prints."""
        return self.rank == 0

    @property
    def leads(self) -> bool:
        """Whether it is the first on its machine."""
        return self.local_rank == 0

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum of all processes' values, in their place; without gradient. Each must call it, in the same order."""
        if self.world_size > 1:
            distributed.all_reduce(values)
        return values

    def on_rank_zero(self, work: Callable[[], T]) -> T:
        """What the first process makes of it, given to all; plain values, or what can be pickled.

        Raises:
            TrainingInterruptedError: in the others, where it failed in the first, which raises what it was.
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
        return result  # type: ignore[return-value]  # no message: it is there

    def on_local_rank_zero(self, work: Callable[[], T], then: Callable[[], T]) -> T:
        """What the first process of each machine makes of it; of what it leaves there, the others make theirs.

        Raises:
            TrainingInterruptedError: where it failed in another process, which raises what it was.
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
        return result if self.leads else then()  # type: ignore[return-value]  # no failure: it is there


SINGLE_PROCESS = ProcessGroup()


def start(config: TrainerConfig) -> ProcessGroup:
    """Start the processes of a training, or find this one's place among those that were started.

    From here on all run the same lines; all but the first are silent.

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
