"""The only way from images to predictions; `Detector` and `Inspector` only add a backend. No torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from supersimplenet.errors import ImageError
from supersimplenet.postprocessing.calibration import Calibration, Computation
from supersimplenet.postprocessing.postprocessor import PostProcessor
from supersimplenet.postprocessing.score_scale import ScoreScale
from supersimplenet.postprocessing.zones import Zones
from supersimplenet.preprocessing.decoding import EncodedImage
from supersimplenet.preprocessing.images import AnyImage, ImageFacts
from supersimplenet.preprocessing.loading import Failure, ImageBatch, ImageFile, OnError, map_in_threads
from supersimplenet.preprocessing.prepared_image import Layout, PreparedImage
from supersimplenet.preprocessing.preprocessor import Preprocessor
from supersimplenet.runtime.tiles import ImageOutputs, Outputs, TileRunner
from supersimplenet.types import Prediction, ScoreName

AnyPredictor = TypeVar("AnyPredictor", bound="Predictor")
_IMAGE_TYPES = (str, Path, EncodedImage, PillowImage.Image, np.ndarray)
_LARGE_IMAGES = 2  # number that is predicted at once: one is read while the other is computed


class Backend(Protocol):
    """Runs the network.

    Attributes:
        batch_size: number of images that are best run together.
    """

    batch_size: int

    def run(self, pixels: NDArray[np.uint8], ignored: NDArray[np.bool_] | None = None) -> Outputs:
        """Turn (B, H, W, 3) uint8 into maps (B, H, W) and scores (B,). May be called from any thread.

        Pixels of ``ignored`` (B, H, W) count in no score, and do not affect the map at any other pixel.
        """

    def worker_threads(self) -> AbstractContextManager[int]:
        """Return a context for calling `run` from several threads at once; it yields the best number of threads."""


@dataclass(frozen=True, kw_only=True)
class IndexedPrediction:
    """A prediction, the place of its image in the list it came from, the image's file, and facts about it if asked."""

    index: int
    file: ImageFile
    prediction: Prediction
    facts: ImageFacts | None = None


class SupportsPredict(Protocol):
    """A predictor of files, with only the methods that a table of predictions needs."""

    @property
    def calibration(self) -> Calibration | None:
        """The thresholds and what they guarantee."""

    @property
    def is_calibrated(self) -> bool:
        """Whether there are thresholds whose guarantee holds."""

    @property
    def threshold_logit(self) -> float:
        """The threshold: an image is ``bad`` from this score on."""

    @property
    def list_all(self) -> bool:
        """Whether regions of the map are also listed as defects of images that are good."""

    @property
    def aligned(self) -> bool:
        """Whether images are aligned with a reference, so that predictions contain an alignment."""

    @property
    def group_pattern(self) -> str | None:
        """What found the part's name in a file's name in the training; None where parts were not told apart."""

    @property
    def images_at_once(self) -> int:
        """Number of images that go through the network together by default."""

    @property
    def computed_by(self) -> str:
        """What computes, as far as it decides the last digits: engine, number type and kind of device."""

    def predict_files(
        self,
        paths: Iterable[ImageFile | None],
        *,
        batch_size: int | None = None,
        on_error: OnError = "stop",
        then: Callable[[IndexedPrediction], None] = lambda item: None,
    ) -> Iterator[IndexedPrediction | Failure]:
        """Predict many files, in their order; see `Predictor.predict_files`."""


class Predictor:
    """Turns images into predictions: preprocessor, backend, postprocessor.

    Args:
        backend: runs the network.
        preprocessor: turns images into the network's input.
        postprocessor: turns the network's outputs into a prediction.
        computation: how the backend computes; None where it is unknown.
        group_pattern: what found the part's name in a file's name in the training; None where parts were not told
            apart.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        preprocessor: Preprocessor,
        postprocessor: PostProcessor,
        computation: Computation | None = None,
        group_pattern: str | None = None,
    ) -> None:
        self.backend = backend
        self.computed_by = "the caller"
        self.preprocessor = preprocessor
        self.postprocessor = postprocessor
        self.computation = computation
        self.group_pattern = group_pattern
        self.calibration = postprocessor.calibration

    def __repr__(self) -> str:
        guarantee = "not calibrated" if self.calibration is None else self.calibration.guarantee()
        return f"{type(self).__name__}({self.image_score} score, bad from {self.threshold_logit:.3f} on; {guarantee})"

    @property
    def calibration(self) -> Calibration | None:
        """The thresholds and what they guarantee; None where there are none. Their score decides from then on."""
        return self.postprocessor.calibration

    @calibration.setter
    def calibration(self, calibration: Calibration | None) -> None:
        score = self.image_score
        if calibration is not None:
            calibration, score = replace(calibration, applied_to=self.computation), calibration.image_score
        self.postprocessor = replace(self.postprocessor, calibration=calibration, image_score=score)

    def without_thresholds(self: AnyPredictor, image_score: ScoreName, zones: Zones | None) -> AnyPredictor:
        """Return this predictor without thresholds, deciding by another score, on the same backend.

        Args:
            image_score: the score that decides.
            zones: the zones whose score is computed; None for none.

        Raises:
            ConfigError: there is no such score.
        """
        other = copy.copy(self)
        other.postprocessor = replace(self.postprocessor, calibration=None, image_score=image_score, zones=zones)
        return other

    @property
    def is_calibrated(self) -> bool:
        """Whether there are thresholds whose guarantee holds."""
        return self.calibration is not None and self.calibration.holds

    @property
    def image_score(self) -> ScoreName:
        """The score that decides the verdict."""
        return self.postprocessor.image_score

    @property
    def list_all(self) -> bool:
        """Whether regions of the map are also listed as defects of images that are good; False unless it is set."""
        return self.postprocessor.list_all

    @list_all.setter
    def list_all(self, list_all: bool) -> None:
        self.postprocessor = replace(self.postprocessor, list_all=list_all)

    @property
    def score_scale(self) -> ScoreScale:
        """The scale that makes both image scores comparable."""
        return self.postprocessor.score_scale

    @property
    def threshold_logit(self) -> float:
        """The threshold: an image is ``bad`` from this score on."""
        return self.postprocessor.threshold_logit

    @property
    def aligned(self) -> bool:
        """Whether images are aligned with a reference, so that predictions contain an alignment."""
        return self.preprocessor.aligner is not None

    @property
    def images_at_once(self) -> int:
        """Number of images that go through the network together by default."""
        return self.backend.batch_size

    @overload
    def predict(self, images: AnyImage) -> Prediction: ...
    @overload
    def predict(self, images: list[AnyImage]) -> list[Prediction]: ...
    def predict(self, images: AnyImage | list[AnyImage]) -> Prediction | list[Prediction]:
        """Predict one image or several.

        Args:
            images: a path, a `PIL.Image.Image`, a uint8 or uint16 array (H, W), (H, W, 3) or (H, W, 4) in RGB order,
                or a list of any of these.

        Returns:
            A prediction, or a list in the order of the images.

        Raises:
            ImageError: an image cannot be read, or its score is not finite.
        """
        if isinstance(images, _IMAGE_TYPES):
            return self._predict_one(images)
        if not isinstance(images, list | tuple):
            raise ImageError(f"{type(images).__name__}: wanted a path, a PIL image, a numpy array, or a list of these")
        return [self._predict_one(image) for image in images]

    def predict_files(
        self,
        paths: Iterable[ImageFile | None],
        *,
        ignored: Callable[[int], NDArray[np.bool_] | None] = lambda index: None,
        batch_size: int | None = None,
        with_facts: bool = False,
        on_error: OnError = "stop",
        then: Callable[[IndexedPrediction], None] = lambda item: None,
    ) -> Iterator[IndexedPrediction | Failure]:
        """Predict many files, several at a time, in their order; memory does not grow with their number.

        Args:
            paths: image files; see `map_in_threads` for iterators that wait.
            ignored: returns the pixels (H, W) of an image that count in no score, by its index in the list; called in
                several threads.
            batch_size: number of images that go through the network together; None for the backend's best number.
            with_facts: also return the facts about each file; see `PreparedImage.facts`.
            on_error: ``stop`` raises at the first image that cannot be predicted, ``skip`` yields a `Failure` in its
                place.
            then: called with each prediction in the thread that made it, before the prediction is yielded.

        Raises:
            ImageError: an image cannot be read, or its score is not finite, and ``on_error`` is ``stop``.
        """
        batch_size = self.images_at_once if batch_size is None else batch_size
        options: Any = {"ignored": ignored, "with_facts": with_facts, "on_error": on_error, "then": then}
        with self.backend.worker_threads() as threads:
            if self.preprocessor.config.fit == "tiles":
                # At most two large images are in memory at a time; all threads of the pool share their tiles.
                with ThreadPoolExecutor(threads, thread_name_prefix="tiles") as pool:
                    runner = TileRunner(run=self.backend.run, tiles_at_once=batch_size, pool=pool, threads=threads)
                    yield from self._map_files(paths, runner, min(threads, _LARGE_IMAGES), 1, **options)
            else:
                runner = TileRunner(run=self.backend.run)
                yield from self._map_files(paths, runner, threads, batch_size, **options)

    def predict_prepared(
        self, prepared: Sequence[PreparedImage], paths: Sequence[str | None], *, on_error: OnError = "stop"
    ) -> list[Prediction | Failure]:
        """Predict images that the preprocessor has prepared, all of them together.

        Args:
            prepared: the images; there may be none.
            paths: path of each image, None for an array.
            on_error: ``stop`` raises at an image whose score is not finite, ``skip`` returns a `Failure` in its place.

        Raises:
            ImageError: an image's score is not finite and ``on_error`` is ``stop``.
        """
        runner = TileRunner(run=self.backend.run, tiles_at_once=self.backend.batch_size)
        return self._predict_prepared(prepared, paths, runner, on_error=on_error)

    def _predict_one(self, image: AnyImage) -> Prediction:
        if not isinstance(image, _IMAGE_TYPES):
            raise ImageError(f"{type(image).__name__}: wanted a path, a PIL image or a numpy array")
        path = str(image) if isinstance(image, str | Path | EncodedImage) else None
        (prediction,) = self.predict_prepared([self.preprocessor.prepare(image)], [path])
        assert isinstance(prediction, Prediction)  # a failure raises here
        return prediction

    def _map_files(
        self,
        paths: Iterable[ImageFile | None],
        runner: TileRunner,
        threads: int,
        batch_size: int,
        *,
        ignored: Callable[[int], NDArray[np.bool_] | None],
        with_facts: bool,
        on_error: OnError,
        then: Callable[[IndexedPrediction], None],
    ) -> Iterator[IndexedPrediction | Failure]:
        def work(batch: ImageBatch) -> list[IndexedPrediction | Failure]:
            found = self._predict_prepared(
                batch.prepared, [str(path) for path in batch.paths], runner, on_error=on_error
            )
            facts = [prepared.facts for prepared in batch.prepared]
            batch.prepared.clear()  # frees memory for the next steps
            items: list[IndexedPrediction | Failure] = [*batch.failures]
            for index, file, prediction, about in zip(batch.index, batch.paths, found, facts, strict=True):
                if isinstance(prediction, Failure):
                    items.append(replace(prediction, index=index, path=file))
                else:
                    item = IndexedPrediction(index=index, file=file, prediction=prediction, facts=about)
                    then(item)
                    items.append(item)
            return sorted(items, key=lambda item: item.index)

        for items in map_in_threads(
            work,
            paths,
            threads=threads,
            preprocessor=self.preprocessor,
            batch_size=batch_size,
            ignored=ignored,
            with_facts=with_facts,
            on_error=on_error,
        ):
            yield from items

    def _predict_prepared(
        self, prepared: Sequence[PreparedImage], paths: Sequence[str | None], runner: TileRunner, *, on_error: OnError
    ) -> list[Prediction | Failure]:
        if not prepared:
            return []
        outputs = runner.outputs(prepared)
        layouts = [image.layout for image in prepared]
        return [
            self._postprocess(index, *of_image, on_error=on_error)
            for index, of_image in enumerate(zip(outputs, layouts, paths, strict=True))
        ]

    def _postprocess(
        self,
        index: int,
        outputs: ImageOutputs,
        layout: Layout,
        path: str | None,
        *,
        on_error: OnError,
    ) -> Prediction | Failure:
        try:
            return self.postprocessor(*outputs, layout=layout, path=path)
        except ImageError as error:
            if on_error == "stop":
                raise
            return Failure(index=index, path=Path(path or "array"), reason=str(error))
