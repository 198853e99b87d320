"""A run on an MLflow server: opened before the first step, continued with a training that is continued."""

from __future__ import annotations

import getpass
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from supersimplenet.errors import ConfigError
from supersimplenet.training.config import MLFLOW_ADDRESS
from supersimplenet.training.loggers import Losses, root_cause
from supersimplenet.utils.console import console
from supersimplenet.utils.files import write_text
from supersimplenet.utils.iteration import in_blocks
from supersimplenet.utils.mlflow_client import ASKS, QUIET, WAITS, variables, without_user
from supersimplenet.utils.version import __version__

EXPERIMENT = "supersimplenet"  # unless MLFLOW_EXPERIMENT_NAME or MLFLOW_EXPERIMENT_ID names another
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_MOST_PARAMS, _MOST_METRICS = 100, 1000  # of a request, by MLflow's limits
_LONGEST_PARAM = 500


class MLflowRun:
    """A run on the MLflow server that the environment variable MLFLOW_TRACKING_URI names.

    Args:
        id_file: file that keeps the run's id; where it is there, that run is continued.
        name: name of a new run.

    Raises:
        ConfigError: the server does not answer, or refuses.
    """

    def __init__(self, id_file: Path, *, name: str) -> None:
        self._uri = os.environ[MLFLOW_ADDRESS]
        self._address = without_user(self._uri)
        self.where = f"MLflow at {self._address}"
        self._id_file, self._name = id_file, name
        self._run_id: str | None = None
        self._is_new = False
        try:
            with variables(QUIET | ASKS | WAITS):
                from mlflow import MlflowClient  # reads some of these variables when it is imported

                self._client = MlflowClient(self._uri)
                self._experiment_id = self._experiment()
                self._run_id = self._earlier()
        except Exception as error:  # any of several libraries'
            raise ConfigError(
                f"trainer.logger: {self.where} failed ({self.safe(root_cause(error))}); start that server, correct "
                f"{MLFLOW_ADDRESS}, or leave mlflow out of --logger"
            ) from error

    @property
    def link(self) -> str:
        """Address of the run's page."""
        return f"{self._address.rstrip('/')}/#/experiments/{self._experiment_id}/runs/{self._run_id}"

    def safe(self, text: str) -> str:
        """Return a text with the address as it may be printed."""
        return text.replace(self._uri.rstrip("/"), self._address.rstrip("/"))

    def begin(self, settings: Mapping[str, str]) -> None:
        """Open the run with its settings, or continue the earlier one.

        Settings of a run cannot change on the server; those that a continued training may change are in config.yaml.
        """
        from mlflow.entities import Param

        with variables(QUIET | ASKS | WAITS):
            if self._run_id is None:
                tags = {"mlflow.user": _user(), "mlflow.source.name": "supersimplenet", "version": __version__}
                run = self._client.create_run(self._experiment_id, tags=tags, run_name=self._name)
                self._run_id, self._is_new = run.info.run_id, True
                self._id_file.parent.mkdir(parents=True, exist_ok=True)
                write_text(self._id_file, f"{self._run_id}\n")
            if not self._is_new:
                self._client.update_run(self._run_id, status="RUNNING")
                return
            params = [Param(name, value[:_LONGEST_PARAM]) for name, value in settings.items()]
            for some in in_blocks(params, _MOST_PARAMS):
                self._client.log_batch(self._run_id, params=some)

    def send(self, losses: Sequence[Losses]) -> None:
        """Send losses."""
        self._log([(name, value, at.time_s, at.step) for at in losses for name, value in at.values.items()])

    def finish(self, figures: Mapping[str, float], files: Sequence[tuple[Path, str]], pictures: Sequence[Path]) -> None:
        """Send figures, files and pictures."""
        self._log([(name, value, time.time(), 0) for name, value in figures.items()])
        with variables(QUIET | ASKS):  # a large file may take the server longer
            for file, folder in (*files, *((picture, "pictures") for picture in pictures)):
                self._client.log_artifact(self._run_id, str(file), folder)

    def close(self, status: str) -> None:
        """End the run."""
        with variables(QUIET | ASKS | WAITS):
            self._client.set_terminated(self._run_id, _STATUS[status])

    def _log(self, values: Sequence[tuple[str, float, float, int]]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(name, value, int(1000 * time_s), step) for name, value, time_s, step in values]
        with variables(QUIET | ASKS | WAITS):
            for some in in_blocks(metrics, _MOST_METRICS):
                self._client.log_batch(self._run_id, metrics=some)

    def _experiment(self) -> str:
        """Return the id of the experiment; create one that is not there, which also shows that runs may be written."""
        if experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return str(self._client.get_experiment(experiment_id).experiment_id)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if found is None else found.experiment_id)

    def _earlier(self) -> str | None:
        """Return the id of the run to continue; None for a new one."""
        from mlflow.exceptions import MlflowException

        if not self._id_file.is_file():
            return None
        run_id = self._id_file.read_text(encoding="utf-8").strip()
        try:
            if self._client.get_run(run_id).info.lifecycle_stage == "active":
                return run_id
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        console().print(f"{self.where} has no run {run_id}; a new one begins")  # or it was deleted there
        return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # an account without a name, as in a container
        return "unknown"
