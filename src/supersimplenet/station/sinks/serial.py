"""A sink that sends a text for each result to a serial port."""

from __future__ import annotations

from contextlib import suppress

import serial

from supersimplenet.errors import ConfigError
from supersimplenet.station.sinks.gate import age_ms, gate_verdict
from supersimplenet.station.sinks.settings import SerialSink
from supersimplenet.station.sinks.sink import AwayError, Message, Sink
from supersimplenet.utils.formatting import first_line

_LONGEST = 10_000  # bytes in which the acknowledgement must come


class Serial(Sink):
    """Sends results to a machine at a serial port. One that comes late is not sent.

    Args:
        settings: the sink's settings.

    Raises:
        ConfigError: the port's kind is not known.
    """

    def __init__(self, settings: SerialSink) -> None:
        self._settings = settings
        self._texts = {verdict: text.encode("latin-1") for verdict, text in settings.texts.model_dump().items()}
        self._acknowledge = (settings.acknowledge or "").encode("latin-1")
        try:
            self._port = serial.serial_for_url(settings.port, do_not_open=True)
        except ValueError as error:
            raise ConfigError(f"port: {first_line(error)}; wanted a port, or socket://HOST:PORT") from error
        self._port.baudrate = settings.baud
        self._port.timeout = self._port.write_timeout = settings.timeout_s

    def open(self) -> None:
        """Open the port."""
        try:
            self._port.open()
        except (OSError, ValueError) as error:
            raise AwayError(first_line(error)) from error

    def deliver(self, message: Message) -> None:
        """Send a result's text, and wait for the acknowledgement where one is set."""
        if age_ms(message) > 1000 * self._settings.late_s:
            self.late += 1
            return
        self.check()
        text = self._texts[gate_verdict(message)]
        if not text:
            return
        try:
            self._port.reset_input_buffer()  # what came before is no answer to this
            self._port.write(text)
            is_confirmed = not self._acknowledge or self._port.read_until(self._acknowledge, _LONGEST).endswith(
                self._acknowledge
            )
        except OSError as error:
            raise AwayError(f"{self._settings.port}: {first_line(error)}") from error
        if not is_confirmed:
            port, seconds = self._settings.port, f"{self._settings.timeout_s:g}"
            text = f"{port}: no acknowledgement within {seconds} s"
            raise AwayError(text, "no_acknowledgement", port=port, seconds=seconds)

    def check(self) -> None:
        """Find out whether the port is still there; what the machine sends unasked is dropped."""
        try:
            if waiting := self._port.in_waiting:
                self._port.read(waiting)
        except OSError as error:
            raise AwayError(f"{self._settings.port}: {first_line(error)}") from error

    def close(self) -> None:
        """Close the port; what was not sent yet is dropped, for it would come late."""
        with suppress(Exception):  # termios has errors of its own
            self._port.reset_output_buffer()
        with suppress(Exception):
            self._port.close()
