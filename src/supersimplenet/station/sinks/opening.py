"""From settings to sinks. What a kind of sink needs is imported where one is set up."""

from __future__ import annotations

from collections.abc import Collection

from supersimplenet.station.sinks.settings import (
    FilesSink,
    ModbusSink,
    MqttSink,
    OpcUaSink,
    SerialSink,
    SinkSettings,
    WebhookSink,
)
from supersimplenet.station.sinks.sink import Sink


def make_sink(settings: SinkSettings, *, products: Collection[str] = ()) -> Sink:
    """Return the sink of its settings, not opened yet.

    Args:
        settings: the settings.
        products: products that the station inspects.

    Raises:
        ConfigError: a file that the settings name cannot be used.
    """
    match settings:
        case FilesSink():
            from supersimplenet.station.sinks.files import Files

            return Files(settings)
        case WebhookSink():
            from supersimplenet.station.sinks.webhook import Webhook

            return Webhook(settings)
        case MqttSink():
            from supersimplenet.station.sinks.mqtt import Mqtt

            return Mqtt(settings)
        case OpcUaSink():
            from supersimplenet.station.sinks.opcua import OpcUa

            return OpcUa(settings, products=products)
        case ModbusSink():
            from supersimplenet.station.sinks.modbus import Modbus

            return Modbus(settings)
        case SerialSink():
            from supersimplenet.station.sinks.serial import Serial

            return Serial(settings)
