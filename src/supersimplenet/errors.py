"""Errors of the package. Each message names the cause, the value or state that is wanted, and the remedy.

::

    SuperSimpleNetError            everything this package raises on purpose
    ├── ConfigError                an option or a combination of options that is not allowed
    ├── DataError                  a dataset: a folder, a table or a split is missing or inconsistent
    │   └── ImageError             one image or mask file
    ├── BackboneError              weights that cannot be fetched, read or matched to the network
    ├── ModelFolderError           a model folder or an imported checkpoint
    ├── TrainingInterruptedError   a training that was stopped before its end; its checkpoint is kept
    ├── TrainingDivergedError      a training whose loss is not finite; no model is written
    ├── MetricError                a metric that is not defined for its input
    ├── CalibrationError           a threshold that the given parts cannot guarantee, or an unusable calibration
    ├── ExportError                an export that cannot be made, or that differs from the model
    └── OutputError                a result that cannot be written to the given place
"""

from __future__ import annotations


class SuperSimpleNetError(Exception):
    """Base class of errors that this package raises on purpose; the command line prints them without a traceback."""


class ConfigError(SuperSimpleNetError):
    """An option, or a combination of options, is not allowed."""


class DataError(SuperSimpleNetError):
    """A dataset's folder, table or split is missing or inconsistent."""


class ImageError(DataError):
    """One image or mask file cannot be used."""


class BackboneError(SuperSimpleNetError):
    """A backbone's weights cannot be fetched, read, or matched to the network."""


class ModelFolderError(SuperSimpleNetError):
    """A model folder or an imported checkpoint cannot be read."""


class TrainingInterruptedError(SuperSimpleNetError):
    """A training was stopped before its end; its checkpoint is kept."""


class TrainingDivergedError(SuperSimpleNetError):
    """The loss of a training is not finite; no model is written."""


class MetricError(SuperSimpleNetError):
    """A metric is not defined for its input."""


class CalibrationError(SuperSimpleNetError):
    """The given parts cannot guarantee a threshold, or a calibration cannot be used."""


class ExportError(SuperSimpleNetError):
    """A model cannot be exported as asked, or the exported file gives other results than the model."""


class OutputError(SuperSimpleNetError):
    """A result cannot be written to the given place."""
