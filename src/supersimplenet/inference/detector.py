"""A trained model that looks at images by torch; evaluation, the command line and Python all call this one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from supersimplenet.errors import ConfigError, ImageError
from supersimplenet.inference.config import ComputeConfig
from supersimplenet.inference.engines import build_engine
from supersimplenet.inference.model_folder import load_model, load_preprocessor, read_calibration
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.postprocessing.postprocessor import PostProcessor
from supersimplenet.preprocessing.loading import Failure, ImageFile, OnError
from supersimplenet.preprocessing.prepared_image import PreparedImage
from supersimplenet.preprocessing.preprocessor import Preprocessor
from supersimplenet.runtime.predictor import Image, ImagePredictor
from supersimplenet.runtime.predictor import IndexedPrediction as IndexedPrediction
from supersimplenet.types import Prediction, ScoreName, ScoreScale
from supersimplenet.utils.serialization import from_plain


class Detector:
    """A trained network, ready to look at images.

    Args:
        network: the network; its weights are folded and copied.
        calibration: the thresholds and what they promise; without one an image is ``bad`` from logit 0 on, which
            promises nothing.
        image_score: which score that is: the classification head's, the map's maximum, or both fused.
        score_scale: puts both on one scale.
        preprocessor: how images are brought before the network; by default each is resized to its input size.
        device: where to compute, such as ``cpu`` or ``cuda``; ``auto`` takes a GPU where there is one.
        engine: what computes, ``torch`` or ``openvino`` (on a processor, where it is installed).
        precision: ``float32``, or ``bfloat16``: faster where the processor computes in it, and coarser.
        record: the model folder's config.yaml.

    Raises:
        ConfigError: there is no such device, engine or precision here, or the calibration is of another score.
    """

    def __init__(
        self,
        network: SuperSimpleNet,
        *,
        calibration: Calibration | None = None,
        image_score: ScoreName = "head",
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
        self.postprocessor = PostProcessor(
            calibration=calibration, image_score=image_score, score_scale=score_scale or ScoreScale()
        )
        self.preprocessor = preprocessor or Preprocessor.stretch(network.config.size_px)
        self.record = record or {}

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
        """The detector of a model folder.

        Args:
            folder: as `supersimplenet train` wrote it.
            device: see `Detector`.
            engine: likewise.
            precision: likewise.
            backbone: the module the model was trained with, where that was one of your own.

        Raises:
            ModelFolderError: the folder is incomplete or damaged.
            BackboneError: the backbone's weights cannot be had.
        """
        network, record = load_model(Path(folder), backbone=backbone)
        return cls.of(
            network,
            record,
            read_calibration(Path(folder)),
            preprocessor=load_preprocessor(Path(folder), record, network.config),
            device=device,
            engine=engine,
            precision=precision,
        )

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
        """The detector of a network, its model folder's config.yaml, its calibration and its view."""
        return cls(
            network,
            calibration=calibration,
            image_score=record.get("image_score", "head"),
            score_scale=from_plain(ScoreScale, record.get("score_scale", {}), where="config.yaml: score_scale"),
            preprocessor=preprocessor,
            device=device,
            engine=engine,
            precision=precision,
            record=record,
        )

    @property
    def calibration(self) -> Calibration | None:
        """The thresholds and what they promise; None where there are none."""
        return self.postprocessor.calibration

    @calibration.setter
    def calibration(self, calibration: Calibration | None) -> None:
        self.postprocessor = replace(self.postprocessor, calibration=calibration)

    @property
    def image_score(self) -> ScoreName:
        """Which score decides the verdict."""
        return self.postprocessor.image_score

    @property
    def score_scale(self) -> ScoreScale:
        """What puts both scores on one scale."""
        return self.postprocessor.score_scale

    @property
    def threshold_logit(self) -> float:
        """From this score on an image is ``bad``."""
        return self.postprocessor.threshold_logit

    @property
    def aligned(self) -> bool:
        """Whether images are aligned to a reference, and predictions say how they lay."""
        return self.preprocessor.aligner is not None

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the network's input, to which images are resized unless the view is another."""
        return self.network.config.size_px

    @overload
    def predict(self, images: Image) -> Prediction: ...
    @overload
    def predict(self, images: list[Image]) -> list[Prediction]: ...
    def predict(self, images: Image | list[Image]) -> Prediction | list[Prediction]:
        """Look at one image or several.

        Args:
            images: a path, a uint8 or uint16 array (H, W), (H, W, 3) or (H, W, 4) in RGB order, or a list of either.

        Returns:
            A prediction, or a list in the order of the images.

        Raises:
            ImageError: an image cannot be read.
        """
        if isinstance(images, str | Path | np.ndarray):
            return self.predict([images])[0]
        return self._looker.look_at_images(images)

    @property
    def images_at_once(self) -> int:
        """How many images go through the network together, unless told otherwise."""
        return self.engine.batch_size

    def predict_files(
        self,
        paths: Iterable[ImageFile | None],
        *,
        ignored: Callable[[int], NDArray[np.bool_] | None] = lambda index: None,
        batch_size: int | None = None,
        on_error: OnError = "stop",
        then: Callable[[IndexedPrediction], None] = lambda item: None,
    ) -> Iterator[IndexedPrediction | Failure]:
        """Look at many files, several at a time, in their order; memory does not grow with their number.

        Args:
            paths: image files; see `supersimplenet.preprocessing.loading.map_in_threads` for iterators that wait.
            ignored: pixels (H, W) of the image that count in no score, by its place in the list; called in several
                threads.
            batch_size: images that go through the network together; None for what suits the engine.
            on_error: ``stop`` raises at the first unreadable image, ``skip`` yields a `Failure` in its place.
            then: done with each prediction in the thread that made it, before it is given out.

        Raises:
            ImageError: an image cannot be read and ``on_error`` is ``stop``.
        """
        batch_size = self.images_at_once if batch_size is None else batch_size
        with self.engine.lanes() as lanes:
            yield from self._looker.look_at_files(
                paths,
                lanes=lanes,
                batch_size=batch_size,
                ignored=ignored,
                on_error=on_error,
                then=then,
            )

    def predict_prepared(self, seen: Sequence[PreparedImage], paths: Sequence[str | None]) -> list[Prediction]:
        """Look at images that `preprocessor.prepare` has brought before the network, all of them together.

        Args:
            seen: the images; there may be none.
            paths: where each came from, None for an array.
        """
        return self._looker.look(seen, paths)

    def predict_each(self, seen: Sequence[PreparedImage], paths: Sequence[str | None]) -> list[Prediction | ImageError]:
        """Return a prediction for each image, or the error in its place; see `predict_prepared`."""
        return self._looker.look_each(seen, paths)

    @property
    def _looker(self) -> ImagePredictor:
        return ImagePredictor(
            run=self.engine.run,
            postprocessor=self.postprocessor,
            preprocessor=self.preprocessor,
            tiles_at_once=self.engine.batch_size,
        )


def choose_device(name: str) -> torch.device:
    """The device of a name; ``auto`` takes a GPU where there is one.

    Raises:
        ConfigError: there is no such device, here or at all.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"device: '{name}' cannot be used here ({reason}); choose auto, cpu or cuda") from error
    return device


def load_detector(model: Path, compute: ComputeConfig) -> Detector:
    """The detector of a model folder; on the processor where a cluster computes.

    Raises:
        SuperSimpleNetError: of the kind that names the cause.
    """
    if compute.engine == "ray":
        return Detector.load(model, device="cpu")
    return Detector.load(model, device=compute.device, engine=compute.engine, precision=compute.precision)
