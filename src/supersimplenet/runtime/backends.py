"""Engines for exported files: from the bytes on the disk to map and score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from supersimplenet.errors import ConfigError, ModelFolderError
from supersimplenet.runtime.bundle import KEY, Bundle, FileFormat, read_bundle
from supersimplenet.runtime.file_kinds import BIN, XML, kind_of
from supersimplenet.runtime.openvino_model import OpenVinoModel
from supersimplenet.runtime.seal import RUN_AGAIN, check_onnx, check_openvino, check_zip
from supersimplenet.runtime.tiles import NamedOutputs, Outputs, Run
from supersimplenet.utils.files import open_regular, read_regular
from supersimplenet.utils.formatting import first_line
from supersimplenet.utils.system import available_cores, require_own_threads, worker_threads
from supersimplenet.utils.zips import opened_zip, require_plain

_LARGEST_XML_BYTES = 256 << 20


class FileBackend(Protocol):
    """A `Backend` of an exported file.

    Attributes:
        bundle: the file's metadata.
        batch_size: see `Backend`.
    """

    bundle: Bundle
    batch_size: int

    def prepare(self, size_px: tuple[int, int]) -> None:
        """Prepare for images of this size; called once, before `run`."""

    def run(self, pixels: NDArray[np.uint8], ignored: NDArray[np.bool_] | None = None) -> Outputs:
        """See `Backend`; ``ignored`` is accepted only if the file's graph is ``masked``, see `Bundle`."""

    def worker_threads(self) -> AbstractContextManager[int]:
        """See `Backend`."""

    def outputs(self, pixels: NDArray[np.uint8], ignored: NDArray[np.bool_] | None = None) -> NamedOutputs:
        """Return all outputs of the file's graph by name, as any other program would get them."""

    def version(self) -> str:
        """Return the engine's name and version."""


@dataclass
class FunctionBackend:
    """A `Backend` of any function, in the calling thread."""

    run: Run
    batch_size: int = 1

    def worker_threads(self) -> AbstractContextManager[int]:
        """See `Backend`."""
        return nullcontext(1)


def open_file(path: Path, *, threads: int | None = None, trust: bool = False) -> FileBackend:
    """Load an exported file.

    Args:
        path: exported file, as `supersimplenet export` wrote it, or the XML file of an OpenVINO pair unpacked from it.
        threads: number of threads for one image; by default the number of cores that this process may use.
        trust: open a torch program, which may run code of its author. ONNX and OpenVINO files contain no code.

    Raises:
        ModelFolderError: no such file, another kind of file, a damaged file, or a torch program that is not trusted.
        ConfigError: the engine of the file is not installed.
    """
    kinds: dict[FileFormat, Any] = {"onnx": OnnxBackend, "openvino": OpenVinoBackend, "torch": TorchBackend}
    kind = kind_of(path)
    if kind == "torch" and not trust:
        raise ModelFolderError(
            f"{path}: a torch program, which can run code when it is opened; where you trust who made it, add --trust "
            "(in Python trust=True), else ask for an ONNX or OpenVINO file"
        )
    return kinds[kind](path, threads or available_cores())  # type: ignore[no-any-return]


class OnnxBackend:
    """An ONNX file in ONNX Runtime, on the CPU.

    Args:
        path: path of the file.
        threads: number of threads for one image.
    """

    batch_size = 1

    def __init__(self, path: Path, threads: int) -> None:
        with ThreadPoolExecutor(1) as pool:  # the file is compared while the engine is imported
            sealed = pool.submit(check_onnx, path)
            self._engine = _imported("onnxruntime", "onnx")
        self._path, self._threads = path, threads
        has_seal = sealed.result()
        self._active = self._shared = self._session(threads)
        try:
            text = self._shared.get_modelmeta().custom_metadata_map.get(KEY)
        except UnicodeDecodeError as error:
            raise ModelFolderError(f"{path}: damaged metadata (no UTF-8 text); {RUN_AGAIN}") from error
        self.bundle = _bundle(text, path, "onnx", has_seal=has_seal)
        ports = (part.name for part in (*self._shared.get_inputs(), *self._shared.get_outputs()))
        _require_ports(set(ports), self.bundle, path)

    def prepare(self, size_px: tuple[int, int]) -> None:
        """Do nothing: a session accepts images of every size that the file accepts."""

    def run(self, pixels: NDArray[np.uint8], ignored: NDArray[np.bool_] | None = None) -> Outputs:
        """See `FileBackend`."""
        inputs = network_inputs(pixels, ignored, masked=self.bundle.masked)
        return run_onnx(self._active, inputs, self.bundle.network_outputs)

    def outputs(self, pixels: NDArray[np.uint8], ignored: NDArray[np.bool_] | None = None) -> NamedOutputs:
        """See `FileBackend`."""
        names = [output.name for output in self._active.get_outputs()]
        found = self._active.run(names, network_inputs(pixels, ignored, masked=self.bundle.masked))
        return dict(zip(names, found, strict=True))

    @contextmanager
    def worker_threads(self) -> Iterator[int]:
        """See `Backend`."""
        self._active = self._single
        try:
            yield self._threads
        finally:
            self._active = self._shared

    def version(self) -> str:
        """See `FileBackend`."""
        return f"onnxruntime {self._engine.__version__}"

    @cached_property
    def _single(self) -> Any:
        """Session that computes an image in the calling thread: threads that share one session wait for each other."""
        return self._shared if self._threads == 1 else self._session(1)

    def _session(self, threads: int) -> Any:
        try:
            return onnx_session(str(self._path), threads=threads)
        except Exception as error:  # the engine's own errors have no other common base class
            raise ModelFolderError(f"{self._path}: not readable as ONNX ({first_line(error)}); {RUN_AGAIN}") from error


class OpenVinoBackend:
    """OpenVINO's pair of files in a zip, or the pair itself, compiled on the CPU.

    Args:
        path: path of the file.
        threads: number of threads for one image.
    """

    batch_size = 1

    def __init__(self, path: Path, threads: int) -> None:
        self._engine = _imported("openvino", "openvino")
        self._path, self._threads = path, threads
        self._core = self._engine.Core()
        xml, weights, has_seal = _openvino_pair(path) if path.suffix == ".xml" else _openvino_zip(path)
        with self._named_errors():
            self._model = self._core.read_model(xml, weights)
            text = self._model.get_rt_info([KEY]).astype(str) if self._model.has_rt_info([KEY]) else None
            ports = {name for port in (*self._model.inputs, *self._model.outputs) for name in port.get_names()}
        self.bundle = _bundle(text, path, "openvino", has_seal=has_seal)
        _require_ports(ports, self.bundle, path)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # the engine's own errors have no other common base class
            raise ModelFolderError(
                f"{self._path}: not readable as OpenVINO's IR ({first_line(error)}); {RUN_AGAIN}"
            ) from error

    def prepare(self, size_px: tuple[int, int]) -> None:
        """Compile for one image of this size."""
        shapes = {"image": [1, *size_px, 3], "ignored": [1, *size_px]}
        with self._named_errors():
            self._model.reshape({name: shapes[name] for name in ("image", "ignored")[: len(self._model.inputs)]})
        precision = "bf16" if self.bundle.precision == "bf16" else "f32"
        self._compiled = OpenVinoModel(
            self._core, self._model, precision=precision, threads=self._threads, names=self.bundle.network_outputs
        )

    def run(self, pixels: NDArray[np.uint8], ignored: NDArray[np.bool_] | None = None) -> Outputs:
        """See `FileBackend`."""
        return self._compiled.run(network_inputs(pixels, ignored, masked=self.bundle.masked))

    def outputs(self, pixels: NDArray[np.uint8], ignored: NDArray[np.bool_] | None = None) -> NamedOutputs:
        """See `FileBackend`."""
        # A tensor may have further names, which the converter gave it.
        return self._compiled.outputs(network_inputs(pixels, ignored, masked=self.bundle.masked), self.bundle.outputs)

    def worker_threads(self) -> AbstractContextManager[int]:
        """See `Backend`."""
        return self._compiled.worker_threads()

    def version(self) -> str:
        """See `FileBackend`."""
        return f"openvino {self._engine.__version__}"


class TorchBackend:
    """A program of `torch.export`, on the CPU. Opening it may run code of its author: see `open_file`.

    Args:
        path: path of the file.
        threads: number of torch's threads, for one image.
    """

    batch_size = 1

    def __init__(self, path: Path, threads: int) -> None:
        self._engine = _imported("torch", "train")
        self._engine.set_num_threads(threads)
        require_own_threads()
        extra = {KEY: ""}
        with opened_zip(path, advice=RUN_AGAIN) as archive:
            require_plain(archive, path.stat().st_size)
            has_seal = check_zip(archive, path)
        try:
            program = self._engine.export.load(str(path), extra_files=extra)
        except Exception as error:
            raise ModelFolderError(
                f"{path}: not readable as torch's program ({first_line(error)}); {RUN_AGAIN}"
            ) from error
        self.bundle = _bundle(extra[KEY] or None, path, "torch", has_seal=has_seal)
        self._module = program.module()

    def prepare(self, size_px: tuple[int, int]) -> None:
        """Do nothing: the program accepts images of every size that the file accepts."""

    def run(self, pixels: NDArray[np.uint8], ignored: NDArray[np.bool_] | None = None) -> Outputs:
        """See `FileBackend`."""
        found = self.outputs(pixels, ignored)
        return Outputs(**{name: found[own] for name, own in self.bundle.network_outputs.items()})

    def outputs(self, pixels: NDArray[np.uint8], ignored: NDArray[np.bool_] | None = None) -> NamedOutputs:
        """See `FileBackend`."""
        require_own_threads()
        with self._engine.inference_mode():
            inputs = network_inputs(pixels, ignored, masked=self.bundle.masked).values()
            found = self._module(*map(self._engine.from_numpy, inputs))
        if isinstance(found, tuple):  # of version 0.1, without names
            found = dict(zip(("score", "map", "defects"), found, strict=False))
        return {name: values.numpy() for name, values in found.items()}

    def worker_threads(self) -> AbstractContextManager[int]:
        """See `Backend`."""
        return worker_threads(self._engine.device("cpu"))

    def version(self) -> str:
        """See `FileBackend`."""
        return f"torch {self._engine.__version__}"


def onnx_session(model: str | bytes, *, threads: int | None = None) -> Any:
    """Return an ONNX Runtime session on the CPU, for a file or its bytes.

    Args:
        model: the file's path, or its content.
        threads: number of threads for one image; None leaves the choice to the engine.
    """
    engine = _imported("onnxruntime", "onnx")
    options = engine.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only, which are also raised
    return engine.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_onnx(session: Any, inputs: dict[str, NDArray[np.uint8]], names: Mapping[str, str]) -> Outputs:
    """Run a session; ``names`` are those of the network's outputs in it, by their names in `Outputs`."""
    found = session.run(list(names.values()), inputs)
    return Outputs(**dict(zip(names, found, strict=True)))


def network_inputs(
    pixels: NDArray[np.uint8], ignored: NDArray[np.bool_] | None, *, masked: bool
) -> dict[str, NDArray[np.uint8]]:
    """Return the inputs of a graph by name, in the graph's order.

    Raises:
        ConfigError: pixels are to be ignored, and the graph has no input for ignored pixels.
    """
    inputs = {"image": np.ascontiguousarray(pixels)}
    if masked:
        nothing = np.zeros(pixels.shape[:3], dtype=np.uint8)
        inputs["ignored"] = nothing if ignored is None else np.ascontiguousarray(ignored, dtype=np.uint8)
    elif ignored is not None:
        raise ConfigError("ignored: this exported network has no input for ignored pixels; use the model folder")
    return inputs


def _bundle(text: str | None, path: Path, engine: FileFormat, *, has_seal: bool) -> Bundle:
    """Parse the metadata of a file that was opened by an engine, and whose seal was compared.

    Raises:
        ModelFolderError: the metadata are damaged or for another engine, or the file should have a seal.
    """
    bundle = read_bundle(text, where=str(path))
    if bundle.engine != engine:
        raise ModelFolderError(
            f"{path}: its metadata are for {bundle.engine}, its content is for {engine}; {RUN_AGAIN}"
        )
    if bundle.sealed and not has_seal:
        raise ModelFolderError(f"{path}: damaged (its end is missing); {RUN_AGAIN}")
    return bundle


def _require_ports(names: set[str], bundle: Bundle, path: Path) -> None:
    """Refuse a graph without the inputs and outputs by which it is run."""
    wanted = ("image", *(["ignored"] if bundle.masked else []), *bundle.network_outputs.values())
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ModelFolderError(f"{path}: its graph has no {' and no '.join(missing)}; {RUN_AGAIN}")


def _openvino_zip(path: Path) -> tuple[bytes, bytes, bool]:
    """Return XML, weights, and whether they are sealed."""
    with opened_zip(path, advice=RUN_AGAIN) as archive:
        require_plain(archive, path.stat().st_size)
        xml, weights = archive.read(XML), archive.read(BIN)  # compares the checksums
        return xml, weights, check_openvino(xml, [weights], path)


def _openvino_pair(path: Path) -> tuple[Path, Path, bool]:
    """Return the names of the pair's files, and whether they are sealed."""
    weights = path.with_suffix(".bin")
    try:
        xml = read_regular(path, max_bytes=_LARGEST_XML_BYTES)
        with open_regular(weights) as file:
            return path, weights, check_openvino(xml, iter(lambda: file.read(1 << 20), b""), path)
    except OSError as error:
        raise ModelFolderError(f"{path}: its pair cannot be read ({error.strerror}); {RUN_AGAIN}") from error


def _imported(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{module}: not installed, and this file needs it; pip install 'supersimplenet[{extra}]' ({error})"
        ) from error
