"""What a gate gets: registers and a coil of a PLC, texts at a serial port; and that a late result moves nothing."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import select
import socket
import threading
import tty
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import pytest
from pymodbus.client import ModbusTcpClient
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
from station_records import result
from test_station_recorder import Wire, wait_for
from test_station_sinks import delivering, put, sqlite

from supersimplenet.errors import ConfigError
from supersimplenet.station.setup import setup_of
from supersimplenet.station.sinks import delivery
from supersimplenet.station.sinks.modbus import NONE
from supersimplenet.station.sinks.opening import make_sink
from supersimplenet.station.sinks.sink import AwayError, Sink
from supersimplenet.station.storage.database import now_ms
from supersimplenet.station.storage.results import public

ADDRESS, COIL, UNIT = 100, 7, 3
READ, WRITE_COIL, WRITE = 3, 5, 16  # function codes


class Plc:
    """A Modbus server with 20 registers from `ADDRESS` on and 16 coils: what was written, and what there is now."""

    def __init__(self) -> None:
        self.port = 0
        self.writes: list[tuple[int, list[int]]] = []  # function and values
        self.refuses: dict[int, ExcCodes] = {}  # by function
        self.is_silent = False
        self.switch_on()

    def switch_on(self) -> None:
        started: Future[ModbusTcpServer] = Future()
        self._loop = asyncio.new_event_loop()

        async def serve() -> None:
            registers = SimData(ADDRESS, count=20, values=0, datatype=DataType.REGISTERS)
            bits = SimData(0, values=[False] * 16, datatype=DataType.BITS)
            device = SimDevice(UNIT, simdata=([bits], [bits], [registers], [registers]), action=self._asked)
            server = ModbusTcpServer(device, address=("127.0.0.1", self.port), trace_packet=self._sent)
            await server.serve_forever(background=True)
            started.set_result(server)

        def run() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(serve())
            self._loop.run_forever()
            self._loop.close()

        self._thread = threading.Thread(target=run)
        self._thread.start()
        self._server = started.result(10)
        self.port = self._server.transport.sockets[0].getsockname()[1]

    def switch_off(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.shutdown(), self._loop).result(10)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _asked(self, function, start, address, count, current, values) -> ExcCodes | None:
        if function in self.refuses:
            return self.refuses[function]
        if values is not None:
            self.writes.append((function, [int(value) for value in values]))
        return None

    def _sent(self, sending: bool, packet: bytes) -> bytes:
        return b"" if sending and self.is_silent else packet

    @property
    def results(self) -> list[list[int]]:
        """The verdict and what follows it, of each result that was written."""
        return [values[1:] for function, values in self.writes if function == WRITE and len(values) > 1]

    @property
    def coils(self) -> list[int]:
        return [values[0] for function, values in self.writes if function == WRITE_COIL]

    def now(self) -> tuple[list[int], bool]:
        """Return the registers and the coil as another client reads them."""
        with ModbusTcpClient("127.0.0.1", port=self.port) as client:
            registers = client.read_holding_registers(ADDRESS, count=6, device_id=UNIT).registers
            return registers, client.read_coils(COIL, device_id=UNIT).bits[0]


@pytest.fixture
def plc() -> Iterator[Plc]:
    found = Plc()
    yield found
    found.switch_off()


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setattr(delivery, "_WAITS_S", (0.02, 0.05))
    monkeypatch.setattr(delivery, "_IDLE_S", 0.05)


def modbus(port: int, **settings) -> dict:
    address = {"host": "127.0.0.1", "port": port, "unit": UNIT, "address": ADDRESS, "coil": COIL}
    return {"name": "gate", "kind": "modbus", **address, **settings}


def sink_of(plain: dict) -> Sink:
    return make_sink(setup_of({"sinks": [plain]}).sinks[0])


def message(verdict: str | None, *, score: float | None = 0.25, part: str | None = None, age_s: float = 0) -> dict:
    record = result(at=now_ms() - round(1000 * age_s)) | {"verdict": verdict, "score": score}
    return {**public(record), "part_result": part and {"verdict": None if part == "failed" else part}, "repeat": False}


def test_each_result_is_a_block_of_registers_and_the_coil_follows_the_part(plc):
    sink = sink_of(modbus(plc.port))
    sink.open()
    wanted = []
    for number, (verdict, part, score, codes) in enumerate(
        [
            ("good", None, 0.12344, (0, NONE, 1234)),
            ("unsure", None, 0.5, (1, NONE, 5000)),
            ("bad", "bad", 1.0, (2, 2, 10_000)),
            ("good", "bad", 0.2, (0, 2, 2000)),  # another photograph of the bad part
            (None, "failed", None, (3, 3, NONE)),
            ("good", "good", 0.0, (0, 0, 0)),
        ]
    ):
        sink.deliver(message(verdict, part=part, score=score))
        registers, _ = plc.now()
        assert (*registers[1:4], registers[5]) == (*codes, number + 1)
        assert registers[4] < 5000  # it is new
        wanted.append(registers[1:])
    assert plc.results == wanted
    assert plc.coils == [0, 1, 1, 1, 1, 0]
    assert [function for function, _ in plc.writes[:2]] == [
        WRITE_COIL,
        WRITE,
    ]  # the sequence says that the coil is right
    sink.close()


def test_verdicts_that_set_the_coil_can_be_chosen_and_it_can_be_left_out(plc):
    sink = sink_of(modbus(plc.port, reject=["bad"]))
    sink.open()
    for verdict in ("unsure", "bad", None):
        sink.deliver(message(verdict))
    assert plc.coils == [0, 1, 0]
    sink.close()
    sink = sink_of(modbus(plc.port, coil=None))
    sink.open()
    sink.deliver(message("bad"))
    assert len(plc.coils) == 3
    sink.close()


def test_the_heartbeat_changes_while_there_is_nothing_to_deliver(plc, tmp_path):
    with delivering(sqlite(tmp_path), tmp_path, [modbus(plc.port)]):
        wait_for(lambda: len(plc.writes) > 3)
    beats = [values for _, values in plc.writes]
    assert beats[:3] == [[1], [2], [3]]
    assert plc.results == []


def test_results_wait_for_a_plc_in_order_and_late_ones_do_not_move_the_coil(plc, tmp_path):
    wire, said = Wire(plc.port), []
    with delivering(sqlite(tmp_path), tmp_path, [modbus(wire.port)], said=said) as (recorder, (gate,)):
        put(recorder, [result(verdict="good")])
        wait_for(lambda: len(plc.results) == 1)
        wire.cut()
        wait_for(lambda: gate.state.away)
        assert re.fullmatch(r"127\.0\.0\.1:\d+ (cannot be reached|does not answer)", gate.state.reason)
        missed = [result(verdict=verdict, at=now_ms() - 6_000) for verdict in ("bad", "unsure", "good")]
        put(recorder, missed)
        wire.mend()
        wait_for(lambda: len(plc.results) == 4)
        assert plc.coils == [0]
        assert plc.now()[1] is False
        put(recorder, [result(verdict="bad")])
        wait_for(lambda: len(plc.results) == 5)
        wait_for(lambda: not gate.state.away)
        assert (gate.state.late, gate.state.refused) == (3, 0)
    wire.close()
    assert [values[0] for values in plc.results] == [0, 18, 17, 16, 2]
    assert [values[4] for values in plc.results] == [1, 2, 3, 4, 5]
    assert all(6_000 <= values[3] < 60_000 for values in plc.results[1:4])
    assert plc.coils == [0, 1]
    assert [text for text in said if "late" in text] == [
        "sink 'gate': 3 results came too late to act on; 3 since the start"
    ]


def test_a_plc_that_was_off_begins_anew_and_gets_what_waited(plc, tmp_path):
    with delivering(sqlite(tmp_path), tmp_path, [modbus(plc.port)]) as (recorder, (gate,)):
        put(recorder, [result() for _ in range(3)])
        wait_for(lambda: len(plc.results) == 3)
        plc.switch_off()
        wait_for(lambda: gate.state.away)
        put(recorder, [result(verdict="bad")])
        plc.switch_on()
        wait_for(lambda: len(plc.results) == 4)
        put(recorder, [result()])
        wait_for(lambda: len(plc.results) == 5)
    assert [values[4] for values in plc.results] == [1, 2, 3, 1, 2]
    assert plc.coils == [0, 0, 0, 1, 0]


def test_the_sequence_goes_on_after_a_restart_of_the_station_and_never_is_0(plc, tmp_path):
    for _ in range(2):
        sink = sink_of(modbus(plc.port))
        sink.open()
        sink.deliver(message("good"))
        sink.close()
    with ModbusTcpClient("127.0.0.1", port=plc.port) as client:
        client.write_registers(ADDRESS + 5, [0xFFFE], device_id=UNIT)
    plc.writes.pop()
    sink.open()
    for _ in range(2):
        sink.deliver(message("good"))
    sink.close()
    assert [values[4] for values in plc.results] == [1, 2, 0xFFFF, 1]


@pytest.mark.parametrize(("coil", "sequences"), [(COIL, [1, 2, 3]), (None, [1, 2, 2, 3])])
def test_a_result_whose_confirmation_was_lost_is_one_result(plc, coil, sequences):
    sink = sink_of(modbus(plc.port, coil=coil, timeout_s=0.2))
    sink.open()
    sink.deliver(message("good"))
    lost = message("bad")
    plc.is_silent = True
    with pytest.raises(AwayError, match=r"does not answer"):
        sink.deliver(lost)  # to the coil, or to the registers where there is no coil
    sink.close()
    plc.is_silent = False
    sink.open()
    sink.deliver({**lost, "repeat": True})
    sink.deliver(message("good"))
    sink.close()
    assert [values[4] for values in plc.results] == sequences


@pytest.mark.parametrize(
    ("settings", "refuses", "reason"),
    [
        ({"address": 200}, {}, r"refuses reading register 205: it has no such register or coil \(code 2\)"),
        ({"coil": 99}, {}, r"refuses writing coil 99: it has no such register or coil \(code 2\)"),
        ({}, {WRITE: ExcCodes.DEVICE_BUSY}, r"refuses writing register 100 and 5 after it: it is busy \(code 6\)"),
        ({}, {READ: ExcCodes.NEGATIVE_ACKNOWLEDGE}, r"no reason known \(code 7\)"),
    ],
)
def test_what_a_plc_refuses_is_said_in_words(plc, settings, refuses, reason):
    plc.refuses = refuses
    sink = sink_of(modbus(plc.port, **settings))
    with pytest.raises(AwayError, match=reason):  # noqa: PT012 - either may refuse
        sink.open()
        sink.deliver(message("bad"))
    sink.close()


def test_a_request_that_was_given_up_does_not_arrive_later():
    with socket.create_server(("127.0.0.1", 0)) as server:
        sink = sink_of(modbus(server.getsockname()[1], timeout_s=0.2))

        def answer_once() -> None:
            connection, _ = server.accept()
            with connection:
                head = connection.recv(100)[:4]  # transaction and protocol of the reading of the sequence
                connection.sendall(head + bytes([0, 5, UNIT, READ, 2, 0, 0]))
                connection.recv(100)  # the coil, which gets no answer
                ended.set_result(connection.recv(100))

        ended: Future[bytes] = Future()
        thread = threading.Thread(target=lambda: _outcome(answer_once, ended))
        thread.start()
        sink.open()
        with pytest.raises(AwayError, match=r"does not answer"):
            sink.deliver(message("bad"))
        sink.close()
        with pytest.raises(ConnectionResetError):  # not an end in order, before which all would be sent
            ended.result(10)
        thread.join()


def _outcome(work, ended: Future) -> None:
    try:
        work()
    except OSError as error:
        ended.set_exception(error)


class Machine:
    """A machine at a pseudo-terminal, reached by a name that stays the same when it is plugged in again."""

    def __init__(self, port: Path) -> None:
        self.port = port
        self.got = b""
        self.answers: list[bytes] = []  # to the next texts; none after them
        self.plug_in()

    def plug_in(self) -> None:
        self._own, other = os.openpty()
        tty.setraw(other)
        self.port.unlink(missing_ok=True)
        self.port.symlink_to(os.ttyname(other))
        self._is_in = True
        self._thread = threading.Thread(target=self._read, args=(other,))
        self._thread.start()

    def pull_out(self) -> None:
        self.port.unlink()
        self._is_in = False
        self._thread.join()

    def _read(self, other: int) -> None:
        while self._is_in:
            if select.select([self._own], [], [], 0.01)[0]:
                self.got += os.read(self._own, 1000)
                if self.answers:
                    os.write(self._own, self.answers.pop(0))
        os.close(other)
        os.close(self._own)


@pytest.fixture
def machine(tmp_path) -> Iterator[Machine]:
    found = Machine(tmp_path / "tty")
    yield found
    with suppress(FileNotFoundError):
        found.pull_out()


def port_sink(port: Path | str, **settings) -> dict:
    return {"name": "gate", "kind": "serial", "port": str(port), **settings}


def test_each_verdict_is_a_text_and_late_ones_are_not_sent(machine, tmp_path):
    said: list[str] = []
    with delivering(sqlite(tmp_path), tmp_path, [port_sink(machine.port)], said=said) as (recorder, (gate,)):
        for verdict in ("good", "unsure", "bad", None):
            put(recorder, [result(verdict=verdict)])
        wait_for(lambda: machine.got == b"G\nU\nB\nF\n")
        put(recorder, [result(verdict="bad", at=now_ms() - 6000)])
        put(recorder, [result(verdict="good")])
        wait_for(lambda: machine.got == b"G\nU\nB\nF\nG\n")
        wait_for(lambda: gate.state.late == 1)
    assert said == ["sink 'gate': 1 result came too late to act on; 1 since the start"]


def test_texts_can_be_chosen_and_the_part_decides(machine):
    sink = sink_of(port_sink(machine.port, texts={"good": "", "bad": "\x02\xffR\x03"}))
    sink.open()
    for verdict, part in (("good", None), ("good", "bad"), ("unsure", None)):
        sink.deliver(message(verdict, part=part))
    wait_for(lambda: machine.got == b"\x02\xffR\x03U\n")
    sink.close()


def test_a_text_that_is_not_acknowledged_comes_again(machine, tmp_path):
    settings = port_sink(machine.port, acknowledge="OK\r", timeout_s=0.1)
    machine.answers = [b"OK\r", b"what?\r", b"..OK\r"]
    said: list[str] = []
    with delivering(sqlite(tmp_path), tmp_path, [settings], said=said) as (recorder, (gate,)):
        put(recorder, [result()])
        wait_for(lambda: machine.got == b"G\n")
        put(recorder, [result(verdict="bad")])
        wait_for(lambda: not machine.answers)
        wait_for(lambda: not gate.state.away)
    assert machine.got == b"G\nB\nB\n"
    assert said[0] == f"sink 'gate' is away ({machine.port}: no acknowledgement within 0.1 s); results wait for it"


def test_a_port_that_is_pulled_out_is_away_and_comes_back(machine, tmp_path):
    with delivering(sqlite(tmp_path), tmp_path, [port_sink(machine.port)]) as (recorder, (gate,)):
        put(recorder, [result()])
        wait_for(lambda: machine.got == b"G\n")
        machine.pull_out()
        wait_for(lambda: gate.state.away)  # found without a result to send
        put(recorder, [result(verdict="bad"), result(verdict="good", at=now_ms() - 6000)])
        wait_for(lambda: os.strerror(errno.ENOENT) in gate.state.reason)
        machine.plug_in()
        wait_for(lambda: machine.got == b"G\nB\n")
        wait_for(lambda: gate.state.late == 1)
        assert not gate.state.away


def test_a_serial_server_that_closes_is_found_before_a_result_is_lost(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        sink = sink_of(port_sink(f"socket://127.0.0.1:{server.getsockname()[1]}"))
        sink.open()
        connection, _ = server.accept()
        sink.deliver(message("good"))
        assert connection.recv(10) == b"G\n"
        connection.close()
        wait_for(lambda: sink._port.in_waiting)  # the end of the connection
        with pytest.raises(AwayError, match=r"disconnected"):
            sink.deliver(message("bad"))
        sink.close()
    with pytest.raises(AwayError, match=r"refused"):
        sink.open()


@pytest.mark.parametrize(
    ("plain", "error"),
    [
        (port_sink("pigeon://x"), r"port: .*pigeon.*wanted a port, or socket://HOST:PORT"),
        (port_sink("/dev/ttyUSB0", texts={"good": "✓"}), r"texts\.good"),
        (modbus(502, address=65531), r"address: .*65530"),
        (modbus(502, reject=["worse"]), r"reject\.0: .*'good'"),
    ],
)
def test_settings_that_cannot_be_are_said(plain, error):
    with pytest.raises(ConfigError, match=error):
        sink_of(plain)
