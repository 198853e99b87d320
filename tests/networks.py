"""A network that several test files look with."""

from __future__ import annotations

import torch

from supersimplenet.model.config import ModelConfig
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.model.subspace import pooled_features
from supersimplenet.training.subspace_fit import Moments, fit_subspace


def unsettled(size_px: tuple[int, int], variant: str = "jims") -> SuperSimpleNet:
    """Untrained heads whose BatchNorms are away from their initial statistics, and a subspace."""
    network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=size_px, variant=variant), seed=3).eval()
    generator = torch.Generator().manual_seed(0)
    for name, buffer in network.heads.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + ("var" in name))
    return with_subspace(network)


def with_subspace(network: SuperSimpleNet) -> SuperSimpleNet:
    """The network with a subspace that is fitted to the features of random pictures with smooth colours."""
    generator = torch.Generator().manual_seed(7)
    coarse = torch.rand(4, 3, 5, 7, generator=generator)
    pictures = torch.nn.functional.interpolate(coarse, size=network.config.size_px, mode="bilinear")
    pixels = (255 * pictures).byte().permute(0, 2, 3, 1).contiguous()
    strides = network.config.feature_strides
    features = pooled_features([values.double() for values in network.backbone(pixels)], strides)
    network.subspace = fit_subspace(Moments.of(features.flatten(0, 2)), strides)
    return network
