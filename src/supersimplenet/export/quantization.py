"""Quantise a trained model to int8 with NNCF, with a limit on the loss of accuracy."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from supersimplenet.errors import ConfigError, ExportError
from supersimplenet.metrics.ranking import auroc
from supersimplenet.postprocessing.postprocessor import PostProcessor
from supersimplenet.preprocessing.prepared_image import PreparedImage
from supersimplenet.preprocessing.preprocessor import Preprocessor
from supersimplenet.runtime.backends import FunctionBackend, network_inputs, onnx_session, run_onnx
from supersimplenet.runtime.bundle import FileFormat
from supersimplenet.runtime.openvino_model import CompiledModel
from supersimplenet.runtime.predictor import Predictor
from supersimplenet.runtime.tiles import Run
from supersimplenet.types import Prediction
from supersimplenet.utils.formatting import counted

DROP_OF_RANKING = "I-AUROC of the score that decides"
DROP_OF_SCORES = "the share of the scores' variance that quantisation changes"
_ROUNDS = 20  # largest number of operations that may return to float
_RANKED = 32  # images used to rank operations by how much they change the scores
_MOST_TILES = 300
_APART = 64  # from so many images on, every other one only measures the accuracy


@dataclass(frozen=True, kw_only=True)
class QuantizationImages:
    """Images to measure value ranges and accuracy with; never test images, nor those that set the thresholds.

    Attributes:
        prepared: the images, prepared for the network.
        labels: label of each image: 0 good, 1 bad.
    """

    prepared: Sequence[PreparedImage]
    labels: Sequence[int]

    @property
    def shares(self) -> tuple[Sequence[int], Sequence[int]]:
        """Positions of the images that give the ranges, and of those that measure the accuracy.

        Where there are enough images, of each class too, no image does both.
        """
        everything = range(len(self.labels))
        by_label = sorted(everything, key=lambda place: self.labels[place])
        ranges, measured = sorted(by_label[::2]), sorted(by_label[1::2])
        labels = {self.labels[place] for place in measured}
        if len(self.labels) < _APART or labels != set(self.labels):
            return everything, everything
        return ranges, measured


def quantize(
    model: Any,
    file_format: FileFormat,
    images: QuantizationImages,
    *,
    names: Sequence[str],
    postprocessor: PostProcessor,
    preprocessor: Preprocessor,
    max_drop: float,
) -> tuple[Any, float, str]:
    """Quantise a model to int8; operations that lose too much accuracy return to float.

    Matrix products stay in float: they upscale feature maps, and 8 bits are too few for interpolation weights, as for
    the projection of the subspace, whose residuals are small differences of large features.

    Args:
        model: the model, of ONNX or OpenVINO.
        file_format: the model's format, ``onnx`` or ``openvino``.
        images: images to measure value ranges and accuracy with.
        names: names of the network's outputs.
        postprocessor: the model's postprocessor, with the deciding score.
        preprocessor: the model's preprocessor.
        max_drop: largest loss that is allowed. Where there are good and bad images, the loss of I-AUROC. Where there
            is one class only, the loss of the scores' agreement 1 - mean((a - b)^2) / variance(a); noise on the
            scores lowers the AUROC by about that amount, or less.

    Returns:
        The quantised model, the measured loss, and a phrase that says which loss was measured.

    Raises:
        ConfigError: NNCF is not installed.
        ExportError: the loss is larger than ``max_drop``.
    """
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # NNCF asks it for CUDA, which is not used
    try:
        import nncf
    except ImportError as error:
        raise ConfigError("precision: int8 needs nncf; pip install 'supersimplenet[export]'") from error
    nncf.set_log_level(logging.ERROR)
    ranges, measured = images.shares
    labels = [images.labels[place] for place in measured]
    two_classes, masked = len(set(labels)) == 2, not preprocessor.is_plain

    def scores(candidate: Any, places: Iterable[int]) -> NDArray[np.float64]:
        """Return the score of some of the images that measure the accuracy."""
        backend = FunctionBackend(_run(candidate, file_format, names=names, masked=masked))
        predictor = Predictor(backend, preprocessor=preprocessor, postprocessor=postprocessor)
        found = [predictor.predict_prepared([images.prepared[measured[place]]], [None])[0] for place in places]
        return np.array([prediction.score_logit for prediction in found if isinstance(prediction, Prediction)])

    everything = range(len(measured))
    reference = scores(model, everything)
    spread = float(np.var(reference)) or 1.0

    def accuracy(found: NDArray[np.float64]) -> float:
        if two_classes:
            return auroc(found.tolist(), labels)
        return 1 - float(np.mean(np.square(found - reference))) / spread

    def validate(candidate: Any, places: Iterable[int]) -> tuple[float, list[float]]:
        """Return the accuracy on all images, or the scores' agreement on the images that rank operations."""
        chosen = list(places)
        found = scores(candidate, chosen)
        agreement = -np.square(found - reference[chosen])
        whole = len(chosen) == len(everything)
        return accuracy(found) if whole else float(agreement.mean()), agreement.tolist()

    tiles = [tile for place in ranges for tile in images.prepared[place].tiles()]
    tiles = tiles[:: -(-len(tiles) // _MOST_TILES)]
    fed = [
        network_inputs(tile.pixels[None], None if tile.ignored is None else tile.ignored[None], masked=masked)
        for tile in tiles
    ]
    items = nncf.Dataset(fed) if file_format == "onnx" else nncf.Dataset([list(inputs.values()) for inputs in fed])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NNCF itself makes deprecated calls
        quantized = nncf.quantize_with_accuracy_control(
            model,
            calibration_dataset=items,
            validation_dataset=nncf.Dataset(everything),
            validation_fn=validate,
            max_drop=max_drop,
            drop_type=nncf.DropType.ABSOLUTE,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(fed),
            ignored_scope=nncf.IgnoredScope(types=["MatMul", "Gemm"], validate=False),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                max_num_iterations=_ROUNDS, ranking_subset_size=_RANKED
            ),
        )
    drop = accuracy(reference) - accuracy(scores(quantized, everything))
    kept = "" if ranges is measured else " kept for this"
    of = f"{DROP_OF_RANKING if two_classes else DROP_OF_SCORES} ({counted(len(measured), 'image')}{kept})"
    if not drop <= max_drop:
        raise ExportError(
            f"int8: loses {drop * 100:.2g} % ({of}), {(drop - max_drop) * 100:.2g} % more "
            f"than the {max_drop * 100:.2g} % allowed; allow more with --max-drop, or choose fp16"
        )
    return quantized, drop, of


def _run(model: Any, file_format: FileFormat, *, names: Sequence[str], masked: bool) -> Run:
    """Return a function that runs a model of an engine; some of NNCF's models are compiled already."""
    own = {name: name for name in names}
    if file_format == "onnx":
        session = onnx_session(model.SerializeToString()) if hasattr(model, "SerializeToString") else model
        return lambda pixels, ignored=None: run_onnx(session, network_inputs(pixels, ignored, masked=masked), own)
    import openvino

    if isinstance(model, openvino.Model):
        model = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    compiled = CompiledModel(model, names=own)
    return lambda pixels, ignored=None: compiled.run(network_inputs(pixels, ignored, masked=masked))
