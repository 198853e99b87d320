"""Memory that is freed and taken again at once: kept by the process instead of being handed back each time."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names of glibc's mallopt(3)
_KEPT_BYTES = (1 << 31) - 1


def keep_freed_memory() -> bool:
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
