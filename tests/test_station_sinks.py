"""What sinks get of a station: each result at least once, in order, signed, and nothing lost while they are away."""

from __future__ import annotations

import csv
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from sqlalchemy import text
from standardwebhooks.webhooks import Webhook as Receiver
from station_process import StationProcess
from station_records import IDS, result
from test_station_recorder import Wire, wait_for

from supersimplenet.cli.main import main
from supersimplenet.errors import ConfigError
from supersimplenet.station.access.audit import entries
from supersimplenet.station.setup import read_setup, setup_of
from supersimplenet.station.sinks.delivery import Delivery
from supersimplenet.station.sinks.opening import make_sink
from supersimplenet.station.sinks.outbox import numbers_waiting
from supersimplenet.station.storage.database import Ids, now_ms, open_database, writing
from supersimplenet.station.storage.recorder import Recorder, insert_results
from supersimplenet.station.storage.results import public
from supersimplenet.utils.journals import as_line

SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSB0ZXN0cywgMzIgYnl0ZXMgbG9uZw=="


class Webhooks:
    """A receiver of webhooks in this process: what it got, and what it answers."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.statuses: list[int] = []  # of the next answers; 200 after them
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = receiver.statuses.pop(0) if receiver.statuses else 200
                receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", f"http://127.0.0.1:{receiver.port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def ids(self) -> list[str]:
        return [json.loads(body)["data"]["id"] for _, body in self.got]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def webhooks() -> Iterator[Webhooks]:
    receiver = Webhooks()
    yield receiver
    receiver.close()


@contextmanager
def delivering(url: str, folder: Path, sinks: list[dict], *, said: list[str] | None = None) -> Iterator[tuple]:
    """Run a recorder with sinks, as a station does; yield it and the deliveries."""
    engine = open_database(url)
    say = ([] if said is None else said).append
    deliveries = [
        Delivery(
            settings.name,
            settings.kind,
            make_sink(settings),
            engine=engine,
            is_new=IDS.has_made,
            public=lambda records: [public(record) for record in records],
            folder=folder,
            say=say,
        )
        for settings in setup_of({"sinks": sinks}).sinks
    ]

    def published(records, stored) -> None:
        for delivery in deliveries:
            delivery.add(records)

    names = [delivery.name for delivery in deliveries]
    recorder = Recorder(engine, folder / "waiting.jsonl", say=say, sinks=names, published=published)
    try:
        yield recorder, deliveries
    finally:
        recorder.close()
        for delivery in deliveries:
            delivery.close()
        engine.dispose()


def put(recorder: Recorder, records: list[dict]) -> None:
    """Record results, and wait until they are safe."""
    stored = []
    for record in records:
        recorder.put(record, lambda record, where: stored.append(where))
    wait_for(lambda: len(stored) == len(records))


def sqlite(folder: Path) -> str:
    return f"sqlite:///{folder / 'station.db'}"


def waiting(url: str) -> dict[str, int]:
    engine = open_database(url)
    found = numbers_waiting(engine)
    engine.dispose()
    return found


def test_a_webhook_is_signed_and_its_receiver_refuses_what_was_changed_or_comes_late(webhooks, tmp_path):
    (tmp_path / "secret").write_text(SECRET + "\n")
    hook = {
        "name": "mes",
        "kind": "webhook",
        "url": f"http://127.0.0.1:{webhooks.port}/hook",
        "secret_file": str(tmp_path / "secret"),
    }
    with delivering(sqlite(tmp_path), tmp_path, [hook]) as (recorder, _):
        records = [result(verdict="bad"), result()]
        put(recorder, records)
        wait_for(lambda: len(webhooks.got) == 2)
    assert webhooks.ids == [record["id"] for record in records]
    headers, body = webhooks.got[0]
    receiver = Receiver(SECRET)
    data = receiver.verify(body, headers)["data"]
    assert data == {**public(records[0]), "repeat": False}
    assert headers["webhook-id"] == records[0]["id"]
    for wrong in (
        (body.replace(b'"bad"', b'"good"'), headers),
        (body, headers | {"webhook-id": records[1]["id"]}),
        (body, headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) - 600)}),  # replayed
    ):
        with pytest.raises(Exception, match=r"signature|timestamp"):
            receiver.verify(*wrong)
    assert waiting(sqlite(tmp_path)) == {}


def test_results_wait_in_order_for_a_sink_that_is_away_and_repeats_are_marked(webhooks, tmp_path, monkeypatch):
    from supersimplenet.station.sinks import delivery

    monkeypatch.setattr(delivery, "_WAITS_S", (0.05, 0.1))
    monkeypatch.setattr(delivery, "_IN_MEMORY", 3)  # so that the outbox is read, too
    hook = {"name": "mes", "kind": "webhook", "url": f"http://127.0.0.1:{webhooks.port}/hook"}
    webhooks.statuses = [200, 503, 500, 429]
    said: list[str] = []
    with delivering(sqlite(tmp_path), tmp_path, [hook], said=said) as (recorder, (mes,)):
        records = [result() for _ in range(12)]
        for record in records:
            put(recorder, [record])
        wait_for(lambda: webhooks.ids[-1:] == [records[-1]["id"]])
        wait_for(lambda: not mes.state.away)
    assert list(dict.fromkeys(webhooks.ids)) == [record["id"] for record in records]
    repeats = [json.loads(body)["data"]["repeat"] for _, body in webhooks.got]
    second = [repeat for id_, repeat in zip(webhooks.ids, repeats, strict=True) if id_ == records[1]["id"]]
    assert second == [False, True, True, True]
    assert sum(repeats) == len(webhooks.got) - len(records)
    assert said == ["sink 'mes' is away (status 503); results wait for it", "sink 'mes' is back"]
    assert waiting(sqlite(tmp_path)) == {}


def test_what_a_sink_refuses_is_set_aside_and_the_next_ones_follow(webhooks, tmp_path):
    hook = {"name": "mes", "kind": "webhook", "url": f"http://127.0.0.1:{webhooks.port}/hook"}
    webhooks.statuses = [422]
    records = [result(), result()]
    with delivering(sqlite(tmp_path), tmp_path, [hook]) as (recorder, (mes,)):
        put(recorder, records)
        wait_for(lambda: len(webhooks.got) == 2)
        wait_for(lambda: mes.state.refused == 1)
    (refused,) = map(json.loads, (tmp_path / "refused-mes.jsonl").read_text().splitlines())
    assert (refused["id"], refused["result"]["verdict"]) == (records[0]["id"], "good")
    assert waiting(sqlite(tmp_path)) == {}


def test_a_receiver_sends_no_result_elsewhere(webhooks, tmp_path):
    hook = {"name": "mes", "kind": "webhook", "url": f"http://127.0.0.1:{webhooks.port}/hook"}
    webhooks.statuses = [302]
    with delivering(sqlite(tmp_path), tmp_path, [hook]) as (recorder, (mes,)):
        put(recorder, [result()])
        wait_for(lambda: mes.state.away)
        assert mes.state.reason == "status 302"
        wait_for(lambda: len(webhooks.got) == 2)  # sent again to where it was set up
    assert len(set(webhooks.ids)) == 1


def test_a_sink_gets_results_while_the_database_is_away_and_none_twice_after_it(postgres_url, webhooks, tmp_path):
    from sqlalchemy.engine import make_url
    from station_servers import fresh_database

    url = fresh_database(postgres_url)
    wire = Wire(make_url(url).port)
    through = make_url(url).set(port=wire.port).render_as_string(hide_password=False)
    hook = {"name": "mes", "kind": "webhook", "url": f"http://127.0.0.1:{webhooks.port}/hook"}
    with delivering(through, tmp_path, [hook]) as (recorder, _):
        records = [result() for _ in range(6)]
        put(recorder, records[:2])
        wait_for(lambda: len(webhooks.got) == 2)
        wire.cut()
        put(recorder, records[2:4])
        wait_for(lambda: len(webhooks.got) == 4)
        assert recorder.away
        wire.mend()
        wait_for(lambda: not recorder.away)
        put(recorder, records[4:])
        wait_for(lambda: len(webhooks.got) == 6)
        wait_for(lambda: waiting(url) == {})
    wire.close()
    assert webhooks.ids == [record["id"] for record in records]
    assert not any(json.loads(body)["data"]["repeat"] for _, body in webhooks.got)


@pytest.mark.parametrize("ahead_ms", [-60_000, 3_600_000], ids=["clock", "clock-set-back"])
@pytest.mark.parametrize("place", ["outbox", "journal"])
def test_what_an_earlier_run_left_is_delivered_first_and_marked(webhooks, tmp_path, ahead_ms, place):
    hook = {"name": "mes", "kind": "webhook", "url": f"http://127.0.0.1:{webhooks.port}/hook"}
    at, own = now_ms() + ahead_ms, Ids()
    earlier = [result(at=at) | {"id": own.new(at)} for _ in range(3)]
    if place == "outbox":
        engine = open_database(sqlite(tmp_path))
        insert_results(engine, earlier, sinks=["mes"])
        engine.dispose()
    else:  # a sink that kept up has got them, while the database was away
        (tmp_path / "waiting.jsonl").write_bytes(b"".join(map(as_line, earlier)))
    with delivering(sqlite(tmp_path), tmp_path, [hook]) as (recorder, _):
        wait_for(lambda: not recorder.away)
        later = result()
        put(recorder, [later])
        wait_for(lambda: len(webhooks.got) == 4)
    assert webhooks.ids == [record["id"] for record in (*earlier, later)]
    assert [json.loads(body)["data"]["repeat"] for _, body in webhooks.got] == [True, True, True, False]


def test_a_clock_that_is_set_back_makes_no_repeat_of_what_is_new(webhooks, tmp_path):
    hook = {"name": "mes", "kind": "webhook", "url": f"http://127.0.0.1:{webhooks.port}/hook"}
    at = now_ms() - 3_600_000
    with delivering(sqlite(tmp_path), tmp_path, [hook]) as (recorder, _):
        put(recorder, [result(at=at) | {"id": f"{at:012x}{IDS.new(at)[12:]}"}])
        wait_for(lambda: len(webhooks.got) == 1)
    assert not json.loads(webhooks.got[0][1])["data"]["repeat"]


def test_what_waits_for_a_sink_can_be_seen_and_dropped(tmp_path, capsys):
    engine = open_database(sqlite(tmp_path))
    insert_results(engine, [result(), result()], sinks=["mes", "gate"])
    engine.dispose()
    place = ["--folder", str(tmp_path)]
    assert main(["station", "outbox", *place]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [["gate", "2"], ["mes", "2"]]
    assert main(["station", "outbox", "--drop", "gates", *place]) == 2
    assert "these have: gate, mes" in capsys.readouterr().err
    assert main(["station", "outbox", "--drop", "mes", *place]) == 0
    assert waiting(sqlite(tmp_path)) == {"gate": 2}
    engine = open_database(sqlite(tmp_path))
    with engine.connect() as connection:
        assert entries(connection)[0].details == {"sink": "mes", "results": 2}
    engine.dispose()


def test_what_waits_for_a_sink_of_a_running_station_is_not_dropped(model, webhooks, tmp_path, capsys):
    folder = tmp_path / "station"
    webhooks.statuses = [503] * 1000
    hook = {"name": "mes", "kind": "webhook", "url": f"http://127.0.0.1:{webhooks.port}/hook"}
    drop = ["station", "outbox", "--folder", str(folder), "--drop"]
    with StationProcess(model, folder=folder, setup={"sinks": [hook]}) as station:
        engine = open_database(sqlite(folder))
        insert_results(engine, [result()], sinks=["mes", "gone"])
        assert main([*drop, "mes"]) == 2
        assert f"the station that runs has the sink 'mes' (pid {station.process.pid}," in capsys.readouterr().err
        assert main([*drop, "gone"]) == 0  # as the sign on the page says
        assert numbers_waiting(engine) == {"mes": 1}
        station.kill()  # what a killed process leaves locks nothing
        assert main([*drop, "mes"]) == 0
        assert numbers_waiting(engine) == {}
        engine.dispose()


def test_a_sink_is_dropped_with_the_folder_that_says_whether_the_station_has_it(tmp_path, capsys):
    open_database(sqlite(tmp_path)).dispose()
    place = ["--database", sqlite(tmp_path), "--folder", str(tmp_path / "none")]
    assert main(["station", "outbox", "--drop", "mes", *place]) == 2
    assert "none: no such folder; it says which sinks the station has" in capsys.readouterr().err


def test_a_result_and_its_place_in_the_outbox_are_one_transaction(tmp_path):
    engine = open_database(sqlite(tmp_path))
    with writing(engine) as connection:
        connection.execute(text("DROP TABLE outbox"))
    engine.dispose()
    folder = {"name": "day", "kind": "files", "folder": str(tmp_path / "tables")}
    engine = open_database(sqlite(tmp_path))
    recorder = Recorder(engine, tmp_path / "waiting.jsonl", say=lambda text: None, sinks=[folder["name"]])
    put(recorder, [result()])
    assert recorder.away  # it waits whole, in the journal
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM results")).scalar_one() == 0
    recorder.close()
    engine.dispose()


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_a_day_has_each_result_once_also_after_a_kill(tmp_path):
    day = datetime.now(timezone.utc).date()
    table = tmp_path / "tables" / f"results-{day}.csv"
    files = {"name": "day", "kind": "files", "folder": str(table.parent)}
    records = [result() | {"name": "=SUM(A1)\r\n2"}, result(verdict="bad")]
    with delivering(sqlite(tmp_path), tmp_path, [files]) as (recorder, _):
        put(recorder, records)
        wait_for(lambda: table.is_file() and table.read_bytes().count(b"\n") >= 3)
    whole = table.read_bytes()
    assert [row["id"] for row in read(table)] == [record["id"] for record in records]
    assert read(table)[0]["name"].startswith("'=SUM")
    assert (read(table)[1]["verdict"], float(read(table)[1]["score"])) == ("bad", 0.25)
    table.write_bytes(whole + whole.splitlines()[-1][:40])  # as a power cut leaves it
    sink = make_sink(setup_of({"sinks": [files]}).sinks[0])
    sink.open()
    third = result()
    for record, repeat in ((records[1], True), (third, False)):
        sink.deliver({**public(record), "repeat": repeat})
    sink.confirm()
    sink.close()
    assert [row["id"] for row in read(table)] == [*(record["id"] for record in records), third["id"]]


@pytest.mark.parametrize("change", ["replaced", "removed"])
def test_a_table_that_is_replaced_or_removed_loses_no_result(tmp_path, change):
    folder = tmp_path / "tables"
    sink = make_sink(setup_of({"sinks": [{"name": "day", "kind": "files", "folder": str(folder)}]}).sinks[0])
    sink.open()
    records = [result(), result()]
    sink.deliver({**public(records[0]), "repeat": False})
    (table,) = folder.iterdir()
    if change == "replaced":  # as editors save
        (folder / "copy").write_bytes(table.read_bytes())
        (folder / "copy").replace(table)
    else:
        shutil.rmtree(folder)
    sink.deliver({**public(records[1]), "repeat": False})
    sink.confirm()
    sink.close()
    kept = records if change == "replaced" else records[1:]
    assert [row["id"] for row in read(table)] == [record["id"] for record in kept]


def test_a_finished_day_becomes_parquet_and_loses_nothing(tmp_path):
    files = {"name": "day", "kind": "files", "folder": str(tmp_path), "format": "parquet"}
    noon = datetime(2026, 11, 27, 12, tzinfo=timezone.utc)
    at = [round((noon + timedelta(days=days)).timestamp() * 1000) for days in (0, 0, 1, 2, 0, 3)]
    records = [result(at=ms) for ms in at]
    sink = make_sink(setup_of({"sinks": [files]}).sinks[0])
    for some in (records[:5], records[5:]):  # the fifth is of a day that has become Parquet
        sink.open()
        for record in some:
            sink.deliver({**public(record), "repeat": False})
        sink.confirm()
        sink.close()
    first = pq.read_table(tmp_path / "results-2026-11-27.parquet").to_pylist()
    assert [row["id"] for row in first] == [records[0]["id"], records[1]["id"], records[4]["id"]]
    assert (first[0]["score"], first[0]["calibrated"], first[0]["defects"]) == (0.25, True, 0)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "results-2026-11-27.parquet",
        "results-2026-11-28.parquet",
        "results-2026-11-29.csv",
        "results-2026-11-30.csv",
    ]


PLANT = {"name": "plant", "kind": "mqtt", "host": "broker"}


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        (
            {"sinks": [{"name": "a", "kind": "mqqt"}]},
            r"sink 'a': kind: 'mqqt'; did you mean mqtt\?; wanted files, modbus,",
        ),
        ({"sinks": [{"name": "a"}]}, r"sink 'a': kind is missing; wanted files,"),
        ({"sinks": [{"kind": "files", "folder": "x"}]}, r"sink 1: name is missing"),
        ({"sinks": [{"name": "a", "kind": "files"}]}, r"sink 'a': folder is missing"),
        (
            {"sinks": [PLANT | {"name": "A b"}]},
            r"name: wanted at most 50 small letters, digits, - and _ \(found 'A b'\)",
        ),
        ({"sinks": [PLANT | {"hots": "x"}]}, r"sink 'plant': hots: no such setting; did you mean host\?"),
        ({"sinks": [PLANT | {"port": "x"}]}, r"sink 'plant': port: wanted a number \(found 'x'\)"),
        ({"sinks": [PLANT | {"host": "mqtt://x"}]}, r"host: wanted the name or address of a computer"),
        ({"sinks": PLANT}, r"sinks: wanted a list, each entry with - before it"),
        ({"sinks": ["plant"]}, r"sink 1: wanted settings, each as name: value"),
        ({"sinks": [PLANT, PLANT]}, r"two sinks are named 'plant'"),
        ({"sinks": [PLANT, PLANT | {"name": "b"}]}, r"two sinks write to the topics of supersimplenet at broker:1883"),
        ({"sink": []}, r"sink: no such setting; did you mean sinks\?"),
        (
            {
                "sources": [
                    {"name": "c", "kind": "camera", "device": 0, "trigger": {"kind": "mqtt", "host": "b", "tpic": "t"}}
                ]
            },
            r"source 'c': trigger\.tpic: no such setting; did you mean topic\?",
        ),
        ([], r"wanted settings, each as name: value"),
    ],
)
def test_a_setup_that_cannot_be_is_said_with_its_place(plain, message):
    with pytest.raises(ConfigError, match=message):
        setup_of(plain)


@pytest.mark.parametrize(
    "sink",
    [
        PLANT | {"password": "s3cret"},
        PLANT | {"username": "u", "password_file": "s3cret"},
        {"name": "a", "kind": "webhook", "url": "host/?token=s3cret"},
        {"name": "a", "kind": "webhook", "url": "http://host/", "secret_file": "s3cret"},
    ],
)
def test_a_secret_that_stands_at_the_wrong_place_is_not_shown(sink):
    with pytest.raises(ConfigError) as refused:
        make_sink(setup_of({"sinks": [sink]}).sinks[0])
    assert "s3cret" not in str(refused.value)


def test_paths_of_a_setup_file_begin_at_its_folder(tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "setup.yaml").write_text("sinks:\n- {name: day, kind: files, folder: tables}\n")
    setup = read_setup(tmp_path / "conf" / "setup.yaml")
    assert setup.sinks[0].folder == tmp_path / "conf" / "tables"


@pytest.mark.parametrize("content", [b"", b"whsec_c2hvcnQ=", b"no base64!", b"\xff\xfe"])
def test_a_secret_that_protects_nothing_is_refused(tmp_path, content):
    (tmp_path / "secret").write_bytes(content)
    hook = {"name": "a", "kind": "webhook", "url": "http://127.0.0.1/", "secret_file": str(tmp_path / "secret")}
    with pytest.raises(ConfigError, match=r"secret_file: .*wanted whsec_ and base64 of 24 to 64 bytes"):
        make_sink(setup_of({"sinks": [hook]}).sinks[0])
