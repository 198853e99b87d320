"""Functions for the operating system and the machine: memory, cores, CPU name, stopping this process or others.

What only some systems have is used here and in `supersimplenet.utils.locks` alone, and has a way around it: the
modules resource, ctypes, fcntl and msvcrt are imported where they are called, and may be missing.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from supersimplenet.errors import ConfigError

if TYPE_CHECKING:
    import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names of glibc's mallopt(3)
STOP_WITH_STDIN = "SUPERSIMPLENET_STOP_WITH_STDIN"  # environment variable: seconds, see `stop_with_stdin`
_KEPT_BYTES = (1 << 31) - 1
_SPIN_COUNT = "1000"
_GPU_THREADS = 8  # largest number of threads that decode images for a GPU
_process_with_threads: int | None = None  # this one, or one that it was forked from; see `require_own_threads`


def keep_freed_blocks() -> bool:
    """Let the C library keep large freed blocks for the next request.

    By default glibc returns each block of more than 32 MiB to the system when it is freed, and the system clears the
    next block of the same size page by page. In a training step this takes longer than the arithmetic
    (docs/performance.md). With this setting, the process keeps the largest amount of memory that it once used.

    Returns:
        Whether the setting was made: on Linux with glibc; elsewhere nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        import ctypes

        mallopt = ctypes.CDLL(None).mallopt
    except (ImportError, AttributeError, OSError):  # a Python without libffi, another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))


def let_waiting_threads_sleep() -> None:
    """Let OpenMP's threads wait for each other asleep; call before torch is imported, later it changes nothing.

    They wait by spinning, by default for milliseconds. Where another process has the core, they then spin through each
    other's time slices (docs/decisions/0009-one-image-a-thread.md). libgomp reads ``GOMP_SPINCOUNT`` when torch is
    loaded; a value that is set already stays.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", _SPIN_COUNT)


def available_cores() -> int:
    """Return the number of cores that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_cpu(device: torch.device) -> bool:
    """Return whether the device is a CPU, where work is cut into chunks that stay in cache; a GPU gets it whole."""
    return device.type == "cpu"


@contextmanager
def worker_threads(device: torch.device) -> Iterator[int]:
    """Prepare torch for several threads that each process their own images; yield the best number of threads.

    On a CPU each thread computes alone: threads that share one image wait for each other at every operation, and wait
    long while one of them is decoding.
    """
    import torch  # imported only here: the production computer may lack torch

    if device.type != "cpu":
        yield min(_GPU_THREADS, available_cores())
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for this thread and for threads that begin to compute from now on
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def require_own_threads() -> None:
    """Refuse to compute with torch in a process that was forked from one that computed with it.

    A forked process has none of the threads of its parent, and torch would wait for them without end.

    Raises:
        ConfigError: this is such a process, and torch would use several threads.
    """
    global _process_with_threads
    import torch  # imported only here: the production computer may lack torch

    if torch.get_num_threads() == 1:
        return
    if _process_with_threads not in (None, os.getpid()):
        raise ConfigError(
            "this process was forked from one that uses torch, and torch's threads do not exist in it: it would wait "
            "for them without end; start processes with multiprocessing.get_context('spawn'), or call "
            "torch.set_num_threads(1) first in this one"
        )
    _process_with_threads = os.getpid()


def cpu_name() -> str:
    """Return the CPU's name for people."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_memory_mib() -> float | None:
    """Return the most memory that this process has held, in MiB; None where the system has no such figure (Windows)."""
    if sys.platform == "win32":
        return None
    try:
        import resource
    except ImportError:
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def stop_with_stdin(within_s: float) -> None:
    """Stop this process when its standard input is closed: the process that started it closes the input, or ends.

    This process then gets SIGTERM, and is ended if it has not stopped in time. So an abandoned training keeps its
    checkpoint, and does not go on writing into a folder in which another run continues.

    Args:
        within_s: seconds between SIGTERM and the forced end.
    """

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)  # returns when the input is closed, because nothing is ever written to it
        _terminate()
        time.sleep(within_s)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _terminate() -> None:
    """Send SIGTERM to this process, so that its handlers run."""
    import signal

    if sys.platform == "win32":
        signal.raise_signal(signal.SIGTERM)  # os.kill would end the process there at once, without its handlers
    else:
        os.kill(os.getpid(), signal.SIGTERM)  # to the process: it also wakes a main thread that waits


if sys.platform == "win32":

    def has_group(leader: int) -> bool:
        """Return whether a process of a group is left; there are no groups there."""
        return False

    def kill_group(process: subprocess.Popen[bytes]) -> None:
        """End a process at once."""
        process.kill()

else:

    def has_group(leader: int) -> bool:
        """Return whether a process of a group is left, which may end after its leader."""
        try:
            os.killpg(leader, 0)
        except OSError:
            return False
        return True

    def kill_group(process: subprocess.Popen[bytes]) -> None:
        """End a process that leads a group, and all others of the group, at once."""
        import signal

        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
