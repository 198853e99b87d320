"""Convert a traced network into each format, and write it as one file."""

from __future__ import annotations

import io
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.export import ExportedProgram

from supersimplenet.errors import ConfigError, ExportError
from supersimplenet.export.graph import INPUTS, OUTPUTS
from supersimplenet.runtime.backends import BIN, XML
from supersimplenet.runtime.bundle import KEY, Bundle, FileFormat
from supersimplenet.utils.formatting import first_line

_NO_LIMIT = 1 << 40


class Artifact(Protocol):
    """A network in the format of one engine.

    Attributes:
        model: the network as an object of the engine; for int8, `supersimplenet.export.export` replaces it.
    """

    model: Any

    def write(self, path: Path, bundle: Bundle) -> None:
        """Write the network and its metadata into one file."""


def convert(program: ExportedProgram, file_format: FileFormat) -> Artifact:
    """Convert a traced network into a format.

    Raises:
        ConfigError: the format's packages are not installed.
        ExportError: the format's converter fails.
    """
    makers: dict[FileFormat, type[Any]] = {"onnx": OnnxArtifact, "openvino": OpenVinoArtifact, "torch": TorchArtifact}
    try:
        return makers[file_format](program)  # type: ignore[no-any-return]
    except ImportError as error:
        raise ConfigError(
            f"format: {file_format} needs packages that are not installed ({error}); "
            f"pip install 'supersimplenet[export]'"
        ) from error
    except Exception as error:  # a converter may raise any error
        reason = first_line(error)
        raise ExportError(f"export: {file_format}'s converter cannot take this network ({reason})") from error


class OnnxArtifact:
    """An ONNX model."""

    def __init__(self, program: ExportedProgram) -> None:
        import onnx
        from onnxscript import optimizer

        self._onnx = onnx
        signature = program.graph_signature
        inputs, outputs = INPUTS[: len(signature.user_inputs)], OUTPUTS[: len(signature.user_outputs)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter itself makes deprecated calls
            exported = torch.onnx.export(
                program, dynamo=True, input_names=list(inputs), output_names=list(outputs), verbose=False
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
        self.model = exported.model_proto

    def write(self, path: Path, bundle: Bundle) -> None:
        """See `Artifact`."""
        self._onnx.helper.set_model_props(self.model, {KEY: bundle.as_json()})
        self.model.producer_name = "supersimplenet"
        with path.open("wb") as file:
            file.write(self.model.SerializeToString())


class OpenVinoArtifact:
    """An OpenVINO model. Its two files are written into one uncompressed zip file."""

    def __init__(self, program: ExportedProgram) -> None:
        import openvino

        self._openvino = openvino
        self.model = openvino.convert_model(program)
        for ports, names in ((self.model.inputs, INPUTS), (self.model.outputs, OUTPUTS)):
            for port, name in zip(ports, names, strict=False):  # the last input and the last output are optional
                port.get_tensor().set_names({name})

    def write(self, path: Path, bundle: Bundle) -> None:
        """See `Artifact`."""
        self.model.set_rt_info(bundle.as_json(), [KEY])
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
            # Weights already have their final precision; by default, save_model would convert all of them to 16 bits.
            self._openvino.save_model(self.model, Path(folder) / XML, compress_to_fp16=False)
            with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
                for name in (XML, BIN):
                    archive.write(Path(folder) / name, name)


class TorchArtifact:
    """A program of `torch.export`."""

    def __init__(self, program: ExportedProgram) -> None:
        self.model = program

    def write(self, path: Path, bundle: Bundle) -> None:
        """See `Artifact`."""
        buffer = io.BytesIO()  # not into the file: torch warns if its name does not end in pt2
        torch.export.save(self.model, buffer, extra_files={KEY: bundle.as_json()})
        path.write_bytes(buffer.getbuffer())
