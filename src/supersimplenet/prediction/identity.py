"""Identity of a prediction run: everything that decides its rows. A run is continued only by one with the same."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from supersimplenet.errors import OutputError
from supersimplenet.inference.config import CALIBRATION_FILE, CONFIG_FILE, REFERENCE_FILE, ROI_FILE, WEIGHTS_FILE
from supersimplenet.runtime.predictor import SupportsPredict
from supersimplenet.types import OverlayStyle
from supersimplenet.utils.documents import read_json
from supersimplenet.utils.files import file_sha256, write_text
from supersimplenet.utils.formatting import differences
from supersimplenet.utils.version import __version__

IDENTITY = "predictions.partial.json"
_MODEL_FILES = (WEIGHTS_FILE, CONFIG_FILE, CALIBRATION_FILE, ROI_FILE, REFERENCE_FILE)


def run_identity(
    detector: SupportsPredict,
    model: Path,
    *,
    batch_size: int,
    overlays: bool,
    overlay_style: OverlayStyle = "heat",
    group_pattern: str | None,
    watched: str | None,
) -> dict[str, Any]:
    """Return the identity of a run in plain values: content of the model, computation, options and package version."""
    files = [model] if model.is_file() else [model / name for name in _MODEL_FILES]
    return {
        "supersimplenet": __version__,
        "model": {path.name: file_sha256(path)[:16] for path in files if path.is_file()},
        "computation": detector.computed_by,
        "batch_size": batch_size,
        "overlays": "outline" if overlays and overlay_style == "outline" else overlays,
        "list_all": detector.list_all,
        "group_pattern": group_pattern,
        "watched": watched,
    }


def check_identity(journal: Path, identity: dict[str, Any], *, model: Path) -> None:
    """Check that an interrupted run in the journal's folder has this identity; write the identity for the next run.

    Raises:
        OutputError: the folder holds another run, which the message tells apart, or its identity is lost.
    """
    folder, path = journal.parent, journal.with_name(IDENTITY)
    if journal.is_file() and journal.stat().st_size:
        earlier = _read(path, journal)
        watched = identity["watched"]
        if earlier.get("watched") != watched:
            kind = "images" if earlier.get("watched") is None else f"the watched folder {earlier['watched']}"
            raise OutputError(f"{folder}: holds a run over {kind}; continue that one, or choose another --output")
        mine = identity if "supersimplenet" in earlier else _identity_of_0_1(identity, model)
        if differing := differences(earlier, mine):
            raise OutputError(
                f"{folder}: holds an interrupted run of another model or calibration, or with other options: "
                f"{'; '.join(differing)}; continue that one, choose another --output, or remove {path.name} and "
                f"{journal.name}"
            )
    write_text(path, json.dumps(identity))


def _read(path: Path, journal: Path) -> dict[str, Any]:
    with suppress(OutputError):
        earlier = read_json(path, advice="", error=OutputError)
        if isinstance(earlier, dict):
            return earlier
    reason = "damaged" if path.exists() else "missing"
    raise OutputError(
        f"{path}: {reason}, so the model of the interrupted run is not known; choose another --output, or remove "
        f"{path.name} and {journal.name}"
    )


def _identity_of_0_1(identity: dict[str, Any], model: Path) -> dict[str, Any]:
    """Return the identity that version 0.1 wrote: name, size and time of the model's files."""
    files = [path for path in (model, model / WEIGHTS_FILE, model / CALIBRATION_FILE) if path.is_file()]
    stats = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    of_then = {"files": stats, "overlays": identity["overlays"], "watched": identity["watched"]}
    return of_then | ({"list_all": True} if identity["list_all"] else {})
