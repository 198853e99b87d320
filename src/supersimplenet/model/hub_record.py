"""Recognise the hub's weights in a file that was copied from elsewhere.

A file does not say whose weights it holds, but the published noise belongs to the published ones. They are known by the
first digits of their hash, which timm states in their address, or by the fingerprint that is recorded in ``RECORD``
when weights are loaded from the hub for the first time. The record lies in the folder of the hub's client
(``HF_HOME``), and goes along where that folder is copied.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import constants

from supersimplenet.utils.files import file_sha256, read_regular
from supersimplenet.utils.journals import append_line, row_of

RECORD = Path("supersimplenet") / "backbones.jsonl"
_MAX_BYTES = 1 << 20
_STATED_DIGITS = re.compile(r"-([0-9a-f]{8,64})\.\w+$")


def record_fingerprint(name: str, fingerprint: str) -> None:
    """Record the fingerprint of weights from the hub; a folder that cannot be written to is left as it is."""
    path = Path(constants.HF_HOME) / RECORD
    if [name, fingerprint] not in _recorded(path):
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            append_line(path, {"backbone": name, "sha256": fingerprint})


def is_hub_file(name: str, file: Path, fingerprint: str) -> bool:
    """Check whether the weights of a file are those that the hub has under a name.

    Args:
        name: a timm model with its tag.
        file: the file.
        fingerprint: of the backbone that was loaded from it; see `Backbone.fingerprint`.
    """
    if [name, fingerprint] in _recorded(Path(constants.HF_HOME) / RECORD):
        return True
    settings = timm.get_pretrained_cfg(name)
    return settings is not None and has_stated_hash(file, str(settings.url))


def has_stated_hash(file: Path, address: str) -> bool:
    """Check a file's SHA-256 against the digits in an address such as ``https://…/resnet18-f37072fd.pth``."""
    stated = _STATED_DIGITS.search(address)
    return stated is not None and file_sha256(file).startswith(stated[1])


def _recorded(path: Path) -> list[list[str]]:
    """Return name and fingerprint of each line; a damaged line says nothing."""
    rows: list[dict[str, Any] | None] = []
    with suppress(OSError):
        lines = read_regular(path, max_bytes=_MAX_BYTES).splitlines(keepends=True)
        rows = [row_of(line, first="backbone") for line in lines]
    return [[row.get("backbone", ""), row.get("sha256", "")] for row in rows if row is not None]
