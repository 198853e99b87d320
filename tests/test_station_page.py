"""The pages of a station in a browser: live, reviews, a lost connection, history, keyboard, languages, no outside."""

from __future__ import annotations

import base64
import io
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from report_case import Case, make_case, make_samples
from starlette.requests import Request
from station_process import StationProcess

from supersimplenet.evaluation.config import ThresholdConfig
from supersimplenet.station import pages
from supersimplenet.visualization.colours import CLEAR_BELOW, UNCALIBRATED, VERDICT_COLOURS, MapColours, blended

ASSETS = Path(pages.__file__).parent / "assets"
WORDS = json.loads((ASSETS / "texts" / "en.json").read_text(encoding="utf-8"))
VERDICTS = ("good", "unsure", "bad")
SOON_MS = 10_000
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A model with a grey zone, and pictures of all three verdicts."""
    folder = tmp_path_factory.mktemp("case")
    config = ThresholdConfig(max_false_alarms=0.25, max_escapes=0.25)
    return make_case(folder / "model", make_samples(folder / "data"), config=config)


@pytest.fixture(scope="module")
def contents(case) -> dict[str, list[bytes]]:
    found: dict[str, list[bytes]] = {verdict: [] for verdict in VERDICTS}
    for outcome in case.evaluation.outcomes:
        found[outcome.verdict].append(outcome.sample.image.read_bytes())
    assert all(found.values())
    return found


@pytest.fixture(scope="module")
def station(case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StationProcess]:
    with StationProcess(case.detector.folder, folder=tmp_path_factory.mktemp("station") / "station") as started:
        yield started


class Opened:
    """A page that remembers what must not happen on it."""

    def __init__(
        self, browser: Browser, station: StationProcess, path: str, *, may: str = "^$", others=(), **options
    ) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1400, "height": 900}, **options})
        self.page: Page = self.context.new_page()
        self.may = may
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.addresses = (station.address, *others, "data:", "blob:")
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.set_default_timeout(SOON_MS)
        self.page.goto(station.address + path)
        self.page.wait_for_selector("#language:enabled")  # from its script, which may come after the page

    def __enter__(self) -> Page:
        return self.page

    def __exit__(self, kind, *_: object) -> None:
        self.context.close()
        if kind is None:
            assert [text for text in self.complaints if not re.search(self.may, text)] == []
            assert all(url.startswith(self.addresses) for url in self.requests), self.requests


def until(page: Page, selector: str, text: str) -> None:
    expect(page.locator(selector)).to_have_text(text, timeout=SOON_MS)


def number(page: Page, name: str) -> int:
    return int(page.locator(f'[data-count="{name}"] dd').text_content().replace(",", ""))


def ids(page: Page) -> list[str]:
    return page.locator("#rows tbody tr").evaluate_all("(rows) => rows.map((row) => row.dataset.result)")


def paths_of_pages(station: StationProcess) -> dict[str, str]:
    newest = station.get("/v1/results", limit=1)["results"][0]["id"]
    return {
        "line": "/",
        "history": "/history",
        "result": f"/results/{newest}",
        "users": "/users",
        "review": "/review",
        "try": "/try",
        "models": "/models",
        "threshold": "/threshold",
        "health": "/health",
    }


def wait_for(page: Page, name: str) -> None:
    selectors = {
        "line": "#shift:not([hidden])",
        "history": "#rows tbody tr",
        "result": "#next:not([hidden])",
        "users": "#people:not([hidden])",
        "review": "#rates:not([hidden])",
        "try": "#drop",
        "models": "#models:not([hidden])",
        "threshold": "#plot svg",
        "health": "#health:not([hidden])",
    }
    page.wait_for_selector(selectors[name])


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_sent_picture_appears_without_reload(browser, station, contents, verdict):
    station.inspect(contents["good"][0], name="before.png")
    with Opened(browser, station, "/") as page:
        page.wait_for_selector("#strip li")
        page.evaluate("() => { window.isTheSame = true; }")
        for place, content in enumerate(contents[verdict][:2]):
            result = station.inspect(content, name=f"{verdict} {place}.png", part="lid 9")
            until(page, "#name", f"{verdict} {place}.png")
            block = page.locator("#verdict")
            assert (result["verdict"], block.get_attribute("data-verdict")) == (verdict, verdict)
            assert block.text_content() == WORDS[f"verdict.{verdict}"]
            red, green, blue = VERDICT_COLOURS[verdict]
            assert (
                block.evaluate("(block) => getComputedStyle(block).backgroundColor") == f"rgb({red}, {green}, {blue})"
            )
            assert block.locator("svg.mark").is_visible()
            first = page.locator("#strip li").first
            assert first.get_attribute("data-result") == result["id"]
            assert first.locator("button").get_attribute("aria-label").startswith(f"{WORDS[f'verdict.{verdict}']}, ")
            assert f"/v1/results/{result['id']}/view" in page.locator("#stage .photograph").get_attribute("src")
            page.wait_for_function("() => document.querySelector('#stage .photograph').naturalWidth === 64")
            page.wait_for_function("() => document.querySelector('#stage .heat').naturalWidth > 0")
            boxes = [d for d in result["defects"] if not d["below_threshold"]]
            rings = [d for d in result["defects"] if d["below_threshold"]]
            assert page.locator("#stage .boxes .region.over").count() == len(boxes)
            assert page.locator("#stage .boxes .ring.over").count() == len(rings)
            for shape, defect in zip(page.locator("#stage .boxes .core.over").all(), boxes, strict=True):
                assert [float(shape.get_attribute(name)) for name in ("x", "y", "width", "height")] == [
                    defect[f"outline_{name}"] for name in ("left", "top", "width", "height")
                ]
        assert page.evaluate("() => window.isTheSame")
        assert "lid 9" in page.locator("#facts").text_content()
        assert page.locator("#spoken").text_content() != ""
        page.get_by_role("button", name=WORDS["switch.heat"]).click()
        assert page.locator("#stage .heat").is_hidden()


def pixels_of(page: Page, selector: str) -> np.ndarray:
    """What is seen of an element, (H, W, 3)."""
    shot = page.locator(selector).screenshot(animations="disabled")
    return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)


def test_below_the_threshold_a_part_looks_as_it_was_photographed(browser, station, case):
    """A part whose map stays below the pixel threshold has no colour; one that reaches it has, there alone."""
    images = [outcome.sample.image for outcome in case.evaluation.outcomes]
    maps = {image: case.detector.predict(image) for image in images}
    reached = sorted(images, key=lambda image: maps[image].map_logit.max())
    for image in (reached[-1], reached[0]):
        sent = station.inspect(image.read_bytes(), name="clear.png")
        heat = Image.open(io.BytesIO(station.client.get(f"/v1/results/{sent['id']}/heat").content)).convert("RGBA")
        opacity = np.asarray(heat)[..., 3]
        is_hot = maps[image].map_logit >= maps[image].pixel_logit
        assert ((opacity > 0) == is_hot).all()
        assert is_hot.any() == (image == reached[-1])
        assert opacity[is_hot].min(initial=255) >= 0.6 * 255
    with Opened(browser, station, "/") as page:
        until(page, "#name", "clear.png")
        assert page.locator("#strip li").first.get_attribute("data-result") == sent["id"]
        page.wait_for_function("() => document.querySelector('#stage .heat').naturalWidth > 0")
        seen = pixels_of(page, "#stage")
        page.get_by_role("button", name=WORDS["switch.heat"]).click()
        assert (pixels_of(page, "#stage") == seen).all()
        assert page.locator("#legend").is_hidden()


@pytest.mark.parametrize("is_calibrated", [True, False])
def test_the_legend_shows_the_colours_of_the_map(browser, station, contents, is_calibrated):
    """As over a grey of a photograph; 16 of 255 come from the few colours of which the page's scale is made."""
    sent = station.inspect(contents["bad"][0], name="legend.png")
    table: MapColours = CLEAR_BELOW if is_calibrated else UNCALIBRATED
    wanted = blended(np.full((1, 256, 3), 128, np.uint8), np.arange(256, dtype=np.uint8)[None], table)[0].astype(int)
    kind = "calibrated" if is_calibrated else "open"
    with Opened(browser, station, "/") as page:
        if not is_calibrated:
            page.route("**/v1/results?*", lambda route: route.fulfill(json={"results": [sent | {"defects": None}]}))
            page.reload()
        until(page, "#legend .middle", WORDS[f"legend.{kind}.middle"])
        assert page.locator("#legend").get_attribute("aria-label") == WORDS[f"legend.{kind}"]
        for width in (1400, 390):
            page.set_viewport_size({"width": width, "height": 900})
            row = pixels_of(page, "#legend .scale")[5]
            for share in (0.05, 0.3, 0.47, 0.53, 0.7, 0.95):
                found = row[round(share * len(row))]
                assert np.abs(found - wanted[round(share * 255)]).max() <= 16, (width, share)
            scale, middle = (page.locator(f"#legend {part}").bounding_box() for part in (".scale", ".middle"))
            assert middle["x"] + middle["width"] / 2 == pytest.approx(scale["x"] + scale["width"] / 2, abs=2)
            stage = page.locator("#stage").bounding_box()
            assert 0 <= scale["y"] - stage["y"] - stage["height"] < 12


def test_a_picture_that_cannot_be_read_is_shown_large(browser, station, contents):
    station.inspect(contents["good"][0], name="before.png")
    with Opened(browser, station, "/") as page:
        until(page, "#name", "before.png")
        answer = station.client.post("/v1/inspect?name=broken.png&part=lid+3", content=contents["good"][0][:99])
        assert answer.status_code == 422
        until(page, "#name", "broken.png")
        until(page, "#verdict", WORDS["verdict.failed"])
        (result,) = station.get("/v1/results", limit=1)["results"]
        assert result["error"]["message"] in page.locator("#facts").text_content()
        until(page, "#stage", WORDS["picture.unreadable"])
        assert page.locator("#review").is_hidden()
        assert page.locator("#legend").is_hidden()
        until(page, '[data-count="failed"] dd', str(station.get("/v1/counts")["failed"]))
        check_looks(page, "failed")
        station.inspect(contents["good"][0], name="after.png")
        until(page, "#name", "after.png")
        assert page.locator("#review").is_visible()
        page.goto(f"{station.address}/results/{result['id']}")
        page.wait_for_selector("#facts .hash")
        assert result["error"]["message"] in page.locator("#decision").text_content()
        until(page, "#defects", WORDS["defects.failed"])
        page.goto(f"{station.address}/history?verdict=failed")
        page.wait_for_selector("#rows tbody tr")
        assert ids(page)[0] == result["id"]
        assert page.locator("tbody .badge").first.text_content() == WORDS["verdict.failed"]
        check_looks(page, "failed")


def test_one_word_fits_each_block(browser, station, contents):
    station.inspect(contents["unsure"][0], name="unsure.png")
    for width in (1400, 820, 390):
        with Opened(browser, station, "/", viewport={"width": width, "height": 900}) as page:
            until(page, "#verdict", WORDS["verdict.unsure"])
            block, word = (page.locator(name).bounding_box() for name in ("#verdict", "#verdict .word"))
            assert block["x"] < word["x"]
            assert word["x"] + word["width"] < block["x"] + block["width"] - 8
            assert word["height"] > 40


def test_an_empty_page_says_how_to_send_the_first_picture(browser, station):
    with Opened(browser, station, "/?product=nothing", may="404") as page:  # there is no such product
        page.wait_for_selector("#empty:not([hidden])")
        line = page.locator("#curl").text_content()
        assert f"'{station.address}/v1/inspect?name=picture.png&product=nothing'" in line
        assert line.startswith("curl -H 'Content-Type: image/png' --data-binary @picture.png")
        assert page.locator("#now").is_hidden()


def test_review_and_undo_change_the_counts(browser, station, contents):
    station.inspect(contents["good"][0], name="before.png")
    with Opened(browser, station, "/") as page:
        page.wait_for_selector("#shift:not([hidden])")
        for verdict, name in (("good", "missed"), ("unsure", "false_calls"), ("bad", "false_calls")):
            inspected, before = number(page, "inspected") + 1, number(page, name)
            result = station.inspect(contents[verdict][0], name=f"to review {verdict}.png")
            until(page, "#name", f"to review {verdict}.png")
            until(page, '[data-count="inspected"] dd', str(inspected))
            button = page.locator("#review .review-button")
            assert button.locator(".words").text_content() == WORDS["review." + name.rstrip("s").replace("_", "-")]
            page.wait_for_timeout(600)  # who presses sooner may have meant the part before
            button.click()
            until(page, f'[data-count="{name}"] dd', str(before + 1))
            found = station.get(f"/v1/results/{result['id']}")["review"]
            assert (found["verdict"], found["by"]) == ("bad" if verdict == "good" else "good", "local")
            assert page.locator("#strip .reviewed").first.text_content() in WORDS.values()
            button.click(force=True)  # once more changes nothing: a glove presses twice
            assert station.get(f"/v1/results/{result['id']}")["review"] == found
            page.get_by_role("button", name=WORDS["review.undo"]).click()
            until(page, f'[data-count="{name}"] dd', str(before))
            assert station.get(f"/v1/results/{result['id']}")["review"] is None
            assert number(page, "inspected") == inspected


def test_a_review_is_seen_on_other_screens(browser, station, contents):
    older = station.inspect(contents["bad"][0], name="older.png", part="lot 3")
    result = station.inspect(contents["bad"][1], name="both see.png", part="lot 3")
    with (
        Opened(browser, station, "/") as one,
        Opened(browser, station, "/") as other,
        Opened(browser, station, f"/results/{result['id']}") as alone,
    ):
        for page in (one, other):
            until(page, "#name", "both see.png")
            page.wait_for_selector("#shift:not([hidden])")
        alone.wait_for_selector("#part-box:not([hidden])")
        before = number(one, "false_calls")
        one.locator("#review .review-button").click()
        said = WORDS["review.said.false-call"].replace("{name}", "both see.png").partition("{time}")[0]
        for page in (other, alone):
            expect(page.locator("#review .review-button")).to_have_attribute("aria-pressed", "true", timeout=SOON_MS)
            expect(page.locator("#review .note").first).to_contain_text(said)
            assert page.locator("#review .undo").is_visible()
        until(other, "#strip li:first-child .reviewed", WORDS["review.short.false-call"])
        until(alone, "#photographs .reviewed", WORDS["review.short.false-call"])
        for page in (one, other):
            until(page, '[data-count="false_calls"] dd', str(before + 1))
        alone.locator("#review .undo").click()
        until(alone, "#review .note >> nth=0", WORDS["review.taken_back"])
        for page in (one, other):
            expect(page.locator("#review .undo")).to_be_hidden(timeout=SOON_MS)
            until(page, "#review .note >> nth=0", "")
            until(page, '[data-count="false_calls"] dd', str(before))
            expect(page.locator("#strip li").first.locator(".reviewed")).to_have_count(0)
        other.keyboard.press("ArrowRight")  # one that is held and not the newest
        until(other, "#name", "older.png")
        station.client.post(f"/v1/results/{older['id']}/review", json={"verdict": "good"})
        expect(other.locator("#review .undo")).to_be_visible(timeout=SOON_MS)
        assert (other.locator("#name").text_content(), one.locator("#name").text_content()) == (
            "older.png",
            "both see.png",
        )
        station.client.post(f"/v1/results/{older['id']}/review", json={"verdict": None})
        expect(other.locator("#review .undo")).to_be_hidden(timeout=SOON_MS)


def test_a_page_that_is_not_seen_does_not_listen_and_catches_up(browser, station, contents):
    """A browser has six connections to a station; pages behind others would take them all."""
    hide = """(isHidden) => {
      Object.defineProperty(document, "hidden", { configurable: true, get: () => isHidden });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    result = station.inspect(contents["bad"][0], name="seen.png")
    with Opened(browser, station, "/") as page:
        until(page, "#name", "seen.png")
        with page.expect_event("requestfailed", lambda request: request.url.endswith("/v1/events")):
            page.evaluate(hide, True)
        station.client.post(f"/v1/results/{result['id']}/review", json={"verdict": "good"})
        station.inspect(contents["good"][0], name="unseen.png")
        page.wait_for_timeout(200)
        assert page.locator("#name").text_content() == "seen.png"
        page.evaluate(hide, False)
        until(page, "#name", "unseen.png")
        until(page, "#strip li:nth-child(2) .reviewed", WORDS["review.short.false-call"])
        expect(page.locator("#lost")).to_have_count(0)


def test_who_presses_as_a_part_changes_marks_neither(browser, station, contents):
    first = station.inspect(contents["bad"][0], name="first.png")
    with Opened(browser, station, "/") as page:
        until(page, "#name", "first.png")
        box = page.locator("#review .review-button").bounding_box()
        page.evaluate("""() => new MutationObserver((_, observer) => {
            if (document.getElementById("name").textContent !== "second.png") return;
            observer.disconnect();
            const button = document.querySelector("#review .review-button");
            button.dispatchEvent(new PointerEvent("pointerdown"));
            button.click();
        }).observe(document.getElementById("facts"), { childList: true })""")
        second = station.inspect(contents["bad"][1], name="second.png")
        until(page, "#name", "second.png")
        until(page, "#review .note >> nth=0", WORDS["review.too_soon"])
        assert [station.get(f"/v1/results/{r['id']}")["review"] for r in (first, second)] == [None, None]
        assert box["height"] >= 72  # for gloves


def test_a_click_holds_a_part_and_escape_lets_go(browser, station, contents):
    results = [station.inspect(contents["good"][0], name=f"held {place}.png") for place in range(4)]
    with Opened(browser, station, "/") as page:
        until(page, "#name", "held 3.png")
        page.locator("#strip button").nth(1).click()
        until(page, "#name", "held 2.png")
        assert page.locator("#live-again").is_visible()
        station.inspect(contents["bad"][0], name="newer.png")
        until(page, "#held-text", WORDS["line.held.other"].replace("{count}", "2"))
        assert page.locator("#name").text_content() == "held 2.png"
        page.keyboard.press("ArrowRight")
        until(page, "#name", "held 1.png")
        pressed = page.locator('#strip [aria-pressed="true"]')
        assert pressed.evaluate("(button) => button.parentElement.dataset.result") == results[1]["id"]
        for _ in range(2):
            page.keyboard.press("ArrowLeft")
        until(page, "#name", "held 3.png")
        page.keyboard.press("Escape")
        until(page, "#name", "newer.png")
        assert page.locator("#held").is_hidden()
        page.keyboard.press("ArrowRight")
        page.locator("#live-again").click()
        until(page, "#name", "newer.png")


def test_a_killed_station_shows_a_sign_and_heals(browser, station, contents):
    station.inspect(contents["good"][0], name="before the end.png")
    with Opened(browser, station, "/", may="ERR_|404|503") as page:
        until(page, "#name", "before the end.png")
        expect(page.locator("#lost")).to_have_count(0)
        station.kill()
        sign = page.locator("#lost")
        sign.wait_for(timeout=3000)
        assert re.fullmatch(WORDS["lost"].replace("{time}", r"\d\d:\d\d"), sign.text_content())
        assert sign.get_attribute("role") == "alert"
        assert sign.bounding_box()["height"] > 50
        station.start()
        station.inspect(contents["bad"][0], name="after it.png")
        until(page, "#name", "after it.png")
        expect(sign).to_have_count(0)


def test_a_silent_death_is_noticed_and_heals(browser, station, contents):
    with Opened(browser, station, "/", may="ERR_") as page:
        page.wait_for_selector("#strip li")
        page.clock.install()
        page.reload()
        page.wait_for_selector("#shift:not([hidden])", state="attached")
        page.wait_for_selector("#strip li")
        expect(page.locator("#lost")).to_have_count(0)
        station.process.send_signal(signal.SIGSTOP)  # the connection stays; nothing comes
        try:
            page.clock.run_for(27_000)
            page.locator("#lost").wait_for()
        finally:
            station.process.send_signal(signal.SIGCONT)
        page.clock.run_for(6_000)
        expect(page.locator("#lost")).to_have_count(0, timeout=SOON_MS)


def test_signs_of_the_status_are_shown_large(browser, station):
    with Opened(browser, station, "/") as page:
        signs = [{"code": "disk", "text": "12 MiB of the disk are free."}, {"code": "new", "text": "Something else."}]
        status = station.get("/v1/status") | {"signs": signs}
        page.route("**/v1/status", lambda route: route.fulfill(json=status))
        page.wait_for_selector(".sign")
        texts = page.locator(".sign").all_text_contents()
        assert texts == [f"{WORDS['sign.disk']} {signs[0]['text']}", f"{WORDS['sign.unknown']} {signs[1]['text']}"]


@pytest.fixture(scope="module")
def many(station, contents) -> list[dict]:
    """More results than a page of the history shows, from two parts and of all verdicts."""
    images = []
    for place in range(60):
        content = contents[VERDICTS[place % 3]][place // 3 % len(contents[VERDICTS[place % 3]])]
        encoded = base64.b64encode(content).decode()
        images.append({"name": f"{place:02}.png", "part": f"plate {place % 2}", "content": encoded})
    found: list[dict] = station.client.post("/v1/inspect", json={"images": images}).json()["results"]
    assert [result["id"] for result in found] == sorted(result["id"] for result in found)
    return found


def test_filters_and_the_address_agree(browser, station, many):
    since = many[0]["taken_at"].replace("Z", "+00:00")
    with Opened(browser, station, f"/history?since={since.replace('+', '%2B')}") as page:
        page.wait_for_selector("#rows tbody tr")
        assert ids(page) == [result["id"] for result in reversed(many)][:50]
        page.locator("#more").click()
        expect(page.locator("#rows tbody tr")).to_have_count(60)
        assert ids(page) == [result["id"] for result in reversed(many)]
        assert page.locator("#more").is_hidden()
        page.locator("#verdict").select_option("bad")
        bad = [result["id"] for result in many if result["verdict"] == "bad"]
        expect(page.locator("#rows tbody tr")).to_have_count(len(bad))
        assert ids(page) == bad[::-1]
        page.locator("#part").fill("plate 1")
        page.locator("#order").select_option("worst")
        wanted = station.get("/v1/results", since=since, verdict="bad", part="plate 1", order="worst")["results"]
        expect(page.locator("#rows tbody tr")).to_have_count(len(wanted))
        page.wait_for_function(
            "(first) => document.querySelector('tbody tr').dataset.result === first", arg=wanted[0]["id"]
        )
        assert ids(page) == [result["id"] for result in wanted]
        scores = [result["score_logit"] for result in wanted]
        assert scores == sorted(scores, reverse=True)
        asked = {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}
        assert asked == {"since": since, "verdict": "bad", "part": "plate 1", "order": "worst"}
        for kind in ("csv", "parquet", "zip"):
            link = urlsplit(page.locator(f"#export-{kind}").get_attribute("href"))
            assert link.path == f"/v1/results.{kind}"
            assert {n: v[0] for n, v in parse_qs(link.query).items()} == {k: asked[k] for k in asked if k != "order"}
        table = httpx.get(station.address + page.locator("#export-csv").get_attribute("href")).text
        assert len(table.splitlines()) == 1 + len(wanted)
        assert str(len(wanted)) in page.locator("#found").text_content()
        with Opened(browser, station, page.url.removeprefix(station.address)) as other:  # as one who got the address
            other.wait_for_selector("#rows tbody tr")
            assert ids(other) == ids(page)
            values = [other.locator(f"#{name}").input_value() for name in ("verdict", "part", "order")]
            assert values == ["bad", "plate 1", "worst"]
            assert other.locator("#since").input_value() == since[:16]
        page.go_back()
        page.wait_for_function("(count) => document.querySelectorAll('tbody tr').length === count", arg=len(wanted))
        assert page.locator("#order").input_value() == ""
        page.locator("#clear").click()
        page.wait_for_function("() => location.search === ''")
        assert page.locator("#since").input_value() == page.locator("#part").input_value() == ""


def test_a_time_of_the_form_is_that_of_the_zone(browser, station, many):
    with Opened(browser, station, "/history", timezone_id="Asia/Tokyo") as page:
        page.wait_for_selector("#rows tbody tr")
        page.locator("#until").fill("2020-05-01T09:30")
        page.wait_for_function("() => location.search === '?until=2020-05-01T00%3A30%3A00Z'")
        until(page, "#found", WORDS["found.none"])
        assert page.locator("#rows tbody tr").count() == 0
        assert page.locator("#exports").is_hidden()


def test_two_parts_side_by_side(browser, station, many):
    with Opened(browser, station, "/history") as page:
        for place in (0, 1, 2):  # the third takes the place of the first
            page.locator("tbody input").nth(place).check()
        assert page.locator("tbody input:checked").count() == 2
        page.locator("#compare-open").click()
        page.wait_for_selector("#compare[open]")
        shown = page.locator("#compare .photograph").evaluate_all("(all) => all.map((image) => image.src)")
        assert [address.split("/")[5] for address in shown] == ids(page)[1:3]
        heats = page.locator("#compare .heat")
        expect(heats).to_have_count(2)
        page.locator("#compare").get_by_role("button", name=WORDS["switch.heat"]).click()
        assert [heats.nth(place).is_visible() for place in (0, 1)] == [False, False]
        page.keyboard.press("Escape")
        assert page.locator("#compare").is_hidden()
        assert page.evaluate("() => document.activeElement.id") == "compare-open"


def test_the_page_of_a_result(browser, station, contents):
    both = [
        station.inspect(content, name="side.png", part="lot 7/9")
        for content in (contents["good"][0], contents["bad"][0])
    ]
    facts = station.get(f"/v1/models/{both[1]['model']}")["facts"]
    with Opened(browser, station, f"/results/{both[1]['id']}") as page:
        page.wait_for_selector("#facts .hash")
        decision = page.locator("#decision").text_content()
        assert facts["guarantee"] in decision
        assert "threshold 0.5" in decision
        rows = page.locator("#defects tbody tr")
        assert rows.count() == len(both[1]["defects"])
        cells = rows.first.locator("td").all_text_contents()
        defect = both[1]["defects"][0]
        assert cells[:2] == [
            f"{defect['left']}, {defect['top']}",
            f"{defect['width']} \N{MULTIPLICATION SIGN} {defect['height']}",
        ]
        for text in (both[1]["model"], both[1]["picture"]["sha256"], facts["computed_by"], facts["version"]):
            assert text in page.locator("#facts").text_content()
        sent = httpx.get(station.address + page.locator("#picture").get_attribute("href"))
        assert sent.content == contents["bad"][0]
        page.wait_for_selector("#part-box:not([hidden])")
        assert page.locator("#part-title").text_content() == WORDS["result.part"].replace("{part}", "lot 7/9")
        assert WORDS["verdict.bad"] in page.locator("#part-verdict").text_content()
        links = page.locator("#photographs a").evaluate_all("(all) => all.map((link) => link.pathname)")
        assert links == [f"/results/{result['id']}" for result in both]
        page.locator("#next").click()
        page.wait_for_url(f"**/results/{both[0]['id']}")
        page.wait_for_selector("#previous:not([hidden])")
        page.keyboard.press("ArrowLeft")
        page.wait_for_url(f"**/results/{both[1]['id']}")
    with Opened(browser, station, f"/results/{'0' * 32}", may="404") as page:
        until(page, "#problem", WORDS["error.result"])


def test_how_rare_a_score_is_says_no_more_than_the_calibration_knows(browser, station, contents, case):
    parts = case.detector.calibration.parts
    found = [station.inspect(content, name="rare.png") for content in (*contents["good"], *contents["bad"])]
    lowest, usual = (choose(found, key=lambda result: result["p_value"]) for choose in (min, max))
    most, number = -(-100 // (parts + 1)), round(100 * usual["p_value"])
    assert (parts, lowest["p_value"]) == (24, 1 / 25)
    assert number > most
    said = f"At most {most} of 100 good parts score this high: none of the {parts} good parts that"
    for result, words in ((lowest, said), (usual, f"About {number} of 100 good parts score this high or higher.")):
        with Opened(browser, station, f"/results/{result['id']}") as page:
            page.wait_for_selector("#decision .guarantee")
            assert words in page.locator("#decision").text_content()


def test_previous_and_next_follow_the_list(browser, station, many):
    with Opened(browser, station, "/history?order=worst&part=plate+0") as page:
        page.wait_for_selector("#rows tbody tr")
        listed = ids(page)
        page.locator("a.open").nth(1).click()
        page.wait_for_url(f"**/results/{listed[1]}?*")
        for name, place in (("next", 2), ("previous", 1), ("previous", 0)):
            page.locator(f"#{name}:not([hidden])").click()
            page.wait_for_url(f"**/results/{listed[place]}?*")
        page.wait_for_selector("#next:not([hidden])")
        assert page.locator("#previous").is_hidden()
        page.locator("#back").click()
        page.wait_for_url("**/history?part=plate+0&order=worst")


def test_what_comes_from_outside_is_text(browser, station, contents):
    name = "<img src=x onerror=window.wasHit=1>"
    result = station.inspect(contents["bad"][0], name=name, part=f"{name} part")
    for path, selector in (("/", "#name"), ("/history", "a.open"), (f"/results/{result['id']}", "#name")):
        with Opened(browser, station, path) as page:
            page.wait_for_selector(selector)
            assert page.locator(selector).first.text_content() == name
            page.wait_for_timeout(100)
            assert page.evaluate("() => window.wasHit") is None
            assert page.locator('img[src="x"]').count() == 0


FOCUS = """() => {
  const own = document.activeElement;
  const style = getComputedStyle(own);
  own.dataset.reached = "yes";
  return [own.tagName, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
}"""
UNREACHED = """() => [...document.querySelectorAll("a[href], button, input, select, [tabindex='0']")]
  .filter((e) => e.checkVisibility({ visibilityProperty: true }) && !e.disabled && e.tabIndex >= 0)
  .filter((e) => !e.dataset.reached)
  .map((e) => e.outerHTML.slice(0, 120))"""


@pytest.mark.parametrize(
    "name", ["line", "history", "result", "users", "review", "try", "models", "threshold", "health"]
)
def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser, station, many, name):
    with Opened(browser, station, paths_of_pages(station)[name]) as page:
        wait_for(page, name)
        if name == "history":
            page.evaluate("() => [0, 1].forEach((place) => document.querySelectorAll('tbody input')[place].click())")
        seen = 0
        for _ in range(250):
            page.keyboard.press("Tab")
            tag, is_visible = page.evaluate(FOCUS)
            if tag == "BODY":
                break
            assert is_visible, tag
            seen += 1
        assert page.evaluate(UNREACHED) == []
        assert seen > (5 if name in ("users", "health") else 8)


CONTRAST = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
  const ground = (element) => {
    for (let own = element; own; own = own.parentElement) {
      const found = channels(getComputedStyle(own).backgroundColor);
      if (found.length === 3 || found[3] > 0.7) return found;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    const [a, b] = [channels(getComputedStyle(element).color), ground(element)].map(light).sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push([element.textContent.slice(0, 40), ratio]);
  }
  return poor;
}"""


def check_looks(page: Page, name: str) -> None:
    for width in (390, 820, 1400):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width, (name, width)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(CONTRAST) == [], (name, scheme)


def test_contrast_and_no_sideways_scrolling(browser, station, many):
    for name, path in paths_of_pages(station).items():
        with Opened(browser, station, path) as page:
            wait_for(page, name)
            if name == "history":
                page.locator("tbody input").first.check()
            elif name == "line":
                page.keyboard.press("ArrowRight")
                page.wait_for_selector("#held:not([hidden])")
            check_looks(page, name)


def test_light_and_dark_by_hand_is_kept(browser, station, many):
    background = "() => getComputedStyle(document.body).backgroundColor"
    with Opened(browser, station, "/history", color_scheme="light") as page:
        page.wait_for_selector("#rows tbody tr")
        by_system = page.evaluate(background)
        for _ in range(2):
            page.locator("#theme").click()  # light, then dark
        assert page.locator("#theme").get_attribute("aria-label") == "Theme: dark"
        dark = page.evaluate(background)
        assert dark != by_system
        page.goto(station.address + "/")
        assert page.evaluate(background) == dark


def test_a_screen_reader_finds_names_and_order(browser, station, many):
    for name, path in paths_of_pages(station).items():
        with Opened(browser, station, path) as page:
            wait_for(page, name)
            found = page.evaluate("""() => {
              const all = (selector) => [...document.querySelectorAll(selector)];
              const named = (e) => e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim();
              const seen = all("a[href], button, input, select").filter((e) => !e.closest("[aria-hidden=true]"));
              const ids = all("[id]").map((e) => e.id);
              return {
                language: document.documentElement.lang, main: all("main").length, ones: all("h1").length,
                banner: all("body > header").length, navigation: all("nav[aria-label]").length,
                unnamed: seen.filter((e) => e.checkVisibility() && !named(e)).map((e) => e.outerHTML),
                images: all("img:not([alt])").length, twice: ids.length - new Set(ids).size,
                heads: all("th:not([scope])").length, tables: all("table").filter((t) => !t.caption).length,
                unlabelled: all("[data-text]").filter((e) => !e.textContent).length,
                lost: all("[aria-labelledby]").map((e) => e.getAttribute("aria-labelledby"))
                  .filter((id) => !document.getElementById(id)),
              };
            }""")
        assert (found.pop("language"), found.pop("main"), found.pop("ones"), found.pop("banner")) == ("en", 1, 1, 1)
        assert found.pop("navigation") >= 1
        assert {key: value for key, value in found.items() if value} == {}, name


def test_parts_after_parts_are_not_all_spoken(browser, station, contents):
    station.inspect(contents["good"][0], name="quiet 0.png")
    with Opened(browser, station, "/") as page:
        until(page, "#name", "quiet 0.png")
        page.wait_for_selector("#spoken:not(:empty)", state="attached")
        page.evaluate("""() => { window.spoken = [];
          new MutationObserver(() => window.spoken.push(document.getElementById("spoken").textContent))
            .observe(document.getElementById("spoken"), { childList: true }); }""")
        for place in range(1, 4):
            station.inspect(contents["good"][place % 2], name=f"quiet {place}.png")
        until(page, "#name", "quiet 3.png")
        assert page.evaluate("() => window.spoken") == []


def test_only_what_browsers_need_is_served(station):
    for name in ("line.html", "base.html", "texts/", "", "../pages.py", "%2e%2e/pages.py", "texts/xx.json"):
        assert station.client.get(f"/assets/{name}").status_code == 404, name
    kinds = {
        "line.js": "text/javascript",
        "base.css": "text/css",
        "texts/en.json": "application/json",
        "icon.svg": "image/svg",
    }
    for name, kind in kinds.items():
        answer = station.client.get(f"/assets/{name}")
        assert answer.headers["Content-Type"].startswith(kind)
        assert answer.headers["Cache-Control"] == "no-cache"
        again = station.client.get(f"/assets/{name}", headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
    for path in (
        "/",
        "/history",
        "/review",
        "/try",
        "/models",
        "/threshold",
        "/health",
        "/users",
        "/login",
        f"/results/{'0' * 32}",
    ):
        shell = station.client.get(path)
        assert shell.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in shell.headers["Content-Security-Policy"]


def test_login_leads_back_and_only_to_own_pages(browser, station, contents):
    """From here on everybody needs to log in."""
    result = station.inspect(contents["bad"][0], name="mine.png")
    with Opened(browser, station, "/login?next=/history") as page:  # without users nobody needs to log in
        page.wait_for_url("**/history")
        page.wait_for_selector("#rows tbody tr")
        assert page.locator("#logout").is_hidden()
    with Opened(browser, station, "/users", may="401") as page:
        page.wait_for_selector("#open-note:not([hidden])")
        assert page.locator("#machines").is_hidden()
        page.locator("#add-user").click()
        assert page.locator("#user-role option").all_text_contents() == ["admin"]
        filled(page, "user", name="anna", password=PASSWORD, again=PASSWORD)
        page.wait_for_url("**/login?next=%2Fusers")
    with Opened(browser, station, "/login", may="401") as page:  # before its script is there, nothing can be sent
        page.route("**/assets/login.js", lambda route: None)
        page.goto(f"{station.address}/login", wait_until="commit")
        expect(page.locator("#login button")).to_be_disabled()
        expect(page.locator("#language")).to_be_disabled()
        page.locator("#password").press("Enter")
        assert page.url == f"{station.address}/login"
    with Opened(browser, station, "/history?verdict=bad&part=x", may="401") as page:
        page.wait_for_url("**/login?next=*")
        page.locator("#name").fill("anna")
        page.locator("#password").fill("not this one at all")
        page.locator("#login button").click()
        until(page, "#problem", WORDS["login.wrong"])
        page.locator("#password").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/history?verdict=bad&part=x")
        until(page, "#who", "anna (admin)")
        page.goto(station.address + "/")
        page.locator("#review .review-button").click()  # with the session's token against other sites
        page.wait_for_selector("#review .undo:not([hidden])")
        headers = {"Cookie": "; ".join(f"{c['name']}={c['value']}" for c in page.context.cookies())}
        found = httpx.get(f"{station.address}/v1/results/{result['id']}", headers=headers).json()
        assert (found["review"]["verdict"], found["review"]["by"]) == ("good", "anna")
        for wanted in ("//example.com", "/\\example.com", "javascript:alert(1)"):
            page.goto(f"{station.address}/login?next={wanted}")
            page.wait_for_url(f"{station.address}/")
        page.wait_for_selector("#logout:not([hidden])")
        page.locator("#logout").click()
        page.wait_for_url("**/login")
        assert page.context.cookies() == []


@pytest.fixture(scope="module")
def guarded(station) -> StationProcess:
    """The station, which has users from here on: anna is admin."""
    user = {"name": "anna", "role": "admin", "password": PASSWORD}
    assert station.client.post("/v1/users", json=user).status_code in (201, 401)
    log_in_by(station.client, "anna")
    return station


def log_in_by(client: httpx.Client, name: str) -> None:
    me = client.post("/v1/login", json={"name": name, "password": PASSWORD}).json()
    client.headers["X-CSRF-Token"] = me["csrf"]


def log_in(page: Page, name: str, to: str = "/") -> None:
    page.wait_for_url("**/login*")
    page.locator("#name").fill(name)
    page.locator("#password").fill(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{to}")
    page.wait_for_selector("#who:not([hidden])")


def test_a_stream_ends_with_its_session(browser, guarded, contents):
    """Log out, and the other pages of this session show the login; another session goes on until its user may not."""
    user = {"name": "bert", "role": "operator", "password": PASSWORD}
    assert guarded.client.post("/v1/users", json=user).status_code == 201
    token = guarded.client.post("/v1/tokens", json={"name": "line-2", "role": "operator"}).json()["token"]
    with (
        httpx.stream(
            "GET", f"{guarded.address}/v1/events", headers={"Authorization": f"Bearer {token}"}, timeout=30
        ) as by_token,
        Opened(browser, guarded, "/", may="401") as anna,
        Opened(browser, guarded, "/", may="401") as bert,
    ):
        log_in(anna, "anna")
        log_in(bert, "bert")
        second = anna.context.new_page()
        second.goto(guarded.address)
        second.wait_for_selector("#now:not([hidden])")
        bert.wait_for_selector("#now:not([hidden])")
        anna.locator("#logout").click()
        anna.wait_for_url("**/login")
        second.wait_for_url("**/login?next=%2F", timeout=SOON_MS)
        guarded.inspect(contents["bad"][0], name="for bert.png")
        until(bert, "#name", "for bert.png")
        assert guarded.client.patch("/v1/users/bert", json={"disabled": True}).status_code == 200
        bert.wait_for_url("**/login?next=%2F", timeout=SOON_MS)
        assert guarded.client.delete("/v1/tokens/line-2").status_code == 204
        lines = list(by_token.iter_lines())
        assert [line for line in lines if line.startswith("event")][-1] == "event: ended"
        names = [json.loads(line[6:]).get("name") for line in lines if line.startswith("data")]
        assert "for bert.png" in names


def filled(page: Page, form: str, **values: str) -> None:
    """Fill a dialog of the page Users, and send it."""
    for name, value in values.items():
        field = page.locator(f"#{form}-{name}")
        if field.evaluate("(field) => field.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)
    page.locator(f"#{form}-form [type=submit]").click()


def test_an_admin_adds_and_changes_users(browser, guarded):
    row = {name: f'#users [data-user="{name}"]' for name in ("anna", "dora")}
    with (
        Opened(browser, guarded, "/users", may="401|403|409") as page,
        Opened(browser, guarded, "/history", may="401|403") as other,
    ):
        log_in(page, "anna", "/users")
        wait_for(page, "users")
        assert page.locator("nav [aria-current]").text_content() == WORDS["nav.users"]
        page.locator("#add-user").click()
        new = {"name": "dora", "role": "engineer", "password": PASSWORD}
        filled(page, "user", **new, again="another password")
        until(page, "#user-dialog .problem", WORDS["users.password.differ"])
        assert page.evaluate("() => document.activeElement.id") == "user-again"
        filled(page, "user", name="anna", again=PASSWORD)
        expect(page.locator("#user-dialog .problem")).to_have_text(WORDS["error.exists"])
        filled(page, "user", name="dora")
        expect(page.locator("#user-dialog")).to_be_hidden()
        until(page, "#done", WORDS["users.added"].replace("{name}", "dora"))
        assert page.locator(f"{row['dora']} td").all_text_contents()[:3] == ["dora", "engineer", "Active"]
        assert page.evaluate("() => document.activeElement.id") == "add-user"
        assert page.locator("#user-password").input_value() == ""

        log_in(other, "dora", "/history")
        assert other.locator("#to-users").is_hidden()
        other.goto(f"{guarded.address}/users")
        until(other, "#problem", WORDS["error.forbidden"])
        assert other.locator("#people").is_hidden()

        page.locator(f"{row['dora']} button").click()
        assert page.locator("#user-role").input_value() == "engineer"
        before = guarded.get("/v1/audit/head")["number"]
        filled(page, "user")  # nothing was changed, so nothing is sent
        until(page, "#done", WORDS["users.unchanged"].replace("{name}", "dora"))
        assert guarded.get("/v1/audit/head")["number"] == before
        page.locator(f"{row['dora']} button").click()
        page.locator("#user-disabled").check()
        filled(page, "user", role="operator")
        until(page, "#done", WORDS["users.changed"].replace("{name}", "dora"))
        assert page.locator(f"{row['dora']} td").all_text_contents()[:3] == ["dora", "operator", "Disabled"]
        assert page.evaluate("() => document.activeElement.closest('tr').dataset.user") == "dora"
        (dora,) = (user for user in guarded.get("/v1/users") if user["name"] == "dora")
        assert (dora["role"], dora["disabled"]) == ("operator", True)
        page.locator(f"{row['anna']} button").click()
        filled(page, "user", role="engineer")
        expect(page.locator("#user-dialog .problem")).to_have_text(WORDS["error.last_admin"])
        check_looks(page, "user")
        page.keyboard.press("Escape")

        cells = [f"{WORDS['audit.what.change_user']}", "user: dora", "role: operator", "disabled: yes"]
        entry = page.locator("#entries tbody tr").first
        assert [entry.locator(".of-what").text_content(), *entry.locator(".detail").all_text_contents()] == cells
        taken = guarded.get("/v1/audit", limit=1)["entries"][0]
        assert int(entry.locator(".of-number").text_content()) == taken["number"]

        page.locator(f"{row['anna']} button").click()  # a new password of one's own ends one's session
        filled(page, "user", password="staple battery horse", again="staple battery horse", old="not this one at all")
        expect(page.locator("#user-dialog .problem")).to_have_text(WORDS["error.wrong_password"])
        filled(page, "user", password=PASSWORD, again=PASSWORD, old=PASSWORD)
        page.wait_for_url("**/login?next=%2Fusers")
    log_in_by(guarded.client, "anna")


def test_an_admin_adds_and_revokes_tokens_and_reads_the_trail(browser, guarded, contents):
    with Opened(browser, guarded, "/users", may="401", permissions=["clipboard-read", "clipboard-write"]) as page:
        log_in(page, "anna", "/users")
        wait_for(page, "users")
        page.locator("#add-token").click()
        filled(page, "token", name="line-7", role="operator")
        page.wait_for_selector("#shown-dialog[open]")
        token = page.locator("#shown-token").input_value()
        page.locator("#copy").click()
        until(page, "#copied", WORDS["tokens.copied"])
        assert page.evaluate("() => navigator.clipboard.readText()") == token
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{guarded.address}/v1/me", headers=headers).json()["name"] == "token:line-7"
        page.locator("#shown-form [type=submit]").click()
        until(page, '#tokens [data-token="line-7"] .of-role', "operator")
        assert page.locator("#shown-token").input_value() == ""
        assert token not in page.content()
        page.locator('#tokens [data-token="line-7"] button').click()
        until(page, "#revoke-title", WORDS["tokens.revoke.ask"].replace("{name}", "line-7"))
        page.locator("#revoke-form [type=submit]").click()
        until(page, "#done", WORDS["tokens.revoked"].replace("{name}", "line-7"))
        assert page.locator('#tokens [data-token="line-7"]').count() == 0
        assert httpx.get(f"{guarded.address}/v1/me", headers=headers).status_code == 401

        result = guarded.inspect(contents["bad"][0], name="trail.png")
        for place in range(30):
            body = {"verdict": "good" if place % 2 else None}
            guarded.client.post(f"/v1/results/{result['id']}/review", json=body).raise_for_status()
        page.reload()
        wait_for(page, "users")
        count = guarded.get("/v1/audit/head")["number"]
        numbers = page.locator("#entries .of-number")
        assert numbers.all_text_contents() == [str(count - place) for place in range(20)]
        link = page.locator("#entries .detail a").first
        assert link.get_attribute("href") == f"/results/{result['id']}"
        for shown in range(40, count + 20, 20):
            page.locator("#older").click()
            expect(numbers).to_have_count(min(shown, count))
        assert numbers.all_text_contents() == [str(count - place) for place in range(count)]
        assert page.locator("#older").is_hidden()
        check_looks(page, "users")
        assert page.evaluate("() => document.activeElement.tagName") == "TR"


@pytest.mark.slow
def test_a_login_at_one_station_leaves_that_at_another_on_the_same_host(browser, guarded, case, tmp_path):
    with (
        StationProcess(case.detector.folder, folder=tmp_path / "station") as other,
        Opened(browser, guarded, "/history", may="401", others=[other.address]) as page,
    ):
        user = {"name": "carl", "role": "admin", "password": PASSWORD}
        assert other.client.post("/v1/users", json=user).status_code == 201
        log_in(page, "anna", "/history")
        page.goto(other.address)
        log_in(page, "carl")
        page.goto(f"{guarded.address}/history")
        until(page, "#who", "anna (admin)")
        page.goto(other.address)
        until(page, "#who", "carl (admin)")
        page.locator("#logout").click()
        page.wait_for_url(f"{other.address}/login")
        page.goto(f"{guarded.address}/history")
        until(page, "#who", "anna (admin)")
        ports = [station.address.rpartition(":")[2] for station in (guarded, other)]
        assert [cookie["name"] for cookie in page.context.cookies()] == [f"station-{ports[0]}"]


@pytest.mark.parametrize(
    ("query", "header", "language"),
    [
        ("", "", "en"),
        ("", "de-AT,de;q=0.9,en;q=0.5", "de"),
        ("", "fr, en;q=0.8, de;q=0.9", "de"),
        ("", "de;q=0, fr", "en"),
        ("", "de;q=..., \0, ;;;", "en"),
        ("lang=de", "en", "de"),
        ("lang=../de", "", "en"),
    ],
)
def test_the_language_is_one_that_exists(monkeypatch, query, header, language):
    monkeypatch.setattr(pages, "languages", lambda: {"de": {}, "en": {}})
    headers = [(b"accept-language", header.encode())]
    request = Request({"type": "http", "query_string": query.encode(), "headers": headers})
    assert pages.wanted_language(request) == language


def scripts() -> dict[str, str]:
    """The scripts and shells without comments."""
    found = {}
    for file in sorted([*ASSETS.glob("*.js"), *ASSETS.glob("*.html")]):
        text = re.sub(
            r"/\*.*?\*/|(?<![:'\"])//[^\n]*|<!--.*?-->", "", file.read_text(encoding="utf-8"), flags=re.DOTALL
        )
        found[file.name] = text
    return found


def test_all_words_are_in_the_files_of_languages():
    """A literal of two words or more that begins with a capital is a sentence, and so is any text of a shell."""
    sentence = re.compile(r"[\"'`>]\s*([A-Z][a-z]+[ ,][^\"'`<>]*[a-z])")
    for name, text in scripts().items():
        assert sentence.findall(text) == [], name
        if name.endswith(".html"):
            plain = re.sub(r"\{%.*?%\}|\{\{.*?\}\}|<[^>]*>", "", text, flags=re.DOTALL)
            assert re.findall(r"\w+", plain) == [], name
            assert re.findall(r'\b(?:alt|title|placeholder|aria-label)="[^"{]+"', text) == [], name


def test_each_key_that_is_used_exists_and_each_that_exists_is_used():
    used: set[str] = set()
    for text in scripts().values():
        used.update(re.findall(r'data-(?:text|label)="([^"]+)"', text))
        used.update(re.findall(r"""["'`]([a-z_0-9-]+(?:\.[a-z_0-9-]+)*)["'`]""", text))
        patterns = re.findall(r"`([a-z_-]+\.(?:[a-z_.-]|\$\{[^}]+\})*)`", text)
        used.update(key for key in WORDS for p in patterns if re.fullmatch(_as_pattern(p), key))
        called = re.findall(r'\btext\("([^"]+)"', text) + re.findall(r'data-(?:text|label)="([^"]+)"', text)
        called = [key for key in called if not key.startswith("{{")]  # an argument of a macro, which is a key itself
        assert [key for key in called if not {key, f"{key}.other"} & set(WORDS)] == []
    used.update(f"title.{file.stem}" for file in ASSETS.glob("*.html"))
    endings = ("", ".one", ".other")
    unused = [key for key in WORDS if not any(key == name + ending for name in used for ending in endings)]
    assert [key for key in unused if key != "noscript"] == []
    assert list(WORDS) == sorted(WORDS)


def _as_pattern(template: str) -> str:
    return "".join(
        r"[\w.-]+" if part.startswith("${") else re.escape(part) for part in re.split(r"(\$\{[^}]+\})", template)
    )


def test_scripts_make_no_markup_of_texts_and_are_short():
    for file in [*ASSETS.glob("*.js"), *ASSETS.glob("*.css"), *ASSETS.glob("*.html")]:
        text = file.read_text(encoding="utf-8")
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|style=|\son\w+=\"", text
        ), file
        assert len(text.splitlines()) <= 300, file
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), file
