"""Models at a station: trainings begun there and the page that shows them; real processes, kills and a browser."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from station_process import StationProcess
from station_records import result
from test_station_page import PASSWORD, WORDS, Opened, case, check_looks, log_in, log_in_by, until
from test_station_registry import write_parts

from supersimplenet.cli.main import main
from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import CONFIG_FILE
from supersimplenet.station.config import DATABASE_VARIABLE, StationConfig
from supersimplenet.station.registry.jobs import BusyError, Jobs
from supersimplenet.station.registry.promotions import models_in_use, promote
from supersimplenet.station.registry.records import register, set_state
from supersimplenet.station.registry.rules import RuleWatch, is_due, new_answers, rules, set_rule
from supersimplenet.station.review.answers import add_answer
from supersimplenet.station.review.opinions import Said
from supersimplenet.station.storage.database import open_database, writing
from supersimplenet.station.storage.pictures import PictureStore
from supersimplenet.station.storage.recorder import insert_results
from supersimplenet.utils.locks import is_held, writing_into

__all__ = ["case"]  # a fixture
WITHIN_S = 120.0
SMALL = {
    "model.backbone": "compact",
    "model.image_size": "[64, 64]",
    "trainer.max_epochs": "2",
    "trainer.num_workers": "0",
    "recipe.batch_size": "8",
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 40 good parts and 20 bad ones."""
    root = tmp_path_factory.mktemp("parts")
    write_parts(root)
    rows = ["image,split,label,defect,mask"]
    for path in sorted(root.glob("[dg]*/*.png")):
        kind = path.parent.name
        mask = f"masks/{kind}/{path.name}" if kind == "dent" else ""
        rows.append(f"{kind}/{path.name},train,{int(kind == 'dent')},{kind},{mask}")
    (root / "samples.csv").write_text("\n".join(rows))
    return root / "samples.csv"


@pytest.fixture(scope="module")
def library(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a station that never ran, with the dataset lids in its first version."""
    folder = tmp_path_factory.mktemp("library") / "station"
    assert main(["datasets", "import", "lids", str(parts), f"--folder={folder}"]) == 0
    return folder


def body(**more: Any) -> dict[str, Any]:
    return {"product": "parts", "dataset": "lids", "options": SMALL, **more}


def state_of(station: StationProcess, number: int) -> str:
    state: str = station.get(f"/v1/registry/{number}")["state"]
    return state


def wait_until(station: StationProcess, number: int, *states: str) -> str:
    deadline = time.monotonic() + WITHIN_S
    while (state := state_of(station, number)) not in states:
        assert time.monotonic() < deadline, (state, station.log.read_text())
        time.sleep(0.1)
    return state


def processes_of(folder: Path) -> list[list[str]]:
    """The command lines of all processes that name a folder."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = each.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "registry" in words or "train" in words:
            found += [words] * any(str(folder) in word for word in words)
    return found


def wait_for_processes(folder: Path, is_wanted: bool) -> list[list[str]]:
    deadline = time.monotonic() + WITHIN_S
    while bool(found := processes_of(folder)) != is_wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found


@pytest.mark.slow
def test_a_training_is_stopped_killed_with_its_station_found_again_and_resumed(case, library, parts, tmp_path):
    folder = tmp_path / "station"
    shutil.copytree(library, folder)
    url = f"sqlite:///{folder / 'station.db'}?cache=private"  # in place of one with a password
    station = StationProcess(case.detector.folder, folder=folder, database=url)
    content = (parts.parent / "good" / "001.png").read_bytes()
    begun = station.client.post("/v1/registry", json=body())
    assert begun.status_code == 201, begun.text
    model = begun.json()
    assert (model["number"], model["state"], model["dataset"], model["version"]) == (1, "training", "lids", 1)
    words = wait_for_processes(folder, True)
    assert all("cache=private" not in word for line in words for word in line)
    again = station.client.post("/v1/registry", json=body())
    assert (again.status_code, again.json()["error"]["code"]) == (409, "training")
    assert "model 1 is being trained" in again.json()["error"]["message"]
    assert station.client.post("/v1/registry/1/promotion", json={"why": "soon"}).status_code == 422
    assert station.inspect(content)["verdict"] is not None  # it goes on inspecting
    stopped = station.client.delete("/v1/registry/1/training")
    assert (stopped.status_code, stopped.json()["state"]) == (200, "interrupted"), stopped.text
    assert processes_of(folder) == []
    assert station.client.delete("/v1/registry/1/training").status_code == 409
    assert station.client.post("/v1/registry/1/training").json()["state"] == "training"
    wait_for_processes(folder, True)
    station.kill()
    wait_for_processes(folder, False)  # the training ends with its station, however that ends

    station.start()
    with station:
        time.sleep(1)
        assert state_of(station, 1) == "interrupted"  # it does not go on in silence
        assert processes_of(folder) == []
        trail = [entry["what"] for entry in station.get("/v1/audit", limit=3)["entries"]]
        assert trail == ["resume training", "stop training", "train model"]
        for wanted, sent in (
            (404, {"product": "none"}),
            (422, {"dataset": "none"}),
            (422, {"version": 7}),
            (422, {"time_budget": "15"}),
            (422, {"options": {"model.backbone_weights": "a.pt"}}),
            (422, {"options": {"model.backbone": "/etc/passwd"}}),
        ):
            assert station.client.post("/v1/registry", json=body(**sent)).status_code == wanted, sent
        assert state_of(station, 1) == "interrupted"


# ----- the page


EVIDENCE = {
    "found": 14,
    "newly_missed": 0,
    "missed_bound": 0.1926,
    "passed": 16,
    "newly_rejected": 0,
    "rejected_bound": 0.1707,
    "only_candidate_right": 1,
    "only_current_right": 0,
    "p_value": 1.0,
}
FOUND = {
    "compared": 1,
    "golden_good": 4,
    "golden_bad": 2,
    "reviewed_good": 12,
    "reviewed_bad": 12,
    "new_unsure": 0,
    "evidence": EVIDENCE,
    "later": "not shown",
}
COMPARED = (
    "Compared with model 1 on golden pictures, 4 good and 2 bad, and on reviewed ones that no training has seen, 12 "
    "good and 12 bad:"
)
SHOWN = (
    "What this shows, with 95 % confidence: of the bad parts that the other model finds, this one misses at most 19.3 "
    "% (0 of 14 seen); of the good parts that pass, it calls bad at most 17.1 % (0 of 16 seen)."
)


@pytest.fixture(scope="module")
def shown(case, library, parts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StationProcess]:
    """A station with models of all kinds: 1 and 2 may be used, 3 was refused, 4 interrupted, 5 failed."""
    folder = tmp_path_factory.mktemp("shown") / "station"
    shutil.copytree(library, folder)
    engine = open_database(f"sqlite:///{folder / 'station.db'}")
    known = {"product": "parts", "who": "rule", "dataset": "lids", "version": 1, "digest": "0" * 64}
    passed = {"new_escapes": 0, "new_false_alarms": 0, "reasons": []}
    behind = {"new_escapes": 2, "new_false_alarms": 1, "reasons": ["2 new escapes, 0 allowed: {}"]}
    with writing(engine) as connection:
        models = [
            register(connection, product="parts", state="candidate", who="anna"),
            register(connection, state="candidate", parent=1, found=FOUND | passed, **known),
            register(connection, state="refused", parent=1, found=FOUND | behind, **known),
            register(connection, state="training", parent=1, **known),
            register(connection, state="failed", found={"reasons": ["train ended with status 1: no room"]}, **known),
        ]
    for model in models[:3]:
        shutil.copytree(case.detector.folder, model.model(folder))
    engine.dispose()
    with StationProcess(case.detector.folder, folder=folder) as station:
        for path in (parts.parent / "good" / "001.png", parts.parent / "dent" / "041.png"):
            seen = station.inspect(path.read_bytes() + b"again", name=path.name)
            answer = {"verdict": "bad", "defect": "dent"}
            station.client.post(f"/v1/results/{seen['id']}/review", json=answer).raise_for_status()
        yield station


def card(page: Page, number: int) -> Any:
    return page.locator(f'[data-model="{number}"]')


def test_a_model_is_promoted_with_a_reason_and_taken_back_by_keyboard(browser, shown):
    with Opened(browser, shown, "/models", may="422") as page:
        page.wait_for_selector("#models:not([hidden])")
        assert page.locator("nav [aria-current]").text_content() == WORDS["nav.models"]
        until(page, "#used", WORDS["models.used.none"])
        assert page.locator("#others .state").all_text_contents() == [
            WORDS[f"models.state.{state}"] for state in ("failed", "interrupted", "refused", "candidate", "candidate")
        ]
        expect(card(page, 2)).to_contain_text(WORDS["models.escapes.none"])
        expect(card(page, 2)).to_contain_text(COMPARED)
        expect(card(page, 2)).to_contain_text("From version 1 of lids; begun by rule on")
        expect(card(page, 2)).to_contain_text("Model 1 was in use then.")
        expect(card(page, 2)).to_contain_text("Guarantee: at most 25 % of good parts are called bad")
        expect(card(page, 3)).to_contain_text("2 new escapes: bad parts that model would find")
        expect(card(page, 3)).to_contain_text("1 new false alarm: a good part")
        expect(card(page, 3)).to_contain_text(WORDS["models.refused"])
        expect(card(page, 4)).to_contain_text(WORDS["models.interrupted"])
        expect(card(page, 5)).to_contain_text("train ended with status 1: no room")
        assert "not shown" not in page.content()
        for number, why in ((1, "the first"), (2, "finds the new dents")):
            card(page, number).locator('[data-do="promote"]').focus()
            page.keyboard.press("Enter")
            until(page, "#promote-title", f"Put model {number} to use for parts?")
            assert page.locator("#promote-found").text_content() == (
                ""
                if number == 1
                else f"{COMPARED}{WORDS['models.escapes.none']}{WORDS['models.false_alarms.none']}{SHOWN}"
            )
            page.keyboard.press("Enter")  # without a reason nothing is sent
            assert page.locator("#promote-dialog[open]").count() == 1
            page.keyboard.type(why)
            page.keyboard.press("Enter")
            until(page, "#done", WORDS["models.promote.done"].replace("{number}", str(number)))
            until(page, "#used h3", f"Model {number}{WORDS['models.state.in_use']}")
            expect(page.locator("#used")).to_contain_text(f"Reason: {why}")
        page.locator('#used [data-do="back"]').press("Enter")
        until(page, "#back-title", "Go back to model 1 for parts?")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        until(page, "#used h3", f"Model 1{WORDS['models.state.in_use']}")
        expect(page.locator("#used")).to_contain_text(": this computer went back to it.")
        card(page, 3).locator('[data-do="promote"]').click()
        page.locator("#promote-why").fill("nothing better")
        page.locator("#promote-form [type=submit]").click()  # refused: it needs a tick
        assert page.locator("#promote-dialog[open]").count() == 1
        page.locator("#promote-force").check()
        page.locator("#promote-form [type=submit]").click()
        until(page, "#used h3", f"Model 3{WORDS['models.state.in_use']}")
        assert card(page, 2).locator(".found ~ p").count() == 2  # what is shown, the guarantee; nothing of a shadow yet
        card(page, 2).locator('[data-do="shadow"]').click()
        until(page, "#shadow-title", "Try model 2 on pictures of the line?")
        page.locator("#shadow-form [type=submit]").click()
        expect(card(page, 2).locator(".step")).to_have_text(WORDS["models.step.shadow"])
        seen = shown.get("/v1/results", product="parts")["results"]
        words = f"On {len(seen)} pictures of the line, "
        expect(card(page, 2)).to_contain_text(words, timeout=WITHIN_S * 1000)
        expect(card(page, 2)).to_contain_text(": 0 newly bad, 0 newly good. It gives another verdict on at most 84.2 %")
        card(page, 2).locator('[data-do="promote"]').click()  # it was compared with another one than that in use
        assert page.locator("#promote-margin").input_value() == "20"
        until(page, "#promote-margin-hint", "The comparison shows: on at most 19.3 %.")
        assert page.locator("#promote-force-field").is_hidden()
        page.locator("#promote-why").fill("a try")
        page.locator("#promote-form [type=submit]").click()
        expect(page.locator("#promote-form .problem")).to_contain_text("was compared with model 1, not with model 3")
        page.locator("#promote-force").check()
        page.keyboard.press("Escape")
    tried, promoted, *_ = shown.get("/v1/audit", limit=2)["entries"]
    assert tried["what"] == "shadow model"
    assert promoted["details"] == {"product": "parts", "model": 3, "why": "nothing better", "forced": True}
    deadline = time.monotonic() + WITHIN_S
    while "/registry/0003/" not in shown.get("/v1/models")[0]["path"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_answers_become_a_version_and_a_rule_is_set(browser, shown):
    with Opened(browser, shown, "/models") as page:
        page.wait_for_selector("#models:not([hidden])")
        until(page, "#rule", WORDS["models.rule.off"])
        page.locator("#change-rule").click()
        page.locator("#rule-number").fill("50")
        page.locator("#rule-at").fill("02:30")
        page.locator("#rule-margin").fill("10")
        page.locator("#rule-differing").fill("2.5")
        page.locator("#rule-form [type=submit]").click()
        expect(page.locator("#rule")).to_contain_text(
            "The station trains after 50 parts with new answers or each day at 02:30 if there is anything new, with "
            "dataset lids. Set by this computer on"
        )
        until(
            page,
            "#rule-puts",
            "It puts to use what it trained where a new mistake is shown to be on at most 10 % of parts, and another "
            "verdict on at most 2.5 % of the last 24 hours' pictures.",
        )
        page.locator("#gather").click()
        assert page.locator("#gather-dataset").input_value() == "lids"
        page.locator("#gather-form [type=submit]").click()
        until(page, "#gathered", "lids has version 2 now.")
        expect(page.locator("#gather")).to_be_focused()
        rows = page.locator('[data-dataset="lids"] tbody tr')
        expect(rows).to_have_count(2)
        expect(rows.first).to_contain_text("answers about parts")
        rows.first.get_by_role("button").click()
        until(page, "#changes-counts", "2 added")
        difference = shown.get("/v1/datasets/lids/changes", before=1, after=2)
        assert page.locator("#changes li").count() == len(difference["changes"]) == 2
        assert page.locator("#changes li").first.text_content().endswith("not held → Bad, dent")
        page.keyboard.press("Escape")
        page.locator("#change-rule").click()
        page.locator("#rule-number").fill("")
        page.locator("#rule-at").fill("")
        assert [page.locator(f"#rule-{name}").input_value() for name in ("margin", "differing")] == ["10", "2.5"]
        page.locator("#rule-form [type=submit]").click()
        until(page, "#rule", WORDS["models.rule.off"])
    trail = [(entry["what"], entry["details"].get("answers")) for entry in shown.get("/v1/audit", limit=3)["entries"]]
    assert trail == [("training rule", None), ("gather answers", None), ("training rule", 50)]


def test_the_page_fits_a_phone_and_dialogs_too(browser, shown):
    for language in ("en", "de", "zh"):
        with Opened(browser, shown, f"/models?lang={language}") as page:
            page.wait_for_selector("#models:not([hidden])")
            page.wait_for_selector(".of-versions")
            check_looks(page, "models")
            if language == "zh":
                continue
            for name in ("train", "change-rule", "gather"):
                page.locator(f"#{name}").click()
                page.wait_for_selector("dialog[open]")
                check_looks(page, name)
                fields = page.locator("dialog[open] :is(input, select)")
                assert fields.evaluate_all("(all) => all.filter((each) => each.labels.length === 0).length") == 0
                page.keyboard.press("Escape")


def test_operators_read_and_engineers_change(browser, shown):
    """From here on everybody needs to log in."""
    for name, role in (("chief", "admin"), ("olga", "operator"), ("emil", "engineer")):
        user = {"name": name, "role": role, "password": PASSWORD}
        assert shown.client.post("/v1/users", json=user).status_code == 201
        if name == "chief":
            log_in_by(shown.client, "chief")
    changes = [
        ("POST", "/v1/registry", body(dataset="none")),
        ("POST", "/v1/registry/1/promotion", {"why": "x"}),
        ("POST", "/v1/registry/1/training", None),
        ("DELETE", "/v1/registry/1/training", None),
        ("POST", "/v1/registry/4/comparison", None),
        ("POST", "/v1/registry/4/shadow", {}),
        ("POST", "/v1/products/parts/rollback", {}),
        ("PUT", "/v1/products/parts/training-rule", {"dataset": "lids"}),
        ("POST", "/v1/datasets/lids/gather", {"product": "parts"}),
    ]
    for name, is_engineer in (("olga", False), ("emil", True)):
        log_in_by(shown.client, name)
        for path in ("/v1/registry", "/v1/registry/1", "/v1/datasets", "/v1/training-rules"):
            assert shown.client.get(path).status_code == 200
        difference = shown.client.get("/v1/datasets/lids/changes", params={"before": 1, "after": 1})
        assert difference.json() == {"added": 0, "changed": 0, "removed": 0, "changes": []}
        for method, path, sent in changes:
            answer = shown.client.request(method, path, json=sent)
            assert (answer.status_code == 403) is not is_engineer, (name, path, answer.text)
    (rule,) = shown.get("/v1/training-rules")
    assert (rule["set_by"], rule["answers"]) == (None, None)
    (lids,) = shown.get("/v1/datasets")
    assert lids["versions"][-1]["counts"] == {
        "train": {"good": 28, "bad": 14},
        "calibration": {"good": 8, "bad": 4},
        "golden": {"good": 4, "bad": 2},
    }
    with Opened(browser, shown, "/models", may="401") as page:
        log_in(page, "olga", "/models")
        page.wait_for_selector("#may-not:not([hidden])")
        page.wait_for_selector(".of-versions")
        assert page.locator("#models button:visible").all_text_contents() in ([], [WORDS["models.changes"]])


# ----- rules and jobs without a page


class Recorded(Jobs):
    """Begins no process."""

    def _start(self, number: int, command_name: str = "resume", *options: str) -> None:
        self.started = [*getattr(self, "started", []), number if command_name == "resume" else (number, *options)]


@pytest.fixture
def engine(library, tmp_path):
    shutil.copytree(library, tmp_path / "station")
    engine = open_database(f"sqlite:///{tmp_path / 'station' / 'station.db'}")
    yield engine
    engine.dispose()


@pytest.mark.parametrize(
    ("at", "hours_ago", "is_wanted"), [("02:30", 0.5, True), ("02:30", 2, False), ("23:59", 0.5, True)]
)
def test_a_time_of_day_applies_once_and_not_when_it_is_long_ago(engine, at, hours_ago, is_wanted):
    hour, minute = map(int, at.split(":"))
    today = (datetime.now().astimezone() + timedelta(days=3)).replace(hour=hour, minute=minute, second=0, microsecond=0)
    now = today + timedelta(hours=hours_ago)
    with writing(engine) as connection:
        rule = set_rule(connection, "parts", dataset="lids", answers=None, daily_at=at, time_budget="15m", who="anna")
        assert is_due(connection, rule, now) is is_wanted
        before = today - timedelta(minutes=1)
        assert not is_due(connection, rule, before)
        tried = type(rule)(**(vars(rule) | {"tried_at": round(now.timestamp() * 1000)}))
        assert not is_due(connection, tried, now + timedelta(minutes=1))
        with pytest.raises(ConfigError, match="daily_at: '24:00'"):
            set_rule(connection, "parts", dataset="lids", answers=None, daily_at="24:00", time_budget="1m", who="anna")


def test_a_rule_trains_with_what_is_new_once_and_says_why_it_cannot(engine, tmp_path, parts):
    config = StationConfig(folder=tmp_path / "station")
    jobs, said = Recorded(engine, config, say=lambda line: None), []
    pictures = PictureStore(config.folder)
    rows = []
    for number in range(3):
        content = (parts.parent / "good" / "001.png").read_bytes() + bytes(number + 1)
        sha256 = hashlib.sha256(content).hexdigest()
        pictures.add_picture(content, sha256)
        rows.append(result(picture=sha256, name=f"{number}.png"))
    insert_results(engine, rows)
    results = [row["id"] for row in rows]
    watch = RuleWatch(engine, config.folder, jobs, say=said.append)
    now = datetime.now().astimezone()
    with writing(engine) as connection:
        set_rule(connection, "parts", dataset="lids", answers=2, daily_at=None, time_budget="5m", who="anna")
        add_answer(connection, results[0], Said(answer="good"), who="anna")
        add_answer(connection, results[1], Said(answer="unusable"), who="anna")
    watch.apply(now)
    assert not hasattr(jobs, "started")
    with writing(engine) as connection:
        add_answer(connection, results[2], Said(answer="good"), who="ben")
        assert new_answers(connection, "parts") == 2
    watch.apply(now)
    assert jobs.started == [1]
    with engine.connect() as connection:
        assert new_answers(connection, "parts") == 0
        (rule,) = rules(connection).values()
    assert (rule.problem, rule.tried_at > 0) == (None, True)
    watch.apply(now)
    assert jobs.started == [1]
    time.sleep(0.01)
    with writing(engine) as connection:
        set_rule(connection, "parts", dataset="empty", answers=1, daily_at=None, time_budget="5m", who="anna")
        add_answer(connection, results[0], Said(answer="bad"), who="anna")
    watch.apply(now)
    with engine.connect() as connection:
        (rule,) = rules(connection).values()
    assert "version 1 of 'empty' has no good part to set a threshold by" in rule.problem
    assert len(said) == 1
    watch.apply(now)
    assert (len(said), jobs.started) == (1, [1])  # tried once
    watch.close()


def test_a_rule_puts_to_use_what_is_shown_to_be_within_its_limits(engine, tmp_path):
    config, said = StationConfig(folder=tmp_path / "station"), []
    jobs = Recorded(engine, config, say=lambda line: None)
    watch = RuleWatch(engine, config.folder, jobs, say=said.append)
    now = datetime.now().astimezone()
    found = {"compared": 1, "evidence": EVIDENCE, "reasons": []}

    def set_limits(margin: float | None, differing: float | None) -> None:
        with writing(engine) as connection:
            set_rule(
                connection,
                "parts",
                dataset="lids",
                answers=100,
                daily_at=None,
                time_budget="5m",
                promote_margin=margin,
                promote_differing=differing,
                who="anna",
            )

    def after_applying() -> tuple[int | None, str | None]:
        watch.apply(now)
        with engine.connect() as connection:
            used = models_in_use(connection).get("parts")
            (rule,) = rules(connection).values()
        return None if used is None else used.model, rule.problem

    with writing(engine) as connection:
        first = register(connection, product="parts", state="candidate", who="rule")
    (first.model(config.folder)).mkdir(parents=True)
    (first.model(config.folder) / CONFIG_FILE).touch()
    set_limits(0.5, None)
    assert after_applying() == (None, None)  # nothing to compare the first one with
    with writing(engine) as connection:
        promote(connection, config.folder, 1, who="anna")
        for who in ("rule", "anna"):
            model = register(connection, product="parts", state="candidate", who=who, found=found)
            shutil.copytree(first.model(config.folder), model.model(config.folder))
    assert after_applying() == (1, None)  # the newest was begun by a person
    with writing(engine) as connection:
        set_state(connection, 3, "failed")
        last = register(connection, product="parts", state="candidate", who="rule", found=found)
    shutil.copytree(first.model(config.folder), last.model(config.folder))
    set_limits(None, None)
    assert after_applying() == (1, None)
    set_limits(0.15, None)
    used, problem = after_applying()
    assert used == 1
    assert problem.startswith("not put to use: model 4: compared by 14 bad parts that the current model finds, 0 with")
    after_applying()
    assert len(said) == 1  # once
    set_limits(0.2, 0.05)
    assert after_applying() == (1, None)
    assert jobs.started == [(4, "--past=24h")]
    assert after_applying()[1].endswith("its shadow ended without a result; see its log.txt")
    with writing(engine) as connection:
        set_state(connection, 4, "candidate", shadow={"differing_bounds": [0.01, 0.0701]})
    assert after_applying()[1] == (
        "not put to use: model 4: another verdict on up to 7.1 % of the pictures of 24 hours; the rule allows 5.0 %"
    )
    with writing(engine) as connection:
        set_state(connection, 4, "candidate", shadow={"differing_bounds": [0.01, 0.0499]})
    assert after_applying() == (4, None)
    with engine.connect() as connection:
        change = models_in_use(connection)["parts"]
    assert (change.who, change.why) == ("rule", "by the rule that anna set")
    assert after_applying() == (4, None)
    assert jobs.started == [(4, "--past=24h")]
    for limits, wrong in (((0, None), "promote_margin: 0"), ((None, 0.1), "belongs to promote_margin")):
        with pytest.raises(ConfigError, match=wrong):
            set_limits(*limits)
    watch.close()


def test_a_training_elsewhere_is_seen_and_left_alone(engine, tmp_path):
    jobs = Recorded(engine, StationConfig(folder=tmp_path / "station"), say=lambda line: None)
    with writing(engine) as connection:
        model = register(connection, product="parts", state="training", who="anna", dataset="lids", version=1)
    folder = model.folder(tmp_path / "station")
    assert not jobs.is_running(model)
    with writing_into(folder):
        assert is_held(folder)
        assert jobs.is_running(model)
        with pytest.raises(BusyError, match="model 1 is being trained or compared"):
            jobs.begin(product="parts", dataset="lids", time_budget="1m", who="anna")
        with pytest.raises(BusyError, match="this was begun by a command"):
            jobs.stop(1, who="anna")
    assert not is_held(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".lock").write_text("left behind by a kill")
    assert not is_held(folder)
    with pytest.raises(BusyError, match="is not being trained"):
        jobs.stop(1, who="anna")


def test_commands_take_the_database_from_the_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(DATABASE_VARIABLE, f"sqlite:///{tmp_path / 'other.db'}")
    assert main(["registry", "list", f"--folder={tmp_path / 'none'}"]) == 0
    assert "no models" in capsys.readouterr().out
    assert (tmp_path / "other.db").is_file()


@pytest.mark.slow
def test_a_model_is_trained_compared_and_put_to_use_from_the_page(browser, case, library, tmp_path):
    """A promoted first model, then one by the rule: answers, data, training, comparison, all in real processes."""
    folder = tmp_path / "station"
    shutil.copytree(library, folder)
    with StationProcess(case.detector.folder, folder=folder) as station, Opened(browser, station, "/models") as page:
        page.set_default_timeout(WITHIN_S * 1000)
        page.wait_for_selector("#models:not([hidden])")
        assert station.client.post("/v1/registry", json=body()).status_code == 201
        page.reload()
        expect(card(page, 1)).to_contain_text(WORDS["models.state.training"])
        expect(card(page, 1).locator(".step")).to_have_text(WORDS["models.step.training"], timeout=WITHIN_S * 1000)
        expect(card(page, 1)).to_contain_text(WORDS["models.state.candidate"], timeout=WITHIN_S * 2000)
        expect(card(page, 1)).to_contain_text(WORDS["models.first"])
        expect(page.locator("#done")).to_have_text("Model 1: may be used")
        model = station.get("/v1/registry/1")
        assert (model["state"], model["who"], model["compared"]) == ("candidate", "local", None)
        assert model["guarantee"].startswith("at most 31.3 % of good parts")
        card(page, 1).locator('[data-do="promote"]').click()
        page.locator("#promote-why").fill("the first")
        page.locator("#promote-form [type=submit]").click()
        until(page, "#used h3", f"Model 1{WORDS['models.state.in_use']}")
        again = station.client.post("/v1/registry", json=body())
        state = wait_until(station, again.json()["number"], "candidate", "refused", "failed")
        second = station.get("/v1/registry/2")
        assert state in ("candidate", "refused"), second
        assert (second["compared"]["compared"], second["compared"]["golden_good"]) == (1, 4)
        assert all(str(folder) not in reason for reason in second["reasons"])
        until(page, '[data-model="2"] .state', WORDS[f"models.state.{state}"])
        card(page, 2).locator('[data-do="compare"]').click()
        until(page, '[data-model="2"] .state', WORDS["models.state.comparing"])
        expect(card(page, 2).locator(".step")).to_have_text(WORDS["models.step.comparison"])
        assert station.client.post("/v1/registry", json=body()).status_code == 409
        assert wait_until(station, 2, "candidate", "refused") == state
        assert station.client.post("/v1/registry/1/comparison").json()["error"]["code"] == "registry"  # in use
