"""Servers for the tests of a station, each the test run's own: PostgreSQL with fresh databases, and an MQTT broker."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NoReturn

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
        _is_missing("no initdb and postgres: PostgreSQL is not tested; install PostgreSQL's server")
    with running_postgres() as url:
        yield url


def _is_missing(message: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def free_port() -> int:
    """Return a port of this computer that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


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
    port = free_port()
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


def is_there(port: int) -> bool:
    """Return whether somebody listens at a port of this computer."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Mosquitto:
    """An MQTT broker with a folder and a port of its own, which can be killed and started again.

    Args:
        folder: an empty folder.
        users: passwords by name; without them anybody may connect.
        tls: files of certificate and key.
    """

    def __init__(
        self, folder: Path, *, users: dict[str, str] | None = None, tls: tuple[Path, Path] | None = None
    ) -> None:
        self.folder, self.port = folder, free_port()
        lines = [f"listener {self.port} 127.0.0.1", "persistence false", "user root"]  # root, if started by root
        lines.append(f"allow_anonymous {'false' if users else 'true'}")
        if users:
            for name, password in users.items():
                made = [
                    "mosquitto_passwd",
                    "-b",
                    *([] if (folder / "users").exists() else ["-c"]),
                    str(folder / "users"),
                ]
                subprocess.run([*made, name, password], check=True, capture_output=True)
            lines.append(f"password_file {folder / 'users'}")
        if tls:
            lines += [f"certfile {tls[0]}", f"keyfile {tls[1]}"]
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        self.start()

    def start(self) -> None:
        log = self.folder / "log"
        command = [_mosquitto(), "-c", str(self.folder / "mosquitto.conf")]
        with log.open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        end = time.monotonic() + START_S
        while not is_there(self.port):
            if self.process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"mosquitto did not start: {log.read_text()}")
            time.sleep(0.01)

    def kill(self) -> None:
        """End it as a power cut does."""
        self.process.kill()
        self.process.wait(STOP_S)


def _mosquitto() -> str | None:
    """Return the program; Debian keeps it off the path of most users."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")


@pytest.fixture
def mosquitto_of(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """A function that starts brokers for this test. In CI the program's absence is a failure, not a skip."""
    if _mosquitto() is None:
        _is_missing("no mosquitto: MQTT is not tested; install mosquitto")
    started: list[Mosquitto] = []

    def start(**options: Any) -> Mosquitto:
        folder = tmp_path / f"mosquitto-{len(started)}"
        folder.mkdir()
        started.append(Mosquitto(folder, **options))
        return started[-1]

    yield start
    for broker in started:
        broker.kill()


@pytest.fixture
def mosquitto(mosquitto_of: Callable[..., Mosquitto]) -> Mosquitto:
    """An MQTT broker at which anybody of this computer may connect."""
    return mosquitto_of()


def self_signed(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a certificate for this computer that signs itself, and its key, as PEM; return both files."""
    from asyncua.crypto.cert_gen import (
        dump_private_key_as_pem,
        generate_private_key,
        generate_self_signed_app_certificate,
    )
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509.oid import ExtendedKeyUsageOID

    key = generate_private_key()
    names = [
        x509.UniformResourceIdentifier(f"urn:test:{name}"),
        x509.DNSName(socket.gethostname()),
        x509.IPAddress(ip_address("127.0.0.1")),
    ]
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = generate_self_signed_app_certificate(key, name, {}, names, uses)
    files = folder / f"{name}.pem", folder / f"{name}-key.pem"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(dump_private_key_as_pem(key))
    return files
