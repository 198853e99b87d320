"""Settings of a distillation, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import Precision
from supersimplenet.model.config import COMPACT, PUBLISHED_BACKBONE

SMALLEST_CROP_PX = 64


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Settings of a distillation.

    Args:
        teacher: the backbone whose features are learned, by its name; see `ModelConfig`.
        teacher_weights: file with its weights, read instead of the hub's.
        student: the backbone that learns: ``compact`` goes on from the weights that are shipped, any other timm model
            starts from random ones.
        student_weights: file with weights to start from.
        feature_strides: strides of the feature maps that are compared, ascending; both backbones must have them.
        steps: number of optimiser steps.
        batch_size: number of crops a step.
        crop_px: smallest and largest side of the square crops in px; each step draws one side, a multiple of 16.
        generated: share of the crops that are drawn by this package: gratings, weaves and grains, which photographs
            hardly hold.
        learning_rate: of AdamW, at its highest; it rises over the first twentieth of the steps and falls to zero as a
            cosine.
        weight_decay: of AdamW.
        precision: number type of the passes through both backbones, ``float32`` or ``bfloat16``.
        device: ``auto`` uses a GPU where there is one.
        seed: of crops and weights.

    Raises:
        ConfigError: a value is out of its range.
    """

    teacher: str = PUBLISHED_BACKBONE
    teacher_weights: Path | None = None
    student: str = COMPACT
    student_weights: Path | None = None
    feature_strides: tuple[int, ...] = (8, 16)
    steps: int = 20_000
    batch_size: int = 32
    crop_px: tuple[int, int] = (128, 224)
    generated: float = 0.25
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-4
    precision: Precision = "float32"
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: {getattr(self, name)}; wanted 1 or more")
        small, large = self.crop_px
        if not SMALLEST_CROP_PX <= small <= large or small % 16 or large % 16:
            raise ConfigError(
                f"crop_px: {small} to {large}; wanted two ascending multiples of 16, from {SMALLEST_CROP_PX} on"
            )
        if not 0 <= self.generated <= 1:
            raise ConfigError(f"generated: {self.generated:g}; wanted a share from 0 to 1")
        if not 0 < self.learning_rate <= 1:
            raise ConfigError(f"learning_rate: {self.learning_rate:g}; wanted a number above 0, at most 1")
        if self.weight_decay < 0:
            raise ConfigError(f"weight_decay: {self.weight_decay:g}; wanted 0 or more")
        if self.seed < 0:
            raise ConfigError(f"seed: {self.seed}; wanted 0 or more")
