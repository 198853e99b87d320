"""Models as commands name them: a folder, a file, or a folder for many machines; and what they promise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from supersimplenet.calibration import UNCALIBRATED
from supersimplenet.data.sources.base import DataSource
from supersimplenet.data.sources.registry import source_from
from supersimplenet.detector import Detector
from supersimplenet.errors import ConfigError
from supersimplenet.looking import Looks
from supersimplenet.settings import ComputeConfig
from supersimplenet.terminal import results

if TYPE_CHECKING:
    from supersimplenet.prediction.cluster import Cluster


def load_detector(model: Path, compute: ComputeConfig) -> Detector:
    """The detector of a model folder; on the processor where a cluster computes.

    Raises:
        SuperSimpleNetError: of the kind that names the cause.
    """
    if compute.engine == "ray":
        return Detector.load(model, device="cpu")
    return Detector.load(model, device=compute.device, engine=compute.engine, precision=compute.precision)


def cluster_of(model: Path, compute: ComputeConfig, *, trust: bool = False) -> Cluster | None:
    """Many machines, where they were asked for."""
    if compute.engine != "ray":
        return None
    from supersimplenet.prediction.cluster import Cluster

    return Cluster(model, compute, trust=trust)


def trained_on(detector: Detector, model: Path) -> DataSource:
    """The data set that a model was trained on.

    Raises:
        ConfigError: it is not known.
    """
    if "data" not in detector.record:
        raise ConfigError(f"data: {model} was not trained here, so its data set is not known; name one with --data")
    return source_from(detector.record["data"])


def print_promise(detector: Looks) -> None:
    """What the threshold promises, or that it promises nothing."""
    calibration = detector.calibration
    if calibration is None:
        results().print(UNCALIBRATED, style="bold red")
    else:
        results().print(f"calibrated: {calibration.promise()}")
