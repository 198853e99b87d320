"""Settings of a training run. No torch here: the command line checks the settings before it imports anything slow."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import Precision

Strategy = Literal["auto", "ddp"]
LoggerName = Literal["csv", "tensorboard", "mlflow", "wandb"]
MLFLOW_ADDRESS = "MLFLOW_TRACKING_URI"  # environment variable, MLflow's own
PUBLISHED_EPOCHS = 300
_UNITS_S = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """Settings of the training loop: length, devices and processes. The names are those of Lightning's Trainer.

    Args:
        max_epochs: number of passes over the training images. Published: 300. 0 trains no heads: within seconds, a
            detector of the subspace of good images alone (docs/decisions/0030-instant.md).
        max_steps: stop after this number of steps, if that is earlier; the learning-rate schedule then covers this
            number. -1 for no limit.
        accelerator: ``auto``, ``cpu``, ``gpu`` or another of Lightning's accelerators.
        devices: number of devices on each machine, with one process each; the result is the same as with one device.
            On a CPU: number of processes that share the CPU.
        num_nodes: number of machines; docs/scale.md shows how to start the training on each.
        strategy: how the processes work together: ``ddp``, or ``auto``, which means the same.
        precision: number type of the inputs of the wide matrix multiplications, ``float32`` or ``bfloat16``; sums,
            statistics and weights are float32 in both cases. bfloat16 is faster where the CPU computes in it.
        holdout_fraction: share of the good training images that is held out: not trained on, with all images of a part
            together. The scores of the held-out images set the thresholds; their loss under fixed synthetic anomalies
            is logged after each epoch.
        escapes_share: share of the training's steps that is spent afterwards on models of folds, which tell how many
            bad parts will escape; 0 for none, nor painted defects where there is no bad part.
        num_workers: number of processes that read images ahead of the training steps; useful only where no cache holds
            the features. 0 for none.
        logger: where losses are logged: one or several of ``csv``, ``tensorboard``, ``mlflow``, ``wandb``, with commas
            between, or ``none``. The last two also get settings, figures, pictures of held-out images and the model.
            ``--logger`` is short for this option.
    """

    max_epochs: int = PUBLISHED_EPOCHS
    max_steps: int = -1
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: Strategy = "auto"
    precision: Precision = "float32"
    holdout_fraction: float = 0.2
    escapes_share: float = 0.25
    num_workers: int = 0
    logger: str = "csv,tensorboard"

    def __post_init__(self) -> None:
        if self.max_epochs < 0:
            raise ConfigError(f"trainer.max_epochs: {self.max_epochs}; it must be 0 or more")
        if self.max_steps != -1 and self.max_steps < 1:
            raise ConfigError(f"trainer.max_steps: {self.max_steps}; it must be at least 1, or -1 for no limit")
        if not 0 <= self.holdout_fraction < 1:
            raise ConfigError(f"trainer.holdout_fraction: {self.holdout_fraction}; it must be in [0, 1)")
        if not 0 <= self.escapes_share <= 1:
            raise ConfigError(f"trainer.escapes_share: {self.escapes_share}; it must be in [0, 1]")
        for name in ("devices", "num_nodes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"trainer.{name}: {getattr(self, name)}; it must be at least 1")
        if self.strategy not in get_args(Strategy):
            raise ConfigError(f"trainer.strategy: '{self.strategy}'; choose {', '.join(get_args(Strategy))}")
        if self.num_workers < 0:
            raise ConfigError(f"trainer.num_workers: {self.num_workers}; it must be 0 or more")
        names = [name.strip() for name in self.logger.split(",")]
        if unknown := [name for name in names if name not in get_args(LoggerName) and names != ["none"]]:
            known = ", ".join(get_args(LoggerName))
            raise ConfigError(
                f"trainer.logger: '{unknown[0]}'; choose from {known}, with commas between, or none alone"
            )

    @property
    def loggers(self) -> tuple[LoggerName, ...]:
        """Names of the loggers, each once, in the order of `LoggerName`."""
        names = {name.strip() for name in self.logger.split(",")}
        return tuple(name for name in get_args(LoggerName) if name in names)

    @property
    def heads(self) -> bool:
        """Whether heads are trained."""
        return self.max_epochs > 0

    def require_score(self, image_score: str) -> None:
        """Refuse a deciding score (``recipe.image_score``) that this training cannot give.

        Raises:
            ConfigError: no heads are trained, and another score than the subspace's is to decide.
        """
        if not self.heads and image_score not in ("auto", "subspace"):
            raise ConfigError(
                f"recipe.image_score: {image_score}, but --trainer.max_epochs 0 trains no heads, so there is the "
                "subspace score alone; leave out one of both options"
            )

    def require_loggers(self) -> None:
        """Refuse loggers whose package is not installed, or MLflow without the address of a server.

        Raises:
            ConfigError: a package or the address is missing; the message says what to do.
        """
        for name in ("mlflow", "wandb"):
            if name in self.loggers and not _is_installed(name):
                raise ConfigError(f"trainer.logger: {name} is not installed; pip install 'supersimplenet[{name}]'")
        if "mlflow" in self.loggers and not os.environ.get(MLFLOW_ADDRESS):
            raise ConfigError(
                f"trainer.logger: mlflow: no server is named; set the environment variable {MLFLOW_ADDRESS}, such as "
                "http://127.0.0.1:5000 for one that `mlflow server` runs on this machine"
            )

    @property
    def world_size(self) -> int:
        """Number of processes, on all machines together."""
        return self.devices * self.num_nodes


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Settings of the feature cache: in memory, else in a file; else features are computed anew in each epoch.

    Args:
        memory_gib: most memory that the features may take, in GiB.
        disk_gib: most disk space that the features may take where they do not fit into memory, in GiB.
    """

    memory_gib: float = 2.0
    disk_gib: float = 32.0

    def __post_init__(self) -> None:
        for name in ("memory_gib", "disk_gib"):
            if getattr(self, name) < 0:
                raise ConfigError(f"cache.{name}: {getattr(self, name)}; it must be 0 or more")


def _is_installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it; a folder that has its name is none."""
    if package in sys.modules:
        return sys.modules[package] is not None
    found = find_spec(package)
    return found is not None and found.origin is not None


def parse_duration(text: str, option: str = "time_budget") -> float:
    """Return the seconds of a duration such as ``90s``, ``15m``, ``1.5h`` or ``1h30m``.

    Args:
        text: the duration, as typed.
        option: name of the option, for the error message.

    Raises:
        ConfigError: the text is not a positive duration.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", text.replace(" ", "").lower())
    seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text.replace(" ", "").lower() or seconds <= 0:
        raise ConfigError(f"{option}: '{text}'; write a duration such as 90s, 15m or 1h30m")
    return seconds
