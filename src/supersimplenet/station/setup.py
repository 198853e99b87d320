"""The setup of a station: where pictures come from and where results go, as a YAML file says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from supersimplenet.errors import ConfigError, printable
from supersimplenet.station.config import is_loopback
from supersimplenet.utils.documents import read_yaml
from supersimplenet.utils.formatting import counted

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,49}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
ShortSeconds = Annotated[float, Field(gt=0, le=60)]  # of what a stop of the station may have to wait for
Host = Annotated[str, Field(pattern=r"^[^\s/@]{1,253}$")]
Topic = Annotated[str, Field(pattern=r"^[^+#\x00-\x1f]{1,500}$")]
TopicPrefix = Annotated[str, Field(pattern=r"^[^+#$/\x00-\x1f]([^+#\x00-\x1f]{0,200}[^+#/\x00-\x1f])?$")]
OpcUaUrl = Annotated[str, Field(pattern=r"^opc\.tcp://[^\s/@]+:\d+(/\S*)?$", max_length=500)]
NodeIdText = Annotated[str, Field(pattern=r"^(ns=\d+;)?[isgb]=.+$", max_length=500)]
_ADVICE = "see 'Cameras, folders and outputs' in docs/station.md"


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Named(_Settings):
    """What every source and sink has.

    Attributes:
        name: short name, for results, signs and the outbox.
    """

    name: Name


class FolderSource(_Named):
    """Takes the pictures that arrive in a folder.

    Attributes:
        folder: the folder, watched at any depth.
        product: product of the pictures; may be left out where there is one.
        after: what becomes of a picture that has a result: ``move`` into the folder's ``done``, ``delete``, or
            ``leave`` it, to be known again by name, size and date. One that could not be inspected is moved to
            ``done/failed``, unless all are left.
    """

    kind: Literal["folder"]
    folder: Path
    product: str | None = None
    after: Literal["move", "delete", "leave"] = "move"


class ReplaySource(_Named):
    """Plays a line: draws pictures of a folder at random, to try a station without a camera.

    Attributes:
        folder: folder of pictures, at any depth.
        seconds: time between two pictures.
        product: product of the pictures; may be left out where there is one.
        seed: of the draws.
    """

    kind: Literal["replay"]
    folder: Path
    seconds: Seconds = 1.0
    product: str | None = None
    seed: int = 0


class FilesSink(_Named):
    """Writes a table a day, ``results-2026-11-30.csv``, by UTC.

    Attributes:
        folder: folder of the tables; it is made.
        format: ``csv``; ``parquet`` turns each finished day's CSV into a Parquet table.
    """

    kind: Literal["files"]
    folder: Path
    format: Literal["csv", "parquet"] = "csv"


class WebhookSink(_Named):
    """Sends each result as a signed POST request, after the Standard Webhooks specification.

    Attributes:
        url: where to; redirects are not followed.
        secret_file: file with the secret, ``whsec_`` and base64 of 24 to 64 bytes; without it requests are not signed.
        timeout_s: seconds to wait for an answer.
    """

    kind: Literal["webhook"]
    url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$", max_length=2000)]
    secret_file: Path | None = None
    timeout_s: Seconds = 10.0


class Broker(_Settings):
    """How an MQTT broker is reached.

    Attributes:
        host: name or address of the broker.
        port: its port; with TLS 8883 is usual.
        tls: encrypt the connection, and check the broker's certificate.
        ca_file: certificates to check it with, as PEM; by default those of the system.
        username: name to log in with; needs ``password_file``.
        password_file: file with the password, in one line.
        keepalive_s: seconds between signs of life; after one and a half times as long without one, the broker takes
            the station for gone.
        timeout_s: seconds to wait for an answer of the broker.
    """

    host: Host
    port: Port = 1883
    tls: bool = False
    ca_file: Path | None = None
    username: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    password_file: Path | None = None
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 30
    timeout_s: ShortSeconds = 10.0

    @model_validator(mode="after")
    def _belong_together(self) -> Broker:
        _both_or_none(self, "username", "password_file")
        if self.ca_file is not None and not self.tls:
            raise ValueError("ca_file is given and tls is not; add 'tls: true'")
        return self


class MqttSink(_Named, Broker):
    """Publishes each result to an MQTT broker, retained, with quality of service 1.

    Attributes:
        prefix: what all topics begin with. Two stations at one broker need two prefixes.
    """

    kind: Literal["mqtt"]
    prefix: TopicPrefix = "supersimplenet"


class OpcUaSink(_Named):
    """Shows each result at an OPC UA server of the station's own.

    Attributes:
        endpoint: where the server listens. The default is reached from this computer alone; any other needs
            ``username``, or ``clients``.
        acknowledge: show the next result only when a client has written the number of the last one into
            ``Acknowledged``.
        username: name that clients log in with; needs ``password_file``.
        password_file: file with the password, in one line.
        certificate: the server's certificate, as PEM or DER; then connections are signed and encrypted, and no others
            are taken.
        key: the private key of the certificate.
        clients: folder with the certificates of the clients that may connect, as PEM or DER.
        timeout_s: seconds to wait for a client that acknowledges.
    """

    kind: Literal["opcua"]
    endpoint: OpcUaUrl = "opc.tcp://127.0.0.1:4840/supersimplenet"
    acknowledge: bool = False
    username: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    password_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    clients: Path | None = None
    timeout_s: ShortSeconds = 10.0

    @model_validator(mode="after")
    def _is_safe(self) -> OpcUaSink:
        _both_or_none(self, "username", "password_file")
        _both_or_none(self, "certificate", "key")
        if self.clients is not None and self.certificate is None:
            raise ValueError(
                "clients are known by their certificates, and the server has none; add certificate and key"
            )
        host = urlsplit(self.endpoint).hostname or ""
        if not is_loopback(host) and self.username is None and self.clients is None:
            raise ValueError(
                f"endpoint: {host} is reached from other computers; add username and password_file, or certificate, "
                "key and clients"
            )
        return self


class MqttTrigger(Broker):
    """Takes a picture at each message of a topic, whose text may name the part.

    Attributes:
        topic: the topic.
    """

    kind: Literal["mqtt"]
    topic: Topic


class OpcUaTrigger(_Settings):
    """Takes a picture when a value of a PLC changes, which is an OPC UA server.

    Attributes:
        url: address of the PLC's server, such as ``opc.tcp://192.168.0.10:4840``.
        node: id of the node that is watched: at each change of a Boolean to true, or each change of a number.
        part_node: id of a node with the part's name, which is read then.
        username: name to log in with; needs ``password_file``.
        password_file: file with the password, in one line.
        certificate: the station's certificate, as PEM or DER; then the connection is signed and encrypted.
        key: the private key of the certificate.
        server_certificate: the PLC's certificate; a server that has another one is refused.
        timeout_s: seconds to wait for an answer.
    """

    kind: Literal["opcua"]
    url: OpcUaUrl
    node: NodeIdText
    part_node: NodeIdText | None = None
    username: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    password_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_certificate: Path | None = None
    timeout_s: ShortSeconds = 4.0

    @model_validator(mode="after")
    def _belong_together(self) -> OpcUaTrigger:
        _both_or_none(self, "username", "password_file")
        _both_or_none(self, "certificate", "key")
        _both_or_none(self, "certificate", "server_certificate")
        return self


def _both_or_none(settings: _Settings, one: str, other: str) -> None:
    if (getattr(settings, one) is None) != (getattr(settings, other) is None):
        raise ValueError(f"{one} and {other}: one is given without the other")


TriggerSettings = Annotated[MqttTrigger | OpcUaTrigger, Field(discriminator="kind")]
SourceSettings = Annotated[FolderSource | ReplaySource, Field(discriminator="kind")]
SinkSettings = Annotated[FilesSink | WebhookSink | MqttSink | OpcUaSink, Field(discriminator="kind")]


class Setup(_Settings):
    """Sources and sinks of a station.

    Attributes:
        sources: where pictures come from, beside requests.
        sinks: where results go.
    """

    sources: tuple[SourceSettings, ...] = ()
    sinks: tuple[SinkSettings, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> Setup:
        for what, named in (("sources", self.sources), ("sinks", self.sinks)):
            twice = [name for name, number in Counter(each.name for each in named).items() if number > 1]
            if twice:
                raise ValueError(f"two {what} are named '{twice[0]}'; give each a name of its own")
        return self


NOTHING_SET_UP = Setup()


def read_setup(path: Path) -> Setup:
    """Read a setup file.

    Raises:
        ConfigError: it cannot be read, or a setting is not as wanted.
    """
    return setup_of(read_yaml(path, advice=_ADVICE, error=ConfigError) or {}, name=str(path))


def setup_of(plain: Any, *, name: str = "setup") -> Setup:
    """Return the setup in plain values, such as a mapping from JSON or YAML.

    Raises:
        ConfigError: a setting is not as wanted.
    """
    try:
        return Setup.model_validate(plain)
    except ValidationError as error:
        first, *others = error.errors(include_url=False)
        place = ".".join(str(part) for part in first["loc"])
        more = f"; and {counted(len(others), 'further error')}" if others else ""
        text = first["msg"].removeprefix("Value error, ")
        found = "" if isinstance(first["input"], dict) else f" (found {printable(repr(first['input'])[:80])})"
        raise ConfigError(f"{name}: {f'{place}: ' if place else ''}{text}{found}{more}; {_ADVICE}") from error
