"""The inspector: predicts images with an exported file, on the production computer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from supersimplenet.errors import ConfigError
from supersimplenet.postprocessing.parts import pattern_in
from supersimplenet.preprocessing.images import AnyImage
from supersimplenet.runtime.backends import FileBackend, open_file
from supersimplenet.runtime.bundle import Bundle
from supersimplenet.runtime.predictor import Predictor
from supersimplenet.runtime.tiles import NamedOutputs


class Inspector(Predictor):
    """An exported model, ready to predict. Its predictions are those of a `Detector` of the same model.

    Args:
        backend: the loaded file.
        size_px: (height, width) to which images are resized, if the file leaves it open; by default the file's size.

    Raises:
        ConfigError: the file does not accept this size.
    """

    def __init__(self, backend: FileBackend, *, size_px: tuple[int, int] | None = None) -> None:
        self._file, self.bundle = backend, backend.bundle
        self.image_size = _checked(self.bundle, size_px)
        super().__init__(
            backend,
            preprocessor=self.bundle.make_preprocessor(self.image_size),
            postprocessor=self.bundle.make_postprocessor(self.image_size),
            computation=self.bundle.computation,
            group_pattern=pattern_in(self.bundle.config),
        )
        self.engine_version = backend.version()
        self.computed_by = self.engine_version
        backend.prepare(self.image_size)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        size_px: tuple[int, int] | None = None,
        threads: int | None = None,
        trust: bool = False,
    ) -> Inspector:
        """Load an exported file.

        Args:
            path: exported file, as `supersimplenet export` wrote it; its suffix and content determine the engine.
            size_px: see `Inspector`. The calibration holds only at the size of the training; at any other size there is
                no calibration.
            threads: number of threads for one image; by default the number of cores that this process may use.
            trust: also open a torch program, which may run code of its author.

        Raises:
            ModelFolderError: no such file, another kind of file, a damaged file, or a torch program without ``trust``.
            ConfigError: the engine of the file is not installed, or the file does not accept this size.
        """
        return cls(open_file(Path(path), threads=threads, trust=trust), size_px=size_px)

    def inspect(self, images: Any) -> Any:
        """Predict images; an alias of `predict`."""
        return self.predict(images)

    def graph_outputs(self, image: AnyImage) -> NamedOutputs:
        """Return what the file's graph itself gives for an image, as any other program would get it.

        Returns:
            Each output (1, ...) by name; `Bundle.outputs` describes them. Of an image in tiles: of its first tile.

        Raises:
            ImageError: the image cannot be read.
        """
        tile = next(self.preprocessor.prepare(image).tiles())
        return self._file.outputs(tile.pixels[None], None if tile.ignored is None else tile.ignored[None])


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
