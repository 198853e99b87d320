"""A trigger that takes the changes of a PLC's value for signals, over OPC UA."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.ua.uaerrors import UaError

from supersimplenet.errors import ConfigError
from supersimplenet.station.credentials import read_password
from supersimplenet.station.opcua import quiet, read_certificate, read_identity
from supersimplenet.station.sources.settings import OpcUaTrigger
from supersimplenet.station.sources.triggers import Listener

_PUBLISHES_EVERY_MS = 20  # asked for; a PLC may answer with what it can
_QUEUE = 100  # changes that the PLC keeps between two answers, so that a short pulse is not missed
_LOST = object()


class OpcUaChanges(Listener):
    """Fires when a Boolean becomes true, or a number changes.

    What a value was while there was no connection is not known: the first one after it never fires.

    Args:
        settings: the trigger's settings.
        name: name of the camera.
        say: called with a line for the log.

    Raises:
        ConfigError: a node id is none, or a file that the settings name cannot be used.
    """

    def __init__(self, settings: OpcUaTrigger, *, name: str, say: Callable[[str], None]) -> None:
        super().__init__(name, say=say)
        quiet()
        self._settings = settings
        self._node = _node_id(settings.node)
        self._part_node = None if settings.part_node is None else _node_id(settings.part_node)
        self._password = read_password(settings.password_file)
        self._identity = None
        if settings.certificate is not None and settings.key is not None:
            self._identity = read_identity(settings.certificate, settings.key)
        self._server = None if settings.server_certificate is None else read_certificate(settings.server_certificate)

    async def listen(self) -> None:
        """Subscribe to the node, and fire."""
        values: asyncio.Queue[Any] = asyncio.Queue()

        async def is_lost(_: Exception) -> None:
            values.put_nowait(_LOST)

        client = await self._client()
        client.connection_lost_callback = is_lost
        async with client:
            subscription = await client.create_subscription(_PUBLISHES_EVERY_MS, _Changes(values))
            await subscription.subscribe_data_change(client.get_node(self._node), queuesize=_QUEUE)
            self.hears()
            before: float | None = None  # a Boolean or a number
            while (value := await values.get()) is not _LOST:
                if value is not None and not isinstance(value, (bool, int, float)):
                    raise TypeError(f"{self._settings.node} holds a {type(value).__name__}; wanted Boolean or a number")
                if _is_signal(before, value):
                    self.signals(await self._part(client))
                before = value
        raise ConnectionError(f"{self._settings.url}: the connection is lost")

    async def _client(self) -> Client:
        client = Client(self._settings.url, timeout=self._settings.timeout_s)
        if self._settings.username is not None:
            client.set_user(self._settings.username)
            client.set_password(self._password or "")
        if self._identity is not None:
            client.application_uri = self._identity.uri
            await client.set_security(
                SecurityPolicyBasic256Sha256,
                self._identity.certificate,
                self._identity.key,
                server_certificate=self._server,
            )
        return client

    async def _part(self, client: Client) -> object:
        return None if self._part_node is None else await client.get_node(self._part_node).read_value()


class _Changes:
    """Puts the values of a subscription into a queue, in their order."""

    def __init__(self, values: asyncio.Queue[Any]) -> None:
        self._values = values

    def datachange_notification(self, node: object, val: Any, data: object) -> None:
        """Take a value; called by asyncua."""
        del node, data
        self._values.put_nowait(val)


def _is_signal(before: float | None, value: float | None) -> bool:
    if before is None or value is None:
        return False
    return value != before and (value is True or not isinstance(value, bool))


def _node_id(text: str) -> ua.NodeId:
    try:
        return ua.NodeId.from_string(text)
    except UaError as error:
        raise ConfigError(f"'{text}' is no id of a node; wanted such as ns=3;s=Camera.Trigger") from error
