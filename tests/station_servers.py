"""Databases for the tests of a station: a real PostgreSQL server of the test run's own, and fresh databases on it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

START_S = 30
STOP_S = 20


def _program(name: str) -> str | None:
    """Return a program of PostgreSQL; Debian keeps most of them off the path."""
    return shutil.which(name) or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a PostgreSQL server that was started for this test run. In CI its absence is a failure, not a skip."""
    if _program("initdb") is None or _program("postgres") is None:
        message = "no initdb and postgres: PostgreSQL is not tested; install PostgreSQL's server"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with running_postgres() as url:
        yield url


@contextmanager
def running_postgres() -> Iterator[str]:
    """Start a PostgreSQL server in a folder of its own, yield its URL, and stop it."""
    initdb, postgres = _program("initdb"), _program("postgres")
    assert initdb is not None
    assert postgres is not None
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    other_user = {}
    if os.geteuid() == 0:  # the server refuses to run as root
        shutil.chown(folder, "postgres", "postgres")
        other_user = {"user": "postgres", "group": "postgres", "extra_groups": []}
    options = {"cwd": folder, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **other_user}
    cluster, log = folder / "cluster", folder / "log"
    made = [initdb, "--no-sync", "-A", "trust", "-U", "station", "-E", "UTF8", "--locale", "C", str(cluster)]
    subprocess.run(made, check=True, **options)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
    command = [postgres, "-D", str(cluster), *(f"--{name}={value}" for name, value in settings.items())]
    with log.open("w") as output:
        server = subprocess.Popen(command, **{**options, "stdout": output})
    url = f"postgresql://station@127.0.0.1:{port}/postgres"
    try:
        _wait_for(url, server, log)
        yield url
    finally:
        server.send_signal(signal.SIGINT)  # ends without waiting for clients
        server.wait(STOP_S)
        shutil.rmtree(folder)


def _wait_for(url: str, server: subprocess.Popen[str], log: Path) -> None:
    end = time.monotonic() + START_S
    while not _answers(url):
        if server.poll() is not None or time.monotonic() > end:
            pytest.fail(f"PostgreSQL did not start: {log.read_text()}")
        time.sleep(0.05)


def _answers(url: str) -> bool:
    import psycopg  # not for tests that need no database

    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def fresh_database(server_url: str) -> str:
    """Make an empty database on a server and return its URL."""
    import psycopg
    from sqlalchemy.engine import make_url

    name = f"station_{uuid.uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)
