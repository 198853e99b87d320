"""Read files of weights: tensors only, never objects; nothing is allocated that is larger than the file."""

from __future__ import annotations

import os
import pickle
import pickletools
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from supersimplenet.errors import BackboneError
from supersimplenet.utils.files import open_regular
from supersimplenet.utils.formatting import few, first_line, shown_value
from supersimplenet.utils.zips import blocks, opened_zip, require_plain

Shapes = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
_LARGEST_HEADER_BYTES = 16 << 20  # of safetensors; one of 1,000 tensors has 0.1 MB
_LARGEST_FILE_BYTES = 16 << 30
_MOST_OPERATIONS = 1_000_000  # of a pickle; one of 1,000 tensors has some 30,000
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "BOOL": torch.bool,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
}
# What a state dict needs. torch's own list also has functions that allocate as much as a number in the file says.
_NEEDED = re.compile(
    r"torch (\w+Storage|Size|device|b?float\d+|u?int\d+|bool)|torch\.storage (Untyped|Typed)Storage"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|parameter)|torch\.nn\.parameter Parameter"
    r"|collections (OrderedDict|defaultdict|Counter)|_codecs encode|(builtins|__builtin__) (set|dict|list|int)"
)
_ADVICE = "give a safetensors file or a state dict saved by torch.save"


class WeightsError(Exception):
    """A file of weights is damaged, or does not fit; the message names the file and the cause, not the remedy."""


class _RefusedError(Exception):
    """A pickle holds something else than a state dict does; the message names it."""


def read_shapes(path: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Return shape and type of each tensor of a safetensors file, from its header.

    Raises:
        WeightsError: the file cannot be read, or is damaged.
    """
    try:
        with open_regular(path) as file:
            start = file.read(8)
        if len(start) < 8:
            raise WeightsError(f"{path}: damaged ({len(start)} bytes)")
        length = struct.unpack("<Q", start)[0]
        if length > _LARGEST_HEADER_BYTES:
            raise WeightsError(
                f"{path}: damaged (a header of {length:,} bytes; at most {_LARGEST_HEADER_BYTES:,} are read)"
            )
        shapes = {}
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # no mapping
                part = file.get_slice(name)
                kind = part.get_dtype()
                if kind not in _DTYPES:
                    raise WeightsError(f"{path}: '{name}' is of the type {kind}, which is not read")
                shapes[name] = (tuple(part.get_shape()), _DTYPES[kind])
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from error
    except SafetensorError as error:
        raise WeightsError(f"{path}: damaged ({first_line(error)})") from error
    return shapes


def require_fit(shapes: Shapes, wanted: Mapping[str, Tensor], where: str, *, others: bool = False) -> None:
    """Refuse tensors that are not those of a network, by their names, shapes and types.

    Args:
        shapes: of the file.
        wanted: the network's own tensors; may be on the device ``meta``.
        where: start of the error's message.
        others: whether the file may hold more tensors.

    Raises:
        WeightsError: a tensor is missing, unknown, or has another shape or type.
    """
    missing = [name for name in wanted if name not in shapes]
    unknown = [] if others else [shown_value(name) for name in shapes if name not in wanted]
    if missing or unknown:
        lacks = f"lacks {few(missing)}" if missing else ""
        more = f"has {few(unknown)}, which the network has not" if unknown else ""
        raise WeightsError(f"{where}: {'; '.join(filter(None, (lacks, more)))}")
    for name, tensor in wanted.items():
        shape, dtype = shapes[name]
        if shape != tuple(tensor.shape) or dtype != tensor.dtype:
            raise WeightsError(
                f"{where}: '{name}' is {_shown(shape, dtype)}, the network needs {_shown(tensor.shape, tensor.dtype)}"
            )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors by name from a safetensors or torch file, without executing anything in it.

    Raises:
        BackboneError: the file is missing, has neither format, or holds anything other than tensors by name.
    """
    if not path.is_file():
        raise BackboneError(f"{path}: no such file; {_ADVICE}")
    if path.suffix == ".safetensors":
        try:
            read_shapes(path)
        except WeightsError as error:
            raise BackboneError(f"{error}; {_ADVICE}") from error
        return load_file(path)
    content = load_torch_file(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    named = isinstance(content, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )
    if not named:
        raise BackboneError(f"{path}: wanted a state dict, tensors by name; found {type(content).__name__}")
    return content  # type: ignore[no-any-return]


def load_torch_file(path: Path, *, advice: str = _ADVICE) -> Any:
    """Load a file of torch.save that holds tensors and plain values, after a check of the sizes that it declares.

    Tensors of the present format (a zip) stay on the disk until they are used.

    Args:
        path: the file.
        advice: what to do about a file that is damaged; empty where the caller says it.

    Raises:
        BackboneError: the file is damaged, or holds anything else.
    """
    remedy = f"; {advice}" if advice else ""
    try:
        is_zip = check_torch_file(path, advice)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except BackboneError:
        raise
    except OSError as error:
        raise BackboneError(f"{path}: cannot be read ({error.strerror or first_line(error)}){remedy}") from error
    except Exception as error:  # torch passes on every error of its unpickler
        raise BackboneError(
            f"{path}: holds something else than tensors, and objects are never unpickled here ({first_line(error)})"
            + ("; save its state dict alone: torch.save(model.state_dict(), ...)" if advice else "")
        ) from error


def check_torch_file(path: Path, advice: str) -> bool:
    """Check that a file of torch.save needs no more memory than it has bytes; return whether it is a zip.

    Raises:
        BackboneError: a zip is damaged or compressed, or the file is too large.
        OSError: the file cannot be read.
        Exception: the file holds no such pickle.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _LARGEST_FILE_BYTES:
            raise BackboneError(
                f"{path}: {size:,} bytes; at most {_LARGEST_FILE_BYTES:,} are read{'; ' if advice else ''}{advice}"
            )
        is_zip = file.read(2) == b"PK"
        if not is_zip:
            file.seek(0)
            for _ in range(4):  # magic number, version, description of the machine, and the values
                declared = sum(_numbers(file, strict=True))
            if declared > 4 * size:  # of each tensor at most: its number of values, its shape and its strides
                raise _RefusedError(f"it declares more values than its {size:,} bytes can hold")
            return False
    with opened_zip(path, advice=advice, error=BackboneError) as archive:
        require_plain(archive, size)
        for name in archive.namelist():
            for _ in blocks(archive, name):  # compares the checksum, which torch does not do for mapped files
                pass
        for name in archive.namelist():
            if name.endswith(".pkl"):
                with archive.open(name) as member:
                    for _ in _numbers(member):
                        pass
    return True


def _numbers(file: IO[bytes], *, strict: bool = False) -> Iterator[int]:
    """Yield each number of a pickle, up to its end.

    Args:
        file: at the pickle's start.
        strict: refuse numbers that are used again without being written again.

    Raises:
        _RefusedError: the pickle needs a function or class that a state dict does not need.
        ValueError: this is no pickle.
    """
    before: int | None = None
    for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
        if count > _MOST_OPERATIONS:
            raise _RefusedError(f"more than {_MOST_OPERATIONS:,} operations")
        name = operation.name
        if name == "GLOBAL" and not _NEEDED.fullmatch(str(argument)):
            raise _RefusedError(f"it asks for {shown_value(argument)}")
        if name == "PROTO" and int(argument or 0) > pickle.HIGHEST_PROTOCOL:
            raise _RefusedError(f"version {argument} of the format")
        if name in ("INST", "STACK_GLOBAL", "DUP"):
            raise _RefusedError(f"the operation {name}")
        if strict and name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE") and before is not None:
            raise _RefusedError("a number that is used again")
        marks = "PUT" in name or "GET" in name or name in ("PROTO", "FRAME")
        before = argument if isinstance(argument, int) and not marks else None
        if before is not None:
            yield abs(before)


def _shown(shape: tuple[int, ...], dtype: torch.dtype) -> str:
    return f"{tuple(shape)} {str(dtype).removeprefix('torch.')}"
