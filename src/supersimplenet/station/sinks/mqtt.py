"""A sink that publishes each result to an MQTT broker."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any
from urllib.parse import quote

import aiomqtt

from supersimplenet.station.broker import BrokerConnection
from supersimplenet.station.loop import Loop
from supersimplenet.station.sinks.settings import MqttSink
from supersimplenet.station.sinks.sink import AwayError, Message, Sink

_CONFIRMED = 1  # quality of service: the broker confirms, and a message may come twice
_FAREWELL_S = 2.0


class Mqtt(Sink):
    """Publishes each result to ``PREFIX/results/PRODUCT``, retained, and is done when the broker has confirmed it.

    ``PREFIX/status`` is ``online``, retained, while it is connected; then ``offline``, which the broker itself says
    where the connection ends without order. Confirmed means that the broker has it: who subscribes with quality of
    service 1 and a session that stays gets it, also later. MQTT 3.1.1 cannot say that a broker's rules forbid to
    publish: such a broker confirms, and drops the result.

    Args:
        settings: the sink's settings.

    Raises:
        ConfigError: a file that the settings name cannot be used.
    """

    def __init__(self, settings: MqttSink) -> None:
        self._settings = settings
        self._broker = BrokerConnection(settings)
        self._status = f"{settings.prefix}/status"
        self._loop: Loop | None = None
        self._client: aiomqtt.Client | None = None

    def open(self) -> None:
        """Connect, and say that the station is online."""
        self._loop = Loop(f"mqtt-{self._settings.name}")
        self._opened = AsyncExitStack()
        self._run(self._connect())
        self._run(self._publish(self._status, "online"))

    def deliver(self, message: Message) -> None:
        """Publish a result, and wait for the broker's confirmation."""
        topic = f"{self._settings.prefix}/results/{topic_level(message['product'])}"
        self._run(self._publish(topic, json.dumps(message)))

    def check(self) -> None:
        """See whether the connection still stands; a broker that falls silent is found out after ``keepalive_s``."""
        if self._loss.done():
            raise AwayError(self._loss.result())

    def close(self) -> None:
        """Say that the station is offline, and disconnect."""
        if self._loop is None:
            return
        with suppress(Exception):
            self._loop.run(self._disconnect(), timeout_s=2 * _FAREWELL_S)
        self._loop.close()
        self._loop = self._client = None

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        try:
            self._loop.run(coroutine)
        except ConnectionError as error:
            raise AwayError(str(error)) from error

    async def _connect(self) -> None:
        connection = self._broker.open(
            identifier=_identifier(self._settings),
            will=aiomqtt.Will(self._status, "offline", qos=_CONFIRMED, retain=True),
        )
        self._client = await self._opened.enter_async_context(connection)
        self._loss = asyncio.create_task(self._lost(self._client))

    async def _lost(self, client: aiomqtt.Client) -> str:
        """Wait until the connection is lost, and return why."""
        try:
            async for _ in client.messages:  # there are none: nothing is subscribed to
                pass
        except aiomqtt.MqttError as error:
            return self._broker.reason(error)
        return "disconnected"

    async def _publish(self, topic: str, payload: str) -> None:
        assert self._client is not None
        publishing = asyncio.create_task(self._client.publish(topic, payload, qos=_CONFIRMED, retain=True))
        await asyncio.wait({publishing, self._loss}, return_when=asyncio.FIRST_COMPLETED)
        if not publishing.done():
            publishing.cancel()
            raise ConnectionError(self._loss.result())
        try:
            await publishing
        except aiomqtt.MqttError as error:
            raise ConnectionError(self._broker.reason(error)) from error

    async def _disconnect(self) -> None:
        try:
            if self._client is not None:
                await asyncio.wait_for(self._publish(self._status, "offline"), _FAREWELL_S)
        finally:
            await self._opened.aclose()


def topic_level(name: str) -> str:
    """Return a name as one level of a topic: what has a meaning there, or is not printable, as ``%2F``."""
    return "".join(
        quote(letter, safe="") if letter in "%/+#" or not letter.isprintable() else letter for letter in name
    )


def _identifier(settings: MqttSink) -> str:
    """Return a client's name that stays the same.

    So a broker ends what is left of an earlier connection, and says its last will, before the new one is online.
    """
    what = f"{socket.gethostname()}\n{settings.prefix}\n{settings.name}"
    return f"ssn{hashlib.sha256(what.encode()).hexdigest()[:20]}"
