"""The folded network as a graph with everything inside: from uint8 pixels to score, smoothed map and defect map."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, export
from torch.nn.utils import parametrize

from supersimplenet.errors import ExportError
from supersimplenet.model.config import SMALLEST_SIDE_PX
from supersimplenet.model.folded import FoldedNetwork
from supersimplenet.model.network import SuperSimpleNet, anomaly_map
from supersimplenet.utils.formatting import first_line

INPUTS = ("image", "ignored")
OUTPUTS = ("score", "map", "defects")
_LARGEST_BATCH, _LARGEST_SIDE_PX = 1024, 8192
_FEW_VALUES = 1024  # a weight of fewer is not worth compressing


class ExportNetwork(nn.Module):
    """What is exported.

    Args:
        network: the trained network; it is copied.
        pixel_logit: from here on a pixel of the map belongs to a defect; None where that is not calibrated.
        dtype: of the backbone and the wide matrices, see `FoldedNetwork`.
    """

    def __init__(self, network: SuperSimpleNet, *, pixel_logit: float | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.folded = FoldedNetwork(network, dtype=dtype, dense=True)
        self.pixel_logit = pixel_logit
        self.requires_grad_(False)

    def forward(self, image: Tensor, ignored: Tensor | None = None) -> tuple[Tensor, ...]:
        """Look at images.

        Args:
            image: (B, H, W, 3) uint8, RGB.
            ignored: (B, H, W) uint8, other than 0 on pixels that count in no score; None for none, also in the graph.

        Returns:
            (B,) score and (B, H, W) smoothed map, float32 logits; and (B, H, W) uint8, 1 on pixels of defects, where
            it is known from which value of the map on a pixel is one.
        """
        if ignored is None:
            output = self.folded.heads(self.folded.backbone(image))
            score, heat = output.score_logit, anomaly_map(output.map_logit, image.shape[1:3])
        else:
            heat, score = self.folded(image, ignored > 0)
        if self.pixel_logit is None:
            return score, heat
        return score, heat, (heat >= self.pixel_logit).to(torch.uint8)


def at_size(network: SuperSimpleNet, size_px: tuple[int, int]) -> SuperSimpleNet:
    """The same network, with the same weights, for images of another size."""
    other = copy.copy(network)
    other.config = replace(network.config, image_size=size_px)
    return other


def step_px(network: SuperSimpleNet) -> int:
    """Of what a side must be a multiple where a graph is to take images of any size."""
    return max(network.config.feature_strides)


def trace(
    network: SuperSimpleNet, *, pixel_logit: float | None, precision: str, dynamic: bool = False, masked: bool = False
) -> ExportedProgram:
    """The network as a graph of torch's elementary operations.

    Args:
        network: the trained network; its configuration's size is the graph's.
        pixel_logit: see `ExportNetwork`.
        precision: ``fp32``; ``fp16``, whose large weights are kept in 16 bits and computed with in 32; ``bf16``, which
            computes the backbone and the wide matrices in it.
        dynamic: leave height and width open, in steps of `step_px`.
        masked: take pixels that count in no score as a second input; at one size only.

    Raises:
        ExportError: torch cannot follow the network's code.
    """
    module = ExportNetwork(
        network, pixel_logit=pixel_logit, dtype=torch.bfloat16 if precision == "bf16" else torch.float32
    ).eval()
    if precision == "fp16":
        _keep_in_half(module)
    height, width = network.config.size_px
    example = [torch.zeros(2, height, width, 3, dtype=torch.uint8)]  # two, because torch takes one for a constant
    if masked:
        example.append(example[0][..., 0])
    open_axes: dict[int, object] = {0: Dim("batch", min=1, max=_LARGEST_BATCH)}
    if dynamic:
        step = step_px(network)
        least, most = -(-SMALLEST_SIDE_PX // step), _LARGEST_SIDE_PX // step
        # Of other sizes torch cannot prove that the feature maps' sides and their upscaled ones fit.
        open_axes |= {1: step * Dim("rows", min=least, max=most), 2: step * Dim("columns", min=least, max=most)}
    with torch.no_grad():
        module(*example)  # the matrices that are kept between calls are made here, as numbers and not as symbols
        try:
            program = export(
                module, tuple(example), dynamic_shapes=(open_axes, open_axes if masked else None)[: len(example)]
            )
        except Exception as error:  # whatever torch's tracer or the backbone's own code raises
            reason = first_line(error)
            kind = "for images of any size" if dynamic else f"at {height}x{width}"
            way = "; export at one size instead, with --size" if dynamic else ""
            raise ExportError(f"export: torch cannot follow this network {kind} ({reason}){way}") from error
    for graph_module in program.graph_module.modules():
        for node in getattr(graph_module, "graph", fx.Graph()).nodes:
            node.meta.pop("stack_trace", None)  # names folders of this machine, and would be written to the file
    return program


class _Widened(nn.Module):
    def forward(self, kept: Tensor) -> Tensor:
        return kept.to(torch.float32)


def _keep_in_half(module: nn.Module) -> None:
    """Large weights in 16 bits, widened where they are used."""
    for part in list(module.modules()):
        named = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        for name, value in named:
            if value.dtype == torch.float32 and value.numel() > _FEW_VALUES:
                parametrize.register_parametrization(part, name, _Widened(), unsafe=True)
                kept = part.parametrizations[name].original  # type: ignore[index, union-attr]
                kept.data = value.data.half()
