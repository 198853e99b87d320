"""What can go wrong, each with a message that names the thing, says what was wanted and what to do.

::

    SuperSimpleNetError            everything this package raises on purpose
    ├── ConfigError                an option or a combination of options that cannot be
    ├── DataError                  a data set: a folder, a table or a split is missing or inconsistent
    │   └── ImageError             one image or mask file
    ├── BackboneError              weights that cannot be fetched, read or matched to the network
    ├── ModelFolderError           a model folder or an imported checkpoint
    ├── TrainingInterruptedError   a training that was stopped before its end; its checkpoint is kept
    ├── TrainingDivergedError      a training whose loss is not finite; no model is written
    ├── MetricError                a metric that is not defined on what was given
    ├── CalibrationError           a threshold that the parts at hand cannot guarantee, or an unusable calibration
    ├── ExportError                an export that cannot be made, or that is not what the model is
    └── OutputError                a result that cannot be written where it was asked for
"""

from __future__ import annotations


class SuperSimpleNetError(Exception):
    """Base of the errors this package raises on purpose; the command line prints them without a traceback."""


class ConfigError(SuperSimpleNetError):
    """An option, or a combination of options, that cannot be."""


class DataError(SuperSimpleNetError):
    """A data set's folder, table or split is missing or inconsistent."""


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
    """A metric is not defined on what was given."""


class CalibrationError(SuperSimpleNetError):
    """A threshold that the parts at hand cannot guarantee, or a calibration that cannot be used."""


class ExportError(SuperSimpleNetError):
    """A model cannot be exported as asked, or the exported file does not give what the model gives."""


class OutputError(SuperSimpleNetError):
    """A result cannot be written where it was asked for."""
