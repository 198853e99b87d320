"""Trainings begun at the station: one at a time, each in a process of its own, which a kill of the station also ends.

The process is the command ``registry resume``: the station itself has nothing of torch, and a training that was stopped
or interrupted goes on by the same command. It lives as long as its standard input is open: where the station ends,
however it does, the training writes a checkpoint and ends too. It does not go on before a person says so.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from supersimplenet.errors import ConfigError, StationError
from supersimplenet.inference.config import CALIBRATION_FILE, CONFIG_FILE
from supersimplenet.station.access import audit
from supersimplenet.station.config import DATABASE_VARIABLE, StationConfig
from supersimplenet.station.library.exports import TABLE_FILE
from supersimplenet.station.library.reviewed import Gathered, gather
from supersimplenet.station.library.store import LibraryStore
from supersimplenet.station.registry.processes import LOG_FILE, STOPS_WITHIN_S, gentle_command
from supersimplenet.station.registry.promotions import in_use
from supersimplenet.station.registry.records import DATA, MODEL, Registered, all_models, one_model, set_state
from supersimplenet.station.registry.training import begin_training
from supersimplenet.station.storage.database import writing
from supersimplenet.station.storage.pictures import PictureStore
from supersimplenet.utils.documents import read_yaml
from supersimplenet.utils.formatting import first_line
from supersimplenet.utils.locks import is_held
from supersimplenet.utils.system import STOP_WITH_STDIN, available_cores, has_group, kill_group

StepName = Literal["data", "training", "calibration", "comparison", "shadow"]
CommandName = Literal["resume", "compare", "shadow"]  # of `registry`
_PROGRESS = re.compile(r"epoch \S+: ([\d,]+) of ([\d,]+)(?:, .*)?")  # a line of `supersimplenet.utils.console`
_TAIL_BYTES = 16_384
_ENDED_S = 5.0  # beyond `STOPS_WITHIN_S`, after which all processes of a training are killed


class BusyError(StationError):
    """A model is being trained already, or is not being trained."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training is.

    Attributes:
        step: what is done at the moment.
        line: the last line of progress of the training; None for none yet.
        done: steps of the training that are done, by that line.
        total: all of them.
    """

    step: StepName
    line: str | None = None
    done: int | None = None
    total: int | None = None


class _Running(NamedTuple):
    """A process that was begun here."""

    number: int
    command: CommandName
    process: subprocess.Popen[bytes]


class Jobs:
    """Begins, stops and continues trainings; a second one is refused while one runs.

    Args:
        engine: the database.
        config: the station's settings.
        say: called with a line about a training that begins or ends.
    """

    def __init__(self, engine: Engine, config: StationConfig, *, say: Callable[[str], None]) -> None:
        self._engine, self._config, self._say = engine, config, say
        self._changing = threading.Lock()
        self._own: _Running | None = None
        self._stopped: set[int] = set()
        self._ended: threading.Thread | None = None

    @property
    def threads(self) -> int:
        """Threads of a training: half of the cores, so that the other half inspects."""
        return max(1, available_cores() // 2)

    def is_running(self, model: Registered) -> bool:
        """Return whether a process, begun here or elsewhere, is at a model."""
        own, folder = self._own, model.folder(self._config.folder)
        if own is not None and own.number == model.number and own.process.poll() is None:
            return True
        return is_held(folder) or is_held(folder / MODEL)  # a training that was told to stop may still be writing

    def progress(self, model: Registered) -> Progress:
        """Return how far a training is, by its files."""
        own, folder = self._own, model.folder(self._config.folder)
        if own is not None and own.number == model.number and own.command == "shadow":
            return Progress(step="shadow")
        if not (folder / DATA / TABLE_FILE).is_file():
            return Progress(step="data")
        if (folder / MODEL / CALIBRATION_FILE).is_file():
            return Progress(step="comparison")
        config = folder / MODEL / CONFIG_FILE
        with suppress(ConfigError):
            if config.is_file() and read_yaml(config, advice="train again").get("finished"):
                return Progress(step="calibration")
        for line in reversed(_last_lines(folder / LOG_FILE)):
            if found := _PROGRESS.fullmatch(line):
                done, total = (int(number.replace(",", "")) for number in found.groups())
                return Progress(step="training", line=line, done=done, total=total)
        return Progress(step="training")

    def gather(self, *, product: str, dataset: str, who: str) -> Gathered:
        """Make a version of a dataset from the answers about a product's parts; see `gather`."""
        folder = self._config.folder
        pictures, library = PictureStore(folder), LibraryStore(folder)
        found = gather(self._engine, pictures, library, product=product, dataset=dataset, who=who)
        if found.version is not None:
            details = {"product": product, "dataset": dataset, "version": found.version.number}
            with writing(self._engine) as connection:
                audit.append(connection, who=who, what="gather answers", details=details)
        return found

    def begin(
        self,
        *,
        product: str,
        dataset: str,
        number: int | None = None,
        time_budget: str,
        options: Sequence[str] = (),
        gathers: bool = False,
        who: str,
    ) -> Registered:
        """Begin a training; see `begin_training`.

        Args:
            product: the product.
            dataset: the dataset.
            number: the version; None for the newest.
            time_budget: of the training.
            options: further options of ``train``.
            gathers: whether the answers about the product come into the dataset first.
            who: who begins it.

        Raises:
            BusyError: another one runs.
            ConfigError: there is no such version, or it lacks parts that train or calibrate.
        """
        with self._changing:
            self._refuse_second()
            if gathers:
                self.gather(product=product, dataset=dataset, who=who)
            model = begin_training(
                self._engine,
                product=product,
                dataset=dataset,
                number=number,
                time_budget=time_budget,
                options=options,
                who=who,
            )
            self._start(model.number)
            return model

    def resume(self, number: int, *, who: str) -> Registered:
        """Go on with a training that was stopped, interrupted or failed.

        Raises:
            BusyError: it or another one runs.
            ConfigError: there is no such training, or it is finished.
        """
        with self._changing:
            self._refuse_second()
            with writing(self._engine) as connection:
                model = one_model(connection, number)
                if model.state not in ("training", "failed") or model.dataset is None:
                    raise ConfigError(f"model {number}: {model.state}; there is nothing left to do")
                details = {"product": model.product, "model": number}
                audit.append(connection, who=who, what="resume training", details=details)
                model = set_state(connection, number, "training", reasons=[])
            self._start(number)
            return model

    def compare(self, number: int, *, who: str) -> Registered:
        """Compare a finished model again with the one in use, by the answers since.

        Raises:
            BusyError: a training or a comparison runs.
            ConfigError: it is not finished, or no other model is in use.
        """
        return self._beside(number, "compare", who=who, what="compare model")

    def shadow(self, number: int, *, hours: int, who: str) -> Registered:
        """Let a finished model predict what the station inspected in the last hours, without a say; see `run_shadow`.

        Raises:
            BusyError: a training or a comparison runs.
            ConfigError: it is not finished, or no other model is in use.
        """
        return self._beside(number, "shadow", f"--past={hours}h", who=who, what="shadow model")

    def _beside(self, number: int, command: CommandName, *options: str, who: str, what: str) -> Registered:
        """Begin what sets a finished model beside the one in use."""
        with self._changing:
            self._refuse_second()
            with writing(self._engine) as connection:
                model = one_model(connection, number)
                used = in_use(connection, model.product)
                if model.state not in ("candidate", "refused"):
                    raise ConfigError(f"model {number}: {model.state}; only a finished model is compared")
                if used is None or used.number == number:
                    raise ConfigError(f"model {number}: no other model of {model.product} is in use")
                details = {"product": model.product, "model": number}
                audit.append(connection, who=who, what=what, details=details)
            self._start(number, command, *options)
            return model

    def stop(self, number: int, *, who: str) -> Registered:
        """Stop a training; what it has done stays, and it can go on later.

        Raises:
            BusyError: it does not run, or was begun elsewhere.
        """
        with self._changing:
            with self._engine.connect() as connection:
                model = one_model(connection, number)
            own = self._own
            if not self.is_running(model):
                raise BusyError(f"model {number}: is not being trained or compared")
            if own is None or own.number != number:
                raise BusyError(f"model {number}: this was begun by a command; stop it where it runs")
            with writing(self._engine) as connection:
                details = {"product": model.product, "model": number}
                audit.append(connection, who=who, what="stop training", details=details)
            self._end(own)
            with writing(self._engine) as connection:
                return one_model(connection, number)

    def close(self) -> None:
        """Stop what runs; a person can go on with it later."""
        with self._changing:
            if self._own is not None:
                self._end(self._own)

    def _refuse_second(self) -> None:
        with self._engine.connect() as connection:
            running = [model.number for model in all_models(connection) if self.is_running(model)]
        if running:
            raise BusyError(f"model {running[0]} is being trained or compared; wait until that has ended, or stop it")

    def _start(self, number: int, command_name: CommandName = "resume", *options: str) -> None:
        """Start a process, and a thread that waits for its end."""
        with self._engine.connect() as connection:
            folder = one_model(connection, number).folder(self._config.folder)
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, STOP_WITH_STDIN: str(STOPS_WITHIN_S), "OMP_NUM_THREADS": str(self.threads)}
        environment.pop(DATABASE_VARIABLE, None)
        if self._config.database is not None:
            environment[DATABASE_VARIABLE] = self._config.database  # it may hold a password: not on the command line
        place = ["--folder", str(self._config.folder)]
        command = gentle_command("registry", command_name, str(number), *place, *options)
        with (folder / LOG_FILE).open("ab") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        self._stopped.discard(number)
        self._own = _Running(number, command_name, process)
        self._say(f"model {number}: registry {command_name} begins, with {self.threads} of {available_cores()} cores")
        self._ended = threading.Thread(target=self._wait, args=(number, process), name="training", daemon=True)
        self._ended.start()

    def _wait(self, number: int, process: subprocess.Popen[bytes]) -> None:
        """Wait for the end of a training. One that ended by itself and left no result has failed."""
        process.wait()
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
        if number in self._stopped:
            self._say(f"model {number}: was stopped")
            return
        with suppress(SQLAlchemyError):  # away: the training is shown as interrupted
            with writing(self._engine) as connection:
                model = one_model(connection, number)
                if model.state == "training":
                    last = _last_lines(model.folder(self._config.folder) / LOG_FILE)[-1:]
                    reason = f"it ended with status {process.returncode}: {''.join(last)}"
                    model = set_state(connection, number, "failed", reasons=[first_line(StationError(reason))])
            self._say(f"model {number}: has ended: {model.state}")

    def _end(self, running: _Running) -> None:
        """Tell all processes of a training to stop, wait for them, and kill those that do not."""
        number, _, process = running
        if process.poll() is not None:
            return
        self._stopped.add(number)
        if process.stdin is not None:
            process.stdin.close()
        deadline = time.monotonic() + STOPS_WITHIN_S + _ENDED_S
        while time.monotonic() < deadline and (process.poll() is None or has_group(process.pid)):
            time.sleep(0.05)
        kill_group(process)
        process.wait()
        if self._ended is not None:
            self._ended.join()
        with writing(self._engine) as connection:  # a step that ends with its training counts as failed otherwise
            if one_model(connection, number).state == "failed":
                set_state(connection, number, "training", reasons=[])


def _last_lines(log: Path) -> list[str]:
    """Return the last lines of a log that are not empty; none where there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            content = file.read()
    except OSError:
        return []
    return [line.strip() for line in content.decode(errors="replace").splitlines() if line.strip()]
