"""The loggers of a training: curves in files beside the model, and a run on a tracking server, MLflow's or W&B's.

A server must answer at the start, before an image is read. From then on nothing that it does or fails to do ends the
training: what it did not take is kept, and sent again.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger

from supersimplenet.errors import SuperSimpleNetError, TrainingInterruptedError
from supersimplenet.inference.config import CALIBRATION_FILE, CONFIG_FILE, REFERENCE_FILE, ROI_FILE, WEIGHTS_FILE
from supersimplenet.inference.detector import Detector
from supersimplenet.inference.record import read_record
from supersimplenet.postprocessing.calibration import Calibration
from supersimplenet.training.config import LoggerName
from supersimplenet.types import BAD, GOOD, Sample
from supersimplenet.utils.console import console
from supersimplenet.utils.serialization import to_plain

LOGS = "logs"  # subfolder of a model folder
# Of a model folder, enough to predict with it; never images.csv, which names the images of a house and stays in it.
_FILES = (CONFIG_FILE, WEIGHTS_FILE, CALIBRATION_FILE, ROI_FILE, REFERENCE_FILE)
_SETTINGS = (
    *("seed", "data", "supervision", "masks", "model", "view", "reading", "recipe", "trainer", "cache"),
    *("time_budget", "on_error", "image_score"),
)
_EVERY_S = 5.0  # seconds for which losses are collected, so that a step waits for no server
_AGAIN_S = 300.0  # after a server failed, until it is asked again
_PICTURES = 4  # of held-out images, good and bad ones each
_LARGEST_PX = 1024  # side of a picture
_NOT_IN_A_NAME = re.compile(r"[^\w. -]")


class Losses(NamedTuple):
    """What was logged at a step."""

    values: dict[str, float]
    step: int
    time_s: float


class Tracker(Protocol):
    """A run on a tracking server. Each method may raise anything.

    Attributes:
        where: name and address of the server, for messages.
    """

    where: str

    @property
    def link(self) -> str:
        """Where a person finds the run."""

    def safe(self, text: str) -> str:
        """Return a text as it may be printed, without the password of an address."""

    def begin(self, settings: Mapping[str, str]) -> None:
        """Open the run, with its settings; called again where it failed."""

    def send(self, losses: Sequence[Losses]) -> None:
        """Send losses."""

    def finish(self, figures: Mapping[str, float], files: Sequence[tuple[Path, str]], pictures: Sequence[Path]) -> None:
        """Send figures, files with the folder that each belongs into, and pictures."""

    def close(self, status: str) -> None:
        """End the run, as ``finished``, ``failed`` or ``interrupted``."""


class TrackerLogger(Logger):
    """Logs to a tracker, never at the cost of the training.

    Losses are collected and sent every few seconds. Where sending fails, this is said once; they are kept, and sent
    with later ones or at the end.

    Args:
        tracker: the run on a server.
    """

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self._tracker = tracker
        self._losses: list[Losses] = []
        self._settings: dict[str, str] | None = None
        self._begun = self._said = False
        self._next_s = 0.0

    @property
    def name(self) -> str:
        """Name of the server."""
        return self._tracker.where

    @property
    def version(self) -> str:
        """Nothing: the tracker numbers its runs."""
        return ""

    def log_hyperparams(self, *arguments: Any, **named: Any) -> None:
        """Do nothing: `begin` logs the settings."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep losses of a step; send what was kept some seconds ago."""
        self._losses.append(Losses(dict(metrics), step or 0, time.time()))
        if time.monotonic() >= self._next_s:
            self._attempt(self._send)

    def finalize(self, status: str) -> None:
        """Send what is kept, at the end of the steps."""
        del status
        if time.monotonic() >= self._next_s or not self._said:
            self._attempt(self._send)

    def begin(self, settings: dict[str, str]) -> None:
        """Open the run, with its settings."""
        self._settings = settings
        self._attempt(self._open)

    def finish(
        self,
        settings: dict[str, str],
        figures: Mapping[str, float],
        files: Sequence[tuple[Path, str]],
        pictures: Sequence[Path],
    ) -> None:
        """Send all that is left, and end the run; say where it is, or that it could not be sent."""
        self._settings = settings

        def send() -> None:
            self._send()
            self._tracker.finish(figures, files, pictures)
            self._tracker.close("finished")

        error = self._attempt(send, quiet=True)
        if error is None:
            console().print(f"logged: {self._tracker.link}")
        else:
            where = self._tracker.where
            console().print(
                f"logger: {where} failed ({error}): the run there is incomplete; the model is not concerned"
            )

    def close(self, status: str) -> None:
        """End a run that did not come to its end, once more with what is kept."""

        def send() -> None:
            self._send()
            self._tracker.close(status)

        if self._settings is not None and not self._said:  # else it would wait for a server that is gone
            self._attempt(send)

    def _open(self) -> None:
        if not self._begun and self._settings is not None:
            self._tracker.begin(self._settings)
            self._begun = True

    def _send(self) -> None:
        self._open()
        if self._losses:
            self._tracker.send(self._losses)
            self._losses.clear()

    def _attempt(self, work: Callable[[], None], *, quiet: bool = False) -> str | None:
        """Run ``work``; return why it failed, which is said the first time unless ``quiet``, else None."""
        try:
            work()
        except Exception as error:  # of a library, a server, a network: none of it may end a training
            self._next_s = time.monotonic() + _AGAIN_S
            reason = self._tracker.safe(root_cause(error))
            if not (quiet or self._said):
                where = self._tracker.where
                console().print(f"logger: {where} failed ({reason}); the training goes on, and tries again later")
            self._said = True
            return reason
        self._next_s = time.monotonic() + _EVERY_S
        return None


class Loggers:
    """All loggers of a training, by name. Those of files log by Lightning; those of servers, on rank 0 alone.

    As a context, it ends the runs on servers when the training fails.

    Args:
        names: names of the loggers.
        folder: the model folder.
    """

    def __init__(self, names: Sequence[LoggerName], folder: Path) -> None:
        self._names, self._folder = names, folder
        self._remote: list[TrackerLogger] = []
        self._open = False

    def __enter__(self) -> Loggers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            stopped = isinstance(error, KeyboardInterrupt | TrainingInterruptedError)
            for logger in self._remote:
                logger.close("interrupted" if stopped else "failed")

    def connect(self) -> None:
        """Connect to the servers.

        Raises:
            ConfigError: a server does not answer, or refuses.
        """
        logs = self._folder / LOGS
        if "mlflow" in self._names:
            from supersimplenet.training.mlflow_run import MLflowRun

            self._remote.append(TrackerLogger(MLflowRun(logs / "mlflow_run", name=self._folder.name)))
        if "wandb" in self._names:
            from supersimplenet.training.wandb_run import WandbRun

            self._remote.append(TrackerLogger(WandbRun(logs, name=self._folder.name)))
        self._open = True

    def of_lightning(self) -> list[Logger]:
        """Return all loggers, for Lightning's trainer."""
        local: list[Logger] = []
        if "csv" in self._names:
            local.append(CSVLogger(self._folder / LOGS, name="csv"))
        if "tensorboard" in self._names:
            local.append(TensorBoardLogger(self._folder / LOGS, name="tensorboard"))
        return [*local, *self._remote]

    def begin(self) -> None:
        """Log the settings in the folder's config.yaml."""
        for logger in self._remote:
            logger.begin(settings_of(read_record(self._folder)))

    def finish(self, detector: Detector, samples: Sequence[Sample]) -> None:
        """Log the finished model: figures, files, pictures of some held-out images.

        Args:
            detector: the model.
            samples: the held-out images.
        """
        self._open = False
        if not self._remote:
            return
        record = read_record(self._folder)
        settings, figures = settings_of(record), figures_of(record, detector.calibration)
        files = [(self._folder / name, "model") for name in _FILES if (self._folder / name).is_file()]
        curves = sorted(self._folder.glob(f"{LOGS}/csv/*/metrics.csv"))
        files += [(curve, curve.parent.relative_to(self._folder).as_posix()) for curve in curves]
        with tempfile.TemporaryDirectory() as place:
            pictures = draw_pictures(detector, samples, Path(place))
            for logger in self._remote:
                logger.finish(settings, figures, files, pictures)


def settings_of(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings in a config.yaml as texts, by dotted name; lists as JSON, as the command line takes them."""
    found = {name: record[name] for name in _SETTINGS if name in record}
    texts = {}
    for name, value in _leaves(found, ""):
        texts[name] = value if isinstance(value, str) else json.dumps(value)
    return texts


def figures_of(record: Mapping[str, Any], calibration: Calibration | None) -> dict[str, float]:
    """Return the numbers in config.yaml that the training measured, and those in calibration.yaml, by dotted name."""
    training = {name: value for name, value in record["training"].items() if name != "label_recipe"}
    held = {"training": training, "score_scale": record.get("score_scale", {})}
    if calibration is not None:
        held["calibration"] = to_plain(calibration)
    return {
        name: value
        for name, value in _leaves(held, "")
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def draw_pictures(detector: Detector, samples: Sequence[Sample], folder: Path) -> list[Path]:
    """Draw findings on some held-out images, evenly spread, into a folder; none where one cannot be read any more."""
    pictures = []
    try:
        for label, word in ((BAD, "bad"), (GOOD, "good")):
            of_label = [sample for sample in samples if sample.label == label]
            for number, sample in enumerate(of_label[:: -(-len(of_label) // _PICTURES) or 1], start=1):
                picture = detector.predict(sample.image).overlay()
                picture.thumbnail((_LARGEST_PX, _LARGEST_PX))
                pictures.append(folder / f"held_out_{word}_{number}.png")
                picture.save(pictures[-1])
    except (SuperSimpleNetError, OSError) as error:
        console().print(f"logger: no more pictures of held-out images ({error})")
    return [picture for picture in pictures if picture.is_file()]


def root_cause(error: BaseException) -> str:
    """Return in words what is at the bottom of an error: a refused connection, not each layer of a library above it."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return str(error) or type(error).__name__


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield each value that is no mapping with its dotted name, in letters that names on servers may have."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            own = _NOT_IN_A_NAME.sub("_", str(key))
            yield from _leaves(inner, f"{name}.{own}" if name else own)
    else:
        yield name, value
