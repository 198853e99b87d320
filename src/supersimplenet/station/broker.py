"""Connections to an MQTT broker, for results that go there and for signals that come from there."""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiomqtt
from aiomqtt.exceptions import MqttConnectError

from supersimplenet.errors import ConfigError
from supersimplenet.station.config import is_loopback
from supersimplenet.station.credentials import read_password
from supersimplenet.station.settings import Broker
from supersimplenet.utils.formatting import first_line

_log = logging.getLogger(__name__)
_DROPS_WITHIN_S = 0.5
_QUIET = logging.getLogger(f"{__name__}.client")  # the station says itself that a broker is away, and which
_QUIET.setLevel(logging.CRITICAL)


class BrokerConnection:
    """Connects to a broker, as often as is wanted.

    Args:
        settings: how the broker is reached.

    Raises:
        ConfigError: a file that the settings name cannot be used.
    """

    def __init__(self, settings: Broker) -> None:
        self._settings = settings
        self._password = read_password(settings.password_file)
        self._tls = _tls_of(settings) if settings.tls else None
        if settings.password_file is not None and not settings.tls and not is_loopback(settings.host):
            _log.warning(
                "no TLS: the password for %s can be read on the network; see 'tls' in the setup", settings.host
            )

    @asynccontextmanager
    async def open(
        self, *, identifier: str | None = None, will: aiomqtt.Will | None = None
    ) -> AsyncIterator[aiomqtt.Client]:
        """Connect, yield the client, and disconnect in order.

        Args:
            identifier: the client's name at the broker, at most 23 letters and digits; a connection of the same name
                is ended by the broker. None for one that the broker gives.
            will: what the broker publishes when the connection ends without order.

        Raises:
            ConnectionError: the broker cannot be reached, refuses the connection, or ends it.
        """
        client = aiomqtt.Client(
            self._settings.host,
            self._settings.port,
            username=self._settings.username,
            password=self._password,
            identifier=identifier,
            will=will,
            keepalive=self._settings.keepalive_s,
            timeout=self._settings.timeout_s,
            tls_context=self._tls,
            logger=_QUIET,
        )
        try:
            await client.__aenter__()
        except aiomqtt.MqttError as error:
            await _drop(client)
            raise ConnectionError(self.reason(error)) from error
        try:
            yield client
        except aiomqtt.MqttError as error:
            raise ConnectionError(self.reason(error)) from error
        finally:
            await _drop(client)

    def reason(self, error: aiomqtt.MqttError) -> str:
        """Return in words for people what happened."""
        place = f"broker {self._settings.host}:{self._settings.port}"
        if isinstance(error, MqttConnectError):
            return f"{place} refuses the connection: {error.rc}; see username and password_file"
        if error.__cause__ is not None:  # it stood until now
            return f"{place}: the connection is lost"
        return f"{place}: {first_line(error)}"


async def _drop(client: aiomqtt.Client) -> None:
    """End a connection, also one that the broker never confirmed, whose socket would stay open."""
    client.timeout = min(client.timeout, _DROPS_WITHIN_S)
    with suppress(aiomqtt.MqttError):
        await client.__aexit__(None, None, None)


def _tls_of(settings: Broker) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"ca_file: {settings.ca_file}: no certificates ({first_line(error)}); wanted PEM") from error
