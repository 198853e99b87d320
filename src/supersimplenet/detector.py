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

from supersimplenet.data.images import prepare_pixels, read_image
from supersimplenet.data.loading import Failure, OnError, PixelBatch, in_lanes
from supersimplenet.deploy.engines import build_engine
from supersimplenet.deploy.folder import load_model
from supersimplenet.errors import ConfigError, ImageError
from supersimplenet.model.network import SuperSimpleNet
from supersimplenet.records import Prediction, probability

DEFAULT_THRESHOLD = 0.5

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
        threshold: the verdict is ``bad`` where the score, a probability, reaches it.
        device: where to compute, such as ``cpu`` or ``cuda``; ``auto`` takes a GPU where there is one.
        engine: what computes, ``torch`` or ``openvino`` (on a processor, where it is installed).
        precision: ``float32``, or ``bfloat16``: faster where the processor computes in it, and coarser.
        record: the model folder's config.yaml.

    Raises:
        ConfigError: there is no such device, engine or precision here.
    """

    def __init__(
        self,
        network: SuperSimpleNet,
        *,
        threshold: float = DEFAULT_THRESHOLD,
        device: str = "auto",
        engine: str = "torch",
        precision: str = "float32",
        record: dict[str, Any] | None = None,
    ) -> None:
        self.device = choose_device("cpu" if engine == "openvino" and device == "auto" else device)
        self.network = network.eval()
        self.engine = build_engine(network, name=engine, device=self.device, precision=precision)
        self.threshold = threshold
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
        threshold = record.get("threshold", DEFAULT_THRESHOLD)
        return cls(network, threshold=threshold, device=device, engine=engine, precision=precision, record=record)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width to which images are resized."""
        return self.network.config.image_size

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
                pixels, path = prepare_pixels(image, size_px=self.image_size), None
            elif isinstance(image, str | Path):
                pixels, path = read_image(Path(image), size_px=self.image_size), str(image)
            else:
                raise ImageError(f"{type(image).__name__}: wanted a path or a numpy array")
            predictions += self.predict_pixels(pixels[None], [path])
        return predictions

    def predict_files(
        self,
        paths: Iterable[Path],
        *,
        batch_size: int | None = None,
        on_error: OnError = "stop",
        then: Callable[[Indexed], None] = lambda item: None,
    ) -> Iterator[Indexed | Failure]:
        """Look at many files, several at a time, in their order; memory does not grow with their number.

        Args:
            paths: image files.
            batch_size: images that go through the network together; None for what suits the engine.
            on_error: ``stop`` raises at the first unreadable image, ``skip`` yields a `Failure` in its place.
            then: done with each prediction in the thread that made it, before it is given out.

        Raises:
            ImageError: an image cannot be read and ``on_error`` is ``stop``.
        """

        def look(batch: PixelBatch) -> list[Indexed | Failure]:
            predictions = self.predict_pixels(batch.pixels, [str(path) for path in batch.paths])
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

    def predict_pixels(self, pixels: NDArray[np.uint8], paths: Sequence[str | None]) -> list[Prediction]:
        """Look at pixels that have the network's size already: the one place where an image becomes a prediction.

        Args:
            pixels: (B, H, W, 3) uint8, RGB; B may be 0.
            paths: where each came from, None for an array.
        """
        if len(pixels) == 0:
            return []
        maps, scores = self.engine.run(pixels)
        return [
            Prediction(
                path=path,
                score_logit=score,
                map_max_logit=peak,
                verdict="bad" if probability(score) >= self.threshold else "good",
                map_logit=values,
            )
            for path, score, peak, values in zip(paths, scores.tolist(), maps.max((1, 2)).tolist(), maps, strict=True)
        ]


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
