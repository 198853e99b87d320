"""Locks: one process at a time writes into a folder, whichever command it runs, and a killed one locks nothing."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from supersimplenet import ModelConfig, SuperSimpleNet
from supersimplenet.cli.main import main
from supersimplenet.errors import OutputError
from supersimplenet.evaluation import calibrate, gate
from supersimplenet.inference.model_folder import save_model
from supersimplenet.report import findings
from supersimplenet.utils.locks import LOCK_FILE, is_unused, writing_file, writing_into

HOLD = """
import sys
from pathlib import Path
from supersimplenet.utils.locks import writing_into
with writing_into(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""
COUNT = """
import sys
from pathlib import Path
from supersimplenet.utils import locks
locks._TRY_AGAIN_S = 0.0005
locks._tell = lambda text: None
folder = Path(sys.argv[1])
for _ in range(60):
    with locks.writing_into(folder, wait_s=60):
        number = int((folder / "number").read_text())
        (folder / "number").write_text(str(number + 1))
"""
WINDOWS = sys.platform == "win32"


@pytest.fixture
def holder(tmp_path: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline().strip() == b"locked"
    yield process
    process.kill()
    process.communicate()


def test_the_error_names_the_process_and_its_death_ends_the_lock(tmp_path, holder):
    named = rf"out: another process is writing here \(pid {holder.pid}, `-c .*…?`, since 20\d\d-.* on host .+\); wait "
    with pytest.raises(OutputError, match=named) as refused, writing_into(tmp_path / "out"):
        pass
    assert str(refused.value).endswith("wait for it, stop it, or name another --output")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "out" / LOCK_FILE).exists()  # which locks nothing
    with writing_into(tmp_path / "out"):
        pass
    assert not (tmp_path / "out" / LOCK_FILE).exists()


def test_no_lock_is_lost_while_lock_files_come_and_go(tmp_path):
    (tmp_path / "number").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "number").read_text() == "180"
    assert [path.name for path in tmp_path.iterdir()] == ["number"]


def test_folders_made_for_nothing_are_removed(tmp_path):
    with pytest.raises(ValueError, match="failed"), writing_into(tmp_path / "a" / "b"):
        raise ValueError("failed")
    assert list(tmp_path.iterdir()) == []
    with writing_file(tmp_path / "a" / "file"):
        (tmp_path / "a" / "file").write_text("content")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]
    (tmp_path / "empty").mkdir()
    with writing_into(tmp_path / "empty"):
        assert is_unused(tmp_path / "empty")
    assert (tmp_path / "empty").is_dir()  # it was there before


@pytest.mark.skipif(WINDOWS, reason="descriptors are not inherited there")
def test_an_inherited_lock_outlives_its_process_and_a_fork_does_not_keep_it(tmp_path):
    with writing_into(tmp_path) as descriptor:
        child = subprocess.Popen(["sleep", "60"], pass_fds=(descriptor,))
    with pytest.raises(OutputError, match="another process is writing here"), writing_into(tmp_path):
        pass
    child.kill()
    child.wait()
    with writing_into(tmp_path):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(write, b"forked")
            time.sleep(60)
            os._exit(0)
        os.read(read, 6)
    try:
        with writing_into(tmp_path):
            pass
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.skipif(WINDOWS, reason="fcntl")
def test_a_file_system_without_locks_is_told_and_used(tmp_path, monkeypatch, capsys):
    def no_locks(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with writing_into(tmp_path):
        (tmp_path / "file").write_text("content")
    assert "cannot be locked here (No locks available): make sure that nothing else" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("content")
    with (
        pytest.raises(OutputError, match=r"file.out: cannot be written \(.+\); choose"),
        writing_into(tmp_path / "file" / "out"),
    ):
        pass


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and a dataset with a table."""
    root = tmp_path_factory.mktemp("case")
    for name in ("model", "other"):
        network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=(64, 64)), seed=1)
        save_model(root / name, network.eval(), {})
    rows = []
    for index in range(44):
        path = root / "images" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        rows.append(
            f"images/{index}.png,{'test' if index % 4 == 0 else 'train'},{'1,spot' if index % 8 == 0 else '0,'}"
        )
    (root / "table.csv").write_text("\n".join(["image,split,label,defect", *rows]) + "\n")
    return root


COMMANDS = {
    "train": "train --data Table --data.path {case}/table.csv --model.backbone compact --output {out}",
    "predict": "predict --model {case}/model {case}/images --output {out}",
    "calibrate": "calibrate --model {out} --good {case}/images --max-false-alarms 30%",
    "test": "test --model {case}/model --data Table --data.path {case}/table.csv --output {out}",
    "report": "report --model {case}/model --data Table --data.path {case}/table.csv --output {out}",
    "gate": "gate --candidate {case}/model --current {case}/other --golden {case}/table.csv --output {out}",
    "check": "data check --data Table --data.path {case}/table.csv --output {out}",
    "synthesize": "data synthesize --output {out} --surfaces [brushed_metal] --size_px [64,64]",
    "demo": "demo --output {out}",
    "accuracy": "benchmark accuracy --data MVTecAD --data.root {case} --categories x --output {out}",
}
FILES = {
    "export": "export --model {case}/model --format onnx --output {out}",
    "split": "data split --data Table --data.path {case}/table.csv --output {out}",
}


@pytest.mark.parametrize("name", [*COMMANDS, *FILES])
def test_every_command_that_writes_refuses_a_place_in_use(name, case, tmp_path, monkeypatch, capsys):
    for module in (calibrate, findings, gate):
        monkeypatch.setattr(module, "WAIT_TO_WRITE_S", 0.0)
    monkeypatch.setattr("supersimplenet.benchmark.accuracy.STOPS_WITHIN_S", -10.0)
    out = tmp_path / ("out" if name in COMMANDS else "out.onnx" if name == "export" else "out.csv")
    lock: Callable[[Path], object] = writing_into if name in COMMANDS else writing_file
    command = {**COMMANDS, **FILES}[name].format(case=case, out=out)
    if name == "calibrate":
        network = SuperSimpleNet(ModelConfig(backbone="compact", image_size=(64, 64)), seed=1)
        save_model(out, network.eval(), {})
    before = sorted(tmp_path.rglob("*"))
    with lock(out):
        assert main(command.split()) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.search(rf"{re.escape(str(out))}: another process is writing here \(pid {os.getpid()}, ", said)
    assert sorted(tmp_path.rglob("*")) == before  # nothing was written


def test_training_and_watching_work_outside_the_main_thread(case, tmp_path):
    """Only the main thread may handle signals; a training there failed after its last epoch."""
    from supersimplenet.datasets.table import Table
    from supersimplenet.prediction.watch import stopped_by_signals
    from supersimplenet.training.config import TrainerConfig
    from supersimplenet.training.train import train

    failures: list[BaseException] = []

    def work() -> None:
        try:
            with stopped_by_signals() as stop:
                assert not stop.is_set()
            train(
                Table(path=case / "table.csv"),
                output=tmp_path / "run",
                supervision="unsupervised",
                model=ModelConfig(backbone="compact", image_size=(64, 64)),
                trainer=TrainerConfig(max_epochs=1, accelerator="cpu"),
            )
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failures == []
    assert (tmp_path / "run" / "calibration.yaml").is_file()
