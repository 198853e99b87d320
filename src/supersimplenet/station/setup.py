"""The setup of a station: where pictures come from and where results go, as a YAML file says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from supersimplenet.errors import ConfigError, printable
from supersimplenet.station.settings import Settings, without_addresses
from supersimplenet.station.sinks.settings import SinkSettings
from supersimplenet.station.sources.settings import SourceSettings
from supersimplenet.utils.documents import read_yaml
from supersimplenet.utils.formatting import counted

_ADVICE = "see 'Cameras, folders and outputs' in docs/station.md"


class Setup(Settings):
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
