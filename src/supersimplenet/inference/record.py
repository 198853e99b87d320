"""config.yaml of a model folder, checked once, when it is read: who uses a key relies on its type. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from supersimplenet.datasets.supervision import SupervisionName
from supersimplenet.errors import ModelFolderError
from supersimplenet.inference.config import CONFIG_FILE, WEIGHTS_FILE
from supersimplenet.model.config import (
    COMPACT,
    LARGEST_SHIFT_PX,
    LITE0,
    NO_SHIFT,
    TIMM_LITE0,
    ModelConfig,
    Origin,
    Recipe,
    is_shift,
)
from supersimplenet.postprocessing.score_scale import ScoreScale
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.preprocessing.preprocessor import ViewConfig
from supersimplenet.preprocessing.reading import ReadConfig
from supersimplenet.types import ModelScore
from supersimplenet.utils.documents import read_yaml
from supersimplenet.utils.formatting import counted, shown_value
from supersimplenet.utils.serialization import checked, from_plain

FORMAT = 1
FEW_STEPS = 200  # expect little of a model of fewer; the demo's surfaces are learned in about 300 steps
ViewFile = Literal["roi.png", "reference.png"]
_ADVICE = "bring back the file that `train` wrote"
# Every key that is read, with its type. Other versions may write further keys, which are kept.
_TYPES: dict[str, Any] = {
    "finished": bool,
    "files": dict[str, str],
    "versions": dict[str, str],
    "model": ModelConfig,
    "map_shift_px": tuple[int, int],
    "backbone.origin": Origin,
    "backbone.sha256": str,
    "seed": int,
    "data.class_path": str,
    "data.init_args": dict[str, Any],
    "supervision": SupervisionName,
    "masks": str | list[str] | None,
    "view": ViewConfig,
    "view_files": dict[ViewFile, str],
    "reading": ReadConfig,
    "recipe": Recipe,
    "trainer": dict[str, Any],
    "trainer.holdout_fraction": float,
    "cache": dict[str, Any],
    "time_budget": str | None,
    "on_error": OnError,
    "image_score": ModelScore,
    "score_scale": ScoreScale,
    "training.list_sha256": str,
    "training.good_images": int,
    "training.bad_with_mask_images": int,
    "training.bad_without_mask_images": int,
    "training.plan": dict[str, Any],
    "training.plan.epochs": int,
    "training.plan.total_steps": int,
    "training.seconds": float,
    "training.smallest_defect": dict[str, Any] | None,
    "training.feature_type": Literal["float16", "bfloat16", "float32"],
}
_ALWAYS = ("model", "backbone.origin", "backbone.sha256")
# Missing before the training is finished, or in folders of version 0.1.
_NOT_YET = (
    "finished",
    "files",
    "training.seconds",
    "training.feature_type",
    "training.smallest_defect",
    "score_scale",
    "map_shift_px",
    "view_files",
    "reading",
)


def read_record(folder: Path) -> dict[str, Any]:
    """Read the config.yaml of a model folder.

    Returns:
        Its plain values. Each key of `_TYPES` has its type where it is there; all are there if there is ``training``.

    Raises:
        ModelFolderError: the file is missing or not as `save_model` writes it.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ModelFolderError(f"{folder}: no model here ({CONFIG_FILE} is missing); name a folder that `train` wrote")
    record = read_yaml(path, advice=_ADVICE)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, dict) else None
        raise ModelFolderError(f"{path}: format {shown_value(found)}; this version reads format {FORMAT}")
    trained = "training" in record
    for name, kind in _TYPES.items():
        holder, last = _holder(record, name, path)
        group = name.partition(".")[0]
        if last in holder:
            checked(kind, holder[last], where=str(path), name=name)
        elif name in _ALWAYS or (trained and name not in _NOT_YET) or (group == "data" and group in record):
            raise ModelFolderError(f"{path}: lacks {name}; {_ADVICE}")
    if not is_shift(map_shift_px(record)):
        wanted = f"wanted two whole numbers from 0 to {LARGEST_SHIFT_PX}"
        raise ModelFolderError(f"{path}: map_shift_px: {shown_value(record['map_shift_px'])}; {wanted}; {_ADVICE}")
    origin, backbone = record["backbone"]["origin"], record["model"].get("backbone")
    if (origin == "package") != (backbone == COMPACT) or (origin == "extra" and backbone != LITE0):
        raise ModelFolderError(f"{path}: backbone.origin does not fit model.backbone; {_ADVICE}")
    return record


def model_config(record: Mapping[str, Any], folder: Path) -> ModelConfig:
    """Return the settings of the network from a model folder's config.yaml."""
    config = from_plain(ModelConfig, record["model"], where=str(folder / CONFIG_FILE), name="model")
    if config.backbone == LITE0 and record["backbone"]["origin"] != "extra":  # before version 0.2 it was timm's model
        return replace(config, backbone=TIMM_LITE0)
    return config


def map_shift_px(record: Mapping[str, Any]) -> tuple[int, int]:
    """Return how far the anomaly map is moved back; not at all where config.yaml does not say it (version 0.1)."""
    down, right = record.get("map_shift_px", NO_SHIFT)
    return down, right


def total_steps(record: Mapping[str, Any]) -> int:
    """Return for how many steps the heads of a model were trained; 0 for a subspace alone, or where it is not known."""
    steps = record.get("training", {}).get("plan", {}).get("total_steps", 0)
    return int(steps)


def too_few_steps(steps: int) -> str | None:
    """Return a warning for a training of so few steps; None for one that is long enough, or that trains no heads."""
    if not 0 < steps < FEW_STEPS:
        return None
    return (
        f"only {counted(steps, 'step')}: expect little of this model before some {FEW_STEPS}; give it more epochs "
        "(--trainer.max_epochs), time or good images, or smaller batches (--recipe.batch_size)"
    )


def is_finished(folder: Path, record: Mapping[str, Any]) -> bool:
    """Return whether a model folder, with this config.yaml, is finished: not left by a training that was stopped."""
    # Version 0.1 wrote no `finished`, and the score scale only at the end of a training.
    finished = record.get("finished", "training" not in record or "score_scale" in record)
    return bool(finished) and (folder / WEIGHTS_FILE).is_file()


def stated_hash(record: Mapping[str, Any], name: str) -> str | None:
    """Return the SHA-256 that config.yaml states for a file of the folder; None where it states none (version 0.1)."""
    files = record.get("files")
    return files.get(name) if isinstance(files, Mapping) else None


def _holder(record: Mapping[str, Any], name: str, path: Path) -> tuple[Mapping[str, Any], str]:
    """Return the mapping in which a dotted name's last part stands; an empty one where it is not there."""
    *groups, last = name.split(".")
    for place, group in enumerate(groups, start=1):
        record = checked(dict[str, Any], record.get(group, {}), where=str(path), name=".".join(groups[:place]))
    return record, last
