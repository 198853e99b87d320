"""How a training run is carried out. No torch here: the command line checks these before anything slow is imported."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import Precision

Strategy = Literal["auto", "ddp"]
PUBLISHED_EPOCHS = 300
_UNITS_S = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """Length and place of the training; the names are Lightning's.

    Args:
        max_epochs: passes over the training images. Published: 300.
        max_steps: stop after this many steps, and set the schedule by them; -1 for no limit.
        accelerator: ``auto``, ``cpu``, ``gpu`` or another accelerator of Lightning's.
        devices: how many of them on each machine, one process each; the result is that of one. On a CPU, how many
            processes share it.
        num_nodes: machines; see docs/scale.md for how to start it on each.
        strategy: how the processes work together, ``ddp``, or ``auto``, which is the same.
        precision: type of the numbers that enter the wide multiplications, ``float32`` or ``bfloat16``; sums,
            statistics and weights are float32 in both. bfloat16 is faster where the CPU computes in it.
        holdout_fraction: share of the good training images that is not trained on, whole parts: their scores put the
            classification head and the map on one scale, their loss under fixed synthetic anomalies is logged after
            each epoch.
        num_workers: processes that read images ahead of a step, of use where no cache holds the features; 0 for none.
    """

    max_epochs: int = PUBLISHED_EPOCHS
    max_steps: int = -1
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: Strategy = "auto"
    precision: Precision = "float32"
    holdout_fraction: float = 0.2
    num_workers: int = 0

    def __post_init__(self) -> None:
        if self.max_epochs < 1:
            raise ConfigError(f"trainer.max_epochs: {self.max_epochs}; it must be at least 1")
        if self.max_steps != -1 and self.max_steps < 1:
            raise ConfigError(f"trainer.max_steps: {self.max_steps}; it must be at least 1, or -1 for no limit")
        if not 0 <= self.holdout_fraction < 1:
            raise ConfigError(f"trainer.holdout_fraction: {self.holdout_fraction}; it must be in [0, 1)")
        for name in ("devices", "num_nodes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"trainer.{name}: {getattr(self, name)}; it must be at least 1")
        if self.strategy not in get_args(Strategy):
            raise ConfigError(f"trainer.strategy: '{self.strategy}'; choose {', '.join(get_args(Strategy))}")
        if self.num_workers < 0:
            raise ConfigError(f"trainer.num_workers: {self.num_workers}; it must be 0 or more")

    @property
    def world_size(self) -> int:
        """How many processes there are, on all machines."""
        return self.devices * self.num_nodes


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Where the backbone's features are kept: in memory, else in a file, else they are computed anew each epoch.

    Args:
        memory_gib: how much memory the features may take, in GiB.
        disk_gib: how much disk they may take where memory does not hold them, in GiB.
    """

    memory_gib: float = 2.0
    disk_gib: float = 32.0

    def __post_init__(self) -> None:
        for name in ("memory_gib", "disk_gib"):
            if getattr(self, name) < 0:
                raise ConfigError(f"cache.{name}: {getattr(self, name)}; it must be 0 or more")


def parse_duration(text: str, option: str = "time_budget") -> float:
    """Seconds from a duration such as ``90s``, ``15m``, ``1.5h`` or ``1h30m``.

    Args:
        text: as typed.
        option: what it was typed for.

    Raises:
        ConfigError: the text is not a positive duration.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text.replace(" ", "").lower())
    seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text.replace(" ", "").lower() or seconds <= 0:
        raise ConfigError(f"{option}: '{text}'; write a duration such as 90s, 15m or 1h30m")
    return seconds
