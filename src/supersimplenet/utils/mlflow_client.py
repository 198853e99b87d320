"""The client of an MLflow server: quiet, and with short waits, unless the user says otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

# MLflow asks a server 7 times, with growing pauses, and waits 120 s for each answer. What a user sets wins.
ASKS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
WAITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # sent to MLflow's makers
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output is for results
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables that are not set already."""
    own = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)


def without_user(uri: str) -> str:
    """Return an address without a name and password in it."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.netloc else uri
