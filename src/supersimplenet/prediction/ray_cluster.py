"""Predict and evaluate on many machines with Ray: readers prepare images on CPUs, workers with the model predict them.

The driver, which is the process of the command, sends the names of the images and receives the predictions in order,
without their anomaly maps. It writes the same files as on one machine, and continues in the same way after an
interruption. If a worker is lost, another worker repeats the lost worker's images.
"""

from __future__ import annotations

import logging
import os
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from supersimplenet.errors import ConfigError, ImageError
from supersimplenet.evaluation.evaluate import PartialEvaluation, evaluate_shard
from supersimplenet.inference.config import ComputeConfig
from supersimplenet.inference.detector import Detector
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.prediction.ray_reader import Batch, Reader, column
from supersimplenet.preprocessing.loading import Failure, ImageFile, OnError
from supersimplenet.runtime import Inspector
from supersimplenet.runtime.predictor import IndexedPrediction
from supersimplenet.types import Resolution, Sample
from supersimplenet.utils.formatting import first_line
from supersimplenet.utils.iteration import in_blocks

_BLOCK_IMAGES = 32  # images that are read together; if a worker is lost, they are repeated together
_SHARD_IMAGES = 64  # test images that are evaluated together, before the results are merged
# Shares of a core: without a GPU, a worker and its reader share one core.
_WORKER_CORES, _READER_CORES = 0.7, 0.3


class Cluster:
    """A predictor of files with many workers; implements `supersimplenet.runtime.predictor.SupportsPredict`.

    Args:
        model: the model folder, or an exported file; its content is sent to the workers.
        config: the cluster, the number of workers, and their device and precision.
        trust: also open an exported torch program, which may run any code of its author.

    Raises:
        ConfigError: Ray is not installed, or there is no such cluster.
        ModelFolderError: the model cannot be read.
    """

    images_at_once = 1

    def __init__(self, model: Path, config: ComputeConfig, *, trust: bool = False) -> None:
        local = Inspector.load(model, trust=trust) if model.is_file() else Detector.load(model, device="cpu")
        self.detector = local
        self.calibration: Calibration | None = local.calibration
        self.is_calibrated = local.is_calibrated
        self.threshold_logit = local.threshold_logit
        self.aligned = local.aligned
        self.list_all = False
        self.group_pattern = local.group_pattern
        self._config, self._trust = config, trust
        connect(config.address)
        import ray

        kind = "cuda" if self._on_gpu() else "cpu"
        self.computed_by = local.computed_by if model.is_file() else f"torch {config.precision} on {kind}"

        # References are in lists: else Ray would send the content with each start of an actor, and warn of losing it.
        self._files, self._sent_preprocessor = [ray.put(_read_model(model))], [ray.put(local.preprocessor)]

    def predict_files(
        self,
        paths: Iterable[ImageFile | None],
        *,
        batch_size: int | None = None,
        on_error: OnError = "stop",
        then: Callable[[IndexedPrediction], None] = lambda item: None,
    ) -> Iterator[IndexedPrediction | Failure]:
        """Yield the predictions of many files, in the files' order, without their anomaly maps.

        Args:
            paths: image files that the workers can read by the same path; no None, which means waiting for more.
            batch_size: number of images that a worker predicts together; by default 1 on a CPU, 16 on a GPU.
            on_error: ``stop`` raises at the first unreadable image, ``skip`` yields a `Failure` in its place.
            then: called with each prediction just before it is yielded.

        Raises:
            ImageError: an image cannot be read and ``on_error`` is ``stop``.
        """
        import ray

        kept: list[ImageFile] = []
        tables = []
        for block in in_blocks((_certain(image) for image in paths), _BLOCK_IMAGES):
            tables.append(_table({"index": range(len(kept), len(kept) + len(block)), "file": map(pickle.dumps, block)}))
            kept += block
        if not kept:
            return
        on_gpu = self._on_gpu()
        workers, options = self._workers(on_gpu=on_gpu)
        # Actors, not tasks: Ray ends a task's process after one idle second; a new process would repeat all imports.
        readers = {"min_size": 1, "max_size": self._available("CPU")} if on_gpu else {"size": workers}
        dataset = (
            ray.data.from_arrow(tables)
            .map_batches(
                Reader,
                fn_constructor_args=[self._sent_preprocessor],
                batch_size=None,
                compute=ray.data.ActorPoolStrategy(**readers),
                num_cpus=1 if on_gpu else _READER_CORES,
            )
            .map_batches(
                _Worker,
                fn_constructor_args=[self._files, self._config.device, self._config.precision, self._trust],
                fn_constructor_kwargs={"list_all": self.list_all},
                batch_size=batch_size or (16 if on_gpu else 1),
                compute=ray.data.ActorPoolStrategy(size=workers),
                **options,
            )
        )
        for index, found in _results(dataset):
            file = kept[index]
            if isinstance(found, str):
                if on_error == "stop":
                    raise ImageError(found)
                yield Failure(index=index, path=file, reason=found)
            else:
                item = IndexedPrediction(index=index, file=file, prediction=found)
                then(item)
                yield item

    def evaluate_shards(
        self, samples: Sequence[Sample], *, resolution: Resolution, on_error: OnError
    ) -> Iterator[PartialEvaluation]:
        """Yield the evaluations of blocks of test images; see `supersimplenet.evaluation.evaluate.evaluate_shard`."""
        import ray

        parts = [samples[first : first + _SHARD_IMAGES] for first in range(0, len(samples), _SHARD_IMAGES)]
        tables = [_table({"index": [place], "samples": [pickle.dumps(part)]}) for place, part in enumerate(parts)]
        workers, options = self._workers(on_gpu=self._on_gpu())
        dataset = ray.data.from_arrow(tables).map_batches(
            _Tester,
            fn_constructor_args=[self._files, self._config.device, self._config.precision, self._trust],
            fn_kwargs={"resolution": resolution, "on_error": on_error},
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            **options,
        )
        for _, found in _results(dataset):
            if isinstance(found, str):
                raise ImageError(found)
            yield found

    def _on_gpu(self) -> bool:
        import ray

        if self._config.device == "cpu":
            return False
        return bool(ray.cluster_resources().get("GPU", 0) >= 1)

    def _workers(self, *, on_gpu: bool) -> tuple[int, dict[str, Any]]:
        """Return the number of workers, and the resources that each worker needs."""
        workers = self._config.workers or self._available("GPU" if on_gpu else "CPU")
        return workers, {"num_gpus": 1} if on_gpu else {"num_cpus": _WORKER_CORES}

    @staticmethod
    def _available(kind: str) -> int:
        import ray

        return max(1, int(ray.cluster_resources().get(kind, 1)))


def connect(address: str | None) -> None:
    """Join a cluster, or start one on this machine; do nothing if this process is connected already.

    Raises:
        ConfigError: Ray is not installed, or there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage data are sent
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault(
        "RAY_BACKEND_LOG_LEVEL", "fatal"
    )  # errors come as exceptions; the log also warns about things that are no errors
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise ConfigError("engine: ray is not installed; pip install 'supersimplenet[ray]'") from error
    if not ray.is_initialized():
        try:
            ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = first_line(error)
            raise ConfigError(f"address: no Ray cluster at '{address}' ({reason}); start one with ray start") from error
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)


class _Worker:
    """A process of the cluster that holds the model and predicts prepared images."""

    def __init__(self, files: Sequence[Any], device: str, precision: str, trust: bool, *, list_all: bool) -> None:
        self.detector = _load(files, device, precision, trust)
        self.detector.list_all = list_all

    def __call__(self, batch: Batch) -> Batch:
        readable = [place for place, error in enumerate(batch["error"]) if not error]
        prepared = [pickle.loads(batch["prepared"][place]) for place in readable]
        names = [batch["name"][place] for place in readable]
        predictions = self.detector.predict_prepared(prepared, names, on_error="skip")
        found: list[Any] = [str(error) for error in batch["error"]]
        for place, prediction in zip(readable, predictions, strict=True):
            if isinstance(prediction, Failure):
                found[place] = prediction.reason
            else:
                found[place] = replace(prediction, map_logit=np.empty((0, 0), dtype=np.float32), ignored=None)
        return {"index": batch["index"], "found": column(map(pickle.dumps, found))}


class _Tester:
    """A process of the cluster that holds the model and evaluates blocks of test images."""

    def __init__(self, files: Sequence[Any], device: str, precision: str, trust: bool) -> None:
        self.detector = _load(files, device, precision, trust)

    def __call__(self, batch: Batch, *, resolution: Resolution, on_error: OnError) -> Batch:
        found: list[Any] = []
        for content in batch["samples"]:
            samples = pickle.loads(content)
            assert isinstance(self.detector, Detector)  # only model folders can be evaluated
            try:
                found.append(evaluate_shard(self.detector, samples, resolution=resolution, on_error=on_error))
            except ImageError as error:
                found.append(str(error))
        return {"index": batch["index"], "found": column(map(pickle.dumps, found))}


def _results(dataset: Any) -> Iterator[tuple[int, Any]]:
    for row in dataset.iter_rows():
        yield int(row["index"]), pickle.loads(row["found"])


def _load(sent: Sequence[Any], device: str, precision: str, trust: bool) -> Detector | Inspector:
    """Return the model; ``sent`` is a list with a reference to the model's files."""
    import ray

    files: dict[str, bytes] = ray.get(sent[0])
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        if len(files) == 1:
            return Inspector.load(Path(folder) / next(iter(files)), threads=1, trust=trust)
        detector = Detector.load(Path(folder), device=device, precision=precision)
    if detector.device.type == "cpu":
        import torch

        torch.set_num_threads(1)  # as in each worker thread of a single machine
    return detector


def _read_model(model: Path) -> dict[str, bytes]:
    """Return the files of the model by name; an exported model is one file."""
    paths = [model] if model.is_file() else [path for path in sorted(model.iterdir()) if path.is_file()]
    return {path.name: path.read_bytes() for path in paths}


def _certain(image: ImageFile | None) -> ImageFile:
    if image is None:
        raise ConfigError("engine: ray needs all names at once; a watched folder or standard input is for one machine")
    return image


def _table(columns: Mapping[str, Iterable[Any]]) -> Any:
    import pyarrow as pa

    return pa.table({name: list(values) for name, values in columns.items()})
