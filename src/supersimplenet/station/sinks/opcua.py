"""A sink that shows each result at an OPC UA server of the station's own."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Collection
from contextlib import suppress
from urllib.parse import urlsplit

from supersimplenet.errors import ConfigError
from supersimplenet.station.config import is_loopback
from supersimplenet.station.credentials import read_password
from supersimplenet.station.loop import Loop
from supersimplenet.station.opcua import read_certificate, read_identity
from supersimplenet.station.sinks.opcua_server import Clients, ResultServer
from supersimplenet.station.sinks.settings import OpcUaSink
from supersimplenet.station.sinks.sink import AwayError, Message, Sink

_log = logging.getLogger(__name__)
_STARTS_WITHIN_S, _STOPS_WITHIN_S, _SHOWS_WITHIN_S = 60.0, 5.0, 10.0
_NUMBERS = 1 << 32  # of a UInt32


class OpcUa(Sink):
    """Writes each result into variables that clients read or subscribe to, and sends an event for it.

    When a result is delivered:

    - without ``acknowledge``, when its variables are written. Nobody need have read them: a client that is not
      connected then, or that reads too seldom, misses it. The next result overwrites it at once.
    - with ``acknowledge``, when a client has written its ``Sequence`` into ``Acknowledged``. Until then it stays, and
      the next ones wait in the outbox; after ``timeout_s`` the sink is away, and the same result is still shown.

    ``Sequence`` counts up from the time of the start in seconds since 1970, so that after a restart no client takes
    the number of one result for that of another.

    Args:
        settings: the sink's settings.
        products: products whose variables are there from the start; those of others come with their first result.

    Raises:
        ConfigError: a file that the settings name cannot be used.
    """

    def __init__(self, settings: OpcUaSink, *, products: Collection[str] = ()) -> None:
        self._settings, self._products = settings, products
        url = urlsplit(settings.endpoint)
        self._address = (url.hostname or "", url.port or 0)
        self._identity = None
        if settings.certificate is not None and settings.key is not None:
            self._identity = read_identity(settings.certificate, settings.key)
        self._clients = Clients(
            username=settings.username,
            password=read_password(settings.password_file),
            certificates=_certificates_in(settings),
            encrypted=self._identity is not None,
        )
        if not is_loopback(self._address[0]) and self._identity is None:
            _log.warning(
                "no encryption: the password for %s can be read on the network; see 'certificate' in the setup",
                settings.endpoint,
            )
        self._number = int(time.time()) % _NUMBERS
        self._loop: Loop | None = None
        self._shown = ""  # id of the result that is shown
        self._goes_on = False

    def open(self) -> None:
        """Start the server, unless it runs still."""
        if self._loop is not None:
            return
        _must_be_free(self._address)
        self._loop = Loop(f"opcua-{self._settings.name}")
        self._loop.run(self._start(), timeout_s=_STARTS_WITHIN_S)

    def deliver(self, message: Message) -> None:
        """Show a result, and with ``acknowledge`` wait for a client that has it."""
        assert self._loop is not None
        waits = self._settings.acknowledge
        if not waits or self._shown != message["id"]:
            self._number = self._number % (_NUMBERS - 1) + 1  # 0 is what is there before the first result
            self._loop.run(self._server.show(message, self._number), timeout_s=_SHOWS_WITHIN_S)
            self._shown = message["id"]
        if waits:
            acknowledged = self._server.acknowledged(message["product"], self._number)
            try:
                self._loop.run(acknowledged, timeout_s=self._settings.timeout_s)
            except TimeoutError as error:
                self._goes_on = True
                seconds = f"{self._settings.timeout_s:g}"
                raise AwayError(f"no client acknowledged within {seconds} s", "no_client", seconds=seconds) from error

    def close(self) -> None:
        """Stop the server; after a result that nobody acknowledged it goes on, so that clients still can."""
        if self._goes_on or self._loop is None:
            self._goes_on = False
            return
        with suppress(Exception):
            self._loop.run(self._server.stop(), timeout_s=_STOPS_WITHIN_S)
        self._loop.close()
        self._loop = None
        self._shown = ""

    async def _start(self) -> None:
        settings = self._settings
        self._server = ResultServer(
            settings.endpoint, self._clients, identity=self._identity, acknowledge=settings.acknowledge
        )
        await self._server.start(self._products)


def _must_be_free(address: tuple[str, int]) -> None:
    """See whether an address can be listened at, before a second goes into making a server's nodes."""
    host, port = address
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server(address, family=family).close()
    except OSError as error:
        said, place = error.strerror or "", f"{host}:{port}"
        raise AwayError(f"{place} cannot be listened at: {said}", "address", address=place, message=said) from error


def _certificates_in(settings: OpcUaSink) -> frozenset[bytes] | None:
    if settings.clients is None:
        return None
    try:
        files = sorted(path for path in settings.clients.iterdir() if path.is_file())
    except OSError as error:
        raise ConfigError(f"clients: {settings.clients}: cannot be read ({error.strerror})") from error
    if not files:
        raise ConfigError(f"clients: {settings.clients}: no certificates; wanted one file for each client, PEM or DER")
    return frozenset(map(read_certificate, files))
