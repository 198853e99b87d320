"""The seal of an exported file: a SHA-256 of everything before it, by which a damaged file is refused.

The seal is the last thing in the file, so that it covers graph, weights and metadata but not itself, and no engine's
package is needed to find it:

- ONNX: the last bytes are one more entry of the model's metadata; protobuf reads its fields in any order.
- OpenVINO: the last line of ``model.xml`` is a comment; it covers ``model.bin`` and the XML before it, also where the
  zip is unpacked.
- torch: the comment of the zip covers the names and contents of its members.

A seal shows damage, not intent: who changes a file on purpose can seal it again. Files of version 0.1 have none.
"""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from supersimplenet.errors import ModelFolderError
from supersimplenet.utils.files import open_regular
from supersimplenet.utils.zips import blocks

RUN_AGAIN = "copy it again, or export the model again"
_KEY = b"supersimplenet.sha256"
_DIGITS = 64
# Field 14 of ModelProto (0x72), an entry whose field 1 is the key and field 2 the value; each with its length.
_ONNX_START = bytes([0x72, 4 + len(_KEY) + _DIGITS, 0x0A, len(_KEY)]) + _KEY + bytes([0x12, _DIGITS])
_XML_START, _XML_END = b"<!-- " + _KEY + b" ", b" -->\n"
_ZIP_START = _KEY + b" "
_BLOCK_BYTES = 1 << 20
# The key of each reference to a file beside an ONNX file: field 1 of an entry, its length, and the text. Protobuf
# also accepts a number with zeros in front, in bytes of 0x80.
_EXTERNAL = b"location"
_EXTERNAL_ENTRY = re.compile(rb"(\x0a|\x8a[\x80]*\x00)(\x08|\x88[\x80]*\x00)\Z")
_LONGEST_ENTRY = 20
_REACH = _LONGEST_ENTRY + len(_EXTERNAL)  # bytes on either side of a block's edge in which one may lie


def seal_onnx(content: bytes) -> bytes:
    """Return a serialised ONNX model with its seal."""
    return content + _ONNX_START + _hex(content)


def seal_openvino(xml: bytes, weights: bytes) -> bytes:
    """Return the XML of an OpenVINO model with its seal, which covers the weights too."""
    xml = xml.rstrip() + b"\n"
    return xml + _XML_START + _hex(weights, xml) + _XML_END


def seal_zip(archive: zipfile.ZipFile) -> None:
    """Seal a zip that is open for appending."""
    archive.comment = _ZIP_START + _hash_members(archive).hexdigest().encode()


def check_onnx(path: Path) -> bool:
    """Compare an ONNX file with its seal; return whether it has one.

    Raises:
        ModelFolderError: the file is damaged, cannot be read, or refers to other files.
    """
    try:
        with open_regular(path) as file:
            left = os.fstat(file.fileno()).st_size - len(_ONNX_START) - _DIGITS
            digest, end = hashlib.sha256(), b""
            while block := file.read(min(_BLOCK_BYTES, max(left, 0))):
                left -= len(block)
                digest.update(block)
                _require_no_reference(end + block[:_REACH], path)
                _require_no_reference(block, path)
                end = block[-_REACH:]
            seal = file.read()
            _require_no_reference(end + seal, path)
    except OSError as error:
        raise ModelFolderError(f"{path}: cannot be opened ({error.strerror}); check the path") from error
    if not seal.startswith(_ONNX_START):
        return False
    return _compared(digest, seal[len(_ONNX_START) :], path)


def check_openvino(xml: bytes, weights: Iterable[bytes], path: Path) -> bool:
    """Compare an OpenVINO model with its seal; return whether it has one.

    Args:
        xml: content of ``model.xml``.
        weights: content of ``model.bin``, in blocks.
        path: name of the file, for the error message.

    Raises:
        ModelFolderError: the file is damaged.
    """
    before, start, seal = xml.rpartition(_XML_START)
    if not start:
        return False
    digest = hashlib.sha256()
    for block in weights:
        digest.update(block)
    digest.update(before)
    return _compared(digest, seal.removesuffix(_XML_END), path)


def check_zip(archive: zipfile.ZipFile, path: Path) -> bool:
    """Compare the members of a zip with its seal and with their checksums; return whether there is a seal.

    Raises:
        ModelFolderError: the file is damaged.
        zipfile.BadZipFile: likewise.
    """
    digest = _hash_members(archive)
    if not archive.comment.startswith(_ZIP_START):
        return False
    return _compared(digest, archive.comment[len(_ZIP_START) :], path)


def _hash_members(archive: zipfile.ZipFile) -> Any:
    digest = hashlib.sha256()
    for info in archive.infolist():
        digest.update(f"{info.filename}\0{info.file_size}\0".encode(errors="surrogateescape"))
        for block in blocks(archive, info.filename):
            digest.update(block)
    return digest


def _compared(digest: Any, seal: bytes, path: Path) -> bool:
    if seal != digest.hexdigest().encode():
        raise ModelFolderError(f"{path}: damaged (its content is not the one that was exported); {RUN_AGAIN}")
    return True


def _hex(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode()


def _require_no_reference(content: bytes, path: Path) -> None:
    """Refuse an ONNX file some of whose weights are in other files, which the engine would read."""
    place = content.find(_EXTERNAL)
    while place >= 0:
        if _EXTERNAL_ENTRY.search(content[max(0, place - _LONGEST_ENTRY) : place]):
            raise ModelFolderError(
                f"{path}: refers to another file for its weights, which is not read; export the model as one file"
            )
        place = content.find(_EXTERNAL, place + 1)
