"""Every file of the zoo: its true pixels whatever way it is opened, or a refusal that says why."""

from __future__ import annotations

import io
import re
import time
import warnings

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError
from zoo import Animal, mutated, zoo

from supersimplenet.errors import ImageError
from supersimplenet.preprocessing.decoding import EncodedImage, decode, image_size
from supersimplenet.preprocessing.image_file import Limits
from supersimplenet.preprocessing.images import prepare_pixels, read_image, read_mask, read_pillow

READ = [name for name, animal in zoo().items() if animal.refused is None]
REFUSED = [name for name, animal in zoo().items() if animal.refused is not None]
TURNS = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}


def converted(values: np.ndarray, orientation: int) -> np.ndarray:
    """Return (H, W, 3) uint8 as the documentation describes it, written anew and slowly."""
    pixels = values[:, :, None] if values.ndim == 2 else values
    if pixels.dtype == np.uint16:
        pixels = np.floor(pixels / 257 + 0.5)
    colour, alpha = np.split(pixels.astype(float), [pixels.shape[2] - 1 + pixels.shape[2] % 2], axis=2)
    if alpha.shape[2]:
        colour = np.floor(colour * alpha / 255 + 0.5)
    upright = TURNS.get(orientation, lambda same: same)(colour)
    return np.broadcast_to(upright, (*upright.shape[:2], 3)).astype(np.uint8)


def test_the_zoo_is_large():
    assert len(zoo()) >= 150


@pytest.mark.parametrize("name", READ)
def test_true_pixels(tmp_path, name):
    animal = zoo()[name]
    path = tmp_path / f"{name}.png"  # the content decides, not the name
    path.write_bytes(animal.content)
    read = read_image(path)
    for truth in truths(animal):
        wanted = converted(truth, animal.orientation)
        assert read.shape == wanted.shape
        assert np.abs(read.astype(int) - wanted).max() <= animal.tolerance
    same_whatever_way(animal.content, path, read)


def truths(animal: Animal) -> list[np.ndarray]:
    found = [animal.truth] if animal.truth is not None else []
    if animal.reader is not None:
        found.append(np.asarray(animal.reader(animal.content)))
    assert found, "nothing to compare with"
    return found


def same_whatever_way(content: bytes, path, read: np.ndarray) -> None:
    assert image_size(path) == read.shape[:2]
    np.testing.assert_array_equal(read_image(EncodedImage("in an archive", lambda: content)), read)
    for source in (path, io.BytesIO(content)):
        try:
            image = Image.open(source)
        except UnidentifiedImageError:  # Pillow itself does not open it
            continue
        with image:
            np.testing.assert_array_equal(read_pillow(image), read)
    values, lossy, _ = decode(path)
    np.testing.assert_array_equal(prepare_pixels(np.ascontiguousarray(values)), read)
    colour = values[..., :3].astype(float) * (
        values[..., 3:] / np.iinfo(values.dtype).max if values.shape[2] == 4 else 1
    )
    level = np.floor(colour + 0.5).max(axis=2)
    half = 128 if values.dtype == np.uint8 else 32768
    if lossy or level.max() != 1:
        np.testing.assert_array_equal(read_mask(path, image_size_px=read.shape[:2]), level >= half)


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(tmp_path, name):
    animal = zoo()[name]
    path = tmp_path / "part.tif"
    path.write_bytes(animal.content)
    for reader in (lambda: read_image(path), lambda: read_image(EncodedImage(str(path), lambda: animal.content))):
        with pytest.raises(ImageError, match=f"^{re.escape(str(path))}: .*(?:{animal.refused})") as error:
            reader()
        assert "\n" not in str(error.value)


def test_a_cut_file_is_refused_or_whole():
    for name, animal in zoo().items():
        if animal.refused is not None:
            continue
        content = animal.content
        whole = read_image(EncodedImage(name, lambda c=content: c))
        for length in {*np.linspace(1, len(content) - 1, 9).astype(int).tolist(), len(content) - 2}:
            try:
                read = read_image(EncodedImage(name, lambda c=content[:length]: c))
            except ImageError:
                continue
            np.testing.assert_array_equal(read, whole, err_msg=f"{name} cut to {length} of {len(content)} bytes")


def test_damaged_files_end_in_pixels_or_one_line():
    animals, rng = list(zoo().items()), np.random.default_rng(0)
    limits = Limits(max_pixels=10**6, max_scan_pixels=10**7)
    start, refused = time.perf_counter(), 0
    for number in range(300):
        name, animal = animals[int(rng.integers(len(animals)))]
        content = mutated(animal.content, rng)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                pixels = read_image(EncodedImage(name, lambda c=content: c), limits=limits)
            assert pixels.dtype == np.uint8
        except ImageError as error:
            refused += 1
            lines = str(error).splitlines()
            assert [line[: len(name) + 2] for line in lines] == [f"{name}: "], number
    assert 100 < refused < 300
    assert time.perf_counter() - start < 20
