"""Trace the folded network as one graph, from uint8 pixels to score, smoothed anomaly map and defect map."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, export
from torch.nn.utils import parametrize

from supersimplenet.errors import ExportError
from supersimplenet.model.config import LARGEST_SIDE_PX, SMALLEST_SIDE_PX
from supersimplenet.model.folded import FoldedNetwork
from supersimplenet.model.network import SuperSimpleNet, anomaly_map
from supersimplenet.utils.formatting import first_line

INPUTS = ("image", "ignored")
OUTPUTS = ("score", "map", "defects")
_LARGEST_BATCH = 1024
_FEW_VALUES = 1024  # weights with fewer values are not worth compressing


class ExportNetwork(nn.Module):
    """The network in the form that is exported.

    Args:
        network: the trained network; it is copied.
        pixel_logit: a pixel of the anomaly map belongs to a defect from this value on; None where not calibrated.
        dtype: number format of the backbone and the wide matrices; see `FoldedNetwork`.
    """

    def __init__(self, network: SuperSimpleNet, *, pixel_logit: float | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.folded = FoldedNetwork(network, dtype=dtype, dense=True)
        self.pixel_logit = pixel_logit
        self.requires_grad_(False)

    def forward(self, image: Tensor, ignored: Tensor | None = None) -> tuple[Tensor, ...]:
        """Predict images.

        Args:
            image: (B, H, W, 3) uint8, RGB.
            ignored: (B, H, W) uint8, not 0 on pixels that count in no score. With None, the graph has no such input.

        Returns:
            (B,) score and (B, H, W) smoothed anomaly map, float32 logits; where ``pixel_logit`` is known, also
            (B, H, W) uint8, 1 on pixels of defects.
        """
        if ignored is None:
            output = self.folded.heads(self.folded.backbone(image))
            score, smoothed = output.score_logit, anomaly_map(output.map_logit, image.shape[1:3])
        else:
            smoothed, score = self.folded(image, ignored > 0)
        if self.pixel_logit is None:
            return score, smoothed
        return score, smoothed, (smoothed >= self.pixel_logit).to(torch.uint8)


def at_size(network: SuperSimpleNet, size_px: tuple[int, int]) -> SuperSimpleNet:
    """Return the network for images of another size, with the same weights."""
    other = copy.copy(network)
    other.config = replace(network.config, image_size=size_px)
    return other


def step_px(network: SuperSimpleNet) -> int:
    """Return the step of the open size: height and width of the images must be multiples of it."""
    return max(network.config.feature_strides)


def trace(
    network: SuperSimpleNet, *, pixel_logit: float | None, precision: str, dynamic: bool = False, masked: bool = False
) -> ExportedProgram:
    """Trace the network as a graph of torch's elementary operations.

    Args:
        network: the trained network; the graph takes images of its configured size.
        pixel_logit: see `ExportNetwork`.
        precision: ``fp32``; ``fp16``: large weights are kept in 16 bits, but computed with in 32; ``bf16``: the
            backbone and the wide matrices are computed in bfloat16.
        dynamic: leave height and width open, in steps of `step_px`.
        masked: add a second input with the pixels that count in no score; at one size only.

    Raises:
        ExportError: torch cannot follow the network's code.
    """
    module = ExportNetwork(
        network, pixel_logit=pixel_logit, dtype=torch.bfloat16 if precision == "bf16" else torch.float32
    ).eval()
    if precision == "fp16":
        _keep_in_half(module)
    height, width = network.config.size_px
    example = [torch.zeros(2, height, width, 3, dtype=torch.uint8)]  # not one: torch would fix that batch size
    if masked:
        example.append(example[0][..., 0])
    open_axes: dict[int, object] = {0: Dim("batch", min=1, max=_LARGEST_BATCH)}
    if dynamic:
        step = step_px(network)
        least, most = -(-SMALLEST_SIDE_PX // step), LARGEST_SIDE_PX // step
        # For other sizes, torch cannot prove that the sides of the feature maps and of the upscaled maps fit.
        open_axes |= {1: step * Dim("rows", min=least, max=most), 2: step * Dim("columns", min=least, max=most)}
    with torch.no_grad():
        module(*example)  # creates the matrices kept between calls, with numbers and not symbols as sizes
        try:
            program = export(
                module, tuple(example), dynamic_shapes=(open_axes, open_axes if masked else None)[: len(example)]
            )
        except Exception as error:  # torch's tracer and the backbone's code may raise any error
            reason = first_line(error)
            kind = "for images of any size" if dynamic else f"at {height}x{width}"
            way = "; export at one size instead, with --size" if dynamic else ""
            raise ExportError(f"export: torch cannot follow this network {kind} ({reason}){way}") from error
    for graph_module in program.graph_module.modules():
        for node in getattr(graph_module, "graph", fx.Graph()).nodes:
            node.meta.pop("stack_trace", None)  # it would write names of this machine's folders into the file
    return program


class _Widened(nn.Module):
    def forward(self, kept: Tensor) -> Tensor:
        return kept.to(torch.float32)


def _keep_in_half(module: nn.Module) -> None:
    """Store large weights in 16 bits, widened to 32 bits where they are used."""
    for part in list(module.modules()):
        named = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        for name, value in named:
            if value.dtype == torch.float32 and value.numel() > _FEW_VALUES:
                parametrize.register_parametrization(part, name, _Widened(), unsafe=True)
                kept = part.parametrizations[name].original  # type: ignore[index, union-attr]
                kept.data = value.data.half()
