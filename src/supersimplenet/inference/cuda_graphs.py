"""A network on a GPU, recorded as a CUDA graph per batch size and replayed: one launch instead of some hundred."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from supersimplenet.utils.console import console
from supersimplenet.utils.formatting import first_line

_WARM_UPS = 3  # runs before the recording, in which libraries choose kernels and cached matrices are made


@dataclass(frozen=True)
class _Recording:
    """A CUDA graph, and the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: list[Tensor]


class CudaGraphs:
    """Runs a network with CUDA graphs; from any thread, one batch at a time.

    Batches are filled up to a power of two, so that few graphs are recorded. All graphs share one memory pool, because
    no two run at once and results are copied out before the next run. A network that cannot be recorded, because its
    code depends on values of tensors, is run without a graph.

    Args:
        network: in eval mode, on a CUDA device.
        exact: whether float32 is computed as float32. If not, the GPU may round the factors of products to TF32, and
            uses the kernels that are measured as fastest, which may differ in the next process.
    """

    def __init__(self, network: nn.Module, *, exact: bool) -> None:
        self._network = network
        self._exact = exact
        self._device = next(network.buffers()).device
        self._lock = threading.Lock()
        self._pool: Any = None
        self._recordings: dict[tuple[int, int], _Recording] = {}
        self.recordable = True

    @torch.inference_mode()
    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run the network on tensors (B, ...) in CPU memory; return its outputs in CPU memory, in float32."""
        images = len(inputs[0])
        kind = 1 << (images - 1).bit_length(), len(inputs)
        with self._lock, torch.cuda.device(self._device), self._precision():
            if self.recordable and kind not in self._recordings:
                try:
                    self._recordings[kind] = self._record(kind[0], inputs)
                except RuntimeError as error:
                    self.recordable = False
                    reason = first_line(error)
                    console().print(f"this network cannot be recorded for the GPU and is slower so ({reason})")
            if not self.recordable:
                return [values.float().cpu() for values in self._network(*[v.to(self._device) for v in inputs])]
            recording = self._recordings[kind]
            for into, values in zip(recording.inputs, inputs, strict=True):
                into[:images].copy_(values)
            recording.graph.replay()
            return [values[:images].cpu() for values in recording.outputs]

    def _record(self, images: int, like: Sequence[Tensor]) -> _Recording:
        inputs = [values.new_zeros((images, *values.shape[1:]), device=self._device) for values in like]
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UPS):
                self._network(*inputs)
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = [values.float() for values in self._network(*inputs)]
        self._pool = graph.pool()
        return _Recording(graph, inputs, outputs)

    @contextmanager
    def _precision(self) -> Iterator[None]:
        """Set TF32 rounding and the choice of kernels, for the whole process, until the context ends."""
        coarse = not self._exact
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = coarse
        try:
            with torch.backends.cudnn.flags(enabled=True, benchmark=coarse, allow_tf32=coarse):
                yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before
