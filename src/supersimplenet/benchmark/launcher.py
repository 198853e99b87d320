"""Carry out each run in its own process, so that its memory is freed afterwards and a crash stops no other run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import yaml

from supersimplenet.benchmark.config import STOPS_WITHIN_S, AccuracyConfig
from supersimplenet.benchmark.journal import METRICS, Line
from supersimplenet.benchmark.runs import Run
from supersimplenet.inference.config import CONFIG_FILE, METRICS_FILE
from supersimplenet.inference.record import is_finished, read_record
from supersimplenet.metrics.anomalib_overlap import ANOMALIB_AUPRO
from supersimplenet.utils.documents import read_json
from supersimplenet.utils.files import write_text
from supersimplenet.utils.serialization import checked
from supersimplenet.utils.system import STOP_WITH_STDIN, available_cores

RUNS_FOLDER = "runs"
_RUN_CONFIG, _LOG = "train.yaml", "log.txt"


class RunFailedError(Exception):
    """A run's process ended with an error; the message gives the error and the path of the log."""


class _StoppedError(Exception):
    """The benchmark is stopped, so the run is given up."""


class _Processes:
    """The running processes, which all end when `stop` is called or when this process ends."""

    def __init__(self, kept_open: int) -> None:
        self._kept_open = kept_open
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        """Run a command of this program; return its exit status."""
        command = [sys.executable, "-m", "supersimplenet", *arguments]
        with log.open("ab") as output:
            with self._lock:
                if self._stopped:
                    raise _StoppedError
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **environment, STOP_WITH_STDIN: str(STOPS_WITHIN_S)},
                    start_new_session=True,  # Ctrl-C then stops it only through its standard input
                    pass_fds=() if sys.platform == "win32" else (self._kept_open,),
                )
                self._running.add(process)
            status = process.wait()
            with self._lock:
                self._running.discard(process)
                self._let_go(process)
        if self._stopped:
            raise _StoppedError
        return status

    def stop(self) -> None:
        """Tell every running process to end soon."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                self._let_go(process)

    def _let_go(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        process.stdin.close()


def carry_out(
    runs: Sequence[Run],
    folder: Path,
    config: AccuracyConfig,
    settings: Mapping[str, Any],
    *,
    lock: int,
    begun: Callable[[Run], None],
    done: Callable[[Run, Line], None],
    failed: Callable[[Run, RunFailedError], None],
) -> None:
    """Train and test each run, with one run at a time for each device or job.

    Args:
        runs: the runs, in the order in which they are started.
        folder: folder of the benchmark.
        config: devices, jobs, and whether models are kept.
        settings: options of `supersimplenet train` that all runs share; and ``aupro``, how it is computed.
        lock: file descriptor of the folder's lock; see `writing_into`.
        begun: called when a run starts, from the run's own thread.
        done: called with the line of a finished run, from the calling thread.
        failed: called with the error of a failed run, from the calling thread; the other runs continue.
    """
    environments: SimpleQueue[dict[str, str]] = SimpleQueue()
    places = _environments(config)
    for environment in places:
        environments.put(environment)
    processes = _Processes(lock)
    with ThreadPoolExecutor(len(places)) as pool:

        def one(run: Run) -> Line:
            environment = environments.get()
            try:
                begun(run)
                return _train_and_test(run, folder / RUNS_FOLDER / run.key, settings, processes, environment)
            finally:
                environments.put(environment)

        futures = {pool.submit(one, run): run for run in runs}
        try:
            for future in as_completed(futures):
                run = futures[future]
                try:
                    line = future.result()
                except RunFailedError as error:
                    failed(run, error)
                else:
                    done(run, line)
                    if not config.keep_models:
                        shutil.rmtree(folder / RUNS_FOLDER / run.key)
        except BaseException:
            processes.stop()
            pool.shutdown(cancel_futures=True)
            raise


def comparable(run: Run, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that all runs of a benchmark share, without those that do not influence the figures."""
    trainer = {name: value for name, value in settings["trainer"].items() if name not in ("num_workers", "logger")}
    others = {name: value for name, value in settings.items() if name != "cache"}
    return {"data": run.shared_data, **others, "trainer": trainer}


def _environments(config: AccuracyConfig) -> list[dict[str, str]]:
    """Return the environment variables of each simultaneous run: its GPU, or its number of threads."""
    if config.devices:
        return [{"CUDA_VISIBLE_DEVICES": device} for device in config.devices]
    if config.jobs == 1:
        return [{}]
    threads = int(os.environ.get("OMP_NUM_THREADS") or available_cores())
    return [{"OMP_NUM_THREADS": str(max(1, threads // config.jobs))}] * config.jobs


def _train_and_test(
    run: Run, folder: Path, settings: Mapping[str, Any], processes: _Processes, environment: Mapping[str, str]
) -> Line:
    """Train and test one run, or continue it if an earlier call was interrupted; return the run's line."""
    model, log, config = folder / "model", folder / _LOG, folder / _RUN_CONFIG
    of_training = {name: value for name, value in settings.items() if name != "aupro"}
    text = yaml.safe_dump({**run.options, **of_training}, sort_keys=False, allow_unicode=True)
    if folder.exists() and not (config.is_file() and config.read_text(encoding="utf-8") == text):
        shutil.rmtree(folder)  # it was made with other settings
    folder.mkdir(parents=True, exist_ok=True)
    write_text(config, text)
    begun = (model / CONFIG_FILE).is_file()
    trained = begun and is_finished(model, read_record(model))
    resumed = begun and not trained
    if not trained:
        # Without an interrupted run, --resume starts a new training.
        train = ["train", "--config", str(config), "--output", str(model), "--resume"]
        status = processes.run(train, log, environment)
        if status > 0 and resumed:  # not by a signal: the interrupted run cannot be continued
            shutil.rmtree(model)
            resumed = False
            status = processes.run(train, log, environment)
        _check("training", status, log)
    device = {"gpu": "cuda"}.get(settings["trainer"]["accelerator"], settings["trainer"]["accelerator"])
    started = time.monotonic()
    test = ["test", "--model", str(model), "--device", device]
    test += ["--anomalib-aupro"] * (settings["aupro"] == "anomalib")
    _check("test", processes.run(test, log, environment), log)
    test_seconds = round(time.monotonic() - started, 1)
    return _line(run, model, settings, resumed=resumed, test_seconds=test_seconds)


def _check(stage: str, status: int, log: Path) -> None:
    if status != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        ended = f"ended by signal {-status}" if status < 0 else f"exit status {status}"
        raise RunFailedError(f"{stage}: {ended}: {last} (log: {log})")


def _line(run: Run, model: Path, settings: Mapping[str, Any], *, resumed: bool, test_seconds: float) -> Line:
    """Return the line of a run, with figures from metrics.json and config.yaml and the fields of `Run`."""
    path = model / METRICS_FILE
    content = read_json(path, advice="remove the run's folder and call again")
    metrics = checked(dict[str, Any], content, where=str(path))
    metrics["AUPRO"] = metrics.get(ANOMALIB_AUPRO, metrics["AUPRO"])
    record = read_record(model)
    training = record["training"]
    return {
        "key": run.key,
        "dataset": run.dataset,
        "category": run.category,
        "fold": run.fold,
        "regime": run.regime,
        "masks": run.masks,
        "masks_from": run.masks_from,
        "seed": run.seed,
        "metrics": {name: metrics[name] for name in METRICS if name in metrics},
        "training_images": {
            "good": training["good_images"],
            "bad_with_mask": training["bad_with_mask_images"],
            "bad_without_mask": training["bad_without_mask_images"],
        },
        "vanishing_images": len(metrics["vanishing"]["images_left_out"]),
        "image_size": record["model"]["image_size"],
        "epochs": training["plan"]["epochs"],
        "steps": training["plan"]["total_steps"],
        "train_seconds": training["seconds"],
        "resumed": resumed,
        "test_seconds": test_seconds,
        "settings": comparable(run, settings),
        "versions": record["versions"],
    }
