"""Trace the folded network as one graph, from uint8 pixels to scores, verdict, smoothed anomaly map and defect map."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, export
from torch.nn.utils import parametrize

from supersimplenet.errors import ExportError
from supersimplenet.export.score_outputs import ScoreOutputs
from supersimplenet.model.config import LARGEST_SIDE_PX, SMALLEST_SIDE_PX
from supersimplenet.model.folded import FoldedNetwork, output_names_of
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.model.subspace import Subspace
from supersimplenet.postprocessing.postprocessor import PostProcessor
from supersimplenet.utils.formatting import first_line

INPUTS = ("image", "ignored")
_LARGEST_BATCH = 1024
_FEW_VALUES = 1024  # weights with fewer values are not worth compressing


class ExportNetwork(nn.Module):
    """The network in the form that is exported.

    Args:
        network: the trained network; it is copied.
        dtype: number format of the backbone and the wide matrices; see `FoldedNetwork`.
        open_size: see `FoldedNetwork`.
    """

    def __init__(self, network: SuperSimpleNet, *, dtype: torch.dtype, open_size: bool = False) -> None:
        super().__init__()
        self.folded = FoldedNetwork(network, dtype=dtype, dense=True, open_size=open_size)
        self.requires_grad_(False)

    def forward(self, image: Tensor, ignored: Tensor | None = None) -> dict[str, Tensor]:
        """Predict images.

        Args:
            image: (B, H, W, 3) uint8, RGB.
            ignored: (B, H, W) uint8, not 0 on pixels that count in no score. With None, the graph has no such input.

        Returns:
            The outputs of `FoldedNetwork` by name, float32 logits.
        """
        folded = self.folded
        found = folded.of_features(folded.backbone(image), image.shape[1:3], None if ignored is None else ignored > 0)
        return dict(zip(folded.output_names, found, strict=True))


class _Joined(nn.Module):
    """A traced network and its score outputs as one module."""

    def __init__(self, network: ExportedProgram, scores: ExportedProgram) -> None:
        super().__init__()
        self.network, self.scores = network.module(), scores.module()

    def forward(self, image: Tensor, ignored: Tensor | None = None) -> dict[str, Tensor]:
        also = () if ignored is None else (ignored,)
        outputs: dict[str, Tensor] = self.network(image, *also)
        outputs |= self.scores(*outputs.values(), *also)
        return outputs


def at_size(network: SuperSimpleNet, size_px: tuple[int, int]) -> SuperSimpleNet:
    """Return the network for images of another size, with the same weights."""
    other = copy.copy(network)
    other.config = replace(network.config, image_size=size_px)
    return other


def step_px(network: SuperSimpleNet) -> int:
    """Return the step of the open size: height and width of the images must be multiples of it."""
    return max(network.config.strides)


def trace(network: SuperSimpleNet, *, precision: str, dynamic: bool = False, masked: bool = False) -> ExportedProgram:
    """Trace the network as a graph of torch's elementary operations.

    Args:
        network: the trained network; the graph takes images of its configured size.
        precision: ``fp32``; ``fp16``: large weights are kept in 16 bits, but computed with in 32; ``bf16``: the
            backbone and the wide matrices are computed in bfloat16.
        dynamic: leave height and width open, in steps of `step_px`.
        masked: add a second input with the pixels that count in no score; at one size only.

    Raises:
        ExportError: torch cannot follow the network's code.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    module = ExportNetwork(network, dtype=dtype, open_size=dynamic).eval()
    if precision == "fp16":
        _keep_in_half(module)
    image, ignored = _example_inputs(network)
    return _traced(module, (image, ignored) if masked else (image,), _open_axes(network, dynamic=dynamic))


def trace_scores(
    network: SuperSimpleNet,
    postprocessor: PostProcessor,
    *,
    gives_verdict: bool,
    dynamic: bool = False,
    masked: bool = False,
) -> ExportedProgram:
    """Trace the outputs that follow from those of the network; see `ScoreOutputs` and `trace`."""
    image, ignored = _example_inputs(network)
    inputs = score_inputs(network, masked=masked)
    examples = {name: torch.zeros(len(image)) if name.endswith("logit") else image[..., 0].float() for name in inputs}
    given = tuple((examples | {"ignored": ignored})[name] for name in inputs)
    module = ScoreOutputs(postprocessor, inputs=inputs, gives_verdict=gives_verdict)
    return _traced(module, given, _open_axes(network, dynamic=dynamic), variadic=True)


def score_inputs(network: SuperSimpleNet, *, masked: bool) -> tuple[str, ...]:
    """Return the names of what the traced `ScoreOutputs` of a network are given."""
    return (*output_names_of(network), *(["ignored"] if masked else []))


def join(network: ExportedProgram, scores: ExportedProgram) -> ExportedProgram:
    """Trace a network and its score outputs as one graph."""
    inputs: tuple[Tensor, ...] = network.example_inputs[0]
    # Which axes are open follows from both graphs.
    return _traced(_Joined(network, scores), inputs, dict.fromkeys(range(3), Dim.AUTO))


def _example_inputs(network: SuperSimpleNet) -> tuple[Tensor, Tensor]:
    height, width = network.config.size_px
    image = torch.zeros(2, height, width, 3, dtype=torch.uint8)  # not one: torch would fix that batch size
    return image, image[..., 0].contiguous()


def _open_axes(network: SuperSimpleNet, *, dynamic: bool) -> dict[int, Any]:
    """Return the axes of a graph's inputs that are open: the batch, and with ``dynamic`` height and width."""
    axes: dict[int, Any] = {0: Dim("batch", min=1, max=_LARGEST_BATCH)}
    if dynamic:
        step = step_px(network)
        least, most = -(-SMALLEST_SIDE_PX // step), LARGEST_SIDE_PX // step
        # For other sizes, torch cannot prove that the sides of the feature maps and of the upscaled maps fit.
        axes |= {1: step * Dim("rows", min=least, max=most), 2: step * Dim("columns", min=least, max=most)}
    return axes


def _traced(
    module: nn.Module, inputs: tuple[Tensor, ...], open_axes: dict[int, Any], *, variadic: bool = False
) -> ExportedProgram:
    """Trace a module for inputs with these open axes, as far as each input has them.

    Args:
        module: the module.
        inputs: what its `forward` is given.
        open_axes: axes that are open.
        variadic: `forward` takes any number of inputs.
    """
    shapes = tuple({axis: size for axis, size in open_axes.items() if axis < value.ndim} for value in inputs)
    with torch.no_grad():
        module(*inputs)  # creates the matrices kept between calls, with numbers and not symbols as sizes
        try:
            program = export(module, inputs, dynamic_shapes=(shapes,) if variadic else shapes)
        except Exception as error:  # torch's tracer and the backbone's code may raise any error
            height, width = inputs[0].shape[1:3]
            is_dynamic = 1 in open_axes
            kind = "for images of any size" if is_dynamic else f"at {height}x{width}"
            way = "; export at one size instead, with --size" if is_dynamic else ""
            raise ExportError(f"export: torch cannot follow this network {kind} ({first_line(error)}){way}") from error
    for graph_module in program.graph_module.modules():
        for node in getattr(graph_module, "graph", fx.Graph()).nodes:
            node.meta.pop("stack_trace", None)  # it would write names of this machine's folders into the file
    return program


class _Widened(nn.Module):
    def forward(self, kept: Tensor) -> Tensor:
        return kept.to(torch.float32)


def _keep_in_half(module: nn.Module) -> None:
    """Store large weights in 16 bits, widened to 32 bits where they are used; those of the subspace stay in 32."""
    for part in [part for part in module.modules() if not isinstance(part, Subspace)]:
        named = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        for name, value in named:
            if value.dtype == torch.float32 and value.numel() > _FEW_VALUES:
                parametrize.register_parametrization(part, name, _Widened(), unsafe=True)
                kept = part.parametrizations[name].original  # type: ignore[index, union-attr]
                kept.data = value.data.half()
