"""Metadata inside an exported file: everything but the weights."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from supersimplenet.errors import ConfigError, ModelFolderError
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.postprocessing.postprocessor import PostProcessor
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig
from supersimplenet.types import ScoreName, ScoreScale
from supersimplenet.utils.formatting import shown_size
from supersimplenet.utils.serialization import from_plain, to_plain

FileFormat = Literal["onnx", "openvino", "torch"]
FilePrecision = Literal["fp32", "fp16", "bf16", "int8"]
KEY = "supersimplenet"  # key of the JSON text in each format's metadata
_FORMAT = 1
PRECISIONS: dict[FileFormat, tuple[FilePrecision, ...]] = {
    "onnx": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "fp16", "bf16", "int8"),
    "torch": ("fp32", "fp16", "bf16"),
}
_WHY_NOT: dict[tuple[FileFormat, FilePrecision], str] = {
    ("onnx", "bf16"): "ONNX Runtime has no bfloat16 kernels for CPUs",
    ("torch", "int8"): "NNCF's torch programs only imitate int8, in float",
}


def require_precision(file_format: FileFormat, precision: FilePrecision) -> None:
    """Refuse a precision that an engine cannot compute in.

    Raises:
        ConfigError: the engine cannot; the message gives the reason and the possible precisions.
    """
    if precision not in PRECISIONS[file_format]:
        able = ", ".join(PRECISIONS[file_format])
        raise ConfigError(
            f"precision: no {precision} for {file_format}: {_WHY_NOT[file_format, precision]}; choose {able}"
        )


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Comparison of an exported file, run in a fresh process, with the model folder, run by torch.

    Attributes:
        images: number of images compared; the comparison includes decoding and resizing their files.
        source: where the images came from, in words.
        score_max_difference: largest difference of the scores (head, map and the deciding score), in logits.
        score_mean_difference: mean difference of the scores, in logits.
        map_max_difference: largest difference of the maps, in logits.
        map_mean_difference: mean difference of the maps, in logits.
        score_tolerance: largest score difference that was allowed.
        map_tolerance: largest map difference that was allowed.
        verdict_flips: number of images whose verdict differs.
        latency_ms: median time from a file's path to its verdict, in ms, one image at a time.
        measured_drop: for int8, the loss through quantisation, measured on the calibration split; None otherwise.
        drop_of: which loss was measured, in words.
        host: CPU, cores and operating system.
        versions: versions of Python, the engine, numpy, Pillow and this package.
        date: date of the comparison, such as 2026-11-25.
    """

    images: int
    source: str
    score_max_difference: float
    score_mean_difference: float
    map_max_difference: float
    map_mean_difference: float
    score_tolerance: float
    map_tolerance: float
    verdict_flips: int
    latency_ms: float
    measured_drop: float | None = None
    drop_of: str | None = None
    host: dict[str, Any]
    versions: dict[str, str]
    date: str


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The metadata of an exported file.

    Attributes:
        engine: the engine that the file is for.
        precision: type in which the network is computed, or (fp16) stored.
        size_px: (height, width) to which images are resized.
        trained_size_px: (height, width) of the training; the calibration holds only for this size.
        step_px: height and width must be multiples of this number; None where ``size_px`` is fixed.
        strides: strides of the network's feature maps.
        view: how images are prepared for the network, as in config.yaml.
        view_images: the region of interest and the reference image, if any: PNG files in base64.
        masked: whether the graph has a second input, for the pixels that count in no score.
        preprocessing: the steps that are applied to an image's pixels, before the graph and inside it.
        outputs: descriptions of the graph's outputs, by name.
        labels: names of the image labels 0 and 1.
        image_score: the score that decides the verdict.
        score_scale: puts the scores on one scale.
        calibration: thresholds and what they guarantee; None if there is no calibration.
        backbone: name and origin of the backbone, hash of its weights and, where known, their licence.
        weights_sha256: SHA-256 of the model folder's weights.
        versions: versions of the software that exported the file.
        config: the model folder's config.yaml.
        date: date of the export.
        certificate: None until the file has passed the comparison with the model folder.
    """

    engine: FileFormat
    precision: FilePrecision
    size_px: tuple[int, int]
    trained_size_px: tuple[int, int]
    step_px: int | None = None
    strides: tuple[int, ...] = (8, 16)
    view: dict[str, Any] = field(default_factory=dict)
    view_images: dict[str, str] = field(default_factory=dict)
    masked: bool = False
    preprocessing: dict[str, Any]
    outputs: dict[str, str]
    labels: tuple[str, ...] = ("good", "bad")
    image_score: ScoreName
    score_scale: ScoreScale
    calibration: Calibration | None
    backbone: dict[str, Any]
    weights_sha256: str
    versions: dict[str, str]
    config: dict[str, Any]
    date: str
    certificate: Certificate | None = None

    def __repr__(self) -> str:
        size = shown_size(self.size_px)
        return f"Bundle({self.engine} {self.precision}, {size} px, {self.image_score} score, exported {self.date})"

    def make_postprocessor(self, size_px: tuple[int, int]) -> PostProcessor:
        """Return the postprocessor for a size; it has the calibration only at the size of the training."""
        return PostProcessor(
            calibration=self.calibration if size_px == self.trained_size_px else None,
            image_score=self.image_score,
            score_scale=self.score_scale,
        )

    def make_preprocessor(self, size_px: tuple[int, int]) -> Preprocessor:
        """Return the preprocessor for a size."""
        config = from_plain(ViewConfig, self.view, where="metadata: view")
        images = {name: decode_png(text) for name, text in self.view_images.items()}
        roi = images["roi"] > 0 if "roi" in images else None
        return Preprocessor(config, size_px=size_px, strides=self.strides, roi=roi, reference=images.get("reference"))

    def as_json(self) -> str:
        """Return the JSON text that is stored in the file."""
        return json.dumps({"format": _FORMAT, **to_plain(self)})


def encode_png(pixels: NDArray[np.uint8]) -> str:
    """Return an image as text: a PNG file in base64."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def decode_png(text: str) -> NDArray[np.uint8]:
    """Return the image of a text that `encode_png` made."""
    with Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)) as image:
        return np.asarray(image)


def read_bundle(text: str | None, *, where: str) -> Bundle:
    """Parse the metadata from a file's JSON text.

    Args:
        text: as `Bundle.as_json` wrote it; None where the file has none.
        where: name of the file, for errors.

    Raises:
        ModelFolderError: there is no text, or it does not hold this metadata.
    """
    if text is None:
        raise ModelFolderError(f"{where}: not made by `supersimplenet export` (no metadata in it); export the model")
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ModelFolderError(f"{where}: damaged metadata ({error}); export the model again") from error
    if not isinstance(values, dict) or values.get("format") != _FORMAT:
        found = values.get("format") if isinstance(values, dict) else None
        raise ModelFolderError(f"{where}: format {found}; this version reads format {_FORMAT}")
    del values["format"]
    for name, kind in (("score_scale", ScoreScale), ("calibration", Calibration), ("certificate", Certificate)):
        if values.get(name) is not None:
            values[name] = from_plain(kind, values[name], where=f"{where}: {name}")
    bundle: Bundle = from_plain(Bundle, values, where=where)
    if bundle.engine not in get_args(FileFormat):
        raise ModelFolderError(f"{where}: for engine '{bundle.engine}'; this version knows {get_args(FileFormat)}")
    return bundle
