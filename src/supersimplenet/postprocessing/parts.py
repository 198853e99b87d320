"""One verdict for each part, from all photographs of it: the worst one decides. Calibration counts parts likewise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from supersimplenet.errors import ConfigError
from supersimplenet.preprocessing.decoding import EncodedImage
from supersimplenet.types import Prediction, Verdict

NO_PATTERN = "none"  # instead of a pattern: photographs are not told apart by parts
GROUP_PATTERN_HELP = (
    r"finds the part's name in a file's name, such as '(part\d+)_'; by default as in the training; none for no parts"
)
_RANKS = {None: 0, "good": 1, "unsure": 2, "bad": 3}


@dataclass(frozen=True, kw_only=True, slots=True)
class PartVerdict:
    """What the photographs of a part say together. The fields are the columns of the table of parts, in their order.

    Attributes:
        part: name of the part; None for a photograph of which it is not known, which counts as a part of its own.
        verdict: the worst of the photographs' verdicts; None where no photograph is bad and one could not be predicted,
            because that one may be bad.
        score: the highest of the photographs' scores, 0 to 1; None where the model is not calibrated.
        p_value: the lowest of the p-values, that of the highest score; None where the model is not calibrated.
        q_value: p-value adjusted for the number of parts; None where it was not asked for.
        score_logit: the highest of the deciding scores, in logits; None where no photograph could be predicted.
        photographs: number of photographs.
        failed: number of these that could not be predicted.
        path: the photograph that decided; None for an array.
        error: why the first of the failed photographs could not be predicted; None where all were.
    """

    part: str | None
    verdict: Verdict | None
    score: float | None
    p_value: float | None
    q_value: float | None = None
    score_logit: float | None
    photographs: int = 1
    failed: int = 0
    path: str | None
    error: str | None = None

    @property
    def key(self) -> tuple[str | None, str | None]:
        """See `part_key`."""
        return part_key(self.part, self.path)


def part_verdicts(
    photographs: Iterable[Prediction | Mapping[str, Any]], group_pattern: str | None = None
) -> list[PartVerdict]:
    """Return one verdict for each part, in the order in which parts first appear.

    Args:
        photographs: predictions, or rows of `supersimplenet.runtime.rows.as_row`, which know their part themselves.
        group_pattern: finds the part's name in the file name of a prediction; see `given_pattern`.

    Raises:
        ConfigError: the pattern cannot be used.
    """
    pattern = given_pattern(group_pattern)
    found: dict[object, PartVerdict] = {}
    for place, photograph in enumerate(photographs):
        own = _of_one(photograph, pattern)
        key = place if own.key == (None, None) else own.key
        found[key] = _together(found[key], own) if key in found else own
    return [replace(part, verdict=None) if part.failed and part.verdict != "bad" else part for part in found.values()]


def part_key(part: str | None, path: str | None) -> tuple[str | None, str | None]:
    """Return what the photographs of one part have in common: its name, or their path where the name is not known."""
    return part, path if part is None else None


def _of_one(photograph: Prediction | Mapping[str, Any], pattern: re.Pattern[str] | None) -> PartVerdict:
    if isinstance(photograph, Prediction):
        row: Mapping[str, Any] = {
            "part": None if photograph.path is None else part_of(photograph.path, pattern),
            "error": None,
            **{name: getattr(photograph, name) for name in ("path", "verdict", "score", "p_value", "score_logit")},
        }
    else:
        row = photograph
    names = ("part", "path", "verdict", "score", "p_value", "score_logit", "error")
    return PartVerdict(**{name: row[name] for name in names}, failed=int(row["error"] is not None))


def _together(first: PartVerdict, second: PartVerdict) -> PartVerdict:
    return replace(
        max(first, second, key=_weight),  # of equal ones the first
        photographs=first.photographs + second.photographs,
        failed=first.failed + second.failed,
        error=first.error if first.error is not None else second.error,
    )


def _weight(part: PartVerdict) -> tuple[int, float]:
    return _RANKS[part.verdict], -float("inf") if part.score_logit is None else part.score_logit


def part_of(file: object, pattern: re.Pattern[str] | None) -> str | None:
    """Return the name of the part that a photograph shows: as its source gives it, else as its file's name says.

    Args:
        file: the photograph, or its name.
        pattern: see `compile_group_pattern`.

    Returns:
        The name; None where there is none.
    """
    if isinstance(file, EncodedImage) and file.part:
        return file.part
    match = None if pattern is None else pattern.search(PurePath(str(file)).name)
    return None if match is None else match.group(1) or None


def compile_group_pattern(pattern: str) -> re.Pattern[str]:
    r"""Return a compiled ``group_pattern``: a regular expression with one group, around the part's name in a file name.

    Raises:
        ConfigError: it is no regular expression, or has not exactly one group.
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"group_pattern: '{pattern}' is no regular expression ({error})") from error
    if compiled.groups != 1:
        raise ConfigError(
            f"group_pattern: '{pattern}' has {compiled.groups} groups; wanted one, around the part's name, such as "
            r"'(part\d+)_'"
        )
    return compiled


def given_pattern(text: str | None) -> re.Pattern[str] | None:
    """Return a compiled ``group_pattern``; None for None and for ``none``, which say that parts are not told apart.

    Raises:
        ConfigError: see `compile_group_pattern`.
    """
    return None if text in (None, NO_PATTERN) else compile_group_pattern(text)


def pattern_in(record: Mapping[str, Any]) -> str | None:
    """Return the ``group_pattern`` of the dataset in a model's config.yaml; None where it has none."""
    value: Any = record
    for name in ("data", "init_args", "group_pattern"):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else None
