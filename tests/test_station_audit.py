"""The audit trail: what was changed, removed, moved, cut or computed anew is found, on SQLite and PostgreSQL."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete, func, insert, select, text, update
from station_servers import fresh_database

from supersimplenet.cli.main import main
from supersimplenet.station.access import audit
from supersimplenet.station.access.audit import EMPTY, Fault, Head
from supersimplenet.station.storage.database import open_database, writing
from supersimplenet.station.storage.schema import AUDIT


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'station.db'}"
    else:
        url = fresh_database(request.getfixturevalue("postgres_url"))
    engine = open_database(url)
    yield engine
    engine.dispose()


def fill(engine: Engine, count: int = 5) -> list[Head]:
    """Add entries, each in a transaction of its own, and return the heads."""
    heads = []
    for number in range(1, count + 1):
        with writing(engine) as connection:
            heads.append(audit.append(connection, who="anna", what="set", details={"to": number / 10, "of": "Größe"}))
    return heads


def fault(engine: Engine, head: Head | None = None) -> Fault | None:
    with engine.connect() as connection:
        return audit.check(connection, head=head)


def test_a_whole_trail_is_whole_and_its_hash_can_be_computed_by_others(engine):
    with engine.connect() as connection:
        assert audit.head(connection) == EMPTY
        assert audit.check(connection, head=EMPTY) is None
    heads = fill(engine)
    with engine.connect() as connection:
        assert audit.head(connection) == heads[-1]
        newest, *others = audit.entries(connection)
    assert [head.number for head in heads] == [1, 2, 3, 4, 5]
    assert newest.details == {"to": 0.5, "of": "Größe"}
    assert newest.previous == others[0].hash == heads[-2].hash
    plain = asdict(newest)
    del plain["hash"]
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()
    assert hashlib.sha256(canonical).hexdigest() == newest.hash
    assert all(fault(engine, head) is None for head in [None, *heads])


def test_entries_come_in_pages_the_newest_first(engine):
    fill(engine)
    with engine.connect() as connection:
        assert [entry.number for entry in audit.entries(connection, limit=2)] == [5, 4]
        assert [entry.number for entry in audit.entries(connection, before=4, limit=2)] == [3, 2]
        assert audit.entries(connection, before=1) == []


def test_a_changed_entry_is_found(engine):
    fill(engine)
    for change in (
        {"who": "bert"},
        {"what": "get"},
        {"at": 5},
        {"details": {"to": 0.3, "of": "Grösse"}},
        {"details": {"to": 0.3, "of": "Größe", "by": None}},
        {"hash": "f" * 64},
    ):
        with engine.connect() as connection:  # rolled back at the end
            connection.execute(update(AUDIT).where(AUDIT.c.number == 3).values(**change))
            assert audit.check(connection) == Fault(3, "it was changed: its hash is another one"), change
    assert fault(engine) is None


def test_details_that_are_no_json_are_a_fault_and_no_error(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'station.db'}")
    fill(engine)
    for garbage in ("{", "NaN", "[" * 100_000):
        with engine.begin() as connection:
            connection.execute(text("UPDATE audit SET details = :garbage WHERE number = 2"), {"garbage": garbage})
        assert fault(engine) == Fault(2, "it was changed: its hash is another one")
    engine.dispose()


def test_a_removed_entry_is_found(engine):
    fill(engine)
    for removed in (1, 3):
        with engine.connect() as connection:
            connection.execute(delete(AUDIT).where(AUDIT.c.number == removed))
            assert audit.check(connection) == Fault(removed, f"it is missing; entry {removed + 1} follows")


def test_moved_entries_are_found(engine):
    fill(engine)
    with engine.begin() as connection:
        for old, new in ((2, 99), (3, 2), (99, 3)):
            connection.execute(update(AUDIT).where(AUDIT.c.number == old).values(number=new))
    found = fault(engine)
    assert found is not None
    assert found.number == 2
    assert found.problem.startswith("it does not follow")


def test_a_trail_that_was_cut_or_computed_anew_differs_from_a_kept_head(engine):
    heads = fill(engine)
    with engine.begin() as connection:
        connection.execute(delete(AUDIT).where(AUDIT.c.number >= 4))
    assert fault(engine) is None  # by itself the rest is whole
    assert fault(engine, heads[2]) is None
    cut = fault(engine, heads[-1])
    assert cut is not None
    assert (cut.number, "cut off" in cut.problem) == (4, True)
    with writing(engine) as connection:
        for _ in range(2):
            audit.append(connection, who="mallory", what="set", details={})
    assert fault(engine) is None
    assert fault(engine, heads[-1]) == Fault(5, "it is not the entry of the kept head; the trail was computed anew")
    with engine.begin() as connection:
        connection.execute(delete(AUDIT))
    assert fault(engine, heads[-1]).number == 1


def test_an_entry_goes_with_its_transaction(engine):
    fill(engine, 2)
    with suppress(ZeroDivisionError), writing(engine) as connection:
        audit.append(connection, who="anna", what="set", details={})
        raise ZeroDivisionError
    with engine.connect() as connection:
        assert audit.head(connection).number == 2
    fill(engine, 1)
    with engine.connect() as connection:
        assert audit.head(connection).number == 3
    assert fault(engine) is None


def test_writers_at_once_never_meet(engine):
    errors: list[Exception] = []

    def write(who: str) -> None:
        try:
            for number in range(10):
                with writing(engine) as connection:
                    connection.execute(select(func.count()).select_from(AUDIT)).scalar_one()  # a reader that writes
                    audit.append(connection, who=who, what="set", details={"number": number})
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(f"writer-{number}",)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert fault(engine) is None
    with engine.connect() as connection:
        found = audit.entries(connection, limit=1000)
    assert len(found) == 50
    for number in range(5):
        own = [entry.details["number"] for entry in reversed(found) if entry.who == f"writer-{number}"]
        assert own == list(range(10))


def test_two_entries_cannot_follow_the_same_one(engine):
    fill(engine, 1)
    with engine.connect() as connection:
        (entry,) = audit.entries(connection)
        fork = {**asdict(entry), "number": 7}
        with pytest.raises(Exception, match=r"(?i)unique"):
            connection.execute(insert(AUDIT).values(**fork))


def test_the_command_line_compares_with_a_kept_head(tmp_path, capsys):
    folder, kept = tmp_path / "station", tmp_path / "head.json"
    folder.mkdir()
    engine = open_database(f"sqlite:///{folder / 'station.db'}")
    heads = fill(engine, 3)
    call = ["station", "audit", "--folder", str(folder)]
    assert main([*call, "--save", str(kept)]) == 0
    saved = json.loads(kept.read_text())
    assert (saved["number"], saved["hash"]) == (3, heads[-1].hash)
    assert abs(datetime.fromisoformat(saved["at"].replace("Z", "+00:00")).timestamp() - time.time()) < 3600
    assert saved["station"].endswith(f" sqlite:///{folder / 'station.db'}")
    assert capsys.readouterr().out == f"audit trail: whole, 3 entries\nhead: {kept}\n"
    fill(engine, 1)
    assert main([*call, "--head", str(kept)]) == 0
    assert capsys.readouterr().out == f"audit trail: whole, 4 entries; entry 3 is that of {kept}\n"
    with engine.begin() as connection:
        connection.execute(delete(AUDIT).where(AUDIT.c.number > 2))
    engine.dispose()
    before = kept.read_bytes()
    assert main([*call, "--head", str(kept), "--save", str(kept)]) == 1
    assert capsys.readouterr().out.startswith("audit trail: broken at entry 3: it is missing")
    assert kept.read_bytes() == before
    for wrong in ("{}", "[1]", '{"number": "3", "hash": "x"}', "nonsense"):
        kept.write_text(wrong)
        assert main([*call, "--head", str(kept)]) == 1
        assert "name a file that --save wrote" in capsys.readouterr().err
