"""What people say together about a result: each person's last answer counts, and two who differ need a third."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from supersimplenet.errors import ConfigError, printable

AnswerName = Literal["good", "bad", "unusable"]
OpinionName = Literal["good", "bad", "unusable", "disputed"]
AskedName = Literal[  # see `queue`
    "random", "disputed", "unsure", "clicked", "shadow", "disagreement", "novel", "expected"
]


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a person says about a result.

    Attributes:
        answer: what the part is; ``unusable`` for a picture that shows no part as it should; None takes an earlier
            answer back.
        defect: kind of the defect; None where it was not said.
        mask: SHA-256 of the mask of its defects; None for none.
        asked: why the review queue had asked; None for an answer that nobody asked for.

    Raises:
        ConfigError: the kind is no name: exports make folders and classes of it.
    """

    answer: AnswerName | None
    defect: str | None = None
    mask: str | None = None
    asked: AskedName | None = None

    def __post_init__(self) -> None:
        kind = self.defect
        if kind is not None and (
            kind.strip(" .") in ("", "good") or printable(kind) != kind or any(sign in kind for sign in "/\\")
        ):
            raise ConfigError(f"defect: '{printable(kind)}'; wanted a name such as scratch: not good, without slashes")


@dataclass(frozen=True, kw_only=True)
class Answer(Said):
    """What a person said about a result, and when.

    Attributes:
        number: its place in the order of all answers.
        result: id of the result.
        who: name of the person.
        at: when, in milliseconds since 1970.
    """

    number: int
    result: str
    who: str
    at: int


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What the answers about a result say together.

    Attributes:
        answer: what most people say; ``disputed`` where no answer has more than half of them.
        by: who answered last.
        at: when, in milliseconds since 1970.
        people: how many people's answers count.
        defect: kind of the defect by the newest answer that names one; None for none, or where the part is not bad.
        mask: likewise, of the mask.
    """

    answer: OpinionName
    by: str
    at: int
    people: int
    defect: str | None = None
    mask: str | None = None


def opinion_of(answers: Iterable[Answer]) -> Opinion | None:
    """Return what the answers about one result say together; None where nobody's answer stands.

    Each person's last answer counts. A majority decides, so that a second person who differs makes a dispute, and a
    third one ends it.
    """
    last = {answer.who: answer for answer in sorted(answers, key=lambda each: each.number)}
    standing = sorted((a for a in last.values() if a.answer is not None), key=lambda each: each.number)
    if not standing:
        return None
    (most, number), *_ = Counter(answer.answer for answer in standing).most_common()
    assert most is not None  # answers that were taken back do not stand
    agreed: OpinionName = most if number * 2 > len(standing) else "disputed"
    of_bad = [answer for answer in standing if agreed == answer.answer == "bad"]
    newest = standing[-1]
    return Opinion(
        answer=agreed,
        by=newest.who,
        at=newest.at,
        people=len(standing),
        defect=next((answer.defect for answer in reversed(of_bad) if answer.defect is not None), None),
        mask=next((answer.mask for answer in reversed(of_bad) if answer.mask is not None), None),
    )
