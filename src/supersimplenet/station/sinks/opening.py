"""From settings to sinks. What a kind of sink needs is imported where one is set up."""

from __future__ import annotations

from supersimplenet.station.setup import FilesSink, ModbusSink, SerialSink, SinkSettings, WebhookSink
from supersimplenet.station.sinks.sink import Sink


def make_sink(settings: SinkSettings) -> Sink:
    """Return the sink of its settings, not opened yet.

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
        case ModbusSink():
            from supersimplenet.station.sinks.modbus import Modbus

            return Modbus(settings)
        case SerialSink():
            from supersimplenet.station.sinks.serial import Serial

            return Serial(settings)
