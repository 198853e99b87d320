"""A trained model as a folder: weights as tensors only, everything else as plain YAML. Loading executes no code.

::

    runs/bottle/
    ├── model.safetensors   the heads, and the backbone if it cannot be loaded again by its name
    ├── config.yaml         architecture, recipe, data, seed, versions, hash of the training list
    ├── calibration.yaml    thresholds and what they guarantee; written by `train` and `supersimplenet calibrate`
    ├── roi.png             region of interest, if there is one
    ├── reference.png       the image with which other images are aligned, if they are
    ├── metrics.json        written by `supersimplenet test`
    ├── checkpoints/        the last state of the training, for --resume
    └── logs/               CSV and TensorBoard
"""

from __future__ import annotations

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
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from supersimplenet.errors import ModelFolderError
from supersimplenet.inference.config import CALIBRATION_FILE, CONFIG_FILE, WEIGHTS_FILE
from supersimplenet.model.backbone import build_backbone, wrap_module
from supersimplenet.model.config import ModelConfig
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.preprocessing.images import read_image, read_mask
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig
from supersimplenet.preprocessing.reading import ReadConfig
from supersimplenet.utils.files import file_sha256, whole_file
from supersimplenet.utils.files import write_text as write_text
from supersimplenet.utils.serialization import from_plain as from_plain
from supersimplenet.utils.serialization import to_plain as to_plain

ROI_FILE = "roi.png"
REFERENCE_FILE = "reference.png"
_FORMAT = 1
_VERSIONED = ("supersimplenet", "torch", "torchvision", "timm", "lightning", "numpy", "pillow", "simplejpeg")
Module = TypeVar("Module", bound=nn.Module)


def save_model(folder: Path, network: SuperSimpleNet, record: Mapping[str, Any]) -> None:
    """Write weights and configuration; each file appears whole or not at all.

    Args:
        folder: the model folder; created if needed.
        network: the trained network.
        record: further content of config.yaml, in plain values.

    Raises:
        ModelFolderError: a weight is not finite.
    """
    backbone = network.backbone
    kept = network.heads if backbone.refetchable else network
    prefix = "heads." if backbone.refetchable else ""
    tensors = {prefix + name: value.detach().cpu().contiguous() for name, value in kept.state_dict().items()}
    _require_finite(tensors, str(folder), "train again, with smaller learning rates if it happens again")
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / WEIGHTS_FILE) as temporary:
        temporary.write_bytes(save(tensors))  # a file written by safetensors itself is readable by its owner only
    write_record(folder, network, record)


def write_record(folder: Path, network: SuperSimpleNet, record: Mapping[str, Any]) -> None:
    """Write config.yaml: the settings of the network, versions, and ``record``."""
    backbone = network.backbone
    write_yaml(
        folder / CONFIG_FILE,
        {
            "format": _FORMAT,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in _VERSIONED}},
            "model": to_plain(network.config),
            "backbone": {
                "origin": backbone.origin,
                "sha256": backbone.fingerprint(),
                "mean": backbone.mean.flatten().tolist(),
                "std": backbone.std.flatten().tolist(),
            },
            **record,
        },
    )


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
    if not (folder / WEIGHTS_FILE).is_file():
        raise ModelFolderError(
            f"{folder}: has {CONFIG_FILE} but no {WEIGHTS_FILE}: its training was not finished; "
            f"continue it with `supersimplenet train --resume --output {folder}`"
        )
    config = from_plain(ModelConfig, record["model"], where=f"{folder / CONFIG_FILE}: model")
    origin = record["backbone"]["origin"]
    if origin == "module" and backbone is None:
        raise ModelFolderError(
            f"{folder}: trained with a backbone module of your own, which a file cannot hold; "
            "pass it: Detector.load(folder, backbone=module)"
        )
    if origin != "module" and backbone is not None:
        raise ModelFolderError(f"{folder}: brings its own backbone '{config.backbone}'; leave out backbone=")
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except (SafetensorError, OSError) as error:
        raise ModelFolderError(f"{folder / WEIGHTS_FILE}: damaged ({error}); copy or train the model again") from error
    _require_finite(tensors, str(folder / WEIGHTS_FILE), "copy the file again, or train again")
    if backbone is None:
        built = build_backbone(config, with_weights=origin in ("package", "hub"))
    else:
        built = wrap_module(backbone, config.size_px)
    network = SuperSimpleNet(config, backbone=built)
    target = network.heads if built.refetchable else network
    prefix = "heads." if built.refetchable else ""
    try:
        target.load_state_dict({name.removeprefix(prefix): value for name, value in tensors.items()})
    except RuntimeError as error:
        raise ModelFolderError(f"{folder / WEIGHTS_FILE}: does not fit its {CONFIG_FILE}: {error}") from error
    if built.fingerprint() != record["backbone"]["sha256"]:
        raise ModelFolderError(
            f"{folder}: the weights of backbone '{config.backbone}' are not those of the training "
            f"(sha256 {built.fingerprint()[:12]}…, trained with {record['backbone']['sha256'][:12]}…); "
            "scores would be wrong; bring back the old weights or train again"
        )
    return network.eval(), record


def _require_finite(tensors: Mapping[str, torch.Tensor], where: str, advice: str) -> None:
    """Refuse weights that are not finite, because every score would be meaningless.

    Raises:
        ModelFolderError: a weight is NaN or infinite.
    """
    for name, values in tensors.items():
        if values.is_floating_point() and not values.isfinite().all():
            raise ModelFolderError(f"{where}: the weights {name} are not all finite; {advice}")


def read_record(folder: Path) -> dict[str, Any]:
    """Read the config.yaml of a model folder.

    Raises:
        ModelFolderError: the file is missing or not as `save_model` writes it.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ModelFolderError(f"{folder}: no model here ({CONFIG_FILE} is missing); name a folder that `train` wrote")
    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ModelFolderError(f"{path}: not readable as YAML ({error})") from error
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        found = record.get("format") if isinstance(record, dict) else None
        raise ModelFolderError(f"{path}: format {found}; this version reads format {_FORMAT}")
    missing = [name for name in ("model", "backbone") if not isinstance(record.get(name), dict)]
    if missing:
        raise ModelFolderError(f"{path}: lacks {', '.join(missing)}; bring back the file that `train` wrote")
    return record


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
    config = from_plain(ViewConfig, record.get("view", {}), where=f"{folder / CONFIG_FILE}: view")
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
        strides=model.feature_strides,
        roi=None if roi is None else read_mask(roi, image_size_px=None),
        reference=None if reference is None else read_image(reference),
    )


def read_config_of(record: Mapping[str, Any], folder: Path) -> ReadConfig:
    """Return how the images of a model are read, from its config.yaml; over their full range where it says nothing."""
    return from_plain(ReadConfig, record.get("reading", {}), where=f"{folder / CONFIG_FILE}: reading")


def read_calibration(folder: Path) -> Calibration | None:
    """Read the calibration of a model folder; None where there is none.

    Raises:
        ModelFolderError: the calibration cannot be read, or was made for other weights than the folder's.
    """
    path = folder / CALIBRATION_FILE
    if not path.is_file():
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ModelFolderError(f"{path}: not readable as YAML ({error}); calibrate again") from error
    if not isinstance(content, dict):
        raise ModelFolderError(f"{path}: holds no calibration; calibrate again, or remove it")
    calibration = from_plain(Calibration, content, where=str(path))
    if calibration.weights_sha256 != hash_weights(folder):
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
    write_text(path, yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True))


def move_to(network: Module, device: torch.device) -> Module:
    """Move a network to a device, in the memory format in which its convolutions are fastest."""
    return network.to(device).to(memory_format=torch.channels_last)
