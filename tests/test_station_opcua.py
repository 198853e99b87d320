"""OPC UA with a real client and a real PLC's server: values, events, the handshake, who may connect, triggers."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client as AsyncClient
from asyncua import Server, ua
from asyncua.crypto.permission_rules import UserRole
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from asyncua.sync import Client
from pydantic import TypeAdapter
from station_process import StationProcess
from station_records import result
from station_servers import free_port, is_there, self_signed
from test_station_mqtt import Subscriber
from test_station_recorder import Wire, wait_for
from test_station_service import models, picture
from test_station_sinks import delivering, put, sqlite, waiting

from supersimplenet.errors import ConfigError
from supersimplenet.station.loop import Loop
from supersimplenet.station.opcua import read_certificate
from supersimplenet.station.setup import setup_of
from supersimplenet.station.sinks import delivery
from supersimplenet.station.sinks.opcua_server import Clients
from supersimplenet.station.sinks.opening import make_sink
from supersimplenet.station.sinks.sink import AwayError
from supersimplenet.station.sources import triggers
from supersimplenet.station.sources.opening import make_trigger
from supersimplenet.station.sources.settings import TriggerSettings
from supersimplenet.station.sources.triggers import TriggerInfo
from supersimplenet.station.storage.results import public

__all__ = ["models"]  # a fixture
NAMESPACE = "urn:supersimplenet:station"


@pytest.fixture(autouse=True)
def again_at_once(monkeypatch) -> None:
    monkeypatch.setattr(delivery, "_WAITS_S", (0.05, 0.2))
    monkeypatch.setattr(triggers, "_AGAIN_AFTER_S", 0.05)


def sink_at(port: int, **settings: object) -> dict:
    return {"name": "plc", "kind": "opcua", "endpoint": f"opc.tcp://127.0.0.1:{port}/supersimplenet", **settings}


def made(plain: dict, **options: Any):
    return make_sink(setup_of({"sinks": [plain]}).sinks[0], **options)


def message(repeat: bool = False, **changes: Any) -> dict:
    return {**public(result() | changes), "repeat": repeat}


def run_apart(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run it in a thread: in this one the browser of other tests may have a loop that runs."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


class Reader:
    """A client that knows where the station's variables are."""

    def __init__(self, port: int) -> None:
        self.client = Client(f"opc.tcp://127.0.0.1:{port}/supersimplenet")
        self.client.connect()
        self.namespace = self.client.get_namespace_index(NAMESPACE)

    def node(self, name: str, product: str = "parts"):
        return self.client.get_node(f"ns={self.namespace};s=SuperSimpleNet/{product}/{name}")

    def read(self, name: str, product: str = "parts") -> Any:
        return self.node(name, product).read_value()

    def acknowledge(self) -> None:
        self.node("Acknowledged").write_value(self.read("Sequence"), ua.VariantType.UInt32)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.disconnect()


class Events:
    def __init__(self) -> None:
        self.got: list[Any] = []

    def event_notification(self, event: Any) -> None:
        self.got.append(event)


@pytest.fixture(scope="module")
def shown() -> Iterator[tuple]:
    """A sink whose server runs, and its port."""
    port = free_port()
    sink = made(sink_at(port), products=["parts", "lids"])
    sink.open()
    yield sink, port
    sink.close()


def test_variables_hold_the_last_result_and_each_has_an_event(shown):
    sink, port = shown
    with Reader(port) as reader:
        assert [reader.read(name, "lids") for name in ("VerdictCode", "Verdict", "Sequence")] == [-1, "", 0]
        events, kind = Events(), reader.client.get_node(f"ns={reader.namespace};s=InspectionEventType")
        reader.client.create_subscription(10, events).subscribe_events(evtypes=kind)
        bad = message(verdict="bad", part="A-17", at=1_800_000_000_123)
        bad |= {"part_result": {"verdict": None}, "taken_at": "2026-11-30T12:00:00.123Z"}
        failed = message(True, verdict=None, score=None, product="boxes")  # a product that the station did not name
        failed["p_value"] = None
        for each in (bad, failed):
            sink.deliver(each)
        sink.check()
        at = datetime(2026, 11, 30, 12, 0, 0, 123_000, tzinfo=timezone.utc)
        wanted = {
            "Id": bad["id"],
            "Verdict": "bad",
            "VerdictCode": 2,
            "Score": 0.25,
            "PValue": 1 / 3,
            "Part": "A-17",
            "PartVerdict": "failed",
            "Name": "a.png",
            "TakenAt": at,
            "Repeat": False,
            "Sequence": reader.read("Sequence", "boxes") - 1,
        }
        assert {name: reader.read(name) for name in wanted} == wanted
        assert abs(wanted["Sequence"] - time.time()) < 600
        types = [reader.node(name).read_data_type_as_variant_type() for name in ("VerdictCode", "Sequence", "TakenAt")]
        assert types == [ua.VariantType.Int16, ua.VariantType.UInt32, ua.VariantType.DateTime]
        assert [reader.read(name, "boxes") for name in ("Verdict", "VerdictCode", "Repeat", "Part")] == [
            "failed",
            3,
            True,
            "",
        ]
        assert math.isnan(reader.read("Score", "boxes"))
        assert math.isnan(reader.read("PValue", "boxes"))
        wait_for(lambda: len(events.got) == 2)
    first, second = events.got
    assert {name: getattr(first, name) for name in wanted} == wanted
    assert (first.SourceName, first.Severity, first.Message.Text) == ("parts", 700, "parts: bad")
    assert (second.Id, second.SourceName, second.Repeat, second.Severity) == (failed["id"], "boxes", True, 900)


def test_clients_can_change_nothing(shown):
    sink, port = shown
    sink.deliver(message(verdict="bad"))
    with Reader(port) as reader:
        for attempt in (
            lambda: reader.node("Verdict").write_value("good"),
            lambda: reader.node("Sequence").write_value(0, ua.VariantType.UInt32),
            lambda: reader.node("Verdict").set_writable(),
            lambda: reader.client.nodes.objects.add_object(reader.namespace, "mine"),
            lambda: reader.client.delete_nodes([reader.node("Verdict")])[1][0].check(),
        ):
            with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
                attempt()
        assert reader.read("Verdict") == "bad"
    with pytest.raises(ua.UaStatusCodeError, match="BadServiceUnsupported"):
        run_apart(_register(port))


async def _register(port: int) -> None:
    """Register another server, as any client could with asyncua, without a login."""
    client = AsyncClient(f"opc.tcp://127.0.0.1:{port}/supersimplenet")
    await client.connect_sessionless()
    try:
        await client.register_server(Server())
    finally:
        await client.disconnect_sessionless()


async def _connect_unencrypted(port: int, certificate: Path) -> None:
    """Connect as one who knows the password and saw a client's certificate, and does not ask what is offered."""
    client = AsyncClient(f"opc.tcp://127.0.0.1:{port}/supersimplenet")
    await client.load_client_certificate(str(certificate))
    await client.connect_sessionless()
    try:
        await client.create_session()
        await client.activate_session("plc", "right")
    finally:
        await client.disconnect_sessionless()


def test_with_a_handshake_a_result_stays_until_a_client_has_it(tmp_path):
    port = free_port()
    plc = sink_at(port, acknowledge=True, timeout_s=0.3)
    with delivering(sqlite(tmp_path), tmp_path, [plc]) as (recorder, (state,)):
        records = [result(), result(verdict="bad"), result()]
        put(recorder, records)
        wait_for(lambda: state.state.reason == "no client acknowledged within 0.3 s")
        with Reader(port) as reader:  # the server has gone on, and shows the first one still
            first = reader.read("Sequence")
            assert reader.read("Id") == records[0]["id"]
            reader.node("Acknowledged").write_value(first + 1, ua.VariantType.UInt32)  # of none that was shown
            wait_for(lambda: state.state.away)
            assert (reader.read("Id"), reader.read("Repeat")) == (records[0]["id"], False)
            seen = []
            for record in records:
                wait_for(lambda: reader.read("Id") == record["id"])  # noqa: B023  called at once
                seen.append((reader.read("Sequence"), reader.read("Verdict")))
                reader.acknowledge()
            assert seen == [(first, "good"), (first + 1, "bad"), (first + 2, "good")]
            wait_for(lambda: not state.state.away and waiting(sqlite(tmp_path)) == {})
            with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
                reader.node("Sequence").write_value(0, ua.VariantType.UInt32)


def test_a_server_starts_again_at_its_port_and_counts_on(shown):
    taken = made(sink_at(shown[1]))
    with pytest.raises(AwayError, match=rf"127\.0\.0\.1:{shown[1]} cannot be listened at: Address already in use"):
        taken.open()
    taken.close()
    sink, port = shown
    sink.deliver(message())
    with Reader(port) as reader:
        number = reader.read("Sequence")
        sink.close()  # while a client is connected
    sink.open()
    with Reader(port) as reader:
        assert reader.read("Sequence") == 0
        sink.deliver(message())
        assert reader.read("Sequence") == number + 1


def secured(folder: Path, port: int) -> tuple[dict, dict[str, tuple[Path, Path]]]:
    """Return the settings of a server with certificate and login, and the certificates and keys by name."""
    files = {name: self_signed(folder, name) for name in ("station", "plc", "stranger")}
    (folder / "clients").mkdir()
    (folder / "clients" / "plc.der").write_bytes(read_certificate(files["plc"][0]))
    (folder / "password").write_text("right\n")
    settings = {"certificate": files["station"][0], "key": files["station"][1], "clients": folder / "clients"}
    settings |= {"username": "plc", "password_file": folder / "password"}
    return sink_at(port, **{name: str(value) for name, value in settings.items()}), files


def test_only_known_clients_with_the_password_connect_and_only_encrypted(tmp_path, monkeypatch):
    port = free_port()
    plain, files = secured(tmp_path, port)
    sink = made(plain, products=["parts"])
    sink.open()

    def connect(own: str, password: str | None) -> str:
        client = Client(f"opc.tcp://127.0.0.1:{port}/supersimplenet")
        client.application_uri = f"urn:test:{own}"
        try:
            client.set_security(SecurityPolicyBasic256Sha256, *map(str, files[own]))
            if password is not None:
                client.set_user("plc")
                client.set_password(password)
            client.connect()
        except ua.UaError as error:
            client.tloop.stop()
            return type(error).__name__
        client.disconnect()
        return "connected"

    assert connect("plc", "right") == "connected"
    assert connect("plc", "wrong") == "BadUserAccessDenied"
    assert connect("plc", None) == "BadUserAccessDenied"
    assert connect("stranger", "right") == "BadUserAccessDenied"
    with monkeypatch.context() as patch:
        patch.setattr(AsyncClient, "find_endpoint", lambda endpoints, mode, uri: endpoints[0])
        with pytest.raises(ua.UaStatusCodeError, match="BadUserAccessDenied"):
            run_apart(_connect_unencrypted(port, files["plc"][0]))
    said: list[str] = []
    trigger = {"kind": "opcua", "url": f"opc.tcp://127.0.0.1:{port}", "node": "ns=2;s=SuperSimpleNet/parts/Sequence"}
    trigger |= {
        "username": "plc",
        "password_file": str(tmp_path / "password"),
        "server_certificate": str(files["station"][0]),
    }
    trigger |= {"certificate": str(files["plc"][0]), "key": str(files["plc"][1])}
    with triggered(trigger, said) as (listening, fired):
        wait_for(lambda: not listening.reason)
        sink.deliver(message())
        wait_for(lambda: len(fired) == 1)
    with triggered({**trigger, "server_certificate": str(files["stranger"][0])}) as (listening, _):
        wait_for(lambda: listening.reason not in ("", "not connected yet"))
    sink.close()


def test_who_is_let_in():
    known = b"certificate of a client"
    everybody = Clients()
    assert everybody.get_user(None).role == UserRole.User  # nobody is an administrator
    assert everybody.get_user(None, username="admin", password="").role == UserRole.User
    login = Clients(username="plc", password="right")
    assert login.get_user(None, username="plc", password="right").role == UserRole.User
    for name, password in ((None, None), ("plc", None), ("plc", "wrong"), ("admin", "right"), (None, "right")):
        assert login.get_user(None, username=name, password=password) is None
    certified = Clients(certificates={known}, encrypted=True)
    assert certified.get_user(None, certificate=known).role == UserRole.User
    assert certified.get_user(None, certificate=b"of a stranger") is None
    assert certified.get_user(None) is None
    both = Clients(username="plc", password="right", encrypted=True)
    assert both.get_user(None, username="plc", password="right", certificate=b"any").role == UserRole.User
    assert both.get_user(None, username="plc", password="right") is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"endpoint": "opc.tcp://0.0.0.0:4840"}, r"0\.0\.0\.0 is reached from other computers; add username"),
        ({"endpoint": "opc.tcp://[::]:4840/a"}, r":: is reached from other computers; add username"),
        ({"endpoint": "http://127.0.0.1:4840"}, r"endpoint: wanted an address with its port"),
        ({"endpoint": "opc.tcp://127.0.0.1"}, r"endpoint: wanted an address with its port"),
        ({"password_file": "a"}, r"username and password_file: one is given without the other"),
        ({"certificate": "a"}, r"certificate and key: one is given without the other"),
        ({"clients": "a"}, r"the server has none; add certificate and key"),
        ({"certificate": "nowhere", "key": "nowhere"}, r"certificate: nowhere: no certificate"),
        (
            {"certificate": "one.pem", "key": "other-key.pem"},
            r"key: other-key\.pem: not the RSA key of the certificate one\.pem",
        ),
        ({"certificate": "one.pem", "key": "one.pem"}, r"key: one\.pem: no private key"),
        ({"certificate": "one.pem", "key": "one-key.pem", "clients": "empty"}, r"clients: empty: no certificates"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_the_start(settings, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    if "one.pem" in settings.values():
        for name in ("one", "other"):
            self_signed(tmp_path, name)
    with pytest.raises(ConfigError, match=message):
        made({"name": "plc", "kind": "opcua", **settings})


class Plc:
    """A PLC's OPC UA server, with nodes as a camera's trigger needs them."""

    def __init__(self) -> None:
        self._loop, self.port = Loop("plc"), free_port()
        self._loop.run(self._start())

    async def _start(self) -> None:
        self._server = Server()
        await self._server.init()
        self._server.set_endpoint(f"opc.tcp://127.0.0.1:{self.port}")
        self._server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        objects = self._server.nodes.objects
        values = {"Trigger": False, "Counter": 7, "Part": "A-1", "Recipe": "text"}
        self._nodes = {
            name: await objects.add_variable(f"ns=1;s={name}", name, value) for name, value in values.items()
        }
        await self._server.start()

    def write(self, *changes: tuple[str, Any]) -> None:
        async def all_of_them() -> None:
            for name, value in changes:
                await self._nodes[name].write_value(value)

        self._loop.run(all_of_them())

    def close(self) -> None:
        self._loop.run(self._server.stop())
        self._loop.close()


@pytest.fixture(scope="module")
def plc() -> Iterator[Plc]:
    server = Plc()
    yield server
    server.close()


@contextmanager
def triggered(plain: dict, said: list[str] | None = None) -> Iterator[tuple]:
    """Run a trigger; yield it and the signals that it gave."""
    fired: list[TriggerInfo] = []
    settings = TypeAdapter(TriggerSettings).validate_python(plain)
    trigger = make_trigger(settings, name="top", say=([] if said is None else said).append)
    trigger.start(fired.append)
    try:
        yield trigger, fired
    finally:
        trigger.stop()


def test_each_rising_edge_triggers_with_the_part_that_is_there_then(plc):
    plc.write(("Trigger", True))  # before anybody listens
    settings = {"kind": "opcua", "url": f"opc.tcp://127.0.0.1:{plc.port}", "node": "ns=1;s=Trigger"}
    with triggered({**settings, "part_node": "ns=1;s=Part"}) as (trigger, fired):
        wait_for(lambda: not trigger.reason)
        for part in ("A-2", "A-3"):
            plc.write(("Part", part), ("Trigger", False), ("Trigger", True))
            wait_for(lambda: fired and fired[-1].part == part)  # noqa: B023  called at once
        plc.write(*[("Trigger", value) for value in (False, True, False, True, False)])  # pulses of no length
        wait_for(lambda: len(fired) == 4)
    assert [info.part for info in fired] == ["A-2", "A-3", "A-3", "A-3"]


def test_each_change_of_a_counter_triggers_and_a_lost_connection_comes_back(plc):
    wire = Wire(plc.port)
    settings = {"kind": "opcua", "url": f"opc.tcp://127.0.0.1:{wire.port}", "node": "ns=1;s=Counter", "timeout_s": 1}
    with triggered(settings) as (trigger, fired):
        wait_for(lambda: not trigger.reason)
        plc.write(("Counter", 8), ("Counter", 9), ("Counter", 3))
        wait_for(lambda: len(fired) == 3)
        wire.cut()
        wait_for(lambda: trigger.reason)
        plc.write(("Counter", 4))  # a part that went by meanwhile
        wire.mend()
        wait_for(lambda: not trigger.reason)
        plc.write(("Counter", 5))
        wait_for(lambda: len(fired) == 4)
    wire.close()
    assert [info.part for info in fired] == [None] * 4


@pytest.mark.parametrize(
    ("node", "reason"),
    [("ns=1;s=None", "BadNodeIdUnknown"), ("ns=1;s=Recipe", "holds a str; wanted Boolean or a number")],
)
def test_a_node_that_cannot_trigger_is_said(plc, node, reason):
    with triggered({"kind": "opcua", "url": f"opc.tcp://127.0.0.1:{plc.port}", "node": node}) as (trigger, _):
        wait_for(lambda: reason in trigger.reason)


def test_a_plc_that_is_not_there_is_said():
    with triggered({"kind": "opcua", "url": f"opc.tcp://127.0.0.1:{free_port()}", "node": "i=85"}) as (trigger, _):
        wait_for(lambda: "refused" in trigger.reason.lower() or "Connect call failed" in trigger.reason)
    assert not [thread for thread in threading.enumerate() if thread.name == "trigger-top"]


@pytest.mark.slow
def test_a_station_shows_its_products_from_the_start_and_says_when_it_ends(models, mosquitto, tmp_path):
    port, subscriber = free_port(), Subscriber(mosquitto)
    mqtt = {"name": "line", "kind": "mqtt", "host": "127.0.0.1", "port": mosquitto.port}
    setup = {"sinks": [sink_at(port), mqtt]}
    with StationProcess(models / "v1", folder=tmp_path / "station", setup=setup) as station:
        wait_for(lambda: not [sink for sink in station.get("/v1/status")["sinks"] if sink["away"]])
        wait_for(lambda: is_there(port))
        with Reader(port) as reader:
            assert reader.read("VerdictCode") == -1
            inspected = station.inspect(picture(1), part="A-17")
            wait_for(lambda: reader.read("Id") == inspected["id"])
            wait_for(lambda: reader.read("Sequence"))
            assert reader.read("PartVerdict") == inspected["verdict"]
        wait_for(lambda: subscriber.results)
    assert subscriber.results[0]["id"] == inspected["id"]
    wait_for(lambda: subscriber.statuses == ["online", "offline"])
    subscriber.close()
