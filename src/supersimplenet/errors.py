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
    ├── OutputError                a result that cannot be written to the given place
    └── StationError               a station that cannot start, or that something it needs has left
"""

from __future__ import annotations

import re
from collections.abc import Sequence

# Control characters, marks that change the direction or hide, line separators, and bytes of names that are no text.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_LONGEST = 3000  # characters of a message; a path has at most 4096 bytes, and most have 100


def printable(text: object) -> str:
    r"""Return text for a terminal or a picture: one line, in which what is not printable is escaped.

    A name of a file may hold anything: a byte that is not UTF-8 is shown as ``\xff``, a line end as ``\n``, ESC, which
    could command a terminal, as ``\x1b``, and a mark that reverses the direction of reading as ``\u202e``.
    """
    return _UNPRINTABLE.sub(_escaped, str(text))


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if "\udc80" <= character <= "\udcff":  # a byte that is not UTF-8, as Python keeps it in a name
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii") if character < "\ud800" else ascii(character)[1:-1]


class SuperSimpleNetError(Exception):
    """Base class of errors that this package raises on purpose; the command line prints them without a traceback."""

    def __str__(self) -> str:
        """Return the message: one printable line, whatever the names and libraries that it quotes hold."""
        text = printable(super().__str__())
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 3 :]}"


class ConfigError(SuperSimpleNetError):
    """An option, or a combination of options, is not allowed.

    Args:
        message: the message.
        commands: commands that may be right instead, each with the case in which it is; the program prints them below
            the message.
    """

    def __init__(self, message: str, *, commands: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.commands = tuple(commands)


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


class StationError(SuperSimpleNetError):
    """A station cannot start, or something that it needs is not there."""
