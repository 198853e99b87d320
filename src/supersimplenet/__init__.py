"""SuperSimpleNet: surface-defect detection, trained with whatever labels are available.

The names below are loaded when they are first used, so that importing the package does not wait for torch, and neither
does the help of the command line.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from supersimplenet.utils.system import let_waiting_threads_sleep
from supersimplenet.utils.version import __version__ as __version__

if TYPE_CHECKING:
    from supersimplenet.datasets.base import DataSource as DataSource
    from supersimplenet.datasets.folder import Folder as Folder
    from supersimplenet.datasets.ksdd2 import KSDD2 as KSDD2
    from supersimplenet.datasets.mvtec import MVTecAD as MVTecAD
    from supersimplenet.datasets.sensum import SensumSODF as SensumSODF
    from supersimplenet.datasets.synthetic import synthesize as synthesize
    from supersimplenet.datasets.synthetic_config import SyntheticConfig as SyntheticConfig
    from supersimplenet.datasets.table import Table as Table
    from supersimplenet.datasets.visa import VisA as VisA
    from supersimplenet.errors import SuperSimpleNetError as SuperSimpleNetError
    from supersimplenet.evaluation.calibrate import calibrate as calibrate
    from supersimplenet.evaluation.comparison import compare as compare
    from supersimplenet.evaluation.config import ThresholdConfig as ThresholdConfig
    from supersimplenet.evaluation.evaluate import evaluate as evaluate
    from supersimplenet.export.export import export_model as export_model
    from supersimplenet.inference.detector import Detector as Detector
    from supersimplenet.model.config import ModelConfig as ModelConfig
    from supersimplenet.model.config import Recipe as Recipe
    from supersimplenet.model.network import SuperSimpleNet as SuperSimpleNet
    from supersimplenet.preprocessing.preprocessor import ViewConfig as ViewConfig
    from supersimplenet.report.report import write_report as write_report
    from supersimplenet.training.config import CacheConfig as CacheConfig
    from supersimplenet.training.config import TrainerConfig as TrainerConfig
    from supersimplenet.training.train import train as train
    from supersimplenet.types import Prediction as Prediction
    from supersimplenet.types import Sample as Sample

_HOMES = {
    "CacheConfig": "training.config",
    "DataSource": "datasets.base",
    "Detector": "inference.detector",
    "Folder": "datasets.folder",
    "KSDD2": "datasets.ksdd2",
    "MVTecAD": "datasets.mvtec",
    "ModelConfig": "model.config",
    "Prediction": "types",
    "Recipe": "model.config",
    "Sample": "types",
    "SensumSODF": "datasets.sensum",
    "SuperSimpleNet": "model.network",
    "SuperSimpleNetError": "errors",
    "SyntheticConfig": "datasets.synthetic_config",
    "Table": "datasets.table",
    "ThresholdConfig": "evaluation.config",
    "TrainerConfig": "training.config",
    "ViewConfig": "preprocessing.preprocessor",
    "VisA": "datasets.visa",
    "calibrate": "evaluation.calibrate",
    "compare": "evaluation.comparison",
    "evaluate": "evaluation.evaluate",
    "export_model": "export.export",
    "synthesize": "datasets.synthetic",
    "train": "training.train",
    "write_report": "report.report",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'supersimplenet' has no attribute '{name}'")
    let_waiting_threads_sleep()
    return getattr(import_module(f"supersimplenet.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
