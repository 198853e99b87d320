"""What a station records: each result once, also where the database is away, and what is removed in time."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress

import pytest
from PIL import Image
from sqlalchemy.engine import make_url
from station_records import result
from station_servers import fresh_database

from supersimplenet.errors import ConfigError, StationError
from supersimplenet.station.config import StationConfig
from supersimplenet.station.inspection import Picture, ReusedKeyError
from supersimplenet.station.station import Station
from supersimplenet.station.storage.database import Ids, now_ms, open_database, writing
from supersimplenet.station.storage.names import products
from supersimplenet.station.storage.pictures import PictureStore
from supersimplenet.station.storage.recorder import Recorder, insert_results
from supersimplenet.station.storage.results import Filter, every, find, of_part, parts_of
from supersimplenet.station.storage.retention import remove_pictures
from supersimplenet.station.storage.schema import METADATA, RESULTS
from supersimplenet.utils.journals import as_line

WITHIN_S = 30.0


class Wire:
    """The way to a server, which can be cut and mended."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._whole = True
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._whole = False
        for own in self._sockets:
            with suppress(OSError):  # it is closed already
                own.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def mend(self) -> None:
        self._whole = True

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._whole:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._forward, args=(one, other), daemon=True).start()

    @staticmethod
    def _forward(one: socket.socket, other: socket.socket) -> None:
        try:
            while block := one.recv(1 << 16):
                other.sendall(block)
        except OSError:
            pass
        for end in (one, other):  # closing alone would leave the other thread, and so the connection, waiting
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Answers:
    """What a recorder says of each result."""

    def __init__(self) -> None:
        self.found: list[tuple[dict, str]] = []
        self.said: list[str] = []

    def __call__(self, record: dict, stored: str) -> None:
        self.found.append((record, stored))

    def wait(self, number: int) -> list[str]:
        wait_for(lambda: len(self.found) >= number)
        return [stored for _, stored in self.found]


def wait_for(condition) -> None:
    end = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'station.db'}"
    return fresh_database(request.getfixturevalue("postgres_url"))


def ids(engine) -> list[str]:
    return [record["id"] for record in every(engine, Filter())]


def test_the_tables_are_those_of_the_schema_and_opening_twice_changes_nothing(url):
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    open_database(url).dispose()
    engine = open_database(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    engine.dispose()


def test_tables_of_a_newer_version_are_left_alone(url):
    engine = open_database(url)
    with writing(engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    engine.dispose()
    with pytest.raises(StationError, match=r"made by a newer version .*9999.* install that version"):
        open_database(url)


@pytest.mark.parametrize(
    ("url", "kind", "message"),
    [
        ("nonsense", ConfigError, "database: not a URL"),
        ("mysql://host/base", ConfigError, "'mysql'; wanted sqlite or postgresql"),
        ("postgres://host/base", ConfigError, "; write postgresql:// in place of postgres://"),
        ("postgresql://user:secret@127.0.0.1:1/base", StationError, "cannot be used"),
    ],
)
def test_a_database_that_cannot_be_used_is_said_without_its_password(url, kind, message):
    with pytest.raises(kind, match=message) as caught:
        open_database(url)
    assert "secret" not in str(caught.value)


def test_products_are_those_that_have_results(url):
    engine = open_database(url)
    assert products(engine) == []
    insert_results(engine, [result() | {"product": name} for name in ("lids", "boxes", "lids", "parts", "boxes")])
    assert products(engine) == ["boxes", "lids", "parts"]
    engine.dispose()


def test_each_result_is_there_once_and_a_known_key_gives_the_first(url, tmp_path):
    engine, answers = open_database(url), Answers()
    published = []
    recorder = Recorder(
        engine,
        tmp_path / "waiting.jsonl",
        say=answers.said.append,
        published=lambda new, _: published.extend(new),
    )
    sent = [result(), result("k"), result("k"), result()]
    for record in sent:
        recorder.put(record, answers)
    assert answers.wait(4) == ["database"] * 4
    recorder.close()
    first = [record["id"] for record in sent if record is not sent[2]]
    assert ids(engine) == first
    assert [record["id"] for record, _ in answers.found] == [sent[0]["id"], sent[1]["id"], sent[1]["id"], sent[3]["id"]]
    assert insert_results(engine, [sent[0]]) == ([sent[0]], [])  # again, as after a power cut
    assert ids(engine) == first
    assert find(engine, sent[0]["id"]) == sent[0]
    assert answers.said == []
    engine.dispose()


def test_results_wait_on_the_disk_while_the_database_is_away(postgres_url, tmp_path):
    address = make_url(fresh_database(postgres_url))
    wire = Wire(address.port)
    engine = open_database(address.set(port=wire.port).render_as_string(hide_password=False))
    journal, answers = tmp_path / "waiting.jsonl", Answers()
    recorder = Recorder(engine, journal, say=answers.said.append)
    sent = [result() for _ in range(6)]
    recorder.put(sent[0], answers)
    answers.wait(1)
    wire.cut()
    for record in sent[1:5]:
        recorder.put(record, answers)
    assert answers.wait(5) == ["database"] + ["journal"] * 4
    assert recorder.away
    assert [json.loads(line)["id"] for line in journal.read_text().splitlines()] == [r["id"] for r in sent[1:5]]
    recorder.close()  # the station is stopped while the database is away
    wire.mend()
    again = Recorder(engine, journal, say=answers.said.append)
    wait_for(lambda: not again.away)
    again.put(sent[5], answers)
    assert answers.wait(6)[-1] == "database"
    again.close()
    assert ids(engine) == [record["id"] for record in sent]
    assert not journal.exists()
    assert answers.said[0].startswith("the database cannot be written")
    assert answers.said[-1] == "the database is back; 4 results followed"
    engine.dispose()
    wire.close()


def test_the_id_of_a_repeat_that_was_answered_without_the_database_leads_to_the_first(url, tmp_path):
    engine = open_database(url)
    first, repeat = result("k"), result("k")
    insert_results(engine, [first])
    journal = tmp_path / "waiting.jsonl"
    journal.write_bytes(as_line(repeat))
    published = []
    recorder = Recorder(engine, journal, say=lambda text: None, published=lambda new, _: published.extend(new))
    wait_for(lambda: not recorder.away)
    recorder.close()
    assert ids(engine) == [first["id"]]
    assert find(engine, repeat["id"]) == find(engine, first["id"]) == first
    assert published == []
    engine.dispose()


@pytest.mark.parametrize("change", [{"picture": "b" * 64}, {"product": "lids"}])
def test_a_key_that_came_again_with_another_picture_meanwhile_is_a_result_of_its_own(url, change):
    engine = open_database(url)
    first, other = result("k"), result("k") | change
    insert_results(engine, [first])
    insert_results(engine, [other], answered=True)
    assert ids(engine) == [first["id"], other["id"]]
    assert find(engine, other["id"]) == other | {"key": None}
    engine.dispose()


def test_a_result_that_the_database_refuses_keeps_no_other_waiting(url, tmp_path):
    engine, answers = open_database(url), Answers()
    recorder = Recorder(engine, tmp_path / "waiting.jsonl", say=answers.said.append)
    bad, others = result() | {"product": None}, [result(), result()]
    for record in (others[0], bad, others[1]):
        recorder.put(record, answers)
    answers.wait(3)
    wait_for(lambda: not recorder.away and len(ids(engine)) == 2)
    recorder.close()
    assert ids(engine) == [record["id"] for record in others]
    assert [json.loads(line)["id"] for line in (tmp_path / "refused.jsonl").read_text().splitlines()] == [bad["id"]]
    assert any("refuses a result" in text for text in answers.said)
    engine.dispose()


def test_what_is_set_aside_as_the_database_comes_back_follows_too(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'station.db'}")
    recorder = Recorder(engine, tmp_path / "waiting.jsonl", say=lambda text: None)
    late = result()
    assert recorder._set_aside([late]) == "journal"  # decided while it was away, done when it is back
    wait_for(lambda: ids(engine) == [late["id"]])
    wait_for(lambda: not recorder.away)
    recorder.close()
    engine.dispose()


def test_who_fails_to_listen_stops_no_recording(tmp_path):
    engine, answers = open_database(f"sqlite:///{tmp_path / 'station.db'}"), Answers()

    def broken(records, stored) -> None:
        raise RuntimeError("the event loop is closed")

    recorder = Recorder(engine, tmp_path / "waiting.jsonl", say=answers.said.append, published=broken)
    for record in (result(), result()):
        recorder.put(record, answers)
        answers.wait(1)
    assert answers.wait(2) == ["database"] * 2
    recorder.close()
    engine.dispose()


def test_a_journal_that_cannot_be_written_whole_keeps_what_it_had(tmp_path):
    resource = pytest.importorskip("resource")
    journal = tmp_path / "waiting.jsonl"
    assert Recorder._write_journal(journal, [result()])
    before, limits = journal.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))  # a disk with room for a part of a line
    try:
        assert not Recorder._write_journal(journal, [result(), result()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert journal.read_bytes() == before


def test_results_wait_in_memory_where_the_disk_cannot_be_written_either(postgres_url, tmp_path):
    address = make_url(fresh_database(postgres_url))
    wire = Wire(address.port)
    engine = open_database(address.set(port=wire.port).render_as_string(hide_password=False))
    answers = Answers()
    recorder = Recorder(engine, tmp_path / "no folder" / "waiting.jsonl", say=answers.said.append)
    wire.cut()
    sent = [result() for _ in range(3)]
    for record in sent:
        recorder.put(record, answers)
    assert answers.wait(3) == ["memory"] * 3
    wire.mend()
    wait_for(lambda: not recorder.away)
    recorder.close()
    assert ids(engine) == [record["id"] for record in sent]
    engine.dispose()
    wire.close()


def test_a_line_that_a_power_cut_has_torn_costs_no_other(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'station.db'}")
    whole, journal = [result(), result()], tmp_path / "waiting.jsonl"
    journal.write_bytes(b"".join(map(as_line, whole)) + as_line(result())[:50])
    recorder = Recorder(engine, journal, say=lambda text: None)
    wait_for(lambda: not recorder.away)
    recorder.close()
    assert ids(engine) == [record["id"] for record in whole]
    engine.dispose()


def age(store: PictureStore) -> None:
    """Let all pictures have come eleven minutes ago."""
    for path in store.all_pictures():
        os.utime(path, (time.time() - 660, time.time() - 660))


def test_a_picture_that_comes_again_while_it_is_removed_stays_for_its_new_result(url, tmp_path):
    engine, store = open_database(url), PictureStore(tmp_path / "pictures")
    names = ["a" * 64, "b" * 64]
    old = [result(picture=name, at=now_ms() - 9 * 86_400_000) | {"kind": "bmp"} for name in names]
    for name in names:
        store.add_picture(b"BM", name)
    insert_results(engine, old)
    age(store)
    for name in names:
        store.add_picture(b"BM", name)  # it came again; its result is not in the database yet
    config = StationConfig(folder=tmp_path, keep_days=7)
    assert remove_pictures(engine, store, config) == 2
    assert {path.stem for path in store.all_pictures()} == set(names)
    insert_results(engine, [result(picture=names[0]) | {"kind": "bmp"}])  # that of the other one is refused
    assert remove_pictures(engine, store, config) == 0
    assert {path.stem for path in store.all_pictures()} == set(names)
    age(store)
    remove_pictures(engine, store, config)
    assert [path.stem for path in store.all_pictures()] == names[:1]
    assert not store.unclaimed
    engine.dispose()


def test_what_is_kept_of_a_picture_whose_key_is_refused_is_removed(model, tmp_path):
    config = StationConfig(folder=tmp_path / "station", workers=1, reserve_mib=0)
    with Station({"parts": model}, config, say=lambda text: None) as station:
        contents = []
        for shade in (20, 30):
            encoded = io.BytesIO()
            Image.new("RGB", (64, 64), (shade, 0, 0)).save(encoded, "PNG")
            contents.append(encoded.getvalue())
        pictures = [Picture(content=content, name="a.png", source="test", key="k") for content in contents]
        first, other = station.inspections.submit(pictures, station.models.of("parts"))
        record = first.result(WITHIN_S).record
        with pytest.raises(ReusedKeyError):
            other.result(WITHIN_S)
        age(station.store)
        remove_pictures(station.engine, station.store, config)
        assert [path.stem for path in station.store.all_pictures()] == [record["picture"]]
        assert [path.stem for path in (config.folder / "maps").glob("*/*")] == [record["id"]]


def test_old_pictures_are_removed_good_ones_first_and_rows_stay(url, tmp_path):
    engine, store = open_database(url), PictureStore(tmp_path / "pictures")
    day = 86_400_000
    records = []
    for number in range(8):  # a MiB each, one a day, every other one bad
        content = os.urandom(1 << 20)
        sha256 = f"{number:064x}"
        store.add_picture(b"BM" + content, sha256)
        age(store)
        verdict = "bad" if number % 2 else "good"
        records.append(result(verdict=verdict, at=now_ms() - (8 - number) * day, picture=sha256) | {"kind": "bmp"})
    shared = result(at=now_ms(), picture=records[0]["picture"]) | {"kind": "bmp"}  # today the same picture came again
    insert_results(engine, [*records, shared])
    assert remove_pictures(engine, store, StationConfig(folder=tmp_path)) == 0
    assert remove_pictures(engine, store, StationConfig(folder=tmp_path, keep_days=6.5)) == 2
    left = {int(path.stem, 16) for path in store.all_pictures()}
    assert left == {0, 2, 3, 4, 5, 6, 7}  # 0 is kept for today's result
    limit = StationConfig(folder=tmp_path, keep_gib=4 / 1024)
    removed = remove_pictures(engine, store, limit)
    kept = {int(record["picture"], 16) for record in every(engine, Filter()) if record["kept"]}
    assert kept == {int(path.stem, 16) for path in store.all_pictures()}
    assert removed > 0
    assert len(kept) <= 4
    assert len(ids(engine)) == 9
    engine.dispose()


def test_photographs_of_a_name_that_comes_again_later_are_of_another_part(url):
    engine = open_database(url)
    hour, at = 3_600_000, now_ms()
    times = [at, at + hour // 2, at + 9 * hour]
    verdicts = ["bad", "good", "good"]
    records = [result(at=ms, verdict=verdict) | {"part": "17"} for ms, verdict in zip(times, verdicts, strict=True)]
    other = result(at=at, verdict="bad") | {"part": "17", "product": "lids"}
    insert_results(engine, [*records, other])
    parts = parts_of(engine, records, within_ms=hour)
    assert [(parts[each["id"]].verdict, parts[each["id"]].photographs) for each in records] == [
        ("bad", 2),
        ("bad", 2),
        ("good", 1),
    ]
    verdict, photographs = of_part(engine, "parts", "17", within_ms=hour)
    assert (verdict.verdict, [each["id"] for each in photographs]) == ("good", [records[2]["id"]])
    engine.dispose()


def test_ids_rise_also_where_the_clock_is_set_back():
    own = Ids()
    made = [own.new(at) for at in (5, 5, 6, 3, 7)]
    assert made == sorted(made)
    assert len(set(made)) == 5
    assert {len(name) for name in made} == {32}
    assert all(map(own.has_made, made))
    assert not any(map(Ids().has_made, made))


def test_hashes_alone_make_paths(tmp_path):
    store = PictureStore(tmp_path)
    for name in ("../../etc/passwd", "A" * 64, "", "a" * 63):
        with pytest.raises(ValueError, match="wanted hexadecimal digits"):
            store.picture(name, "png")


def test_columns_of_a_record_are_those_of_the_table():
    assert set(result()) == set(RESULTS.c.keys())
