"""The report in a browser: what moves with the threshold, keyboard, print, a phone, no network."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from report_case import Case, make_case, make_samples, mistakes_at
from scipy import stats

from supersimplenet.datasets.checks.check import check
from supersimplenet.evaluation.calibrate import ThresholdConfig
from supersimplenet.evaluation.comparison import compare
from supersimplenet.metrics.thresholds import Costs, cost_curve
from supersimplenet.report.page import write_page
from supersimplenet.types import BAD, GOOD

COSTS = Costs(false_alarm=1, escape=20)
BAD_SHARE = 0.02
GOOD_PARTS, BAD_PARTS = 8, 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def plain_case(folder: Path) -> Case:
    return make_case(folder / "plain", make_samples(folder / "data"), config=ThresholdConfig(max_false_alarms=0.5))


@pytest.fixture(scope="module")
def plain_report(folder: Path, plain_case: Case) -> Path:
    """One threshold, costs, and a comparison with an uncalibrated model."""
    other = make_case(folder / "other", plain_case.samples, seed=2)
    return write_page(
        folder / "plain.html",
        evaluation=plain_case.evaluation,
        detector=plain_case.detector,
        light=check(plain_case.samples).light,
        title="Grain",
        data_name="grain",
        model_name="plain",
        comparison=compare(plain_case.evaluation, other.evaluation, names=("plain", "other")),
        costs=COSTS,
        bad_share=BAD_SHARE,
        pictures=30,
    )


@pytest.fixture(scope="module")
def grey_case(folder: Path, plain_case: Case) -> Case:
    config = ThresholdConfig(max_false_alarms=0.25, max_escapes=0.25)
    return make_case(folder / "grey", plain_case.samples, config=config)


@pytest.fixture(scope="module")
def grey_report(folder: Path, grey_case: Case) -> Path:
    return write_page(
        folder / "grey.html",
        evaluation=grey_case.evaluation,
        detector=grey_case.detector,
        light=check(grey_case.samples).light,
        title="Grain, with a grey zone",
        data_name="grain",
        model_name="grey",
    )


class Opened:
    """A page that remembers what must not happen on it."""

    def __init__(self, browser: Browser, report: Path, **options) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.as_uri())
        self.page.wait_for_selector("body.ready")

    def __enter__(self) -> Page:
        return self.page

    def __exit__(self, kind, *_: object) -> None:
        self.context.close()
        if kind is None:
            assert self.complaints == []
            assert all(url.startswith(("file:", "data:")) for url in self.requests), self.requests


def exact_bound(events: int, trials: int) -> str:
    return shown(stats.binomtest(events, trials, alternative="less").proportion_ci(0.95, "exact").high)


def uniform_bound(events: int, trials: int) -> str:
    return shown(min(1.0, events / trials + math.sqrt(math.log(20) / (2 * trials))))


def shown(bound: float) -> str:
    return f"{math.ceil(bound * 1000 - 1e-9) / 10:g} %"


def rates(page: Page, row: str) -> list[str]:
    return page.locator(f"#{row} td").all_text_contents()


def matrix(page: Page, kind: str) -> dict[str, int]:
    cells = page.locator(f'#matrix tr[data-kind="{kind}"] [data-verdict]')
    return {cell.get_attribute("data-verdict"): int(cell.text_content()) for cell in cells.all()}


def move(page: Page, slider: str, position: int) -> None:
    page.locator(f"#{slider}").evaluate(
        "(slider, place) => { slider.value = place; slider.dispatchEvent(new Event('input')); }", position
    )


def cards(page: Page) -> list[int]:
    # The gallery follows in the next frame.
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return [int(card.get_attribute("data-image")) for card in page.locator("#cards > li").all()]


def positions(page: Page) -> list[float]:
    return page.evaluate("() => JSON.parse(document.getElementById('numbers').textContent).positions")


def test_at_the_models_threshold_the_bounds_are_exact(browser, plain_case, plain_report):
    evaluation = plain_case.evaluation
    alarms, escapes = mistakes_at(evaluation, evaluation.threshold_logit)
    with Opened(browser, plain_report) as page:
        wanted = [f"{alarms} of 8", f"{100 * alarms / 8:.1f} %", exact_bound(alarms, 8), "exact"]
        assert rates(page, "false-alarms") == wanted
        assert rates(page, "escapes") == [
            f"{escapes} of 12",
            f"{math.floor(1000 * escapes / 12 + 0.5) / 10:.1f} %",
            exact_bound(escapes, 12),
            "exact",
        ]
        assert page.locator("#back").is_disabled()
        assert "Clopper" in page.locator("#bound-note").text_content()
        # One step of the arrow key and back again: the model's own threshold is a position of the slider.
        page.locator("#reject").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#back").is_enabled()
        page.keyboard.press("ArrowLeft")
        assert page.locator("#back").is_disabled()
        assert rates(page, "false-alarms") == wanted


def test_every_position_of_the_slider_counts_as_python_does(browser, plain_case, plain_report):
    evaluation = plain_case.evaluation
    outcomes = evaluation.outcomes
    with Opened(browser, plain_report) as page:
        places = positions(page)
        assert page.locator("#reject").get_attribute("max") == str(len(places) - 1)
        swept = page.evaluate(
            """(count) => {
          const texts = (selector) => [...document.querySelectorAll(selector)].map((cell) => cell.textContent);
          return [...Array(count).keys()].map((place) => {
            reject.value = place;
            reject.dispatchEvent(new Event("input"));
            return {
              good: texts("#matrix [data-kind=good] [data-verdict]"),
              bad: texts("#matrix [data-kind=bad] [data-verdict]"),
              falseAlarms: texts("#false-alarms td"),
              escapes: texts("#escapes td"),
              types: texts("#types [data-verdict=good]"),
            };
          });
        }""",
            len(places),
        )
        for level, found in zip(places, swept, strict=True):
            for kind, label in (("good", GOOD), ("bad", BAD)):
                bad = sum(o.score_logit >= level for o in outcomes if o.sample.label == label)
                total = sum(o.sample.label == label for o in outcomes)
                assert found[kind] == [str(total - bad), str(bad)]
            alarms, escapes = mistakes_at(evaluation, level)
            own = level == evaluation.threshold_logit
            bound = exact_bound if own else uniform_bound
            for row, wrong, parts in (("falseAlarms", alarms, GOOD_PARTS), ("escapes", escapes, BAD_PARTS)):
                count, _, most, kind = found[row]
                assert count == f"{wrong} of {parts}"
                assert most == bound(wrong, parts)
                assert kind == ("exact" if own else "at every threshold")
            assert found["types"] == [
                str(sum(o.sample.defect == result.defect and o.score_logit < level for o in outcomes))
                for result in evaluation.types
            ]
        move(page, "reject", 0)
        assert "every threshold at once" in page.locator("#bound-note").text_content()
        assert "flip" in page.locator("#live").text_content()
        assert "0 of 12 bad parts escape" in page.locator("#live").text_content()
        spoken = page.locator("#reject").get_attribute("aria-valuetext")
        assert float(spoken.replace("\N{MINUS SIGN}", "-")) == pytest.approx(places[0], abs=6e-4)
        page.locator("#back").click()
        assert "exact" in rates(page, "escapes")


def test_a_number_is_a_threshold_too_and_equal_scores_are_bad(browser, plain_case, plain_report):
    """A score itself, to the last bit: float64 on both sides."""
    score = sorted(outcome.score_logit for outcome in plain_case.evaluation.outcomes)[20]
    with Opened(browser, plain_report) as page:
        page.locator("#reject-number").fill(repr(score))
        page.locator("#reject-number").press("Enter")
        called = matrix(page, "good")["bad"] + matrix(page, "bad")["bad"]
        assert called == sum(o.score_logit >= score for o in plain_case.evaluation.outcomes)
        page.locator("#reject-number").fill(repr(math.nextafter(score, math.inf)))
        page.locator("#reject-number").press("Enter")
        assert matrix(page, "good")["bad"] + matrix(page, "bad")["bad"] == called - 1
        page.locator("#reject-number").fill("")
        page.locator("#reject-number").press("Enter")  # nothing typed changes nothing
        assert matrix(page, "good")["bad"] + matrix(page, "bad")["bad"] == called - 1


def test_figures_and_costs_follow(browser, plain_case, plain_report):
    evaluation = plain_case.evaluation
    good, bad = ([o.score_logit for o in evaluation.outcomes if o.sample.label == label] for label in (GOOD, BAD))
    parts = {GOOD: {}, BAD: {}}
    for o in evaluation.outcomes:
        parts[o.sample.label].setdefault(o.sample.group, []).append(o.score_logit)
    curve = cost_curve(
        [max(part) for part in parts[GOOD].values()],
        [min(part) for part in parts[BAD].values()],
        COSTS,
        bad_share=BAD_SHARE,
    )
    with Opened(browser, plain_report) as page:
        level = positions(page)[10]
        move(page, "reject", 10)
        alarms, escapes = mistakes_at(evaluation, level)
        cost = 0.98 * alarms / 8 + 0.02 * 20 * escapes / 12
        assert float(page.locator('#cost [data-cell="cost"]').text_content()) == pytest.approx(cost, rel=5e-3)
        page.locator("#to-cheapest").click()
        least = float(curve.cost[curve.cheapest])
        assert float(page.locator('#cost [data-cell="cost"]').text_content()) == pytest.approx(least, rel=5e-3)
        move(page, "reject", 10)
        roc = page.locator('svg[data-figure="roc"]')
        left, right, bottom, top = map(float, roc.get_attribute("data-range").split())
        point = roc.locator("[data-point]")
        false_rate = sum(score >= level for score in good) / len(good)
        true_rate = sum(score >= level for score in bad) / len(bad)
        assert float(point.get_attribute("cx")) == pytest.approx(left + false_rate * (right - left), abs=0.06)
        assert float(point.get_attribute("cy")) == pytest.approx(bottom + true_rate * (top - bottom), abs=0.06)
        histogram = page.locator('svg[data-figure="histogram"]')
        low, high = map(float, histogram.get_attribute("data-domain").split()[:2])
        wanted = left + (level - low) / (high - low) * (right - left)
        assert f"translate({wanted:.1f} 0)" == histogram.locator("[data-line]").get_attribute("transform")
        move(page, "reject", len(positions(page)) - 1)  # none is called bad: no precision
        assert page.locator('svg[data-figure="precision-recall"] [data-point]').is_hidden()


def test_the_gallery_is_sorted_by_distance_to_a_wrong_verdict(browser, plain_case, plain_report):
    outcomes = plain_case.evaluation.outcomes

    def order(level: float) -> list[int]:
        margin = [(o.score_logit - level) * (1 if o.sample.label else -1) for o in outcomes]
        return sorted(range(len(outcomes)), key=lambda place: (margin[place], place))

    with Opened(browser, plain_report) as page:
        own = plain_case.evaluation.threshold_logit
        assert page.locator('[name="kind"]:checked').get_attribute("value") == "escapes"
        escapes = [i for i in order(own) if outcomes[i].sample.label and outcomes[i].score_logit < own]
        assert cards(page) == escapes
        page.locator('[value="all"]').check()
        assert cards(page) == order(own)
        assert page.locator("#cards img.photograph").count() == 30
        assert page.locator("#cards .empty").count() == 10
        level = positions(page)[3]
        move(page, "reject", 3)
        assert cards(page) == order(level)
        flipped = [i for i in order(level) if (outcomes[i].score_logit >= level) != (outcomes[i].score_logit >= own)]
        assert page.locator("#cards .badge.flips").count() == len(flipped) > 0
        page.locator("#flipped").check()
        assert cards(page) == flipped
        assert page.locator('[data-count="flipped"]').text_content() == str(len(flipped))
        page.locator("#flipped").uncheck()
        page.locator('[value="false-alarms"]').check()
        alarms = [i for i in order(level) if not outcomes[i].sample.label and outcomes[i].score_logit >= level]
        assert cards(page) == alarms
        page.locator('[value="borderline"]').check()
        right = [i for i in order(level) if (outcomes[i].score_logit >= level) == bool(outcomes[i].sample.label)]
        tenth = min(24, math.ceil(len(right) / 10))
        assert cards(page) == right[:tenth]
        assert "the tenth of the right verdicts" in page.locator("#gallery-note").text_content()


def test_filters_by_type_and_path(browser, plain_case, plain_report):
    outcomes = plain_case.evaluation.outcomes
    with Opened(browser, plain_report) as page:
        page.locator('[value="all"]').check()
        page.locator("#type").select_option("scratch")
        assert set(cards(page)) == {i for i, o in enumerate(outcomes) if o.sample.defect == "scratch"}
        page.locator("#path").fill("/003")
        assert [outcomes[i].sample.image.name for i in cards(page)] == ["003.png"]
        page.locator("#path").fill("nowhere")
        assert cards(page) == []
        assert "No image" in page.locator("#gallery-note").text_content()


def test_the_dialog_by_keyboard(browser, plain_case, plain_report):
    with Opened(browser, plain_report) as page:
        page.locator('[value="all"]').check()
        shown_cards = cards(page)
        page.locator("#cards button").nth(1).focus()
        page.keyboard.press("Enter")
        viewer = page.locator("#viewer")
        assert viewer.is_visible()
        names = [image["path"] for image in page.evaluate("() => JSON.parse(numbers.textContent).images")]
        title = page.locator("#viewer-title")
        assert title.text_content() == names[shown_cards[1]]
        page.keyboard.press("ArrowRight")
        assert title.text_content() == names[shown_cards[2]]
        assert page.locator("#viewer-place").text_content() == f"3 of {len(shown_cards)}"
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")  # the first has none before it
        assert title.text_content() == names[shown_cards[0]]
        assert page.locator("#previous").is_disabled()
        outcome = plain_case.evaluation.outcomes[shown_cards[0]]
        rows = page.locator("#viewer-defects tbody tr")
        assert rows.count() == len(outcome.defects)
        assert page.locator("#stage img.heat").is_visible()
        viewer.locator('[data-layer="heat"]').uncheck()
        assert page.locator("#stage img.heat").is_hidden()
        assert not page.locator('#filters [data-layer="heat"]').is_checked()
        assert page.locator('[data-layer="ignored"]').count() == 0  # every pixel counts here
        page.keyboard.press("Escape")
        assert viewer.is_hidden()
        page.wait_for_function(f"() => document.activeElement.closest('li')?.dataset.image === '{shown_cards[0]}'")


def test_the_defects_listed_are_those_of_the_outcome(browser, plain_case, plain_report):
    with Opened(browser, plain_report) as page:
        place, outcome = next((i, o) for i, o in enumerate(plain_case.evaluation.outcomes) if o.defects)
        page.evaluate("(place) => { location.hash = `#image-${place}`; }", place)
        page.wait_for_selector("#viewer[open]")
        first = page.locator("#viewer-defects tbody tr").first.locator("td").all_text_contents()
        defect = outcome.defects[0]
        assert first[0] == f"{defect.left}, {defect.top}"
        assert first[1] == f"{defect.width} \N{MULTIPLICATION SIGN} {defect.height}"
        assert first[4] == f"{defect.centroid_x:.1f}, {defect.centroid_y:.1f}"


def test_what_is_listed_follows_the_slider(browser, plain_case, plain_report):
    """Above all scores every image is good and shows nothing; below all of them each shows regions or its peak."""
    place, outcome = next((i, o) for i, o in enumerate(plain_case.evaluation.outcomes) if o.regions)
    peak, lone = next((i, o) for i, o in enumerate(plain_case.evaluation.outcomes) if not o.regions)
    with Opened(browser, plain_report) as page:
        for level, shown, rows in ((1e6, place, 0), (-1e6, place, len(outcome.regions)), (-1e6, peak, 1)):
            page.evaluate(
                """(level) => { for (const id of ["accept-number", "reject-number"]) {
                    const field = document.getElementById(id);
                    if (field) { field.value = level; field.dispatchEvent(new Event("change")); } } }""",
                level,
            )
            page.evaluate("(place) => { location.hash = `#image-${place}`; }", shown)
            page.wait_for_selector("#viewer[open]")
            assert page.locator("#viewer-defects tbody tr").count() == rows
            assert (page.locator("#stage .layered.called-good").count() == 1) == (rows == 0)
            note = page.locator("#viewer-defects").text_content()
            assert ("Called good, so no defect is listed." in note) == (rows == 0)
            assert ("No region reaches the pixel threshold" in note) == (shown == peak)
            page.keyboard.press("Escape")
            page.wait_for_function("() => !location.hash")
    assert (lone.peak.below_threshold, lone.defects in ((), (lone.peak,))) == (True, True)


def test_the_caption_opens_the_image_and_names_stay_whole(browser, plain_report):
    with Opened(browser, plain_report, viewport={"width": 390, "height": 844}) as page:
        page.locator('[value="all"]').check()
        first = cards(page)[0]
        card = page.locator(f'#cards [data-image="{first}"]')
        card.locator(".caption .verdict").click()
        page.wait_for_selector("#viewer[open]")
        assert page.locator("#viewer-title").text_content() == card.locator(".path").text_content()
        assert page.locator("#stage").bounding_box()["width"] > card.bounding_box()["width"]
        page.locator("#close").click()
        lines = page.evaluate("() => [...document.querySelectorAll('.end')].map((e) => e.getClientRects().length)")
        assert set(lines) <= {0, 1}  # none is broken; 0 where it is not shown


def test_a_table_that_scrolls_says_so(browser, plain_report):
    with Opened(browser, plain_report, viewport={"width": 390, "height": 844}) as page:
        found = page.evaluate("""() => [...document.querySelectorAll('main .scroll')].map((e) => [
            e.scrollWidth > e.clientWidth + 1,
            getComputedStyle(e, '::before').content.includes('scrolls sideways'), e.tabIndex === 0])""")
        assert any(wide for wide, _, _ in found)
        assert all(wide == said == reached for wide, said, reached in found)
        page.set_viewport_size({"width": 1400, "height": 900})
        page.wait_for_function("() => !document.querySelector('#metrics-title ~ .scroll.wide')")


def test_a_changed_verdict_links_to_its_image(browser, plain_report):
    with Opened(browser, plain_report) as page:
        link = page.locator("#comparison-title ~ * a, section:has(#comparison-title) a").first
        link.click()
        page.wait_for_selector("#viewer[open]")
        assert page.locator("#viewer-title").text_content() == link.text_content()
        page.locator("#close").click()
        page.wait_for_function("() => !location.hash")


def test_two_sliders_where_there_is_a_grey_zone(browser, grey_case, grey_report):
    evaluation = grey_case.evaluation
    own = (evaluation.threshold_logit, evaluation.calibration.accept_logit)
    assert own[1] < own[0]

    def check(page: Page, reject: float, accept: float) -> None:
        for kind, label in (("good", GOOD), ("bad", BAD)):
            scores = [o.score_logit for o in evaluation.outcomes if o.sample.label == label]
            assert matrix(page, kind) == {
                "good": sum(score < accept for score in scores),
                "unsure": sum(accept <= score < reject for score in scores),
                "bad": sum(score >= reject for score in scores),
            }
        unsure = sum(accept <= outcome.score_logit < reject for outcome in evaluation.outcomes)
        assert f"{unsure} image{'' if unsure == 1 else 's'} unsure" in page.locator("#live").text_content()
        alarms, escapes = mistakes_at(evaluation, reject, accept)
        for row, wrong, parts, exact in (
            ("false-alarms", alarms, GOOD_PARTS, reject == own[0]),
            ("escapes", escapes, BAD_PARTS, accept == own[1]),
        ):
            count, _, most, kind = rates(page, row)
            assert (count, kind) == (f"{wrong} of {parts}", "exact" if exact else "at every threshold")
            assert most == (exact_bound if exact else uniform_bound)(wrong, parts)

    with Opened(browser, grey_report) as page:
        places = positions(page)
        assert {*own} <= {*places}
        check(page, *own)
        assert page.locator("#gallery").evaluate(
            "(gallery) => { gallery.scrollIntoView(); return gallery.getBoundingClientRect().top }"
        ) >= page.locator(".strip").evaluate("(strip) => strip.getBoundingClientRect().bottom")
        low = next(i for i, place in enumerate(places) if place == own[1])
        move(page, "accept", low - 1)
        check(page, own[0], places[low - 1])
        move(page, "reject", low - 2)  # it takes the lower one along
        check(page, places[low - 2], places[low - 2])
        move(page, "accept", low + 2)  # and the other way round
        check(page, places[low + 2], places[low + 2])
        page.locator("#back").click()
        check(page, *own)
        page.locator('[value="unsure"]').check()
        assert set(cards(page)) == {i for i, o in enumerate(evaluation.outcomes) if o.verdict == "unsure"}


def test_more_cards_are_shown_on_demand(browser, plain_report):
    """Fewer than a page here, so the page is made smaller in the file itself."""
    small = plain_report.with_name("small.html")
    small.write_text(plain_report.read_text(encoding="utf-8").replace("const PAGE = 48;", "const PAGE = 15;"), "utf-8")
    with Opened(browser, small) as page:
        page.locator('[value="all"]').check()
        assert len(cards(page)) == 15
        page.locator("#more").click()
        assert len(cards(page)) == 30
        assert (
            page.evaluate("() => [...document.querySelectorAll('#cards button')].indexOf(document.activeElement)") == 15
        )
        page.locator("#more").click()
        assert len(cards(page)) == 40
        assert page.locator("#more").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(browser, plain_report, grey_report, scheme):
    for report in (plain_report, grey_report):
        with Opened(browser, report, viewport={"width": 390, "height": 844}, color_scheme=scheme) as page:
            page.locator('[value="all"]').check()
            cards(page)
            assert page.evaluate("() => document.documentElement.scrollWidth") == 390
            page.locator("#cards button").first.click()
            box = page.locator("#viewer").bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 390
            page.locator("#close").click()


def test_light_dark_and_print(browser, plain_case, plain_report):
    background = "() => getComputedStyle(document.body).backgroundColor"
    with Opened(browser, plain_report, color_scheme="dark") as page:
        dark = page.evaluate(background)
        page.emulate_media(color_scheme="light")
        light = page.evaluate(background)
        channels = [[int(c) for c in text[4:-1].split(",")] for text in (dark, light)]
        assert max(channels[0]) < 64
        assert min(channels[1]) > 240
        assert page.locator("#print-cards").is_hidden()
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate(background) == "rgb(255, 255, 255)"
        assert page.locator(".controls:visible").count() == 0
        assert page.locator("input:visible, button:visible, select:visible").count() == 0
        wrong = sum(o.verdict != ("bad" if o.sample.label else "good") for o in plain_case.evaluation.outcomes)
        assert page.locator("#print-cards > li:visible").count() == min(wrong, 24) > 0
        assert page.locator("#matrix").is_visible()
        assert len(page.pdf()) > 10_000


def test_without_a_script_the_figures_and_tables_are_there(browser, plain_report):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(plain_report.as_uri())
    assert page.locator("#matrix").is_visible()
    assert page.locator('svg[data-figure="roc"]').is_visible()
    assert page.locator("#metrics-title").is_visible()
    assert page.locator("input:visible, button:visible").count() == 0
    context.close()


def test_a_screen_reader_finds_names_and_order(browser, plain_report):
    with Opened(browser, plain_report) as page:
        page.locator('[value="all"]').check()
        cards(page)
        page.locator("#cards button").first.click()
        found = page.evaluate("""() => {
          const all = (selector) => [...document.querySelectorAll(selector)];
          const named = (element) => element.labels?.length || element.getAttribute("aria-label");
          const levels = all("main h1, main h2, main h3, header h1").map((heading) => Number(heading.tagName[1]));
          const ids = all("[id]").map((element) => element.id);
          return {
            language: document.documentElement.lang,
            images: all("img:not([alt])").length,
            photographs: all("img.photograph").filter((image) => !image.alt).length,
            inputs: all("input, select").filter((input) => !named(input)).length,
            buttons: all("button:not([hidden])").filter((b) => !b.getAttribute("aria-label") && !b.textContent.trim())
              .length,
            tables: all("table").filter((table) => !table.caption).length,
            headers: all("th:not([scope])").length,
            figures: all("svg[role=img]:not([aria-label])").length,
            jumps: levels.filter((level, place) => place && level > levels[place - 1] + 1).length,
            first: levels[0],
            ones: levels.filter((level) => level === 1).length,
            twice: ids.length - new Set(ids).size,
            live: all("[role=status]").length,
            unlabelled: all("[aria-labelledby]").map((e) => e.getAttribute("aria-labelledby"))
              .filter((id) => !document.getElementById(id)).length,
          };
        }""")
    assert found.pop("language") == "en"
    assert found.pop("first") == found.pop("ones") == 1
    assert found.pop("live") >= 2
    assert {name: count for name, count in found.items() if count} == {}
