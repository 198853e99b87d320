"""What a person is asked next, and the rates that the answers tell: unbiased, with intervals that hold."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from scipy import stats
from station_records import result

from supersimplenet.errors import ConfigError, MetricError
from supersimplenet.metrics.sampled_rates import Stratum, sampled_rate
from supersimplenet.station.review.answers import add_answer
from supersimplenet.station.review.opinions import Said
from supersimplenet.station.review.queue import WrongVerdicts, review_queue
from supersimplenet.station.review.rates import estimate_rates
from supersimplenet.station.review.sampling import Sampling, part_key, stratum_of
from supersimplenet.station.storage.database import open_database, writing
from supersimplenet.station.storage.recorder import insert_results
from supersimplenet.station.storage.results import Filter

HOUR = 3_600_000
NOBODY = Sampling(share=0.0)


@pytest.fixture
def engine(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'station.db'}")
    yield engine
    engine.dispose()


def inspected(
    score_logit: float | None,
    *,
    verdict: str | None = None,
    part: str | None = None,
    picture: str | None = None,
    **scores: float,
) -> Any:
    """Return a result: bad from logit 0 on; of a picture of its own, unless one is named."""
    found = result(part=part)
    found["picture"] = picture or hashlib.sha256(found["id"].encode()).hexdigest()
    if score_logit is None:
        return found | {"verdict": None, "score": None, "score_logit": None}
    own = "bad" if score_logit >= 0 else "good"
    row = found["row"] | {"p_value": 0.5 if score_logit < -1 else 0.1} | scores
    score = float(1 / (1 + np.exp(-score_logit)))
    return found | {"verdict": verdict or own, "score": score, "score_logit": score_logit, "row": row}


def answer(engine, record: dict[str, Any], said: str | None, *, who: str = "anna", **more: Any) -> None:
    with writing(engine) as connection:
        add_answer(connection, record["id"], Said(answer=said, **more), who=who)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------- rates


def test_without_weights_the_interval_is_that_of_a_poisson_count():
    found = sampled_rate([Stratum(parts=200, drawn=200, events=3)])
    assert found.rate == 3 / 200
    # Garwood 1936: chi-squared quantiles with 2x and 2x + 2 degrees of freedom
    assert found.low == pytest.approx(stats.chi2.ppf(0.025, 6) / 2 / 200, rel=1e-9)
    assert found.high == pytest.approx(stats.chi2.ppf(0.975, 8) / 2 / 200, rel=1e-9)
    none = sampled_rate([Stratum(parts=1000, drawn=10, events=0)])
    assert (none.rate, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(100 * -np.log(0.025) / 1000, rel=1e-9)  # one event of weight 100


def test_parts_of_which_none_was_drawn_may_all_be_events():
    found = sampled_rate([Stratum(parts=100, drawn=100, events=0), Stratum(parts=300, drawn=0, events=0)])
    assert (found.rate, found.parts, found.drawn) == (0.0, 400, 100)
    assert 0.75 < found.high < 0.77
    assert sampled_rate([Stratum(parts=5, drawn=0, events=0)]).high == 1.0
    assert sampled_rate([]) is None
    with pytest.raises(MetricError, match="stratum: 3 events, 2 drawn, 5 parts"):
        Stratum(parts=5, drawn=2, events=3)


@pytest.mark.parametrize(
    ("parts", "rates", "shares"),
    [
        ((20_000, 2_000), (0.0005, 0.02), (0.01, 0.1)),
        ((20_000, 2_000), (0.00002, 0.02), (0.01, 0.1)),
        ((500, 50), (0.1, 0.4), (0.1, 1.0)),
    ],
)
def test_the_estimate_is_unbiased_and_its_interval_holds(parts, rates, shares):
    """A line whose parts are drawn with two shares, simulated 1,000 times."""
    generator = np.random.default_rng(7)
    true = np.dot(parts, rates) / sum(parts)
    found = []
    for _ in range(1_000):
        bad = generator.binomial(parts, rates)
        drawn_bad = generator.binomial(bad, shares)
        drawn_good = generator.binomial(np.array(parts) - bad, shares)
        found.append(
            sampled_rate(
                [
                    Stratum(parts=n, drawn=int(g + b), events=int(b))
                    for n, g, b in zip(parts, drawn_good, drawn_bad, strict=True)
                ]
            )
        )
    estimates = np.array([each.rate for each in found])
    assert abs(estimates.mean() - true) < 4 * estimates.std() / np.sqrt(len(found))
    assert np.mean([each.low <= true <= each.high for each in found]) >= 0.95


def test_rates_count_drawn_parts_alone_and_a_part_once(engine):
    everything = Sampling(share=1.0)
    good, escape, call, unanswered = (inspected(score) for score in (-3, -2, 1, -3))
    views = [inspected(-3, part="lid 1"), inspected(2, part="lid 1")]  # one part, called bad
    insert_results(engine, [good, escape, call, unanswered, *views, inspected(None)])
    for record, said in ((good, "good"), (escape, "bad"), (call, "good"), (views[0], "good"), (views[1], "bad")):
        answer(engine, record, said, asked="random")
    found = estimate_rates(engine, Filter(product="parts"), everything, within_ms=HOUR)
    assert (found.escapes.events, found.escapes.drawn, found.escapes.parts) == (1, 2, 3)
    assert found.escapes.rate == 1 / 2
    assert (found.false_calls.events, found.false_calls.drawn, found.false_calls.parts) == (1, 2, 2)
    assert (found.asked, found.answered, found.failed) == (5, 4, 1)
    # A click is no answer to the question: bad parts are clicked more often than good ones
    answer(engine, unanswered, "bad")
    clicked = estimate_rates(engine, Filter(product="parts"), everything, within_ms=HOUR)
    assert (clicked.escapes.events, clicked.escapes.drawn, clicked.known_escapes) == (1, 2, 2)
    nobody = estimate_rates(engine, Filter(product="parts"), NOBODY, within_ms=HOUR)
    assert (nobody.asked, nobody.known_escapes, nobody.known_false_calls) == (0, 2, 1)
    assert (nobody.escapes.drawn, nobody.escapes.high) == (0, 1.0)


def test_parts_are_drawn_with_their_share_and_always_the_same():
    sampling = Sampling(share=0.02, seed=3)
    keys = [f"part {number}" for number in range(20_000)]
    drawn = {stratum: [key for key in keys if sampling.draws(key, stratum)] for stratum in ("passed", "bad")}
    for stratum, share in (("passed", 0.02), ("bad", 0.2)):
        assert abs(len(drawn[stratum]) - share * 20_000) < 4 * np.sqrt(share * (1 - share) * 20_000)
    assert drawn["passed"] == [key for key in keys if sampling.draws(key, "passed")]
    assert drawn["passed"] != [key for key in keys if Sampling(share=0.02, seed=4).draws(key, "passed")]
    assert (stratum_of("good", 0.5), stratum_of("good", 0.2), stratum_of("unsure", 0.01)) == (
        "passed",
        "passed-near",
        "unsure",
    )
    first, second, later = (result(part="lid 1", at=at) for at in (0, HOUR - 1, HOUR))
    assert part_key(first, within_ms=HOUR) == part_key(second, within_ms=HOUR) != part_key(later, within_ms=HOUR)


# ------------------------------------------------------------------------------------------------------- queue


def ask(engine, who: str = "anna", sampling: Sampling = NOBODY, limit: int = 20):
    return review_queue(engine, product="parts", who=who, sampling=sampling, within_ms=HOUR, limit=limit)


def test_each_reason_finds_its_part_and_disputes_come_first(engine):
    plain = [
        inspected(-4 + 0.001 * n, head_logit=float(n), map_max_logit=float(n), subspace_logit=float(n))
        for n in range(60)
    ]
    disputed = inspected(-4)
    unsure = inspected(-0.5, verdict="unsure")
    torn = inspected(-4, head_logit=100.0, map_max_logit=-100.0, subspace_logit=0.0)
    novel = inspected(-4, head_logit=30.0, map_max_logit=30.0, subspace_logit=1000.0)
    missed = inspected(-4)
    removed = inspected(-0.1, verdict="unsure") | {"kept": False}
    insert_results(engine, [*plain, disputed, unsure, torn, novel, missed, removed])
    answer(engine, disputed, "good", who="ben")
    answer(engine, disputed, "bad", who="cem")
    answer(engine, missed, "bad")
    found = ask(engine)
    assert found[0].reason == "disputed"
    reasons = {each.record["id"]: each.reason for each in found}
    assert reasons[disputed["id"]] == "disputed"
    assert reasons[unsure["id"]] == "unsure"
    assert reasons[missed["id"]] == "clicked"
    assert reasons[torn["id"]] == "disagreement"
    assert reasons[novel["id"]] == "novel"
    assert removed["id"] not in reasons
    assert len(reasons) == len(found) == 20
    # Asked once more by somebody else who has answered one of them
    answer(engine, unsure, "bad", who="ben")
    assert unsure["id"] not in {each.record["id"] for each in ask(engine, "ben")}
    # What is known is not asked again
    answer(engine, missed, "bad", defect="crack")
    assert missed["id"] not in {each.record["id"] for each in ask(engine)}


def test_a_picture_that_comes_again_is_asked_about_once(engine):
    records = [inspected(-0.1 - n / 10, picture=picture * 64) for n, picture in enumerate("aabb")]
    insert_results(engine, records)
    asked = ask(engine)
    assert sorted(each.record["picture"][0] for each in asked) == ["a", "b"]
    answer(engine, records[0], "good", who="ben")
    assert [each.record["picture"][0] for each in ask(engine)] == ["b"]


def test_parts_drawn_by_chance_come_in_the_order_of_time(engine):
    records = [inspected(-3) for _ in range(30)]
    insert_results(engine, records)
    found = ask(engine, sampling=Sampling(share=1.0), limit=100)
    drawn = [each.record["id"] for each in found if each.reason == "random"]
    assert drawn == sorted(drawn)
    assert len(drawn) == 30  # none is asked sooner because of its score
    # One that was clicked is asked about once more, until somebody answers the question itself
    first = next(record for record in records if record["id"] == drawn[0])
    answer(engine, first, "bad", defect="crack")
    assert reasons(engine)[drawn[0]] == "random"
    answer(engine, first, "bad", defect="crack", asked="random")
    assert drawn[0] not in reasons(engine)


def reasons(engine) -> dict[str, str]:
    return {each.record["id"]: each.reason for each in ask(engine, sampling=Sampling(share=1.0), limit=100)}


def test_how_likely_a_verdict_is_wrong_rises_with_what_people_found(engine):
    few = WrongVerdicts(np.array([-1.0, 1.0]), np.array([False, True]))
    assert few(inspected(0.0)) is None
    scores = np.array([-4, -3, -2, -1.5, -1, -0.5, 0.5, 1, 1.5, 2.0])
    bad = np.array([0, 0, 0, 1, 0, 1, 1, 0, 1, 1], dtype=bool)
    wrong = WrongVerdicts(scores, bad)
    assert wrong(inspected(-4)) == 0.0
    assert wrong(inspected(-1.5)) == wrong(inspected(-1.0)) == 0.5  # pooled: 1, 0
    assert wrong(inspected(0.5)) == pytest.approx(1 - 2 / 3)  # pooled: 1, 1, 0; called bad
    assert wrong(inspected(2.0)) == 0.0
    records = [inspected(score) for score in scores]
    asked = [inspected(score) for score in (-4.0, -1.2, 1.9)]
    insert_results(engine, [*records, *asked])
    for record, found in zip(records, bad, strict=True):
        answer(engine, record, "bad" if found else "good", defect="crack" if found else None)
    found = {each.record["id"]: each.wrong for each in ask(engine)}
    assert [found[record["id"]] for record in asked] == pytest.approx([0.0, 0.5, 0.0], abs=1e-9)
    assert next(iter(found)) == asked[1]["id"]


def test_what_waits_for_a_person_is_asked_about_however_old_it_is(engine, monkeypatch):
    monkeypatch.setattr("supersimplenet.station.review.queue._COMPARED", 5)
    unsure, missed, disputed, forgotten = inspected(-0.5, verdict="unsure"), inspected(-4), inspected(-4), inspected(-3)
    insert_results(engine, [unsure, missed, disputed, forgotten, *(inspected(-4) for _ in range(5))])
    answer(engine, missed, "bad", who="ben")
    for who, said in (("ben", "good"), ("cem", "bad")):
        answer(engine, disputed, said, who=who)
    found = {each.record["id"]: each.reason for each in ask(engine)}
    assert {found[each["id"]] for each in (unsure,)} == {"unsure"}
    assert (found[missed["id"]], found[disputed["id"]]) == ("clicked", "disputed")
    assert forgotten["id"] not in found


def test_all_photographs_of_a_part_are_drawn_or_none(engine):
    """By the verdict of the part: the good views of a bad part are asked about too, else it would never count."""
    sampling = Sampling(share=0.05)
    views = [inspected(score, part=f"lid {number}") for number in range(40) for score in (-4, 2)]
    insert_results(engine, views)
    asked = {e.record["id"] for e in ask(engine, sampling=sampling, limit=200) if e.reason == "random"}
    drawn = [view["part"] for view in views if view["id"] in asked]
    assert 5 < len(set(drawn)) < 35  # half of bad parts
    assert all(drawn.count(part) == 2 for part in drawn)
    for view in views:
        if view["id"] in asked:
            answer(engine, view, "good", asked="random")
    found = estimate_rates(engine, Filter(product="parts"), sampling, within_ms=HOUR)
    assert (found.asked, found.answered) == (len(set(drawn)), len(set(drawn)))


@pytest.mark.parametrize("kind", ["good", "..", " ", "a/b", "a\\b", "a\nb"])
def test_a_kind_that_is_no_name_is_refused(kind):
    with pytest.raises(ConfigError, match="wanted a name such as scratch"):
        Said(answer="bad", defect=kind)
