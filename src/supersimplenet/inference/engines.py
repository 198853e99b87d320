"""The engines that compute the folded network, from pixels to map and score: torch, or OpenVINO on a CPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import EngineName, Precision
from supersimplenet.inference.cuda_graphs import CudaGraphs
from supersimplenet.inference.model_folder import move_to
from supersimplenet.model.folded import FoldedNetwork
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.model.tracing import GATE
from supersimplenet.runtime.openvino_model import OpenVinoModel
from supersimplenet.runtime.predictor import Backend
from supersimplenet.runtime.tiles import Outputs
from supersimplenet.utils.formatting import first_line
from supersimplenet.utils.system import is_cpu, keep_freed_blocks, require_own_threads, worker_threads

_GPU_BATCH = 16


class Engine(Backend, Protocol):
    """A `Backend` of a network in this process.

    Attributes:
        name: name of the engine.
    """

    name: EngineName

    def stages(self, pixels: NDArray[np.uint8]) -> dict[str, Callable[[], object]]:
        """Return the stages of `run` as functions by name, for a benchmark."""
        ...


def build_engine(network: SuperSimpleNet, *, name: str, device: torch.device, precision: str) -> Engine:
    """Build the engine of this name.

    Args:
        network: the trained network; it is copied.
        name: ``torch`` or ``openvino``.
        device: where to compute; OpenVINO is used on the CPU only.
        precision: ``float32`` or ``bfloat16``. With torch it is the type of the backbone and the wide matrices; with
            OpenVINO, of the operations that OpenVINO chooses to compute in this type.

    Raises:
        ConfigError: the engine is not installed or not for this device, or the name or precision is unknown.
    """
    if precision not in get_args(Precision):
        raise ConfigError(f"precision: '{precision}'; choose {' or '.join(get_args(Precision))}")
    if name == "torch":
        return TorchEngine(network, device=device, precision=precision)
    if name == "openvino":
        if device.type != "cpu":
            raise ConfigError(f"engine: openvino computes on the CPU, not on '{device}'; use --device cpu")
        return OpenVinoEngine(network, precision=precision)
    raise ConfigError(f"engine: '{name}'; choose {' or '.join(get_args(EngineName))}")


class TorchEngine:
    """The folded network in torch.

    On a CPU, images are computed one after another, so that their intermediate values stay in cache. On a GPU, a batch
    is one CUDA graph, because launching some hundred kernels takes longer than computing an image.

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
        self._graphs = CudaGraphs(self.network, exact=precision == "float32") if device.type == "cuda" else None
        if on_cpu:
            keep_freed_blocks()

    @torch.inference_mode()
    def run(self, pixels: NDArray[np.uint8], ignored: NDArray[np.bool_] | None = None) -> Outputs:
        """See `Backend`."""
        require_own_threads()
        inputs = [torch.from_numpy(values) for values in (pixels, ignored) if values is not None]
        batches = zip(*[torch.split(values, self.batch_size) for values in inputs], strict=True)
        with GATE.computing():
            outputs = [self._computed(batch) for batch in batches]
        whole = [torch.cat(values).numpy() for values in zip(*outputs, strict=True)]
        return Outputs(**dict(zip(self.network.output_names, whole, strict=True)))

    def _computed(self, batch: Sequence[Tensor]) -> Sequence[Tensor]:
        if self._graphs is not None:
            return self._graphs.run(batch)
        return [values.float().cpu() for values in self.network(*[values.to(self.device) for values in batch])]

    def worker_threads(self) -> AbstractContextManager[int]:
        """See `Backend`."""
        return worker_threads(self.device)

    def stages(self, pixels: NDArray[np.uint8]) -> dict[str, Callable[[], object]]:
        """See `Engine`."""
        network, heads, subspace = self.network, self.network.measures.heads, self.network.measures.subspace
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).to(self.device)
            features = network.backbone(batch)
        alone = torch.inference_mode()
        found: dict[str, Callable[[], object]] = {"backbone": alone(lambda: network.backbone(batch))}
        if heads is not None:
            with torch.inference_mode():
                map_logit = heads(features).map_logit
            found["heads"] = alone(lambda: heads(features))
            found["post-processing"] = alone(lambda: network.measures.finished_map(map_logit, network.image_size))
        if subspace is not None:
            found["subspace"] = alone(lambda: subspace(features))
        return found


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
        self._precision = {"float32": "f32", "bfloat16": "bf16"}[precision]
        self._network = FoldedNetwork(network, dense=True).cpu().eval()
        example = torch.zeros(1, *self._network.image_size, 3, dtype=torch.uint8)
        try:
            model = self._converted(self._network, example)
        except Exception as error:  # the converter and the backbone's own code may raise any error
            raise ConfigError(
                f"engine: openvino cannot convert this backbone ({first_line(error)}); use --engine torch"
            ) from error
        self._plain = self._named(model)

    def run(self, pixels: NDArray[np.uint8], ignored: NDArray[np.bool_] | None = None) -> Outputs:
        """See `Backend`."""
        if ignored is None:
            return self._plain.run({"image": pixels})
        return self._masked.run({"image": pixels, "ignored": ignored})

    @cached_property
    def _masked(self) -> OpenVinoModel:
        """The network with a second input for ignored pixels, compiled at its first use."""
        height, width = self._network.image_size
        example = torch.zeros(1, height, width, 3, dtype=torch.uint8), torch.zeros(1, height, width, dtype=torch.bool)
        return self._named(self._converted(self._network, *example), always_many=True)

    def worker_threads(self) -> AbstractContextManager[int]:
        """See `Backend`."""
        return self._plain.worker_threads()

    def stages(self, pixels: NDArray[np.uint8]) -> dict[str, Callable[[], object]]:
        """See `Engine`."""
        network = self._network

        class Backbone(nn.Module):
            def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
                return tuple(f.permute(0, 3, 1, 2) for f in network.backbone(batch))  # the layout of the convolutions

        class Rest(nn.Module):
            def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
                return network.of_features([f.permute(0, 2, 3, 1) for f in maps], network.image_size)

        batch = torch.from_numpy(pixels[:1])
        with torch.no_grad():
            maps = Backbone()(batch)
        runs: dict[str, Callable[[], object]] = {}
        for name, part, example in (("backbone", Backbone(), (batch,)), ("heads, post-processing", Rest(), maps)):
            request = self._compiled(self._converted(part, *example)).compile("LATENCY").create_infer_request()
            inputs = [values.contiguous().numpy() for values in example]
            runs[name] = partial(self._repeat, request, inputs, len(pixels))
        return runs

    @staticmethod
    def _repeat(request: Any, inputs: list[NDArray[Any]], images: int) -> None:
        for _ in range(images):
            request.infer(inputs, share_inputs=True)

    def _converted(self, module: nn.Module, *example: Tensor) -> Any:
        with torch.no_grad(), warnings.catch_warnings():
            module(*example)  # makes the cached matrices, which must not be traced
            warnings.simplefilter("ignore")  # tracing turns sizes into constants, as intended here
            model = self._convert(module, example_input=example)
        model.reshape({port: list(values.shape) for port, values in zip(model.inputs, example, strict=True)})
        return model

    def _named(self, model: Any, *, always_many: bool = False) -> OpenVinoModel:
        """Return a compiled network whose inputs and outputs have the same names as those of an exported file."""
        for ports, names in ((model.inputs, ("image", "ignored")), (model.outputs, self._network.output_names)):
            for port, name in zip(ports, names, strict=False):  # there may be only one input
                port.get_tensor().set_names({name})
        return self._compiled(model, always_many=always_many)

    def _compiled(self, model: Any, *, always_many: bool = False) -> OpenVinoModel:
        threads = torch.get_num_threads()
        return OpenVinoModel(
            self._core,
            model,
            precision=self._precision,
            threads=threads,
            always_many=always_many,
            names={name: name for name in self._network.output_names},
        )
