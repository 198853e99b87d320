"""Copies the registry to an MLflow server, for those who look for models there. The registry stays what counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from supersimplenet.errors import ConfigError, StationError
from supersimplenet.inference.config import CALIBRATION_FILE, CONFIG_FILE, REFERENCE_FILE, ROI_FILE, WEIGHTS_FILE
from supersimplenet.station.registry.comparison import GATE_FOLDER
from supersimplenet.station.registry.promotions import models_in_use
from supersimplenet.station.registry.records import Registered, all_models
from supersimplenet.utils.formatting import first_line
from supersimplenet.utils.mlflow_client import ASKS, QUIET, variables, without_user
from supersimplenet.utils.version import __version__

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "supersimplenet registry"
IN_USE = "in-use"  # alias of the version that is in use
_NUMBER, _STATE = "supersimplenet.number", "supersimplenet.state"
_FILES = (CONFIG_FILE, WEIGHTS_FILE, CALIBRATION_FILE, ROI_FILE, REFERENCE_FILE)  # images.csv stays in the house
_LONGEST = 5000  # of a tag's value


def mirror(
    engine: Engine, station: Path, address: str, *, say: Callable[[str], None] = lambda line: None
) -> dict[int, str]:
    """Bring a server up to date: each finished model a version of its product's model, with lineage and state as tags.

    A version is made once; states and the alias of the model in use follow. What is on the server beside it stays.

    Args:
        engine: the database.
        station: the station's folder.
        address: of the server, or a URL that MLflow takes for a store.
        say: called with a line for each new version.

    Returns:
        The version of each model, by its number.

    Raises:
        ConfigError: MLflow is not installed.
        StationError: the server does not answer, or refuses.
    """
    with engine.connect() as connection:
        used = {product: promotion.model for product, promotion in models_in_use(connection).items()}
        models = [model for model in all_models(connection) if model.state in ("candidate", "refused")]
    with variables(QUIET | ASKS):
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise ConfigError("MLflow is not installed; pip install 'supersimplenet[mlflow]'") from error
        try:
            client = MlflowClient(address)
            return _mirrored(client, station, models, used, say)
        except Exception as error:  # any of several libraries'
            safe = first_line(error).replace(address.rstrip("/"), without_user(address).rstrip("/"))
            raise StationError(f"MLflow at {without_user(address)} failed ({safe}); start or correct it") from error


def _mirrored(
    client: MlflowClient,
    station: Path,
    models: list[Registered],
    used: Mapping[str, int],
    say: Callable[[str], None],
) -> dict[int, str]:
    found: dict[int, str] = {}
    for product in dict.fromkeys(model.product for model in models):
        if not client.search_registered_models(f"name = '{product}'"):
            client.create_registered_model(product, description=f"Models of {product}, from a station's registry.")
        versions = client.search_model_versions(f"name = '{product}'")
        known = {version.tags.get(_NUMBER): version for version in versions}
        for model in (each for each in models if each.product == product):
            version = known.get(str(model.number))
            if version is None:
                version = _new_version(client, station, model)
                say(f"model {model.number} of {product}: version {version.version}")
            elif version.tags.get(_STATE) != model.state:
                client.set_model_version_tag(product, version.version, _STATE, model.state)
            found[model.number] = version.version
        if product in used and used[product] in found:
            client.set_registered_model_alias(product, IN_USE, found[used[product]])
    return found


def _new_version(client: MlflowClient, station: Path, model: Registered) -> Any:
    """Make a run with the files and what was found, and a version of it."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    experiment_id = client.create_experiment(EXPERIMENT) if experiment is None else experiment.experiment_id
    lineage = {name: getattr(model, name) for name in ("parent", "dataset", "version", "digest", "who", "options")}
    tags = {f"supersimplenet.{name}": str(value)[:_LONGEST] for name, value in lineage.items() if value is not None}
    tags |= {_NUMBER: str(model.number), _STATE: model.state, "supersimplenet.code": __version__}
    run = client.create_run(experiment_id, run_name=f"{model.product} {model.number}", tags=tags)
    for name, value in _figures(model.found).items():
        client.log_metric(run.info.run_id, name, value)
    with TemporaryDirectory() as temporary:  # one call, so that a server sees the model whole or not at all
        folder = Path(temporary)
        for name in _FILES:
            if (model.model(station) / name).is_file():
                (folder / name).write_bytes((model.model(station) / name).read_bytes())
        client.log_artifacts(run.info.run_id, str(folder), "model")
    comparison = model.folder(station) / GATE_FOLDER / "gate.json"
    if comparison.is_file():
        client.log_artifact(run.info.run_id, str(comparison), GATE_FOLDER)
    client.set_terminated(run.info.run_id)
    return client.create_model_version(
        model.product, f"{run.info.artifact_uri}/model", run_id=run.info.run_id, tags=tags
    )


def _figures(found: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of what was found."""
    flat = {**found, **{f"evidence.{name}": value for name, value in (found.get("evidence") or {}).items()}}
    return {name: float(value) for name, value in flat.items() if isinstance(value, int | float)}
