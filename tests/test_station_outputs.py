"""The page about a station's outputs: its examples can be set up, its tables name what there is."""

from __future__ import annotations

import re

import pytest
import yaml
from pages import ROOT, blocks
from pydantic import TypeAdapter
from station_records import result
from test_station_recorder import wait_for
from test_station_sinks import SECRET, delivering, put, sqlite, webhooks

from supersimplenet.station.setup import setup_of
from supersimplenet.station.sinks import webhook
from supersimplenet.station.sinks.opcua_server import ACKNOWLEDGED, FIELDS
from supersimplenet.station.sinks.settings import ModbusSink, MqttSink, OpcUaSink, SerialSink, WebhookSink
from supersimplenet.station.sources.settings import MqttTrigger, OpcUaTrigger, TriggerSettings
from supersimplenet.station.storage.results import public

__all__ = ["webhooks"]  # a fixture
PAGE = ROOT / "docs" / "station_outputs.md"


def section(title: str) -> str:
    """Return the text of a section of the page."""
    return re.split(rf"^## {title}\n", PAGE.read_text(encoding="utf-8"), flags=re.M)[1].partition("\n## ")[0]


def test_each_example_can_be_set_up():
    kinds = []
    for block in map(yaml.safe_load, blocks(PAGE, "yaml")):
        if "trigger" in block:
            kinds.append(TypeAdapter(TriggerSettings).validate_python(block["trigger"]).kind)
        else:
            kinds += [sink.kind for sink in setup_of(block).sinks]
    assert set(kinds) == {"mqtt", "opcua", "webhook", "files", "modbus", "serial"}
    assert len(kinds) >= 10


@pytest.mark.parametrize(
    ("title", "settings"),
    [
        ("MQTT", MqttSink),
        ("OPC UA", OpcUaSink),
        ("A PLC or a broker as a camera's trigger", MqttTrigger),
        ("A PLC or a broker as a camera's trigger", OpcUaTrigger),
        ("Webhooks", WebhookSink),
        ("A PLC by Modbus/TCP", ModbusSink),
        ("A serial port", SerialSink),
    ],
)
def test_each_setting_is_described(title, settings):
    described = section(title)
    for name in set(settings.model_fields) - {"name", "kind", "topic"}:
        assert f"`{name}`" in described, name


def test_each_variable_is_described_with_its_type():
    rows = dict(re.findall(r"^\| `(\w+)` \| (String|Int16|Double|DateTime|Boolean|UInt32) \|", section("OPC UA"), re.M))
    assert rows == {**{name: kind.name for name, (kind, _) in FIELDS.items()}, ACKNOWLEDGED: "UInt32"}


def test_each_status_that_refuses_is_described():
    assert f"| {', '.join(map(str, webhook.REFUSED))} | the result is refused for good" in section("Webhooks")


def test_the_python_of_the_page_verifies_a_webhook(webhooks, tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    url = f"http://127.0.0.1:{webhooks.port}/"
    hook = {"name": "mes", "kind": "webhook", "url": url, "secret_file": str(tmp_path / "secret")}
    with delivering(sqlite(tmp_path), tmp_path, [hook]) as (recorder, _):
        record = result(verdict="bad")
        put(recorder, [record])
        wait_for(lambda: len(webhooks.got) == 1)
    headers, body = webhooks.got[0]
    (code,) = blocks(PAGE, "python")
    found = {"secret": SECRET, "headers": headers, "body": body}
    exec(code, found)
    assert found["result"] == {**public(record), "repeat": False}
    with pytest.raises(Exception, match="signature"):
        exec(code, {**found, "body": body.replace(b'"bad"', b'"good"')})
