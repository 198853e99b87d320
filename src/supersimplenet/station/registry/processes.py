"""Runs commands of this package as processes of their own, gently, with their lines in a log."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from supersimplenet.errors import StationError
from supersimplenet.utils.system import STOP_WITH_STDIN

LOG_FILE = "log.txt"
STOPS_WITHIN_S = 30.0  # for a command that is told to stop: a training writes a checkpoint first


def gentle_command(*arguments: str) -> list[str]:
    """Return the words that run a command of this package at the lowest priority, where the system has one."""
    gentle = ["nice", "-n", "10"] if shutil.which("nice") else []
    return [*gentle, sys.executable, "-m", "supersimplenet", *arguments]


class Processes:
    """Runs commands of this package one after the other: the station goes on inspecting, nothing of torch is in it.

    Args:
        folder: where the log is.
        threads: number of threads for each, so that the rest of the machine inspects; None for all.
    """

    def __init__(self, folder: Path, threads: int | None) -> None:
        self._log, self._threads = folder / LOG_FILE, threads

    def run(self, *arguments: str, passes: Sequence[int] = (0,)) -> None:
        """Run a command; its lines are added to the log.

        Args:
            arguments: the command's name and options.
            passes: statuses with which it may end.

        Raises:
            StationError: it failed.
        """
        environment = os.environ | {STOP_WITH_STDIN: str(STOPS_WITHIN_S)}  # it stops when this process ends
        if self._threads is not None:
            environment["OMP_NUM_THREADS"] = str(self._threads)
        with (
            self._log.open("ab") as lines,
            subprocess.Popen(
                gentle_command(*arguments), stdin=subprocess.PIPE, stdout=lines, stderr=lines, env=environment
            ) as process,
        ):
            status = process.wait()
        if status not in passes:
            last = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise StationError(f"{arguments[0]} ended with status {status}: {''.join(last)}; see {self._log}")
