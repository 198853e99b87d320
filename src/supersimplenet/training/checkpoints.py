"""Checkpoints of a training: written whole, checked before they are read, and the one before is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from supersimplenet.errors import BackboneError, ModelFolderError
from supersimplenet.model.weight_files import load_torch_file
from supersimplenet.utils.console import console
from supersimplenet.utils.files import to_disk, whole_file

CHECKPOINT = Path("checkpoints") / "last.ckpt"
PREVIOUS = CHECKPOINT.with_name("previous.ckpt")
_IDENTITY = "supersimplenet_run"
_KEYS = {"state_dict", "optimizer_states", "lr_schedulers", "loops", "epoch", "global_step"}


def run_identity(record: Mapping[str, Any]) -> str:
    """Return a hash of what decides a run: its training images, labels, view, recipe and plan.

    Args:
        record: content of the run's config.yaml.
    """
    training = {name: record["training"][name] for name in ("regime", "label_recipe", "list_sha256", "plan")}
    view = {**record["view"], "roi": None, "reference": None}  # their content is in ``view_files``
    decides = [record["seed"], record["recipe"], view, record["view_files"], training]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


class CheckpointWriter(TorchCheckpointIO):
    """Writer of checkpoints that appear whole or not at all, even if temporary files lie on another file system.

    Args:
        identity: hash of what decides the run; a checkpoint of another run is refused.
    """

    def __init__(self, identity: str) -> None:
        self._identity = identity

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write the checkpoint beside its target and rename it; the earlier one becomes ``previous.ckpt``."""
        path = Path(path)
        with whole_file(path) as temporary:
            super().save_checkpoint({**checkpoint, _IDENTITY: self._identity}, temporary, storage_options)
            to_disk(temporary)
            if path.is_file():
                path.replace(path.with_name(PREVIOUS.name))


class Usable(NamedTuple):
    """A checkpoint, and the number of epochs that were trained before it."""

    path: Path
    epochs: int


def usable_checkpoint(folder: Path, identity: str) -> Usable | None:
    """Return the newest checkpoint of a run that is not damaged; None where no checkpoint was written yet.

    Raises:
        ModelFolderError: every checkpoint is damaged, or one belongs to another run.
    """
    damaged = []
    for path in (folder / CHECKPOINT, folder / PREVIOUS):
        if not path.is_file():
            continue
        try:
            content = _read(path)
        except BackboneError as error:
            reason = str(error).removeprefix(f"{path}: ")
            damaged.append(f"{path}: {reason if reason.startswith('damaged') else f'damaged ({reason})'}")
            continue
        if content.get(_IDENTITY, identity) != identity:  # version 0.1 wrote none
            raise ModelFolderError(
                f"{path}: of another run: other training images, labels, region of interest, reference or recipe; "
                f"bring back the files of this run, or remove {path.parent} to train from the start"
            )
        if damaged:
            console().print(f"{damaged[0]}; the training continues from {path.name}")
        return Usable(path, content["epoch"] + 1)
    if damaged:
        raise ModelFolderError(
            f"{damaged[0]}, and there is no other; remove {(folder / CHECKPOINT).parent} and run the command again: "
            "the training then starts anew"
        )
    return None


def _read(path: Path) -> dict[str, Any]:
    """Read a checkpoint, after comparing the check sum of each of its parts.

    Raises:
        BackboneError: the file is damaged; the message says no remedy.
    """
    content = load_torch_file(path, advice="")
    if not isinstance(content, dict) or not content.keys() >= _KEYS:
        raise BackboneError(f"{path}: damaged (it holds no state of a training)")
    return content
