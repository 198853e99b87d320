"""The detector: a trained model that predicts images; evaluation, the command line and Python code all use it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import WEIGHTS_FILE, ComputeConfig
from supersimplenet.inference.engines import build_engine
from supersimplenet.inference.model_folder import load_model, load_preprocessor, read_calibration
from supersimplenet.inference.record import stated_hash, too_few_steps, total_steps
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.postprocessing.calibration import Calibration, Computation
from supersimplenet.postprocessing.parts import pattern_in
from supersimplenet.postprocessing.postprocessor import PostProcessor
from supersimplenet.postprocessing.score_scale import ScoreScale
from supersimplenet.preprocessing.preprocessor import Preprocessor
from supersimplenet.runtime.predictor import IndexedPrediction as IndexedPrediction
from supersimplenet.runtime.predictor import Predictor
from supersimplenet.types import ScoreName
from supersimplenet.utils.console import console
from supersimplenet.utils.formatting import first_line
from supersimplenet.utils.serialization import from_plain
from supersimplenet.utils.version import __version__

_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16"}  # names of number types, as exported files have them


class Detector(Predictor):
    """A trained network, ready to predict.

    Args:
        network: the network; its weights are folded and copied.
        calibration: the thresholds and what they guarantee; without a calibration, an image is ``bad`` from logit 0
            on, which guarantees nothing.
        image_score: the score that decides the verdict; None for the calibration's, and without a calibration for the
            classification head's.
        score_scale: puts both scores on one scale.
        preprocessor: turns images into the network's input; by default each is resized to the network's input size.
        device: where to compute, such as ``cpu`` or ``cuda``; ``auto`` uses a GPU where there is one.
        engine: ``torch``, or ``openvino`` (on a CPU, if it is installed).
        precision: ``float32``, or ``bfloat16``, which is less exact, and faster where the CPU or GPU computes in it.
        record: the model folder's config.yaml.

    Raises:
        ConfigError: the device, engine or precision is not available here, or the calibration is for another score.
    """

    def __init__(
        self,
        network: SuperSimpleNet,
        *,
        calibration: Calibration | None = None,
        image_score: ScoreName | None = None,
        score_scale: ScoreScale | None = None,
        preprocessor: Preprocessor | None = None,
        device: str = "auto",
        engine: str = "torch",
        precision: str = "float32",
        record: dict[str, Any] | None = None,
    ) -> None:
        self.device = choose_device("cpu" if engine == "openvino" and device == "auto" else device)
        self.network = network.eval()
        self.engine = build_engine(network, name=engine, device=self.device, precision=precision)
        self.record = record or {}
        if image_score is None:
            image_score = "head" if calibration is None else calibration.image_score
        self.folder: Path | None = None  # the model folder that it was loaded from
        super().__init__(
            self.engine,
            preprocessor=preprocessor or Preprocessor.stretch(network.config.size_px),
            postprocessor=PostProcessor(
                calibration=calibration, image_score=image_score, score_scale=score_scale or ScoreScale()
            ),
            computation=Computation(engine=engine, precision=_PRECISIONS[precision], version=__version__),
            group_pattern=pattern_in(self.record),
        )
        self.computed_by = f"{engine} {precision} on {self.device.type}"

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        device: str = "auto",
        engine: str = "torch",
        precision: str = "float32",
        backbone: nn.Module | None = None,
    ) -> Detector:
        """Load the detector of a model folder.

        Args:
            folder: the model folder, as `supersimplenet train` wrote it.
            device: see `Detector`.
            engine: likewise.
            precision: likewise.
            backbone: the module that the model was trained with, if it was your own module.

        Raises:
            ModelFolderError: the folder is incomplete or damaged.
            BackboneError: the backbone's weights cannot be loaded.
        """
        network, record = load_model(Path(folder), backbone=backbone)
        detector = cls.of(
            network,
            record,
            read_calibration(Path(folder), weights_sha256=stated_hash(record, WEIGHTS_FILE)),
            preprocessor=load_preprocessor(Path(folder), record, network.config),
            device=device,
            engine=engine,
            precision=precision,
        )
        detector.folder = Path(folder)
        return detector

    @classmethod
    def of(
        cls,
        network: SuperSimpleNet,
        record: dict[str, Any],
        calibration: Calibration | None = None,
        *,
        preprocessor: Preprocessor | None = None,
        device: str = "auto",
        engine: str = "torch",
        precision: str = "float32",
    ) -> Detector:
        """Return the detector of a network, its model folder's config.yaml, its calibration and its preprocessor.

        The calibration's score decides, also where the training chose another one.
        """
        return cls(
            network,
            calibration=calibration,
            image_score=record.get("image_score", "head") if calibration is None else calibration.image_score,
            score_scale=from_plain(ScoreScale, record.get("score_scale", {}), where="config.yaml", name="score_scale"),
            preprocessor=preprocessor,
            device=device,
            engine=engine,
            precision=precision,
            record=record,
        )

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the network's input, to which the default preprocessor resizes images."""
        return self.network.config.size_px


def choose_device(name: str) -> torch.device:
    """Return the device of this name; ``auto`` uses a GPU where there is one.

    Raises:
        ConfigError: there is no such device, on this machine or at all.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise ConfigError(f"device: '{name}' cannot be used here ({reason}); choose auto, cpu or cuda") from error
    return device


def load_detector(model: Path, compute: ComputeConfig) -> Detector:
    """Load the detector of a model folder for a command; on the CPU if a Ray cluster computes.

    Prints a warning if the model was trained for too few steps.

    Raises:
        SuperSimpleNetError: of the class that names the cause.
    """
    if compute.engine == "ray":
        detector = Detector.load(model, device="cpu")
    else:
        detector = Detector.load(model, device=compute.device, engine=compute.engine, precision=compute.precision)
    warn_of_few_steps(model, detector.record)
    return detector


def warn_of_few_steps(model: Path, record: Mapping[str, Any]) -> None:
    """Print a warning if a model folder, with this config.yaml, was trained for too few steps."""
    if text := too_few_steps(total_steps(record)):
        console().print(f"{model}: trained for {text}")
