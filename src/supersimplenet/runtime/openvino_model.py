"""A model compiled by OpenVINO for the CPU: for one image at a time, and for many threads."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from supersimplenet.runtime.tiles import NamedOutputs, Outputs

Hint = Literal["LATENCY", "THROUGHPUT"]
_first_use = threading.Lock()


class CompiledModel:
    """A compiled model; each thread has a request of its own.

    Args:
        compiled: OpenVINO's compiled model.
        names: names of the network's outputs in the model, by their names in `Outputs`.
    """

    def __init__(self, compiled: Any, *, names: Mapping[str, str]) -> None:
        self._compiled, self._names = compiled, names
        self._requests = threading.local()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Outputs:
        """Turn inputs (B, ...) by name into maps (B, H, W) and scores (B,), image by image."""
        found = self.outputs(inputs, self._names.values())
        return Outputs(**{name: found[own] for name, own in self._names.items()})

    def outputs(self, inputs: Mapping[str, NDArray[Any]], names: Iterable[str]) -> NamedOutputs:
        """Turn inputs (B, ...) by name into the outputs (B, ...) of these names, image by image."""
        request, found = self._request(), {name: list[NDArray[Any]]() for name in names}
        for place in range(len(next(iter(inputs.values())))):
            request.infer({name: values[place : place + 1] for name, values in inputs.items()}, share_inputs=True)
            for name, values in found.items():
                values.append(request.get_tensor(name).data.copy())
        return {name: np.concatenate(values) for name, values in found.items()}

    def _request(self) -> Any:
        if not hasattr(self._requests, "request"):
            self._requests.request = self._compiled.create_infer_request()
        return self._requests.request


class OpenVinoModel:
    """A model that is compiled for one image at a time or for many threads, each when it is first run in this way.

    Args:
        core: OpenVINO's core.
        model: OpenVINO's model, of fixed shape.
        precision: ``f32`` or ``bf16``; OpenVINO's own choice for the CPU might be less exact.
        threads: number of threads for one image; in `worker_threads`, this number of images is computed at once.
        always_many: always compute as in `worker_threads`.
        names: see `CompiledModel`.
    """

    def __init__(
        self,
        core: Any,
        model: Any,
        *,
        precision: str,
        threads: int,
        always_many: bool = False,
        names: Mapping[str, str],
    ) -> None:
        _make_table_of_types()
        self._core, self._model, self._names = core, model, names
        self._precision, self._threads = precision, threads
        self._always_many = self._many = always_many
        self._compiled: dict[Hint, CompiledModel] = {}
        self._lock = threading.Lock()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Outputs:
        """See `CompiledModel.run`."""
        return self._compiled_now().run(inputs)

    def outputs(self, inputs: Mapping[str, NDArray[Any]], names: Iterable[str]) -> NamedOutputs:
        """See `CompiledModel.outputs`."""
        return self._compiled_now().outputs(inputs, names)

    def _compiled_now(self) -> CompiledModel:
        hint: Hint = "THROUGHPUT" if self._many and self._threads > 1 else "LATENCY"
        with self._lock:
            if hint not in self._compiled:
                self._compiled[hint] = CompiledModel(self.compile(hint), names=self._names)
        return self._compiled[hint]

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


def _make_table_of_types() -> None:
    """Let OpenVINO make its table of number types in one thread: two that need it first would wait for each other."""
    import openvino

    with _first_use:
        openvino.Type.u8.to_dtype()
