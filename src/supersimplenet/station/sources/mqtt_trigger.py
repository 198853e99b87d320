"""A trigger that takes the messages of an MQTT topic for signals."""

from __future__ import annotations

import json
from collections.abc import Callable

from supersimplenet.station.broker import BrokerConnection
from supersimplenet.station.sources.settings import MqttTrigger
from supersimplenet.station.sources.triggers import Listener

_QUALITY = 1  # of service: none is lost while the connection stands
_REFUSED_FROM = 128  # codes of answers to a subscription


class MqttMessages(Listener):
    """Fires at each message of a topic, but not at one that the broker had retained from earlier.

    The message may be empty, be the part's name, or be JSON with it: ``{"part": "A-17"}``.

    Args:
        settings: the trigger's settings.
        name: name of the camera.
        say: called with a line for the log.

    Raises:
        ConfigError: a file that the settings name cannot be used.
    """

    def __init__(self, settings: MqttTrigger, *, name: str, say: Callable[[str], None]) -> None:
        super().__init__(name, say=say)
        self._topic = settings.topic
        self._broker = BrokerConnection(settings)

    async def listen(self) -> None:
        """Subscribe, and fire."""
        async with self._broker.open() as client:
            granted = await client.subscribe(self._topic, qos=_QUALITY)
            if any(getattr(code, "value", code) >= _REFUSED_FROM for code in granted):
                raise PermissionError(f"the broker refuses the subscription to {self._topic}")
            self.hears()
            async for message in client.messages:
                if not message.retain:
                    self.signals(self._part_in(message.payload))

    def _part_in(self, payload: object) -> object:
        """Return the name of the part in a message; None where there is none."""
        content = payload if isinstance(payload, bytes) else b""
        try:
            text = content.decode().strip()
            if not text.startswith(("{", "[")):
                return text
            return json.loads(text)["part"]
        except (ValueError, TypeError, KeyError, RecursionError):
            self.complains(f'the message {content[:80]!r} names no part; wanted its name, or {{"part": name}}')
            return None
