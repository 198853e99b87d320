"""The OPC UA server that shows a station's results: nodes, an event for each result, and who may connect."""

from __future__ import annotations

import asyncio
import hmac
import math
from collections.abc import Collection
from datetime import datetime, timezone
from typing import Any

from asyncua import ua
from asyncua.common.callback import CallbackType
from asyncua.common.node import Node
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.event_generator import EventGenerator
from asyncua.server.internal_server import InternalServer
from asyncua.server.server import Server
from asyncua.server.user_managers import UserManager
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes

from supersimplenet.station.opcua import APPLICATION_URI, Identity, quiet
from supersimplenet.station.sinks.sink import Message
from supersimplenet.utils.names import unicode_text

NAMESPACE = "urn:supersimplenet:station"
EVENT_TYPE = "InspectionEventType"
ACKNOWLEDGED = "Acknowledged"
_ROOT = "SuperSimpleNet"
FIELDS: dict[str, tuple[ua.VariantType, Any]] = {  # types, and values before the first result
    "Id": (ua.VariantType.String, ""),
    "Verdict": (ua.VariantType.String, ""),
    "VerdictCode": (ua.VariantType.Int16, -1),  # 0 would say good
    "Score": (ua.VariantType.Double, math.nan),
    "PValue": (ua.VariantType.Double, math.nan),
    "Part": (ua.VariantType.String, ""),
    "PartVerdict": (ua.VariantType.String, ""),
    "Name": (ua.VariantType.String, ""),
    "TakenAt": (ua.VariantType.DateTime, datetime.fromtimestamp(0, tz=timezone.utc)),
    "Repeat": (ua.VariantType.Boolean, False),
    "Sequence": (ua.VariantType.UInt32, 0),  # written last: who waits for it reads what belongs to it
}
_CODES = {"good": 0, "unsure": 1, "bad": 2, "failed": 3}
_SEVERITIES = {"good": 100, "unsure": 400, "bad": 700, "failed": 900}  # of events, 1 to 1000
_ENCRYPTED = [
    ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
    ua.SecurityPolicyType.Aes128Sha256RsaOaep_SignAndEncrypt,
    ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
]


class Clients(UserManager):
    """Who may connect. Nobody is an administrator, so that clients write only what is writable for them.

    Args:
        username: name to log in with; None for no login.
        password: the password for it.
        certificates: certificates of clients, as DER; None for any client, also without one.
        encrypted: whether a client must have a certificate, any, and so an encrypted connection.
    """

    def __init__(
        self,
        *,
        username: str | None = None,
        password: str | None = None,
        certificates: Collection[bytes] | None = None,
        encrypted: bool = False,
    ) -> None:
        self._login = None if username is None else (username.encode(), (password or "").encode())
        self._certificates, self._encrypted = certificates, encrypted

    def get_user(
        self,
        iserver: InternalServer,
        username: str | None = None,
        password: str | None = None,
        certificate: bytes | None = None,
    ) -> User | None:
        """Return the user of a connection; None to refuse it.

        The certificate is that of the connection itself. What a client says of itself when a session is made could be
        another one's, and asyncua would open an unencrypted connection even where none is offered.
        """
        del iserver
        if self._encrypted and certificate is None:
            return None
        if self._certificates is not None and certificate not in self._certificates:
            return None
        if self._login is not None:
            given = (username or "").encode(), (password or "").encode()
            if not all(list(map(hmac.compare_digest, given, self._login))):  # both, so that the time tells nothing
                return None
        return User(role=UserRole.User, name=username)


class _NoRegistry(InternalServer):
    """A server at which no other server can register: asyncua would take any, without a login."""

    def register_server(self, server: Any, conf: Any = None) -> None:
        raise ServiceError(StatusCodes.BadServiceUnsupported)


class ResultServer:
    """Shows results; its methods run in one event loop.

    Args:
        endpoint: where it listens.
        clients: who may connect.
        identity: the server's certificate and key; None for connections that are not encrypted.
        acknowledge: whether clients may write ``Acknowledged``.
    """

    def __init__(self, endpoint: str, clients: Clients, *, identity: Identity | None, acknowledge: bool) -> None:
        quiet()
        self._clients, self._identity, self._acknowledge = clients, identity, acknowledge
        self._server = Server(iserver=_NoRegistry(user_manager=clients))
        self._server.set_endpoint(endpoint)
        self._server.set_server_name("SuperSimpleNet station")
        self._server.set_identity_tokens([ua.AnonymousIdentityToken, ua.UserNameIdentityToken])
        self._products: dict[str, dict[str, Node]] = {}
        self._written = asyncio.Event()

    async def start(self, products: Collection[str]) -> None:
        """Make the nodes, and listen.

        Raises:
            OSError: the address cannot be listened at.
        """
        server = self._server
        await server.init()
        await server.set_application_uri(APPLICATION_URI if self._identity is None else self._identity.uri)
        if self._identity is None:
            server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        else:
            await server.load_certificate(self._identity.certificate, "der")
            await server.load_private_key(self._identity.key, format="der")
            server.set_security_policy(_ENCRYPTED)
        self._namespace = await server.register_namespace(NAMESPACE)
        self._root = await server.nodes.objects.add_object(*self._named(_ROOT))
        self._events = await self._event_generator()
        for product in products:
            await self._add(product)
        server.subscribe_server_callback(CallbackType.PostWrite, self._on_write)
        await server.start()

    async def show(self, message: Message, number: int) -> None:
        """Write a result into its product's variables, its number last, and send its event."""
        product, values = message["product"], _values(message, number)
        nodes = self._products.get(product) or await self._add(product)
        for name, value in values.items():
            await nodes[name].write_value(value, FIELDS[name][0])
        event = self._events.event
        event.SourceNode, event.SourceName = self._node_id(_ROOT, product), product
        event.Severity = _SEVERITIES[values["Verdict"]]
        for name, value in values.items():
            setattr(event, name, value)
        await self._events.trigger(values["TakenAt"], f"{product}: {values['Verdict']}")

    async def acknowledged(self, product: str, number: int) -> None:
        """Wait until a client has written a number into ``Acknowledged`` of a product."""
        while await self._products[product][ACKNOWLEDGED].read_value() != number:
            self._written.clear()
            await self._written.wait()

    async def stop(self) -> None:
        """End all connections, and listen no more."""
        await self._server.stop()

    def _on_write(self, *_: Any) -> None:
        self._written.set()

    def _node_id(self, *path: str) -> ua.NodeId:
        return ua.NodeId(ua.String(unicode_text("/".join(path))), ua.Int16(self._namespace))

    def _named(self, *path: str) -> tuple[ua.NodeId, ua.QualifiedName]:
        return self._node_id(*path), ua.QualifiedName(unicode_text(path[-1]), self._namespace)

    async def _add(self, product: str) -> dict[str, Node]:
        parent = await self._root.add_object(*self._named(_ROOT, product))
        nodes = {}
        for name, (kind, value) in FIELDS.items():
            nodes[name] = await parent.add_variable(*self._named(_ROOT, product, name), value, kind)
        if self._acknowledge:
            own = self._named(_ROOT, product, ACKNOWLEDGED)
            nodes[ACKNOWLEDGED] = await parent.add_variable(*own, 0, ua.VariantType.UInt32)
            await nodes[ACKNOWLEDGED].set_writable()
        self._products[product] = nodes
        return nodes

    async def _event_generator(self) -> EventGenerator:
        base = self._server.get_node(ObjectIds.BaseEventType)
        event_type = await base.add_object_type(*self._named(EVENT_TYPE))
        for name, (kind, value) in FIELDS.items():
            await event_type.add_property(*self._named(EVENT_TYPE, name), value, kind)
        return await self._server.get_event_generator(event_type)


def _values(message: Message, number: int) -> dict[str, Any]:
    """Return a result's values, by the names of the variables."""
    verdict, of_part = message["verdict"] or "failed", message["part_result"]
    return {
        "Id": message["id"],
        "Verdict": verdict,
        "VerdictCode": _CODES[verdict],
        "Score": math.nan if message["score"] is None else message["score"],
        "PValue": math.nan if message["p_value"] is None else message["p_value"],
        "Part": unicode_text(message["part"] or ""),
        "PartVerdict": "" if of_part is None else of_part["verdict"] or "failed",
        "Name": unicode_text(message["name"]),
        "TakenAt": datetime.fromisoformat(message["taken_at"].replace("Z", "+00:00")),
        "Repeat": message["repeat"],
        "Sequence": number,
    }
