"""Configs of the benchmarks of speed and accuracy. Needs no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import EngineName, Precision

STOPS_WITHIN_S = 60.0  # a training that the accuracy benchmark stops has ended within this time
_REGIME = re.compile(r"unsupervised|weak|full|mixed(:[1-9]\d*|:0\.\d*[1-9])?")  # each has only one spelling


@dataclass(frozen=True, kw_only=True)
class SpeedConfig:
    """What is timed.

    Args:
        model: a model folder; by default the untrained network of ``backbone``, which takes the same time.
        backbone: ``compact`` or a timm model, with random weights: nothing is fetched.
        image_size: height and width in pixels that the network sees; that of ``model`` where one is given.
        batch_size: images in a call, and in a training step.
        file_size: height and width in pixels of the PNG files that the line reads.
        files: how many of them.
        device: auto, cpu, cuda, ...
        engine: torch or openvino.
        precision: float32 or bfloat16.
        threads: of a single call on a CPU; by default one for each core.
        training: also time a training step of the heads, features given.
        compare: ``plain`` also times the published order of operations.
        rounds: timed repetitions, after ``warmup`` others.
        warmup: repetitions that are not counted.
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
    """The runs of a benchmark of accuracy, and where they are carried out.

    Args:
        categories: categories of the data set, if it has any; ``all`` for each that its root holds.
        folds: folds of the data set, if it has any; empty for all of them.
        regimes: ``unsupervised``, ``weak``, ``mixed`` with all the masks there are, ``mixed:16`` with that many,
            ``mixed:0.25`` with that share of them, ``full``.
        seeds: each run is repeated with each seed.
        time_budget: time budget of each training, such as ``10m``.
        devices: GPUs by their number or name; each carries out one run at a time.
        jobs: runs at a time if no devices are named; the CPU's threads are divided among them.
        keep_models: keep the model folders, which are otherwise removed once their figures are saved.
    """

    categories: tuple[str, ...] = ("all",)
    folds: tuple[int, ...] = ()
    regimes: tuple[str, ...] = ("unsupervised",)
    seeds: tuple[int, ...] = (0,)
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
