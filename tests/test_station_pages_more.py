"""The pages Health, Threshold and Try of a station in a browser."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import expect
from station_process import StationProcess
from test_drift import model, part
from test_station_page import (
    PASSWORD,
    SOON_MS,
    WORDS,
    Opened,
    check_looks,
    log_in,
    log_in_by,
    until,
)

__all__ = ["model"]  # a fixture


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


def test_an_operator_sees_a_change_and_an_admin_accepts_it(browser, dim):
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
