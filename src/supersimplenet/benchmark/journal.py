"""Read the journal of the finished runs, which has one line of JSON for each run.

::

    FOLDER/
    ├── runs.jsonl            a line for each finished run: its key, metrics, times, settings, versions
    ├── failures.jsonl        a line for each attempt that failed; the next call tries again
    ├── runs/<key>/           current and failed runs, and with --keep-models finished ones
    ├── results.csv           mean and standard deviation beside the published figures
    ├── results.md            the same results as a page for people
    └── ap_against_masks.png  if there are bad training images
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supersimplenet.errors import ConfigError, DataError, ModelFolderError
from supersimplenet.utils.files import read_regular
from supersimplenet.utils.formatting import differences, few, shown_value
from supersimplenet.utils.journals import row_of, whole_lines
from supersimplenet.utils.serialization import checked

RUNS_FILE = "runs.jsonl"
FAILURES_FILE = "failures.jsonl"
# Metrics kept from metrics.json, detection first: by the classification head, by the anomaly map's maximum, by both,
# by the subspace and by all together.
METRICS = (
    "AP-det",
    "I-AUROC",
    "seg-AP-det",
    "seg-I-AUROC",
    "fused-AP-det",
    "fused-I-AUROC",
    "subspace-AP-det",
    "subspace-I-AUROC",
    "joint-AP-det",
    "joint-I-AUROC",
    "AP-loc",
    "P-AUROC",
    "AUPRO",
)
Line = dict[str, Any]
_NEW = {"vanishing_images"}  # not in lines of version 0.1
_LARGEST_BYTES = 1 << 28
_ADVICE = "remove that line and call again"
_TYPES: dict[str, Any] = {
    "key": str,
    "dataset": str,
    "category": str,
    "fold": int | None,
    "regime": str,
    "masks": str | None,
    "masks_from": str | None,
    "seed": int,
    "metrics": dict[str, float | None],
    "training_images": dict[str, int],
    "vanishing_images": int,
    "image_size": tuple[int, int],
    "epochs": int,
    "steps": int,
    "train_seconds": float,
    "resumed": bool,
    "test_seconds": float,
    "settings": dict[str, Any],
    "versions": dict[str, str],
}


def read_lines(path: Path) -> list[Line]:
    """Return every complete line of a file, none if there is no file. An incomplete last line is left out.

    Raises:
        DataError: a line does not have the form of a run's line.
    """
    if not path.is_file():
        return []
    try:
        content = whole_lines(read_regular(path, max_bytes=_LARGEST_BYTES))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    lines = content.splitlines(keepends=True)
    return [_line(text, f"{path}, line {number}") for number, text in enumerate(lines, start=1)]


def _line(text: bytes, where: str) -> Line:
    line = row_of(text, first="key")
    if line is None:
        raise DataError(f"{where}: not a run (damaged, or other content); {_ADVICE}")
    try:
        for name, kind in _TYPES.items():
            if name in line or name == "key":
                checked(kind, line.get(name), where=where, name=name)
    except ModelFolderError as error:
        reason = str(error).removeprefix(f"{where}: ")
        raise DataError(f"{where}: not a run ({reason}); {_ADVICE}") from error
    return line


def check_settings(path: Path, lines: list[Line], settings: Mapping[str, Any]) -> None:
    """Check that all runs in a file have the given settings, so that they belong to one benchmark.

    Raises:
        ConfigError: the settings differ; the message names each differing setting with both values.
        DataError: a run's line is not whole.
    """
    for line in lines:
        missing = [name for name in _TYPES if name not in line and name not in _NEW]
        if missing:
            raise DataError(f"{path}: the run {shown_value(line['key'])} lacks {few(missing)}; {_ADVICE}")
        if differing := differences(line["settings"], settings):
            raise ConfigError(
                f"{path}: holds runs with other settings: {'; '.join(differing)}; "
                "name another --output, or give the settings of those runs"
            )
