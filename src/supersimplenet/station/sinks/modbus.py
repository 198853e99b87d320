"""A sink that writes each result into registers of a PLC (Modbus/TCP).

===========  ==================  ================================================================================
register     name                value
===========  ==================  ================================================================================
address      heartbeat           another value about every second while the station lives
address + 1  verdict             of the picture: 0 good, 1 unsure, 2 bad, 3 failed; 16 is added where it comes late
address + 2  verdict of part     likewise, of all photographs of the part until now; 65535 without a part's name
address + 3  score               0 to 10000, bad from 5000 on; 65535 where there is none
address + 4  age                 milliseconds since the picture was taken, at most 65534
address + 5  sequence            1 to 65535, then 1 again: one more for each result
===========  ==================  ================================================================================

All six are written by one request (function 16), and the PLC's answer confirms it. Modbus does not say that a PLC's
program never sees half of a request. So the sequence is the last register: a PLC that copies one register after
another has copied the others when the sequence changes, and the coil is written before.
"""

from __future__ import annotations

import logging
import socket
import struct

from pymodbus import ModbusException
from pymodbus.client import ModbusTcpClient
from pymodbus.pdu import ExceptionResponse, ModbusPDU

from supersimplenet.station.sinks.gate import age_ms, gate_verdict, part_verdict_of, verdict_of
from supersimplenet.station.sinks.settings import ModbusSink, Verdict4
from supersimplenet.station.sinks.sink import AwayError, Message, Sink

CODES: dict[Verdict4, int] = {"good": 0, "unsure": 1, "bad": 2, "failed": 3}
LATE = 16  # added to a verdict's code
NONE = 0xFFFF
_LAST = 0xFFFF
_SEQUENCE = 5  # its place after the first register
REFUSALS = {
    1: "it does not know this kind of request",
    2: "it has no such register or coil",
    3: "it does not take this value",
    4: "it failed",
    6: "it is busy",
    10: "the gateway has no way to the unit",
    11: "the unit does not answer the gateway",
}


class Modbus(Sink):
    """Writes results to a PLC, each in one request. A result that comes late does not move the coil.

    A result that comes again, as its confirmation was lost, keeps its sequence where the PLC has it already.

    Args:
        settings: the sink's settings.
    """

    def __init__(self, settings: ModbusSink) -> None:
        self._settings = settings
        self._plc = f"{settings.host}:{settings.port}"
        self._client: ModbusTcpClient | None = None
        self._heartbeat = 0
        self._sequence = 0  # that the PLC has
        self._tried = ("", 0)  # id and sequence of the last result that was sent
        logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # what it says is in the reason

    def open(self) -> None:
        """Connect, and read how far the PLC has counted."""
        settings = self._settings
        self._client = ModbusTcpClient(settings.host, port=settings.port, timeout=settings.timeout_s, retries=0)
        if not self._client.connect() or self._client.socket is None:
            raise AwayError(f"{self._plc} cannot be reached", "unreachable", address=self._plc)
        # What is closed before it was confirmed must not arrive minutes later, when the network is back.
        self._client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            answer = self._client.read_holding_registers(settings.address + _SEQUENCE, device_id=settings.unit)
        except ModbusException as error:
            raise self._silent() from error
        self._check(answer, f"reading register {settings.address + _SEQUENCE}")
        (self._sequence,) = answer.registers

    def deliver(self, message: Message) -> None:
        """Write a result, and move the coil where it is not late."""
        age = age_ms(message)
        is_late = age > 1000 * self._settings.late_s
        if not is_late:
            self._move_coil(gate_verdict(message) in self._settings.reject)
        part, score = part_verdict_of(message), message["score"]
        sequence = self._sequence_of(message["id"])
        self._tried = message["id"], sequence
        self._write(
            CODES[verdict_of(message)] + (LATE if is_late else 0),
            NONE if part is None else CODES[part] + (LATE if is_late else 0),
            NONE if score is None else round(10_000 * score),
            min(age, NONE - 1),
            sequence,
        )
        self._sequence = sequence
        self.late += is_late

    def check(self) -> None:
        """Write the heartbeat."""
        self._write()

    def close(self) -> None:
        """Disconnect."""
        if self._client is not None:
            self._client.close()

    def _sequence_of(self, result: str) -> int:
        id_, sequence = self._tried
        if id_ == result and sequence == self._sequence:
            return sequence  # the PLC has it; its confirmation was lost
        return self._sequence % _LAST + 1

    def _move_coil(self, is_rejected: bool) -> None:
        coil = self._settings.coil
        if coil is None:
            return
        assert self._client is not None
        try:
            answer = self._client.write_coil(coil, is_rejected, device_id=self._settings.unit)
        except ModbusException as error:
            raise self._silent() from error
        self._check(answer, f"writing coil {coil}")

    def _write(self, *registers: int) -> None:
        """Write the heartbeat, and the registers after it."""
        assert self._client is not None
        self._heartbeat = (self._heartbeat + 1) & 0xFFFF
        address = self._settings.address
        try:
            answer = self._client.write_registers(address, [self._heartbeat, *registers], device_id=self._settings.unit)
        except ModbusException as error:
            raise self._silent() from error
        self._check(answer, f"writing register {address} and {len(registers)} after it")

    def _silent(self) -> AwayError:
        return AwayError(f"{self._plc} does not answer", "silent", address=self._plc)

    def _check(self, answer: ModbusPDU, what: str) -> None:
        if isinstance(answer, ExceptionResponse):
            code = answer.exception_code
            text = f"{self._plc} refuses {what}: {REFUSALS.get(code, 'no reason known')} (code {code})"
            own = f"modbus_{code}" if code in REFUSALS else "modbus_other"
            raise AwayError(text, own, address=self._plc, what=what, number=str(code))
