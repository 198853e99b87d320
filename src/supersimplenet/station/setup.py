"""The setup of a station: where pictures come from and where results go, as a YAML file says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from supersimplenet.errors import ConfigError, printable
from supersimplenet.utils.documents import read_yaml
from supersimplenet.utils.formatting import counted

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,49}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
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


SourceSettings = Annotated[FolderSource | ReplaySource, Field(discriminator="kind")]
SinkSettings = Annotated[FilesSink | WebhookSink, Field(discriminator="kind")]


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
