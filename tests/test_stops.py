"""Every command killed at each of its writes: what is there is whole, and the next call ends as an undisturbed one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Processes are forked before torch has computed, and each ends without cleaning up, as after kill -9, when it is about
# to rename or remove its n-th file.
SCRIPT = '''
import os, re, shutil, sys
from pathlib import Path

import numpy as np
from PIL import Image

from supersimplenet import Detector, ModelConfig, Recipe, SyntheticConfig, synthesize
from supersimplenet.datasets.mvtec import MVTecAD
from supersimplenet.errors import ModelFolderError
from supersimplenet.evaluation.calibrate import calibrate
from supersimplenet.inference.config import ComputeConfig
from supersimplenet.inference.import_weights import import_weights
from supersimplenet.inference.model_folder import is_finished, read_record
from supersimplenet.prediction.predict import predict_files
from supersimplenet.report.findings import evaluate_model
from supersimplenet.report.report import write_report
from supersimplenet.training.config import TrainerConfig
from supersimplenet.training.train import train
from supersimplenet.visualization.calibration_plot import draw_calibration

ROOT, CASE, FIRST, STEP = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
CPU = ComputeConfig(device="cpu")
DATA = MVTecAD(root=ROOT / "data", category="brushed_metal")


def forked(work, stop_at=0):
    """Run in a process of its own, which dies at the given write; return whether it died there."""
    pid = os.fork()
    if pid == 0:
        writes = 0

        def dying(call):
            def wrapped(path, *others, **options):
                nonlocal writes
                if str(path).startswith(str(ROOT)) and not str(path).endswith(".lock"):
                    writes += 1
                    if writes == stop_at:
                        os._exit(9)
                return call(path, *others, **options)
            return wrapped

        os.replace, os.rename, os.unlink = map(dying, (os.replace, os.rename, os.unlink))
        status = 1
        try:
            work()
            status = 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 9), status
    return status == 9


def contents(folder):
    """Return every file; times, dates and log files aside."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not {"logs", "checkpoints"} & set(path.parts):
            text = path.read_bytes()
            found[str(path.relative_to(folder))] = re.sub(rb"seconds: .*", b"", text)
    return found


def train_into(output):
    # The lock's file may be left in the folder by a killed process.
    train(
        DATA,
        output=output,
        model=ModelConfig(backbone="compact", image_size=(64, 64)),
        recipe=Recipe(batch_size=4),
        trainer=TrainerConfig(max_epochs=2, accelerator="cpu"),
        resume=True,
    )


def calibrate_into(output):
    good = sorted((ROOT / "more" / "brushed_metal").rglob("good"))
    calibrate(output, good=good, config=LENIENT, compute=CPU, draw=draw_calibration)


def whole_or_unfinished(output):
    """A folder that loads is the finished one; another says that it is not."""
    try:
        Detector.load(output, device="cpu")
    except ModelFolderError as error:
        assert "not finished" in str(error) or "no model here" in str(error), error
        return
    assert {name: text for name, text in contents(output).items() if name != ".lock"} == whole


def old_or_new(output):
    found = (output / "calibration.yaml").read_bytes()
    assert found in (before["calibration.yaml"], whole["calibration.yaml"])
    Detector.load(output, device="cpu")


def tables_or_journal(output):
    journal = output / "predictions.partial.jsonl"
    if not journal.exists() and output.exists() and any(output.glob("predictions.*")):
        for name in ("predictions.csv", "predictions.jsonl", "defects.csv"):
            assert (output / name).read_bytes() == whole[name], name


def nothing(output):
    pass


from supersimplenet.evaluation.config import ThresholdConfig

LENIENT = ThresholdConfig(lenient=True)
before = {}
if CASE == "train":
    prepare, work, check = None, train_into, whole_or_unfinished
else:
    model = ROOT / "model"
    forked(lambda: train_into(model))
    before = contents(model)
    if CASE == "calibrate":
        prepare = lambda output: shutil.copytree(model, output)
        work, check = calibrate_into, old_or_new
    elif CASE == "predict":
        images = str(ROOT / "data" / "brushed_metal" / "test" / "good")
        prepare, check = None, tables_or_journal
        work = lambda output: predict_files(model, [images], output, compute=CPU, overlays=True)
    elif CASE == "report":
        prepare, check = None, nothing
        work = lambda output: write_report(model, output, compute=CPU)
    elif CASE == "test":
        prepare, check = None, nothing
        work = lambda output: evaluate_model(model, output=output, compute=CPU)

if prepare:
    prepare(ROOT / "whole")
forked(lambda: work(ROOT / "whole"))
whole = contents(ROOT / "whole")
stops = 0
for stop_at in range(FIRST, 1000, STEP):
    # The same name, because a calibration and a report say where the model lies.
    output = ROOT / "stopped"
    shutil.rmtree(output, ignore_errors=True)
    if prepare:
        prepare(output)
    if not forked(lambda: work(output), stop_at=stop_at):
        break
    stops += 1
    check(output)
    if CASE == "train" and (output / "config.yaml").exists() and is_finished(output, read_record(output)):
        continue
    forked(lambda: work(output))
    found = contents(output)
    assert found == whole, (stops, sorted(found), [name for name in whole if found.get(name) != whole[name]])
print("stops", stops)
'''


SLOW = (pytest.mark.slow, pytest.mark.timeout(1800))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from supersimplenet import SyntheticConfig, synthesize

    root = tmp_path_factory.mktemp("stops")
    small = {"surfaces": ("brushed_metal",), "size_px": (64, 64), "test_good": 2, "test_per_defect": 1}
    synthesize(root / "data", SyntheticConfig(train_good=8, **small))
    synthesize(root / "more", SyntheticConfig(train_good=4, seed=5, **small))
    return root


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
@pytest.mark.parametrize(
    ("case", "first", "step", "least"),
    [
        ("train", 6, 8, 1),  # one of the writes at the end of a training: images.csv, weights, thresholds, config.yaml
        pytest.param("calibrate", 1, 1, 2, marks=SLOW),
        pytest.param("train", 1, 1, 9, marks=SLOW),
        pytest.param("predict", 1, 1, 6, marks=SLOW),
        pytest.param("report", 1, 1, 1, marks=SLOW),
        pytest.param("test", 1, 1, 2, marks=SLOW),
    ],
)
def test_a_kill_at_any_write_loses_nothing(case, first, step, least, data, tmp_path):
    for name in ("data", "more"):
        (tmp_path / name).symlink_to(data / name)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), case, str(first), str(step)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert int(done.stdout.split()[-1]) >= least
