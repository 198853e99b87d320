"""What is asked of the machine beside arithmetic: memory that is not handed back each time, and its cores."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names of glibc's mallopt(3)
STOP_WITH_STDIN = "SUPERSIMPLENET_STOP_WITH_STDIN"  # environment variable: seconds, see `stop_with_stdin`
_KEPT_BYTES = (1 << 31) - 1
_GPU_THREADS = 8  # threads that decode for a GPU, at most


def keep_freed_blocks() -> bool:
    """Let the C library keep large freed blocks for the next request.

    By default glibc returns each block of more than 32 MiB to the system when it is freed, and the next one of the
    same size is handed out page by page, cleared. In a training step that takes longer than the arithmetic
    (docs/performance.md). The process then holds on to the largest amount it once used.

    Returns:
        Whether it was done: on Linux with glibc; elsewhere nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES) and mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES))


def available_cores() -> int:
    """Cores that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_cpu(device: torch.device) -> bool:
    """Whether work is cut into pieces that stay in cache: on a CPU. A GPU takes it whole."""
    return device.type == "cpu"


@contextmanager
def worker_threads(device: torch.device) -> Iterator[int]:
    """While several threads at once carry images from the file to the result by torch; gives their best number.

    On a CPU each thread computes alone: threads that share one image wait for each other at every operation, and
    for long where another one is decoding.
    """
    import torch  # not before: the line's computer may have none

    if device.type != "cpu":
        yield min(_GPU_THREADS, available_cores())
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # of this thread, and of those that begin to compute from now on
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def cpu_name() -> str:
    """Return the CPU's name for people."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_memory_mib() -> float | None:
    """Return the most memory that this process has held, in MiB; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def stop_with_stdin(within_s: float) -> None:
    """Stop this process when its standard input is closed: when the process that started it closes it, or ends.

    It is asked to by SIGTERM, and ended if it has not stopped in time. So a training that is let go leaves its
    checkpoint, and none goes on writing into a folder that another run continues in.

    Args:
        within_s: seconds between both.
    """

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)  # returns when the other end is closed: nothing is ever written
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(within_s)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
