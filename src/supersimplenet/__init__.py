"""SuperSimpleNet: surface-defect detection with whatever labels there are.

The names below are loaded when they are first used, so that importing the package, and with it the command line's
help, does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from supersimplenet.data.sources.base import DataSource as DataSource
    from supersimplenet.data.sources.folder import Folder as Folder
    from supersimplenet.data.sources.ksdd2 import KSDD2 as KSDD2
    from supersimplenet.data.sources.mvtec import MVTecAD as MVTecAD
    from supersimplenet.data.sources.sensum import SensumSODF as SensumSODF
    from supersimplenet.data.sources.table import Table as Table
    from supersimplenet.data.sources.visa import VisA as VisA
    from supersimplenet.data.synthetic import SyntheticConfig as SyntheticConfig
    from supersimplenet.data.synthetic import synthesize as synthesize
    from supersimplenet.data.views import ViewConfig as ViewConfig
    from supersimplenet.detector import Detector as Detector
    from supersimplenet.errors import SuperSimpleNetError as SuperSimpleNetError
    from supersimplenet.evaluation.evaluate import evaluate as evaluate
    from supersimplenet.model.network import SuperSimpleNet as SuperSimpleNet
    from supersimplenet.model.recipes import ModelConfig as ModelConfig
    from supersimplenet.model.recipes import Recipe as Recipe
    from supersimplenet.records import Prediction as Prediction
    from supersimplenet.records import Sample as Sample
    from supersimplenet.training.config import CacheConfig as CacheConfig
    from supersimplenet.training.config import TrainerConfig as TrainerConfig
    from supersimplenet.training.run import train as train

_HOMES = {
    "CacheConfig": "training.config",
    "DataSource": "data.sources.base",
    "Detector": "detector",
    "Folder": "data.sources.folder",
    "KSDD2": "data.sources.ksdd2",
    "MVTecAD": "data.sources.mvtec",
    "ModelConfig": "model.recipes",
    "Prediction": "records",
    "Recipe": "model.recipes",
    "Sample": "records",
    "SensumSODF": "data.sources.sensum",
    "SuperSimpleNet": "model.network",
    "SuperSimpleNetError": "errors",
    "SyntheticConfig": "data.synthetic",
    "Table": "data.sources.table",
    "TrainerConfig": "training.config",
    "ViewConfig": "data.views",
    "VisA": "data.sources.visa",
    "evaluate": "evaluation.evaluate",
    "synthesize": "data.synthetic",
    "train": "training.run",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'supersimplenet' has no attribute '{name}'")
    return getattr(import_module(f"supersimplenet.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
