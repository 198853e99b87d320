"""The setup of a station: where pictures come from and where results go, as a YAML file says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError, model_validator
from pydantic_core import ErrorDetails

from supersimplenet.errors import ConfigError, printable
from supersimplenet.station.settings import PATTERN_WORDS, Settings
from supersimplenet.station.sinks.settings import SinkSettings, target_of
from supersimplenet.station.sources.settings import SourceSettings, TriggerSettings
from supersimplenet.utils.documents import read_yaml
from supersimplenet.utils.formatting import counted, listed, nearest

_ADVICE = "see 'Sources and sinks' in docs/station.md"


def _twice(names: Iterable[str | None]) -> str | None:
    return next((name for name, number in Counter(names).items() if name is not None and number > 1), None)


class Setup(Settings):
    """Sources and sinks of a station.

    Attributes:
        sources: where pictures come from, beside requests.
        sinks: where results go.
    """

    sources: tuple[SourceSettings, ...] = ()
    sinks: tuple[SinkSettings, ...] = ()

    @model_validator(mode="after")
    def _differ(self) -> Setup:
        for what, named in (("sources", self.sources), ("sinks", self.sinks)):
            if twice := _twice(each.name for each in named):
                raise ValueError(f"two {what} are named '{twice}'; give each a name of its own")
        if twice := _twice(target_of(sink) for sink in self.sinks):
            raise ValueError(f"two sinks write to {twice}; give each a place of its own")
        return self


NOTHING_SET_UP = Setup()
_ENTRIES = {"sources": "source", "sinks": "sink"}
_UNIONS = {"sources": SourceSettings, "sinks": SinkSettings, "trigger": TriggerSettings}
_TYPES = {
    "tuple_type": "wanted a list, each entry with - before it",
    **dict.fromkeys(("model_type", "model_attributes_type"), "wanted settings, each as name: value"),
    **dict.fromkeys(("int_parsing", "int_from_float", "float_parsing"), "wanted a number"),
}


def read_setup(path: Path) -> Setup:
    """Read a setup file; relative paths in it begin at its folder.

    Raises:
        ConfigError: it cannot be read, or a setting is not as wanted.
    """
    plain = read_yaml(path, advice=_ADVICE, error=ConfigError)
    return setup_of(plain or {}, name=str(path), folder=path.absolute().parent)


def setup_of(plain: Any, *, name: str = "setup", folder: Path | None = None) -> Setup:
    """Return the setup in plain values, such as a mapping from JSON or YAML.

    Args:
        plain: the values.
        name: what they come from, for messages.
        folder: where relative paths begin; None for the current folder.

    Raises:
        ConfigError: a setting is not as wanted.
    """
    try:
        return Setup.model_validate(plain, context=None if folder is None else {"folder": folder})
    except ValidationError as error:
        found = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
        more = f"; and {counted(len(found) - 1, 'further error')}" if len(found) > 1 else ""
        raise ConfigError(f"{name}: {_in_words(found[0], plain)}{more}; {_ADVICE}") from error


def _in_words(error: ErrorDetails, plain: Any) -> str:
    """Return what is wrong, and where; never what stands at a name that is not known, which may be a password."""
    place, settings, names = _place(error["loc"], plain)
    leaf = names[-1] if names else ""
    at = ": ".join(filter(None, (place, ".".join(names))))
    if error["type"] == "extra_forbidden":
        known = list(settings.model_fields)
        return f"{at}: no such setting{nearest(leaf, known)}; there are {listed(known, 'and')}"
    if error["type"].startswith("union_tag"):
        kinds, wrong = sorted(_kinds(_UNIONS[str(leaf or error["loc"][0])])), error.get("ctx", {}).get("tag")
        found = "kind is missing" if wrong is None else f"kind: '{printable(wrong)}'{nearest(wrong, kinds)}"
        return f"{at}: {found}; wanted {listed(kinds)}"
    if error["type"] == "missing":
        return f"{at} is missing"
    text = _TYPES.get(error["type"], error["msg"].removeprefix("Value error, "))
    if error["type"] == "string_pattern_mismatch":
        text = f"wanted {PATTERN_WORDS[error['ctx']['pattern']]}"
    return f"{at}{': ' if at else ''}{text}{_shown(leaf, error)}"


def _place(where: Sequence[int | str], plain: Any) -> tuple[str, type[Settings], list[str]]:
    """Return the name of the source or sink, the class of its settings, and the way to the setting."""
    parts, names, place = list(where), [], ""
    settings: type[Settings] = Setup
    union: Any = None
    if len(parts) > 1 and parts[0] in _ENTRIES:
        union, number = _UNIONS[str(parts[0])], int(parts[1])
        entry = plain[parts[0]][number]
        own = entry.get("name") if isinstance(entry, dict) else None
        place = f"{_ENTRIES[str(parts[0])]} {number + 1 if own is None else printable(repr(own))}"
        parts = parts[2:]
    for part in map(str, parts):
        if union is not None and part in _kinds(union):
            settings, union = _kinds(union)[part], None  # the kind is no part of the way
            continue
        names.append(part)
        union = _UNIONS.get(part)
    return place, settings, names


def _kinds(union: Any) -> dict[str, type[Settings]]:
    """Return the classes of settings by their kind."""
    return {get_args(each.model_fields["kind"].annotation)[0]: each for each in get_args(get_args(union)[0])}


def _shown(leaf: str, error: ErrorDetails) -> str:
    """Return the value that was found, where it holds no secret by its name."""
    is_plain = isinstance(error["input"], str | int | float) and error["type"] != "missing"
    if not is_plain or re.search("url|secret|password|device|endpoint", leaf):
        return ""
    return f" (found {printable(repr(error['input'])[:80])})"
