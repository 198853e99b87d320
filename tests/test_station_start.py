"""A station that starts while its database is away: what works, what is refused, and that all of it follows."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest
from report_case import Case, make_case, make_samples
from sqlalchemy import text
from sqlalchemy.engine import make_url
from station_process import StationProcess
from station_servers import fresh_database
from test_station_recorder import Wire, wait_for

from supersimplenet.errors import StationError
from supersimplenet.evaluation.config import ThresholdConfig
from supersimplenet.station.access.accounts import Accounts
from supersimplenet.station.config import StationConfig
from supersimplenet.station.station import Station
from supersimplenet.station.storage.database import NotReachedError, open_database, writing
from supersimplenet.station.storage.results import Filter, count, every
from supersimplenet.station.storage.schema import METADATA


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    folder = tmp_path_factory.mktemp("case")
    return make_case(
        folder / "model", make_samples(folder / "data"), config=ThresholdConfig(max_false_alarms=0.25, max_escapes=0.25)
    )


@pytest.fixture
def wire(postgres_url) -> Iterator[Wire]:
    """The way to a PostgreSQL server, with the URL of a fresh database behind it."""
    own = Wire(make_url(postgres_url).port)
    address = make_url(fresh_database(postgres_url))
    own.direct = address.render_as_string(hide_password=False)
    own.url = address.set(port=own.port).render_as_string(hide_password=False)
    yield own
    own.close()


def code(answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.slow
def test_what_works_while_the_database_is_away_at_the_start(case, wire, browser, tmp_path):
    inbox, content = tmp_path / "inbox", case.samples[-1].image.read_bytes()
    inbox.mkdir()
    setup = {"sources": [{"name": "inbox", "kind": "folder", "folder": str(inbox)}]}
    options = {"folder": tmp_path / "station", "database": wire.url, "setup": setup}
    engine = open_database(wire.direct)
    station = StationProcess(case.detector.folder, **options)
    first = station.inspect(content, name="a.png")
    threshold = {"threshold_logit": first["score_logit"] + 1}
    station.client.put("/v1/products/parts/threshold", json=threshold).raise_for_status()
    own = station.inspect(content, name="a.png")["model"]
    parts = station.get("/v1/drift")[0]["parts"]
    station.stop()
    accounts = Accounts(engine)
    accounts.add_user("anna", "admin", "long enough", by="test")
    token = {"Authorization": f"Bearer {accounts.add_token('line-1', 'operator', by='test')}"}

    wire.cut()
    station.start()
    with station:
        assert station.get("/v1/live") == {"live": True}
        login = {"name": "anna", "password": "long enough"}
        for answer in (
            station.client.get("/v1/ready"),
            station.client.get("/v1/me"),
            station.client.post("/v1/login", json=login),
            station.client.post("/v1/inspect", content=content, headers=token | {"Content-Type": "image/png"}),
            station.client.post("/v1/inspect", content=content, headers={"Content-Type": "image/png"}),
            station.client.get("/v1/results"),
            station.client.get("/v1/results", headers=token),
            station.client.put("/v1/products/parts/threshold", json=threshold),
        ):
            assert code(answer) == (503, "database_not_reached")
            assert answer.headers["Retry-After"] == "5"
        assert re.search(r"^the database is away \(.*\); the station starts", station.log.read_text(), re.MULTILINE)
        page = browser.new_page(locale="de-DE")
        page.goto(station.address)
        page.wait_for_selector("#lost")
        assert "hat ihre Datenbank seit dem Start noch nicht erreicht" in page.inner_text("#lost")
        (inbox / "b.png").write_bytes(content)
        journal = station.folder / "waiting.jsonl"
        wait_for(lambda: journal.is_file() and journal.read_bytes().endswith(b"\n"))
        waiting = json.loads(journal.read_text())
        assert (waiting["name"], waiting["model"]) == ("b.png", own)  # by the threshold that was set

        wire.mend()
        wait_for(lambda: station.client.get("/v1/ready").status_code == 200)
        wait_for(lambda: not journal.exists())
        page.wait_for_url("**/login**")  # now the station knows that somebody has to log in
        page.close()
        assert code(station.client.get("/v1/results")) == (401, "unauthorized")
        assert station.client.get("/v1/results", headers=token).json()["results"][0]["id"] == waiting["id"]
        assert station.client.get("/v1/status", headers=token).json()["signs"] == []
        assert station.client.get("/v1/drift", headers=token).json()[0]["parts"] == parts  # loaded, not begun anew
        assert station.client.get(f"/v1/models/{own}", headers=token).status_code == 200
    assert "the database is back; 1 results followed" in station.log.read_text()
    assert [record["name"] for record in every(engine, Filter())] == ["a.png", "a.png", "b.png"]
    engine.dispose()


def test_a_station_that_never_had_its_database_waits_for_it(model, wire, tmp_path):
    def start(url: str) -> None:
        config = StationConfig(folder=tmp_path / "station", database=url, workers=1, reserve_mib=0)
        Station({"parts": model}, config, say=lambda text: None).close()

    never = pytest.raises(StationError, match="the database cannot be used")
    wire.cut()
    with never:
        start(wire.url)
    wire.mend()
    start(wire.url)
    wire.cut()
    start(wire.url)
    with never:  # thresholds may have been set there
        start(f"{wire.url}_other")
    (tmp_path / "station" / "database.json").write_text("damaged")
    with never:
        start(wire.url)


def test_tables_are_made_when_the_database_comes_and_before_anything_uses_it(wire):
    wire.cut()
    with pytest.raises(StationError, match="cannot be used"):
        open_database(wire.url)
    engine = open_database(wire.url, may_come_later=True)
    for _ in range(2):
        with pytest.raises(NotReachedError):
            count(engine, Filter())
    wire.mend()
    time.sleep(0.6)  # it is not asked again at once
    assert count(engine, Filter())["good"] == 0
    engine.dispose()


def test_tables_of_a_newer_version_are_left_alone_also_when_they_come_later(wire):
    direct = open_database(wire.direct)
    with writing(direct) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    wire.cut()
    engine = open_database(wire.url, may_come_later=True)
    wire.mend()
    time.sleep(0.6)
    with pytest.raises(NotReachedError, match=r"made by a newer version .*9999"), engine.connect():
        pass
    with direct.connect() as connection:
        names = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars()
        assert set(names) == {*METADATA.tables, "alembic_version"}
    for each in (engine, direct):
        each.dispose()
