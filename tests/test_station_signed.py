"""Signed records of a station: the page's commands, and that what was changed afterwards is found."""

from __future__ import annotations

import csv
import shlex
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pages import ROOT, blocks
from sqlalchemy import update
from station_records import result

from supersimplenet.cli.main import main
from supersimplenet.station.access import audit
from supersimplenet.station.storage.database import open_database, writing
from supersimplenet.station.storage.recorder import insert_results
from supersimplenet.station.storage.schema import AUDIT

PAGE = ROOT / "docs" / "station_signed.md"
EARLY = 1_700_000_000_000  # in 2023


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """The database of a station, in whose computer's folder the commands run."""
    monkeypatch.chdir(tmp_path)
    Path("station").mkdir()
    engine = open_database("sqlite:///station/station.db")
    with writing(engine) as connection:
        for number in range(3):
            audit.append(connection, who="anna", what="set", details={"to": number})
    insert_results(engine, [result(at=EARLY), result(verdict="bad") | {"product": "lids"}, result()])
    yield engine
    engine.dispose()


def run(command: str) -> int:
    words = shlex.split(command)
    if words[0] == "supersimplenet":
        return main(words[1:])
    return subprocess.run(words, capture_output=True, check=False).returncode


def keys() -> None:
    for command in blocks(PAGE, "bash")[0].splitlines():
        assert run(command) == 0, command


def names() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def test_the_commands_of_the_page_work_and_find_each_change(engine, capsys):
    commands = "".join(blocks(PAGE, "bash")).splitlines()
    assert len(commands) == 7
    for command in commands:
        assert run(command) == 0, command
    *_, check_head, _, verify, openssl = commands
    assert len(Path("results.csv.sig").read_bytes()) == 64
    with Path("results.csv").open(encoding="utf-8", newline="") as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == ["bad", "good"]

    table = Path("results.csv").read_bytes()
    Path("results.csv").write_bytes(table.replace(b"bad", b"good", 1))
    capsys.readouterr()
    assert run(verify) == 1
    assert capsys.readouterr().out == "results.csv: not as it was signed, or not by the owner of public.pem\n"
    assert run(openssl) != 0
    Path("results.csv").write_bytes(table)
    assert run(verify) == 0

    with writing(engine) as connection:  # by somebody who may write there, and computes the chain anew
        connection.execute(AUDIT.delete())
        for number in range(4):
            audit.append(connection, who="anna", what="set", details={"to": 7 + number})
    assert run(check_head) == 1
    with writing(engine) as connection:
        last = audit.head(connection)
    Path("head.json").write_text(f'{{"number": {last.number}, "hash": "{last.hash}"}}')  # and its kept head, too
    capsys.readouterr()
    assert run(check_head) == 1
    assert "head.json: not as it was signed" in capsys.readouterr().out


def test_nothing_is_signed_of_a_trail_that_is_broken(engine):
    keys()
    with writing(engine) as connection:
        connection.execute(update(AUDIT).where(AUDIT.c.number == 2).values(who="otto"))
    assert run("supersimplenet station audit --save head.json --sign key.pem") == 1
    assert names() == ["key.pem", "public.pem", "station"]


def test_an_export_as_parquet_has_the_wanted_results(engine):
    keys()
    call = "supersimplenet station export --output lids.parquet --product lids --sign key.pem"
    assert run(call) == 0
    assert pq.read_table("lids.parquet").column("product").to_pylist() == ["lids"]
    assert run("supersimplenet station verify lids.parquet --key public.pem") == 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("export --output results.csv --sign public.pem", "public.pem: no private key in PEM without a password"),
        ("export --output results.csv --sign rsa.pem", "rsa.pem: not a key of Ed25519; make one with openssl genpkey"),
        ("export --output results.xlsx", "--output: results.xlsx; wanted a name that ends in .csv or .parquet"),
        ("export --output results.csv --since yesterday", "--since: 'yesterday'; wanted a time such as"),
        ("verify key.pem --key key.pem", "key.pem: no public key in PEM"),
        ("audit --sign key.pem", "--sign: no --save; name the file of the head"),
        ("audit --verify public.pem", "--verify: no --head; name the file of the head"),
    ],
)
def test_a_wrong_call_is_said_and_writes_nothing(engine, capsys, call, said):
    keys()
    assert run("openssl genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:2048 -out rsa.pem") == 0
    assert run(f"supersimplenet station {call}") == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert names() == ["key.pem", "public.pem", "rsa.pem", "station"]


def test_a_file_without_its_signature_is_said(engine, capsys):
    keys()
    assert run("supersimplenet station verify public.pem --key public.pem") == 1
    assert "public.pem.sig: cannot be read" in capsys.readouterr().err
