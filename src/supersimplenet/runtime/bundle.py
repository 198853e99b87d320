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

from supersimplenet.errors import ConfigError, ImageError, ModelFolderError
from supersimplenet.postprocessing.calibration import Calibration, Computation
from supersimplenet.postprocessing.postprocessor import PostProcessor
from supersimplenet.postprocessing.score_scale import ScoreScale
from supersimplenet.preprocessing.decoding import EncodedImage, decode
from supersimplenet.preprocessing.preprocessor import Preprocessor, ViewConfig
from supersimplenet.preprocessing.reading import FULL_RANGE, ReadConfig
from supersimplenet.types import ScoreName, Verdict
from supersimplenet.utils.documents import UnreadableError, parse_json
from supersimplenet.utils.formatting import shown_size, shown_value
from supersimplenet.utils.serialization import from_plain, to_plain

FileFormat = Literal["onnx", "openvino", "torch"]
FilePrecision = Literal["fp32", "fp16", "bf16", "int8"]
ViewImage = Literal["roi", "reference"]
KEY = "supersimplenet"  # key of the JSON text in each format's metadata
_FORMAT = 2
_READ_FORMATS = (1, 2)  # 1: version 0.1, whose graphs give the head's score under the name ``score``
LARGEST_SIDE_PX = 1 << 15
_LARGEST_TEXT = 1 << 28  # a reference of 12 megapixels has some 25 MB
_STRIDES = "one or more whole numbers above 0, ascending"
PRECISIONS: dict[FileFormat, tuple[FilePrecision, ...]] = {
    "onnx": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "fp16", "bf16", "int8"),
    "torch": ("fp32", "fp16", "bf16"),
}
_WHY_NOT: dict[tuple[FileFormat, FilePrecision], str] = {
    ("onnx", "bf16"): "ONNX Runtime has no bfloat16 kernels for CPUs",
    ("torch", "int8"): "NNCF's torch programs only imitate int8, in float",
}
LEAST_OPSET = 18  # of torch's exporter; it leaves newer graphs as they are where an older one is asked for


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


def require_opset(file_format: FileFormat, opset: int | None) -> None:
    """Refuse a version of ONNX's operators (``opset``) for another format, or one that torch cannot write.

    Raises:
        ConfigError: it is refused.
    """
    if opset is None:
        return
    if file_format != "onnx":
        raise ConfigError(f"opset: {opset}; only onnx files have one, not {file_format}; leave it out")
    if opset < LEAST_OPSET:
        raise ConfigError(f"opset: {opset}; torch writes {LEAST_OPSET} and newer")


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Comparison of an exported file, run in a fresh process, with the model folder, run by torch.

    Attributes:
        images: number of images compared; the comparison includes decoding and resizing their files.
        source: where the images came from, in words.
        score_max_difference: largest difference of the scores (head, map and the deciding score, and the deciding
            score that the graph itself gives), in logits.
        score_mean_difference: mean difference of the scores, in logits.
        map_max_difference: largest difference of the maps, in logits.
        map_mean_difference: mean difference of the maps, in logits.
        score_tolerance: largest score difference that was allowed.
        map_tolerance: largest map difference that was allowed.
        verdict_flips: number of images whose verdict differs, the runtime's or the graph's own.
        latency_ms: median time from a file's path to its verdict, in ms, one image at a time.
        measured_drop: for int8, the loss through quantisation; None otherwise.
        drop_of: which loss was measured, and on how many images, in words.
        host: CPU, cores and operating system.
        versions: versions of Python, the engine, numpy, Pillow, simplejpeg and this package.
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
        reading: how image files and arrays become pixels, as in config.yaml.
        view_images: the region of interest and the reference image, if any: PNG files in base64.
        masked: whether the graph has a second input, for the pixels that count in no score.
        preprocessing: the steps that are applied to an image's pixels, before the graph and inside it.
        outputs: descriptions of the graph's outputs, by name.
        labels: names of the image labels 0 and 1.
        verdicts: names of the verdicts 0, 1 and 2.
        image_score: the score that decides the verdict.
        score_scale: puts the scores on one scale.
        calibration: thresholds and what they guarantee; None if there is no calibration.
        backbone: name and origin of the backbone, hash of its weights and, where known, their licence.
        weights_sha256: SHA-256 of the model folder's weights.
        versions: versions of the software that exported the file.
        config: the model folder's config.yaml.
        date: date of the export.
        recalibrated: what changed when the thresholds were set again in the file's precision; None where they were not.
        certificate: None until the file has passed the comparison with the model folder.
        sealed: whether the file ends with a seal, see `supersimplenet.runtime.seal`; false before version 0.2.

    Raises:
        ConfigError: a value that no export has.
    """

    engine: FileFormat
    precision: FilePrecision
    size_px: tuple[int, int]
    trained_size_px: tuple[int, int]
    step_px: int | None = None
    strides: tuple[int, ...] = (8, 16)
    view: dict[str, Any] = field(default_factory=dict)
    reading: ReadConfig = FULL_RANGE
    view_images: dict[ViewImage, str] = field(default_factory=dict)
    masked: bool = False
    preprocessing: dict[str, Any]
    outputs: dict[str, str]
    labels: tuple[str, ...] = ("good", "bad")
    verdicts: tuple[str, ...] = get_args(Verdict)
    image_score: ScoreName
    score_scale: ScoreScale
    calibration: Calibration | None
    backbone: dict[str, Any]
    weights_sha256: str
    versions: dict[str, str]
    config: dict[str, Any]
    date: str
    recalibrated: str | None = None
    certificate: Certificate | None = None
    sealed: bool = False

    def __post_init__(self) -> None:
        sides = [*self.size_px, *self.trained_size_px]
        conditions = (
            ("size_px", all(1 <= side <= LARGEST_SIDE_PX for side in sides), f"sides of 1 to {LARGEST_SIDE_PX:,} px"),
            ("step_px", self.step_px is None or 1 <= self.step_px <= LARGEST_SIDE_PX, "1 or more, or null"),
            ("strides", list(self.strides) == sorted(set(self.strides)) and min(self.strides, default=0) > 0, _STRIDES),
            ("labels", len(self.labels) == 2, "two names"),
        )
        for name, holds, wanted in conditions:
            if not holds:
                raise ConfigError(f"{name}: {shown_value(getattr(self, name))}; wanted {wanted}")

    @property
    def computation(self) -> Computation:
        """How the file computes scores."""
        return Computation(
            engine=self.engine, precision=self.precision, version=self.versions.get("supersimplenet", "unknown")
        )

    @property
    def network_outputs(self) -> dict[str, str]:
        """Names of the network's own outputs in the graph, by their names in `supersimplenet.runtime.tiles.Outputs`."""
        head = "head_logit" if "head_logit" in self.outputs else "score"
        of_subspace: dict[str, str] = {
            name: name for name in ("subspace_map", "subspace_logit") if name in self.outputs
        }
        alone = of_subspace and "map" not in self.outputs  # a model without heads
        return of_subspace if alone else {"map": "map", "head_logit": head} | of_subspace

    def __repr__(self) -> str:
        size = shown_size(self.size_px)
        return f"Bundle({self.engine} {self.precision}, {size} px, {self.image_score} score, exported {self.date})"

    def make_postprocessor(self, size_px: tuple[int, int]) -> PostProcessor:
        """Return the postprocessor for a size; it has the calibration only at the size of the training."""
        return PostProcessor(
            calibration=self.calibration if size_px == self.trained_size_px else None,
            image_score=self.image_score,
            score_scale=self.score_scale,
            zones=None if self.calibration is None else self.calibration.zones,
        )

    def make_preprocessor(self, size_px: tuple[int, int]) -> Preprocessor:
        """Return the preprocessor for a size."""
        config = from_plain(ViewConfig, self.view, where="metadata", name="view")
        images = {name: decode_png(text, name) for name, text in self.view_images.items()}
        roi = images["roi"] > 0 if "roi" in images else None
        reference = images.get("reference")
        return Preprocessor(
            config, size_px=size_px, reading=self.reading, strides=self.strides, roi=roi, reference=reference
        )

    def as_json(self) -> str:
        """Return the JSON text that is stored in the file."""
        return json.dumps({"format": _FORMAT, **to_plain(self)})


def describe_outputs(
    image_score: ScoreName,
    *,
    whole: bool,
    calibrated: bool,
    heads: bool = True,
    subspace: bool = False,
    shown: bool = False,
) -> dict[str, str]:
    """Return the outputs of an exported graph: what each is, by its name.

    Args:
        image_score: the score that decides the verdict.
        whole: whether the graph sees whole images at the size of the training; if not, it sees a tile, or its size is
            open, and gives no verdict.
        calibrated: whether the model has thresholds.
        heads: whether the model has heads.
        subspace: whether the model has a subspace of good images.
        shown: whether the anomaly map that is shown is a mixture of the network's own and the subspace's.
    """
    of = "the image" if whole else "what the graph sees, which is not always a whole image: `Inspector` gives verdicts"
    of_heads = {
        "map": "(B, H, W) float32, logits: the network's smoothed anomaly map",
        "head_logit": f"(B,) float32, logits: the classification head's score of {of}",
        "map_max_logit": "(B,) float32, logits: the largest value of the map, over pixels that are not ignored",
        "fused_logit": "(B,) float32, logits: the mean of both scores, on the head's scale",
    }
    own = image_score != "zones"  # which the runtime computes, with the verdict
    decides = (
        {"score_logit": f"(B,) float32, logits: the score that decides, here the {image_score} score"} if own else {}
    )
    outputs = (of_heads if heads else {}) | decides
    if subspace:
        outputs |= {
            "subspace_map": "(B, H, W) float32, logits: the smoothed distance from the subspace of good images",
            "subspace_logit": f"(B,) float32, logits: the mean of the ten largest distances in {of}",
            "joint_logit": "(B,) float32, logits: the weighted mean of head, map and subspace, on the head's scale",
        }
    if subspace and shown:
        outputs["shown_map"] = "(B, H, W) float32, logits: the map that is shown, mixed of map and subspace_map"
    if not (whole and calibrated and own):
        return outputs
    return outputs | {
        "score": "(B,) float32, 0 to 1: the score that decides, 0.5 at the threshold",
        "verdict": "(B,) uint8: 0 good, 1 unsure, 2 bad",
        "defects": "(B, H, W) uint8: 1 where the shown map reaches the pixel threshold and the pixel is not ignored, "
        "whatever the verdict and however small the region: `Inspector` lists by the verdict",
    }


def encode_png(pixels: NDArray[np.uint8]) -> str:
    """Return an image as text: a PNG file in base64."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def decode_png(text: str, name: str) -> NDArray[np.uint8]:
    """Return the image of a text that `encode_png` made: (H, W) or (H, W, 3).

    Raises:
        ModelFolderError: no such text, or an image with more pixels than images may have.
    """
    where = f"metadata: view_images.{name}"
    try:
        content = base64.b64decode(text, validate=True)
        pixels, *_ = decode(EncodedImage(name=where, read=lambda: content))
    except ImageError as error:
        raise ModelFolderError(f"{error}; export the model again") from error
    except ValueError as error:
        raise ModelFolderError(f"{where}: {error}; export the model again") from error
    if pixels.dtype != np.uint8 or pixels.shape[2] != {"roi": 1, "reference": 3}[name]:
        found = f"{pixels.dtype} with {pixels.shape[2]} channels"
        raise ModelFolderError(f"{where}: {found}; export the model again")
    return pixels[:, :, 0] if name == "roi" else pixels


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
    if len(text) > _LARGEST_TEXT:
        raise ModelFolderError(f"{where}: metadata of {len(text):,} characters; at most {_LARGEST_TEXT:,} are read")
    try:
        values = parse_json(text)
    except UnreadableError as error:
        raise ModelFolderError(f"{where}: damaged metadata ({error}); export the model again") from error
    found = values.pop("format", None) if isinstance(values, dict) else None
    if type(found) is not int or found not in _READ_FORMATS:
        known = " and ".join(map(str, _READ_FORMATS))
        raise ModelFolderError(f"{where}: format {shown_value(found)}; this version reads formats {known}")
    bundle = from_plain(Bundle, values, where=where)
    if bundle.calibration is not None and bundle.calibration.image_score != bundle.image_score:
        raise ModelFolderError(
            f"{where}: a calibration of the {bundle.calibration.image_score} score, but the {bundle.image_score} score "
            "decides; export the model again"
        )
    view = from_plain(ViewConfig, bundle.view, where=where, name="view")
    for name, path in (("roi", view.roi), ("reference", view.reference)):
        if (path is None) == (name in bundle.view_images):
            raise ModelFolderError(f"{where}: view.{name} and view_images do not fit; export the model again")
    return bundle
