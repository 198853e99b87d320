"""Trains a model from a version of a dataset: data written, trained, calibrated, compared. Each step is a process.

The steps are the package's own commands, in processes of their own: the station goes on inspecting, nothing of torch is
in it, and a kill at any moment leaves steps that are done and one that is done again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from supersimplenet.errors import ConfigError, StationError
from supersimplenet.inference.config import CALIBRATION_FILE, CONFIG_FILE
from supersimplenet.station.access import audit
from supersimplenet.station.library.exports import PART_PATTERN, TABLE_FILE, export
from supersimplenet.station.library.store import LibraryStore
from supersimplenet.station.library.versions import entries, version
from supersimplenet.station.registry.comparison import compare
from supersimplenet.station.registry.processes import Processes
from supersimplenet.station.registry.promotions import in_use
from supersimplenet.station.registry.records import DATA, Registered, one_model, register, set_state
from supersimplenet.station.storage.database import writing
from supersimplenet.utils.documents import read_yaml
from supersimplenet.utils.locks import writing_into

_TIME_BUDGET = "15m"


def begin_training(
    engine: Engine,
    *,
    product: str,
    dataset: str,
    number: int | None = None,
    time_budget: str = _TIME_BUDGET,
    options: Sequence[str] = (),
    who: str,
) -> Registered:
    """Register a model that is to be trained.

    Args:
        engine: the database.
        product: the product.
        dataset: the dataset.
        number: the version of the dataset; None for the newest.
        time_budget: of the training, as ``train --time-budget`` takes it.
        options: further options of ``train``.
        who: who begins it.

    Raises:
        ConfigError: there is no such version, or it lacks parts that train or calibrate.
    """
    with writing(engine) as connection:
        wanted = version(connection, dataset, number)
        roles = {(entry.role, entry.known.label) for entry in entries(connection, wanted)}
        for role, need in (("train", "to train on"), ("calibration", "to set a threshold by")):
            if (role, "good") not in roles:
                raise ConfigError(
                    f"dataset: version {wanted.number} of '{dataset}' has no good part {need}; add more good parts"
                )
        parent = in_use(connection, product)
        details = {"product": product, "dataset": dataset, "version": wanted.number}
        audit.append(connection, who=who, what="train model", details=details)
        return register(
            connection,
            product=product,
            state="training",
            who=who,
            parent=None if parent is None else parent.number,
            dataset=dataset,
            version=wanted.number,
            digest=wanted.digest,
            options=["--time-budget", time_budget, *options],
        )


def train(
    engine: Engine, station: Path, number: int, *, threads: int | None = None, say: Callable[[str], None]
) -> Registered:
    """Do the steps of a registered training that are not done yet; return the model with what was found.

    Args:
        engine: the database.
        station: the station's folder.
        number: the model.
        threads: number of threads for the processes, so that the rest of the machine inspects; None for all.
        say: called with a line before each step.

    Raises:
        ConfigError: there is no such training, or it is finished.
        StationError: a step failed: its log is named.
        LockedError: another process is at it.
    """
    with engine.connect() as connection:
        model = one_model(connection, number)
    if model.state not in ("training", "failed") or model.dataset is None:
        raise ConfigError(f"model {number}: {model.state}; there is nothing left to do")
    folder = model.folder(station)
    folder.mkdir(parents=True, exist_ok=True)
    with writing_into(folder, advice=": wait until it has ended"):
        steps = _Steps(engine, station, model, threads, say)
        try:
            steps.write_data()
            steps.train()
            steps.calibrate()
            found = steps.compare()
        except StationError as error:
            with writing(engine) as connection:
                set_state(connection, number, "failed", reasons=[str(error)])
            raise
    with writing(engine) as connection:
        return set_state(connection, number, "refused" if found["reasons"] else "candidate", **found)


class _Steps:
    """The steps of a training. Each leaves a file when it is done, by which it is not done again."""

    def __init__(
        self, engine: Engine, station: Path, model: Registered, threads: int | None, say: Callable[[str], None]
    ) -> None:
        self._engine, self._station, self._model = engine, station, model
        self._say, self._folder = say, model.folder(station)
        self._processes = Processes(self._folder, threads)
        self._data, self._path = self._folder / DATA, model.model(station)

    def write_data(self) -> None:
        """Write the version of the dataset as a table; the table's file comes last."""
        if (self._data / TABLE_FILE).is_file():
            return
        self._say(f"writing version {self._model.version} of {self._model.dataset}")
        shutil.rmtree(self._data, ignore_errors=True)
        assert self._model.dataset is not None
        with self._engine.connect() as connection:
            held = entries(connection, version(connection, self._model.dataset, self._model.version))
        export(held, LibraryStore(self._station), "table", self._data)

    def train(self) -> None:
        """Train, or go on where it was interrupted."""
        if self._is_trained():
            return
        self._say("training")
        if (self._path / "checkpoints").is_dir() and any((self._path / "checkpoints").iterdir()):
            self._processes.run("train", "--resume", "--output", str(self._path))
            return
        shutil.rmtree(self._path, ignore_errors=True)
        table = str(self._data / TABLE_FILE)
        # Parts that calibrate were kept apart when they came: the training holds out none
        whole = ["--trainer.holdout_fraction", "0"]
        self._processes.run("train", table, "--output", str(self._path), *whole, *self._model.options)

    def calibrate(self) -> None:
        """Set the threshold by the parts that calibrate."""
        if (self._path / CALIBRATION_FILE).is_file():
            return
        self._say("calibrating")
        calibrating = self._data / "calibration"
        bad = ["--bad", str(calibrating / "bad")] if (calibrating / "bad").is_dir() else []
        good = ["--good", str(calibrating / "good"), *bad]
        self._processes.run("calibrate", "--model", str(self._path), *good, "--group-pattern", PART_PATTERN)

    def compare(self) -> dict[str, Any]:
        """Compare with the model that was in use when it was begun; return what was found."""
        calibration = read_yaml(self._path / CALIBRATION_FILE, advice="train again")
        found: dict[str, Any] = {"threshold_logit": calibration["threshold_logit"], "compared": None, "reasons": []}
        if self._model.parent is None:
            return found
        with self._engine.connect() as connection:
            parent = one_model(connection, self._model.parent)
        return found | compare(self._engine, self._station, self._model, parent, self._processes, say=self._say)

    def _is_trained(self) -> bool:
        config = self._path / CONFIG_FILE
        return config.is_file() and bool(read_yaml(config, advice="train again").get("finished"))
