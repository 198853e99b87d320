"""The setup of a station: where pictures come from and where results go, as a YAML file says."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from supersimplenet.errors import ConfigError, printable
from supersimplenet.utils.documents import read_yaml
from supersimplenet.utils.formatting import counted

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,49}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Register = Annotated[int, Field(ge=0, le=65535)]
Verdict4 = Literal["good", "unsure", "bad", "failed"]
GENICAM = "genicam:"
_STREAMS = ("rtsp", "rtsps", "http", "https")
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


class IntervalTrigger(_Settings):
    """Takes a picture every so many seconds.

    Attributes:
        seconds: from one picture to the next.
    """

    kind: Literal["interval"]
    seconds: Seconds


class MotionTrigger(_Settings):
    """Takes a picture each time that something has moved and has come to rest.

    Attributes:
        changed: share of the picture that differs when something has moved.
        level: grey levels, of 255, from which on a place differs.
        settle_s: seconds without motion that are rest.
        empty: a picture of the place with no part in it; rest that shows this is not taken.
    """

    kind: Literal["motion"]
    changed: Annotated[float, Field(gt=0, lt=1)] = 0.02
    level: Annotated[int, Field(ge=1, le=254)] = 25
    settle_s: Seconds = 0.3
    empty: Path | None = None


TriggerSettings = Annotated[IntervalTrigger | MotionTrigger, Field(discriminator="kind")]


def _check_device(device: object) -> object:
    wanted = (
        "wanted the index of a camera, an address that begins with rtsp:// or http://, a video file, or "
        f"{GENICAM}PRODUCER.cti"
    )
    if isinstance(device, bool) or not isinstance(device, (int, str)) or device == "":
        raise ValueError(wanted)
    if isinstance(device, int):
        if not 0 <= device <= 999:
            raise ValueError(wanted)
    elif "://" in device:
        if device.partition("://")[0].lower() not in _STREAMS:
            raise ValueError(wanted)
        _check_address(device)
    return device


def _check_address(url: str) -> None:
    """Refuse an address whose password would be read as its host or port, and be shown as such."""
    try:
        parts = urlsplit(url)
        is_right = bool(parts.hostname) and parts.port != 0 and ("@" in parts.netloc or "@" not in url)
    except ValueError:
        is_right = False
    if not is_right:
        raise ValueError("no address; write / : @ # ? in a user's name or password as %2F %3A %40 %23 %3F")


class CameraSource(_Named):
    """Takes pictures of a camera when its trigger says so.

    Attributes:
        device: index of a camera at this computer, address of a network camera (RTSP, or MJPEG by HTTP), a video file
            that is played in real time, or ``genicam:PRODUCER.cti`` with ``#SERIAL`` where there are several cameras.
        product: product of the pictures; may be left out where there is one.
        trigger: when a picture is taken.
        timeout_s: seconds without a frame after which the camera is away.
        repeat: play a video file again and again.
    """

    kind: Literal["camera"]
    device: Annotated[int | str, BeforeValidator(_check_device), Field(repr=False)]
    product: str | None = None
    trigger: TriggerSettings
    timeout_s: Seconds = 5.0
    repeat: bool = False

    @model_validator(mode="after")
    def _a_file_repeats(self) -> CameraSource:
        if self.repeat and not self.is_file:
            raise ValueError("repeat is for a video file alone")
        return self

    @property
    def is_file(self) -> bool:
        """Whether the device is a video file."""
        return isinstance(self.device, str) and "://" not in self.device and not self.device.startswith(GENICAM)


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


class ModbusSink(_Named):
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


SerialText = Annotated[str, Field(pattern=r"^[\x00-\xff]*$", max_length=200)]


class VerdictTexts(_Settings):
    """What is sent for each verdict; an empty text sends nothing."""

    good: SerialText = "G\n"
    unsure: SerialText = "U\n"
    bad: SerialText = "B\n"
    failed: SerialText = "F\n"


class SerialSink(_Named):
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


SourceSettings = Annotated[FolderSource | CameraSource, Field(discriminator="kind")]
SinkSettings = Annotated[FilesSink | WebhookSink | ModbusSink | SerialSink, Field(discriminator="kind")]


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
        shown = without_addresses(repr(first["input"]))[:80]
        found = "" if isinstance(first["input"], dict) else f" (found {printable(shown)})"
        raise ConfigError(f"{name}: {f'{place}: ' if place else ''}{text}{found}{more}; {_ADVICE}") from error


def without_addresses(text: str) -> str:
    """Return text up to the first address of a camera or server in it, which may hold a password."""
    return re.sub(r"([a-z]+://).*", r"\1…", text, flags=re.IGNORECASE | re.DOTALL)
