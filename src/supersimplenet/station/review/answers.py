"""Answers in the database: each is added and none is changed, and a result's review is what they say together."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Engine, func, insert, select, update

from supersimplenet.station.review.opinions import Answer, AskedName, Opinion, Said, opinion_of
from supersimplenet.station.storage.database import now_ms
from supersimplenet.station.storage.schema import ANSWERS, RESULTS
from supersimplenet.utils.iteration import in_blocks

_AT_ONCE = 500  # ids in a query


def add_answer(connection: Connection, result: str, said: Said, *, who: str, at: int | None = None) -> Opinion | None:
    """Add a person's answer, and set the result's review to what all answers say together; return that.

    Args:
        connection: of a transaction by `writing`, in which nobody else answers.
        result: id of a result that exists.
        said: the answer; its mask is stored.
        who: name of the person.
        at: when, in milliseconds since 1970; None for now.
    """
    own = now_ms() if at is None else at
    connection.execute(insert(ANSWERS).values(result=result, who=who, at=own, **vars(said)))
    opinion = opinion_of(answers_to(connection, result))
    connection.execute(
        update(RESULTS)
        .where(RESULTS.c.id == result)
        .values(
            review=None if opinion is None else opinion.answer,
            reviewed_by=None if opinion is None else opinion.by,
            reviewed_at=None if opinion is None else opinion.at,
            review_defect=None if opinion is None else opinion.defect,
            review_mask=None if opinion is None else opinion.mask,
        )
    )
    return opinion


def answers_to(connection: Connection, result: str) -> list[Answer]:
    """Return all answers about a result, in their order."""
    query = select(ANSWERS).where(ANSWERS.c.result == result).order_by(ANSWERS.c.number)
    return [Answer(**row) for row in connection.execute(query).mappings()]


def last_answer(connection: Connection, result: str, *, who: str) -> Answer | None:
    """Return a person's last answer about a result; None for none, or one that was taken back."""
    own = [answer for answer in answers_to(connection, result) if answer.who == who]
    return own[-1] if own and own[-1].answer is not None else None


def asked_about(
    engine: Engine, results: Sequence[str], *, by: str | None = None, reason: AskedName | None = None
) -> set[str]:
    """Return those of some results about which there is an answer, taken back or not.

    Args:
        engine: the database.
        results: ids of results.
        by: of this person; None for anybody.
        reason: that was asked for this reason; None for any, or none.
    """
    c = ANSWERS.c
    found: set[str] = set()
    with engine.connect() as connection:
        for ids in in_blocks(results, _AT_ONCE):
            query = select(c.result).where(c.result.in_(ids))
            query = query if by is None else query.where(c.who == by)
            query = query if reason is None else query.where(c.asked == reason)
            found.update(connection.execute(query).scalars())
    return found


def kinds_of_defects(engine: Engine, product: str) -> list[str]:
    """Return the kinds of defects that were named so far, the most frequent first."""
    c = RESULTS.c
    named = select(c.review_defect).where(c.product == product, c.review_defect.is_not(None))
    query = named.group_by(c.review_defect).order_by(func.count().desc(), c.review_defect)
    with engine.connect() as connection:
        return list(connection.execute(query).scalars())
