"""Runs as processes: memory is handed back after each, and one that crashes takes no other along."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import yaml

from supersimplenet.benchmark.config import STOPS_WITHIN_S, AccuracyConfig
from supersimplenet.benchmark.journal import METRICS, Line
from supersimplenet.benchmark.runs import Run
from supersimplenet.errors import OutputError
from supersimplenet.inference.config import CONFIG_FILE, METRICS_FILE, WEIGHTS_FILE
from supersimplenet.inference.model_folder import read_record
from supersimplenet.utils.console import console
from supersimplenet.utils.files import write_text
from supersimplenet.utils.system import STOP_WITH_STDIN, available_cores

RUNS_FOLDER = "runs"
_RUN_CONFIG, _LOG, _LOCK = "train.yaml", "log.txt", ".lock"


class RunFailedError(Exception):
    """A run's process ended with an error; says which and where its log is."""


class _StoppedError(Exception):
    """The benchmark is being stopped."""


class _Processes:
    """The processes at work, all of which end when `stop` is called or when this process ends."""

    def __init__(self, kept_open: int) -> None:
        self._kept_open = kept_open
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
        """Run a command of the program; gives its exit status."""
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
                    start_new_session=True,  # Ctrl-C reaches it by its standard input alone, once
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
        """Let every process end soon."""
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
    """Train and test each run, as many at a time as there are devices or jobs.

    Args:
        runs: in their order.
        folder: of the benchmark.
        config: devices, jobs, whether models are kept.
        settings: options of `supersimplenet train` that all runs share.
        lock: of the folder, see `claimed`.
        begun: called from the run's own thread.
        done: called with a run's line, from this thread.
        failed: likewise, with what went wrong; the other runs go on.
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
    """The settings that all runs of a benchmark share, but for those that no figure depends on."""
    trainer = {name: value for name, value in settings["trainer"].items() if name != "num_workers"}
    others = {name: value for name, value in settings.items() if name != "cache"}
    return {"data": run.shared_data, **others, "trainer": trainer}


@contextmanager
def claimed(folder: Path) -> Iterator[int]:
    """Keep a folder to oneself; gives the open lock file, which processes inherit and so prolong the claim.

    Raises:
        OutputError: another benchmark is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("wb") as file:
        if sys.platform != "win32":  # there, it is up to the user
            import fcntl

            give_up = time.monotonic() + STOPS_WITHIN_S + 10
            waiting = False
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not waiting:
                        console().print(f"{folder}: waiting for the runs of another benchmark to end there")
                    waiting = True
                    if time.monotonic() > give_up:
                        raise OutputError(
                            f"{folder}: another benchmark is at work there; wait for it, stop it, or name another "
                            "--output"
                        ) from None
                    time.sleep(0.5)
        yield file.fileno()


def _environments(config: AccuracyConfig) -> list[dict[str, str]]:
    """What the environment of each run that is at work at a time says of where it computes."""
    if config.devices:
        return [{"CUDA_VISIBLE_DEVICES": device} for device in config.devices]
    if config.jobs == 1:
        return [{}]
    threads = int(os.environ.get("OMP_NUM_THREADS") or available_cores())
    return [{"OMP_NUM_THREADS": str(max(1, threads // config.jobs))}] * config.jobs


def _train_and_test(
    run: Run, folder: Path, settings: Mapping[str, Any], processes: _Processes, environment: Mapping[str, str]
) -> Line:
    """One run's line; what an earlier call left of it is continued."""
    model, log, config = folder / "model", folder / _LOG, folder / _RUN_CONFIG
    text = yaml.safe_dump({**run.options, **settings}, sort_keys=False, allow_unicode=True)
    if folder.exists() and not (config.is_file() and config.read_text(encoding="utf-8") == text):
        shutil.rmtree(folder)  # of other settings
    folder.mkdir(parents=True, exist_ok=True)
    write_text(config, text)
    trained = (model / WEIGHTS_FILE).is_file()
    resumed = not trained and (model / CONFIG_FILE).is_file()
    if not trained:
        # Where nothing was begun, --resume begins.
        train = ["train", "--config", str(config), "--output", str(model), "--resume"]
        status = processes.run(train, log, environment)
        if status > 0 and resumed:  # it ended by itself: what was left is of no use
            shutil.rmtree(model)
            resumed = False
            status = processes.run(train, log, environment)
        _check("training", status, log)
    device = {"gpu": "cuda"}.get(settings["trainer"]["accelerator"], settings["trainer"]["accelerator"])
    started = time.monotonic()
    _check("test", processes.run(["test", "--model", str(model), "--device", device], log, environment), log)
    test_seconds = round(time.monotonic() - started, 1)
    return _line(run, model, settings, resumed=resumed, test_seconds=test_seconds)


def _check(stage: str, status: int, log: Path) -> None:
    if status != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        ended = f"ended by signal {-status}" if status < 0 else f"exit status {status}"
        raise RunFailedError(f"{stage}: {ended}: {last} (log: {log})")


def _line(run: Run, model: Path, settings: Mapping[str, Any], *, resumed: bool, test_seconds: float) -> Line:
    """What is kept of a run; what each figure means is said in metrics.json, config.yaml and `Run`."""
    metrics = json.loads((model / METRICS_FILE).read_text(encoding="utf-8"))
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
        "image_size": record["model"]["image_size"],
        "epochs": training["plan"]["epochs"],
        "steps": training["plan"]["total_steps"],
        "train_seconds": training["seconds"],
        "resumed": resumed,
        "test_seconds": test_seconds,
        "settings": comparable(run, settings),
        "versions": record["versions"],
    }
