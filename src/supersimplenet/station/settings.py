"""What the settings of sources and sinks share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

PATTERN_WORDS: dict[str, str] = {}  # what a text must be like, by the pattern


def text_like(pattern: str, words: str, *, longest: int = 500) -> Any:
    """Return the constraint of a text, with words for who writes another one."""
    PATTERN_WORDS[pattern] = words
    return Field(pattern=pattern, max_length=longest)


def _beside(path: Path, info: ValidationInfo) -> Path:
    return path if info.context is None else info.context["folder"] / path


SetupPath = Annotated[Path, AfterValidator(_beside)]  # relative to the folder of the setup file
Name = Annotated[str, text_like(r"^[a-z0-9][a-z0-9_-]{0,49}$", "at most 50 small letters, digits, - and _")]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
ShortSeconds = Annotated[float, Field(gt=0, le=60)]  # of what a stop of the station may have to wait for
Host = Annotated[str, text_like(r"^[^\s/@]{1,253}$", "the name or address of a computer, such as broker.example.com")]
Topic = Annotated[str, text_like(r"^[^+#\x00-\x1f]{1,500}$", "a topic without + and #")]
OpcUaUrl = Annotated[
    str, text_like(r"^opc\.tcp://[^\s/@]+:\d+(/\S*)?$", "an address with its port, such as opc.tcp://192.168.0.10:4840")
]


class Settings(BaseModel):
    """What is read from a setup file: a name that is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Named(Settings):
    """What every source and sink has.

    Attributes:
        name: short name, for results, signs and the outbox.
    """

    name: Name


class Broker(Settings):
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
    ca_file: SetupPath | None = None
    username: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    password_file: SetupPath | None = None
    keepalive_s: Annotated[int, Field(ge=5, le=3600)] = 30
    timeout_s: ShortSeconds = 10.0

    @model_validator(mode="after")
    def _belong_together(self) -> Broker:
        both_or_none(self, "username", "password_file")
        if self.ca_file is not None and not self.tls:
            raise ValueError("ca_file is given and tls is not; add 'tls: true'")
        return self


def both_or_none(settings: Settings, one: str, other: str) -> None:
    """Refuse one of two settings without the other."""
    if (getattr(settings, one) is None) != (getattr(settings, other) is None):
        raise ValueError(f"{one} and {other}: one is given without the other")


def without_addresses(text: str) -> str:
    """Return text up to the first address of a camera or server in it, which may hold a password."""
    return re.sub(r"([a-z]+://).*", r"\1…", text, flags=re.IGNORECASE | re.DOTALL)
