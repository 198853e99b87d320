"""Industrial cameras by GenICam, through a maker's GenTL producer and the package harvesters."""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from supersimplenet.errors import ConfigError
from supersimplenet.station.sources.devices import Device, DeviceError, Frame
from supersimplenet.station.sources.settings import GENICAM
from supersimplenet.utils.formatting import first_line

_FORMATS = {"Mono8": 1, "BGR8": 3, "RGB8": 3}  # channels


class GenICam(Device):
    """A camera of a GenTL producer. It was never run with a real camera: written after the source of harvesters 1.4.3.

    Args:
        device: ``genicam:PRODUCER.cti``, with ``#SERIAL`` where there are several cameras.
        timeout_s: seconds to wait for a frame.

    Raises:
        ConfigError: the producer or the package harvesters is missing.
    """

    def __init__(self, device: str, *, timeout_s: float) -> None:
        self._producer, _, self._serial = device.removeprefix(GENICAM).partition("#")
        self._timeout_s = timeout_s
        if not Path(self._producer).is_file():
            raise ConfigError(
                f"device: there is no GenTL producer {self._producer}; install the camera's software, and name its "
                f"file as {GENICAM}/path/to/PRODUCER.cti"
            )
        if find_spec("harvesters") is None:
            raise ConfigError("device: cameras by GenICam need the package harvesters; pip install harvesters")
        self._harvester: Any = None
        self._camera: Any = None

    def open(self) -> None:
        """Connect, and begin to take frames."""
        from harvesters.core import Harvester

        try:
            self._harvester = Harvester()
            self._harvester.add_file(self._producer)
            self._harvester.update()
            self._camera = self._harvester.create({"serial_number": self._serial} if self._serial else 0)
            self._camera.start()
        except Exception as error:  # each producer has errors of its own
            raise DeviceError(f"camera {self._serial} cannot be opened ({first_line(error)})") from error

    def read(self) -> Frame:
        """Return the next frame."""
        try:
            with self._camera.fetch(timeout=self._timeout_s) as buffer:
                image = buffer.payload.components[0]
                format_, shape, data = image.data_format, (image.height, image.width), np.array(image.data)
        except Exception as error:
            raise DeviceError(f"camera {self._serial} sends no frames any more ({first_line(error)})") from error
        if format_ not in _FORMATS:
            raise DeviceError(f"pixel format {format_}; set the camera to {', '.join(_FORMATS)}")
        channels = _FORMATS[format_]
        frame = data.reshape(shape if channels == 1 else (*shape, channels))
        return np.ascontiguousarray(frame[..., ::-1]) if format_ == "RGB8" else frame

    def close(self) -> None:
        """Disconnect."""
        for part, end in ((self._camera, "stop"), (self._camera, "destroy"), (self._harvester, "reset")):
            if part is not None:
                with suppress(Exception):  # it may be gone
                    getattr(part, end)()
        self._camera = self._harvester = None
