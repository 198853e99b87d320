"""The page Review of a station in a browser: the queue by keyboard, undo, masks pixel for pixel, a lost connection.

A test that counts parts has a product of its own, so that it does not see those of another.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from station_process import StationProcess
from test_station_page import SOON_MS, VERDICTS, WORDS, Opened, case, check_looks, contents, until

from supersimplenet.station.review.answers import add_answer
from supersimplenet.station.review.opinions import Said
from supersimplenet.station.storage.database import open_database, writing

__all__ = ["case", "contents"]  # fixtures
PRODUCTS = ("keys", "undo", "kinds", "proposed", "lost", "others", "pictures")
WIDTH, HEIGHT = 320, 200  # of the pictures; the stored map has half of each


@pytest.fixture(scope="module")
def station(case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StationProcess]:
    models = dict.fromkeys(PRODUCTS, case.detector.folder)
    with StationProcess(models, folder=tmp_path_factory.mktemp("review") / "station", review_share=0.5) as started:
        yield started


@pytest.fixture(scope="module")
def parts(contents) -> list[bytes]:
    """Pictures of 64 x 64 pixels, of each verdict in turn."""
    return [contents[verdict][place] for place in range(2) for verdict in VERDICTS]


def sent(station: StationProcess, product: str, parts: list[bytes]) -> list[dict[str, Any]]:
    return [station.inspect(part, product=product, name=f"{product} {n}.png") for n, part in enumerate(parts)]


def sent_large(station: StationProcess, product: str, part: bytes) -> dict[str, Any]:
    file = io.BytesIO()
    Image.open(io.BytesIO(part)).resize((WIDTH, HEIGHT)).save(file, "PNG")
    return station.inspect(file.getvalue(), product=product, name=f"{product} large.png")


def said_of(station: StationProcess, result: str) -> list[tuple[str | None, str | None, str | None]]:
    """What was answered about a result, in order: verdict, kind of the defect, and why it was asked for."""
    answers = station.get(f"/v1/results/{result}/answers")["answers"]
    return [(each["verdict"], each["defect"], each["asked"]) for each in answers]


def wait_until_said(page: Page, station: StationProcess, result: str, number: int) -> None:
    for _ in range(100):
        if len(said_of(station, result)) >= number:
            return
        page.wait_for_timeout(50)
    raise AssertionError(said_of(station, result))


def test_a_queue_is_answered_by_keyboard_alone(browser, station, parts):
    sent(station, "keys", parts[:4])
    asked = station.get("/v1/review/queue", product="keys")["asked"]
    ids, reasons = ([each["result"]["id"] for each in asked], [each["reason"] for each in asked])
    assert len(ids) == 4
    with Opened(browser, station, "/review?product=keys") as page:
        for place, keys in enumerate((["g"], ["k", *"scratch", "Enter", "b"], ["u"], ["b"]), start=1):
            until(page, "#progress-text", f"{place} of 4 · {place - 1} answered")
            assert page.locator("#name").text_content() == asked[place - 1]["result"]["name"]
            assert page.locator("#reason").text_content() == WORDS[f"queue.reason.{reasons[place - 1]}"]
            assert f"/v1/results/{ids[place - 1]}/view" in page.locator("#stage .photograph").get_attribute("src")
            for key in keys:
                page.keyboard.press(key)
        until(page, "#end-title", WORDS["queue.done"])
        until(page, "#end-text", WORDS["queue.none"])
        page.keyboard.press("Enter")  # asks again
        until(page, "#end-title", WORDS["queue.none"])
        until(
            page,
            "#rates-lines li >> nth=2",
            re.compile(r"\d parts of the last 7 days were drawn by chance, \d answered\."),
        )
    wanted = [("good", None), ("bad", "scratch"), ("unusable", None), ("bad", "scratch")]  # the kind is remembered
    for result, reason, (verdict, defect) in zip(ids, reasons, wanted, strict=True):
        assert said_of(station, result) == [(verdict, defect, reason)]
    assert station.get("/v1/review/queue", product="keys")["asked"] == []


def test_undo_goes_back_to_what_was_said_before(browser, station, parts):
    sent(station, "undo", parts[:3])
    clicked = station.get("/v1/results", product="undo", verdict="good")["results"][0]["id"]
    station.client.post(f"/v1/results/{clicked}/review", json={"verdict": "bad"}).raise_for_status()
    ids = [each["result"]["id"] for each in station.get("/v1/review/queue", product="undo")["asked"]]
    other = next(asked for asked in ids if asked != clicked)
    with Opened(browser, station, "/review?product=undo") as page:
        until(page, "#progress-text", "1 of 3 · 0 answered")
        assert page.locator("#undo").is_disabled()
        for _ in range(3):
            page.keyboard.press("g")
        until(page, "#end-title", WORDS["queue.done"])
        for each in ids:  # what is not sent yet would be taken back without a trace
            wait_until_said(page, station, each, 2 if each == clicked else 1)
        for done in (2, 1, 0):
            page.keyboard.press("z")
            until(page, "#progress-text", f"{done + 1} of 3 · {done} answered")
        wait_until_said(page, station, ids[0], 3 if ids[0] == clicked else 2)
        page.keyboard.press("ArrowRight")
        until(page, "#progress-text", "2 of 3 · 0 answered")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        until(page, "#progress-text", "1 of 3 · 0 answered")
    assert [verdict for verdict, _, _ in said_of(station, other)] == ["good", None]
    assert [verdict for verdict, _, _ in said_of(station, clicked)] == ["bad", "good", "bad"]
    assert station.get(f"/v1/results/{clicked}")["review"]["verdict"] == "bad"


def test_kinds_that_were_named_are_suggested_the_most_frequent_first(browser, station, parts):
    results = sent(station, "kinds", parts[:5])
    for result, defect in zip(results, ("pore", "dent", "pore"), strict=False):
        body = {"verdict": "bad", "defect": defect}
        station.client.post(f"/v1/results/{result['id']}/review", json=body).raise_for_status()
    with Opened(browser, station, "/review?product=kinds") as page:
        # Of those that were clicked, the ones that are drawn by chance are asked about again
        until(page, "#progress-text", re.compile(r"1 of [2-5] · 0 answered"))
        assert page.locator("#kinds option").evaluate_all("(all) => all.map((e) => e.value)") == ["pore", "dent"]
        assert page.locator("#known button").all_text_contents() == ["pore", "dent"]
        page.keyboard.press("2")
        assert page.locator("#kind").input_value() == "dent"
        until(page, '[data-answer="bad"]', f"{WORDS['verdict.bad']}dent")
        shown = page.locator("#open").get_attribute("href").split("/")[-1]
        before = len(said_of(station, shown))
        page.wait_for_timeout(350)  # a click sooner may have been for the part before
        page.locator('[data-answer="bad"]').click()
        until(page, "#progress-text", re.compile(r"2 of [2-5] · 1 answered"))
        wait_until_said(page, station, shown, before + 1)
        assert said_of(station, shown)[-1][:2] == ("bad", "dent")


# ----- masks


def inside(corners: list[tuple[int, int]]) -> NDArray[np.bool_]:
    """The pixels whose centre is within a polygon: with an odd number of edges to its left, by exact fractions."""
    found = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for y in range(HEIGHT):
        middle = y + Fraction(1, 2)
        for (x1, y1), (x2, y2) in zip(corners, corners[1:] + corners[:1], strict=True):
            if min(y1, y2) < middle < max(y1, y2):
                crossing = x1 + (middle - y1) * Fraction(x2 - x1, y2 - y1)
                found[y, math.ceil(crossing - Fraction(1, 2)) :] ^= True
    return found


def near(start: tuple[float, float], end: tuple[float, float], size: int) -> NDArray[np.bool_]:
    """The pixels whose centre is at most half a width from the nearest point of a line."""
    (x1, y1), (x2, y2) = start, end
    down, across = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    share = ((across - x1) * (x2 - x1) + (down - y1) * (y2 - y1)) / ((x2 - x1) ** 2 + (y2 - y1) ** 2)
    share = np.clip(share, 0, 1)
    distance = np.hypot(across - x1 - share * (x2 - x1), down - y1 - share * (y2 - y1))
    return distance <= size / 2 + 1e-9  # a centre at just this distance counts


DRAWN = """(id) => {
  const canvas = document.getElementById(id);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return [...data].filter((_, place) => place % 4 === 3).map((opacity) => (opacity > 0 ? "1" : "0")).join("");
}"""


def drawn(page: Page, canvas: str = "mask-drawn") -> NDArray[np.bool_]:
    found = np.array(list(page.evaluate(DRAWN, canvas))) == "1"
    return found.reshape(HEIGHT, WIDTH)


def check_drawn(page: Page, wanted: NDArray[np.bool_], canvas: str = "mask-drawn") -> None:
    down, across = np.nonzero(drawn(page, canvas) != wanted)
    where = (across.min(), across.max(), down.min(), down.max()) if down.size else None
    assert down.size == 0, f"{down.size} pixels differ, within left, right, top, bottom {where}"


def kept_mask(station: StationProcess, result: str) -> NDArray[np.uint8]:
    answer = station.client.get(f"/v1/results/{result}/mask")
    assert answer.status_code == 200
    return np.asarray(Image.open(io.BytesIO(answer.content)))


TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


class Sheet:
    """The picture in the dialog, by its own pixels."""

    def __init__(self, page: Page) -> None:
        expect(page.locator('[data-do="save"] >> nth=0')).to_be_enabled(timeout=SOON_MS)
        page.wait_for_selector("#mask-stage[aria-busy=false]")
        page.evaluate(TWO_FRAMES)  # what was shown meanwhile leaves the picture less room, from the next frame on
        box = page.locator("#mask-sheet").bounding_box()
        self.page, self.left, self.top, self.scale = page, box["x"], box["y"], box["width"] / WIDTH
        assert box["height"] / HEIGHT == pytest.approx(self.scale, rel=1e-3)

    def move(self, x: float, y: float) -> None:
        self.page.mouse.move(self.left + x * self.scale, self.top + y * self.scale)

    def click(self, x: float, y: float) -> None:
        self.move(x, y)
        self.page.mouse.down()
        self.page.mouse.up()

    def stroke(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.move(*start)
        self.page.mouse.down()
        self.move(*end)
        self.page.mouse.up()


def open_editor(page: Page, button: Locator) -> Sheet:
    button.click()
    page.wait_for_selector("#mask[open]")
    return Sheet(page)


def test_a_polygon_and_a_stroke_are_the_pixels_that_they_should_be(browser, station, parts):
    result = sent_large(station, "pictures", parts[2])
    corners = [(40, 20), (200, 33), (171, 150), (90, 81), (31, 166)]
    start, end, size = (250.3, 40.8), (287.1, 169.4), 16
    polygon = inside(corners)
    stroke = near((250, 41), (287, 169), size)  # an even width goes along corners of pixels
    erased = near((100.5, 30.5), (100.5, 120.5), 5)  # an odd one along their centres
    with Opened(browser, station, f"/results/{result['id']}") as page:
        sheet = open_editor(page, page.locator("#draw"))
        page.keyboard.press("p")
        for x, y in corners:
            sheet.click(x + 0.2, y - 0.2)
        page.keyboard.press("Enter")
        check_drawn(page, polygon)
        sheet.click(5, 5)  # one that is begun and left
        page.keyboard.press("Escape")
        assert page.locator("#mask").get_attribute("open") is not None
        page.keyboard.press("b")
        page.keyboard.press(".")
        until(page, "#mask-size-says", f"{size} px")
        sheet.stroke(start, end)
        check_drawn(page, polygon | stroke)
        page.keyboard.press("z")
        check_drawn(page, polygon)
        page.keyboard.press("y")
        page.keyboard.press("e")
        for _ in range(5):
            page.keyboard.press(",")
        until(page, "#mask-size-says", "5 px")
        sheet.stroke((100.4, 30.9), (100.9, 120.1))
        wanted = (polygon | stroke) & ~erased
        check_drawn(page, wanted)
        page.keyboard.press("s")
        expect(page.locator("#mask")).to_be_hidden()
        until(page, "#draw", WORDS["mask.change"])
        assert WORDS["review.drawn"] in page.locator("#review .note").first.text_content()
        page.wait_for_selector("#stage .drawn")
        kept = kept_mask(station, result["id"])
        assert (kept.shape, kept.dtype, np.unique(kept).tolist()) == ((HEIGHT, WIDTH), np.uint8, [0, 255])
        assert ((kept == 255) == wanted).all()

        page.reload()  # and once more, from the station
        sheet = open_editor(page, page.locator("#draw"))
        check_drawn(page, wanted)
        page.keyboard.press("+")
        for _ in range(3):
            page.keyboard.press("ArrowRight")  # the cross, from the middle of what is seen
        assert page.locator("#mask-place").text_content() == WORDS["mask.place"].format(x=163, y=100)
        page.keyboard.press("e")
        for _ in range(15):
            page.keyboard.press(",")
        page.keyboard.press(" ")
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("Shift+ ")
        before, wanted = wanted, wanted & ~near((163.5, 100.5), (173.5, 100.5), 1)
        assert (before ^ wanted).sum() == 11
        check_drawn(page, wanted)
        page.keyboard.press("Escape")
        expect(page.locator("#mask-unsaved")).to_be_visible()
        page.locator('#mask-unsaved [data-do="save"]').click()
        expect(page.locator("#mask")).to_be_hidden()
        assert ((kept_mask(station, result["id"]) == 255) == wanted).all()

        open_editor(page, page.locator("#draw"))
        page.locator("#mask-remove").click()
        until(page, "#draw", WORDS["mask.draw"])
        assert station.get(f"/v1/results/{result['id']}")["review"]["mask"] is None


def enlarged(levels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Levels at twice the size, bilinear about the centres of pixels, the outermost ones repeated."""
    found = levels.astype(np.float64)
    for axis in (0, 1):
        padded = np.concatenate([found.take([0], axis), found, found.take([-1], axis)], axis)
        before, own, after = (padded.take(range(d, d + found.shape[axis]), axis) for d in (0, 1, 2))
        pairs = [0.25 * before + 0.75 * own, 0.75 * own + 0.25 * after]
        found = np.stack(pairs, axis + 1).reshape([n * (2 if a == axis else 1) for a, n in enumerate(found.shape)])
    return found


def test_the_proposal_is_the_map_at_the_level_of_the_slider(browser, station, parts):
    result = sent_large(station, "proposed", parts[2])
    content = station.client.get(f"/v1/results/{result['id']}/levels").content
    levels = np.asarray(Image.open(io.BytesIO(content)))
    assert levels.shape == (HEIGHT // 2, WIDTH // 2)
    wide = enlarged(levels)
    asked = station.get("/v1/review/queue", product="proposed")["asked"][0]["reason"]
    with Opened(browser, station, "/review?product=proposed") as page:
        until(page, "#progress-text", "1 of 1 · 0 answered")
        page.locator("#kind").fill("dent")
        page.keyboard.press("Enter")
        page.keyboard.press("m")
        page.wait_for_selector("#mask-accept:not([hidden])")
        for level in (int(page.locator("#mask-level").input_value()), int(levels.max()) * 3 // 4):
            page.locator("#mask-level").fill(str(level))
            expect(page.locator("#mask-level-says")).to_contain_text(f"level {level}")
            page.wait_for_function("() => new Promise((done) => requestAnimationFrame(() => done(true)))")
            check_drawn(page, wide >= level, "mask-proposal")
            assert 0 < (wide >= level).mean() < 1
        page.keyboard.press("a")
        check_drawn(page, wide >= level)
        expect(page.locator("#mask-proposal")).to_be_hidden()
        page.keyboard.press("s")
        until(page, "#end-title", WORDS["queue.done"])
    assert ((kept_mask(station, result["id"]) == 255) == (wide >= level)).all()
    assert said_of(station, result["id"]) == [("bad", "dent", asked)] * 2


# ----- what may happen


def test_answers_of_a_lost_connection_are_kept_and_sent_again(browser, station, parts):
    sent(station, "lost", parts[:3])
    ids = [each["result"]["id"] for each in station.get("/v1/review/queue", product="lost")["asked"]]
    with Opened(browser, station, "/review?product=lost", may="ERR_|403|503") as page:
        until(page, "#progress-text", "1 of 3 · 0 answered")
        page.context.set_offline(True)
        page.keyboard.press("g")
        page.keyboard.press("b")
        until(page, "#progress-text", "3 of 3 · 2 answered")
        words = WORDS["queue.waiting.other"].replace("{count}", "2")
        until(page, "#waiting-text", words.replace("{reason}", WORDS["problem.unreachable"]))
        assert [said_of(station, asked) for asked in ids] == [[], [], []]
        page.context.set_offline(False)
        page.locator("#send-again").click()
        wait_until_said(page, station, ids[1], 1)
        expect(page.locator("#waiting")).to_be_hidden()
        assert [[verdict for verdict, _, _ in said_of(station, asked)] for asked in ids] == [["good"], ["bad"], []]

        error = {"error": {"code": "forbidden", "message": "not allowed"}}
        page.route("**/review", lambda route: route.fulfill(status=403, json=error))
        page.keyboard.press("u")
        refused = WORDS["queue.refused.one"].replace("{count}", "1").replace("{reason}", WORDS["error.forbidden"])
        name = station.get(f"/v1/results/{ids[2]}")["name"]
        until(page, "#waiting-text", refused.replace("{name}", name))
        page.unroute("**/review")
        page.reload()  # it is kept, and sent with the page's next visit only when asked to
        expect(page.locator("#waiting")).to_contain_text(WORDS["error.forbidden"])
        page.locator("#send-again").click()
        wait_until_said(page, station, ids[2], 1)
        expect(page.locator("#waiting")).to_be_hidden()
        assert [verdict for verdict, _, _ in said_of(station, ids[2])] == ["unusable"]


def say(station: StationProcess, result: str, verdict: str, who: str, **more: Any) -> None:
    """Answer as somebody else does, with another session than this one's."""
    engine = open_database(f"sqlite:///{station.folder / 'station.db'}")
    with writing(engine) as connection:
        add_answer(connection, result, Said(answer=verdict, **more), who=who)  # type: ignore[arg-type]
    engine.dispose()


def test_a_part_that_somebody_else_answers_meanwhile_says_so(browser, station, parts):
    sent(station, "others", parts[:2])
    with Opened(browser, station, "/review?product=others") as page:
        until(page, "#progress-text", "1 of 2 · 0 answered")
        shown = page.locator("#open").get_attribute("href").split("/")[-1]
        say(station, shown, "bad", "bert")
        station.client.post(f"/v1/results/{shown}/review", json={"verdict": None})  # the stream says it
        expect(page.locator("#other")).to_contain_text("bert has answered this meanwhile: Bad")
        assert page.locator("#progress-text").text_content() == "1 of 2 · 0 answered"
        page.keyboard.press("g")
        until(page, "#progress-text", "2 of 2 · 1 answered")
        assert page.locator("#other").is_hidden()
        wait_until_said(page, station, shown, 3)
        assert station.get(f"/v1/results/{shown}")["review"]["verdict"] == "disputed"


def test_a_review_box_shows_disputes_and_unusable_pictures(browser, station, parts):
    named, unusable, disputed = sent(station, "pictures", parts[:3])
    for who, verdict in (("bert", "good"), ("cem", "bad")):
        say(station, disputed["id"], verdict, who)
    say(station, unusable["id"], "unusable", "cem")
    say(station, named["id"], "bad", "bert", defect="pore")
    with Opened(browser, station, f"/results/{disputed['id']}") as page:
        note = page.locator("#review .note").first
        expect(note).to_contain_text(WORDS["review.said.disputed"].split("(")[0].replace("{name}", disputed["name"]))
        assert page.locator("#review .review-button").get_attribute("aria-disabled") == "false"
        page.goto(f"{station.address}/results/{unusable['id']}")
        expect(note).to_contain_text("marked as unusable by cem")
        page.goto(f"{station.address}/results/{named['id']}")
        expect(note).to_contain_text("Kind of defect: pore.")
        expect(note).to_contain_text("marked as missed by bert")
        page.goto(f"{station.address}/history?product=pictures")
        until(page, f'[data-result="{unusable["id"]}"] .of-review', WORDS["review.short.unusable"])
        page.locator("#reviewed").select_option("disputed")
        expect(page.locator("#rows tbody tr")).to_have_count(1)
        assert page.locator("#rows tbody tr").get_attribute("data-result") == disputed["id"]
        until(page, "#rows td.of-review", WORDS["review.short.disputed"])


def test_page_and_editor_fit_a_phone_in_light_and_dark(browser, station, parts):
    sent(station, "pictures", parts[:2])
    with Opened(browser, station, "/review?product=pictures") as page:
        page.wait_for_selector("#asked:not([hidden])")
        check_looks(page, "review")
        page.locator("#draw").click()
        page.wait_for_selector("#mask-accept:not([hidden])")
        check_looks(page, "mask")
        for language in ("de", "zh"):
            page.goto(f"{station.address}/review?product=pictures&lang={language}")
            page.wait_for_selector("#asked:not([hidden])")
            page.set_viewport_size({"width": 390, "height": 844})
            page.keyboard.press("m")
            page.wait_for_selector("#mask[open]")
            for root in ("document.documentElement", "document.getElementById('mask')"):
                content, room = page.evaluate(f"() => [{root}.scrollWidth, {root}.clientWidth]")
                assert content <= room, (language, root)
            stage = page.locator("#mask-stage").bounding_box()
            assert stage["height"] > 200
            words = json.loads(station.client.get(f"/assets/texts/{language}.json").content)
            assert page.locator("#mask-title").text_content() == words["mask.title"]
