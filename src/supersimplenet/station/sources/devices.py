"""What frames are read from: cameras and video files, through OpenCV."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
from numpy.typing import NDArray

from supersimplenet.station.sources.settings import GENICAM, CameraSource

Frame = NDArray[np.uint8]  # (height, width, 3), blue first, or (height, width)
_FRAMES_A_SECOND = 25.0  # of a file that does not say


class DeviceError(Exception):
    """A camera cannot be opened, or sends no frames any more."""


class Device(ABC):
    """Frames, one after another; used from one thread.

    Attributes:
        pace_s: seconds from frame to frame of a recording; 0 for a camera, which has a pace of its own.
    """

    pace_s: float = 0.0

    @abstractmethod
    def open(self) -> None:
        """Connect.

        Raises:
            DeviceError: it cannot be opened.
        """

    @abstractmethod
    def read(self) -> Frame | None:
        """Return the next frame, when it is there; None at the end of a recording.

        Raises:
            DeviceError: there is none.
        """

    @abstractmethod
    def close(self) -> None:
        """Disconnect; called also where it was not opened, and never raises."""


def make_device(settings: CameraSource) -> Device:
    """Return the device of a source, not opened yet.

    Raises:
        ConfigError: what it needs is not installed.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet: it would print addresses with their passwords
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    if settings.is_file:
        return VideoFile(str(settings.device), repeat=settings.repeat)
    if isinstance(settings.device, str) and settings.device.startswith(GENICAM):
        from supersimplenet.station.sources.genicam import GenICam

        return GenICam(settings.device, timeout_s=settings.timeout_s)
    return LiveVideo(settings.device, timeout_s=settings.timeout_s)


class LiveVideo(Device):
    """A camera at this computer or on the network.

    Args:
        device: index or URL.
        timeout_s: seconds after which a network camera that does not answer is given up; a camera at this computer has
            the timeout of its driver.
    """

    def __init__(self, device: int | str, *, timeout_s: float) -> None:
        self._device, self._timeout_ms = device, round(timeout_s * 1000)
        self._video: cv2.VideoCapture | None = None

    def open(self) -> None:
        """Connect."""
        if isinstance(self._device, int):
            self._video = cv2.VideoCapture(self._device)
            advice = "is it connected, and free"
        else:
            options = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, self._timeout_ms]
            options += [cv2.CAP_PROP_READ_TIMEOUT_MSEC, self._timeout_ms]
            options += [cv2.CAP_PROP_N_THREADS, 1]  # with several, each keeps a frame back, and the newest comes late
            self._video = cv2.VideoCapture(self._device, cv2.CAP_FFMPEG, options)
            advice = "is it on, and are path, user and password right"
        if not self._video.isOpened():
            raise DeviceError(f"{shown_device(self._device)} cannot be opened; {advice}?")

    def read(self) -> Frame:
        """Return the next frame."""
        frame = _next_frame(self._video)
        if frame is None:
            raise DeviceError(f"{shown_device(self._device)} sends no frames any more")
        return frame

    def close(self) -> None:
        """Disconnect."""
        if self._video is not None:
            self._video.release()


class VideoFile(Device):
    """A video file.

    Args:
        path: the file.
        repeat: begin again at its end.
    """

    def __init__(self, path: str, *, repeat: bool) -> None:
        self._path, self._repeat = path, repeat
        self._video: cv2.VideoCapture | None = None
        self._has_frames = False

    def open(self) -> None:
        """Open the file."""
        self._video = cv2.VideoCapture(self._path, cv2.CAP_FFMPEG)
        if not self._video.isOpened():
            raise DeviceError(f"{self._path} is not there, or no video")
        rate = self._video.get(cv2.CAP_PROP_FPS)
        self.pace_s = 1 / (rate if 0 < rate < 1000 else _FRAMES_A_SECOND)

    def read(self) -> Frame | None:
        """Return the next frame; None at the end."""
        frame = _next_frame(self._video)
        if frame is None and self._repeat and self._has_frames:
            self.close()
            self.open()
            frame = _next_frame(self._video)
        if frame is None and not self._has_frames:
            raise DeviceError(f"{self._path} has no frames")
        self._has_frames = True
        return frame

    def close(self) -> None:
        """Close the file."""
        if self._video is not None:
            self._video.release()


def _next_frame(video: cv2.VideoCapture | None) -> Frame | None:
    assert video is not None
    is_read, frame = video.read()
    return np.asarray(frame, dtype=np.uint8) if is_read else None


def shown_device(device: int | str) -> str:
    """Return a device for messages: of an address, without user, password and path, which may hold both."""
    if isinstance(device, int):
        return f"camera {device}"
    if "://" not in device:
        return device
    parts = urlsplit(device)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


def png_of(frame: Frame) -> bytes:
    """Return a frame as a PNG. It is stored, not compressed: that would take longer than the network does.

    2592x1944 px of a noisy scene: 22 ms of CPU time and 39 to read it again, and 15 MB; with OpenCV's own setting 630
    and 350 ms, and 10 MB.
    """
    options = [cv2.IMWRITE_PNG_COMPRESSION, 0, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    _, content = cv2.imencode(".png", frame, options)
    encoded: Any = content
    return bytes(encoded.tobytes())
