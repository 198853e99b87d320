"""Numbers, counts and lists as text for people."""

from __future__ import annotations

import difflib
import math
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from supersimplenet.errors import printable as printable

MINUS = "\N{MINUS SIGN}"
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60

_ERRNO = re.compile(r"\[(Errno|WinError) -?\d+\] ")  # of an OSError: the words after it say the same


def shown_rate(rate: float) -> str:
    """Format a rate in per cent, rounded up, as a bound must be: 0.0502 is 5.1 %."""
    per_mille = np.ceil(rate * 1000 - 1e-9)
    return f"{per_mille / 10:g} %"


def shown_size(size_px: tuple[int, int]) -> str:
    """Format (height, width) for people."""
    return f"{size_px[0]}x{size_px[1]}"


def shown_px(shape: Sequence[int]) -> str:
    """Format the (height, width, ...) of pixels for messages: 1,000 x 800 px."""
    return f"{shape[0]:,} x {shape[1]:,} px"


def few(things: Sequence[object], count: int | None = None) -> str:
    """List the first three things, and the number of further ones; ``count`` says how many there are in all."""
    rest = (len(things) if count is None else count) - len(things[:3])
    return ", ".join(str(thing) for thing in things[:3]) + (f" and {rest:,} more" if rest else "")


def per_cent(rate: float) -> str:
    """Format a rate in per cent with one digit after the point, halves rounded up: 0.0625 is 6.3 %."""
    return f"{math.floor(1000 * rate + 0.5) / 10:.1f} %"


def tight(text: str) -> str:
    """Put a no-break space before each per-cent sign, so that number and sign stay on one line."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def logit(value: float) -> str:
    """Format a score in logits, with a true minus sign."""
    return f"{value:.3f}".replace("-", MINUS)


def shown_score(score: float) -> str:
    """Format a score from 0 to 1 with three digits; one below 0.5, which is good, never reads 0.500."""
    text = f"{score:.3f}"
    return "0.499" if score < 0.5 and text == "0.500" else text


def signed(value: float) -> str:
    """Format a difference of metrics, with its sign."""
    return f"{value:+.3f}".replace("-", MINUS)


def shown_duration(seconds: float) -> str:
    """Format a duration in its two largest units: ``45 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 99.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def counted(number: int, thing: str, things: str = "") -> str:
    """Format a number and its noun: `1 part`, `2,000 parts`; ``things`` is a plural that takes more than an s."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without a number of the system, or the name of its class."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return _ERRNO.sub("", line)


def shown_value(value: object) -> str:
    """Format a value that was found, for a message: in one line, shortened, with all that is not printable escaped."""
    return _SHORT.repr(value)


def listed(things: Sequence[str], last: str = "or") -> str:
    """List things in words: `head, map or fused`."""
    return " ".join([", ".join(things[:-1]), last, things[-1]]) if len(things) > 1 else "".join(things)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that was probably meant, as the end of a message; or nothing."""
    known = list(known)
    tail = name.removeprefix("--").replace("-", "_")
    same = [option for option in known if option.rpartition(".")[2] == tail]  # without the group it belongs to
    near = same or difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    return f"; did you mean {near[0]}?" if near else ""


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return each setting that differs, with both values: ``model.backbone compact there, resnet18 here``."""
    found, wanted = _flat(there), _flat(here)
    return [
        f"{name} {found.get(name, 'unset')} there, {wanted.get(name, 'unset')} here"
        for name in dict.fromkeys([*found, *wanted])
        if found.get(name) != wanted.get(name)
    ]


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{"model": {"backbone": ...}}`` as ``{"model.backbone": ...}``."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{inner}": x for inner, x in _flat(value).items()})
        else:
            flat[name] = value
    return flat
