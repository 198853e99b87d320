"""Where an image becomes a prediction: evaluation, the command line and Python all call this one place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from supersimplenet.calibration import UNCALIBRATED_LOGIT, Calibration, verdict
from supersimplenet.data.images import prepare_pixels, read_image_and_size
from supersimplenet.data.loading import Failure, OnError, PixelBatch, in_lanes
from supersimplenet.defects import find_defects
from supersimplenet.deploy.engines import build_engine
from supersimplenet.deploy.folder import from_plain, load_model, read_calibration
from supersimplenet.errors import ConfigError, ImageError
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.records import Prediction, ScoreName, ScoreScale

Image = str | Path | NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """A prediction and the place of its image in the list it came from."""

    index: int
    prediction: Prediction


class Detector:
    """A trained network, ready to look at images.

    Args:
        network: the network; its weights are folded and copied.
        calibration: the thresholds and what they promise; without one an image is ``bad`` from logit 0 on, which
            promises nothing.
        image_score: which score that is: the classification head's, the map's maximum, or both fused.
        score_scale: puts both on one scale.
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
        device: str = "auto",
        engine: str = "torch",
        precision: str = "float32",
        record: dict[str, Any] | None = None,
    ) -> None:
        self.device = choose_device("cpu" if engine == "openvino" and device == "auto" else device)
        self.network = network.eval()
        self.engine = build_engine(network, name=engine, device=self.device, precision=precision)
        if calibration is not None and calibration.image_score != image_score:
            raise ConfigError(
                f"calibration: of the {calibration.image_score} score, but the {image_score} score decides here; "
                "calibrate again"
            )
        self.calibration = calibration
        self.image_score: ScoreName = image_score
        self.score_scale = score_scale or ScoreScale()
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
        calibration = read_calibration(Path(folder))
        return cls.of(network, record, calibration, device=device, engine=engine, precision=precision)

    @classmethod
    def of(
        cls,
        network: SuperSimpleNet,
        record: dict[str, Any],
        calibration: Calibration | None = None,
        *,
        device: str = "auto",
        engine: str = "torch",
        precision: str = "float32",
    ) -> Detector:
        """The detector of a network, its model folder's config.yaml and its calibration."""
        return cls(
            network,
            calibration=calibration,
            image_score=record.get("image_score", "head"),
            score_scale=from_plain(ScoreScale, record.get("score_scale", {}), where="config.yaml: score_scale"),
            device=device,
            engine=engine,
            precision=precision,
            record=record,
        )

    @property
    def threshold_logit(self) -> float:
        """From this score on an image is ``bad``."""
        return UNCALIBRATED_LOGIT if self.calibration is None else self.calibration.threshold_logit

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width to which images are resized."""
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
        if not isinstance(images, list | tuple):
            raise ImageError(f"{type(images).__name__}: wanted a path, a numpy array, or a list of either")
        predictions: list[Prediction] = []
        for image in images:
            if isinstance(image, np.ndarray):
                pixels, own_size, path = prepare_pixels(image, size_px=self.image_size), image.shape[:2], None
            elif isinstance(image, str | Path):
                pixels, own_size = read_image_and_size(Path(image), size_px=self.image_size)
                path = str(image)
            else:
                raise ImageError(f"{type(image).__name__}: wanted a path or a numpy array")
            predictions += self.predict_pixels(pixels[None], [path], image_sizes_px=[own_size])
        return predictions

    def predict_files(
        self,
        paths: Iterable[Path],
        *,
        ignored: Callable[[int], NDArray[np.bool_] | None] = lambda index: None,
        batch_size: int | None = None,
        on_error: OnError = "stop",
        then: Callable[[Indexed], None] = lambda item: None,
    ) -> Iterator[Indexed | Failure]:
        """Look at many files, several at a time, in their order; memory does not grow with their number.

        Args:
            paths: image files.
            ignored: pixels (H, W) at the network's input size that count in no score, by the image's place in the
                list; called in several threads.
            batch_size: images that go through the network together; None for what suits the engine.
            on_error: ``stop`` raises at the first unreadable image, ``skip`` yields a `Failure` in its place.
            then: done with each prediction in the thread that made it, before it is given out.

        Raises:
            ImageError: an image cannot be read and ``on_error`` is ``stop``.
        """

        def look(batch: PixelBatch) -> list[Indexed | Failure]:
            masks = [ignored(index) for index in batch.index]
            predictions = self.predict_pixels(
                batch.pixels, [str(path) for path in batch.paths], masks, batch.image_sizes_px
            )
            found = [Indexed(index=i, prediction=p) for i, p in zip(batch.index, predictions, strict=True)]
            for item in found:
                then(item)
            return sorted([*found, *batch.failures], key=lambda item: item.index)

        batch_size = self.engine.batch_size if batch_size is None else batch_size
        with self.engine.lanes() as lanes:
            for items in in_lanes(
                look, paths, lanes=lanes, size_px=self.image_size, batch_size=batch_size, on_error=on_error
            ):
                yield from items

    def predict_pixels(
        self,
        pixels: NDArray[np.uint8],
        paths: Sequence[str | None],
        ignored: Sequence[NDArray[np.bool_] | None] | None = None,
        image_sizes_px: Sequence[tuple[int, int]] | None = None,
    ) -> list[Prediction]:
        """Look at pixels that have the network's size already: the one place where an image becomes a prediction.

        Args:
            pixels: (B, H, W, 3) uint8, RGB; B may be 0.
            paths: where each came from, None for an array.
            ignored: (H, W) of each image, pixels that count in no score and no defect; None for none.
            image_sizes_px: (height, width) of each image before it was resized, in whose pixels defects are given;
                by default the network's.
        """
        if len(pixels) == 0:
            return []
        sizes = [self.image_size] * len(pixels) if image_sizes_px is None else image_sizes_px
        masks = [None] * len(pixels) if ignored is None else ignored
        if any(mask is not None for mask in masks):
            nowhere = np.zeros(self.image_size, dtype=bool)
            excluded = np.stack([nowhere if mask is None else mask for mask in masks])
            maps, heads = self.engine.run(pixels, excluded)
            counted = np.where(excluded, np.float32(-np.inf), maps)
        else:
            maps, heads = self.engine.run(pixels)
            counted = maps
        return [
            self._prediction(path, head, values, within, size)
            for path, head, values, within, size in zip(paths, heads.tolist(), maps, counted, sizes, strict=True)
        ]

    def _prediction(
        self,
        path: str | None,
        head_logit: float,
        map_logit: NDArray[np.float32],
        counted: NDArray[np.float32],
        image_size_px: tuple[int, int],
    ) -> Prediction:
        map_max_logit = float(counted.max())
        fused_logit = self.score_scale.fuse(head_logit, map_max_logit)
        calibration = self.calibration
        score_logit = {"head": head_logit, "map": map_max_logit, "fused": fused_logit}[self.image_score]
        return Prediction(
            path=path,
            head_logit=head_logit,
            map_max_logit=map_max_logit,
            fused_logit=fused_logit,
            decides=self.image_score,
            verdict=verdict(score_logit, calibration),
            p_value=None if calibration is None else calibration.p_value(score_logit),
            defects=None
            if calibration is None
            else find_defects(
                counted,
                pixel_logit=calibration.pixel_logit,
                min_area_px=calibration.min_area_px,
                image_size_px=image_size_px,
            ),
            map_logit=map_logit,
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
