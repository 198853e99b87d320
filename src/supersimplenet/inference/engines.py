"""What computes: torch, or OpenVINO on a processor. One folded network, from pixels to map and score."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property, partial
from typing import Any, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import EngineName, Precision
from supersimplenet.inference.cuda_graphs import Graphs
from supersimplenet.inference.model_folder import move_to
from supersimplenet.model.folded import FoldedNetwork
from supersimplenet.model.network import SuperSimpleNet, anomaly_map
from supersimplenet.utils.system import is_cpu, keep_freed_blocks, lanes

_GPU_BATCH = 16


class Engine(Protocol):
    """Runs the network.

    Attributes:
        name: of the engine.
        batch_size: images that are best run together.
    """

    name: EngineName
    batch_size: int

    def run(
        self, pixels: NDArray[np.uint8], ignored: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(B, H, W, 3) uint8 to the smoothed map (B, H, W) and score (B,), logits. May be called from any thread.

        Pixels of ``ignored`` (B, H, W) count in no score, and reach the map nowhere but on themselves.
        """
        ...

    def lanes(self) -> AbstractContextManager[int]:
        """A context in which `run` is called from several threads at once; gives their best number."""
        ...

    def stages(self, pixels: NDArray[np.uint8]) -> dict[str, Callable[[], object]]:
        """The parts of `run` one by one, by name, for a benchmark."""
        ...


def build_engine(network: SuperSimpleNet, *, name: str, device: torch.device, precision: str) -> Engine:
    """The engine of a name.

    Args:
        network: the trained network; it is copied.
        name: ``torch`` or ``openvino``.
        device: where to compute; OpenVINO is used on the processor only.
        precision: ``float32`` or ``bfloat16``: of the backbone and the wide matrices (torch), or of what OpenVINO
            chooses to compute in it.

    Raises:
        ConfigError: an engine that is not installed or not for this device, or an unknown name or precision.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"precision: '{precision}'; choose {' or '.join(get_args(Precision))}")
    if name == "torch":
        return TorchEngine(network, device=device, precision=precision)
    if name == "openvino":
        if device.type != "cpu":
            raise ConfigError(f"engine: openvino computes on the processor, not on '{device}'; use --device cpu")
        return OpenVinoEngine(network, precision=precision)
    raise ConfigError(f"engine: '{name}'; choose {' or '.join(get_args(EngineName))}")


class TorchEngine:
    """The folded network in torch.

    On a processor images go one after another, and their intermediate values stay in cache. On a GPU a batch is one
    recorded graph, because launching some hundred kernels takes longer than an image does.

    Args:
        network: see `build_engine`.
        device: likewise.
        precision: likewise.
    """

    name: EngineName = "torch"

    def __init__(self, network: SuperSimpleNet, *, device: torch.device, precision: str) -> None:
        self.device = device
        on_cpu = is_cpu(device)
        folded = FoldedNetwork(network, dtype=getattr(torch, precision), dense=not on_cpu)
        self.network = move_to(folded, device).eval()
        self.batch_size = 1 if on_cpu else _GPU_BATCH
        self._graphs = Graphs(self.network, exact=precision == "float32") if device.type == "cuda" else None
        if on_cpu:
            keep_freed_blocks()

    @torch.inference_mode()
    def run(
        self, pixels: NDArray[np.uint8], ignored: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `Engine`."""
        inputs = [torch.from_numpy(values) for values in (pixels, ignored) if values is not None]
        parts = zip(*[torch.split(values, self.batch_size) for values in inputs], strict=True)
        outputs = [self._look(part) for part in parts]
        map_logit, score_logit = (torch.cat(values).numpy() for values in zip(*outputs, strict=True))
        return map_logit, score_logit

    def _look(self, part: Sequence[Tensor]) -> Sequence[Tensor]:
        if self._graphs is not None:
            return self._graphs.run(part)
        return [values.float().cpu() for values in self.network(*[values.to(self.device) for values in part])]

    def lanes(self) -> AbstractContextManager[int]:
        """See `Engine`."""
        return lanes(self.device)

    def stages(self, pixels: NDArray[np.uint8]) -> dict[str, Callable[[], object]]:
        """See `Engine`."""
        network = self.network
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).to(self.device)
            features = network.backbone(batch)
            map_logit = network.heads(features).map_logit
        alone = torch.inference_mode()
        return {
            "backbone": alone(lambda: network.backbone(batch)),
            "heads": alone(lambda: network.heads(features)),
            "post-processing": alone(lambda: anomaly_map(map_logit, network.image_size)),
        }


class OpenVinoEngine:
    """The folded network compiled by OpenVINO, in this process; nothing is written to disk.

    Args:
        network: see `build_engine`.
        precision: likewise.

    Raises:
        ConfigError: OpenVINO is not installed, or cannot convert the backbone.
    """

    name: EngineName = "openvino"
    batch_size = 1

    def __init__(self, network: SuperSimpleNet, *, precision: str) -> None:
        try:
            import openvino
        except ImportError as error:
            raise ConfigError("engine: openvino is not installed; pip install 'supersimplenet[openvino]'") from error
        self._convert = openvino.convert_model
        self._core = openvino.Core()
        self._settings = {"INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision]}
        self._network = FoldedNetwork(network, dense=True).cpu().eval()
        example = torch.zeros(1, *self._network.image_size, 3, dtype=torch.uint8)
        try:
            self._model = self._converted(self._network, example)
        except Exception as error:  # whatever the converter or the backbone's own code raises
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(
                f"engine: openvino cannot convert this backbone ({reason}); use --engine torch"
            ) from error
        self._alone = self._compiled(self._model, "LATENCY", 1)
        self._map_in_threads: Any = None  # compiled when it is first asked for
        self._active = self._alone
        self._requests = threading.local()

    def run(
        self, pixels: NDArray[np.uint8], ignored: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See `Engine`."""
        compiled = self._active if ignored is None else self._ignoring
        inputs = [values for values in (pixels, ignored) if values is not None]
        if getattr(self._requests, "compiled", None) is not compiled:
            self._requests.compiled, self._requests.request = compiled, compiled.create_infer_request()
        request = self._requests.request
        maps = np.empty((len(pixels), *self._network.image_size), dtype=np.float32)
        scores = np.empty(len(pixels), dtype=np.float32)
        for place in range(len(pixels)):
            request.infer([values[place : place + 1] for values in inputs], share_inputs=True)
            maps[place] = request.get_output_tensor(0).data[0]
            scores[place] = request.get_output_tensor(1).data[0]
        return maps, scores

    @cached_property
    def _ignoring(self) -> Any:
        """The network with a second input, compiled when it is first asked for."""
        height, width = self._network.image_size
        example = torch.zeros(1, height, width, 3, dtype=torch.uint8), torch.zeros(1, height, width, dtype=torch.bool)
        return self._compiled(self._converted(self._network, *example), "THROUGHPUT", torch.get_num_threads())

    @contextmanager
    def lanes(self) -> Iterator[int]:
        """See `Engine`."""
        threads = torch.get_num_threads()
        if self._map_in_threads is None:
            self._map_in_threads = self._compiled(self._model, "THROUGHPUT", threads)
        self._active = self._map_in_threads
        try:
            yield threads
        finally:
            self._active = self._alone

    def stages(self, pixels: NDArray[np.uint8]) -> dict[str, Callable[[], object]]:
        """See `Engine`."""
        network = self._network

        class Backbone(nn.Module):
            def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
                return tuple(f.permute(0, 3, 1, 2) for f in network.backbone(batch))  # as the convolutions leave them

        class Rest(nn.Module):
            def forward(self, *maps: Tensor) -> tuple[Tensor, Tensor]:
                output = network.heads([f.permute(0, 2, 3, 1) for f in maps])
                return anomaly_map(output.map_logit, network.image_size), output.score_logit

        batch = torch.from_numpy(pixels[:1])
        with torch.no_grad():
            maps = Backbone()(batch)
        runs: dict[str, Callable[[], object]] = {}
        for name, part, example in (("backbone", Backbone(), (batch,)), ("heads, post-processing", Rest(), maps)):
            request = self._compiled(self._converted(part, *example), "LATENCY", 1).create_infer_request()
            inputs = [values.contiguous().numpy() for values in example]
            runs[name] = partial(self._repeat, request, inputs, len(pixels))
        return runs

    @staticmethod
    def _repeat(request: Any, inputs: list[NDArray[Any]], images: int) -> None:
        for _ in range(images):
            request.infer(inputs, share_inputs=True)

    def _converted(self, module: nn.Module, *example: Tensor) -> Any:
        with torch.no_grad(), warnings.catch_warnings():
            module(*example)  # the matrices that are kept between calls are made here, and not traced
            warnings.simplefilter("ignore")  # the converter traces: sizes become constants, as they should here
            model = self._convert(module, example_input=example)
        model.reshape({port: list(values.shape) for port, values in zip(model.inputs, example, strict=True)})
        return model

    def _compiled(self, model: Any, hint: str, streams: int) -> Any:
        threads = {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        return self._core.compile_model(model, "CPU", {**self._settings, "PERFORMANCE_HINT": hint, **threads})
