"""Convert a traced network into each format, and write it as one file."""

from __future__ import annotations

import io
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.export import ExportedProgram

from supersimplenet.errors import ConfigError, ExportError
from supersimplenet.export.graph import INPUTS, join
from supersimplenet.runtime.bundle import KEY, Bundle, FileFormat
from supersimplenet.runtime.file_kinds import BIN, XML
from supersimplenet.runtime.seal import seal_onnx, seal_openvino, seal_zip
from supersimplenet.utils.formatting import first_line

_NO_LIMIT = 1 << 40


class Artifact(Protocol):
    """A network in the format of one engine.

    Attributes:
        model: the network as an object of the engine; for int8, `supersimplenet.export.export` replaces it.
    """

    model: Any

    def append(self, scores: ExportedProgram, inputs: Sequence[str]) -> None:
        """Append the outputs of `supersimplenet.export.graph.trace_scores`, whose inputs have these names."""

    def write(self, path: Path, bundle: Bundle) -> None:
        """Write the network and its metadata into one file."""


def convert(program: ExportedProgram, file_format: FileFormat, *, opset: int | None = None) -> Artifact:
    """Convert a traced network into a format.

    Args:
        program: the network.
        file_format: the format.
        opset: version of ONNX's operators; None for torch's default, and for the other formats.

    Raises:
        ConfigError: the format's packages are not installed.
        ExportError: the format's converter fails.
    """
    makers: dict[FileFormat, Callable[[ExportedProgram], Artifact]] = {
        "onnx": partial(OnnxArtifact, opset=opset),
        "openvino": OpenVinoArtifact,
        "torch": TorchArtifact,
    }
    try:
        return makers[file_format](program)
    except ConfigError:
        raise
    except ImportError as error:
        raise ConfigError(
            f"format: {file_format} needs packages that are not installed ({error}); "
            f"pip install 'supersimplenet[export]'"
        ) from error
    except Exception as error:  # a converter may raise any error
        reason = first_line(error)
        raise ExportError(f"export: {file_format}'s converter cannot take this network ({reason})") from error


def output_names(program: ExportedProgram) -> list[str]:
    """Return the names of a traced network's outputs, in their order: the keys of the dictionary that it returns."""
    return [str(name) for name in program.call_spec.out_spec.context]


class OnnxArtifact:
    """An ONNX model, with operators of a version (``opset``)."""

    def __init__(self, program: ExportedProgram, opset: int | None = None) -> None:
        import onnx

        self._onnx = onnx
        newest = onnx.defs.onnx_opset_version()
        if opset is not None and opset > newest:
            raise ConfigError(f"opset: {opset}; the installed onnx {onnx.__version__} knows {newest} at most")
        self._opset = opset
        self.model = _onnx_model(program, INPUTS, opset)

    def append(self, scores: ExportedProgram, inputs: Sequence[str]) -> None:
        """See `Artifact`."""
        added = _onnx_model(scores, inputs, self._opset)
        # Its own tensors get a prefix; those that both graphs name are the network's outputs and the pixels to ignore.
        self._onnx.compose.add_prefix(added, "scores.", rename_inputs=False, rename_outputs=False, inplace=True)
        for name in ("node", "initializer", "output", "value_info"):
            getattr(self.model.graph, name).extend(getattr(added.graph, name))
        self._onnx.checker.check_model(self.model)

    def write(self, path: Path, bundle: Bundle) -> None:
        """See `Artifact`."""
        self._onnx.helper.set_model_props(self.model, {KEY: bundle.as_json()})
        self.model.producer_name = "supersimplenet"
        path.write_bytes(seal_onnx(self.model.SerializeToString()))


def _onnx_model(program: ExportedProgram, inputs: Sequence[str], opset: int | None) -> Any:
    from onnxscript import optimizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter itself makes deprecated calls
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(inputs[: len(program.graph_signature.user_inputs)]),
            output_names=output_names(program),
            opset_version=opset,
            verbose=False,
        )
    assert exported is not None
    # Fold all operations on weights, except casts: weights of 16 bits stay so in the file, and widen on loading.
    optimizer.fold_constants(
        exported.model,
        input_size_limit=_NO_LIMIT,
        output_size_limit=_NO_LIMIT,
        should_fold=lambda node: False if node.op_type == "Cast" else None,
    )
    optimizer.remove_unused_nodes(exported.model)
    return exported.model_proto


class OpenVinoArtifact:
    """An OpenVINO model. Its two files are written into one uncompressed zip file."""

    def __init__(self, program: ExportedProgram) -> None:
        import openvino

        self._openvino = openvino
        self.model = self._named(program, INPUTS)

    def append(self, scores: ExportedProgram, inputs: Sequence[str]) -> None:
        """See `Artifact`."""
        added = self._named(scores, inputs)
        given = {name: port.get_node().input_value(0) for port in self.model.outputs for name in port.get_names()}
        given |= {name: port for port in self.model.inputs for name in port.get_names()}
        for port in added.inputs:
            port.replace(given[port.any_name])
        self.model = self._openvino.Model(
            [*self.model.get_results(), *added.get_results()], self.model.get_parameters()
        )

    def write(self, path: Path, bundle: Bundle) -> None:
        """See `Artifact`."""
        self.model.set_rt_info(bundle.as_json(), [KEY])
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
            # Weights already have their final precision; by default, save_model would convert all of them to 16 bits.
            self._openvino.save_model(self.model, Path(folder) / XML, compress_to_fp16=False)
            xml, weights = ((Path(folder) / name).read_bytes() for name in (XML, BIN))
            with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(XML, seal_openvino(xml, weights))
                archive.writestr(BIN, weights)

    def _named(self, program: ExportedProgram, inputs: Sequence[str]) -> Any:
        model = self._openvino.convert_model(program)
        for ports, names in ((model.inputs, inputs), (model.outputs, output_names(program))):
            for port, name in zip(ports, names, strict=False):  # the last input is optional
                port.get_tensor().set_names({name})
        return model


class TorchArtifact:
    """A program of `torch.export`."""

    def __init__(self, program: ExportedProgram) -> None:
        self.model = program

    def append(self, scores: ExportedProgram, inputs: Sequence[str]) -> None:
        """See `Artifact`."""
        del inputs
        self.model = join(self.model, scores)

    def write(self, path: Path, bundle: Bundle) -> None:
        """See `Artifact`."""
        buffer = io.BytesIO()  # not into the file: torch warns if its name does not end in pt2
        torch.export.save(self.model, buffer, extra_files={KEY: bundle.as_json()})
        with zipfile.ZipFile(buffer, "a") as archive:
            seal_zip(archive)
        path.write_bytes(buffer.getbuffer())
