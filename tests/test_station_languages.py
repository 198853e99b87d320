"""The languages of a station's pages: each a whole file of words; chosen, remembered, and with room on a phone.

The words are those of the floor. German: a good part that is called bad is a Pseudofehler, a bad one that is called
good is Schlupf. Verdicts are Gut and Schlecht, as in Gutteil and Schlechtteil: "i. O." and "n. i. O." are as common,
but look alike from afar. Chinese: 合格 and 不合格, 待定 for what a person decides, 误报 and 漏检, and 复判 for a
review.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page
from station_process import StationProcess
from station_servers import free_port
from test_station_page import ASSETS, PASSWORD, Opened, log_in, log_in_by, until
from test_station_service import picture

from supersimplenet.datasets.held_out import HELD_OUT
from supersimplenet.inference.config import to_plain
from supersimplenet.postprocessing.calibration import Calibration, Computation, CrossCalibration
from supersimplenet.station.sinks.modbus import REFUSALS

WORDS = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in (ASSETS / "texts").glob("*.json")}
ENGLISH = WORDS["en"]
OTHERS = sorted(WORDS.keys() - {"en"})
PLACEHOLDER = re.compile(r"\{(\w+)\}")
MODBUS = ["modbus_other", *(f"modbus_{code}" for code in REFUSALS)]
PLURAL = re.compile(r"\.(?:zero|two|few|many)$")  # forms that English does not have
SAME = {  # a name, a sign of its own, or values alone
    "de": {
        *("brand", "comma", "column.name", "login.name", "name", "column.score", "score", "fact.picture.of"),
        *("guarantee.both", "guarantee.percent"),
        *("found.list", "spoken", "thumbnail", "title.of", "who", "drift.score", "health.gib", "health.seconds"),
        "defects.zone",
        *("mask.size.of", "mask.polygon", "sentences"),
        "column.version",
    },
    "zh": {"brand", "health.gib", "title.of"},
}
DATES = {
    "en": r"\w{3} \d+, \d{4}, \d\d:\d\d:\d\d",
    "de": r"\d+\. \w+\.? \d{4}, \d\d:\d\d:\d\d",
    "zh": r"\d{4}年\d+月\d+日 \d\d:\d\d:\d\d",
}


def test_english_german_and_chinese_are_there():
    assert {name: words["language.name"] for name, words in WORDS.items()} == {
        "de": "Deutsch",
        "en": "English",
        "zh": "中文",
    }


@pytest.mark.parametrize("name", OTHERS)
def test_a_language_has_all_words_with_their_values(name):
    words = WORDS[name]
    further = {key for key in words if PLURAL.search(key) and PLURAL.sub(".other", key) in ENGLISH}
    assert words.keys() - further == ENGLISH.keys()
    assert list(words) == sorted(words)
    for key, text in words.items():
        english = ENGLISH.get(key) or ENGLISH[PLURAL.sub(".other", key)]
        assert set(PLACEHOLDER.findall(text)) == set(PLACEHOLDER.findall(english)), key
        assert text == " ".join(text.split()) or key == "comma", key


@pytest.mark.parametrize("name", OTHERS)
def test_nothing_is_left_in_english(name):
    assert {key for key, text in WORDS[name].items() if text == ENGLISH.get(key)} == SAME[name]


@pytest.mark.parametrize("name", OTHERS)
def test_one_word_for_one_thing(name):
    """A button, its count, its filter and its mark say the same."""
    words = WORDS[name]
    for kind, key in (("false-call", "false_calls"), ("missed", "missed")):
        same = [f"review.{kind}", f"review.short.{kind}", f"filters.reviewed.{kind}", f"counts.{key}"]
        assert len({words[each] for each in same}) == 1, kind
    for verdict in ("bad", "unsure", "failed"):
        assert words[f"counts.{verdict}"] == words[f"verdict.{verdict}"]


def test_the_station_sends_the_values_of_each_sign():
    """The keywords of each Sign in the source are the placeholders of its text."""
    tree = ast.parse((ASSETS.parent / "signs.py").read_text(encoding="utf-8"))
    sent = {}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Sign":
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            sent[ast.literal_eval(given["code"])] = set(re.findall(r"'(\w+)':", given.get("values", "")))
    known = [key for key in ENGLISH if re.fullmatch(r"sign\.\w+\.text(\.other)?", key)]
    assert sent == {key.split(".")[1]: set(PLACEHOLDER.findall(ENGLISH[key])) for key in known}
    assert all(f"sign.{code}" in ENGLISH for code in sent)


def test_a_sink_sends_the_values_of_each_reason():
    """Each reason with a code has a text with the same values, in all languages; each text has its reason."""
    sent = {}
    for file in sorted((ASSETS.parent / "sinks").glob("*.py")):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "AwayError" and len(call.args) == 2:
                named = [call.args[1].value] if isinstance(call.args[1], ast.Constant) else MODBUS
                sent |= {code: {keyword.arg for keyword in call.keywords} for code in named}
    known = [key for key in ENGLISH if key.startswith("reason.")]
    assert sent == {key.removeprefix("reason."): set(PLACEHOLDER.findall(ENGLISH[key])) for key in known}
    for code, words in REFUSALS.items():
        said = f"{{address}} refuses {{what}}: {words} (code {{number}})"
        assert ENGLISH[f"reason.modbus_{code}"] == said


def test_errors_with_words_are_errors_of_the_station():
    sources = "".join(file.read_text(encoding="utf-8") for file in sorted(ASSETS.parent.rglob("*.py")))
    codes = [key.removeprefix("error.") for key in ENGLISH if key.startswith("error.")]
    assert [code for code in codes if f'"{code}"' not in sources] == []


# ----- in a browser


@pytest.fixture(scope="module")
def station(model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StationProcess]:
    """A station of a model that is not calibrated, with a source and a sink that are away, and some results."""
    folder = tmp_path_factory.mktemp("languages")
    setup = {
        "sources": [{"name": "inbox", "kind": "folder", "folder": str(folder / "missing")}],
        "sinks": [{"name": "gate", "kind": "modbus", "host": "127.0.0.1", "port": free_port(), "address": 0}],
    }
    with StationProcess(model, folder=folder / "station", setup=setup) as started:
        for place in range(3):
            started.inspect(picture(place), name=f"{place}.png", part="lid 9")
        yield started


def language_of(page: Page) -> tuple[str, str]:
    page.wait_for_selector("#theme:not(:empty)")
    return page.evaluate("() => document.documentElement.lang"), page.title()


def visible_texts(page: Page) -> set[str]:
    found: list[str] = page.evaluate("""() => {
      const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      const texts = [];
      while (walker.nextNode()) texts.push(walker.currentNode.textContent.trim());
      for (const each of document.querySelectorAll("[aria-label]")) texts.push(each.getAttribute("aria-label"));
      return texts;
    }""")
    return set(found)


def width_of(page: Page) -> tuple[int, int]:
    """How wide the content is, and the room for it."""
    root = "document.documentElement"
    content, room = page.evaluate(f"() => [{root}.scrollWidth, {root}.clientWidth]")
    return content, room


@pytest.mark.parametrize("name", sorted(WORDS))
def test_the_line_speaks_the_language(browser, station, name):
    words = WORDS[name]
    result = station.inspect(picture(5), name="spoken.png")
    with Opened(browser, station, f"/?lang={name}") as page:
        until(page, "#name", "spoken.png")
        page.wait_for_selector("#shift:not([hidden])")
        assert language_of(page) == (name, words["title.line"])
        assert page.locator("#verdict").text_content() == words[f"verdict.{result['verdict']}"]
        counts = station.get("/v1/counts")
        shown = page.locator("#counts dt").all_text_contents()
        assert shown == [
            words[f"counts.{key}"] for key in ("inspected", "bad", "unsure", "false_calls", "missed", "failed")
        ]
        until(page, '[data-count="bad"] dd', str(counts["bad"]))
        score = f"{result['score_logit']:.2f}".replace("-", "\N{MINUS SIGN}")
        score = score.replace(".", ",") if name == "de" else score
        assert page.locator("#facts dd").nth(1).text_content() == words["score.logit"].replace("{score}", score)
        until(page, "#shift-title", words["shift.other"].replace("{hours}", "8"))
        signs = page.locator(".sign").all_text_contents()
        status = station.get("/v1/status")
        reasons = {
            "source": status["sources"][0]["reason"],  # of the system
            "sink": words["reason.unreachable"].replace("{address}", status["sinks"][0]["reason"].split()[0]),
            "calibration": "",
        }
        assert signs == [
            f"{words[f'sign.{code}']} "
            + words[f"sign.{code}.text"]
            .replace("{name}", "gate" if code == "sink" else "inbox")
            .replace("{product}", "parts")
            .replace("{reason}", reason)
            for code, reason in reasons.items()
        ]


@pytest.mark.parametrize("name", sorted(WORDS))
def test_plural_forms_dates_and_errors_are_those_of_the_language(browser, station, name):
    words = WORDS[name]
    broken = station.client.post("/v1/inspect?name=broken.png", content=picture(1)[:99])
    message = broken.json()["error"]["message"]
    with Opened(browser, station, f"/?lang={name}", may="404") as page:
        until(page, "#name", "broken.png")
        wanted = words["error.unreadable"].replace("{message}", message)
        until(page, "#facts .reason", wanted)
        forms = page.evaluate("(name) => new Intl.PluralRules(name).resolvedOptions().pluralCategories", name)
        missing = [
            key
            for key in words
            if key.endswith(".other")
            for form in forms
            if f"{key.removesuffix('other')}{form}" not in words
        ]
        assert missing == []
        page.goto(f"{station.address}/history")
        page.wait_for_selector("#rows tbody tr")
        assert re.fullmatch(DATES[name], page.locator("tbody .of-time time").first.text_content())
        page.goto(f"{station.address}/results/{'0' * 32}")
        until(page, "#problem", words["error.result"])
        page.goto(f"{station.address}/history?model=other")  # no words for this one: the station's own
        page.wait_for_selector("#problem:not([hidden])")
        answer = station.client.get("/v1/results?model=other").json()["error"]
        assert f"error.{answer['code']}" not in words
        assert page.locator("#problem").text_content() == answer["message"]


CALIBRATION = Calibration(
    image_score="fused",
    threshold_logit=0.0,
    accept_logit=None,
    pixel_logit=0.0,
    min_area_px=1,
    chosen_by="best",
    max_false_alarms=0.0502,
    max_escapes=None,
    confidence=0.95,
    part_logits=(-2.0, -1.0),
    images=2,
    bad_parts=0,
    escapes=0,
    basis=HELD_OUT,
    list_sha256="",
    weights_sha256="",
    date="2026-11-30",
)
CROSS = CrossCalibration(folds=3, steps=9, false_alarms=0.1, proven=0.5, checked_parts=40, checked_false_alarms=2)
CALIBRATIONS = {
    "plain": CALIBRATION,
    "one part": replace(CALIBRATION, part_logits=(-1.0,), images=3, basis="from parts/good", confidence=0.999),
    "escapes": replace(CALIBRATION, max_escapes=1.0, bad_parts=1, max_false_alarms=0.2),
    "bounds nothing": replace(CALIBRATION, bad_parts=7, escapes=1),
    "folds": replace(CALIBRATION, cross=CROSS, max_escapes=0.123, bad_parts=12),
    "precision": replace(
        CALIBRATION,
        computation=Computation(engine="torch", precision="fp32", version="0.2.0"),
        applied_to=Computation(engine="onnx", precision="int8", version="0.2.0"),
    ),
}


def test_a_guarantee_is_the_sentence_of_the_calibration_in_each_language(browser, station):
    say = "(calibration) => import('/assets/guarantee.js').then((module) => module.guaranteeWords(calibration))"
    said = {}
    for name in sorted(WORDS):
        with Opened(browser, station, f"/try?lang={name}") as page:
            page.wait_for_selector("#choose")
            said[name] = [page.evaluate(say, to_plain(calibration)) for calibration in CALIBRATIONS.values()]
    assert said["en"] == [calibration.guarantee() for calibration in CALIBRATIONS.values()]
    assert said["de"][0] == (
        "höchstens 5,1 % der guten Teile werden als schlecht bewertet, mit 95 % Konfidenz (2 gute Teile, vom Training "
        "zurückgehalten, 2026-11-30)"
    )
    english = set(re.findall(r"[a-z]{4,}", " ".join(said["en"]))) - {"from", "parts", "good"}  # a file's name
    for name in OTHERS:
        assert english & set(re.findall(r"[a-z]{4,}", " ".join(said[name]))) <= {"int8", "fp32"}


def end_visit(context: BrowserContext) -> None:
    """Forget what a browser forgets when it is closed."""
    for cookie in context.cookies():
        if cookie["expires"] == -1:
            context.clear_cookies(name=cookie["name"])


def test_the_chooser_is_remembered_and_the_address_wins_for_a_visit(browser, station):
    with Opened(browser, station, "/history?verdict=bad#main", locale="en-US") as page:
        assert language_of(page) == ("en", ENGLISH["title.history"])
        chooser = page.locator("#language")
        assert chooser.get_attribute("aria-label") == ENGLISH["language.label"]
        assert chooser.locator("option").all_text_contents() == ["Deutsch", "English", "中文"]
        with page.expect_navigation():
            chooser.select_option("de")
        assert language_of(page) == ("de", WORDS["de"]["title.history"])
        assert page.url == f"{station.address}/history?verdict=bad"
        for go in (page.reload, lambda: page.goto(f"{station.address}/")):
            go()
            assert language_of(page)[0] == "de"
            assert chooser.input_value() == "de"
        page.goto(f"{station.address}/?lang=zh")
        assert language_of(page) == ("zh", WORDS["zh"]["title.line"])
        page.locator("nav a").nth(1).click()
        page.wait_for_url("**/history")
        assert language_of(page) == ("zh", WORDS["zh"]["title.history"])
        end_visit(page.context)
        page.reload()
        assert language_of(page)[0] == "de"
        page.goto(f"{station.address}/?lang=zh&product=parts")
        with page.expect_navigation():
            page.locator("#language").select_option("en")
        assert page.url == f"{station.address}/?product=parts"
        assert language_of(page)[0] == "en"


@pytest.mark.parametrize(
    ("cookies", "query", "language"),
    [
        ("language=de", "", "de"),
        ("language=de; language-visit=zh", "", "zh"),
        ("language=de; language-visit=zh", "?lang=en", "en"),
        ("language=../de; language-visit=xx", "?lang=%3Cb%3E", "zh"),
    ],
)
def test_the_first_byte_is_in_the_language_already(station, cookies, query, language):
    """So nothing is shown in another one first, and without scripts the page is right, too."""
    headers = {"Cookie": cookies, "Accept-Language": "zh-CN,zh;q=0.9"}
    answer = httpx.get(f"{station.address}/history{query}", headers=headers)
    assert f'<html lang="{language}">' in answer.text
    assert f"<title>{WORDS[language]['title.history']}</title>" in answer.text
    assert WORDS[language]["noscript"] in answer.text
    assert answer.headers["Vary"] == "Accept-Language, Cookie"
    assert ("set-cookie" in answer.headers) == (query == "?lang=en")


def test_without_cookies_the_language_is_in_the_address(browser, station):
    with Opened(browser, station, "/history", locale="en-US") as page:
        page.add_init_script("Object.defineProperty(document, 'cookie', { get: () => '', set: () => {} })")
        page.reload()
        page.wait_for_selector("#theme:not(:empty)")
        with page.expect_navigation():
            page.locator("#language").select_option("zh")
        assert page.url == f"{station.address}/history?lang=zh"
        assert language_of(page)[0] == "zh"


@pytest.fixture(scope="module")
def guarded(station) -> StationProcess:
    """The station, which has users from here on: anna, with the longest role, is logged in here."""
    user = {"name": "anna", "role": "admin", "password": PASSWORD}
    assert station.client.post("/v1/users", json=user).status_code == 201
    log_in_by(station.client, "anna")
    for name, role in (("dora.mueller", "engineer"), ("bert", "operator")):
        user = {"name": name, "role": role, "password": PASSWORD}
        assert station.client.post("/v1/users", json=user).status_code == 201
    assert station.client.post("/v1/tokens", json={"name": "line-1", "role": "operator"}).status_code == 201
    result = station.inspect(picture(5), name="reviewed.png")
    verdict = "bad" if result["verdict"] == "good" else "good"
    assert station.client.post(f"/v1/results/{result['id']}/review", json={"verdict": verdict}).status_code == 200
    return station


@pytest.mark.parametrize(  # the longest words; the others are slow
    "name", ["de", pytest.param("en", marks=pytest.mark.slow), pytest.param("zh", marks=pytest.mark.slow)]
)
def test_all_pages_have_room_on_a_phone_and_no_word_of_another_language(browser, guarded, name):
    others = {text for other, words in WORDS.items() if other != name for text in words.values()}
    others -= {words["language.name"] for words in WORDS.values()} | set(WORDS[name].values())
    newest = guarded.get("/v1/results", limit=1)["results"][0]["id"]
    shown = {
        "/login": "#login",
        "/": "#review .undo:not([hidden])",
        "/history": "#rows tbody tr",
        f"/results/{newest}": "#facts .hash",
        "/threshold": "#threshold:not([hidden])",
        "/health": "#health:not([hidden])",
        "/review": "#rates:not([hidden])",
        "/try": "#choose",
        "/models": "#models:not([hidden])",
        "/users": "#entries tbody tr",
    }
    viewport = {"width": 390, "height": 844}
    with Opened(browser, guarded, f"/login?lang={name}", may="401", viewport=viewport) as page:
        for path, selector in shown.items():
            if path != "/login":
                page.goto(guarded.address + path)
            page.wait_for_selector(selector)
            assert language_of(page)[0] == name
            for width in (390, 1400):
                page.set_viewport_size({"width": width, "height": 844})
                content, room = width_of(page)
                assert content <= room, (path, width)
                rows = page.locator("header").bounding_box()["height"] / 52
                assert rows < (2.1 if width < 900 else 1.1), (path, width)
            assert visible_texts(page) & others == set(), path
            if path == "/login":
                log_in(page, "anna")
