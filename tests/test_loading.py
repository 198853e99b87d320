"""Decoding ahead: in order, bounded, with nothing dropped in silence."""

from __future__ import annotations

from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from supersimplenet.errors import ImageError
from supersimplenet.preprocessing.loading import decode_batches


@pytest.fixture
def greys(tmp_path: Path) -> list[Path]:
    """Ten images, the n-th of grey level 10 n."""
    paths = [tmp_path / f"{index}.png" for index in range(10)]
    for index, path in enumerate(paths):
        Image.new("L", (8, 6), 10 * index).save(path)
    return paths


def test_batches_keep_the_order(greys):
    batches = list(decode_batches(greys, size_px=(6, 8), batch_size=4))
    assert [batch.index for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [path for batch in batches for path in batch.paths] == greys
    levels = np.concatenate([batch.pixels[:, 0, 0, 0] for batch in batches])
    assert levels.tolist() == [10 * index for index in range(10)]
    assert batches[0].pixels.shape == (4, 6, 8, 3)


def test_reading_ahead_is_bounded(greys):
    """A list without end is read only a few batches ahead of its use."""
    asked = 0

    def endless():
        nonlocal asked
        for path in cycle(greys):
            asked += 1
            yield path

    batches = decode_batches(endless(), size_px=(6, 8), batch_size=2)
    for taken in range(1, 20):
        assert len(next(batches).index) == 2
        assert asked <= 2 * (taken + 3)
    batches.close()


def test_unreadable_images_stop_or_keep_their_place(greys):
    greys[3].write_bytes(b"")
    with pytest.raises(ImageError, match=r"3\.png: empty"):
        list(decode_batches(greys, size_px=(6, 8), batch_size=4))
    batches = list(decode_batches(greys, size_px=(6, 8), batch_size=4, on_error="skip"))
    assert [batch.index for batch in batches] == [[0, 1, 2], [4, 5, 6, 7], [8, 9]]
    (failure,) = batches[0].failures
    assert (failure.index, failure.path) == (3, greys[3])
    assert "3.png: empty" in failure.reason


def test_a_batch_of_failures_is_empty(greys):
    for path in greys[:2]:
        path.write_bytes(b"no image")
    first = next(decode_batches(islice(greys, 2), size_px=(6, 8), batch_size=2, on_error="skip"))
    assert (first.index, first.prepared) == ([], [])
    assert len(first.failures) == 2
