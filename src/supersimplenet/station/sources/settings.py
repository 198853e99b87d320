"""Settings of sources and of the triggers of cameras, as a setup file gives them."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from supersimplenet.station.settings import (
    Broker,
    Named,
    OpcUaUrl,
    Seconds,
    Settings,
    SetupPath,
    ShortSeconds,
    Topic,
    both_or_none,
    text_like,
)

NodeIdText = Annotated[str, text_like(r"^(ns=\d+;)?[isgb]=.+$", "the id of a node, such as ns=3;s=Trigger")]
GENICAM = "genicam:"
_STREAMS = ("rtsp", "rtsps", "http", "https")


class FolderSource(Named):
    """Takes the pictures that arrive in a folder.

    Attributes:
        folder: the folder, watched at any depth.
        product: product of the pictures; may be left out where there is one.
        after: what becomes of a picture that has a result: ``move`` into the folder's ``done``, ``delete``, or
            ``leave`` it, to be known again by name, size and date. One that could not be inspected is moved to
            ``done/failed``, unless all are left.
    """

    kind: Literal["folder"]
    folder: SetupPath
    product: str | None = None
    after: Literal["move", "delete", "leave"] = "move"


class ReplaySource(Named):
    """Plays a line: draws pictures of a folder at random, to try a station without a camera.

    Attributes:
        folder: folder of pictures, at any depth.
        seconds: time between two pictures.
        product: product of the pictures; may be left out where there is one.
        seed: of the draws.
    """

    kind: Literal["replay"]
    folder: SetupPath
    seconds: Seconds = 1.0
    product: str | None = None
    seed: int = 0


class IntervalTrigger(Settings):
    """Takes a picture every so many seconds.

    Attributes:
        seconds: from one picture to the next.
    """

    kind: Literal["interval"]
    seconds: Seconds


class MotionTrigger(Settings):
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
    empty: SetupPath | None = None


class MqttTrigger(Broker):
    """Takes a picture at each message of a topic, whose text may name the part.

    Attributes:
        topic: the topic.
    """

    kind: Literal["mqtt"]
    topic: Topic


class OpcUaTrigger(Settings):
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
    password_file: SetupPath | None = None
    certificate: SetupPath | None = None
    key: SetupPath | None = None
    server_certificate: SetupPath | None = None
    timeout_s: ShortSeconds = 4.0

    @model_validator(mode="after")
    def _belong_together(self) -> OpcUaTrigger:
        both_or_none(self, "username", "password_file")
        both_or_none(self, "certificate", "key")
        both_or_none(self, "certificate", "server_certificate")
        return self


TriggerSettings = Annotated[IntervalTrigger | MotionTrigger | MqttTrigger | OpcUaTrigger, Field(discriminator="kind")]


def _check_device(device: object, info: ValidationInfo) -> object:
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
    elif info.context is not None and not device.startswith(GENICAM):
        return str(info.context["folder"] / device)
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


class CameraSource(Named):
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


SourceSettings = Annotated[FolderSource | ReplaySource | CameraSource, Field(discriminator="kind")]
