"""Loggers by name: what a real MLflow server holds after a training, and that a server never costs a training."""

from __future__ import annotations

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from PIL import Image

from supersimplenet import Detector
from supersimplenet.cli.main import main
from supersimplenet.datasets.mvtec import MVTecAD
from supersimplenet.datasets.synthetic import synthesize
from supersimplenet.datasets.synthetic_config import SyntheticConfig
from supersimplenet.errors import ConfigError, TrainingInterruptedError
from supersimplenet.model.config import ModelConfig, Recipe
from supersimplenet.training.checkpoints import CheckpointWriter
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.loggers import TrackerLogger
from supersimplenet.training.train import train

SIZE = (64, 64)
SURFACE = "brushed_metal"
SERVER = ("mlflow", "alembic", "flask", "flask_cors", "sqlalchemy")  # of the extra dev: the client and its server
CALIBRATED = ("calibration.yaml", "config.yaml")
LOSS = "train_loss_step"
EPOCHS = 3
STEPS = 2  # of an epoch: 8 images in batches of 4


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("surfaces")
    config = SyntheticConfig(surfaces=(SURFACE,), size_px=SIZE, train_good=10, test_good=2, test_per_defect=1)
    synthesize(root, config)
    return root


@pytest.fixture
def fit(surfaces: Path) -> Callable[..., Detector]:
    """Trains for some epochs, with these loggers."""

    def fit(output: Path, logger: str, *, epochs: int = 1, resume: bool = False) -> Detector:
        return train(
            MVTecAD(root=surfaces, category=SURFACE),
            output=output,
            model=ModelConfig(backbone="compact", image_size=SIZE),
            recipe=Recipe(batch_size=4),
            trainer=TrainerConfig(max_epochs=epochs, accelerator="cpu", logger=logger),
            resume=resume,
        )

    return fit


class Server:
    """A real MLflow server on a free port, in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--backend-store-uri", f"sqlite:///{self.folder / 'runs.db'}", "--workers", "1"),
            *("--artifacts-destination", str(self.folder / "artifacts")),
        ]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | quiet, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )
        for _ in range(1200):
            with suppress(OSError), urllib.request.urlopen(f"{self.address}/health", timeout=5) as answer:
                assert answer.read() == b"OK"
                return
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            time.sleep(0.1)
        pytest.fail((self.folder / "server.log").read_text())

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if missing := [name for name in SERVER if find_spec(name) is None]:
        message = f"not installed, of the extra dev: {', '.join(missing)}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{message}, and CI=true")
        pytest.skip(message)
    server = Server(tmp_path_factory.mktemp("mlflow"))
    yield server
    server.kill()


@pytest.fixture
def server(own_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, running, named by MLflow's own variable with a password that nothing may print."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", own_server.address.replace("//", "//inspector:secret@"))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "line 1")
    if own_server.process is None:
        own_server.start()
    return own_server


def client(server: Server):
    from mlflow import MlflowClient

    return MlflowClient(server.address)


def run_of(server: Server, model: Path):
    """The run on the server of a model folder."""
    return client(server).get_run((model / "logs" / "mlflow_run").read_text().strip())


def history(server: Server, run, name: str) -> dict[int, float]:
    return {at.step: at.value for at in client(server).get_metric_history(run.info.run_id, name)}


def losses(model: Path) -> dict[int, float]:
    """The loss of each step in the CSV files of a model folder."""
    found = {}
    for table in sorted(model.glob("logs/csv/*/metrics.csv")):
        with table.open() as file:
            found |= {int(row["step"]): float(row[LOSS]) for row in csv.DictReader(file) if row[LOSS]}
    return found


def numbers(value, name: str = "") -> dict[str, float]:
    """All numbers of a YAML file by their dotted names."""
    if isinstance(value, dict):
        return {
            key: number for part, inner in value.items() for key, number in numbers(inner, f"{name}.{part}").items()
        }
    return {name: value} if isinstance(value, int | float) and not isinstance(value, bool) else {}


def test_a_server_holds_settings_losses_figures_files_and_pictures(server, fit, tmp_path, capsys):
    model = tmp_path / "model"
    detector = fit(model, "csv,mlflow")
    run = run_of(server, model)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "model")
    assert client(server).get_experiment(run.info.experiment_id).name == "line 1"
    printed = capsys.readouterr()
    assert printed.out == ""
    assert f"logged: {server.address}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}" in printed.err
    assert "secret" not in printed.err

    record = yaml.safe_load((model / "config.yaml").read_text())
    assert record["trainer"]["logger"] == run.data.params["trainer.logger"] == "csv,mlflow"
    assert run.data.params["recipe.batch_size"] == "4"
    assert run.data.params["model.image_size"] == "[64, 64]"
    assert run.data.params["data.class_path"] == "MVTecAD"
    assert {name.partition(".")[0] for name in run.data.params} == {
        *("seed", "data", "supervision", "masks", "model", "view", "reading", "recipe", "trainer", "cache"),
        *("time_budget", "on_error", "image_score"),
    }

    assert len(losses(model)) == STEPS
    assert history(server, run, LOSS) == pytest.approx(losses(model))
    expected = numbers(record["score_scale"], "score_scale")
    del record["training"]["label_recipe"]
    expected |= numbers(record["training"], "training")
    expected |= numbers(yaml.safe_load((model / "calibration.yaml").read_text()), "calibration")
    assert {"calibration.threshold_logit", "calibration.max_false_alarms", "score_scale.head_std"} <= expected.keys()
    assert "training.good_images" in expected
    found = {name: value for name, value in run.data.metrics.items() if "." in name}
    assert found == expected  # float64 on both sides

    stored = server.folder / "artifacts" / run.info.experiment_id / run.info.run_id / "artifacts"
    names = sorted(file.relative_to(stored).as_posix() for file in stored.rglob("*") if file.is_file())
    files = [*CALIBRATED, "model.safetensors"]
    assert names == [
        "logs/csv/version_0/metrics.csv",
        *(f"model/{name}" for name in files),  # and no images.csv
        *("pictures/held_out_good_1.png", "pictures/held_out_good_2.png"),
    ]
    for name in files:
        assert (stored / "model" / name).read_bytes() == (model / name).read_bytes()
    assert Detector.load(stored / "model", device="cpu").calibration == detector.calibration
    for name in names[-2:]:
        with Image.open(stored / name) as picture:
            picture.load()
            assert min(picture.size) > SIZE[0]  # enlarged, with words below it


@pytest.mark.slow
def test_what_a_server_missed_is_sent_when_it_is_back(server, tmp_path, capsys):
    from supersimplenet.training.mlflow_run import MLflowRun

    logger = TrackerLogger(MLflowRun(tmp_path / "logs" / "mlflow_run", name="missed"))
    logger.begin({"seed": "0", "long": "x" * 700})
    server.kill()
    for step in range(2500):  # more than a request may hold
        logger.log_metrics({"loss": step / 8}, step)
    logger.finalize("success")
    assert capsys.readouterr().err.count("the training goes on") == 1
    server.start()
    (picture := tmp_path / "picture.png").write_bytes(b"picture")
    logger.finish({"seed": "0"}, {"calibration.parts": 3.0}, [], [picture])
    run = run_of(server, tmp_path)
    assert history(server, run, "loss") == {step: step / 8 for step in range(2500)}
    assert run.data.metrics["calibration.parts"] == 3
    assert run.data.params == {"seed": "0", "long": "x" * 500}
    assert run.info.status == "FINISHED"


def after_each_checkpoint(monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> None:
    save = CheckpointWriter.save_checkpoint

    def save_and_act(*arguments: object, **options: object) -> None:
        save(*arguments, **options)
        action()

    monkeypatch.setattr(CheckpointWriter, "save_checkpoint", save_and_act)


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """A job in the background, as a whole test run may be, has Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
@pytest.mark.slow
def test_a_continued_training_continues_its_run(server, fit, tmp_path, monkeypatch):
    model = tmp_path / "model"

    with monkeypatch.context() as patched:
        after_each_checkpoint(patched, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(TrainingInterruptedError):
            fit(model, "mlflow", epochs=EPOCHS)
    stopped = run_of(server, model)
    assert stopped.info.status == "KILLED"
    before = history(server, stopped, LOSS)
    assert sorted(before) == list(range(len(before)))
    assert 0 < len(before) < EPOCHS * STEPS
    fit(model, "csv,mlflow", epochs=EPOCHS, resume=True)  # loggers may change
    whole = run_of(server, model)
    assert whole.info.run_id == stopped.info.run_id
    assert whole.info.status == "FINISHED"
    assert history(server, whole, LOSS) == pytest.approx(before | losses(model))
    assert sorted(before | losses(model)) == list(range(EPOCHS * STEPS))


def test_a_run_that_the_server_has_no_more_is_not_continued(server, tmp_path, capsys):
    from supersimplenet.training.mlflow_run import MLflowRun

    id_file = tmp_path / "logs" / "mlflow_run"
    id_file.parent.mkdir(parents=True)
    id_file.write_text("0123456789abcdef0123456789abcdef\n")
    MLflowRun(id_file, name="first").begin({})
    first = id_file.read_text().strip()
    assert "has no run 0123456789abcdef0123456789abcdef; a new one begins" in capsys.readouterr().err
    client(server).delete_run(first)
    MLflowRun(id_file, name="second").begin({})
    assert f"has no run {first}; a new one begins" in capsys.readouterr().err
    assert run_of(server, tmp_path).info.run_name == "second"


def test_a_failed_training_ends_its_run(server, fit, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").mkdir()  # in the way of the weights
    with pytest.raises(OSError, match=r"model\.safetensors"):
        fit(model, "mlflow")
    assert run_of(server, model).info.status == "FAILED"


def test_a_server_that_does_not_answer_is_found_before_an_image_is_read(own_server, tmp_path, monkeypatch, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://inspector:secret@127.0.0.1:{port}")
    began = time.monotonic()
    status = main(["train", *damaged(tmp_path), "--logger", "mlflow", "--output", str(tmp_path / "model")])
    assert time.monotonic() - began < 60  # MLflow itself asks for minutes
    assert status == 2
    message = capsys.readouterr().err
    assert (
        f"trainer.logger: MLflow at http://127.0.0.1:{port} failed ([Errno 111] Connection refused); start" in message
    )
    assert "secret" not in message
    assert not (tmp_path / "model" / "config.yaml").exists()


def damaged(folder: Path) -> list[str]:
    """Options of a dataset of which no image can be read: whatever is found before is found without one."""
    (folder / "good").mkdir()
    (folder / "good" / "1.png").write_bytes(b"no image")
    return ["--data", "Folder", "--data.good", str(folder / "good"), "--model.backbone", "compact"]


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_package_that_is_missing_is_found_without_torch(tmp_path, package):
    program = """
import sys
for name in ("torch", "lightning", sys.argv[1]):
    sys.modules[name] = None  # as if it were not installed
from supersimplenet.cli.main import main
sys.exit(main(["train", *sys.argv[2:]]))
"""
    (tmp_path / package).mkdir()  # a folder of this name, as wandb leaves one, is no package
    command = [sys.executable, "-c", program, package, *damaged(tmp_path), "--logger", f"csv,{package}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 2, done.stderr
    assert f"trainer.logger: {package} is not installed; pip install 'supersimplenet[{package}]'" in done.stderr


def test_mlflow_needs_an_address(own_server, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="set the environment variable MLFLOW_TRACKING_URI, such as http://127"):
        TrainerConfig(logger="mlflow").require_loggers()


def test_names_of_loggers():
    assert TrainerConfig().loggers == ("csv", "tensorboard")
    assert TrainerConfig(logger="none").loggers == ()
    assert TrainerConfig(logger="mlflow, csv,csv").loggers == ("csv", "mlflow")
    TrainerConfig(logger="none").require_loggers()
    for wrong in ("comet", "", "csv,", "none,csv", "CSV"):
        with pytest.raises(ConfigError, match=r"choose from csv, tensorboard, mlflow, wandb, with commas between"):
            TrainerConfig(logger=wrong)


def test_the_short_option_is_the_long_one(tmp_path, capsys):
    data = damaged(tmp_path)
    for option in (["--logger", "comet"], ["--logger=comet"], ["--trainer.logger", "comet"]):
        assert main(["train", *data, *option]) == 2
        assert "trainer.logger: 'comet'; choose from csv, tensorboard, mlflow, wandb" in capsys.readouterr().err


@pytest.mark.parametrize(("logger", "left"), [("csv", {"csv"}), ("none", set())])
def test_only_what_is_named_is_left(fit, tmp_path, logger, left):
    fit(tmp_path / "model", logger)
    assert {path.name for path in tmp_path.glob("model/logs/*")} == left
    assert (tmp_path / "model" / "logs").exists() == bool(left)
    assert sorted(losses(tmp_path / "model")) == ([0, 1] if left else [])


def test_a_training_without_heads_is_logged_too(server, surfaces, tmp_path):
    model = tmp_path / "model"
    trainer = TrainerConfig(max_epochs=0, accelerator="cpu", logger="mlflow")
    own = ModelConfig(backbone="compact", image_size=SIZE)
    train(MVTecAD(root=surfaces, category=SURFACE), output=model, model=own, trainer=trainer)
    run = run_of(server, model)
    calibration = yaml.safe_load((model / "calibration.yaml").read_text())
    assert run.info.status == "FINISHED"
    assert run.data.metrics["calibration.threshold_logit"] == calibration["threshold_logit"]
    assert run.data.params["trainer.max_epochs"] == "0"


def test_wandb_offline(fit, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    model = tmp_path / "model"
    fit(model, "csv,wandb")
    (log,) = model.glob("logs/wandb/offline-run-*/*.wandb")
    summary, logged, config, files = {}, {}, {}, {}
    for content in records_of(log.read_bytes()):
        record = Record.FromString(content)
        summary |= {".".join(at.nested_key) or at.key: json.loads(at.value_json) for at in record.summary.update}
        config |= {at.key: json.loads(at.value_json) for at in (*record.config.update, *record.run.config.update)}
        row = {at.key or at.nested_key[0]: json.loads(at.value_json) for at in record.history.item}
        if LOSS in row:
            logged[row["trainer/global_step"]] = row[LOSS]
        manifest = record.request.log_artifact.artifact.manifest or record.artifact.manifest
        files |= {entry.path: entry.size for entry in (*manifest.contents, *record.artifact.manifest.contents)}
    calibration = yaml.safe_load((model / "calibration.yaml").read_text())
    assert summary["calibration.threshold_logit"] == calibration["threshold_logit"]
    assert logged == pytest.approx(losses(model))
    assert config["recipe.batch_size"] == "4"
    assert files == {
        **{f"model/{name}": (model / name).stat().st_size for name in (*CALIBRATED, "model.safetensors")},
        "logs/csv/version_0/metrics.csv": (model / "logs" / "csv" / "version_0" / "metrics.csv").stat().st_size,
    }
    pictures = [path.name for path in log.parent.glob("files/media/images/pictures/*.png")]
    assert sorted(name.split("_good_")[1][0] for name in pictures) == ["1", "2"]


def records_of(content: bytes) -> Iterator[bytes]:
    """The records of a file of wandb's: a header of 7 bytes, then the log format of LevelDB."""
    place, parts = 7, b""
    while place + 7 <= len(content):
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        if kind:  # else the rest of a block that holds no more
            parts += content[place + 7 : place + 7 + length]
            if kind in (1, 4):  # whole, or the last part
                yield parts
                parts = b""
        place += 7 + length
        left = -place % (1 << 15)
        if left < 7:
            place += left


def test_a_training_outlives_its_server(server, fit, tmp_path, capsys, monkeypatch):
    model = tmp_path / "model"
    after_each_checkpoint(monkeypatch, server.kill)
    fit(model, "csv,mlflow", epochs=EPOCHS)
    printed = capsys.readouterr().err
    where = f"logger: MLflow at {server.address} failed ("
    assert printed.count("; the training goes on, and tries again later") == 1
    assert printed.count(where) == 2  # then, and at the end
    assert "the run there is incomplete; the model is not concerned" in printed
    assert "Connection refused" in printed
    assert "secret" not in printed
    assert sorted(losses(model)) == list(range(EPOCHS * STEPS))
    assert Detector.load(model, device="cpu").calibration is not None


@pytest.mark.slow
def test_a_registry_is_copied_once_and_its_states_follow(server, tmp_path, capsys):
    from supersimplenet.station.registry.promotions import promote, roll_back
    from supersimplenet.station.registry.records import register, set_state
    from supersimplenet.station.storage.database import open_database, writing

    engine = open_database(f"sqlite:///{tmp_path / 'station.db'}")
    numbers = []
    for state in ("candidate", "candidate", "failed"):
        with writing(engine) as connection:
            model = register(
                connection, product="lids", state=state, who="anna", dataset="lids", version=3, digest="d" * 64
            )
            found = {"new_escapes": 1, "evidence": {"missed_bound": 0.25}, "reasons": ["1 new escape"]}
            set_state(connection, model.number, state, **found)
        folder = model.model(tmp_path)
        folder.mkdir(parents=True)
        for name in ("config.yaml", "model.safetensors", "images.csv"):
            (folder / name).write_text(f"{name} of {model.number}")
        numbers.append(model.number)
    with writing(engine) as connection:
        promote(connection, tmp_path, numbers[0], who="anna")
        promote(connection, tmp_path, numbers[1], who="anna", force=True)
    call = ["registry", "mirror", "--folder", str(tmp_path)]
    assert main(call) == 0
    own = client(server)
    versions = {each.tags["supersimplenet.number"]: each for each in own.search_model_versions("name = 'lids'")}
    assert sorted(versions) == ["1", "2"]
    assert versions["2"].tags["supersimplenet.digest"] == "d" * 64
    assert own.get_model_version_by_alias("lids", "in-use").version == versions["2"].version
    run = own.get_run(versions["2"].run_id)
    assert run.data.metrics == {"new_escapes": 1.0, "evidence.missed_bound": 0.25}
    names = {each.path for each in own.list_artifacts(versions["2"].run_id, "model")}
    assert names == {"model/config.yaml", "model/model.safetensors"}  # the list of images stays in the house
    with writing(engine) as connection:
        roll_back(connection, tmp_path, "lids", who="anna")
        set_state(connection, numbers[1], "refused")
    assert main(call) == 0
    assert own.get_model_version_by_alias("lids", "in-use").version == versions["1"].version
    again = {each.tags["supersimplenet.number"]: each for each in own.search_model_versions("name = 'lids'")}
    assert {number: each.version for number, each in again.items()} == {n: each.version for n, each in versions.items()}
    assert again["2"].tags["supersimplenet.state"] == "refused"
    server.kill()
    capsys.readouterr()
    assert main(call) == 1
    message = capsys.readouterr().err
    assert "MLflow at http://127.0.0.1" in message
    assert "secret" not in message
    engine.dispose()
