"""Configs of the benchmarks of speed and accuracy. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import EngineName, Precision

STOPS_WITHIN_S = 60.0  # when the accuracy benchmark is stopped, its trainings end within this time
Protocol = Literal["published", "ours"]
_REGIME = re.compile(r"unsupervised|weak|full|mixed(:[1-9]\d*|:0\.\d*[1-9])?")  # each regime has only one spelling


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """Network and computation to time.

    Args:
        model: a model folder; by default an untrained network with ``backbone`` is timed, which takes the same time.
        backbone: ``compact``, or a timm model with random weights; nothing is downloaded.
        image_size: height and width of the network's input in pixels; ignored where ``model`` is given.
        batch_size: number of images in a call of the network, and in a training step.
        file_size: height and width in pixels of the PNG files in the measurement from files.
        files: number of these PNG files.
        device: device that computes: auto, cpu, cuda, ...
        engine: engine that computes: torch or openvino.
        precision: number format of the computation: float32 or bfloat16.
        threads: number of CPU threads for a single call; by default one for each core.
        training: also time a training step of the heads, without the backbone.
        compare: ``plain`` also times the network with the published order of operations.
        rounds: number of timed repetitions.
        warmup: number of untimed repetitions before the timed ones.
    """

    model: Path | None = None
    backbone: str = "compact"
    image_size: tuple[int, int] = (256, 256)
    batch_size: int = 1
    file_size: tuple[int, int] = (1024, 1024)
    files: int = 32
    device: str = "auto"
    engine: EngineName = "torch"
    precision: Precision = "float32"
    threads: int | None = None
    training: bool = False
    compare: Literal["plain"] | None = None
    rounds: int = 20
    warmup: int = 3

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("files", 1), ("rounds", 1), ("warmup", 0), ("threads", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name}: {value}; it must be at least {least}")


@dataclass(frozen=True, kw_only=True)
class AccuracyConfig:
    """The runs of an accuracy benchmark, and the devices for them.

    Args:
        categories: categories of the dataset, if it has any; ``all`` for every category in its root folder.
        folds: folds of the dataset, if it has any; empty for all folds.
        regimes: regimes of supervision: ``unsupervised``, ``weak``, ``full``, ``mixed`` with all masks, ``mixed:16``
            with 16 masks, ``mixed:0.25`` with a quarter of the masks.
        seeds: seeds; every run is repeated with each seed.
        protocol: settings where none are given: ``published`` as in the papers, ``ours`` the defaults of a training; by
            default published on the datasets with published results, ours on others.
        time_budget: time budget of each training, such as ``10m``.
        devices: GPUs by their number or name; each GPU carries out one run at a time.
        jobs: number of simultaneous runs if no devices are named; the CPU's threads are divided among the runs.
        keep_models: keep the model folders; otherwise each is removed when its figures are saved.
    """

    categories: tuple[str, ...] = ("all",)
    folds: tuple[int, ...] = ()
    regimes: tuple[str, ...] = ("unsupervised",)
    seeds: tuple[int, ...] = (0,)
    protocol: Protocol | None = None
    time_budget: str | None = None
    devices: tuple[str, ...] = ()
    jobs: int = 1
    keep_models: bool = False

    def __post_init__(self) -> None:
        for name in ("categories", "regimes", "seeds"):
            _require_distinct(name, getattr(self, name))
        for name in ("folds", "devices"):
            if getattr(self, name):
                _require_distinct(name, getattr(self, name))
        for regime in self.regimes:
            if not _REGIME.fullmatch(regime):
                raise ConfigError(
                    f"regimes: '{regime}'; write unsupervised, weak, full, mixed, or mixed with a number of masks or a "
                    "share of them between 0 and 1: mixed:16, mixed:0.25"
                )
        if self.protocol is not None and self.protocol not in get_args(Protocol):
            raise ConfigError(f"protocol: '{self.protocol}'; choose {', '.join(get_args(Protocol))}")
        if self.jobs < 1:
            raise ConfigError(f"jobs: {self.jobs}; it must be at least 1")
        if self.devices and self.jobs > 1:
            raise ConfigError(
                f"jobs: {self.jobs} with devices {', '.join(self.devices)}; a device has one run at a time"
            )


def _require_distinct(name: str, values: Sequence[object]) -> None:
    if not values or len(set(values)) < len(values):
        found = ", ".join(map(str, values)) or "none"
        raise ConfigError(f"{name}: {found}; give one or more, each once")
