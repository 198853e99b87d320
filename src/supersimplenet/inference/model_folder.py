"""A trained model as a folder: weights as tensors only, everything else as plain YAML. Loading executes no code.

::

    runs/bottle/
    ├── model.safetensors   heads and subspace, and the backbone if it cannot be loaded again by its name
    ├── instant/            model folder of the training's first seconds: the subspace alone
    ├── config.yaml         architecture, recipe, data, seed, versions, hash of the training list
    ├── calibration.yaml    thresholds and what they guarantee; written by `train` and `supersimplenet calibrate`
    ├── roi.png             region of interest, if there is one
    ├── reference.png       the image with which other images are aligned, if they are
    ├── metrics.json        written by `supersimplenet test`
    ├── checkpoints/        the last state of the training, for --resume
    └── logs/               losses: CSV, TensorBoard, or what trainer.logger names
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save
from torch import nn

from supersimplenet.errors import ModelFolderError
from supersimplenet.inference.config import CALIBRATION_FILE, CONFIG_FILE, REFERENCE_FILE, ROI_FILE, WEIGHTS_FILE
from supersimplenet.inference.record import FORMAT, is_finished, map_shift_px, model_config, read_record, stated_hash
from supersimplenet.model.backbone import build_backbone, wrap_module
from supersimplenet.model.config import ModelConfig
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.model.subspace import Subspace
from supersimplenet.model.weight_files import Shapes, WeightsError, read_shapes, require_fit
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.preprocessing.images import read_image, read_mask
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig
from supersimplenet.preprocessing.reading import ReadConfig
from supersimplenet.utils.documents import read_yaml
from supersimplenet.utils.files import file_sha256, whole_file, write_text
from supersimplenet.utils.formatting import shown_value
from supersimplenet.utils.serialization import from_plain, to_plain

_LARGEST_STRIDE = 1 << 10
_VERSIONED = ("supersimplenet", "torch", "torchvision", "timm", "lightning", "numpy", "pillow", "simplejpeg")
Module = TypeVar("Module", bound=nn.Module)


def save_model(folder: Path, network: SuperSimpleNet, record: Mapping[str, Any]) -> None:
    """Write weights, then config.yaml, which makes the folder a finished model.

    Args:
        folder: the model folder; created if needed.
        network: the trained network.
        record: further content of config.yaml, in plain values.

    Raises:
        ModelFolderError: a weight is not finite.
    """
    files = {WEIGHTS_FILE: save_weights(folder, network)}
    write_yaml(folder / CONFIG_FILE, describe_model(network, record, files=files))


def save_weights(folder: Path, network: SuperSimpleNet) -> str:
    """Write the weights into a model folder; return the SHA-256 of the file.

    Raises:
        ModelFolderError: a weight is not finite.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in _kept(network).items()}
    _require_finite(tensors, str(folder), "train again, with smaller learning rates if it happens again")
    content = save(tensors)
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / WEIGHTS_FILE) as temporary:
        temporary.write_bytes(content)  # a file written by safetensors itself is readable by its owner only
    return hashlib.sha256(content).hexdigest()


def _kept(network: SuperSimpleNet) -> dict[str, torch.Tensor]:
    """Return the tensors that a model folder holds: all but those of a backbone that its name alone brings back."""
    left_out = "backbone." if network.backbone.refetchable else None
    return {
        name: value for name, value in network.state_dict().items() if left_out is None or not name.startswith(left_out)
    }


def describe_model(
    network: SuperSimpleNet, record: Mapping[str, Any], *, files: Mapping[str, str] | None
) -> dict[str, Any]:
    """Return the content of config.yaml: the settings of the network, versions, and ``record``.

    Args:
        network: the network.
        record: further content, in plain values.
        files: SHA-256 of the files that belong to the finished model; None for a training that has just begun.
    """
    backbone = network.backbone
    return {
        "format": FORMAT,
        "finished": files is not None,
        "files": dict(files or {}),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _VERSIONED}},
        "model": to_plain(network.config),
        "map_shift_px": list(network.map_shift_px),
        "backbone": {
            "origin": backbone.origin,
            "sha256": backbone.fingerprint(),
            "mean": backbone.mean.flatten().tolist(),
            "std": backbone.std.flatten().tolist(),
        },
        **record,
    }


def load_model(folder: Path, *, backbone: nn.Module | None = None) -> tuple[SuperSimpleNet, dict[str, Any]]:
    """Load the network of a model folder, in eval mode on the CPU, and its config.yaml.

    Args:
        folder: the model folder, as `save_model` wrote it.
        backbone: the module that the model was trained with, if it was the user's own module; otherwise None.

    Raises:
        ModelFolderError: a file is missing or damaged, or the backbone's weights are not those of the training.
        BackboneError: the backbone's weights cannot be loaded.
    """
    record = read_record(folder)
    if not is_finished(folder, record):
        lacks = "" if (folder / WEIGHTS_FILE).is_file() else f" but no {WEIGHTS_FILE}"
        raise ModelFolderError(
            f"{folder}: has {CONFIG_FILE}{lacks}: its training was not finished; "
            f"continue it with `supersimplenet train --resume --output {folder}`"
        )
    config = model_config(record, folder)
    origin = record["backbone"]["origin"]
    if origin == "module" and backbone is None:
        raise ModelFolderError(
            f"{folder}: trained with a backbone module of your own, which a file cannot hold; "
            "pass it: Detector.load(folder, backbone=module)"
        )
    if origin != "module" and backbone is not None:
        raise ModelFolderError(f"{folder}: brings its own backbone '{config.backbone}'; leave out backbone=")
    weights = folder / WEIGHTS_FILE
    stated = stated_hash(record, WEIGHTS_FILE)
    if stated is not None and hash_weights(folder) != stated:
        raise ModelFolderError(
            f"{weights}: not the weights that {CONFIG_FILE} describes, or damaged; copy the whole folder "
            "again, or train again"
        )
    try:
        shapes = read_shapes(weights)
        if origin == "file":  # before it is built: the file must hold a network as large as the config names
            with torch.device("meta"):
                skeleton = build_backbone(config, with_weights=False)
            own = {f"backbone.{name}": value for name, value in skeleton.state_dict().items()}
            require_fit(shapes, own, f"{weights}: does not fit its {CONFIG_FILE}", others=True)
        if backbone is None:
            built = build_backbone(config, with_weights=origin in ("package", "hub"))
        else:
            built = wrap_module(backbone, config.size_px)
        network = SuperSimpleNet(config, backbone=built, heads=_has_heads(record))
        network.subspace = _room_for_subspace(network, shapes, weights)
        require_fit(shapes, _kept(network), f"{weights}: does not fit its {CONFIG_FILE}")
    except WeightsError as error:
        raise ModelFolderError(f"{error}; copy the folder again, or train the model again") from error
    tensors = load_file(weights)
    _require_finite(tensors, str(weights), "copy the file again, or train again")
    network.load_state_dict(tensors, strict=False)  # a backbone that was loaded by its name is not in the file
    _require_strides(network, weights)
    if built.fingerprint() != record["backbone"]["sha256"]:
        raise ModelFolderError(
            f"{folder}: the weights of backbone '{config.backbone}' are not those of the training "
            f"(sha256 {built.fingerprint()[:12]}…, trained with {record['backbone']['sha256'][:12]}…); "
            "scores would be wrong; bring back the old weights or train again"
        )
    network.map_shift_px = map_shift_px(record)
    return network.eval(), record


def _has_heads(record: Mapping[str, Any]) -> bool:
    """Return whether a model has heads: not where its training was to train none (``--trainer.max_epochs 0``)."""
    plan = record.get("training", {}).get("plan", {})
    return not (isinstance(plan, Mapping) and plan.get("epochs") == 0)


def _room_for_subspace(network: SuperSimpleNet, shapes: Shapes, weights: Path) -> Subspace | None:
    """Return an empty subspace of the size that a file of weights has; None where it has none, as in version 0.1.

    Raises:
        WeightsError: it has none, and the model has no heads either.
    """
    if not any(name.startswith("subspace.") for name in shapes):
        if network.heads is None:
            raise WeightsError(f"{weights}: holds neither heads nor a subspace")
        return None
    channels = sum(network.backbone.channels)
    shape, _ = shapes.get("subspace.complement", ((channels, 1), None))
    directions = shape[1] if len(shape) == 2 and 1 <= shape[1] <= channels else 1
    return Subspace(
        torch.zeros(channels),
        torch.zeros(channels, directions),
        torch.ones(len(network.backbone.channels), dtype=torch.int64),
    )


def _require_strides(network: SuperSimpleNet, weights: Path) -> None:
    """Take over the strides that the weights of the subspace have.

    Raises:
        ModelFolderError: they are not those of feature maps.
    """
    if network.subspace is None:
        return
    strides = network.subspace.stride.tolist()
    if not (strides[0] >= 1 and strides == sorted(strides) and strides[-1] <= _LARGEST_STRIDE):
        raise ModelFolderError(
            f"{weights}: strides of the subspace {shown_value(strides)}; wanted whole numbers above 0, ascending; copy "
            "the folder again, or train the model again"
        )
    network.subspace.strides = strides


def _require_finite(tensors: Mapping[str, torch.Tensor], where: str, advice: str) -> None:
    """Refuse weights that are not finite, because every score would be meaningless.

    Raises:
        ModelFolderError: a weight is NaN or infinite.
    """
    for name, values in tensors.items():
        if values.is_floating_point() and not values.isfinite().all():
            raise ModelFolderError(f"{where}: the weights {name} are not all finite; {advice}")


def save_preprocessor(folder: Path, preprocessor: Preprocessor) -> dict[str, str]:
    """Write the region of interest and the reference image into a model folder, which then needs no other file.

    Returns:
        SHA-256 of each file, for config.yaml (``view_files``).
    """
    images = {
        ROI_FILE: None if preprocessor.roi is None else preprocessor.roi.astype(np.uint8) * np.uint8(255),
        REFERENCE_FILE: None if preprocessor.aligner is None else preprocessor.aligner.reference,
    }
    hashes = {}
    for name, pixels in images.items():
        if pixels is None:
            continue
        with whole_file(folder / name) as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG")
        hashes[name] = file_sha256(folder / name)
    return hashes


def load_preprocessor(folder: Path, record: Mapping[str, Any], model: ModelConfig) -> Preprocessor:
    """Load the preprocessor that a model was trained with.

    Args:
        folder: the model folder.
        record: its config.yaml; if it describes no preprocessor, images are read over their full range and resized.
        model: settings of the network.

    Raises:
        ModelFolderError: a file of the preprocessor is missing, or differs from the file of the training.
        ConfigError: OpenCV is not installed, and images are to be aligned.
    """
    config = from_plain(ViewConfig, record.get("view", {}), where=str(folder / CONFIG_FILE), name="view")
    hashes = record.get("view_files", {})
    for name, wanted in (("roi", config.roi), ("reference", config.reference)):
        if (wanted is not None) != (f"{name}.png" in hashes):
            raise ModelFolderError(
                f"{folder / CONFIG_FILE}: view.{name} and view_files do not fit; bring back the file"
            )
    for name, sha256 in hashes.items():
        if not (folder / name).is_file():
            raise ModelFolderError(f"{folder}: {name} is missing, by which it was trained; bring it back")
        if file_sha256(folder / name) != sha256:
            raise ModelFolderError(
                f"{folder / name}: not the one of the training, so scores would be wrong; bring it back"
            )
    roi = None if config.roi is None else folder / ROI_FILE
    reference = None if config.reference is None else folder / REFERENCE_FILE
    return Preprocessor(
        replace(config, roi=roi, reference=reference),
        size_px=model.size_px,
        reading=read_config_of(record, folder),
        strides=model.strides,
        roi=None if roi is None else read_mask(roi, image_size_px=None),
        reference=None if reference is None else read_image(reference),
    )


def read_config_of(record: Mapping[str, Any], folder: Path) -> ReadConfig:
    """Return how the images of a model are read, from its config.yaml; over their full range where it says nothing."""
    return from_plain(ReadConfig, record.get("reading", {}), where=str(folder / CONFIG_FILE), name="reading")


def read_calibration(folder: Path, *, weights_sha256: str | None = None) -> Calibration | None:
    """Read the calibration of a model folder; None where there is none.

    Args:
        folder: the model folder.
        weights_sha256: hash of its weights, where it is known: else they are read for it.

    Raises:
        ModelFolderError: the calibration cannot be read, or was made for other weights than the folder's.
    """
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        return None
    calibration = from_plain(Calibration, read_yaml(path, advice="calibrate again, or remove it"), where=str(path))
    if calibration.weights_sha256 != (weights_sha256 or hash_weights(folder)):
        raise ModelFolderError(
            f"{path}: was made for other weights than {WEIGHTS_FILE}, so what it guarantees does not hold; "
            "run `supersimplenet calibrate` again, or remove it"
        )
    return calibration


def write_calibration(folder: Path, calibration: Calibration) -> Path:
    """Write calibration.yaml into a model folder, in place of an earlier one."""
    path = folder / CALIBRATION_FILE
    write_yaml(path, to_plain(calibration))
    return path


def hash_weights(folder: Path) -> str:
    """Return the SHA-256 of a model folder's weights file."""
    return file_sha256(folder / WEIGHTS_FILE)


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write a YAML file that appears whole or not at all."""
    write_text(path, yaml.safe_dump(to_plain(content), sort_keys=False, allow_unicode=True))


def move_to(network: Module, device: torch.device) -> Module:
    """Move a network to a device, in the memory format in which its convolutions are fastest."""
    return network.to(device).to(memory_format=torch.channels_last)
