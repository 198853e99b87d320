"""The model that a command takes where none is named: the last one that was trained below runs/."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from supersimplenet.errors import ConfigError, ModelFolderError
from supersimplenet.inference.config import CONFIG_FILE, INSTANT
from supersimplenet.inference.record import is_finished, read_record
from supersimplenet.utils.console import console

MODEL_HELP = "the model folder; by default the last one that was trained below runs/"
_RUNS = Path("runs")
_MINUTE = "%Y-%m-%d %H:%M"


def named_or_last(model: Path | None) -> Path:
    """Return the model that was named, or the last one that was trained below runs/, whose name and date are printed.

    Raises:
        ConfigError: there is none, or two are of the same minute.
    """
    if model is not None:
        return model
    models = sorted(_finished(), key=lambda folder: _ended(folder), reverse=True)
    if not models:
        first = sorted(_RUNS.rglob(f"{INSTANT}/{CONFIG_FILE}"))
        named = [shlex.quote(str(file.parent)) for file in first[:1]]
        advice = f"; of an unfinished training the first detector is --model {named[0]}" if named else ""
        raise ConfigError(f"--model: not given, and there is no finished model below {_RUNS}/; name one{advice}")
    dates = [f"{_ended(folder):{_MINUTE}}" for folder in models[:2]]
    if len(set(dates)) < len(dates):
        names = " or ".join(f"--model {shlex.quote(str(folder))}" for folder in models[:2])
        raise ConfigError(
            f"--model: not given, and the last two models are of the same minute, {dates[0]}; say {names}"
        )
    console().print(f"model: {models[0]}, trained {dates[0]} (the last one; --model names another)")
    return models[0]


def _finished() -> Iterator[Path]:
    for file in _RUNS.rglob(CONFIG_FILE):
        folder = file.parent
        if folder.name == INSTANT and (folder.parent / CONFIG_FILE).is_file():
            continue
        try:
            if is_finished(folder, read_record(folder)):
                yield folder
        except ModelFolderError:  # something else of this name
            continue


def _ended(folder: Path) -> datetime:
    """Return when a training ended: it writes config.yaml last."""
    return datetime.fromtimestamp((folder / CONFIG_FILE).stat().st_mtime)
