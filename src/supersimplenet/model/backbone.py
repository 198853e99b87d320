"""The frozen feature extractor: a timm model, the shipped `compact` backbone, or a module of the user's own."""

from __future__ import annotations

import copy
import hashlib
import socket
from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from supersimplenet.errors import BackboneError
from supersimplenet.model.config import COMPACT, LITE0, ModelConfig, Origin
from supersimplenet.model.hub_record import record_fingerprint
from supersimplenet.model.layers import architecture_of, chosen_layers, is_plain_vit, pretrained_settings
from supersimplenet.model.lite0 import read_lite0
from supersimplenet.model.tracing import GATE
from supersimplenet.model.weight_files import read_state_dict
from supersimplenet.utils.formatting import few, first_line

_COUNTER = "num_batches_tracked"
_HUB_TIMEOUT_S = 10.0
_WIDE_CHANNELS = 128  # from this many on, one thread runs a 1x1 convolution faster in oneDNN than in torch's own code
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """Frozen feature extractor: returns the feature maps of an image, without gradient; always in eval mode.

    Args:
        net: maps (B, 3, H, W) to a list, tuple or dict of (B, C_l, h_l, w_l) maps, largest first.
        channels: C_l of each map.
        origin: where the weights come from. Those of the package and the hub can be loaded again by the name alone.
        mean: mean colour of the training images, per channel, in [0, 1].
        std: standard deviation of the same, likewise.
        channels_last: whether the net returns (B, h_l, w_l, C_l) maps, as timm's windowed transformers do.
        groups: numbers of consecutive maps of the net that are joined to one along their channels, because they have
            the same size; None where each stays for itself. ``channels`` is that of the joined maps.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        channels: Sequence[int],
        origin: Origin,
        mean: Sequence[float] = _IMAGENET_MEAN,
        std: Sequence[float] = _IMAGENET_STD,
        channels_last: bool = False,
        groups: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)
        self.channels = tuple(channels)
        self.origin: Origin = origin
        self.channels_last = channels_last
        self.groups = (1,) * len(self.channels) if groups is None else tuple(groups)
        self.dtype: torch.dtype | None = None
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def folded(self, dtype: torch.dtype, size_px: tuple[int, int] | None = None) -> Backbone:
        """Return a copy for inference, whose BatchNorms are merged into the convolutions before them.

        Where torch.fx cannot trace the net, it is copied as it is.

        Args:
            dtype: type of its weights and feature maps; pixels are normalised in float32.
            size_px: (height, width) of all its images, for which a vision transformer's position embeddings are
                resampled once; None where the size is open.

        Returns:
            A backbone whose outputs are the same up to rounding.
        """
        if is_plain_vit(self.net):
            net = _at_size(self.net, size_px)
        else:
            try:
                with GATE.tracing():
                    net = fuse(self.net)
            except Exception:  # a net's own code may raise any error when traced; then it stays as it is, only slower
                net = copy.deepcopy(self.net)
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.in_channels >= _WIDE_CHANNELS:
                layer.dilation = (2, 2)  # has no effect on a 1x1 kernel, but see `supersimplenet.model.ops.pointwise`
        backbone = Backbone(
            net.to(dtype),
            channels=self.channels,
            origin=self.origin,
            mean=self.mean.flatten().tolist(),
            std=self.std.flatten().tolist(),
            channels_last=self.channels_last,
            groups=self.groups,
        )
        backbone.dtype = dtype
        return backbone

    @property
    def refetchable(self) -> bool:
        """Whether the name alone suffices to load the same weights again, so that a model folder need not hold them."""
        return self.origin in ("package", "hub")

    def train(self, mode: bool = True) -> Backbone:
        """Stay in eval mode, whatever ``mode`` is: frozen statistics are part of the method."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps of images, channels last.

        Args:
            pixels: (B, H, W, 3) uint8, RGB.

        Returns:
            One (B, h_l, w_l, C_l) tensor per map, largest first.
        """
        image = pixels.permute(0, 3, 1, 2).to(self.mean.dtype).div_(255)  # (B, 3, H, W), channels last in memory
        return self.features(image.sub_(self.mean).div_(self.std))

    def features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps of images that are already normalised; with gradients only where weights have them.

        Args:
            image: (B, 3, H, W), normalised by the backbone's mean and standard deviation.

        Returns:
            One (B, h_l, w_l, C_l) tensor per map, largest first.
        """
        maps: Any = self.net(image if self.dtype is None else image.to(self.dtype))
        if isinstance(maps, Mapping):
            maps = list(maps.values())
        each = iter([feature if self.channels_last else feature.permute(0, 2, 3, 1) for feature in maps])
        grouped = [list(islice(each, number)) for number in self.groups]
        return tuple(torch.cat(group, dim=-1) if len(group) > 1 else group[0] for group in grouped)

    def fingerprint(self, *, counters: bool = True) -> str:
        """Return the SHA-256 of the weights' names, shapes and float32 values, in hex.

        Args:
            counters: include BatchNorm's counts of training batches, which inference does not use and some files lack.
        """
        digest = hashlib.sha256()
        for name, value in sorted(self.net.state_dict().items()):
            if name.endswith(_COUNTER) and not counters:
                continue
            digest.update(f"{name}{tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().float().contiguous().numpy().data)
        return digest.hexdigest()


def build_backbone(config: ModelConfig, *, with_weights: bool = True) -> Backbone:
    """Build the backbone that a config names.

    Args:
        config: names the model, its weights file and the layers or strides that are used.
        with_weights: False builds only the architecture, for weights that are loaded next.

    Returns:
        The backbone, built up to the last layer that is used. Feature maps of one stride are joined to one map.

    Raises:
        BackboneError: an unknown name, layers or strides that the model does not have, weights that cannot be fetched
            or do not match.
        ConfigError: layers and strides contradict each other.
    """
    name, file = config.backbone, config.backbone_weights
    if name in (COMPACT, LITE0) and file is not None:
        raise BackboneError(f"model.backbone_weights: '{name}' comes with its weights; name a timm model, or drop it")
    architecture, layers = architecture_of(name), chosen_layers(config)
    indices = tuple(layer.place for layer in layers)
    origin: Origin = "hub"
    if name == COMPACT:
        origin = "package"
    elif name == LITE0:
        origin = "extra"
    elif file is not None:
        origin = "file"
    if origin == "hub" and with_weights:
        net = _create_with_hub_weights(architecture, indices)
    else:
        net = _create(architecture, indices)
    if origin == "package":
        with as_file(files("supersimplenet.model") / "weights" / "compact.safetensors") as path:
            _load_weights(net, read_state_dict(path), path)
    elif origin == "extra" and with_weights:
        _load_weights(net, read_lite0(), name)
    elif file is not None and with_weights:
        _load_weights(net, read_state_dict(file), file)
    settings = pretrained_settings(architecture)
    strides = [layer.stride for layer in layers]
    distinct = sorted(set(strides))
    backbone = Backbone(
        net,
        channels=[sum(layer.channels for layer in layers if layer.stride == stride) for stride in distinct],
        origin=origin,
        mean=settings.mean,
        std=settings.std,
        channels_last=getattr(net, "output_fmt", "NCHW") == "NHWC",
        groups=[strides.count(stride) for stride in distinct],
    )
    if origin == "hub" and with_weights:
        record_fingerprint(name, backbone.fingerprint(counters=False))
    return backbone


def wrap_module(net: nn.Module, image_size: tuple[int, int]) -> Backbone:
    """Wrap a module of the user's own as backbone; its channels are found with a trial image.

    Args:
        net: maps (B, 3, H, W), ImageNet-normalised, to a list, tuple or dict of (B, C_l, h_l, w_l), largest first.
        image_size: height and width of the trial image.

    Raises:
        BackboneError: the module returns anything else.
    """
    with torch.no_grad():
        maps = net.eval()(torch.zeros(1, 3, *image_size))
    values = list(maps.values()) if isinstance(maps, Mapping) else maps
    fits = isinstance(values, list | tuple) and all(isinstance(m, Tensor) and m.ndim == 4 for m in values)
    if not fits or not values:
        raise BackboneError(
            f"backbone {type(net).__name__}: returned {type(maps).__name__}; wanted a list, tuple or dict of feature "
            "maps, each (B, C, h, w)"
        )
    areas = [m.shape[2] * m.shape[3] for m in values]
    if areas != sorted(areas, reverse=True):
        raise BackboneError(f"backbone {type(net).__name__}: its feature maps must come largest first")
    return Backbone(net, channels=[m.shape[1] for m in values], origin="module")


def _create(architecture: str, indices: tuple[int, ...], **options: Any) -> nn.Module:
    """Create the model up to the last layer that is used, a vision transformer for images of any size."""
    if is_plain_vit(architecture):
        options["dynamic_img_size"] = True
    net: nn.Module = timm.create_model(architecture, features_only=True, out_indices=indices, **options)
    return net


def _at_size(net: nn.Module, size_px: tuple[int, int] | None) -> nn.Module:
    """Return a copy of a vision transformer, for images of one size alone if that is given.

    timm resamples learned position embeddings for each image of an open size, which engines cannot do. Rotary ones are
    computed from the size alone, which they can.
    """
    net = copy.deepcopy(net)
    vit: Any = net.model
    if size_px is not None and getattr(vit, "pos_embed", None) is not None:
        vit.set_input_size(img_size=size_px)
        if getattr(vit, "rope", None) is None:
            vit.dynamic_img_size = False
            vit.patch_embed.flatten = True  # (B, N, C), which timm's code takes at a size that is not open
    return net


def _create_with_hub_weights(architecture: str, indices: tuple[int, ...]) -> nn.Module:
    """Create the model with the weights that timm publishes for it, from the hub or its local cache."""
    repository = pretrained_settings(architecture).hf_hub_id
    cached = try_to_load_from_cache(repository, "model.safetensors") if repository else None
    overlay = {"file": cached} if isinstance(cached, str) else None
    try:
        if overlay is None and repository:
            _require_host(constants.ENDPOINT)
        net = _create(architecture, indices, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # the hub's client, its transport and the file system each raise their own errors
        raise BackboneError(_hub_message(architecture, error)) from error
    return net


def _require_host(endpoint: str) -> None:
    """Raise at once if the hub does not answer; the hub's client would first retry for most of a minute."""
    if not getproxies():
        address = urlsplit(endpoint)
        port = address.port or (80 if address.scheme == "http" else 443)
        socket.create_connection((address.hostname, port), timeout=_HUB_TIMEOUT_S).close()


def _load_weights(net: nn.Module, available: Mapping[str, Tensor], where: Path | str) -> None:
    """Load the weights that the network needs; there may be more, under the names of the whole timm model.

    Args:
        net: the network.
        available: weights by name.
        where: the file they come from, for the error message.
    """
    wanted = net.state_dict()
    found, missing = {}, []
    for name, value in wanted.items():
        source = next((available[n] for n in (name, *_whole_model_names(name)) if n in available), None)
        if source is None and name.endswith(_COUNTER):
            source = value  # not used in eval mode; older files lack it
        if source is None:
            missing.append(name)
        elif source.shape != value.shape:
            raise BackboneError(
                f"{where}: '{name}' has shape {tuple(source.shape)}, the network needs {tuple(value.shape)}; "
                "these are weights of another architecture"
            )
        else:
            found[name] = source.to(value.dtype)
    if missing:
        raise BackboneError(
            f"{where}: lacks {len(missing)} of the {len(wanted)} weights the network needs: {few(missing)}; "
            "give the weights of this architecture"
        )
    net.load_state_dict(found)


def _whole_model_names(name: str) -> list[str]:
    """Return the names that the whole timm model may give to a weight of its feature extractor.

    timm joins the first two components of a name (``stages.0`` becomes ``stages_0``, ``stem.conv1`` becomes
    ``stem_conv1``), or puts ``model.`` or ``body.`` before it.
    """
    first, _, rest = name.partition(".")
    names = [f"{first[:i]}.{first[i + 1 :]}.{rest}" for i, character in enumerate(first) if character == "_"]
    return [*names, rest] if first in ("model", "body") else names


def _hub_message(name: str, error: Exception) -> str:
    reason = first_line(error)
    return (
        f"model.backbone: the weights of '{name}' could not be fetched from the model hub ({reason}). Three ways out: "
        "1. --model.backbone compact: shipped with this package, needs no hub; "
        "2. --model.backbone_weights FILE: weights you copied from elsewhere (safetensors or a torch state dict); "
        "3. on a machine with access, train or load once, then copy its hub cache (HF_HOME) here."
    )
