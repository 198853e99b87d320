"""Which engine an exported file is for: its content decides, and its name must not say otherwise."""

from __future__ import annotations

from pathlib import Path

from supersimplenet.errors import ConfigError, ModelFolderError
from supersimplenet.runtime.bundle import FileFormat
from supersimplenet.runtime.seal import RUN_AGAIN
from supersimplenet.utils.files import open_regular
from supersimplenet.utils.zips import opened_zip

XML, BIN = "model.xml", "model.bin"  # names of OpenVINO's pair of files in one uncompressed zip
_ONNX_FIRST_FIELD = b"\x08"  # ir_version, a number: every ONNX file begins with it
# Suffixes that name a format; for any other file name, the content alone decides.
_SUFFIXES: dict[str, FileFormat] = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch", ".pt": "torch"}


def kind_of(path: Path) -> FileFormat:
    """Return the engine that a file is for, from its content; its suffix must not name another engine.

    Raises:
        ModelFolderError: the file is for no engine, or for another engine than its suffix names.
    """
    kind = _kind_of_content(path)
    named = _SUFFIXES.get(path.suffix.lower(), kind)
    if named != kind:
        raise ModelFolderError(
            f"{path}: named as a file for {named}, but its content is for {kind}; do not use it unless you know why"
        )
    return kind


def require_suffix(path: Path, file_format: FileFormat) -> None:
    """Refuse a file name whose suffix names another format.

    Raises:
        ConfigError: the suffix names another format.
    """
    named = _SUFFIXES.get(path.suffix.lower(), file_format)
    if named != file_format:
        raise ConfigError(f"output: {path.name} is named as a file for {named}, the format is {file_format}; rename it")


def _kind_of_content(path: Path) -> FileFormat:
    if path.is_dir():
        raise ModelFolderError(f"{path}: a folder; wanted a file that `supersimplenet export` wrote")
    try:
        with open_regular(path) as file:
            start = file.read(64)
    except OSError as error:
        raise ModelFolderError(f"{path}: cannot be opened ({error.strerror}); check the path") from error
    if start.startswith(b"PK"):
        with opened_zip(path, advice=RUN_AGAIN) as archive:
            names = sorted(archive.namelist())
        if names == [BIN, XML]:  # these two, each once, and nothing else
            return "openvino"
        if any(name.endswith("archive_format") for name in names):
            return "torch"
    elif path.suffix == ".xml" and start.startswith(b"<?xml"):
        return "openvino"
    elif start.startswith(_ONNX_FIRST_FIELD):
        return "onnx"
    raise ModelFolderError(f"{path}: no exported model; wanted a file that `supersimplenet export` wrote")
