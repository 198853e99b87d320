"""Settings of commands that stand above one room. No torch here: see docs/decisions/0005-settings-without-torch.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from supersimplenet.errors import ConfigError

EngineName = Literal["torch", "openvino"]
Precision = Literal["float32", "bfloat16"]


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
        threads: of a single call on a processor; by default one for each core.
        training: also time a training step of the heads, features given.
        compare: ``plain`` also times the published order of operations (from a source checkout).
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
