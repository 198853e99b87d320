"""The layers of timm's models: their names, strides and channels, and which of them are used. Nothing is computed."""

from __future__ import annotations

import difflib
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import timm
import torch
from timm.models._features import FeatureGetterNet
from torch import nn

from supersimplenet.errors import BackboneError, ConfigError
from supersimplenet.model.config import COMPACT, LITE0, PUBLISHED_STRIDES, ModelConfig
from supersimplenet.model.lite0 import ARCHITECTURE as LITE0_ARCHITECTURE
from supersimplenet.utils.formatting import shown_size

_ARCHITECTURES = {COMPACT: "resnet18", LITE0: LITE0_ARCHITECTURE}


class Layer(NamedTuple):
    """A layer that gives a feature map.

    Attributes:
        name: in timm.
        place: in timm's list of the model's layers.
        stride: of its map, in pixels.
        channels: of its map.
    """

    name: str
    place: int
    stride: int
    channels: int


class _Description(NamedTuple):
    """What timm says of a model's feature maps: all its layers, those of each stride, whether it is a plain ViT."""

    layers: tuple[Layer, ...]
    by_stride: dict[int, Layer]
    is_vit: bool


def architecture_of(backbone: str) -> str:
    """Return timm's name of a backbone."""
    return _ARCHITECTURES.get(backbone, backbone)


def is_plain_vit(model: str | nn.Module) -> bool:
    """Check whether a timm model, by name or built for feature maps, is a plain vision transformer: all at one stride.

    timm can resample the position embeddings of such a model for images of any size.
    """
    if isinstance(model, str):
        return _describe(model).is_vit
    return isinstance(model, FeatureGetterNet) and hasattr(model.model, "dynamic_img_size")


def pretrained_settings(architecture: str) -> Any:
    """Return timm's record of a model's published weights: colour statistics, size of images, hub name."""
    settings = timm.get_pretrained_cfg(architecture)
    if settings is None:
        raise BackboneError(f"model.backbone: timm publishes no weights for '{architecture}'; choose another model")
    return settings


def resolve_layers(config: ModelConfig) -> ModelConfig:
    """Return the config with layers, strides and size filled in where it leaves them to the model.

    Raises:
        BackboneError: an unknown name, or layers or strides that the model does not have.
        ConfigError: layers and strides contradict each other, or images of this size do not fit the model.
    """
    architecture, layers = architecture_of(config.backbone), chosen_layers(config)
    by_name = config.layers is not None or (config.feature_strides is None and is_plain_vit(architecture))
    size_px = config.image_size
    if size_px is None and is_plain_vit(architecture):
        size_px = tuple(pretrained_settings(architecture).input_size[1:])
    resolved = replace(
        config,
        layers=tuple(layer.name for layer in layers) if by_name else None,
        feature_strides=tuple(sorted({layer.stride for layer in layers})),
        image_size=size_px,
    )
    require_fitting_size(resolved)
    return resolved


def require_fitting_size(config: ModelConfig) -> None:
    """Check that images of the config's size can be cut into the patches of a plain vision transformer.

    Raises:
        ConfigError: they cannot; the message names the sizes nearest to it.
    """
    if not is_plain_vit(architecture_of(config.backbone)):
        return
    (patch,) = {layer.stride for layer in chosen_layers(config)}
    if any(side % patch for side in config.size_px):
        height, width = config.size_px
        below, above = (
            shown_size(((height + more) // patch * patch, (width + more) // patch * patch)) for more in (0, patch - 1)
        )
        raise ConfigError(
            f"model.image_size: {shown_size(config.size_px)} px; '{config.backbone}' takes multiples of {patch} px a "
            f"side, such as {below} or {above}"
        )


def chosen_layers(config: ModelConfig) -> list[Layer]:
    """Return the layers that are used, in the order of the model.

    Raises:
        BackboneError: an unknown name, or layers or strides that the model does not have.
        ConfigError: layers and strides contradict each other.
    """
    architecture = architecture_of(config.backbone)
    described, names, strides = _describe(architecture), config.layer_names, config.feature_strides
    if names is not None:
        by_name = {layer.name: layer for layer in described.layers}
        missing = [name for name in names if name not in by_name]
        if missing:
            raise BackboneError(
                f"model.layers: '{architecture}' has no layer {', '.join(missing)}; it has {', '.join(by_name)}"
            )
        chosen = sorted((by_name[name] for name in names), key=lambda layer: layer.place)
        found = sorted({layer.stride for layer in chosen})
        if strides is not None and list(strides) != found:
            raise ConfigError(
                f"model.layers and model.feature_strides: {', '.join(names)} of '{architecture}' have the strides "
                f"{found}, not {list(strides)}; give one of the two"
            )
        return chosen
    if strides is None and described.is_vit:
        depth = len(described.layers)
        return [described.layers[number - 1] for number in sorted({max(depth // 2, 1), max(3 * depth // 4, 1), depth})]
    wanted = PUBLISHED_STRIDES if strides is None else strides
    lacking = [stride for stride in wanted if stride not in described.by_stride]
    if lacking:
        raise BackboneError(
            f"model.feature_strides: '{architecture}' has no feature map of stride {lacking}; it has "
            f"{sorted(described.by_stride)}"
        )
    return [described.by_stride[stride] for stride in wanted]


@lru_cache(maxsize=64)
def _describe(architecture: str) -> _Description:
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture.split(".")[0], timm.list_models(), n=5)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise BackboneError(
            f"model.backbone: '{architecture}' is neither 'compact' nor a timm model{hint} "
            "(timm.list_models() names them all)"
        )
    try:
        with torch.device("meta"):  # no memory, no weights: only the description is needed
            net: Any = timm.create_model(architecture, pretrained=False, features_only=True)
    except (AssertionError, AttributeError, RuntimeError, TypeError) as error:
        raise BackboneError(f"model.backbone: timm's '{architecture}' gives no feature maps: {error}") from error
    layers, usual = (
        [Layer(of["module"], of["index"], of["reduction"], of["num_chs"]) for of in listed]
        for listed in (net.feature_info.info, net.feature_info.get_dicts())
    )
    one_stride = len({layer.stride for layer in layers}) == 1
    return _Description(tuple(layers), {layer.stride: layer for layer in usual}, one_stride and is_plain_vit(net))
