"""Settings that several subpackages share. No torch here: see docs/decisions/0005-settings-without-torch.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from supersimplenet.errors import ConfigError
from supersimplenet.utils.files import write_text as write_text
from supersimplenet.utils.serialization import from_plain as from_plain
from supersimplenet.utils.serialization import to_plain as to_plain

EngineName = Literal["torch", "openvino"]
ClusterEngineName = Literal["torch", "openvino", "ray"]
Precision = Literal["float32", "bfloat16"]
_DEVICE = re.compile(r"(auto|cpu|cuda|mps|xpu|hpu|npu|mtia|xla)(:\d{1,3})?")
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.json"
IMAGES_FILE = "images.csv"
CALIBRATION_FILE = "calibration.yaml"
CALIBRATION_PICTURE = "calibration.png"
ROI_FILE = "roi.png"
REFERENCE_FILE = "reference.png"
INSTANT = "instant"  # subfolder of a model folder: the first detector of its training, a model folder too


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Settings of prediction: device, engine and precision.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ...; ``auto`` uses a GPU where there is one.
        engine: ``torch``, ``openvino``, or ``ray``, which runs torch in many worker processes.
        precision: number type of the computation, ``float32`` or ``bfloat16``.
        address: address of a running Ray cluster, or ``auto`` for the cluster of this machine; null starts a cluster on
            this machine alone.
        workers: number of Ray workers; by default one per GPU, or one per core where there is no GPU.
    """

    device: str = "auto"
    engine: ClusterEngineName = "torch"
    precision: Precision = "float32"
    address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if not _DEVICE.fullmatch(self.device):
            raise ConfigError(f"device: '{self.device}'; choose auto, cpu, cuda, or one of several: cuda:1")
        if self.engine != "ray" and (self.address is not None or self.workers is not None):
            raise ConfigError("address and workers: belong to a cluster; give --engine ray, or leave them out")
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers: {self.workers}; it must be at least 1")


HERE = ComputeConfig()
