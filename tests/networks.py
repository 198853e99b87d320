"""A network that several test files look with."""

from __future__ import annotations

import torch

from supersimplenet.model.config import ModelConfig
from supersimplenet.model.network import SuperSimpleNet


def unsettled(size_px: tuple[int, int], variant: str = "jims") -> SuperSimpleNet:
    """Untrained heads whose BatchNorms are away from their initial statistics."""
    network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=size_px, variant=variant), seed=3).eval()
    generator = torch.Generator().manual_seed(0)
    for name, buffer in network.heads.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + ("var" in name))
    return network
