"""Cameras of a station: the newest frame at each trigger, and what happens while a camera is away."""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from pages import ROOT, blocks, name_of
from station_process import StationProcess
from test_station_recorder import wait_for
from test_station_service import models

from supersimplenet.errors import ConfigError
from supersimplenet.preprocessing.decoding import EncodedImage
from supersimplenet.preprocessing.images import read_image
from supersimplenet.station.inspection import FullError, Picture
from supersimplenet.station.setup import setup_of
from supersimplenet.station.sources import camera as camera_module
from supersimplenet.station.sources.camera import Camera
from supersimplenet.station.sources.devices import Device, png_of, shown_device
from supersimplenet.station.sources.frame_triggers import Motion
from supersimplenet.station.sources.opening import make_source, make_trigger
from supersimplenet.station.sources.triggers import Fire, Trigger, TriggerInfo

__all__ = ["models"]  # a fixture
BITS, WIDTH_PX = 10, 8  # a frame shows its number: white columns are the bits that are set
AT_ONCE = {"kind": "interval", "seconds": 0.001}


def frame_of(number: int) -> np.ndarray:
    frame = np.full((48, BITS * WIDTH_PX, 3), 20, np.uint8)
    for bit in range(BITS):
        if number >> bit & 1:
            frame[:, bit * WIDTH_PX : (bit + 1) * WIDTH_PX] = 235
    return frame


def number_in(content: bytes) -> int:
    pixels = read_image(EncodedImage("frame.png", lambda: content))
    return sum(1 << bit for bit in range(BITS) if pixels[:, bit * WIDTH_PX + 2 : bit * WIDTH_PX + 6].mean() > 128)


def write_video(path: Path, numbers: range, *, rate: float = 25) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), rate, (BITS * WIDTH_PX, 48))
    for number in numbers:
        writer.write(frame_of(number))
    writer.release()
    return path


class NetworkCamera:
    """A camera that sends JPEGs by HTTP; it can be switched off and on, and hang."""

    def __init__(self) -> None:
        self.sent = -1
        self.hangs = False
        self.port = 0
        self.switch_on()

    @property
    def url(self) -> str:
        return f"http://anna:s3cret@127.0.0.1:{self.port}/stream?password=s3cret"

    def switch_on(self) -> None:
        camera = self
        self._is_on = True

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                while camera._is_on:
                    if not camera.hangs:
                        camera.sent += 1
                        _, content = cv2.imencode(".jpg", frame_of(camera.sent % (1 << BITS)))
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {content.size}\r\n\r\n"
                        self.wfile.write(head.encode() + content.tobytes() + b"\r\n")
                    time.sleep(0.03)

            def log_message(self, *arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *arguments: object) -> None:  # the station has gone
                pass

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def switch_off(self) -> None:
        self._is_on = False
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def network_camera() -> Iterator[NetworkCamera]:
    found = NetworkCamera()
    yield found
    found.switch_off()


class Button(Trigger):
    """A trigger that a test presses, and pulls out."""

    reason = ""

    def start(self, fire: Fire) -> None:
        self.press = fire

    def stop(self) -> None:
        pass


class Sent:
    """What a camera sends."""

    def __init__(self) -> None:
        self.pictures: list[Picture] = []
        self.said: list[str] = []
        self.is_full = False

    @property
    def numbers(self) -> list[int]:
        return [number_in(picture.content) for picture in self.pictures]

    def __call__(self, picture: Picture) -> Future:
        if self.is_full:
            raise FullError
        self.pictures.append(picture)
        return Future()


@contextmanager
def running(settings: dict, sent: Sent, trigger: Trigger | None = None) -> Iterator[Camera]:
    (source,) = setup_of({"sources": [{"name": "cam", "kind": "camera", "trigger": AT_ONCE, **settings}]}).sources
    if trigger is None:
        camera = make_source(source, send=sent, say=sent.said.append)
    else:
        camera = Camera(source, trigger=trigger, send=sent, say=sent.said.append)
    camera.start()
    try:
        yield camera
    finally:
        camera.stop()


@pytest.fixture
def quick(monkeypatch) -> None:
    monkeypatch.setattr(camera_module, "_WAITS_S", (0.02, 0.05))


def test_a_video_file_gives_its_frames_in_order_and_in_its_time(tmp_path):
    sent = Sent()
    with running({"device": str(write_video(tmp_path / "v.avi", range(12)))}, sent) as camera:
        wait_for(lambda: camera.state.state == "ended")
        assert (camera.state.taken, camera.state.taken + camera.state.missed) == (len(sent.pictures), 12)
    assert len(sent.pictures) > 2
    assert sent.numbers == sorted(set(sent.numbers))
    assert set(sent.numbers) <= set(range(12))
    names = [re.fullmatch(r"cam-\d{4}-\d\d-\d\dT\d\d-(\d\d)-(\d\d\.\d{3})Z\.png", p.name) for p in sent.pictures]
    first, last = (60 * int(name[1]) + float(name[2]) for name in (names[0], names[-1]))
    frames = sent.numbers[-1] - sent.numbers[0]
    assert (last - first) % 3600 > frames / 25 - 0.02  # never faster than the file says
    assert sent.said[-1] == "source 'cam' has ended"
    assert sent.pictures[0].source == "cam"


def test_a_file_that_repeats_begins_again(tmp_path):
    sent = Sent()
    device = str(write_video(tmp_path / "v.avi", range(3), rate=50))
    with running({"device": device, "repeat": True}, sent) as camera:
        wait_for(lambda: sent.numbers.count(0) > 2)
        assert camera.state.state == "running"
    assert set(sent.numbers) == {0, 1, 2}


def test_a_picture_has_the_pixels_of_its_frame():
    frame = np.random.default_rng(0).integers(0, 256, (31, 17, 3), dtype=np.uint8)
    read = read_image(EncodedImage("frame.png", lambda: png_of(frame)))
    assert np.array_equal(read, frame[..., ::-1])
    grey = read_image(EncodedImage("frame.png", lambda: png_of(frame[..., 0])))
    assert np.array_equal(grey[..., 1], frame[..., 0])


def test_an_interval_is_kept(tmp_path):
    trigger, fired = made({"kind": "interval", "seconds": 1}), []
    trigger.start(lambda info: fired.append(at_s))
    for at_s in [*np.arange(0, 3, 0.25), 7.1, 7.9, 8.1]:
        trigger.sees(frame_of(0), at_s)
    assert fired == [0, 1, 2, 7.1, 8.1]


def trigger_of(plain: dict):
    (source,) = setup_of({"sources": [{"name": "cam", "kind": "camera", "device": 0, "trigger": plain}]}).sources
    return source.trigger


def made(plain: dict) -> Trigger:
    return make_trigger(trigger_of(plain), name="cam", say=print)


def test_a_camera_that_is_not_there_is_tried_until_it_is(tmp_path, quick):
    sent, path = Sent(), tmp_path / "v.avi"
    with running({"device": str(path)}, sent) as camera:
        wait_for(lambda: camera.state.state == "away")
        assert camera.state.reason == f"{path} is not there, or no video"
        write_video(tmp_path / "w.avi", range(2)).rename(path)
        wait_for(lambda: camera.state.state == "ended")
    assert sent.numbers == [0, 1]
    assert sent.said == [
        f"source 'cam' is away ({path} is not there, or no video); it is tried again",
        "source 'cam' is back",
        "source 'cam' has ended",
    ]


def test_a_trigger_takes_the_newest_frame_and_names_its_part(network_camera):
    sent, button = Sent(), Button()
    with running({"device": network_camera.url}, sent, button) as camera:
        wait_for(lambda: camera._reader.newest is not None)
        for part in ("a", "b"):
            reached = network_camera.sent + 5
            wait_for(lambda: number_in(png_of(camera._reader.newest.frame)) >= reached)  # noqa: B023
            before = network_camera.sent
            network_camera.hangs = True
            wait_for(lambda: number_in(png_of(camera._reader.newest.frame)) == network_camera.sent)  # none is kept back
            button.press(TriggerInfo(part=part))
            network_camera.hangs = False
            wait_for(lambda: len(sent.pictures) == len("ab"[: "ab".index(part) + 1]))  # noqa: B023
            assert sent.numbers[-1] >= before
    assert [picture.part for picture in sent.pictures] == ["a", "b"]
    assert sent.said == []


def test_a_camera_whose_trigger_is_away_is_away(network_camera):
    sent, button = Sent(), Button()
    button.reason = "no broker"
    with running({"device": network_camera.url}, sent, button) as camera:
        wait_for(lambda: camera.state.reason == "its trigger: no broker")
        button.reason = ""
        wait_for(lambda: camera.state.state == "running")
    assert sent.said == ["source 'cam' is away (its trigger: no broker); it is tried again", "source 'cam' is back"]


def test_what_cannot_be_taken_is_counted_and_said_once(network_camera, quick):
    sent, button = Sent(), Button()
    sent.is_full = True
    with running({"device": network_camera.url}, sent, button) as camera:
        wait_for(lambda: camera._reader.newest is not None)
        for number in range(1, 4):
            button.press(TriggerInfo())
            wait_for(lambda: camera.state.missed == number)  # noqa: B023
        assert sent.said == ["source 'cam': the queue is full; 1 picture missed since the start"]
        network_camera.switch_off()
        wait_for(lambda: camera.state.state == "away")
        button.press(TriggerInfo())
        assert camera.state.missed == 4
        network_camera.switch_on()
        wait_for(lambda: camera.state.state == "running")
        sent.is_full = False
        button.press(TriggerInfo())
        wait_for(lambda: camera.state.taken == 1)
    assert camera.state.missed == 4


def test_triggers_faster_than_pictures_can_be_sent_do_not_fill_the_memory_and_what_was_taken_is_sent(network_camera):
    sent, button, gate = Sent(), Button(), threading.Event()

    def send(picture: Picture) -> Future:
        gate.wait()
        return sent(picture)

    with running({"device": network_camera.url}, sent, button) as camera:
        camera.send = send
        wait_for(lambda: camera._reader.newest is not None)
        for number in range(30):
            button.press(TriggerInfo(part=str(number)))
        missed = camera.state.missed
        camera.stopped.set()
        gate.set()
    assert missed in (30 - camera_module._WAITING, 30 - camera_module._WAITING - 1)  # one may be with `send` already
    assert camera.state.taken == 30 - missed
    assert [picture.part for picture in sent.pictures] == [str(number) for number in range(30 - missed)]


class HangingDriver(Device):
    """A camera whose driver returns from a read when it likes."""

    def __init__(self) -> None:
        self.frames: queue.SimpleQueue[int] = queue.SimpleQueue()

    def open(self) -> None:
        pass

    def read(self) -> np.ndarray:
        return frame_of(self.frames.get())

    def close(self) -> None:
        pass


def test_a_driver_that_hangs_is_away_and_a_stale_frame_is_not_taken(monkeypatch):
    driver, sent, button = HangingDriver(), Sent(), Button()
    monkeypatch.setattr(camera_module, "make_device", lambda settings: driver)
    driver.frames.put(1)
    with running({"device": 0, "timeout_s": 0.2}, sent, button) as camera:
        wait_for(lambda: camera.state.state == "away")
        assert camera.state.reason == "no frame for 0.2 s"
        button.press(TriggerInfo())
        assert camera.state.missed == 1
        camera._settings = camera._settings.model_copy(update={"timeout_s": 60})
        camera._reader._timeout_s = 60
        driver.frames.put(2)
        wait_for(lambda: camera.state.state == "running" and camera._reader.newest.frame[0, 12, 0] == 235)
        button.press(TriggerInfo())
        wait_for(lambda: camera.state.taken == 1)
        monkeypatch.setattr(camera_module, "_AT_STOP_S", 0.1)
    assert sent.numbers == [2]
    assert camera._reader.is_running  # it still hangs, and nobody waits for it
    driver.frames.put(3)


def part_at(left_px: int | None) -> np.ndarray:
    """A frame with a bright part whose left edge is there; None for an empty place; with some noise."""
    frame = np.full((240, 320, 3), 60, np.uint8)
    if left_px is not None:
        frame[80:160, max(left_px, 0) : max(left_px + 80, 0)] = 200
    noise = np.random.default_rng(0 if left_px is None else left_px + 1000).integers(-6, 7, frame.shape)
    return (frame + noise).astype(np.uint8)


def moving(*places: tuple[int | None, int]) -> list[int | None]:
    """Return the part's place in each frame: it rests for so many frames at each, and moves 16 px a frame between."""
    found: list[int | None] = []
    for place, frames in places:
        if place is not None and found and found[-1] is not None:
            found += list(range(found[-1], place, 16))[1:]
        found += [place] * frames
    return found


# Three parts one after another: each comes in from the left, rests for 15 frames, and leaves to the right.
PARTS = moving((None, 20), *[(-80, 1), (120, 15), (320, 1), (None, 20)] * 3)


def fired_at(trigger: dict, places: list[int | None]) -> list[int]:
    motion, fired = made({"kind": "motion", **trigger}), []
    motion.start(lambda info: fired.append(number))
    for number, place in enumerate(places):
        motion.sees(part_at(place), number / 25)
    return fired


def test_motion_takes_each_part_once_at_rest(tmp_path):
    empty = tmp_path / "empty.png"
    cv2.imwrite(str(empty), part_at(None))
    fired = fired_at({"settle_s": 0.3, "empty": str(empty)}, PARTS)
    assert [PARTS[number] for number in fired] == [120, 120, 120]
    first_at_rest = [n for n, place in enumerate(PARTS) if place == 120 and PARTS[n - 1] != 120]
    assert [number - first for number, first in zip(fired, first_at_rest, strict=True)] == [8, 8, 8]  # 0.32 s


def test_motion_without_a_picture_of_the_empty_place_takes_each_rest():
    fired = fired_at({"settle_s": 0.3}, PARTS)
    assert [PARTS[number] for number in fired] == [120, None] * 3


def test_motion_takes_a_part_that_follows_another_like_it():
    places = moving((120, 20), (320, 1), (-80, 1), (120, 20))
    assert [places[number] for number in fired_at({}, places)] == [120]
    assert fired_at({}, places) == [len(places) - 20 + 8]


def test_slow_motion_is_no_rest_and_noise_no_motion():
    creeping = list(range(0, 200, 4))
    assert fired_at({}, [None] * 20 + creeping) == []
    assert fired_at({}, [None] * 100) == []
    assert fired_at({}, [None] * 20 + creeping + [200] * 10) == [20 + len(creeping) + 8]


def test_a_picture_of_the_empty_place_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"trigger: empty: .*none\.png"):
        Motion(trigger_of({"kind": "motion", "empty": str(tmp_path / "none.png")}))


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (-1, r"source 'cam': device: wanted the index of a camera"),
        (True, r"wanted the index of a camera"),
        ("ftp://anna:s3cret@host/x", r"begins with rtsp:// or http://"),
        ("rtsp://anna:s3/cret@host/x", r"write / : @ # \? in a user's name or password as %2F"),
        ("rtsp://anna:s3#cret@host/x", r"%23"),
        ("rtsp:///x", r"no address"),
    ],
)
def test_a_device_that_cannot_be_is_said_without_its_password(device, message):
    source = {"name": "cam", "kind": "camera", "device": device, "trigger": AT_ONCE}
    with pytest.raises(ConfigError, match=message) as caught:
        setup_of({"sources": [source]})
    assert "cret" not in str(caught.value)
    assert "anna" not in str(caught.value)


def test_repeat_is_for_files():
    source = {"name": "cam", "kind": "camera", "device": "rtsp://anna:s3cret@host/x", "repeat": True}
    with pytest.raises(ConfigError, match=r"repeat is for a video file alone") as caught:
        setup_of({"sources": [source | {"trigger": AT_ONCE}]})
    assert "cret" not in str(caught.value)


def test_an_address_is_shown_without_what_may_be_secret():
    assert shown_device("rtsp://anna:s3%40cret@cam-1:8554/h264?password=s3cret") == "rtsp://cam-1:8554"
    assert shown_device("http://[::1]/user=anna&password=s3cret") == "http://[::1]"
    source = {"name": "cam", "kind": "camera", "device": "rtsp://anna:s3cret@cam-1/", "trigger": AT_ONCE}
    assert "cret" not in repr(setup_of({"sources": [source]}))


def test_a_camera_by_genicam_needs_its_producer_and_the_package(tmp_path):
    def make(device: str) -> None:
        source = {"name": "cam", "kind": "camera", "device": device, "trigger": AT_ONCE}
        make_source(*setup_of({"sources": [source]}).sources, send=Sent(), say=print)

    with pytest.raises(ConfigError, match=r"no GenTL producer .*none\.cti; install the camera's software"):
        make(f"genicam:{tmp_path / 'none.cti'}")
    (tmp_path / "maker.cti").touch()
    with pytest.raises(ConfigError, match=r"pip install harvesters"):
        make(f"genicam:{tmp_path / 'maker.cti'}#1234")


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("station*.md")), ids=name_of)
def test_the_setups_of_the_pages_can_be(page):
    for block in blocks(page, "yaml"):
        plain = yaml.safe_load(block)
        if set(plain) == {"trigger"}:
            assert trigger_of(plain["trigger"]).kind == plain["trigger"]["kind"]
        else:
            setup = setup_of(plain)
            assert setup.sources or setup.sinks


@pytest.mark.slow
def test_a_station_goes_on_when_its_camera_is_back_and_stops_while_it_hangs(models, network_camera, tmp_path):
    def source(name: str, **settings) -> dict:
        return {"name": name, "kind": "camera", "trigger": {"kind": "interval", "seconds": 0.2}, **settings}

    sources = [
        source("net", device=network_camera.url, timeout_s=1.5),
        source("patient", device=network_camera.url, timeout_s=3600),
        source("file", device=str(write_video(tmp_path / "v.avi", range(100, 103))), repeat=True),
        source("none", device=99),
        source("text", device=str(Path(__file__))),
    ]
    station = StationProcess(models / "v1", folder=tmp_path / "station", setup={"sources": sources})

    def states() -> dict[str, dict]:
        return {each["name"]: each for each in station.get("/v1/status")["sources"]}

    def numbers(name: str) -> list[int]:
        results = station.get("/v1/results", source=name, limit=3)["results"]
        return [number_in(station.client.get(f"/v1/results/{result['id']}/picture").content) for result in results]

    def is_inspected(name: str, wanted: Callable[[int], bool]) -> bool:
        return any(map(wanted, numbers(name)))

    with station:
        wait_for(lambda: is_inspected("net", lambda number: number > 0))
        wait_for(lambda: is_inspected("file", lambda number: number in range(100, 103)))
        network_camera.switch_off()
        wait_for(lambda: states()["net"]["state"] == "away")
        signs = [sign["text"] for sign in station.get("/v1/status")["signs"]]
        assert any(re.match(r"Source 'net' is away \(http://127\.0\.0\.1:\d+ ", text) for text in signs)
        before = network_camera.sent
        network_camera.switch_on()
        wait_for(lambda: states()["net"]["state"] == states()["patient"]["state"] == "running")
        wait_for(lambda: is_inspected("net", lambda number: number > before))
        assert states()["none"]["reason"] == "camera 99 cannot be opened; is it connected, and free?"
        assert states()["text"]["reason"] == f"{__file__} is not there, or no video"
        network_camera.hangs = True
        wait_for(lambda: states()["net"]["state"] == "away")
        station.stop()  # checks that it ends, with status 0; the patient camera would hang for an hour
    lines = station.log.read_text().splitlines()
    assert [line for line in lines if not line.startswith("source '")] == []  # nothing of OpenCV's own
    assert "cret" not in station.log.read_text()
