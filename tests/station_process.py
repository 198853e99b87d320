"""A station in a process of its own, for tests: started, asked, stopped, killed."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

SCRIPT = """
import json, logging, sys
from pathlib import Path
from supersimplenet.inference.config import ComputeConfig
from supersimplenet.station.config import StationConfig
from supersimplenet.station.serve import serve
from supersimplenet.station.setup import setup_of

logging.basicConfig(format="%(message)s", level=logging.WARNING)
models, options = json.loads(sys.argv[1])
paths = {name: Path(options.pop(name)) for name in ("folder", "models", "certificate", "key") if name in options}
setup = setup_of(options.pop("setup", {}))
serve(models, StationConfig(**options, **paths), setup, started=lambda address: print(address, flush=True))
"""
WITHIN_S = 60.0


class StationProcess:
    """A station with its own folder, on a port of its own.

    Args:
        model: a model folder or exported file, or one for each product.
        options: settings of the station; the folder is needed.
    """

    def __init__(self, model: Path | dict[str, Path], **options: Any) -> None:
        models = model if isinstance(model, dict) else {"parts": model}
        self._models = {product: str(path) for product, path in models.items()}
        self.options = {"port": 0, "reserve_mib": 0, **options}
        self.folder = Path(options["folder"])
        self.start()

    def start(self) -> None:
        options = {name: str(value) if isinstance(value, Path) else value for name, value in self.options.items()}
        command = [sys.executable, "-c", SCRIPT, json.dumps([self._models, options])]
        self.log = self.folder.with_name(f"{self.folder.name}.log")
        with self.log.open("ab") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        self.address = self.process.stdout.readline().strip()
        if not self.address:
            self.process.wait(WITHIN_S)
            self.process.stdout.close()
            raise AssertionError(self.log.read_text())
        self.options["port"] = int(self.address.rpartition(":")[2])  # a station that is started again keeps its address
        trusted = self.options.get("certificate")
        verify = True if trusted is None else ssl.create_default_context(cafile=trusted)
        self.client = httpx.Client(base_url=self.address, timeout=WITHIN_S, verify=verify)

    def __enter__(self) -> StationProcess:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.stop()

    def stop(self) -> None:
        """End it in order."""
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(WITHIN_S) == 0, self.log.read_text()
        self.process.stdout.close()

    def kill(self) -> None:
        """End it as a power cut does."""
        self.client.close()
        self.process.kill()
        self.process.wait(WITHIN_S)
        self.process.stdout.close()

    def inspect(self, content: bytes, **parameters: Any) -> dict[str, Any]:
        """Send a picture as raw bytes, and return its result."""
        headers = {"Content-Type": "image/png"}
        if "key" in parameters:
            headers["Idempotency-Key"] = parameters.pop("key")
        answer = self.client.post("/v1/inspect", content=content, params=parameters, headers=headers)
        assert answer.status_code == 200, answer.text
        (result,) = answer.json()["results"]
        return result

    def get(self, path: str, **parameters: Any) -> Any:
        answer = self.client.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()
