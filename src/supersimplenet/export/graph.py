"""Trace the folded network as one graph, from uint8 pixels to scores, verdict, smoothed anomaly map and defect map."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, export
from torch.nn.utils import parametrize

from supersimplenet.errors import ExportError
from supersimplenet.model.config import SMALLEST_SIDE_PX
from supersimplenet.model.folded import FoldedNetwork
from supersimplenet.model.network import SuperSimpleNet, anomaly_map
from supersimplenet.postprocessing.postprocessor import PostProcessor
from supersimplenet.types import SCORE_FIELDS
from supersimplenet.utils.formatting import first_line

INPUTS = ("image", "ignored")
_LARGEST_BATCH, _LARGEST_SIDE_PX = 1024, 8192
_FEW_VALUES = 1024  # weights with fewer values are not worth compressing


class ExportNetwork(nn.Module):
    """The network in the form that is exported.

    Args:
        network: the trained network; it is copied.
        postprocessor: the scale of the scores, the score that decides, and the thresholds.
        gives_verdict: the graph sees whole images at the size of the thresholds, so that it can also output score,
            verdict and defects.
        dtype: number format of the backbone and the wide matrices; see `FoldedNetwork`.
    """

    def __init__(
        self, network: SuperSimpleNet, *, postprocessor: PostProcessor, gives_verdict: bool, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.folded = FoldedNetwork(network, dtype=dtype, dense=True)
        self.scale = postprocessor.score_scale
        self.decides = SCORE_FIELDS[postprocessor.image_score]
        self.calibration = postprocessor.calibration if gives_verdict else None
        self.requires_grad_(False)

    def forward(self, image: Tensor, ignored: Tensor | None = None) -> dict[str, Tensor]:
        """Predict images.

        Args:
            image: (B, H, W, 3) uint8, RGB.
            ignored: (B, H, W) uint8, not 0 on pixels that count in no score. With None, the graph has no such input.

        Returns:
            Outputs by name, as `supersimplenet.runtime.bundle.describe_outputs` describes them.
        """
        if ignored is None:
            output = self.folded.heads(self.folded.backbone(image))
            head, smoothed = output.score_logit, anomaly_map(output.map_logit, image.shape[1:3])
            counted = smoothed
        else:
            smoothed, head = self.folded(image, ignored > 0)
            counted = smoothed.masked_fill(ignored > 0, -torch.inf)
        map_max = counted.amax((1, 2))
        outputs = {
            "map": smoothed,
            "head_logit": head,
            "map_max_logit": map_max,
            "fused_logit": self.scale.fuse(head, map_max),  # type: ignore[arg-type]  # also of tensors
        }
        outputs["score_logit"] = score = outputs[self.decides] + 0.0  # a name of its own: an engine has one a tensor
        if self.calibration is None:
            return outputs
        bad = _float32_from(self.calibration.threshold_logit)
        accept = self.calibration.accept_logit
        unsure = bad if accept is None else _float32_from(accept)
        is_bad = score >= bad
        normalised = torch.sigmoid(score - bad)
        below = float(np.nextafter(np.float32(0.5), np.float32(0)))  # rounding must not lift a good part to 0.5
        return outputs | {
            "score": torch.where(is_bad, normalised, normalised.clamp(max=below)),
            "verdict": (score >= unsure).to(torch.uint8) + is_bad.to(torch.uint8),
            "defects": (counted >= self.calibration.pixel_logit).to(torch.uint8),
        }


def _float32_from(threshold: float) -> float:
    """Return the lowest float32 that is at least the threshold: float32 scores reach both or neither."""
    rounded = np.float32(threshold)
    return float(rounded if float(rounded) >= threshold else np.nextafter(rounded, np.float32(np.inf)))


def at_size(network: SuperSimpleNet, size_px: tuple[int, int]) -> SuperSimpleNet:
    """Return the network for images of another size, with the same weights."""
    other = copy.copy(network)
    other.config = replace(network.config, image_size=size_px)
    return other


def step_px(network: SuperSimpleNet) -> int:
    """Return the step of the open size: height and width of the images must be multiples of it."""
    return max(network.config.feature_strides)


def trace(
    network: SuperSimpleNet,
    *,
    postprocessor: PostProcessor,
    gives_verdict: bool,
    precision: str,
    dynamic: bool = False,
    masked: bool = False,
) -> ExportedProgram:
    """Trace the network as a graph of torch's elementary operations.

    Args:
        network: the trained network; the graph takes images of its configured size.
        postprocessor: see `ExportNetwork`.
        gives_verdict: see `ExportNetwork`.
        precision: ``fp32``; ``fp16``: large weights are kept in 16 bits, but computed with in 32; ``bf16``: the
            backbone and the wide matrices are computed in bfloat16.
        dynamic: leave height and width open, in steps of `step_px`.
        masked: add a second input with the pixels that count in no score; at one size only.

    Raises:
        ExportError: torch cannot follow the network's code.
    """
    module = ExportNetwork(
        network,
        postprocessor=postprocessor,
        gives_verdict=gives_verdict,
        dtype=torch.bfloat16 if precision == "bf16" else torch.float32,
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
        least, most = -(-SMALLEST_SIDE_PX // step), _LARGEST_SIDE_PX // step
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
