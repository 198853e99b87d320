"""The pages Health, Threshold and Try of a station in a browser."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from station_process import StationProcess
from test_drift import model, part
from test_station_page import (
    PASSWORD,
    SOON_MS,
    VERDICTS,
    WORDS,
    Opened,
    case,
    check_looks,
    contents,
    log_in,
    log_in_by,
    station,
    until,
)

__all__ = ["case", "contents", "model", "station"]  # fixtures


def add_users(station: StationProcess, **roles: str) -> None:
    """Add users, the first one an admin, as whom the client is logged in."""
    for name, role in roles.items():
        user = {"name": name, "role": role, "password": PASSWORD}
        assert station.client.post("/v1/users", json=user).status_code == 201
        if role == "admin":
            log_in_by(station.client, name)


def send_parts(station: StationProcess, draw: np.random.Generator, brightness: float, number: int = 60) -> None:
    """Send pictures of parts whose brightness is about that."""
    encoded = [base64.b64encode(part(draw, brightness)).decode() for _ in range(number)]
    images = [{"name": f"{place}.png", "content": content} for place, content in enumerate(encoded)]
    answer = station.client.post("/v1/inspect", json={"images": images})
    assert [result["verdict"] for result in answer.json()["results"]] == ["good"] * number


HIDE = """(isHidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => isHidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.fixture(scope="module")
def dim(model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StationProcess]:
    """A station that has inspected good parts, and has a source that is away."""
    folder = tmp_path_factory.mktemp("dim")
    away = {"sources": [{"name": "inbox", "kind": "folder", "folder": str(folder / "missing")}]}
    with StationProcess(model, folder=folder / "station", setup=away) as station:
        send_parts(station, np.random.default_rng(5), 120)
        yield station


def test_pictures_that_grow_dim_are_said_as_soon_as_the_page_is_seen(browser, dim):
    with Opened(browser, dim, "/health") as page:
        says = page.locator('[data-product="parts"] .says')
        expect(says).to_contain_text("Pictures are like those before them (60 good parts compared since ")
        assert page.locator("nav [aria-current]").text_content() == WORDS["nav.health"]
        assert page.locator("#speed dd").nth(4).text_content() == f"0 of {dim.get('/v1/status')['queue']}"
        assert page.locator(".accept").is_hidden()
        source = page.locator('[data-source="inbox"] .of-state')
        expect(source).to_contain_text("there is no folder ", timeout=SOON_MS)
        assert source.text_content().startswith(WORDS["state.away"])
        assert page.locator("#sinks").text_content() == WORDS["sinks.none"]

        page.clock.install()
        page.evaluate(HIDE, True)
        send_parts(dim, np.random.default_rng(6), 80)
        (state,) = dim.get("/v1/drift")
        page.clock.run_for(10_000)
        assert "60 good parts" in says.text_content()
        page.evaluate(HIDE, False)  # the page's clock stands
        expect(says).to_contain_text(WORDS["drift.changed"].partition(" {time}")[0])
        features = {feature["name"]: feature for feature in state["features"]}
        now, before = (round(features["brightness"][name]) for name in ("recent", "before"))
        assert 75 < now < before < 125
        changes = page.locator(".changes li").all_text_contents()
        assert changes[state["changed"].index("brightness")] == f"darker (now {now}, before {before})"
        assert len(changes) == len(state["changed"])
        assert page.locator(".advice").text_content() == WORDS["drift.advice"]
        word = page.locator('[data-feature="brightness"] .word')
        assert word.text_content() == WORDS["drift.sign.changed"]
        capitals = {name: feature["capital"] for name, feature in features.items()} | {"all": state["capital"]}
        for row in page.locator("[data-feature]").all():
            wanted = min(1.0, max(0.0, math.log10(max(1.0, capitals.pop(row.get_attribute("data-feature")))) / 3))
            width = float(row.locator(".part").get_attribute("width"))
            assert width == pytest.approx(100 * wanted, abs=0.06)
        assert capitals == {}
        expect(page.locator("#signs")).to_contain_text(WORDS["sign.drift"])
        check_looks(page, "health")

        page.goto(f"{dim.address}/threshold")  # a model that is not calibrated
        expect(page.locator("#uncalibrated")).to_contain_text(WORDS["threshold.no_calibration"])
        expect(page.locator("#effects")).to_contain_text("Of 120 pictures of the last 7 days, 0 would have been bad")
        assert [page.locator(f"#{name}").is_hidden() for name in ("set", "back", "guarantee")] == [True] * 3
        check_looks(page, "uncalibrated")


def test_an_operator_sees_a_change_and_an_admin_accepts_it(browser, dim):
    if dim.get("/v1/drift")[0]["drifted_at"] is None:  # where the test above runs in another process
        send_parts(dim, np.random.default_rng(6), 80)
    assert dim.get("/v1/drift")[0]["drifted_at"] is not None
    add_users(dim, anna="admin", bert="operator")
    with Opened(browser, dim, "/health", may="401|ERR_") as page:
        log_in(page, "bert", "/health")
        until(page, ".advice", WORDS["drift.advice.operator"])
        assert page.locator(".accept").is_hidden()
        page.locator("#logout").click()
        log_in(page, "anna")
        page.goto(f"{dim.address}/health")
        page.locator(".accept").click()
        until(page, "#accept-title", WORDS["drift.accept.ask"].replace("{product}", "parts"))
        page.keyboard.press("Escape")
        assert dim.get("/v1/drift")[0]["drifted_at"] is not None
        page.locator(".accept").click()
        page.locator("#accept-form [type=submit]").click()
        until(page, '[data-product="parts"] .says', WORDS["drift.nothing"])
        until(page, "#done", WORDS["drift.accepted"].replace("{product}", "parts"))
        assert dim.get("/v1/drift")[0]["drifted_at"] is None
        assert dim.get("/v1/audit", limit=1)["entries"][0]["what"] == "accept drift"
        expect(page.locator("#signs")).not_to_contain_text(WORDS["sign.drift"])
        dim.kill()
        said = re.compile(WORDS["lost"].replace("{time}", r"\d\d:\d\d"))
        expect(page.locator("#lost")).to_have_text(said, timeout=SOON_MS)


def count_bad(scores: dict, threshold: float, review: str | None = None) -> tuple[int, int]:
    """How many pictures there are, of all or of those reviewed so, and how many of these are bad."""
    found = zip(scores["scores_logit"], scores["reviews"], strict=True)
    chosen = [score for score, said in found if review is None or said == review]
    return len(chosen), sum(score >= threshold for score in chosen)


@pytest.fixture(scope="module")
def scored(station, contents) -> dict:
    """Pictures of all verdicts, some of them reviewed; returns their scores."""
    for verdict in VERDICTS:
        for place, content in enumerate(contents[verdict]):
            result = station.inspect(content, name=f"{verdict} {place}.png")
            if place % 2 == 0:
                said = "bad" if place % 4 == 0 else "good"
                answer = station.client.post(f"/v1/results/{result['id']}/review", json={"verdict": said})
                assert answer.status_code == 200
    return station.get("/v1/products/parts/scores", since="2026-01-01T00:00:00Z")


def effects(page: Page) -> list[str]:
    return page.locator("#effects li").all_text_contents()


def test_a_threshold_is_chosen_with_what_it_changes_and_set(browser, station, scored, case):
    calibration = case.detector.calibration
    with Opened(browser, station, "/threshold") as page:
        page.wait_for_selector("#plot svg")
        assert page.locator("nav [aria-current]").text_content() == WORDS["nav.threshold"]
        until(page, "#guarantee", f"Guarantee: {calibration.guarantee()}.")
        assert WORDS["threshold.present.calibrated"].rpartition(". ")[2] in page.locator("#present").text_content()
        assert page.locator("#set").is_disabled()
        assert page.locator("#back").is_hidden()
        assert page.locator("#plot .part").count() == calibration.parts
        for kind, said in (("open", None), ("good", "good"), ("bad", "bad")):
            shown = page.locator(f"#plot rect.{kind}").evaluate_all("(all) => all.map((e) => +e.dataset.number)")
            assert sum(shown) == scored["reviews"].count(said) > 0

        chosen = sorted(scored["scores_logit"])[len(scored["scores_logit"]) // 3]  # far lower: more are bad
        page.locator("#value").fill(f"{chosen:.4f}")
        (total, bad), (_, now) = (count_bad(scored, threshold) for threshold in (chosen, calibration.threshold_logit))
        assert bad > now
        lines = effects(page)
        assert lines[0] == f"Of {total} pictures of the last 7 days, {bad} would have been bad (now {now})."
        (good, alarms), (_, alarms_now) = (
            count_bad(scored, threshold, "good") for threshold in (chosen, calibration.threshold_logit)
        )
        assert f"Of {good} that people said are good, {alarms} would be called bad (now {alarms_now})." in lines
        expected = station.get("/v1/products/parts/threshold", preview=f"{chosen:.4f}")
        until(page, "#guarantee", f"Guarantee: {expected['guarantee']}.")
        assert expected["guarantee"] != calibration.guarantee()
        page.locator("#slider").focus()
        page.keyboard.press("ArrowRight")
        step = float(page.locator("#slider").get_attribute("step"))
        assert float(page.locator("#value").input_value()) == pytest.approx(chosen, abs=2 * step)
        assert float(page.locator("#value").input_value()) > chosen
        page.locator("#value").fill("")
        until(page, "#guarantee", WORDS["threshold.no_number"])
        assert page.locator("#set").is_disabled()
        check_looks(page, "threshold")

        page.locator("#value").fill(f"{chosen:.4f}")
        page.locator("#set:not([disabled])").click()
        until(page, "#set-guarantee", f"Guarantee: {expected['guarantee']}.")
        page.keyboard.press("Escape")
        assert station.get("/v1/products/parts/threshold")["set_by"] is None
        page.locator("#set").click()
        page.locator("#set-submit").click()
        expect(page.locator("#present")).to_contain_text("local set this threshold on ")
        set_now = station.get("/v1/products/parts/threshold")
        assert (set_now["threshold_logit"], set_now["set_by"]) == (float(f"{chosen:.4f}"), "local")
        assert effects(page)[0] == f"Of {total} pictures of the last 7 days, {bad} would have been bad (now {bad})."
        page.locator("#days").select_option("1")
        expect(page.locator("#effects")).to_contain_text(f"Of {total} pictures of the last day, ")

        page.locator("#back").click()
        until(page, "#set-guarantee", f"Guarantee: {calibration.guarantee()}.")
        page.locator("#set-submit").click()
        expect(page.locator("#back")).to_be_hidden()
        assert station.get("/v1/products/parts/threshold")["threshold_logit"] == calibration.threshold_logit


def test_pictures_are_tried_and_nothing_is_stored(browser, station, contents, tmp_path):
    def newest() -> str:
        return station.get("/v1/results", limit=1)["results"][0]["id"]

    station.inspect(contents["good"][0], name="before.png")
    before = newest()
    wanted = {}
    for verdict in VERDICTS:
        path = tmp_path / f"{verdict}.png"
        path.write_bytes(contents[verdict][0])
        answer = station.client.post("/v1/inspect?store=false", content=contents[verdict][0])
        wanted[verdict] = answer.json()["results"][0]
    Image.open(tmp_path / "good.png").save(tmp_path / "other.tif")
    (tmp_path / "broken.png").write_bytes(contents["good"][0][:99])
    files = [tmp_path / name for name in ("good.png", "unsure.png", "broken.png", "bad.png", "other.tif")]
    busy = {"status": 503, "headers": {"Retry-After": "1"}, "json": {"error": {"code": "busy", "message": "full"}}}
    refused = []

    def refuse_once(route) -> None:
        refused.append(route.request.url)
        route.fulfill(**busy)

    with Opened(browser, station, "/try", may="422|503|blob:") as page:
        until(page, "nav [aria-current]", WORDS["nav.try"])
        assert page.locator("#bar").is_hidden()
        page.route("**/v1/inspect?*", refuse_once, times=1)
        with page.expect_file_chooser() as chosen:
            page.locator("#choose").click()
        chosen.value.set_files(files)
        until(page, "article:nth-child(1) .state", WORDS["try.busy"])
        assert page.locator("article:nth-child(2) .state").text_content() == WORDS["try.waiting"]
        until(page, "#spoken", WORDS["try.done.other"].replace("{count}", "5"))
        assert len(refused) == 1
        cards = page.locator("#tried article")
        assert cards.locator("h2").all_text_contents() == [file.name for file in files]
        for verdict, place in (("good", 0), ("unsure", 1), ("bad", 3)):
            card = cards.nth(place)
            assert card.locator(".verdict-block").get_attribute("data-verdict") == verdict
            score = wanted[verdict]["score"]
            assert float(card.locator("dd").text_content()) == pytest.approx(score, abs=0.005)
            assert "of 100 good parts score this high" in card.text_content()
            assert card.locator(".heat").get_attribute("src") == wanted[verdict]["heat"]
            expect(card.locator(".photograph")).to_have_js_property("naturalWidth", 64)
            expect(card.locator(".heat")).not_to_have_js_property("naturalWidth", 0)
        error = station.client.post("/v1/inspect?store=false&name=broken.png", content=files[2].read_bytes())
        words = WORDS["error.unreadable"].replace("{message}", error.json()["error"]["message"])
        assert cards.nth(2).locator(".problem").text_content() == words
        assert cards.nth(4).locator(".verdict-block").get_attribute("data-verdict") == "good"
        until(page, "article:nth-child(5) .stage", WORDS["try.not_shown"].replace("{kind}", "TIFF"))
        assert newest() == before
        check_looks(page, "try")
        page.locator("#clear").click()
        assert cards.count() == 0
        assert page.evaluate("() => document.activeElement.id") == "choose"
        page.evaluate(
            """(content) => {
              const transfer = new DataTransfer();
              const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
              transfer.items.add(new File([bytes], "dropped.png"));
              const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
              document.body.dispatchEvent(new DragEvent("drop", options));
            }""",
            base64.b64encode(contents["bad"][0]).decode(),
        )
        expect(cards.locator(".verdict-block")).to_have_attribute("data-verdict", "bad")
        assert newest() == before
