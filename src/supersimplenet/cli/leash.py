"""The program on a leash: it stops when the process that started it closes the pipe to it, or ends, however it ends.

``python -m supersimplenet.cli.leash train ...``. A training that is stopped so leaves its checkpoint, and none
goes on writing into a folder that the next benchmark continues in.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from supersimplenet.benchmark.config import STOPS_WITHIN_S
from supersimplenet.cli.main import main


def _watch() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the other end is closed: nothing is ever written
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOPS_WITHIN_S)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_watch, daemon=True).start()
    sys.exit(main())
