"""A network on a GPU, recorded once for each size of batch and replayed: one launch instead of some hundred."""

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

_WARM_UPS = 3  # runs before the recording, in which libraries choose kernels and matrices are made that are kept


@dataclass(frozen=True)
class _Recording:
    """A graph, and the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: list[Tensor]


class CudaGraphs:
    """Runs a network by CUDA graphs; from any thread, one batch at a time.

    Batches are filled up to a power of two, so few graphs are recorded. All of them share one pool of memory, since no
    two run at once and results are copied away before the next. A network that cannot be recorded, because it looks at
    values on its way, is run as it is.

    Args:
        network: in eval mode, on a CUDA device.
        exact: whether float32 is computed as such. Else the GPU may round what it multiplies to TF32, and the fastest
            of its kernels are measured and taken, which may be others in the next process.
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
        """Tensors (B, ...) of the CPU's memory, through the network and back, in float32."""
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
        """What may be rounded; of the whole process meanwhile."""
        coarse = not self._exact
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = coarse
        try:
            with torch.backends.cudnn.flags(enabled=True, benchmark=coarse, allow_tf32=coarse):
                yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before
