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

from supersimplenet.errors import ConfigError, DataError
from supersimplenet.utils.formatting import differences
from supersimplenet.utils.journals import row_of, whole_lines

RUNS_FILE = "runs.jsonl"
FAILURES_FILE = "failures.jsonl"
# Metrics kept from metrics.json, detection first: by the classification head, by the anomaly map's maximum, by both.
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
    """Return every complete line of a file, none if there is no file. An incomplete last line is left out.

    Raises:
        DataError: a line does not have the form of a run's line.
    """
    if not path.is_file():
        return []
    lines = []
    for number, text in enumerate(whole_lines(path.read_bytes()).splitlines(keepends=True), start=1):
        line = row_of(text, first="key")
        if line is None:
            raise DataError(
                f"{path}, line {number}: not a run (damaged, or other content); remove that line and call again"
            )
        lines.append(line)
    return lines


def check_settings(path: Path, lines: list[Line], settings: Mapping[str, Any]) -> None:
    """Check that all runs in a file have the given settings, so that they belong to one benchmark.

    Raises:
        ConfigError: the settings differ; the message names each differing setting with both values.
    """
    for line in lines:
        if differing := differences(line["settings"], settings):
            raise ConfigError(
                f"{path}: holds runs with other settings: {'; '.join(differing)}; "
                "name another --output, or give the settings of those runs"
            )
