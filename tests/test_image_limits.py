"""What one image file may cost, what is no file, and what Pillow says: each ends in one line that names the file."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from zoo import many_scans, one_tiff, plain_tiff, png, saved, values, zoo

from supersimplenet.cli.main import main
from supersimplenet.errors import ConfigError, ImageError
from supersimplenet.preprocessing.decoding import EncodedImage, image_size
from supersimplenet.preprocessing.image_file import Limits
from supersimplenet.preprocessing.images import read_image, read_mask, read_with_facts
from supersimplenet.preprocessing.reading import ReadConfig

READERS = {
    "read_image": read_image,
    "image_size": image_size,
    "read_mask": lambda path: read_mask(path, image_size_px=None),
    "read_with_facts": read_with_facts,
}


@pytest.fixture(params=READERS)
def reader(request):
    return READERS[request.param]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "MAX_PIXELS",
            142,
            r"13 x 11 px \(height x width\) are above the limit of 142 pixels; make it smaller, or raise",
        ),
        (
            "MAX_SIDE",
            12,
            r"13 x 11 px \(height x width\) are above the limit of 12 px a side; make it smaller, or raise",
        ),
        ("MAX_BYTES", 60, r"\d+ bytes are above the limit of 60; make it smaller, or raise"),
    ],
)
def test_a_limit_names_the_variable_that_raises_it(tmp_path, monkeypatch, reader, variable, value, message):
    path = tmp_path / "part.png"
    path.write_bytes(saved(values(), "PNG"))
    name = f"SUPERSIMPLENET_{variable}"
    monkeypatch.setenv(name, str(value))
    with pytest.raises(ImageError, match=f"^{path}: {message} {name}$"):
        reader(path)
    monkeypatch.setenv(name, "1000")
    reader(path)
    for wrong in ("many", "0", "-3", "1.5"):
        monkeypatch.setenv(name, wrong)
        with pytest.raises(ConfigError, match=f"^{name}: '{wrong}'; wanted a whole number of at least 1"):
            reader(path)


def test_bytes_of_an_archive_have_the_same_limit():
    content = saved(values(), "PNG")
    with pytest.raises(ImageError, match=r"^shard\.tar/1\.png: .* above the limit of 60; make it smaller"):
        read_image(EncodedImage("shard.tar/1.png", lambda: content), limits=Limits(max_bytes=60))


def test_time_is_bounded_by_scans_and_pixels(tmp_path):
    path = tmp_path / "part.jpg"
    path.write_bytes(many_scans())  # a thousand scans: half a minute
    start = time.process_time()
    with pytest.raises(
        ImageError, match=r"JPEG of 239 or more scans of 2,048 x 2,048 px, above the limit of 1,000,000,000"
    ):
        read_image(path)
    assert time.process_time() - start < 1
    assert image_size(path) == (2048, 2048)
    # An ordinary progressive JPEG of 100 million pixels has at most ten scans.
    with pytest.raises(ImageError, match="above the limit of 600,000 scans x pixels"):
        read_image(
            EncodedImage("part", lambda: zoo()["jpeg-colour-0-True-0"].content), limits=Limits(max_scan_pixels=600_000)
        )


NO_MEMORY = """
import resource, sys
from pathlib import Path
from supersimplenet.preprocessing.loading import decode_batches

used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20),) * 2)
for batch in decode_batches(map(Path, sys.argv[1:]), size_px=(8, 8), batch_size=1, on_error="skip"):
    print([path.name for path in batch.paths], [failure.reason for failure in batch.failures])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits its own memory as Linux does")
def test_a_lack_of_memory_costs_one_image(tmp_path):
    large = png([bytes(3)], 8, 2)
    size = (13_000).to_bytes(4, "big") * 2
    header = png([bytes(3)], 8, 2, width=13_000)[8:33].replace(
        (13_000).to_bytes(4, "big") + (1).to_bytes(4, "big"), size
    )
    header = header[:-4] + zlib.crc32(header[4:-4]).to_bytes(4, "big")
    (tmp_path / "large.png").write_bytes(large[:8] + header + large[33:])
    (tmp_path / "small.png").write_bytes(saved(values(3), "PNG"))
    command = [sys.executable, "-c", NO_MEMORY, str(tmp_path / "large.png"), str(tmp_path / "small.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    reason = f"{tmp_path}/large.png: does not fit into memory; make the image smaller"
    assert done.stdout.splitlines() == [f"[] {[reason]}", "['small.png'] []"], done.stderr


@pytest.mark.timeout(20)
def test_only_regular_files_are_read(tmp_path, reader):
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for path, kind in ((pipe, "a named pipe"), (Path("/dev/zero"), "a device")):
        message = rf"^{path}: cannot be opened \({kind}, not a regular file\); check the path and its permissions$"
        with pytest.raises(ImageError, match=message):
            reader(path)


def test_a_page_by_its_number(tmp_path):
    path = tmp_path / "stack.tif"
    pages = [np.full((6 + n, 8), 10 * n, np.uint8) for n in range(3)]
    Image.fromarray(pages[0]).save(path, save_all=True, append_images=[Image.fromarray(page) for page in pages[1:]])
    for number, page in enumerate(pages):
        assert image_size(path, page=number) == page.shape
        np.testing.assert_array_equal(read_image(path, reading=ReadConfig(page=number))[..., 0], page)
    np.testing.assert_array_equal(read_image(path)[..., 0], pages[2])
    with pytest.raises(
        ImageError, match=r"stack\.tif: has no page 3, as it has 3, counted from 0; choose one of them$"
    ):
        read_image(path, reading=ReadConfig(page=3))
    with pytest.raises(ImageError, match=r"^part: has no page 1, as only a TIFF has pages; leave the page out$"):
        read_image(EncodedImage("part", lambda: saved(values(), "PNG")), reading=ReadConfig(page=1))


def test_colours_of_16_bits_are_those_of_the_array(tmp_path):
    pixels = values(3, kind=np.uint16)
    rounded = np.floor(pixels / 257 + 0.5).astype(np.uint8)
    assert (rounded != pixels >> 8).any()  # what Pillow gives
    for name in ("png-3-uint16", "tiff-rgb16-lzw-little", "netpbm-6-65535"):
        np.testing.assert_array_equal(read_image(EncodedImage(name, lambda n=name: zoo()[n].content)), rounded)


# --- warnings ----------------------------------------------------------------------------------------------------


def corrupt_exif() -> bytes:
    """A WebP whose EXIF says that it has more bytes than it has."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x0f\x01\x02\0\x40\0\0\0\x20\0\0\0" + bytes(8)
    return saved(values(3), "WEBP", lossless=True, exif=exif)


def test_a_warning_of_pillow_is_a_refusal():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a user may have silenced warnings
        with pytest.raises(ImageError, match=r"^part: damaged \(UserWarning: Tag data larger than file"):
            read_image(EncodedImage("part", corrupt_exif))


def test_warnings_of_others_and_filters_stay(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(saved(values(), "PNG"))
    before = list(warnings.filters)

    def read_many() -> None:
        for _ in range(30):
            read_image(path)

    threads = [threading.Thread(target=read_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


def test_private_tags_are_no_damage():
    # Pillow warns of a tag that holds two values where it expects one; the pixels are right.
    content = one_tiff(values(), photometric="minisblack", extratags=[(284, 3, 2, (1, 1), True)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_image(EncodedImage("part", lambda: content))[..., 0], values())


def test_a_refusal_by_name():
    content = plain_tiff(bytes(3 * 13 * 11), bits=(24,))
    message = (
        r"^parts/1\.tif: TIFF with 24 bits a sample, 24-bit integer pixels, whose range is unknown; "
        r"scale them and save as 8 or 16 bit$"
    )
    with pytest.raises(ImageError, match=message):
        read_image(EncodedImage("parts/1.tif", lambda: content))


@pytest.mark.timeout(100)
def test_a_training_leaves_out_a_pipe_and_says_so(tmp_path, capsys):
    good = tmp_path / "good"
    good.mkdir()
    for number in range(3):
        (good / f"{number}.png").write_bytes(saved(values(3, seed=number), "PNG"))
    os.mkfifo(good / "9.png")
    command = ["train", "--data", "Folder", "--data.good", str(good), "--output", str(tmp_path / "model")]
    short = ["--model.backbone", "compact", "--model.image_size", "[64,64]", "--trainer.max_steps", "1"]
    assert main([*command, *short, "--trainer.accelerator", "cpu"]) == 0
    assert f"left out: 1 special file ({good}/9.png)" in capsys.readouterr().err
