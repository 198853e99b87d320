"""Rules by which the station begins trainings itself: after so many new answers, or each day at a time. Off by default.

An answer is new when it came after the last training of its product was begun, and after the rule last applied. A rule
may also put to use what it trained, within limits that a person has set.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, delete, distinct, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from supersimplenet.errors import ConfigError, SuperSimpleNetError
from supersimplenet.station.access import audit
from supersimplenet.station.library.versions import version
from supersimplenet.station.registry.jobs import BusyError, Jobs
from supersimplenet.station.registry.processes import LOG_FILE
from supersimplenet.station.registry.promotions import models_in_use, promote, require_shown
from supersimplenet.station.registry.records import Registered, all_models
from supersimplenet.station.storage.database import now_ms, writing
from supersimplenet.station.storage.schema import ANSWERS, RESULTS, TRAINING_RULES
from supersimplenet.training.config import parse_duration
from supersimplenet.utils.formatting import first_line, per_cent, shown_rate

BY = "rule"  # who begins what a rule begins
SHADOW_HOURS = 24
_EVERY_S = 15.0
_LATE = timedelta(hours=1)  # a time of day that is longer ago is left out: the station did not run, or another trained
_TIME = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """When the station trains a product by itself.

    Attributes:
        product: the product.
        dataset: into which answers are gathered, and with whose newest version the training begins.
        answers: parts with new answers on which people agree, after which it trains; None for never.
        daily_at: time of day at the station, ``HH:MM``; None for never.
        time_budget: of the training.
        promote_margin: a model that it trained is put to use where its comparison shows that it makes a new mistake on
            at most this share of parts; None: a person decides.
        promote_differing: and where it gives another verdict on at most this share of the pictures of the last
            `SHADOW_HOURS`, with 95 % confidence; None: any.
        set_by: who set the rule.
        set_at: when, in milliseconds since 1970.
        tried_at: when it last applied.
        problem: why it could not train then, or did not put to use what it trained; None for no problem.
    """

    product: str
    dataset: str
    answers: int | None
    daily_at: str | None
    time_budget: str
    promote_margin: float | None = None
    promote_differing: float | None = None
    set_by: str
    set_at: int
    tried_at: int
    problem: str | None = None


def rules(connection: Connection) -> dict[str, Rule]:
    """Return the rule of each product that has one."""
    rows = connection.execute(select(TRAINING_RULES).order_by(TRAINING_RULES.c.product)).mappings()
    return {row["product"]: Rule(**row) for row in rows}


def set_rule(
    connection: Connection,
    product: str,
    *,
    dataset: str,
    answers: int | None,
    daily_at: str | None,
    time_budget: str,
    promote_margin: float | None = None,
    promote_differing: float | None = None,
    who: str,
) -> Rule | None:
    """Set the rule of a product; without a number of answers and a time of day there is none from then on.

    Args:
        connection: of a transaction by `writing`.
        product: the product.
        dataset: see `Rule`.
        answers: see `Rule`.
        daily_at: see `Rule`.
        time_budget: see `Rule`.
        promote_margin: see `Rule`.
        promote_differing: see `Rule`.
        who: who sets it.

    Raises:
        ConfigError: a value is out of its range.
    """
    parse_duration(time_budget)
    if answers is not None and answers < 1:
        raise ConfigError(f"answers: {answers}; wanted 1 or more")
    if daily_at is not None and not _TIME.fullmatch(daily_at):
        raise ConfigError(f"daily_at: '{daily_at}'; wanted a time of day such as 02:30")
    for name, share in (("promote_margin", promote_margin), ("promote_differing", promote_differing)):
        if share is not None and not 0 < share < 1:
            raise ConfigError(f"{name}: {share:g}; wanted a share above 0 and below 1")
    if promote_differing is not None and promote_margin is None:
        raise ConfigError("promote_differing: belongs to promote_margin; give both, or leave it out")
    audit.lock(connection)
    connection.execute(delete(TRAINING_RULES).where(TRAINING_RULES.c.product == product))
    chosen: dict[str, Any] = {"product": product, "dataset": dataset, "answers": answers, "daily_at": daily_at}
    chosen |= {"promote_margin": promote_margin, "promote_differing": promote_differing}
    audit.append(connection, who=who, what="training rule", details=chosen)
    if answers is None and daily_at is None:
        return None
    row: dict[str, Any] = chosen | {
        "time_budget": time_budget,
        "set_by": who,
        "set_at": now_ms(),
        "tried_at": 0,
        "problem": None,
    }
    connection.execute(insert(TRAINING_RULES).values(**row))
    return Rule(**row)


def new_answers(connection: Connection, product: str, *, tried_at: int = 0) -> int:
    """Return the number of a product's parts with an answer since the last training, on which people agree.

    Args:
        connection: the database.
        product: the product.
        tried_at: answers until then are not new either.
    """
    trained = [model.at for model in all_models(connection, product) if model.dataset is not None]
    query = (
        select(func.count(distinct(RESULTS.c.id)))
        .join_from(ANSWERS, RESULTS, RESULTS.c.id == ANSWERS.c.result)
        .where(
            ANSWERS.c.at > max([tried_at, *trained]),
            RESULTS.c.product == product,
            RESULTS.c.review.in_(("good", "bad")),
        )
    )
    return int(connection.execute(query).scalar_one())


def is_due(connection: Connection, rule: Rule, now: datetime) -> bool:
    """Return whether a rule applies now, by its answers or its time of day.

    Args:
        connection: the database.
        rule: the rule.
        now: the time, with the station's time zone.
    """
    if rule.answers is not None and new_answers(connection, rule.product, tried_at=rule.tried_at) >= rule.answers:
        return True
    if rule.daily_at is None:
        return False
    hour, minute = map(int, rule.daily_at.split(":"))
    last = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    last -= timedelta(days=last > now)
    return now - last < _LATE and max(rule.set_at, rule.tried_at) < last.timestamp() * 1000


def _waiting(connection: Connection, rule: Rule) -> Registered | None:
    """Return the newest model that a rule trained and may put to use; None for none."""
    used = models_in_use(connection).get(rule.product)
    if rule.promote_margin is None or used is None:  # a first model is compared with nothing: a person decides
        return None
    newest = all_models(connection, rule.product)[-1]
    return newest if newest.number > used.model and newest.who == BY and newest.state == "candidate" else None


class RuleWatch:
    """Begins trainings by the rules, and puts to use what they trained. While something is trained, it waits.

    Args:
        engine: the database.
        folder: the station's folder.
        jobs: the trainings.
        say: called with a line about a training that could not be begun.
    """

    def __init__(self, engine: Engine, folder: Path, jobs: Jobs, *, say: Callable[[str], None]) -> None:
        self._engine, self._folder, self._jobs, self._say = engine, folder, jobs, say
        self._shadows: set[int] = set()  # models whose shadow was begun
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="training rules", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._ended.set()
        self._thread.join(timeout=60)

    def apply(self, now: datetime) -> None:
        """Put to use what may be, then begin the first training that is due; the others wait for its end."""
        with self._engine.connect() as connection:
            known = list(rules(connection).values())
            due = [rule for rule in known if is_due(connection, rule, now)]
            waiting = [(rule, model) for rule in known if (model := _waiting(connection, rule)) is not None]
            busy = any(self._jobs.is_running(model) for model in all_models(connection)) if due or waiting else False
        if busy:
            return
        if not any(self._put_to_use(rule, model) for rule, model in waiting):
            self._begin_first(due)

    def _put_to_use(self, rule: Rule, model: Registered) -> bool:
        """Put a model to use by a rule, or note why not; return whether a process was begun for it."""
        try:
            if self._is_beside(rule, model):
                return True
            problem, said = None, "put to use by the rule"
        except BusyError:  # a person was faster
            return True
        except (SuperSimpleNetError, OSError) as error:
            problem = said = f"not put to use: {first_line(error)}"
        if problem is None or problem != rule.problem:
            self._keep(rule, rule.tried_at, problem)
            self._say(f"{rule.product}: model {model.number}: {said}")
        return False

    def _begin_first(self, due: Iterable[Rule]) -> None:
        """Begin the first training that can be begun."""
        for rule in due:
            tried_at = now_ms()
            try:
                has_begun, problem = self._begin(rule), None
            except BusyError:  # a person was faster
                return
            except (SuperSimpleNetError, OSError) as error:
                has_begun, problem = False, first_line(error)
                self._say(f"{rule.product}: the rule cannot train ({problem})")
            self._keep(rule, tried_at, problem)
            if has_begun:
                return

    def _is_beside(self, rule: Rule, model: Registered) -> bool:
        """Put a model to use by a rule, or begin to set it beside the one in use; return whether this was begun.

        Raises:
            ConfigError: it is not shown to be within the limits.
        """
        assert rule.promote_margin is not None
        with self._engine.connect() as connection:
            require_shown(connection, model, rule.promote_margin, self._folder)
        if rule.promote_differing is not None:
            if "shadow" not in model.found:
                if model.number in self._shadows:
                    raise ConfigError(f"model {model.number}: its shadow ended without a result; see its {LOG_FILE}")
                self._shadows.add(model.number)
                self._jobs.shadow(model.number, hours=SHADOW_HOURS, who=BY)
                return True
            most = model.found["shadow"]["differing_bounds"][1]
            if most > rule.promote_differing:
                raise ConfigError(
                    f"model {model.number}: another verdict on up to {shown_rate(most)} of the pictures of "
                    f"{SHADOW_HOURS} hours; the rule allows {per_cent(rule.promote_differing)}"
                )
        why = f"by the rule that {rule.set_by} set"
        with writing(self._engine) as connection:
            promote(connection, self._folder, model.number, who=BY, why=why, margin=rule.promote_margin)
        return False

    def _begin(self, rule: Rule) -> bool:
        """Begin a training where there is something new to train with; return whether there was."""
        self._jobs.gather(product=rule.product, dataset=rule.dataset, who=BY)
        with self._engine.connect() as connection:
            newest = version(connection, rule.dataset)
            trained = {(model.dataset, model.digest) for model in all_models(connection, rule.product)}
        if (newest.dataset, newest.digest) in trained:
            return False
        self._jobs.begin(
            product=rule.product, dataset=rule.dataset, number=newest.number, time_budget=rule.time_budget, who=BY
        )
        return True

    def _keep(self, rule: Rule, tried_at: int, problem: str | None) -> None:
        """Note that a rule applied, unless it was set anew meanwhile."""
        r = TRAINING_RULES.c
        row = update(TRAINING_RULES).where(r.product == rule.product, r.set_at == rule.set_at)
        with writing(self._engine) as connection:
            connection.execute(row.values(tried_at=tried_at, problem=problem))

    def _run(self) -> None:
        while not self._ended.wait(_EVERY_S):
            with suppress(SQLAlchemyError):  # away: a rule applies when the database is back
                self.apply(datetime.now().astimezone())
