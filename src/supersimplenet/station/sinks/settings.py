"""Settings of sinks, as a setup file gives them."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from supersimplenet.station.config import is_loopback
from supersimplenet.station.settings import (
    Broker,
    Named,
    OpcUaUrl,
    Port,
    Seconds,
    Settings,
    SetupPath,
    ShortSeconds,
    both_or_none,
    text_like,
)

TopicPrefix = Annotated[
    str,
    text_like(
        r"^[^+#$/\x00-\x1f]([^+#\x00-\x1f]{0,200}[^+#/\x00-\x1f])?$", "a beginning of topics, such as hall2/line1"
    ),
]
Register = Annotated[int, Field(ge=0, le=65535)]
Verdict4 = Literal["good", "unsure", "bad", "failed"]


class FilesSink(Named):
    """Writes a table a day, ``results-2026-11-30.csv``, by UTC.

    Attributes:
        folder: folder of the tables; it is made.
        format: ``csv``; ``parquet`` turns each finished day's CSV into a Parquet table.
    """

    kind: Literal["files"]
    folder: SetupPath
    format: Literal["csv", "parquet"] = "csv"


class WebhookSink(Named):
    """Sends each result as a signed POST request, after the Standard Webhooks specification.

    Attributes:
        url: where to; redirects are not followed.
        secret_file: file with the secret, ``whsec_`` and base64 of 24 to 64 bytes; without it requests are not signed.
        timeout_s: seconds to wait for an answer.
    """

    kind: Literal["webhook"]
    url: Annotated[str, text_like(r"^https?://[^\s@]+$", "an address with https:// or http://", longest=2000)]
    secret_file: SetupPath | None = None
    timeout_s: Seconds = 10.0


class MqttSink(Named, Broker):
    """Publishes each result to an MQTT broker, retained, with quality of service 1.

    Attributes:
        prefix: what all topics begin with. Two stations at one broker need two prefixes.
    """

    kind: Literal["mqtt"]
    prefix: TopicPrefix = "supersimplenet"


class OpcUaSink(Named):
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
    password_file: SetupPath | None = None
    certificate: SetupPath | None = None
    key: SetupPath | None = None
    clients: SetupPath | None = None
    timeout_s: ShortSeconds = 10.0

    @model_validator(mode="after")
    def _is_safe(self) -> OpcUaSink:
        both_or_none(self, "username", "password_file")
        both_or_none(self, "certificate", "key")
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


class ModbusSink(Named):
    """Writes each result into registers of a PLC by Modbus/TCP.

    Attributes:
        host: name or address of the PLC.
        port: its port.
        unit: its unit identifier.
        address: first of six holding registers, counted from 0.
        coil: coil that is set while a part is to be rejected, counted from 0.
        reject: verdicts that set the coil.
        late_s: age in seconds from which on a result no longer moves the coil.
        timeout_s: seconds to wait for an answer.
    """

    kind: Literal["modbus"]
    host: Annotated[str, Field(min_length=1, max_length=253)]
    port: Port = 502
    unit: Annotated[int, Field(ge=0, le=255)] = 1
    address: Annotated[int, Field(ge=0, le=65530)]
    coil: Register | None = None
    reject: tuple[Verdict4, ...] = ("unsure", "bad", "failed")
    late_s: Seconds = 5.0
    timeout_s: Seconds = 3.0


SerialText = Annotated[str, text_like(r"^[\x00-\xff]*$", "characters of one byte", longest=200)]


class VerdictTexts(Settings):
    """What is sent for each verdict; an empty text sends nothing."""

    good: SerialText = "G\n"
    unsure: SerialText = "U\n"
    bad: SerialText = "B\n"
    failed: SerialText = "F\n"


class SerialSink(Named):
    """Sends a text for each result to a serial port.

    Attributes:
        port: a port such as ``/dev/ttyUSB0``, or ``socket://HOST:PORT`` of a serial server.
        baud: bits a second.
        texts: what is sent for each verdict.
        acknowledge: text with which the machine confirms each; without it, what was sent counts as received.
        late_s: age in seconds from which on a result is not sent any more.
        timeout_s: seconds to wait for the port and the acknowledgement.
    """

    kind: Literal["serial"]
    port: Annotated[str, Field(min_length=1, max_length=500)]
    baud: Annotated[int, Field(ge=50, le=4_000_000)] = 9600
    texts: VerdictTexts = VerdictTexts()
    acknowledge: Annotated[SerialText, Field(min_length=1)] | None = None
    late_s: Seconds = 5.0
    timeout_s: Seconds = 2.0


SinkSettings = Annotated[
    FilesSink | WebhookSink | MqttSink | OpcUaSink | ModbusSink | SerialSink, Field(discriminator="kind")
]


def target_of(sink: SinkSettings) -> str | None:
    """Return what a sink writes to; None where two may write to the same, as each result has its id."""
    match sink:
        case FilesSink():
            return f"the folder {sink.folder}"
        case MqttSink():
            return f"the topics of {sink.prefix} at {sink.host}:{sink.port}"
        case OpcUaSink():
            return sink.endpoint
        case ModbusSink():
            return f"the registers from {sink.address} on at {sink.host}:{sink.port}"
        case SerialSink():
            return f"the port {sink.port}"
        case _:
            return None
