"""The line's detector: an exported file that looks at images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from supersimplenet.errors import ConfigError, ImageError
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.preprocessing.loading import Failure, ImageFile, OnError
from supersimplenet.preprocessing.prepared_image import PreparedImage
from supersimplenet.runtime.backends import Runner, open_file
from supersimplenet.runtime.bundle import Bundle
from supersimplenet.runtime.predictor import Image, ImagePredictor, IndexedPrediction
from supersimplenet.types import Prediction


class Inspector:
    """An exported model, ready to look at images. Its answers are those of a `Detector` of the same model.

    Args:
        runner: the loaded file.
        size_px: (height, width) to which images are resized, where the file leaves that open; by default the file's.

    Raises:
        ConfigError: a size that the file does not take.
    """

    def __init__(self, runner: Runner, *, size_px: tuple[int, int] | None = None) -> None:
        self.bundle: Bundle = runner.bundle
        self.image_size = _checked(self.bundle, size_px)
        self.postprocessor = self.bundle.postprocessor(self.image_size)
        self.preprocessor = self.bundle.make_preprocessor(self.image_size)
        self._runner = runner
        runner.prepare(self.image_size)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        size_px: tuple[int, int] | None = None,
        threads: int | None = None,
        trust: bool = False,
    ) -> Inspector:
        """The inspector of an exported file.

        Args:
            path: as `supersimplenet export` wrote it; name and content tell for which engine it is.
            size_px: see `Inspector`. The calibration holds at the size of the training alone: at another there is none.
            threads: for one image; by default the cores that this process may use.
            trust: also open a torch program, which may run code of whoever made it.

        Raises:
            ModelFolderError: no such file, another kind of file, a damaged one, or a torch program without ``trust``.
            ConfigError: its engine is not installed, or a size that it does not take.
        """
        return cls(open_file(Path(path), threads=threads, trust=trust), size_px=size_px)

    @property
    def calibration(self) -> Calibration | None:
        """The thresholds and what they promise; None where there are none for this size."""
        return self.postprocessor.calibration

    @property
    def threshold_logit(self) -> float:
        """From this score on an image is ``bad``."""
        return self.postprocessor.threshold_logit

    @property
    def aligned(self) -> bool:
        """Whether images are aligned to a reference, and predictions say how they lay."""
        return self.preprocessor.aligner is not None

    @property
    def engine(self) -> str:
        """Name and version of what computes."""
        return self._runner.version()

    @overload
    def inspect(self, images: Image) -> Prediction: ...
    @overload
    def inspect(self, images: list[Image]) -> list[Prediction]: ...
    def inspect(self, images: Image | list[Image]) -> Prediction | list[Prediction]:
        """Look at one image or several.

        Args:
            images: a path, a uint8 or uint16 array (H, W), (H, W, 3) or (H, W, 4) in RGB order, or a list of either.

        Returns:
            A prediction, or a list in the order of the images.

        Raises:
            ImageError: an image cannot be read.
        """
        if isinstance(images, str | Path | np.ndarray):
            return self.inspect([images])[0]
        return self._looker.look_at_images(images)

    @property
    def images_at_once(self) -> int:
        """How many images go through the network together, unless told otherwise."""
        return 1

    def predict_files(
        self,
        paths: Iterable[ImageFile | None],
        *,
        batch_size: int | None = None,
        on_error: OnError = "stop",
        then: Callable[[IndexedPrediction], None] = lambda item: None,
    ) -> Iterator[IndexedPrediction | Failure]:
        """Look at many files, one in each thread, in their order; memory does not grow with their number.

        Args:
            paths: image files.
            batch_size: images that a thread takes at once; by default one.
            on_error: ``stop`` raises at the first unreadable image, ``skip`` yields a `Failure` in its place.
            then: done with each prediction in the thread that made it, before it is given out.

        Raises:
            ImageError: an image cannot be read and ``on_error`` is ``stop``.
        """
        with self._runner.lanes() as lanes:
            yield from self._looker.look_at_files(
                paths,
                lanes=lanes,
                batch_size=self.images_at_once if batch_size is None else batch_size,
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
        return ImagePredictor(run=self._runner.run, postprocessor=self.postprocessor, preprocessor=self.preprocessor)


def _checked(bundle: Bundle, size_px: tuple[int, int] | None) -> tuple[int, int]:
    if size_px is None or tuple(size_px) == bundle.size_px:
        return bundle.size_px
    height, width = size_px
    if bundle.step_px is None:
        fixed = "x".join(map(str, bundle.size_px))
        raise ConfigError(f"size: {height}x{width}, but the file was exported for {fixed}; export with --dynamic")
    if height % bundle.step_px or width % bundle.step_px or min(size_px) < 2 * bundle.step_px:
        raise ConfigError(f"size: {height}x{width}; wanted multiples of {bundle.step_px}, from two of them on")
    return int(height), int(width)
