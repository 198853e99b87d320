"""The runs that are done: a line of JSON each, and no line twice.

::

    FOLDER/
    ├── runs.jsonl            a line for each run: what it was, its metrics, times, settings, versions
    ├── failures.jsonl        a line for each attempt that failed; the next call tries again
    ├── runs/<key>/           what is at work, what failed, and with --keep-models what is done
    ├── results.csv           mean and standard deviation beside the published figures
    ├── results.md            the same for people
    └── ap_against_masks.png  where there are bad training images
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supersimplenet.errors import ConfigError, DataError
from supersimplenet.utils.files import whole_lines

RUNS_FILE = "runs.jsonl"
FAILURES_FILE = "failures.jsonl"
# What is kept of metrics.json, detection first: by the classification head, the map's maximum, both together.
METRICS = (
    "AP-det",
    "I-AUROC",
    "seg-AP-det",
    "seg-I-AUROC",
    "fused-AP-det",
    "fused-I-AUROC",
    "AP-loc",
    "P-AUROC",
    "AUPRO",
)
Line = dict[str, Any]


def read_lines(path: Path) -> list[Line]:
    """Every whole line of a file; none where there is no file. A line that was cut off while written is no line.

    Raises:
        DataError: a line that is not what `append_line` writes.
    """
    if not path.is_file():
        return []
    lines = []
    for number, text in enumerate(whole_lines(path.read_bytes()).decode("utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
            line["key"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number}: not a run ({error!r}); remove that line and call again") from error
        lines.append(line)
    return lines


def check_settings(path: Path, lines: list[Line], settings: Mapping[str, Any]) -> None:
    """Lines of one file are of one study: the settings that all its runs share must be the same.

    Raises:
        ConfigError: they differ; names each that does, with both values.
    """
    wanted = _flat(settings)
    for line in lines:
        found = _flat(line["settings"])
        differing = [
            f"{name} {found.get(name, 'unset')} there, {wanted.get(name, 'unset')} here"
            for name in dict.fromkeys([*found, *wanted])
            if found.get(name) != wanted.get(name)
        ]
        if differing:
            raise ConfigError(
                f"{path}: holds runs with other settings: {'; '.join(differing)}; "
                "name another --output, or give the settings of those runs"
            )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``{"model": {"backbone": ...}}`` as ``{"model.backbone": ...}``."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{inner}": x for inner, x in _flat(value).items()})
        else:
            flat[name] = value
    return flat
