"""A model compiled by OpenVINO for the CPU: for one image at a time, and for many threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from supersimplenet.runtime.tiles import Outputs

Hint = Literal["LATENCY", "THROUGHPUT"]


class CompiledModel:
    """A compiled model whose outputs are named ``map`` and ``score``; each thread has a request of its own.

    Args:
        compiled: OpenVINO's compiled model.
    """

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._requests = threading.local()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Outputs:
        """Turn inputs (B, ...) by name into maps (B, H, W) and scores (B,), image by image."""
        if not hasattr(self._requests, "request"):
            self._requests.request = self._compiled.create_infer_request()
        request = self._requests.request
        images, height, width = next(iter(inputs.values())).shape[:3]
        maps = np.empty((images, height, width), dtype=np.float32)
        scores = np.empty(images, dtype=np.float32)
        for place in range(images):
            request.infer({name: values[place : place + 1] for name, values in inputs.items()}, share_inputs=True)
            maps[place] = request.get_tensor("map").data[0]
            scores[place] = request.get_tensor("score").data[0]
        return maps, scores


class OpenVinoModel:
    """A model that is compiled for one image at a time or for many threads, each when it is first run in this way.

    Args:
        core: OpenVINO's core.
        model: OpenVINO's model, of fixed shape.
        precision: ``f32`` or ``bf16``; OpenVINO's own choice for the CPU might be less exact.
        threads: number of threads for one image; in `worker_threads`, this number of images is computed at once.
        always_many: always compute as in `worker_threads`.
    """

    def __init__(self, core: Any, model: Any, *, precision: str, threads: int, always_many: bool = False) -> None:
        self._core, self._model = core, model
        self._precision, self._threads = precision, threads
        self._always_many = self._many = always_many
        self._compiled: dict[Hint, CompiledModel] = {}
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Outputs:
        """See `CompiledModel.run`."""
        hint: Hint = "THROUGHPUT" if self._many and self._threads > 1 else "LATENCY"
        with self._lock:
            if hint not in self._compiled:
                self._compiled[hint] = CompiledModel(self.compile(hint))
        return self._compiled[hint].run(inputs)

    @contextmanager
    def worker_threads(self) -> Iterator[int]:
        """See `Backend`."""
        self._many = True
        try:
            yield self._threads
        finally:
            self._many = self._always_many

    def compile(self, hint: Hint) -> Any:
        """Return the model compiled for one image at a time (``LATENCY``) or for one image per thread."""
        settings = {
            "PERFORMANCE_HINT": hint,
            "NUM_STREAMS": 1 if hint == "LATENCY" else self._threads,
            "INFERENCE_NUM_THREADS": self._threads,
            "INFERENCE_PRECISION_HINT": self._precision,
        }
        return self._core.compile_model(self._model, "CPU", settings)
