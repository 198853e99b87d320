"""A network on a GPU, recorded once for each size of batch and replayed: one launch instead of some hundred."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_WARM_UPS = 3  # runs before the recording, in which libraries choose kernels and matrices are made that are kept


class Graphs:
    """Runs a network by CUDA graphs; from any thread, one batch at a time.

    Batches are filled up to a power of two, so few graphs are recorded. All of them share one pool of memory, since no
    two run at once and results are copied away before the next.

    Args:
        network: in eval mode, on a CUDA device; its outputs must depend on its inputs' values by tensors alone.
        exact: whether float32 is computed as such. Else the GPU may round what it multiplies to TF32, and the fastest
            of its kernels are measured and taken, which may be others in the next process.
    """

    def __init__(self, network: nn.Module, *, exact: bool) -> None:
        self._network = network
        self._exact = exact
        self._device = next(network.buffers()).device
        self._lock = threading.Lock()
        self._pool: Any = None
        self._recorded: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, list[Tensor], tuple[Tensor, ...]]] = {}

    @torch.inference_mode()
    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Tensors (B, ...) of the processor's memory, through the network and back, in float32."""
        images = len(inputs[0])
        filled = 1 << (images - 1).bit_length()
        with self._lock, torch.cuda.device(self._device):
            if (filled, len(inputs)) not in self._recorded:
                self._recorded[filled, len(inputs)] = self._record(filled, inputs)
            graph, held, outputs = self._recorded[filled, len(inputs)]
            for into, values in zip(held, inputs, strict=True):
                into[:images].copy_(values)
            graph.replay()
            return [values[:images].cpu() for values in outputs]

    def _record(
        self, images: int, like: Sequence[Tensor]
    ) -> tuple[torch.cuda.CUDAGraph, list[Tensor], tuple[Tensor, ...]]:
        held = [values.new_zeros((images, *values.shape[1:]), device=self._device) for values in like]
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        coarse = not self._exact
        with torch.backends.cudnn.flags(enabled=True, benchmark=coarse, allow_tf32=coarse), _matmul_tf32(coarse):
            with torch.cuda.stream(beside):
                for _ in range(_WARM_UPS):
                    self._network(*held)
            torch.cuda.current_stream().wait_stream(beside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                outputs = tuple(values.float() for values in self._network(*held))
        self._pool = graph.pool()
        return graph, held, outputs


@contextmanager
def _matmul_tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
