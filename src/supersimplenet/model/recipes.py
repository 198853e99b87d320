"""What can be chosen about the network and its training, and the published choices as defaults.

Plain dataclasses without torch, so that the command line can explain and check them before anything slow is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from supersimplenet.errors import ConfigError

Variant = Literal["jims", "icpr"]

PUBLISHED_BACKBONE = "wide_resnet50_2.tv_in1k"
PUBLISHED_NOISE_STD = 0.015
SMALLEST_SIDE_PX = 32


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network's architecture.

    Args:
        backbone: ``compact`` (shipped with the package, works offline) or the name of any timm model that gives feature
            maps, such as ``wide_resnet50_2.tv_in1k`` (the published one, fetched from the model hub).
        backbone_weights: file with the backbone's weights (safetensors or a state dict), read instead of the hub's. It
            may hold fewer or more layers than the timm model has; those that are used must be there.
        feature_strides: strides of the feature maps that are used, ascending. (8, 16) is layer2 and layer3 of a ResNet.
        image_size: height and width in pixels to which each image is resized.
        variant: ``jims`` classifies the unadapted features (JIMS 2025), ``icpr`` the adapted ones (ICPR 2024).
        align_corners: how feature maps are upscaled: true as the authors do, false as anomalib does.
    """

    backbone: str = PUBLISHED_BACKBONE
    backbone_weights: Path | None = None
    feature_strides: tuple[int, ...] = (8, 16)
    image_size: tuple[int, int] = (256, 256)
    variant: Variant = "jims"
    align_corners: bool = True

    def __post_init__(self) -> None:
        sides = self.image_size
        if len(sides) != 2 or not all(isinstance(side, int) and side >= SMALLEST_SIDE_PX for side in sides):
            raise ConfigError(
                f"model.image_size: {'x'.join(map(str, sides))} px; give height and width, each side at least "
                f"{SMALLEST_SIDE_PX} px, such as [256, 256]"
            )
        _require(self.variant in get_args(Variant), "model.variant", self.variant, " or ".join(get_args(Variant)))
        if not self.feature_strides or list(self.feature_strides) != sorted(set(self.feature_strides)):
            raise ConfigError(
                f"model.feature_strides: {list(self.feature_strides)}; give one or more strides in ascending order, "
                "such as [8, 16]"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the network is trained: the published unsupervised settings.

    Args:
        batch_size: images in a step (each is used twice, see JIMS section 3.2).
        perlin_threshold: a pixel becomes anomalous where the Perlin field exceeds it; higher gives smaller anomalies.
        noise_std: standard deviation of the feature noise. ``auto`` is the published 0.015 for the published backbone
            and follows the measured scale of the features for every other one (docs/decisions/0003-noise-scale.md).
        stop_gradient: keep the classification loss from training the segmentation head.
        adaptor_lr: learning rate of the feature adaptor.
        adaptor_weight_decay: weight decay of the feature adaptor.
        heads_lr: learning rate of both heads.
        heads_weight_decay: weight decay of both heads.
        lr_milestones: fractions of the training at which the learning rates are multiplied by ``lr_decay``.
        lr_decay: the factor.
        gradient_clip_norm: largest norm of the gradient, null for no clipping.
    """

    batch_size: int = 32
    perlin_threshold: float = 0.2
    noise_std: float | Literal["auto"] = "auto"
    stop_gradient: bool = True
    adaptor_lr: float = 1e-4
    adaptor_weight_decay: float = 1e-2
    heads_lr: float = 2e-4
    heads_weight_decay: float = 1e-5
    lr_milestones: tuple[float, ...] = (0.8, 0.9)
    lr_decay: float = 0.4
    gradient_clip_norm: float | None = None

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "recipe.batch_size", self.batch_size, "at least 1")
        _require(-1 < self.perlin_threshold < 1, "recipe.perlin_threshold", self.perlin_threshold, "between -1 and 1")
        if self.noise_std != "auto":
            _require(self.noise_std > 0, "recipe.noise_std", self.noise_std, "more than 0, or 'auto'")
        for name in ("adaptor_lr", "heads_lr", "lr_decay"):
            _require(getattr(self, name) > 0, f"recipe.{name}", getattr(self, name), "more than 0")
        for name in ("adaptor_weight_decay", "heads_weight_decay"):
            _require(getattr(self, name) >= 0, f"recipe.{name}", getattr(self, name), "0 or more")
        ascending = list(self.lr_milestones) == sorted(self.lr_milestones)
        inside = all(0 < fraction < 1 for fraction in self.lr_milestones)
        _require(ascending and inside, "recipe.lr_milestones", self.lr_milestones, "ascending fractions in (0, 1)")
        if self.gradient_clip_norm is not None:
            _require(self.gradient_clip_norm > 0, "recipe.gradient_clip_norm", self.gradient_clip_norm, "more than 0")


def _require(condition: bool, name: str, value: object, wanted: str) -> None:
    if not condition:
        raise ConfigError(f"{name}: {value}; it must be {wanted}")
