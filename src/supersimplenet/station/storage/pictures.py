"""Pictures on the disk: by the hash of their content, with thumbnails and anomaly maps."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from supersimplenet.preprocessing.decoding import suffix_of
from supersimplenet.preprocessing.images import read_image
from supersimplenet.preprocessing.reading import ReadConfig
from supersimplenet.types import Prediction
from supersimplenet.visualization.colours import CLEAR_BELOW, colours_of, map_steps

_HASH = re.compile(r"[0-9a-f]{32}|[0-9a-f]{64}")
_HEAT_PX = 160  # longest side of a stored map; it is smooth, and is drawn enlarged
_ASKS_EVERY_S = 1.0  # for the free space
_NEW_S = 600.0  # for which a picture that came may have a result that is not in the database yet
# Longest side of a thumbnail, of a picture on a screen, and of one in whose pixels a person draws.
SHOWN_SIDES_PX = (320, 1600, 8192)
SHOWN_KINDS = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp", "gif": "image/gif", "bmp": "image/bmp"}


class PictureStore:
    """Pictures, thumbnails and maps in a folder. No name that was sent is part of a path: hashes and ids alone are.

    A file's date says when its picture came last.

    Args:
        folder: the folder; it is made.

    Attributes:
        unclaimed: hash and kind of pictures that may be of no result, since the start; see `retention.remove_pictures`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pictures, self._maps, self._shown = folder / "pictures", folder / "maps", folder / "shown"
        for own in (self._pictures, self._maps, self._shown):
            for number in range(256):
                (own / f"{number:02x}").mkdir(parents=True, exist_ok=True)
        self._asked_at, self._free = -_ASKS_EVERY_S, 0
        self._dating = threading.Lock()  # of pictures
        self.unclaimed: deque[tuple[str, str]] = deque()

    def picture(self, sha256: str, kind: str) -> Path:
        """Return the path of a picture by the SHA-256 of its content and the suffix of its kind."""
        return _place(self._pictures, sha256, kind)

    def heat(self, id: str) -> Path:  # noqa: A002
        """Return the path of a result's map."""
        return _place(self._maps, id, "png")

    def add_picture(self, content: bytes, sha256: str) -> None:
        """Keep a picture, once however often it comes.

        Raises:
            OSError: it cannot be written.
        """
        path = self.picture(sha256, suffix_of(content))
        with self._dating:
            if path.exists():
                os.utime(path)
                return
        _write(path, content)

    def add_heat(self, id: str, prediction: Prediction) -> None:  # noqa: A002
        """Keep the map of a result, in its colours, to be laid over the picture.

        Raises:
            OSError: it cannot be written.
        """
        _write(self.heat(id), heat_png(prediction))

    def shown(self, sha256: str, kind: str, *, side_px: int, reading: ReadConfig) -> Path:
        """Return a JPEG of a picture as the model saw it, made when it is first asked for.

        Args:
            sha256: hash of the picture.
            kind: suffix of its kind.
            side_px: the longest side, of ``SHOWN_SIDES_PX``.
            reading: how the model reads pictures.

        Raises:
            ImageError: the picture is not there any more.
            OSError: the JPEG cannot be written.
        """
        own = hashlib.sha256(repr((reading, side_px)).encode()).hexdigest()[:8]
        path = _place(self._shown, sha256, f"{own}.jpg")
        if not path.exists():
            _write(path, _jpeg(self.picture(sha256, kind), side_px=side_px, reading=reading))
        return path

    def remove_picture(self, sha256: str, kind: str) -> bool:
        """Remove a picture and what was made of it, but not one that came just now; return whether it is gone."""
        path = self.picture(sha256, kind)
        with self._dating:
            if path.exists() and time.time() - path.stat().st_mtime < _NEW_S:
                return False
            path.unlink(missing_ok=True)
        for shown in (self._shown / sha256[-2:]).glob(f"{sha256}.*.jpg"):
            shown.unlink(missing_ok=True)
        return True

    def take_back(self, id: str, sha256: str, kind: str) -> None:  # noqa: A002
        """Take back what was kept for a result that is not recorded; its picture may be one of other results, too."""
        with suppress(OSError):
            self.remove_heat(id)
        self.unclaimed.append((sha256, kind))

    def remove_heat(self, id: str) -> None:  # noqa: A002
        """Remove the map of a result."""
        self.heat(id).unlink(missing_ok=True)

    def all_pictures(self) -> Iterator[Path]:
        """Yield the files of all pictures."""
        return self._pictures.glob("*/*")

    @property
    def free_bytes(self) -> int:
        """Free space of the disk, asked for once a second."""
        now = time.monotonic()
        if now - self._asked_at >= _ASKS_EVERY_S:
            self._asked_at, self._free = now, shutil.disk_usage(self._folder).free
        return self._free


def heat_png(prediction: Prediction) -> bytes:
    """Return a prediction's anomaly map as a PNG with colours and opacity, in the proportions of its image.

    What lies below the pixel threshold is clear: a good part looks as it was photographed.
    """
    height, width = prediction.placement.image_size_px
    scale = min(1.0, _HEAT_PX / max(height, width))
    size_px = max(1, round(height * scale)), max(1, round(width * scale))
    table = colours_of(prediction, CLEAR_BELOW)
    picture = Image.fromarray(map_steps(prediction, size_px), mode="P")
    picture.putpalette(table.colours.round().astype(np.uint8).tobytes())
    encoded = io.BytesIO()
    opacities = (255 * table.opacities).round().astype(np.uint8).tobytes()
    picture.save(encoded, "PNG", transparency=opacities, compress_level=1)
    return encoded.getvalue()


def levels_png(heat: Path) -> bytes:
    """Return the levels of a stored map, from its file, as a grey PNG of 8 bits that rises with the anomaly.

    They are the steps of its colours (`map_steps`): of a calibrated model, 128 and more reach the pixel threshold.

    Raises:
        OSError: the file cannot be read.
    """
    with Image.open(heat) as picture:
        levels = Image.fromarray(np.asarray(picture))  # of an image with a palette, its indices
    encoded = io.BytesIO()
    levels.save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()


def _jpeg(picture: Path, *, side_px: int, reading: ReadConfig) -> bytes:
    image = Image.fromarray(read_image(picture, reading=reading))
    image.thumbnail((side_px, side_px), Image.Resampling.BILINEAR)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=88)
    return encoded.getvalue()


def _place(folder: Path, name: str, suffix: str) -> Path:
    if not _HASH.fullmatch(name):
        raise ValueError(f"{name!r}: wanted hexadecimal digits")
    return folder / name[-2:] / f"{name}.{suffix}"  # ids begin with the time, and end at random


def _write(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all. It is not waited for: a power cut may lose the last seconds."""
    temporary = path.with_name(f".{path.name}.{threading.get_ident():x}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
