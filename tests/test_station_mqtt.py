"""MQTT with a real broker: each result arrives, in order, also where the broker is killed; messages trigger."""

from __future__ import annotations

import gc
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import paho.mqtt.client as paho
import pytest
from pydantic import TypeAdapter
from station_records import result
from station_servers import Mosquitto, self_signed
from test_station_recorder import Wire, wait_for
from test_station_sinks import delivering, put, sqlite, waiting

from supersimplenet.errors import ConfigError
from supersimplenet.station.setup import setup_of
from supersimplenet.station.sinks import delivery
from supersimplenet.station.sinks.mqtt import topic_level
from supersimplenet.station.sinks.opening import make_sink
from supersimplenet.station.sinks.sink import AwayError
from supersimplenet.station.sources import triggers
from supersimplenet.station.sources.opening import make_trigger
from supersimplenet.station.sources.settings import TriggerSettings
from supersimplenet.station.sources.triggers import TriggerInfo
from supersimplenet.station.storage.results import public

STATUS = "supersimplenet/status"


class Subscriber:
    """A client of another library that gets all messages of a broker, and connects again by itself."""

    def __init__(self, broker: Mosquitto) -> None:
        self.got: list[tuple[str, bytes, bool]] = []  # topic, payload, and whether the broker had retained it
        self._subscribed = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe("#")
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_disconnect = lambda *_: self._subscribed.clear()
        self._client.on_message = lambda _, __, m: self.got.append((m.topic, m.payload, m.retain))
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        self.wait()

    def wait(self) -> None:
        assert self._subscribed.wait(30)

    def is_away(self) -> bool:
        return not self._subscribed.is_set()

    def publish(self, topic: str, payload: bytes | str | None = None, *, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(30)

    @property
    def statuses(self) -> list[str]:
        return [payload.decode() for topic, payload, _ in self.got if topic == STATUS]

    @property
    def results(self) -> list[dict]:
        return [json.loads(payload) for topic, payload, _ in self.got if "/results/" in topic]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def subscriber(mosquitto) -> Iterator[Subscriber]:
    client = Subscriber(mosquitto)
    yield client
    client.close()


@pytest.fixture(autouse=True)
def again_at_once(monkeypatch) -> None:
    monkeypatch.setattr(delivery, "_WAITS_S", (0.05, 0.2))
    monkeypatch.setattr(triggers, "_AGAIN_AFTER_S", 0.05)


def sink_at(port: int, **settings: object) -> dict:
    return {"name": "line", "kind": "mqtt", "host": "127.0.0.1", "port": port, **settings}


def made(plain: dict):
    return make_sink(setup_of({"sinks": [plain]}).sinks[0])


def test_who_subscribes_late_gets_the_status_and_the_last_result_of_each_product(mosquitto, subscriber, tmp_path):
    with delivering(sqlite(tmp_path), tmp_path, [sink_at(mosquitto.port)]) as (recorder, _):
        records = [result(), result(verdict="bad"), result() | {"product": "lids/+#%\0ä"}]
        put(recorder, records)
        wait_for(lambda: len(subscriber.results) == 3)
        late = Subscriber(mosquitto)
        wait_for(lambda: len(late.got) == 3)
        late.close()
    assert subscriber.results == [{**public(record), "repeat": False} for record in records]
    found = {topic: (payload, retained) for topic, payload, retained in late.got}
    assert set(found) == {STATUS, "supersimplenet/results/parts", "supersimplenet/results/lids%2F%2B%23%25%00ä"}
    assert found[STATUS] == (b"online", True)
    assert json.loads(found["supersimplenet/results/parts"][0])["id"] == records[1]["id"]
    wait_for(lambda: len(subscriber.statuses) == 2)
    assert subscriber.statuses == ["online", "offline"]  # closed in order
    assert waiting(sqlite(tmp_path)) == {}


def test_every_result_arrives_in_order_also_where_the_broker_is_killed_and_repeats_are_marked(
    mosquitto, subscriber, tmp_path
):
    wire = Wire(mosquitto.port)  # mended when the subscriber is there again: a broker keeps nothing for those away
    with delivering(sqlite(tmp_path), tmp_path, [sink_at(wire.port, timeout_s=1)]) as (recorder, (line,)):
        records = [result() for _ in range(90)]
        for some in (records[:30], records[30:60]):
            recording = threading.Thread(target=put, args=(recorder, some))
            recording.start()
            wait_for(lambda: some[0]["id"] in [found["id"] for found in subscriber.results])  # noqa: B023  called at once
            wire.cut()
            mosquitto.kill()
            wait_for(lambda: line.state.away and subscriber.is_away())
            recording.join()
            mosquitto.start()
            subscriber.wait()
            wire.mend()
        put(recorder, records[60:])
        wait_for(lambda: subscriber.results[-1]["id"] == records[-1]["id"])
    wire.close()
    ids = [found["id"] for found in subscriber.results]
    assert list(dict.fromkeys(ids)) == [record["id"] for record in records]
    known: set[str] = set()
    for found in subscriber.results:
        assert found["repeat"] or found["id"] not in known
        known.add(found["id"])
    assert waiting(sqlite(tmp_path)) == {}


def test_a_broker_says_the_last_will_of_a_station_that_was_cut_off(mosquitto, subscriber, tmp_path):
    wire = Wire(mosquitto.port)
    said: list[str] = []
    with delivering(sqlite(tmp_path), tmp_path, [sink_at(wire.port)], said=said) as (_, (line,)):
        wait_for(lambda: subscriber.statuses == ["online"])
        wire.cut()
        wait_for(lambda: subscriber.statuses == ["online", "offline"])
        wait_for(lambda: line.state.away)  # found out with nothing to deliver
        wire.mend()
        wait_for(lambda: subscriber.statuses == ["online", "offline", "online"])
        wait_for(lambda: not line.state.away)
    wire.close()
    assert said[0].endswith("the connection is lost); results wait for it")
    assert said[-1] == "sink 'line' is back"


def test_what_is_left_of_an_earlier_connection_does_not_say_offline_afterwards(mosquitto, subscriber):
    first, second = (made(sink_at(mosquitto.port)) for _ in range(2))
    first.open()
    second.open()  # as after a power cut, which the broker has not noticed yet
    wait_for(lambda: len(subscriber.statuses) == 3)
    assert subscriber.statuses == ["online", "offline", "online"]
    with pytest.raises(AwayError, match="the connection is lost"):
        wait_for(lambda: first.check())
    first.close()
    second.close()


def test_a_wrong_password_is_said_so_that_a_person_understands(mosquitto_of, tmp_path):
    broker = mosquitto_of(users={"station": "right"})
    (tmp_path / "password").write_text("wrong\n")
    settings = sink_at(broker.port, username="station", password_file=str(tmp_path / "password"))
    with delivering(sqlite(tmp_path), tmp_path, [settings]) as (_, (line,)):
        wait_for(lambda: line.state.away)
        reason = line.state.reason
    assert reason == (
        f"broker 127.0.0.1:{broker.port} refuses the connection: Not authorized; see username and password_file"
    )
    (tmp_path / "password").write_text("right\n")
    sink = made(settings)
    sink.open()
    sink.deliver({**public(result()), "repeat": False})
    sink.close()


@pytest.mark.filterwarnings("ignore:.*SSLSocket")  # paho leaves the socket of a refused certificate to the collector
def test_tls_is_checked(mosquitto_of, tmp_path):
    own, other = (self_signed(tmp_path, name) for name in ("own", "other"))
    broker = mosquitto_of(tls=own)
    sink = made(sink_at(broker.port, tls=True, ca_file=str(own[0])))
    sink.open()
    sink.deliver({**public(result()), "repeat": False})
    sink.check()
    sink.close()
    sink = made(sink_at(broker.port, tls=True, ca_file=str(other[0])))
    with pytest.raises(AwayError, match="CERTIFICATE_VERIFY_FAILED"):
        sink.open()
    sink.close()
    gc.collect()


def test_a_broker_that_does_not_answer_is_given_up_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        sink = made(sink_at(port, timeout_s=0.2))
        with pytest.raises(AwayError, match="timed out"):
            sink.open()
        sink.close()
    sink = made(sink_at(port))
    with pytest.raises(AwayError, match="refused"):
        sink.open()
    sink.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prefix": "line/#"}, r"prefix: wanted a beginning of topics"),
        ({"prefix": "line/"}, r"prefix: wanted a beginning of topics"),
        ({"username": "a"}, r"username and password_file: one is given without the other"),
        ({"ca_file": "ca.pem"}, r"ca_file is given and tls is not; add 'tls: true'"),
        ({"username": "a", "password_file": "nowhere"}, r"password_file: there is no such file in \."),
        ({"tls": True, "ca_file": "nowhere"}, r"ca_file: nowhere: no certificates"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_the_start(settings, message):
    with pytest.raises(ConfigError, match=message):
        made(sink_at(1883, **settings))


def test_a_products_name_is_one_level_of_a_topic():
    assert topic_level("Deckel 2.0 ä") == "Deckel 2.0 ä"
    assert topic_level("a/b+c#d%e\n") == "a%2Fb%2Bc%23d%25e%0A"


@contextmanager
def triggered(plain: dict, said: list[str] | None = None) -> Iterator[tuple]:
    """Run a trigger; yield it and the signals that it gave."""
    fired: list[TriggerInfo] = []
    say: Callable[[str], None] = ([] if said is None else said).append
    trigger = make_trigger(TypeAdapter(TriggerSettings).validate_python(plain), name="top", say=say)
    trigger.start(fired.append)
    try:
        yield trigger, fired
    finally:
        trigger.stop()


def test_each_message_of_a_topic_triggers_and_may_name_the_part(mosquitto, subscriber):
    subscriber.publish("plc/camera", "A-0", retain=True)  # of earlier: that part has gone by
    said: list[str] = []
    with triggered({"kind": "mqtt", "host": "127.0.0.1", "port": mosquitto.port, "topic": "plc/camera"}, said) as (
        trigger,
        fired,
    ):
        wait_for(lambda: not trigger.reason)
        payloads = [None, "A-17", '{"part": "A-18"}', '{"part": 19}', '{"part": null}', "[1]", b"\xff", "x" * 201]
        payloads += ['{"part": true}', '{"part": ["A"]}']
        for payload in payloads:
            subscriber.publish("plc/camera", payload)
        wait_for(lambda: len(fired) == len(payloads))
    assert [info.part for info in fired] == [None, "A-17", "A-18", "19", *[None] * 6]
    assert all(one.at_s <= other.at_s for one, other in pairwise(fired))
    assert said == [
        "trigger of 'top': the message b'[1]' names no part; wanted its name, or {\"part\": name}; "
        "the picture is taken without one"
    ]


def test_a_trigger_connects_again_by_itself(mosquitto, subscriber):
    with triggered({"kind": "mqtt", "host": "127.0.0.1", "port": mosquitto.port, "topic": "plc/camera"}) as (
        trigger,
        fired,
    ):
        wait_for(lambda: not trigger.reason)
        mosquitto.kill()
        wait_for(lambda: trigger.reason)
        wait_for(lambda: "refused" in trigger.reason)
        mosquitto.start()
        subscriber.wait()
        wait_for(lambda: not trigger.reason)
        subscriber.publish("plc/camera", "B-1")
        wait_for(lambda: len(fired) == 1)
    assert fired[0].part == "B-1"
