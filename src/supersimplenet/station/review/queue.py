"""What a person is asked next: each part with the reason for which an answer is worth the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from scipy import optimize
from sqlalchemy import Engine, select

from supersimplenet.station.review.answers import asked_about
from supersimplenet.station.review.opinions import AskedName
from supersimplenet.station.review.parts import drawn_records
from supersimplenet.station.review.sampling import Sampling
from supersimplenet.station.storage import results
from supersimplenet.station.storage.recorder import Record
from supersimplenet.station.storage.schema import RESULTS, SHADOWS
from supersimplenet.utils.iteration import in_blocks

_COMPARED = 2000  # newest results among which scores are ranked, and parts are drawn
_AT_ONCE = 500  # ids in a query
_WAITING = 200  # of each of the older ones that wait for a person
_APART = 0.5  # of the ranks of two scores, from which on they disagree
_NOVEL = 0.98  # rank of the distance from good parts, from which on a part counts as unlike those seen
_DISAGREEING = ("head_logit", "map_max_logit", "subspace_logit")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A part that a person is asked about.

    Attributes:
        record: its result.
        reason: why: ``disputed`` (people do not agree), ``random`` (drawn by chance, for the rates), ``unsure`` (the
            verdict), ``clicked`` (a missed defect of which neither kind nor place is known), ``shadow`` (a candidate
            says good where the verdict was not, or the other way round), ``disagreement`` (one
            score finds the part worse than most, another does not), ``novel`` (far from all good parts, though called
            good), ``expected`` (the verdict is most likely to be wrong).
        wrong: probability that the verdict is wrong, by the answers so far; None where these are too few.
    """

    record: Record
    reason: AskedName
    wrong: float | None


def review_queue(
    engine: Engine,
    *,
    product: str,
    who: str,
    sampling: Sampling,
    within_ms: int,
    limit: int = 20,
) -> list[Asked]:
    """Return what to ask a person next, the most useful first; a part that has an agreed answer is not asked again.

    Disputes come first, since one answer ends them; then the reasons take turns, so that none starves the others.
    Of each the worst comes first, but parts drawn by chance come in the order of time.

    Args:
        engine: the database.
        product: the product.
        who: the person; what this person has answered is not asked again, but for what it says about the rates.
        sampling: which parts are drawn by chance.
        within_ms: see `part_key`.
        limit: most parts.
    """
    records = results.search(engine, results.Filter(product=product), limit=_COMPARED)
    older = _older(engine, product, records)
    answered = asked_about(engine, [record["id"] for record in [*records, *older]], by=who)
    at_random = asked_about(engine, [record["id"] for record in records], reason="random")
    wrong = WrongVerdicts.of(records)
    kept = [record for record in records if record["kept"]]
    open_ones = [*kept, *(record for record in older if record["kept"])]
    drawn = [each for each in drawn_records(records, sampling, within_ms=within_ms) if each["kept"]]
    # In the order of time alone, whatever their scores: who answers some sooner would answer those of a kind
    waiting = [each for each in reversed(drawn) if each["id"] not in at_random]
    passed = answered | {each["id"] for each in waiting}
    contradicted = _contradicted(engine, [each["id"] for each in kept if each["id"] not in passed])
    found: dict[AskedName, list[Record]] = {
        "disputed": [each for each in open_ones if each["review"] == "disputed" and each["id"] not in answered],
        # Also those that somebody has clicked: rates count answers to this question alone
        "random": waiting,
        "clicked": [each for each in open_ones if _lacks_detail(each)],  # also of the one who clicked
        "shadow": [each for each in kept if each["id"] in contradicted and each["review"] is None],
        **by_scores(_new_pictures([each for each in open_ones if each["id"] not in passed], records), records, wrong),
    }
    chosen: dict[str, Asked] = {}
    for record, reason in in_turns(found):
        if record["id"] not in chosen:
            chosen[record["id"]] = Asked(record=record, reason=reason, wrong=wrong(record))
        if len(chosen) == limit:
            break
    return list(chosen.values())


def by_scores(
    records: Sequence[Record], all_records: Sequence[Record], wrong: WrongVerdicts
) -> dict[AskedName, list[Record]]:
    """Return which parts without an answer to ask about for what their scores say, in order."""
    ranks = {name: _ranks(all_records, name) for name in _DISAGREEING}

    def apart(record: Record) -> float:
        own = [ranks[name][record["id"]] for name in _DISAGREEING if record["id"] in ranks[name]]
        return max(own) - min(own) if len(own) > 1 else 0.0

    def distance(record: Record) -> float:
        return ranks["subspace_logit"].get(record["id"], 0.0) if record["verdict"] == "good" else 0.0

    unanswered = [record for record in records if record["review"] is None and record["verdict"] is not None]
    return {
        "unsure": [record for record in unanswered if record["verdict"] == "unsure"],
        "disagreement": _worst(unanswered, apart, least=_APART),
        "novel": _worst(unanswered, distance, least=_NOVEL),
        "expected": _worst(unanswered, lambda record: wrong(record) or _nearness(record), least=0.0),
    }


def _new_pictures(open_ones: Sequence[Record], records: Sequence[Record]) -> list[Record]:
    """Return results of pictures that nobody has answered about, each picture once: sent again, it is no other part."""
    known = {record["picture"] for record in records if record["review"] is not None}
    return list({each["picture"]: each for each in reversed(open_ones) if each["picture"] not in known}.values())[::-1]


def _contradicted(engine: Engine, ids: Sequence[str]) -> set[str]:
    """Return which results the newest candidate contradicts that predicted them: one says good, the other does not."""
    s, found = SHADOWS.c, {}
    with engine.connect() as connection:
        for block in in_blocks(ids, _AT_ONCE):
            query = select(s.result, s.verdict, RESULTS.c.verdict).join_from(SHADOWS, RESULTS, s.result == RESULTS.c.id)
            for result, verdict, of_station in connection.execute(query.where(s.result.in_(block)).order_by(s.model)):
                found[result] = None not in (verdict, of_station) and (verdict == "good") != (of_station == "good")
    return {result for result, is_contradicted in found.items() if is_contradicted}


def _older(engine: Engine, product: str, newest: Sequence[Record]) -> list[Record]:
    """Return the results that wait for a person however old they are: disputed, missed, and unsure ones."""
    wait = (
        results.Filter(product=product, reviewed="disputed"),
        results.Filter(product=product, reviewed="missed"),
        results.Filter(product=product, verdict="unsure", reviewed="none"),
    )
    found = {record["id"]: record for each in wait for record in results.search(engine, each, limit=_WAITING)}
    known = {record["id"] for record in newest}
    return [record for name, record in found.items() if name not in known]


class WrongVerdicts:
    """How likely a verdict is to be wrong, by the score: from the answers so far, which need not be drawn by chance.

    The share of bad parts at a score does not depend on why parts of that score were inspected again, so every answer
    counts. It rises with the score: isotonic regression.

    Args:
        scores: (n,) deciding scores of parts with an answer.
        bad: (n,) whether the part was found bad.

    Source: Zadrozny, Elkan: Transforming classifier scores into accurate multiclass probability estimates, KDD 2002,
    section 3.
    """

    FEWEST = 10  # answers of either kind together, with one of each

    def __init__(self, scores: NDArray[np.float64], bad: NDArray[np.bool_]) -> None:
        self._known = bool(scores.size >= self.FEWEST and bad.any() and not bad.all())
        order = np.argsort(scores, kind="stable")
        self._scores = scores[order]
        self._bad = optimize.isotonic_regression(bad[order].astype(np.float64)).x if self._known else scores[:0]

    @classmethod
    def of(cls, records: Sequence[Record]) -> WrongVerdicts:
        """Return what the answers about results say."""
        said = [each for each in records if each["review"] in ("good", "bad") and each["score_logit"] is not None]
        scores = np.array([each["score_logit"] for each in said], dtype=np.float64)
        return cls(scores, np.array([each["review"] == "bad" for each in said], dtype=bool))

    def __call__(self, record: Record) -> float | None:
        """Return the probability that a result's verdict is wrong; None where too few answers are known."""
        if not self._known or record["score_logit"] is None:
            return None
        is_bad = float(np.interp(record["score_logit"], self._scores, self._bad))
        return is_bad if record["verdict"] == "good" else 1 - is_bad


def _lacks_detail(record: Record) -> bool:
    """Return whether an answer contradicts the verdict, and nobody said what the defect is or drew it."""
    is_missed = record["verdict"] == "good" and record["review"] == "bad"
    return is_missed and record["review_defect"] is None and record["review_mask"] is None


def _nearness(record: Record) -> float:
    """Return how near a score is to the threshold, 0 to 1, where nothing else is known."""
    score = record["score"]
    return 0.0 if score is None else 1 - 2 * abs(score - 0.5)


def _worst(records: Sequence[Record], value: Callable[[Record], float], *, least: float) -> list[Record]:
    values = [(value(record), record) for record in records]
    return [record for found, record in sorted(values, key=lambda each: -each[0]) if found >= least]


def _ranks(records: Sequence[Record], score: str) -> Mapping[str, float]:
    """Return the rank of each result by a score, 0 to 1, among results of the same model."""
    found: dict[str, float] = {}
    for model in {record["model"] for record in records}:
        own = [each for each in records if each["model"] == model and each["row"].get(score) is not None]
        values = np.array([each["row"][score] for each in own], dtype=np.float64)
        places = np.searchsorted(np.sort(values), values, side="left") / max(1, values.size - 1)
        found.update(zip((each["id"] for each in own), places.tolist(), strict=True))
    return found


def in_turns(found: Mapping[AskedName, Sequence[Record]]) -> Iterator[tuple[Record, AskedName]]:
    """Yield disputes first, then one of each reason in turn."""
    yield from ((record, "disputed") for record in found.get("disputed", ()))
    others = {reason: records for reason, records in found.items() if reason != "disputed"}
    for each in zip_longest(*others.values()):
        yield from ((record, reason) for reason, record in zip(others, each, strict=True) if record is not None)
