"""Files of the package: only regular files are read, within a limit."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from supersimplenet.errors import DataError
from supersimplenet.preprocessing.images import read_pillow
from supersimplenet.utils.files import file_sha256, open_regular, read_regular


def test_a_regular_file_is_read_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_regular(tmp_path / "a", max_bytes=5) == b"12345"
    with pytest.raises(OSError, match="5 bytes; at most 4 are read"):
        read_regular(tmp_path / "a", max_bytes=4)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(b"12345").hexdigest()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_devices_and_folders_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    places = [
        (tmp_path / "pipe", "pipe"),
        (tmp_path / "link", "pipe"),
        (Path("/dev/zero"), "device"),
        (tmp_path, "fold"),
    ]
    for path, kind in places:
        with pytest.raises(OSError, match=f"a .*{kind}.*, not a regular file"):
            open_regular(path)
    with pytest.raises(DataError, match="named pipe, not a regular file"):
        file_sha256(tmp_path / "pipe")


def test_a_reader_allocates_what_a_file_has_and_not_what_it_may_have(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(path)
    tracemalloc.start()
    assert read_regular(path, max_bytes=1 << 30) == path.read_bytes()
    with Image.open(path) as image:
        assert read_pillow(image).shape == (8, 8, 3)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 8 << 20


def test_a_message_is_one_printable_line_whatever_it_quotes():
    message = str(DataError("a\nb\x1b[2J\u202e\udcff.png: " + "x" * 50_000 + "; remove it"))
    assert message.startswith(r"a\nb\x1b[2J\u202e\xff.png: xxx")
    assert message.endswith("xxx; remove it")
    assert len(message) < 3000
