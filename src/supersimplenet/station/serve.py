"""Run a station until it is stopped: `supersimplenet serve`."""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

import uvicorn

from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import HERE, ComputeConfig
from supersimplenet.station.access.accounts import Accounts
from supersimplenet.station.access.guards import SecureHeaders
from supersimplenet.station.api.inspection import Door
from supersimplenet.station.app import build_app
from supersimplenet.station.config import StationConfig
from supersimplenet.station.server import PatientProtocol, Server
from supersimplenet.station.setup import NOTHING_SET_UP, Setup
from supersimplenet.station.station import Station
from supersimplenet.utils.formatting import first_line

_log = logging.getLogger(__name__)


def serve(
    models: Mapping[str, str | Path],
    config: StationConfig | None = None,
    setup: Setup = NOTHING_SET_UP,
    *,
    compute: ComputeConfig = HERE,
    trust: bool = False,
    started: Callable[[str], None] = lambda address: None,
) -> int:
    """Run a station until the process gets Ctrl-C or SIGTERM; what was taken is finished first.

    Args:
        models: model folder or exported file of each product, by the product's name.
        config: the station's settings.
        setup: where pictures come from and results go, beside requests.
        compute: device, engine and precision for model folders.
        trust: also open exported torch programs, which may run code of their authors.
        started: called with the address, as a browser opens it, when pictures are taken.

    Returns:
        The number of pictures that were in work when the stop came, and are finished.

    Raises:
        ConfigError: the settings cannot be, the address cannot be listened at, or others than this computer could use
            the station without a user.
        StationError: the database cannot be used.
        SuperSimpleNetError: a model cannot be opened; the subclass names the cause.
    """
    config = config or StationConfig()
    paths = {product: Path(path) for product, path in models.items()}
    _check_certificate(config)
    listening = _listen(config)
    station = Station(paths, config, setup, compute=compute, trust=trust, say=_log.warning)
    try:
        _check_reach(config, station)
        app = build_app(station)
    except BaseException:
        station.close()
        raise
    in_work = 0

    def before_stop() -> None:
        nonlocal in_work
        in_work = station.inspections.counts.in_work
        station.end_streams()

    server = Server(
        uvicorn.Config(
            SecureHeaders(Door(app, station), tls=config.is_https),
            http=PatientProtocol,
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=config.connections,
            ssl_certfile=config.certificate,
            ssl_keyfile=config.key,
        ),
        before_stop=before_stop,
    )
    started(_address(config, listening))
    server.run(sockets=[listening])
    return in_work


def _check_reach(config: StationConfig, station: Station) -> None:
    if not station.has_reached_database:
        return  # who may use it is not known: nobody, until it is
    if not config.is_local and Accounts(station.engine).is_empty():
        raise ConfigError(
            f"host: {config.host} is reached from other computers, and the station has no users yet; add one first",
            commands=[("", f"supersimplenet station add-user NAME --role admin --folder {config.folder}")],
        )


def _check_certificate(config: StationConfig) -> None:
    """Refuse a certificate that does not work before anything is loaded; warn where passwords would be readable."""
    if config.certificate is None or config.key is None:
        if not config.is_local and not config.https_proxy:
            _log.warning("no TLS: passwords and tokens can be read on the network; see --certificate and --https-proxy")
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(config.certificate, config.key)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"certificate: {config.certificate.name} and {config.key.name} are no certificate and its private key "
            f"({first_line(error)}); both as PEM, and not swapped"
        ) from error


def _listen(config: StationConfig) -> socket.socket:
    """Return a socket that listens already: where the address is taken, no model is loaded in vain."""
    try:
        family = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((config.host, config.port), family=family, backlog=2048)
    except (socket.gaierror, UnicodeError) as error:
        said = error.strerror if isinstance(error, OSError) else None
        raise _no_own_address(config, said or "not a name of a computer") from error
    except OSError as error:
        reason = os.strerror(error.errno or 0)  # the error's own text repeats the address
        if error.errno == errno.EADDRNOTAVAIL:
            raise _no_own_address(config, reason) from error
        raise ConfigError(
            f"port: {config.port} of {config.host} cannot be listened at ({reason}); choose another --port, or stop "
            "what has it"
        ) from error


def _no_own_address(config: StationConfig, reason: str) -> ConfigError:
    wanted = "wanted an address or name of this computer, or 0.0.0.0 for all its addresses"
    return ConfigError(f"host: {config.host} cannot be listened at ({reason}); {wanted}")


def _address(config: StationConfig, listening: socket.socket) -> str:
    """Return the address that a browser opens; one that stands for all addresses is none."""
    host, port = listening.getsockname()[:2]
    if config.is_everywhere:
        host = next(iter(config.public_hosts), None) or _own_name(listening.family)
    scheme = "http" if config.certificate is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _own_name(family: int) -> str:
    """Return the name of this computer where it leads here, else ``localhost``, which does so on this computer."""
    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, None, family=family)
    except (OSError, UnicodeError):
        return "localhost"
    return name
