"""Where a station's pictures come from beside requests: each is inspected once, also after a kill."""

from __future__ import annotations

import csv
import time
from pathlib import Path

import pytest
from station_process import StationProcess
from test_station_recorder import wait_for
from test_station_service import models, picture

from supersimplenet.errors import ConfigError
from supersimplenet.inference.config import HERE
from supersimplenet.station.config import StationConfig
from supersimplenet.station.setup import setup_of
from supersimplenet.station.station import Station

__all__ = ["models"]  # a fixture


def put(folder: Path, name: str, content: bytes) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def test_pictures_of_a_folder_are_inspected_once_and_put_away(models, tmp_path):
    arriving = tmp_path / "in"
    setup = {
        "sources": [{"name": "inbox", "kind": "folder", "folder": str(arriving)}],
        "sinks": [{"name": "day", "kind": "files", "folder": str(tmp_path / "tables")}],
    }
    with StationProcess(models / "v1", folder=tmp_path / "station", setup=setup) as station:
        assert [sign["code"] for sign in station.get("/v1/status")["signs"]][:1] == ["source"]  # no such folder yet
        for name, content in (("a.png", picture(1)), ("lot 2/b.png", picture(2)), ("c.png", b"\x89PNG no picture")):
            put(arriving, name, content)
        wait_for(lambda: not [path for path in arriving.rglob("*") if path.is_file() and "done" not in path.parts])
        results = {result["name"]: result for result in station.get("/v1/results", source="inbox")["results"]}
        assert set(results) == {"a.png", "lot 2/b.png", "c.png"}
        assert results["c.png"]["verdict"] is None
        assert results["c.png"]["error"]["code"] == "unreadable"
        assert station.get("/v1/counts")["failed"] == 1
        assert {path.relative_to(arriving).as_posix() for path in arriving.rglob("*.png")} == {
            "done/a.png",
            "done/lot 2/b.png",
            "done/failed/c.png",
        }
        put(arriving, "a.png", picture(3))  # another picture of that name
        wait_for(lambda: (arriving / "done" / "a-1.png").is_file())
        state = station.get("/v1/status")
        assert state["sources"] == [
            {"name": "inbox", "kind": "folder", "state": "running", "reason": "", "taken": 4, "missed": 0}
        ]
        wait_for(lambda: station.get("/v1/status")["sinks"][0]["waiting"] == 0)
        assert 'supersimplenet_sink_waiting{sink="day"} 0.0' in station.client.get("/v1/metrics").text
    (table,) = (tmp_path / "tables").glob("*.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows].count("a.png") == 2
    assert len(rows) == 4
    assert [row["error"] for row in rows if row["name"] == "c.png"] == [results["c.png"]["error"]["message"]]


@pytest.mark.slow
def test_pictures_that_were_taken_when_the_station_was_killed_have_one_result(models, tmp_path):
    arriving = tmp_path / "in"
    names = [f"{number:02}.png" for number in range(12)]
    for number, name in enumerate(names):
        put(arriving, name, picture(number))
    setup = {"sources": [{"name": "inbox", "kind": "folder", "folder": str(arriving), "after": "leave"}]}
    station = StationProcess(models / "v1", folder=tmp_path / "station", setup=setup)
    wait_for(lambda: station.get("/v1/counts")["good"] + station.get("/v1/counts")["bad"] >= 3)
    station.kill()
    station.start()
    with station:
        wait_for(lambda: station.get("/v1/status")["sources"][0]["taken"] == 12)
        wait_for(lambda: station.get("/v1/status")["in_work"] == 0)
        time.sleep(0.2)
        found = station.get("/v1/results", limit=100)["results"]
    assert sorted(result["name"] for result in found) == names


def test_a_source_whose_product_is_not_inspected_is_refused(models, tmp_path):
    setup = setup_of({"sources": [{"name": "inbox", "kind": "folder", "folder": "x", "product": "lids"}]})
    with pytest.raises(ConfigError, match=r"source 'inbox': no product 'lids'; this station inspects parts"):
        Station({"parts": models / "v1"}, StationConfig(folder=tmp_path), setup, compute=HERE, say=print)


@pytest.mark.slow
def test_a_line_is_played_from_a_folder(models, tmp_path):
    for seed in range(3):
        put(tmp_path / "parts", f"{seed}.png", picture(seed))
    line = {"name": "line", "kind": "replay", "folder": str(tmp_path / "parts"), "seconds": 0.05}
    none = {"name": "none", "kind": "replay", "folder": str(tmp_path / "none")}
    with StationProcess(models / "v1", folder=tmp_path / "station", setup={"sources": [line, none]}) as station:
        wait_for(lambda: station.get("/v1/status")["sources"][0]["taken"] >= 10)
        found = station.get("/v1/results", source="line")["results"]
        assert {result["name"] for result in found} == {"0.png", "1.png", "2.png"}
        assert station.get("/v1/status")["sources"][1]["state"] == "away"
