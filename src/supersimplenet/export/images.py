"""The images of an export: those of the verification, and those that int8 is chosen by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from supersimplenet.datasets.synthetic import synthesize
from supersimplenet.datasets.synthetic_config import SyntheticConfig
from supersimplenet.errors import ConfigError, DataError, ImageError
from supersimplenet.export.quantization import QuantizationImages
from supersimplenet.inference.image_records import HELD_OUT_ROLES, read_image_records, samples_to_choose_by, trained_on
from supersimplenet.preprocessing.listing import list_images
from supersimplenet.preprocessing.loading import OnError
from supersimplenet.preprocessing.prepared_image import PreparedImage
from supersimplenet.preprocessing.preprocessor import Preprocessor
from supersimplenet.types import GOOD, Sample
from supersimplenet.utils.console import console
from supersimplenet.utils.files import file_sha256
from supersimplenet.utils.formatting import counted, few

T = TypeVar("T")
_IMAGES = 32
_SPLIT_IMAGES = 300


def verification_images(
    model: Path,
    record: dict[str, Any],
    given: Sequence[Path],
    drawn: Path,
    preprocessor: Preprocessor,
    *,
    on_error: OnError,
) -> tuple[list[Path], str]:
    """Return images for the verification, and where they came from: given, else test images, else drawn ones.

    Args:
        model: the model folder.
        record: its config.yaml.
        given: image files or folders, by preference.
        drawn: where images are drawn if there are no others.
        preprocessor: the model's preprocessor.
        on_error: whether an unreadable image stops the export or is left out.

    Raises:
        ImageError: an image cannot be read and ``on_error`` is ``stop``, or none can be read.
    """
    named = [path for place in given for path in list_images(place)]
    if named:
        return _readable(_evenly(named, _IMAGES), preprocessor, on_error), "named with --images"
    samples = _samples(model, record)
    test = [sample.image for sample in samples if sample.split == "test"] or [sample.image for sample in samples]
    if test:
        return _readable(_evenly(test, _IMAGES), preprocessor, on_error), "test images of the model's dataset"
    side = max(64, round(1.5 * max(preprocessor.size_px)))
    config = SyntheticConfig(size_px=(side, side), train_good=1, test_good=1, test_per_defect=1)
    folders = synthesize(drawn / "surfaces", config)
    found = [path for folder in folders for path in list_images(folder / "test")]
    return _evenly(found, _IMAGES), "synthetic images: the model's own were not found, and none named with --images"


def quantization_images(
    model: Path,
    record: dict[str, Any],
    given: Sequence[Path],
    preprocessor: Preprocessor,
    *,
    on_error: OnError,
) -> QuantizationImages:
    """Return good images that were trained on, and bad training images; without a dataset, the given ones as good.

    Images that the training held out are never among them: they set the thresholds, and do nothing else.

    Args:
        model: the model folder.
        record: its config.yaml.
        given: image files or folders, for a model whose dataset is not here.
        preprocessor: the model's preprocessor.
        on_error: whether an unreadable image stops the export or is left out.

    Raises:
        ConfigError: there are no such images.
        ImageError: an image cannot be read and ``on_error`` is ``stop``, or none can be read.
    """
    samples = _samples(model, record)
    if samples and "training" in record:
        chosen = [(s.image, s.label) for s in samples_to_choose_by(model, samples, record)]
    else:
        held_out = {image.sha256 for image in read_image_records(model) or () if image.role in HELD_OUT_ROLES}
        named = [path for place in given for path in list_images(place)]
        chosen = [(path, GOOD) for path in named if not held_out or file_sha256(path) not in held_out]
        if len(chosen) < len(named):
            console().print(f"int8: {len(named) - len(chosen)} images not used, because they calibrate the model")
    if not chosen:
        raise ConfigError(
            "precision: int8 needs images to measure value ranges with, and the model's dataset was not found; name "
            "some of good parts with --images"
        )
    label_of = dict(_evenly(chosen, _SPLIT_IMAGES))
    prepared = _prepared(list(label_of), preprocessor, on_error)
    return QuantizationImages(prepared=list(prepared.values()), labels=[label_of[path] for path in prepared])


def _readable(paths: Sequence[Path], preprocessor: Preprocessor, on_error: OnError) -> list[Path]:
    return list(paths) if on_error == "stop" else list(_prepared(paths, preprocessor, on_error))


def _prepared(paths: Sequence[Path], preprocessor: Preprocessor, on_error: OnError) -> dict[Path, PreparedImage]:
    """Prepare images; those that cannot be read are left out and named, or stop the export.

    Raises:
        ImageError: an image cannot be read and ``on_error`` is ``stop``, or none can be read.
    """
    prepared: dict[Path, PreparedImage] = {}
    unreadable: list[str] = []
    for path in paths:
        try:
            found = preprocessor.prepare(path)
        except ImageError:
            if on_error == "stop" or len(unreadable) + 1 == len(paths):
                raise
            unreadable.append(path.name)
            continue
        prepared[path] = found
    if unreadable:
        left_out = counted(len(unreadable), "image")
        console().print(f"left out: {left_out} that cannot be read ({few(unreadable, len(unreadable))})")
    return prepared


def _samples(model: Path, record: dict[str, Any]) -> list[Sample]:
    """Return the samples that the model was trained with; none where the dataset is unknown or not on this machine."""
    if "data" not in record:
        return []
    try:
        samples = trained_on(record, model).samples()
    except DataError:
        return []
    return samples if samples and samples[0].image.is_file() else []


def _evenly(things: Sequence[T], most: int) -> list[T]:
    """Return at most ``most`` items, evenly spaced, because test images are sorted by type of defect."""
    if len(things) <= most:
        return list(things)
    return [things[round(place * (len(things) - 1) / (most - 1))] for place in range(most)]
