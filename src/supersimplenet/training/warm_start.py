"""A training that starts from the heads of an earlier model, with the parts that calibrated it still held out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from supersimplenet.errors import ConfigError
from supersimplenet.inference.image_records import HELD_OUT_ROLES, TRAINED_ROLES, ImageRecord, read_image_records
from supersimplenet.inference.model_folder import hash_weights, load_model
from supersimplenet.model.network import SuperSimpleNet


@dataclass(frozen=True, kw_only=True)
class EarlierImages:
    """What an earlier model made of its images; a training that starts from it keeps to that.

    What the earlier model was trained on can calibrate no model that starts from it, or its guarantee would be void.

    Attributes:
        trained: its images that the earlier model, or one that it started from, was trained on.
        held_out: hashes of the files and of the pixels of images that it held out.
    """

    trained: tuple[ImageRecord, ...] = ()
    held_out: frozenset[str] = frozenset()

    def stays_held_out(self, *hashes: str) -> bool | None:
        """Return whether an image stays held out (True) or is trained on again (False); None for a new one.

        Args:
            hashes: SHA-256 of its file, digest of its pixels.
        """
        if any(key in self._trained_hashes for key in hashes):
            return False
        return True if any(key in self.held_out for key in hashes) else None

    @cached_property
    def _trained_hashes(self) -> frozenset[str]:
        return frozenset(key for record in self.trained for key in (record.sha256, record.pixels) if key)

    def others(self, records: Iterable[ImageRecord]) -> list[ImageRecord]:
        """Return the rows of images.csv for images that only the earlier models were trained on."""
        known = {key for record in records for key in (record.sha256, record.pixels) if key}
        return [
            ImageRecord(**(vars(record) | {"role": "earlier"}))
            for record in self.trained
            if record.sha256 not in known and record.pixels not in known
        ]


def read_earlier_images(folder: Path | None) -> EarlierImages:
    """Return what is known of the images of an earlier model; nothing for None.

    Raises:
        ConfigError: the model folder has no record of its images.
        ModelFolderError: the record is damaged.
    """
    if folder is None:
        return EarlierImages()
    records = read_image_records(folder)
    if records is None:
        raise ConfigError(
            f"warm_start: {folder} does not say which images it was trained on, so none can be held out from it; "
            "train without"
        )
    return EarlierImages(
        trained=tuple(record for record in records if record.role in TRAINED_ROLES),
        held_out=frozenset(
            key for record in records if record.role in HELD_OUT_ROLES for key in (record.sha256, record.pixels)
        ),
    )


def start_from(network: SuperSimpleNet, folder: Path, *, backbone: nn.Module | None = None) -> None:
    """Copy the heads of an earlier model into a network.

    Args:
        network: the network, on any device.
        folder: the earlier model's folder.
        backbone: the module that both were given, if it was your own.

    Raises:
        ConfigError: the earlier model has no heads, or is of another backbone or variant.
        ModelFolderError: the folder is incomplete or damaged.
    """
    earlier, _ = load_model(folder, backbone=backbone)
    if earlier.heads is None:
        raise ConfigError(f"warm_start: {folder} is a subspace alone and has no heads to start from; train without")
    for name in ("backbone", "layers", "variant", "align_corners"):
        own, other = getattr(network.config, name), getattr(earlier.config, name)
        if own != other:
            raise ConfigError(f"warm_start: {folder} has model.{name} {other}, this training {own}; wanted the same")
    if earlier.backbone.fingerprint() != network.backbone.fingerprint():
        raise ConfigError(f"warm_start: {folder} has other weights in its backbone; train without")
    network.trained_heads.load_state_dict(earlier.trained_heads.state_dict())


def describe_start(folder: Path | None) -> Mapping[str, Any] | None:
    """Return what config.yaml says about the earlier model: its place and the hash of its weights."""
    return None if folder is None else {"path": str(folder), "weights_sha256": hash_weights(folder)}
