"""Kill a station at random moments under load, and count from outside: ids answered, rows, pictures.

Each round starts the station on the same folder, sends pictures from several threads, each with a key of its own, and
ends the process with SIGKILL. A sender whose request was cut off sends it again with the same key in the next round. At
the end: every key that was answered with a result has one row, with the id that was answered, and no key has two.
With --postgresql the rows are in PostgreSQL, which is taken away and given back in every third round. With --sinks
results go to a webhook, an MQTT broker, a client of OPC UA that acknowledges each, a PLC by Modbus/TCP, and tables of a
day; webhook and broker are taken away in turns. At the end each of them must have each row, first ones in the same
order; registers hold no ids, so of the PLC the writes are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import random
import signal
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from station_process import StationProcess

SENDERS = 6


class Sender(threading.Thread):
    """Sends one picture after another, and each again with its key until it is answered."""

    def __init__(self, name: str, contents: list[bytes]) -> None:
        super().__init__(daemon=True)
        self._own, self._contents = name, contents
        self.address = ""
        self.running, self.ended = threading.Event(), False
        self.answered: dict[str, list[str]] = {}
        self.stored: Counter[str] = Counter()
        self.cut = self.refused = 0

    def run(self) -> None:
        number = 0
        while not self.ended:
            if not self.running.wait(0.1):
                continue
            if self._send(f"{self._own}-{number}", self._contents[number % len(self._contents)]):
                number += 1

    def _send(self, key: str, content: bytes) -> bool:
        headers = {"Content-Type": "image/png", "Idempotency-Key": key}
        try:
            answer = httpx.post(f"{self.address}/v1/inspect", content=content, headers=headers, timeout=30)
        except httpx.TransportError:
            self.cut += 1
            time.sleep(0.02)
            return False
        if answer.status_code != 200:
            self.refused += 1
            time.sleep(0.05)
            return False
        (result,) = answer.json()["results"]
        self.answered.setdefault(key, []).append(result["id"])
        self.stored[result["stored"]] += 1
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True, help="a folder of PNG files")
    parser.add_argument("--folder", type=Path, required=True, help="of the station; new")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument(
        "--postgresql", action="store_true", help="start a server of its own, and take it away at times"
    )
    parser.add_argument("--sinks", action="store_true", help="deliver results to receivers of every kind")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    contents = [path.read_bytes() for path in sorted(options.pictures.rglob("*.png"))[:40]]
    senders = [Sender(f"s{number}", contents) for number in range(SENDERS)]
    database = Database() if options.postgresql else None
    settings: dict[str, Any] = {"folder": options.folder} | ({} if database is None else {"database": database.url})
    receivers = Receivers(options.folder.with_name(f"{options.folder.name}-sinks")) if options.sinks else None
    if receivers is not None:
        settings["setup"] = {"sinks": receivers.sinks}
    for sender in senders:
        sender.start()
    for number in range(options.kills):
        if receivers is not None:
            receivers.take_away(number)
        wire = database.wire if database is not None and number % 3 == 1 else None
        run_and_kill(options.model, settings, senders, rng, wire, at_rest=number % 5 == 4)
        print(f"kill {number + 1}: {answers(senders)} answered", flush=True)
    if receivers is not None:
        receivers.take_away(None)
    with StationProcess(options.model, **settings) as station:
        found = count(station, senders)
        ids = found.pop("ids")
        if receivers is not None:
            found["sinks"] = receivers.count(station, set(ids))
    print(json.dumps({"kills": options.kills, **found}, indent=1))


def answers(senders: list[Sender]) -> int:
    """Return the number of pictures that were answered."""
    return sum(len(sender.answered) for sender in senders)


def run_and_kill(
    model: Path, settings: dict[str, Any], senders: list[Sender], rng: random.Random, wire: Any, *, at_rest: bool
) -> None:
    """Run the station under load and kill it at a random moment; with a wire the database is taken away before."""
    with StationProcess(model, **settings) as station:
        settings["port"] = station.options["port"]
        for sender in senders:
            sender.address = station.address
            sender.running.set()
        before, give_up = answers(senders), time.monotonic() + 20
        while answers(senders) == before and time.monotonic() < give_up and not at_rest:
            time.sleep(0.01)  # until it works
        time.sleep(rng.uniform(0.0, 2.0))
        if wire is not None:
            wire.cut()
            time.sleep(rng.uniform(0.2, 2.0))
        for sender in senders if at_rest else ():  # just after the last answer
            sender.running.clear()
        station.kill()
        for sender in senders:
            sender.running.clear()
        if wire is not None:
            wire.mend()


def count(station: StationProcess, senders: list[Sender]) -> dict[str, Any]:
    """Let the senders finish, wait for what waits, and compare what they were answered with what is there."""
    for sender in senders:
        sender.address = station.address
        sender.running.set()
    time.sleep(3)
    for sender in senders:
        sender.ended = True
        sender.join()
    give_up = time.monotonic() + 60
    while "database" in [sign["code"] for sign in station.get("/v1/status")["signs"]]:
        assert time.monotonic() < give_up, "the database is still away"
        time.sleep(0.2)
    rows, after = [], {}
    while True:
        page = station.get("/v1/results", order="oldest", limit=500, **after)
        rows += page["results"]
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    ids = Counter(row["id"] for row in rows)
    answered = {key: names for sender in senders for key, names in sender.answered.items()}
    by_answer = {names[-1]: station.client.get(f"/v1/results/{names[-1]}") for names in answered.values()}
    led = {name: answer.json()["id"] for name, answer in by_answer.items() if answer.status_code == 200}
    kept = [row["id"] for row in rows if row["picture"]["kept"]]
    return {
        "ids": [row["id"] for row in rows],
        "answered": len(answered),
        "cut_off_and_sent_again": sum(sender.cut for sender in senders),
        "refused_and_sent_again": sum(sender.refused for sender in senders),
        "stored": dict(sum((sender.stored for sender in senders), Counter())),
        "rows": len(rows),
        "rows_twice": sum(number > 1 for number in ids.values()) + len(led) - len(set(led.values())),
        "answered_without_row": len(by_answer) - len(led),
        "answered_by_an_alias": sum(name != first for name, first in led.items()),
        "rows_never_answered": len(set(ids) - set(led.values())),
        "pictures_lost": sum(station.client.get(f"/v1/results/{name}/picture").status_code != 200 for name in kept),
    }


class Receivers:
    """Receivers of every kind, in this process and outside the station's."""

    def __init__(self, folder: Path) -> None:
        from station_servers import Mosquitto, free_port
        from test_station_gates import Plc as Gate
        from test_station_gates import modbus
        from test_station_mqtt import Subscriber
        from test_station_recorder import Wire
        from test_station_sinks import Webhooks

        folder.mkdir(parents=True)
        (folder / "broker").mkdir()
        self._tables = folder / "tables"
        self._webhooks, self._broker = Webhooks(), Mosquitto(folder / "broker")
        self._subscriber = Subscriber(self._broker)
        self._wires = {"hook": Wire(self._webhooks.port), "broker": Wire(self._broker.port)}
        self._plc, self._gate = Plc(free_port()), Gate()
        self.sinks = [
            {"name": "hook", "kind": "webhook", "url": f"http://127.0.0.1:{self._wires['hook'].port}/"},
            {"name": "broker", "kind": "mqtt", "host": "127.0.0.1", "port": self._wires["broker"].port},
            {"name": "plc", "kind": "opcua", "endpoint": self._plc.endpoint, "acknowledge": True, "timeout_s": 2.0},
            modbus(self._gate.port),
            {"name": "tables", "kind": "files", "folder": str(self._tables)},
        ]

    def take_away(self, number: int | None) -> None:
        """Take one away in some rounds; give all back with None."""
        for place, wire in enumerate(self._wires.values()):
            if number is not None and number % 4 == place:
                wire.cut()
            else:
                wire.mend()

    def count(self, station: StationProcess, rows: set[str]) -> dict[str, Any]:
        """Wait until nothing waits, and compare what each has with the rows."""
        give_up = time.monotonic() + 600
        while any(sink["waiting"] for sink in station.get("/v1/status")["sinks"]):
            assert time.monotonic() < give_up, station.get("/v1/status")["sinks"]
            time.sleep(0.5)
        time.sleep(1)
        bodies = [json.loads(body)["data"] for _, body in self._webhooks.got]
        lines = [line for path in sorted(self._tables.glob("*.csv")) for line in csv.DictReader(path.open(newline=""))]
        got = {
            "hook": [(body["id"], body["repeat"]) for body in bodies],
            "broker": [(body["id"], body["repeat"]) for body in self._subscriber.results],
            "plc": self._plc.got,
            "tables": [(line["id"], False) for line in lines],
        }
        gate = {"writes": len(self._gate.results), "coil": len(self._gate.coils)}  # registers hold no ids
        self._gate.switch_off()
        firsts = {name: list(dict.fromkeys(id_ for id_, _ in found)) for name, found in got.items()}
        return {"gate": gate} | {
            name: {
                "ids": len(firsts[name]),
                "repeats": len(found) - len(firsts[name]),
                "repeats_not_marked": _unmarked(found),
                "order_as_at_the_webhook": firsts[name] == firsts["hook"],
                "rows_missing": len(rows - set(firsts[name])),
                "without_row": len(set(firsts[name]) - rows),
            }
            for name, found in got.items()
        }


def _unmarked(found: list[tuple[str, bool]]) -> int:
    seen: set[str] = set()
    number = 0
    for id_, repeat in found:
        number += id_ in seen and not repeat
        seen.add(id_)
    return number


class Plc(threading.Thread):
    """A client of OPC UA that reads each result and acknowledges it, and connects again by itself."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.endpoint = f"opc.tcp://127.0.0.1:{port}/supersimplenet"
        self.got: list[tuple[str, bool]] = []
        self.start()

    def run(self) -> None:
        asyncio.run(self._read_on())

    async def _read_on(self) -> None:
        from asyncua import Client

        while True:
            with suppress(Exception):  # the station was killed; what asyncua raises then is of many kinds
                async with Client(self.endpoint, timeout=2) as client:
                    await self._read(client)
            await asyncio.sleep(0.2)

    async def _read(self, client: Any) -> None:
        from asyncua import ua
        from test_station_opcua import NAMESPACE

        own = f"ns={await client.get_namespace_index(NAMESPACE)};s=SuperSimpleNet/parts"
        sequence, acknowledged = client.get_node(f"{own}/Sequence"), client.get_node(f"{own}/Acknowledged")
        shown = [client.get_node(f"{own}/{name}") for name in ("Id", "Repeat")]
        last = None
        while True:
            number = await sequence.read_value()
            if number not in (0, last):
                id_, repeat = [await node.read_value() for node in shown]
                self.got.append((id_, repeat))
                await acknowledged.write_value(number, ua.VariantType.UInt32)
                last = number
            await asyncio.sleep(0.005)


class Database:
    """A PostgreSQL server, behind a wire that can be cut."""

    def __init__(self) -> None:
        from sqlalchemy.engine import make_url
        from station_servers import fresh_database, running_postgres
        from test_station_recorder import Wire

        self._server = running_postgres()
        address = make_url(fresh_database(self._server.__enter__()))
        self.wire = Wire(address.port)
        self.url = address.set(port=self.wire.port).render_as_string(hide_password=False)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
