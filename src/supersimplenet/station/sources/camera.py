"""A source that takes pictures of a camera when a trigger says so."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from supersimplenet.station.inspection import FullError, Picture
from supersimplenet.station.settings import without_addresses
from supersimplenet.station.sources.devices import Device, DeviceError, Frame, make_device, png_of
from supersimplenet.station.sources.frame_triggers import FrameTrigger
from supersimplenet.station.sources.settings import CameraSource
from supersimplenet.station.sources.source import Send, Source
from supersimplenet.station.sources.triggers import Trigger, TriggerInfo
from supersimplenet.station.storage.database import now_ms
from supersimplenet.station.storage.results import iso_time
from supersimplenet.utils.formatting import counted, first_line

_WAITS_S = (0.25, 5.0)  # after the first failure, and at most
_IS_STEADY_S = 5.0  # a camera that sent frames for so long is tried again at once
_WAITING = 4  # frames that are not sent yet; each may have many megabytes
_TURN_S = 0.1
_SAYS_EVERY_S = 60.0
_AT_STOP_S = 6.0  # for a read that hangs


@dataclass(frozen=True, kw_only=True)
class _Taken:
    """A frame, when it came (milliseconds since 1970, and on a clock that does not jump), and its part."""

    frame: Frame
    at_ms: int
    at_s: float
    part: str | None = None


class Camera(Source):
    """Takes the newest frame of a camera at each trigger, and sends it as a PNG, which loses nothing.

    A thread of its own reads the frames as they come, so that none waits in a buffer. A camera that is away is tried
    again until it is back.

    Args:
        settings: the source's settings.
        trigger: says when a picture is taken.
        send: takes a picture to inspect.
        say: called with a line when the camera goes or comes back, and when pictures were missed.

    Raises:
        ConfigError: what the device needs is not installed.
    """

    def __init__(self, settings: CameraSource, *, trigger: Trigger, send: Send, say: Callable[[str], None]) -> None:
        super().__init__(settings.name, settings.kind, send=send, say=say)
        self._settings, self._trigger = settings, trigger
        self._sees = trigger.sees if isinstance(trigger, FrameTrigger) else None
        self._waiting: queue.Queue[_Taken] = queue.Queue(_WAITING)
        self._lock = threading.Lock()
        self._said_at = float("-inf")
        self._reader = self._new_reader()

    def run(self) -> None:
        """Take pictures until the source is stopped, or a video file has ended."""
        self._trigger.start(self._fire)
        wait_s = _WAITS_S[0]
        try:
            while not self.stopped.is_set():
                self._reader = self._new_reader()
                self._reader.start()
                began = time.monotonic()
                self._follow(self._reader)
                if self._reader.has_ended:
                    return
                if not self.stopped.is_set():
                    self.goes(self._reader.reason)
                    wait_s = _WAITS_S[0] if time.monotonic() - began > _IS_STEADY_S else min(2 * wait_s, _WAITS_S[1])
                    self.stopped.wait(wait_s)
        finally:
            self._trigger.stop()
            self._reader.stop(within_s=min(self._settings.timeout_s + 0.5, _AT_STOP_S))
            self._send_waiting()

    def _new_reader(self) -> _Reader:
        device = make_device(self._settings)
        return _Reader(device, f"camera-{self.name}", timeout_s=self._settings.timeout_s, sees=self._sees)

    def _follow(self, reader: _Reader) -> None:
        """Send the pictures that are taken of a camera, until it fails, ends, or the source is stopped."""
        while reader.is_running and not self.stopped.is_set():
            self._send_next(_TURN_S)
            if reader.is_quiet:
                self.goes(f"no frame for {self._settings.timeout_s:g} s")
            elif self._trigger.reason:
                self.goes(f"its trigger: {self._trigger.reason}")
            elif reader.newest is not None:
                self.comes()
        self._send_waiting()

    def _fire(self, info: TriggerInfo) -> None:
        """Take the newest frame."""
        newest, is_there = self._reader.newest, self._reader.is_running and not self._reader.is_quiet
        if newest is None or not is_there:
            self._miss("there was a trigger while it is away")
            return
        try:
            self._waiting.put_nowait(_Taken(frame=newest.frame, at_ms=newest.at_ms, at_s=newest.at_s, part=info.part))
        except queue.Full:
            self._miss("triggers come faster than pictures can be sent")

    def _send_waiting(self) -> None:
        while self._send_next(0):
            pass

    def _send_next(self, wait_s: float) -> bool:
        """Send the next picture that was taken; return whether there was one."""
        try:
            taken = self._waiting.get(timeout=wait_s) if wait_s else self._waiting.get_nowait()
        except queue.Empty:
            return False
        name = f"{self.name}-{iso_time(taken.at_ms).replace(':', '-')}.png"
        try:
            self.send(Picture(content=png_of(taken.frame), name=name, source=self.name, part=taken.part))
        except FullError:
            self._miss("the queue is full")
        else:
            self.taken += 1
        return True

    def _miss(self, reason: str) -> None:
        """Count a picture that is missed, and say so at most once a minute."""
        with self._lock:
            self.missed += 1
            now = time.monotonic()
            is_new = now - self._said_at >= _SAYS_EVERY_S
            if is_new:
                self._said_at = now
        if is_new:
            self._say(f"source '{self.name}': {reason}; {counted(self.missed, 'picture')} missed since the start")


class _Reader:
    """Reads a device in a thread of its own, and keeps the newest frame.

    A read may hang in a driver for ever. So the thread is one that the process does not wait for at its end.
    """

    def __init__(
        self, device: Device, name: str, *, timeout_s: float, sees: Callable[[Frame, float], None] | None
    ) -> None:
        self._device, self._timeout_s, self._sees = device, timeout_s, sees
        self.newest: _Taken | None = None
        self.reason = ""
        self.has_ended = False
        self._began_s = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    @property
    def is_quiet(self) -> bool:
        """Whether no frame has come for too long; a recording has its own pace."""
        last_s = self._began_s if self.newest is None else self.newest.at_s
        return not self._device.pace_s and time.monotonic() - last_s > self._timeout_s

    def start(self) -> None:
        self._began_s = time.monotonic()
        self._thread.start()

    def stop(self, *, within_s: float) -> None:
        """Stop; leave the thread where a read hangs for longer."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(within_s)

    def _run(self) -> None:
        try:
            self._device.open()
            self._read()
        except DeviceError as error:
            self.reason = str(error)
        except Exception as error:  # what a driver raises; it must not name the address with its password
            self.reason = f"{type(error).__name__}: {without_addresses(first_line(error))}"
        finally:
            self._device.close()

    def _read(self) -> None:
        due_s = time.monotonic()
        while not self._stopped.is_set():
            frame = self._device.read()
            if frame is None:
                self.has_ended = True
                return
            now_s = time.monotonic()
            self.newest = _Taken(frame=frame, at_ms=now_ms(), at_s=now_s)
            if self._sees is not None:
                self._sees(frame, now_s)
            if self._device.pace_s:
                due_s = max(due_s + self._device.pace_s, now_s)
                self._stopped.wait(due_s - time.monotonic())
