"""The models of a station: one a product, exchanged while it runs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import (
    CALIBRATION_FILE,
    CONFIG_FILE,
    HERE,
    REFERENCE_FILE,
    ROI_FILE,
    WEIGHTS_FILE,
    ComputeConfig,
    to_plain,
)
from supersimplenet.prediction.predict import open_model
from supersimplenet.runtime.predictor import Predictor
from supersimplenet.utils.files import file_sha256
from supersimplenet.utils.version import __version__

_EXPORTED = (".onnx", ".zip", ".xml", ".pt2")
_DECIDING_FILES = (CONFIG_FILE, WEIGHTS_FILE, CALIBRATION_FILE, ROI_FILE, REFERENCE_FILE)


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model that inspects the pictures of a product.

    Attributes:
        id: SHA-256 of all that decides a verdict (``facts``): equal ids decide alike.
        product: name of the product.
        path: model folder or exported file.
        predictor: predicts images.
        facts: hashes of the files, engine, versions and calibration, in plain values.
        threads: best number of threads that predict at once.
        base: the model as it was loaded, where a person has set another threshold; else None.
    """

    id: str
    product: str
    path: Path
    predictor: Predictor
    facts: Mapping[str, Any]
    threads: int
    context: ExitStack = field(repr=False, compare=False)
    base: LoadedModel | None = None


class Models:
    """The models in use, by product.

    Args:
        paths: model folder or exported file of each product.
        folder: folder of models that may be chosen later; None for no change.
        one_by_one: whether images are computed one after another, each on all cores.
        compute: device, engine and precision for model folders.
        trust: also open exported torch programs, which may run code of their authors.

    Raises:
        ConfigError: no model is named, or one cannot be used as asked.
        SuperSimpleNetError: a model cannot be opened; the subclass names the cause.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        *,
        folder: Path | None = None,
        one_by_one: bool = False,
        compute: ComputeConfig = HERE,
        trust: bool = False,
    ) -> None:
        if not paths:
            raise ConfigError("model: none is named; give --model, a model folder or an exported file")
        self._folder, self._one_by_one = folder, one_by_one
        self._compute, self._trust = compute, trust
        self._changes = threading.Lock()
        self._models = {product: self._load(product, path) for product, path in paths.items()}

    def __iter__(self) -> Iterator[LoadedModel]:
        return iter(list(self._models.values()))

    def of(self, product: str | None) -> LoadedModel:
        """Return the model of a product; where there is one product alone, it need not be named.

        Raises:
            KeyError: there is no such product, or several and none is named.
        """
        models = self._models
        if product is None and len(models) == 1:
            return next(iter(models.values()))
        return models[product or ""]

    @property
    def products(self) -> list[str]:
        """The names of the products."""
        return list(self._models)

    @property
    def threads(self) -> int:
        """Best number of threads that predict at once."""
        return max(model.threads for model in self)

    def change(self, product: str, path: Path) -> LoadedModel:
        """Load a model and use it for a product from now on; images that the earlier one has begun it also ends.

        Raises:
            SuperSimpleNetError: it cannot be opened; the earlier model stays.
        """
        with self._changes:
            model = self._load(product, path)
            earlier = self._models.get(product)
            self._models = {**self._models, product: model}
            if earlier is not None:
                earlier.context.close()
                if not self._one_by_one:  # what it had set for the whole process, the model in use needs, too
                    model.context.enter_context(model.predictor.backend.worker_threads())
            return model

    def exchange(self, model: LoadedModel) -> None:
        """Use the same model with another threshold for its product from now on."""
        with self._changes:
            self._models = {**self._models, model.product: model}

    def available(self) -> list[str]:
        """Return the names of the models that may be chosen: folders and exported files below the folder of models."""
        if self._folder is None:
            return []
        folders = [file.parent for file in self._folder.rglob(CONFIG_FILE)]
        files = [file for suffix in _EXPORTED for file in self._folder.rglob(f"*{suffix}")]
        return [path.relative_to(self._folder).as_posix() for path in (*folders, *files)]

    def chosen(self, name: str) -> Path:
        """Return the path of a model that may be chosen.

        Raises:
            ConfigError: there is none of this name, or none may be chosen.
        """
        if self._folder is None:
            raise ConfigError("models: the station was started without --models, a folder of models to choose from")
        if name not in self.available():
            raise ConfigError(f"model: '{name}' is not below {self._folder.name}; GET /v1/models/available lists them")
        return self._folder / name

    def close(self) -> None:
        """Close all models."""
        for model in self:
            model.context.close()

    def _load(self, product: str, path: Path) -> LoadedModel:
        predictor = open_model(path, self._compute, trust=self._trust)
        if not isinstance(predictor, Predictor):
            raise ConfigError("engine: ray predicts tables of files; a station computes on its own machine")
        facts = _facts(path, predictor)
        context = ExitStack()
        threads = 1 if self._one_by_one else context.enter_context(predictor.backend.worker_threads())
        return LoadedModel(
            id=id_of(facts),
            product=product,
            path=path,
            predictor=predictor,
            facts=facts,
            threads=threads,
            context=context,
        )


def id_of(facts: Mapping[str, Any]) -> str:
    """Return the id of a model by all that decides."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _facts(path: Path, predictor: Predictor) -> dict[str, Any]:
    """Return what decides a verdict, in plain values."""
    names = [path] if path.is_file() else [path / name for name in _DECIDING_FILES if (path / name).is_file()]
    return {
        "files": {name.name: file_sha256(name) for name in names},
        "computed_by": predictor.computed_by,
        "version": __version__,
        "image_score": predictor.image_score,
        "threshold_logit": predictor.threshold_logit,
        "calibration": to_plain(predictor.calibration),
        "guarantee": None if predictor.calibration is None else predictor.calibration.guarantee(),
    }
